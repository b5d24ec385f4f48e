"""Return on ad spend in its four readings, with a band."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from pipeline.counters import (
    GMV,
    GMV_ATTRIBUTED,
    GMV_VALID,
    N_PAID_ATTRIBUTED,
    REFUND,
    REFUND_ATTRIBUTED,
    REFUND_VALID,
    SPEND,
    Counts,
)
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


NOTHING_SPENT: Final = Return(None, None, None, None, None, None, None)


def relative_error(amounts: Mapping[int, int]) -> float | None:
    """Return the coefficient of variation of the window's attributed sales, by bin; None for none.

    Orders come as a compound Poisson process: variance of the sum = sum of squares, here from binned amounts.
    """
    total = sum(n * bin_value(b) for b, n in amounts.items())
    if total <= 0:
        return None
    return math.sqrt(sum(n * bin_value(b) ** 2 for b, n in amounts.items() if n > 0)) / total


def returns(counts: Counts, amounts: Mapping[int, int], matured: Matured, settings: RoiSettings) -> Return:
    """Return every reading of a window's return; `amounts` are its binned order values.

    Matured return = valid net value / spend whose return is due. Below `maturity_floor` it is not told; its 90 %
    band (log-normal around it) needs `min_orders` attributed orders.
    """
    spend, maturity = counts[SPEND], matured.maturity
    if spend <= 0 and maturity is None:
        return NOTHING_SPENT
    whole = roas(counts[GMV] - counts[REFUND], spend)
    attributed = roas(counts[GMV_ATTRIBUTED] - counts[REFUND_ATTRIBUTED], spend)
    valid = roas(counts[GMV_VALID] - counts[REFUND_VALID], spend)
    mature = low = high = None
    if valid is not None and maturity is not None and maturity >= settings.maturity_floor:
        mature = round(valid / maturity, 6)
        enough = counts[N_PAID_ATTRIBUTED] >= settings.min_orders and mature > 0
        error = relative_error(amounts) if enough else None
        if error is not None:
            factor = math.exp(Z_90 * error)
            low, high = round(mature / factor, 6), round(mature * factor, 6)
    return Return(whole, attributed, valid, maturity, mature, low, high)
