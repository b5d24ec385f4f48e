"""A window's counters to the metrics that go over the wire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pipeline.buckets import Tally
from pipeline.quality import ivt_ratio, quality
from pipeline.roi import Return
from pipeline.sketches import quantile
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
TOPICS: Final = ("price", "quality", "logistics", "host", "tech", "authenticity", "other")


def share(part: int, whole: int) -> float | None:
    """Return part / whole; None when there is no whole."""
    return round(part / whole, 6) if whole > 0 else None


def rounded_ratio(numerator: int, denominator: int) -> int:
    """Return the quotient as an integer, half to even, exactly."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))


def this_session(total: Tally) -> Tally:
    """Return the session's own counters: what belongs to a session before it taken out."""
    if "past:" not in total:
        return total
    past = {name[5:]: n for name, n in total.items() if name.startswith("past:")}
    return {name: n - past.get(name, 0) for name, n in total.items() if not name.startswith("past:")}


def compute(
    tally: Tally,
    policy: Policy,
    returned: Return,
    *,
    bins: Tally,
    kinds: Iterable[str],
    n_users: int | None,
    n_active: int | None,
) -> dict[str, Any]:
    """Return the metrics of one window as the fields of `schemas.signals.Metrics`; what is not known is left out.

    `bins` are the window's binned durations, `kinds` the types of event the room ever had. `n_users` and `n_active`
    (those who commented or interacted) are estimates and may be None.
    """
    get = tally.get
    values: dict[str, Any] = {name: min(get(name, 0), MAX_INTEGER) for kind in kinds for name in COUNTS.get(kind, ())}
    interaction = round(min(1.0, (n_active or 0) / n_users), 6) if n_users else None
    paid, n_leaves, n_scored = get("n_orders_paid", 0), get("n_leaves", 0), get("n_scored", 0)
    p50 = quantile({int(name[6:]): n for name, n in bins.items() if name.startswith("dwell:")}, 0.5) if bins else None
    optional: dict[str, Any] = {
        "n_users": n_users,
        "aov_minor": rounded_ratio(get("gmv_minor", 0), paid) if paid > 0 else None,
        "ctr": share(get("clicks", 0), get("impressions", 0)),
        "cvr": share(get("n_paid_attributed", 0), get("clicks", 0)),
        "interaction_ratio": interaction,
        "cart_ratio": share(get("n_add_to_cart", 0), get("n_product_clicks", 0)),
        "pay_ratio": share(paid, get("n_orders_created", 0)),
        "bounce_ratio": share(get("n_bounces", 0), n_leaves),
        "dwell_mean_s": round(get("dwell_ms", 0) / n_leaves / 1_000, 3) if n_leaves > 0 else None,
        "dwell_p50_s": round(p50 / 1_000, 3) if p50 is not None else None,
        "ivt_ratio": ivt_ratio(tally, policy.quality),
    }
    judged = quality(tally, interaction, policy.quality)
    if judged is not None:
        optional["quality_score"], optional["quality_reasons"] = judged
    if n_scored > 0:
        optional["sentiment_mean"] = round(get("sentiment_milli", 0) / n_scored / 1_000, 6)
        n_negative = get("n_negative", 0)
        optional["negative_ratio"] = share(n_negative, n_scored)
        if n_negative > 0:
            optional["topics"] = {t: round(n / n_negative, 6) for t in TOPICS if (n := get(f"topic:{t}", 0)) > 0}
    optional |= {
        "roas": returned.whole,
        "roas_attributed": returned.attributed,
        "roas_valid": returned.valid,
        "roas_mature": returned.mature,
        "roas_maturity": returned.maturity,
        "roas_low": returned.low,
        "roas_high": returned.high,
    }
    margin = policy.roi.margin_ratio
    if margin is not None:
        # Margin in millionths keeps the money exact.
        net = (get("gmv_minor", 0) - get("refund_minor", 0)) * round(margin * 1_000_000)
        optional["contribution_minor"] = rounded_ratio(net, 1_000_000) - get("spend_minor", 0)
    return values | {name: value for name, value in optional.items() if value is not None}
