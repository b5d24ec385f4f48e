"""What is watched in a room, as data: where the value comes from, which way is bad, what it would mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from pipeline.buckets import Tally
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
    sample: Callable[[Tally, Policy], Sample | None]
    noise: Callable[[float, int], float]
    min_n: int
    min_past_n: int
    floor: float
    floor_ratio: float


def binomial_noise(expected: float, n: int) -> float:
    """Return the standard deviation of a share of `n` events."""
    return math.sqrt(max(expected * (1.0 - expected), 0.0) / n)


def poisson_noise(expected: float, n: int) -> float:
    """Return the standard deviation of a mean over `n` counted events."""
    return expected / math.sqrt(n)


def _rate(part: str, whole: str) -> Callable[[Tally, Policy], Sample | None]:
    def sample(tally: Tally, _: Policy) -> Sample | None:
        n = tally.get(whole, 0)
        return Sample(tally.get(part, 0) / n, n) if n > 0 else None

    return sample


def _invalid(tally: Tally, policy: Policy) -> Sample | None:
    ratio = ivt_ratio(tally, policy.quality)
    return None if ratio is None else Sample(ratio, tally["n_judged"])


WATCHED: Final = (
    # A floor of 2.5 points: four of them make the 10 % at which invalid traffic is usually warned of.
    Watched("ivt_ratio", 60, "up", "ivt", ("view",), _invalid, binomial_noise, 30, 30, 0.025, 0.5),
    # Twenty opinions before anyone acts on a mood; a quarter of them negative after none is still chance: 8 points.
    Watched(
        "negative_ratio", 300, "up", "content", ("comment",),
        _rate("n_negative", "n_scored"), binomial_noise, 20, 8, 0.08, 0.25,
    ),
    # Orders a product click: the link that sells, or does not. Sales come in bursts, hence the wide floor.
    Watched(
        "order_ratio", 300, "down", "landing_page", ("view", "order"),
        _rate("n_orders_created", "n_product_clicks"), binomial_noise, 30, 15, 0.01, 0.15,
    ),
    # 2,000 impressions before a click-through rate is judged: the usual practice.
    Watched(
        "ctr", 300, "down", "creative", ("spend",),
        _rate("clicks", "impressions"), binomial_noise, 2_000, 500, 0.001, 0.08,
    ),
    # 30 clicks: below, one late report moves the price of a click by itself.
    Watched(
        "cpc_minor", 300, "up", "auction_pressure", ("spend",),
        _rate("spend_minor", "clicks"), poisson_noise, 30, 15, 1.0, 0.12,
    ),
)  # fmt: skip
