"""What is watched in a room, as data: where the value comes from, which way is bad, what it would mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from pipeline.buckets import Tally
from pipeline.quality import ivt_ratio
from schemas.anomalies import Cause
from schemas.base import FeedName
from schemas.settings import Policy


class Watched(NamedTuple):
    """A metric under watch.

    `value` returns None under its minimum sample; `floor` and `floor_ratio` are the smallest spread that counts,
    `needs` are the feeds without which the metric means nothing.
    """

    metric: str
    window_s: Literal[60, 300]
    worse: Literal["up", "down"]
    floor: float
    floor_ratio: float
    cause: Cause
    needs: tuple[FeedName, ...]
    value: Callable[[Tally, Policy], float | None]


def _negative_ratio(tally: Tally, policy: Policy) -> float | None:
    n_scored = tally.get("n_scored", 0)
    return tally.get("n_negative", 0) / n_scored if n_scored >= policy.sentiment.min_scored else None


def _rate(part: str, whole: str, min_whole: int) -> Callable[[Tally, Policy], float | None]:
    def value(tally: Tally, _: Policy) -> float | None:
        n = tally.get(whole, 0)
        return tally.get(part, 0) / n if n >= min_whole else None

    return value


WATCHED: Final = (
    # A floor of 2.5 points: four of them make the 10 % at which invalid traffic is usually warned of.
    Watched("ivt_ratio", 60, "up", 0.025, 0.5, "ivt", ("view",), lambda tally, p: ivt_ratio(tally, p.quality)),
    Watched("negative_ratio", 60, "up", 0.06, 0.25, "content", ("comment",), _negative_ratio),
    # Orders a product click: the link that sells, or does not. Sales come in bursts, hence the wide floor.
    Watched(
        "order_ratio", 300, "down", 0.01, 0.15, "landing_page", ("view", "order"),
        _rate("n_orders_created", "n_product_clicks", 30),
    ),
    # 2,000 impressions before a click-through rate is judged: the usual practice.
    Watched("ctr", 300, "down", 0.001, 0.08, "creative", ("spend",), _rate("clicks", "impressions", 2_000)),
    # 30 clicks: below, one late report moves the price of a click by itself.
    Watched("cpc_minor", 60, "up", 1.0, 0.12, "auction_pressure", ("spend",), _rate("spend_minor", "clicks", 30)),
)  # fmt: skip
