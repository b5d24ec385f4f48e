"""A window's counters to the metrics that go over the wire."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from pipeline.counters import (
    CLICKS,
    COST,
    DWELL_MS,
    FIRST_TOPIC,
    GMV,
    GMV_COSTED,
    IMPRESSIONS,
    N_ADD_TO_CART,
    N_BOUNCES,
    N_LEAVES,
    N_NEGATIVE,
    N_ORDERS_CREATED,
    N_ORDERS_PAID,
    N_PAID_ATTRIBUTED,
    N_PRODUCT_CLICKS,
    N_SCORED,
    PLACE,
    REFUND,
    REFUND_COSTED,
    SENTIMENT_MILLI,
    SPEND,
    TOPICS,
    Counts,
)
from pipeline.quality import quality_metrics
from pipeline.roi import Return
from pipeline.rounding import millionths
from schemas.base import MAX_INTEGER
from schemas.settings import Policy

COUNTS: Final = {
    "view": ("n_enters",),
    "interaction": ("n_interactions", "n_product_clicks", "n_add_to_cart"),
    "comment": ("n_comments", "n_scored"),
    "order": ("n_orders_created", "n_orders_paid", "n_refunds", "gmv_minor", "refund_minor"),
    "gift": ("gift_minor",),
    "spend": ("impressions", "clicks", "spend_minor"),
    **{
        f"counts.{name}": (name,)
        for name in ("n_enters", "n_interactions", "n_product_clicks", "n_add_to_cart", "n_comments")
    },
}
"""Counters by the type of event that carries them: of a type never seen none is told, since 0 would be a claim."""
PRIOR: Final = ("gmv_minor", "refund_minor", "spend_minor", "gift_minor")


@lru_cache(maxsize=4_096)
def told_counts(kinds: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Return the counters (name, place) that are told of a room that had these types of event."""
    names = dict.fromkeys(name for kind in kinds for name in COUNTS.get(kind, ()))
    return tuple((name, PLACE[name]) for name in names)


def share(part: int, whole: int) -> float | None:
    """Return part / whole; None when there is no whole."""
    return millionths(part / whole) if whole > 0 else None


def rounded_ratio(numerator: int, denominator: int) -> int:
    """Return the quotient as an integer, half to even, exactly."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))


def topic_shares(counts: Counts) -> dict[str, float]:
    """Return the share of negative comments that name each topic, where they are any; a comment may name several."""
    n_negative = counts[N_NEGATIVE]
    named = zip(TOPICS, counts[FIRST_TOPIC : FIRST_TOPIC + len(TOPICS)], strict=True)
    return {topic: millionths(n / n_negative) for topic, n in named if n > 0 < n_negative}


def compute(
    counts: Counts,
    policy: Policy,
    returned: Return,
    *,
    told: tuple[tuple[str, int], ...],
    dwell_p50_ms: int | None,
    n_users: int | None,
    n_active: int | None,
) -> dict[str, Any]:
    """Return the metrics of one window as the fields of `schemas.signals.Metrics`; what is not known is left out.

    `told` are the counters to tell. `n_users` and `n_active` (those who commented or interacted) are estimates and
    may be None.
    """
    metrics: dict[str, Any] = {}
    for name, place in told:
        n = counts[place]
        metrics[name] = n if n < MAX_INTEGER else MAX_INTEGER
    interaction = None
    if n_users is not None:
        metrics["n_users"] = n_users
        if n_users:
            interaction = metrics["interaction_ratio"] = millionths(min(1.0, (n_active or 0) / n_users))
    if (paid := counts[N_ORDERS_PAID]) > 0:
        metrics["aov_minor"] = rounded_ratio(counts[GMV], paid)
    roi = policy.roi
    if (impressions := counts[IMPRESSIONS]) >= roi.min_impressions:
        metrics["ctr"] = millionths(counts[CLICKS] / impressions)
    if (clicks := counts[CLICKS]) >= roi.min_clicks:
        metrics["cvr"] = millionths(counts[N_PAID_ATTRIBUTED] / clicks)
    if (product_clicks := counts[N_PRODUCT_CLICKS]) >= roi.min_clicks:
        metrics["cart_ratio"] = millionths(counts[N_ADD_TO_CART] / product_clicks)
    if (created := counts[N_ORDERS_CREATED]) >= roi.min_orders_created:
        metrics["pay_ratio"] = millionths(paid / created)
    if (n_leaves := counts[N_LEAVES]) > 0:
        metrics["bounce_ratio"] = millionths(counts[N_BOUNCES] / n_leaves)
        metrics["dwell_mean_s"] = round(counts[DWELL_MS] / n_leaves / 1_000, 3)
    if dwell_p50_ms is not None:
        metrics["dwell_p50_s"] = round(dwell_p50_ms / 1_000, 3)
    metrics |= quality_metrics(counts, interaction, policy.quality)
    if (n_scored := counts[N_SCORED]) > 0:
        metrics["sentiment_mean"] = millionths(counts[SENTIMENT_MILLI] / n_scored / 1_000)
        metrics["negative_ratio"] = millionths(counts[N_NEGATIVE] / n_scored)
        if counts[N_NEGATIVE] > 0:
            metrics["topics"] = topic_shares(counts)
    if returned.whole is not None:
        metrics["roas"] = returned.whole
        metrics["roas_attributed"] = returned.attributed
        metrics["roas_valid"] = returned.valid
    if returned.maturity is not None:
        metrics["roas_maturity"] = returned.maturity
        if returned.mature is not None:
            metrics["roas_mature"] = returned.mature
            if returned.low is not None:
                metrics["roas_low"], metrics["roas_high"] = returned.low, returned.high
    earned = contribution_minor(counts, roi.margin_ratio)
    if earned is not None:
        metrics["contribution_minor"] = earned
    return metrics


def contribution_minor(counts: Counts, margin: float | None) -> int | None:
    """Return what is left of net sales after their costs and the spend; None while some costs are unknown.

    Orders that named their goods' cost and commission count with those, the others with the configured margin.
    """
    costed = counts[GMV_COSTED] - counts[REFUND_COSTED]
    rest = counts[GMV] - counts[REFUND] - costed
    if margin is None and (counts[GMV_COSTED] <= 0 or counts[GMV] != counts[GMV_COSTED] or rest != 0):
        return None
    # Margin in millionths keeps the money exact.
    return costed - counts[COST] + rounded_ratio(rest * round((margin or 0.0) * 1_000_000), 1_000_000) - counts[SPEND]
