"""Traffic quality: evidence of invalid traffic, what it says about a window, whom it blames."""

from pipeline.quality.evidence import Credit, Evidence
from pipeline.quality.score import ivt_interval, ivt_ratio, judged, quality, quality_metrics
from pipeline.quality.verdict import is_invalid
from pipeline.quality.writers import LEAST_CHARACTERS

__all__ = [
    "LEAST_CHARACTERS",
    "Credit",
    "Evidence",
    "is_invalid",
    "ivt_interval",
    "ivt_ratio",
    "judged",
    "quality",
    "quality_metrics",
]
