"""What a window's evidence says: an invalid-traffic ratio, a score, and reasons."""

from __future__ import annotations

import math
from typing import Any, Final

from pipeline.counters import (
    DWELL_MS,
    N_BOUNCES,
    N_COMMENTS,
    N_JUDGED,
    N_LEAVES,
    N_REPEATS,
    N_SHARED_DEVICE,
    N_SUSPECT,
    UNIT,
    Counts,
    unpack,
)
from pipeline.rounding import millionths
from schemas.settings import QualitySettings

Z_90: Final = 1.6449
"""Standard normal quantile of a two-sided 90 % interval."""
NOTABLE_IVT: Final = 0.10
"""Invalid share that is named as a reason; the lowest of the usual warning levels."""
NOTABLE_BOUNCE: Final = 0.50
NOTABLE_REPEATS: Final = 0.20
NOTABLE_SHARED: Final = 0.10


def judged(n_judged: int, n_invalid: int) -> Counts:
    """Return the counters of a slice of which only this is known."""
    return unpack(n_judged * UNIT["n_judged"] + n_invalid * UNIT["n_suspect"])


def ivt_ratio(counts: Counts, settings: QualitySettings) -> float | None:
    """Return the invalid share of judged events, shrunk to the prior; None under the minimum sample.

    Beta-binomial mean with `prior_weight` events at `prior_ratio`.
    """
    n_judged = counts[N_JUDGED]
    if n_judged < settings.min_judged:
        return None
    expected = settings.prior_ratio * settings.prior_weight
    return millionths((min(counts[N_SUSPECT], n_judged) + expected) / (n_judged + settings.prior_weight))


def ivt_interval(counts: Counts, settings: QualitySettings) -> tuple[float, float] | None:
    """Return the 90 % interval of the invalid share; None under the minimum sample.

    Wilson's score interval (1927) of as many cases as there were visits: one visitor's events are no independent
    cases. Where visits do not end in the log, three events count as one case.
    """
    n_judged = counts[N_JUDGED]
    if n_judged < settings.min_judged:
        return None
    n = min(n_judged, max(counts[N_LEAVES], n_judged // 3, 1))
    share = min(max(counts[N_SUSPECT] / n_judged, 0.0), 1.0)
    z2 = Z_90 * Z_90
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_90 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return millionths(max(0.0, middle - half)), millionths(min(1.0, middle + half))


def quality(
    counts: Counts, invalid: float, interaction: float | None, settings: QualitySettings
) -> tuple[float, list[str]]:
    """Return (score 0..100, reasons) of a window with this invalid share.

    Score = 100 x valid share x g(dwell) x g(interaction), g rising from one half to one: short stays and silence
    make traffic poor, only invalid traffic makes it worthless. What is not known costs nothing.
    """
    reasons = []
    if invalid >= NOTABLE_IVT:
        reasons.append("invalid_traffic")
    score = 100.0 * (1.0 - invalid)
    n_leaves = counts[N_LEAVES]
    if n_leaves >= settings.min_judged:
        dwell_s = counts[DWELL_MS] / n_leaves / 1_000
        score *= 0.5 + 0.5 * min(1.0, dwell_s / settings.full_dwell_s)
        if dwell_s < settings.full_dwell_s / 3:
            reasons.append("short_dwell")
        if counts[N_BOUNCES] / n_leaves >= NOTABLE_BOUNCE:
            reasons.append("bounces")
    if interaction is not None:
        score *= 0.5 + 0.5 * min(1.0, interaction / settings.full_interaction_ratio)
        if interaction < settings.full_interaction_ratio / 3:
            reasons.append("little_interaction")
    n_comments = counts[N_COMMENTS]
    if n_comments >= settings.min_judged and counts[N_REPEATS] / n_comments >= NOTABLE_REPEATS:
        reasons.append("repeated_texts")
    if n_leaves >= settings.min_judged and counts[N_SHARED_DEVICE] / n_leaves >= NOTABLE_SHARED:
        reasons.append("shared_devices")
    return round(score, 2), reasons


def quality_metrics(counts: Counts, interaction: float | None, settings: QualitySettings) -> dict[str, Any]:
    """Return a window's metrics of this family, none under the minimum sample."""
    invalid, interval = ivt_ratio(counts, settings), ivt_interval(counts, settings)
    if invalid is None or interval is None:
        return {}
    score, reasons = quality(counts, invalid, interaction, settings)
    return {
        "ivt_ratio": invalid,
        "ivt_low": interval[0],
        "ivt_high": interval[1],
        "quality_score": score,
        "quality_reasons": reasons,
    }
