"""Return on ad spend in its four readings, with a band."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from pipeline.counters import (
    GMV,
    GMV_ATTRIBUTED,
    GMV_VALID,
    REFUND,
    REFUND_ATTRIBUTED,
    REFUND_VALID,
    SPEND,
    Counts,
)
from pipeline.roi.cohorts import Due
from pipeline.roi.delay import MILLION
from pipeline.rounding import millionths
from schemas.settings import RoiSettings

Z_90: Final = 1.6449
"""Normal quantile of a two-sided 90 % interval."""


def roas(net_gmv_minor: int, spend_minor: int) -> float | None:
    """Return net merchandise value earned per unit of ad spend; None when nothing was spent.

    >>> roas(12_500, 5_000)
    2.5
    """
    return millionths(net_gmv_minor / spend_minor) if spend_minor > 0 else None


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


class Learned(NamedTuple):
    """What the band needs besides the window itself: how orders scatter, and how many refunds were seen."""

    dispersion_ppm: int = MILLION
    n_refunds: int = 0


def matured(due: Due) -> float | None:
    """Return what each unit of spend will have brought once all its orders came and went back; None if unknown.

    Orders with a touch are held against the spend due by now, those without against the spend whose orders fall into
    the window; what is still to come back of either is taken off in proportion.
    """
    net, loose = due.cohort.net, due.cohort.loose
    if due.due_ppm <= 0:
        return None
    rate = net * MILLION / due.due_ppm
    if loose:
        rate += loose * MILLION / (due.loose_due_ppm if due.loose_due_ppm > 0 else due.due_ppm)
    if due.refunds_ppm and net + loose > 0:
        rate *= max(0.0, 1.0 - due.refunds_ppm / (MILLION * (net + loose)))
    return rate


def band(due: Due, learned: Learned) -> tuple[float, float] | None:
    """Return the 90 % band's ends as multiples of the matured return; None for nothing sold.

    Three parts that do not depend on each other: orders as a compound Poisson process (variance of the sum = sum of
    squares) times the room's dispersion, the curve's own error over the ages of the spend, the refunds to come. The
    band is log-normal. A curve that is too slow by however much cannot say more than that all was due already.
    """
    cohort = due.cohort
    net = cohort.net + cohort.loose
    if net <= 0 or cohort.squares <= 0 or due.due_ppm <= 0:
        return None
    orders = cohort.squares / net**2 * learned.dispersion_ppm / MILLION
    curve = _share_error(due)
    back = due.refunds_ppm / (MILLION * net)
    refunds = back * back / (learned.n_refunds + 1) + back * cohort.squares / net**2
    scatter = orders + refunds
    all_due = -math.log(due.maturity or 1.0) / Z_90
    low = math.exp(-Z_90 * math.sqrt(scatter + min(curve, all_due) ** 2))
    return low, math.exp(Z_90 * math.sqrt(scatter + curve**2))


def _share_error(due: Due) -> float:
    """Return the relative error of what the sales are held against; loose orders have a denominator of their own."""
    net, loose = due.cohort.net, due.cohort.loose
    error = due.error_ppm / due.due_ppm
    if loose <= 0 or due.loose_due_ppm <= 0:
        return error
    return (max(net, 0) * error + loose * due.loose_error_ppm / due.loose_due_ppm) / (max(net, 0) + loose)


def returns(counts: Counts, due: Due, learned: Learned, settings: RoiSettings) -> Return:
    """Return every reading of a window's return.

    Below `maturity_floor` no matured return is told; its 90 % band (log-normal around it) needs `min_orders` orders
    in the window's cohorts.
    """
    spend, maturity = counts[SPEND], due.maturity
    if spend <= 0 and maturity is None:
        return NOTHING_SPENT
    whole = roas(counts[GMV] - counts[REFUND], spend)
    attributed = roas(counts[GMV_ATTRIBUTED] - counts[REFUND_ATTRIBUTED], spend)
    valid = roas(counts[GMV_VALID] - counts[REFUND_VALID], spend)
    mature = low = high = None
    rate = matured(due)
    if valid is not None and rate is not None and maturity is not None and maturity >= settings.maturity_floor:
        mature = millionths(rate)
        enough = due.cohort.n_orders >= settings.min_orders and mature > 0
        ends = band(due, learned) if enough else None
        if ends is not None:
            low, high = millionths(mature * ends[0]), millionths(mature * ends[1])
    return Return(whole, attributed, valid, maturity, mature, low, high)
