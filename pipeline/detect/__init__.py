"""Is this value strange? One detector a file, each `update(value, ts) -> tail probability`."""

from pipeline.detect.base import Judgement
from pipeline.detect.robust import RobustDeviation
from pipeline.detect.watched import WATCHED, Sample, Watched

__all__ = ["WATCHED", "Judgement", "RobustDeviation", "Sample", "Watched"]
