"""Spend and what it brought, side by side in the time of the *spend*: the cohorts a return is judged by.

An order counts in the bucket of its touch (`touch_ts`), where the money that brought it was spent, however much later
it is paid. So a window of cohorts asks "what came of the money spent then", while the windows by event time ask "what
came in then". Orders without a touch are kept apart ("loose") in the bucket of their payment.

A bucket is one integer, like the counters of `pipeline.counters`: sums of buckets are sums of every part.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from pipeline.buckets import ROOM_ZONES, Windows
from pipeline.roi.delay import HORIZON_S, MILLION, Curve
from pipeline.roi.refunds import RefundCurve
from pipeline.rounding import millionths

ROOM_COHORTS: Final = (*ROOM_ZONES, (HORIZON_S * 1_000, 600_000))
"""The room's windows, and behind them what is old enough to be nearly due: ten-minute buckets up to the horizon."""
CHANNEL_COHORTS: Final = ((300_000, 5_000), (3_600_000, 120_000), (HORIZON_S * 1_000, 1_200_000))

_BITS: Final = 64
_HALF: Final = 1 << (_BITS - 1)
_MASK: Final = (1 << _BITS) - 1
_BIAS: Final = sum(_HALF << (_BITS * place) for place in range(5))
_DIGITS: Final = (1 << (_BITS * 5)) - 1
_N_BYTES: Final = _BITS * 5 // 8
_signed: Final = Struct("<5q").unpack
NET: Final = 1 << _BITS
LOOSE: Final = NET << _BITS
RISK: Final = LOOSE << _BITS
ORDERS: Final = RISK << _BITS
SQUARES: Final = ORDERS << _BITS
"""Units of a bucket's parts; spend is the lowest digit, the squares are on top, since they alone need more room."""


class Cohort(NamedTuple):
    """The parts of one bucket or of a sum of them.

    Money in minor units: `spend`; `net` of orders with a touch and `loose` of those without, both less what was
    refunded by now; `risk`, the net weighted by how often its products come back. `squares`: of each order's net.
    """

    spend: int
    net: int
    loose: int
    risk: int
    n_orders: int
    squares: int


def unpack(packed: int) -> Cohort:
    """Return the parts of a bucket.

    >>> unpack(7 - 3 * NET + 9 * SQUARES)
    Cohort(spend=7, net=-3, loose=0, risk=0, n_orders=0, squares=9)
    """
    biased = packed + _BIAS
    # As in `pipeline.counters`: with its top bit turned back a digit is a signed integer in two's complement.
    digits = ((biased ^ _BIAS) & _DIGITS).to_bytes(_N_BYTES, "little")
    spend, net, loose, risk, n_orders = _signed(digits)
    return Cohort(spend, net, loose, risk, n_orders, biased >> (_BITS * 5))


class Due(NamedTuple):
    """A window of cohorts at one evaluation. `*_ppm`: millionths of a minor unit.

    `due_ppm` is the spend weighted by the share of its orders that has come by now, `error_ppm` by that share's
    standard error; `loose_due_ppm` the spend whose loose orders fall into the window, with its error; `refunds_ppm`
    what is still expected to come back of the orders seen.
    """

    cohort: Cohort
    due_ppm: int
    error_ppm: int
    loose_due_ppm: int
    loose_error_ppm: int
    refunds_ppm: int

    @property
    def maturity(self) -> float | None:
        """Share of the return that is due, 0..1; None when nothing was spent."""
        spend = self.cohort.spend
        if spend <= 0:
            return None
        return millionths(min(1.0, max(0.0, self.due_ppm / (MILLION * spend))))


def due(windows: Windows, now_ms: int, curve: Curve, refunds: RefundCurve, begins_ts: int) -> list[Due]:
    """Return one `Due` a window, from the shortest on, and the session's last.

    The session is what was spent since `begins_ts`; what of it lies before the oldest bucket is due.
    """
    spend = total = due_ppm = error_ppm = refunds_ppm = 0
    own_spend = own_due = own_error = own_refunds = 0
    at_risk, out = bool(refunds.remaining_ppm), list[Due]()
    for place, zone in enumerate(windows.zones):
        middle_ms, width_ms = now_ms - zone.bucket_ms // 2, zone.bucket_ms
        for start_ms, packed in zip(zone.starts, zone.values, strict=True):
            biased = packed + _BIAS
            cost = (biased & _MASK) - _HALF
            age_ms = middle_ms - start_ms
            is_own = start_ms + width_ms > begins_ts
            if cost:
                share, error = curve.at(age_ms)
                spend += cost
                due_ppm += cost * share
                error_ppm += cost * error
                if is_own:
                    own_spend += cost
                    own_due += cost * share
                    own_error += cost * error
            if at_risk and biased >> (_BITS * 4):
                back = ((biased >> (_BITS * 3) & _MASK) - _HALF) * refunds.remaining(age_ms)
                refunds_ppm += back
                own_refunds += back * is_own
        if zone.total or not out:
            total += zone.total
            cohort = unpack(total)
        loose_ppm, loose_error_ppm = due_ppm, error_ppm
        if cohort.loose:
            before_ms = now_ms - zone.reach_ms
            for older in windows.zones[place + 1 :]:
                middle_ms = before_ms - older.bucket_ms // 2
                for start_ms, packed in zip(older.starts, older.values, strict=True):
                    cost = (packed + _BIAS & _MASK) - _HALF
                    if cost:
                        age_ms = middle_ms - start_ms
                        (until, until_error), (since, since_error) = curve.at(age_ms + zone.reach_ms), curve.at(age_ms)
                        loose_ppm += cost * (until - since)
                        loose_error_ppm += cost * (until_error - since_error)
        out.append(Due(cohort, due_ppm, error_ppm, loose_ppm, abs(loose_error_ppm), refunds_ppm))
    session = unpack(windows.session)
    own_due += (session.spend - own_spend) * MILLION
    out.append(Due(session, own_due, own_error, own_due, own_error, own_refunds))
    return out
