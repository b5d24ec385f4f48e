"""Traffic quality: evidence of invalid traffic, what it says about a window, whom it blames."""

from pipeline.quality.evidence import Credit, Evidence
from pipeline.quality.score import ivt_interval, ivt_ratio, judged, quality
from pipeline.quality.verdict import is_invalid

__all__ = ["Credit", "Evidence", "is_invalid", "ivt_interval", "ivt_ratio", "judged", "quality"]
