"""Return on ad spend in its four readings, with a band."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from pipeline.buckets import Tally
from pipeline.roi.delay import Matured
from pipeline.sketches import bin_value
from schemas.settings import RoiSettings

Z_90: Final = 1.6449
"""Normal quantile of a two-sided 90 % interval."""


def roas(net_gmv_minor: int, spend_minor: int) -> float | None:
    """Return net merchandise value earned per unit of ad spend; None when nothing was spent.

    >>> roas(12_500, 5_000)
    2.5
    """
    return round(net_gmv_minor / spend_minor, 6) if spend_minor > 0 else None


class Return(NamedTuple):
    """One window's return; what is not known is None."""

    whole: float | None
    attributed: float | None
    valid: float | None
    maturity: float | None
    mature: float | None
    low: float | None
    high: float | None


def net_attributed_minor(tally: Tally, *, valid: bool) -> int:
    """Return net value of paid traffic's orders, invalid traffic's left out on request."""
    suffix = "valid" if valid else "attributed"
    return tally.get(f"gmv_{suffix}", 0) - tally.get(f"refund_{suffix}", 0)


def relative_error(amounts: Tally) -> float | None:
    """Return the coefficient of variation of the window's attributed sales; None for none.

    Orders come as a compound Poisson process: variance of the sum = sum of squares, here from binned amounts.
    """
    bins = {int(name[7:]): n for name, n in amounts.items() if name.startswith("amount:")}
    total = sum(n * bin_value(b) for b, n in bins.items())
    if total <= 0:
        return None
    return math.sqrt(sum(n * bin_value(b) ** 2 for b, n in bins.items() if n > 0)) / total


def returns(tally: Tally, amounts: Tally, matured: Matured, settings: RoiSettings) -> Return:
    """Return every reading of a window's return; `amounts` are its binned order values.

    Matured return = valid net value / spend whose return is due. Below `maturity_floor` it is not told; its 90 %
    band (log-normal around it) needs `min_orders` attributed orders.
    """
    spend = tally.get("spend_minor", 0)
    whole = roas(tally.get("gmv_minor", 0) - tally.get("refund_minor", 0), spend)
    attributed = roas(net_attributed_minor(tally, valid=False), spend)
    valid = roas(net_attributed_minor(tally, valid=True), spend)
    maturity = matured.maturity
    mature = low = high = None
    if valid is not None and maturity is not None and maturity >= settings.maturity_floor:
        mature = round(valid / maturity, 6)
        enough = tally.get("n_paid_attributed", 0) >= settings.min_orders and mature > 0
        error = relative_error(amounts) if enough else None
        if error is not None:
            factor = math.exp(Z_90 * error)
            low, high = round(mature / factor, 6), round(mature * factor, 6)
    return Return(whole, attributed, valid, maturity, mature, low, high)
