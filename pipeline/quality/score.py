"""What a window's evidence says: an invalid-traffic ratio, a score, and reasons."""

from __future__ import annotations

from typing import Final

from pipeline.buckets import Tally
from schemas.settings import QualitySettings

NOTABLE_IVT: Final = 0.10
"""Invalid share that is named as a reason; the lowest of the usual warning levels."""
NOTABLE_BOUNCE: Final = 0.50
NOTABLE_REPEATS: Final = 0.20
NOTABLE_SHARED: Final = 0.10


def ivt_ratio(tally: Tally, settings: QualitySettings) -> float | None:
    """Return the invalid share of judged events, shrunk to the prior; None under the minimum sample.

    Beta-binomial mean with `prior_weight` events at `prior_ratio`: few events cannot shout.
    """
    n_judged = tally.get("n_judged", 0)
    if n_judged < settings.min_judged:
        return None
    expected = settings.prior_ratio * settings.prior_weight
    return round((tally.get("n_suspect", 0) + expected) / (n_judged + settings.prior_weight), 6)


def quality(tally: Tally, interaction: float | None, settings: QualitySettings) -> tuple[float, list[str]] | None:
    """Return (score 0..100, reasons), None under the minimum sample.

    Score = 100 x valid share x g(dwell) x g(interaction), g rising from one half to one: short stays and silence
    make traffic poor, only invalid traffic makes it worthless. What is not known costs nothing.
    """
    invalid = ivt_ratio(tally, settings)
    if invalid is None:
        return None
    reasons = []
    if invalid >= NOTABLE_IVT:
        reasons.append("invalid_traffic")
    score = 100.0 * (1.0 - invalid)
    n_leaves = tally.get("n_leaves", 0)
    if n_leaves >= settings.min_judged:
        dwell_s = tally.get("dwell_ms", 0) / n_leaves / 1_000
        score *= 0.5 + 0.5 * min(1.0, dwell_s / settings.full_dwell_s)
        if dwell_s < settings.full_dwell_s / 3:
            reasons.append("short_dwell")
        if tally.get("n_bounces", 0) / n_leaves >= NOTABLE_BOUNCE:
            reasons.append("bounces")
    if interaction is not None:
        score *= 0.5 + 0.5 * min(1.0, interaction / settings.full_interaction_ratio)
        if interaction < settings.full_interaction_ratio / 3:
            reasons.append("little_interaction")
    n_comments = tally.get("n_comments", 0)
    if n_comments >= settings.min_judged and tally.get("n_repeats", 0) / n_comments >= NOTABLE_REPEATS:
        reasons.append("repeated_texts")
    if tally.get("n_shared_device", 0) / tally["n_judged"] >= NOTABLE_SHARED:
        reasons.append("shared_devices")
    return round(score, 2), reasons
