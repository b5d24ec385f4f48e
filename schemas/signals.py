"""`room.signals`: what a room looks like, window by window."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Count, Currency, Dimension, FeedState, Identifier, Mode, Stage, TimestampMs, WireModel


class Metrics(WireModel):
    """One window of one room or channel. A field that is not known is left out.

    Ratios are fractions. Minimum samples: `ivt_ratio` and `quality_score` 30 judged events, sentiment means and
    topics 1 scored comment (20 before anyone acts), `ctr` 200 impressions, `cvr` 30 clicks, `cart_ratio` 30 product
    clicks, `pay_ratio` 10 orders, `roas_mature` maturity 0.3, its band 5 orders of the window's own spend,
    `return_shift` (900 s alone) half an hour and 20 orders of a kind.
    """

    n_enters: int | None = None
    n_online: int | None = None
    n_users: int | None = None
    n_comments: int | None = None
    n_interactions: int | None = None
    n_product_clicks: int | None = None
    n_add_to_cart: int | None = None
    n_orders_created: int | None = None
    n_orders_paid: int | None = None
    n_refunds: int | None = None
    impressions: int | None = None
    clicks: int | None = None
    gmv_minor: int | None = None
    refund_minor: int | None = None
    spend_minor: int | None = None
    aov_minor: int | None = None
    gift_minor: int | None = None
    contribution_minor: int | None = None
    prior_gmv_minor: int | None = None
    prior_refund_minor: int | None = None
    prior_spend_minor: int | None = None
    prior_gift_minor: int | None = None
    ctr: float | None = None
    cvr: float | None = None
    interaction_ratio: float | None = None
    cart_ratio: float | None = None
    pay_ratio: float | None = None
    bounce_ratio: float | None = None
    dwell_mean_s: float | None = None
    dwell_p50_s: float | None = None
    ivt_ratio: float | None = None
    ivt_low: float | None = None
    ivt_high: float | None = None
    quality_score: float | None = None
    quality_reasons: list[str] | None = None
    sentiment_mean: float | None = None
    negative_ratio: float | None = None
    n_scored: int | None = None
    topics: dict[str, float] | None = None
    roas: float | None = None
    roas_attributed: float | None = None
    roas_valid: float | None = None
    roas_mature: float | None = None
    roas_maturity: float | None = None
    roas_low: float | None = None
    roas_high: float | None = None
    return_shift: Literal["organic_surge", "paid_decline", "masked_decline"] | None = None
    freshness_s: dict[str, float] | None = None
    feed_state: dict[str, FeedState] | None = None


class Crowded(WireModel):
    """A place that holds more of the last hour's negative comments than its share of the opinions explains."""

    by: Literal["product_id", "minute", "topic"]
    value: str = Field(description="the product, the topic, or the minute's first moment in ms")
    n_negative: Count
    n_scored: Count
    negative_share: float = Field(description="of the hour's negative comments")
    scored_share: float = Field(description="of the hour's opinions")


class RoomSignals(WireModel):
    """One emission: the evaluation at `ts`, over each window that ends there."""

    room_id: Identifier
    ts: TimestampMs
    revision: int
    currency: Currency | None = None
    stage: Stage
    mode: Mode
    n_shed: int | None = Field(
        default=None,
        description="comments counted but not read and heartbeats not noted, so far: the room was over its quota",
    )
    windows: dict[str, Metrics]
    channels: dict[str, dict[str, Metrics]] | None = None
    segments: dict[str, dict[str, Metrics]] | None = None
    dimensions: dict[Dimension, dict[str, dict[str, Metrics]]] | None = Field(
        default=None, description="with the channels: each value's metrics over 300 s and the session"
    )
    dimensions_since_ts: TimestampMs | None = Field(
        default=None, description="since when they count, where that is not since the session's beginning"
    )
    crowded: list[Crowded] | None = Field(
        default=None,
        description="with the channels: where the last hour's negative comments concentrate; left out when nowhere",
    )
