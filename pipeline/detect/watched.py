"""What is watched in a room, as data: where the value comes from, which way is bad, what it would mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from pipeline.counters import (
    CLICKS,
    IMPRESSIONS,
    N_JUDGED,
    N_NEGATIVE,
    N_ORDERS_CREATED,
    N_PRODUCT_CLICKS,
    N_SCORED,
    SPEND,
    Counts,
)
from pipeline.quality import ivt_ratio
from schemas.anomalies import Cause
from schemas.base import FeedName
from schemas.settings import Policy


class Sample(NamedTuple):
    """A metric's value now, and how many events it rests on."""

    value: float
    n: int


class Watched(NamedTuple):
    """A metric under watch.

    `min_n` events are needed to judge a value and `min_past_n` to let it join the past; `noise(expected, n)` is
    the spread that counting alone gives; `floor` and `floor_ratio` are the smallest spread that matters; `needs`
    are the feeds without which the metric means nothing.
    """

    metric: str
    window_s: Literal[60, 300]
    worse: Literal["up", "down"]
    cause: Cause
    needs: tuple[FeedName, ...]
    sample: Callable[[Counts, Policy], Sample | None]
    noise: Callable[[float, int], float]
    min_n: int
    min_past_n: int
    floor: float
    floor_ratio: float
    whole: int
    """Place of the counter that `n` counts: the quick way to see that there are too few."""


def binomial_noise(expected: float, n: int) -> float:
    """Return the standard deviation of a share of `n` events."""
    return math.sqrt(max(expected * (1.0 - expected), 0.0) / n)


def poisson_noise(expected: float, n: int) -> float:
    """Return the standard deviation of a mean over `n` counted events."""
    return expected / math.sqrt(n)


def _rate(part: int, whole: int) -> Callable[[Counts, Policy], Sample | None]:
    def sample(counts: Counts, _: Policy) -> Sample | None:
        n = counts[whole]
        return Sample(counts[part] / n, n) if n > 0 else None

    return sample


def _invalid(counts: Counts, policy: Policy) -> Sample | None:
    ratio = ivt_ratio(counts, policy.quality)
    return None if ratio is None else Sample(ratio, counts[N_JUDGED])


WATCHED: Final = (
    # A floor of 2.5 points: four of them make the 10 % at which invalid traffic is usually warned of.
    Watched("ivt_ratio", 60, "up", "ivt", ("view",), _invalid, binomial_noise, 30, 30, 0.025, 0.5, N_JUDGED),
    # Twenty opinions before anyone acts on a mood; a quarter of them negative after none is still chance: 8 points.
    Watched(
        "negative_ratio", 300, "up", "content", ("comment",),
        _rate(N_NEGATIVE, N_SCORED), binomial_noise, 20, 8, 0.08, 0.25, N_SCORED,
    ),
    # Orders a product click: the link that sells, or does not. Sales come in bursts, hence the wide floor.
    Watched(
        "order_ratio", 300, "down", "landing_page", ("view", "order"),
        _rate(N_ORDERS_CREATED, N_PRODUCT_CLICKS), binomial_noise, 30, 15, 0.01, 0.15, N_PRODUCT_CLICKS,
    ),
    # 2,000 impressions before a click-through rate is judged: the usual practice.
    Watched(
        "ctr", 300, "down", "creative", ("spend",),
        _rate(CLICKS, IMPRESSIONS), binomial_noise, 2_000, 500, 0.001, 0.08, IMPRESSIONS,
    ),
    # 30 clicks: below, one late report moves the price of a click by itself.
    Watched(
        "cpc_minor", 300, "up", "auction_pressure", ("spend",),
        _rate(SPEND, CLICKS), poisson_noise, 30, 15, 1.0, 0.12, CLICKS,
    ),
)  # fmt: skip
