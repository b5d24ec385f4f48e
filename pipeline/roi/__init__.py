"""Return on spend: attributed, valid, and corrected for orders still due."""

from pipeline.roi.delay import delay_curve_ppm, matured_spend
from pipeline.roi.returns import Return, returns, roas

__all__ = ["Return", "delay_curve_ppm", "matured_spend", "returns", "roas"]
