"""Traffic quality: evidence of invalid traffic, and what it says about a window."""

from pipeline.quality.evidence import Evidence, Verdict
from pipeline.quality.score import ivt_ratio, quality

__all__ = ["Evidence", "Verdict", "ivt_ratio", "quality"]
