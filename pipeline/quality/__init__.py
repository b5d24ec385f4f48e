"""Traffic quality: evidence of invalid traffic, and what it says about a window."""

from pipeline.quality.evidence import DEVICE_MEMORY_MS, Evidence, Verdict
from pipeline.quality.score import ivt_ratio, quality

__all__ = ["DEVICE_MEMORY_MS", "Evidence", "Verdict", "ivt_ratio", "quality"]
