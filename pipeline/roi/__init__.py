"""Return on spend: attributed, valid, net of what comes back, and corrected for orders still due."""

from pipeline.roi.cohorts import due
from pipeline.roi.learn import curve_of, refresh
from pipeline.roi.returns import Learned, Return, returns, roas
from pipeline.roi.state import ROOM, ReturnState

__all__ = ["ROOM", "Learned", "Return", "ReturnState", "curve_of", "due", "refresh", "returns", "roas"]
