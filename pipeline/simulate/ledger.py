"""The truth about money: every order with its whole future, and each minute's spend with what it brings in the end.

An order's life is drawn when the viewer decides to buy, so the ledger knows at once what a reader of the log learns
days later. Where a trouble interferes afterwards, the entry is corrected then: the ledger holds what will really be,
as far as the world has lived.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class Order:
    """One order and what becomes of it; money in minor units of the session's currency."""

    room_id: str
    order_id: str
    channel: str
    plan_id: str | None
    """Of the ad click that brought the buyer, whatever the record says; None for free traffic."""
    segment: str
    product_id: str
    user_id: str
    attribution: str
    """`direct` (within seconds), `indirect` (later) or `organic`: the truth, whatever the record says."""
    touch_ts: int
    """When the buyer came."""
    click_ts: int
    """When the product was opened."""
    created_ts: int
    amount_minor: int
    paid_ts: int | None
    """None: never paid."""
    refund_ts: int | None
    refund_minor: int
    is_valid: bool = True
    """False: nobody meant it (a click farm's, an absurd one)."""
    is_lost: bool = False
    """A trouble prevented it: there is no record, and it counts for nothing."""
    trouble_id: str | None = None
    """The trouble that made, lost or changed it, the last one."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that say something, ready for JSON."""
        return {"type": "order", **{name: value for name, value in asdict(self).items() if value is not None}}


@dataclass(slots=True)
class Cohort:
    """What came of the viewers who entered on one channel in one minute, and what they cost.

    `expected_*` is the mean given the product clicks that were made: each click's probability of an order, times the
    product's mean amount, share paid and share refunded. The other sums are of the orders that were drawn: all that
    will ever be, not what the log has shown so far. Invalid traffic is in `spend_minor`, `n_ad_clicks`, and the
    `*_invalid_*` fields alone.
    """

    room_id: str
    channel: str
    plan_id: str | None
    start_ts: int
    """The minute's first millisecond; the last is 59,999 later."""
    n_enters: int = 0
    """Honest ones."""
    n_product_clicks: int = 0
    """Honest ones that have been made."""
    n_ad_clicks: int = 0
    """Billed, those that never arrive included."""
    spend_minor: int = 0
    """Before credits."""
    n_invalid_clicks: int = 0
    invalid_spend_minor: int = 0
    credit_minor: int = 0
    """Given back in this minute, for whatever clicks."""
    n_orders: int = 0
    n_paid: int = 0
    gmv_minor: int = 0
    """Of the orders that will be paid."""
    n_refunds: int = 0
    refund_minor: int = 0
    n_lost: int = 0
    """Orders that a trouble prevented."""
    expected_orders: float = 0.0
    expected_gmv_minor: float = 0.0
    expected_refund_minor: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        told = asdict(self)
        for name in ("expected_orders", "expected_gmv_minor", "expected_refund_minor"):
            told[name] = round(told[name], 3)
        return {"type": "cohort", **told}


class Ledger:
    """The orders and cohorts of one room, kept as long as the world: some 300 orders a room and three hours."""

    def __init__(self, room_id: str) -> None:
        self.orders: list[Order] = []
        self._room_id = room_id
        self._cohorts: dict[tuple[int, str], Cohort] = {}

    def cohort(self, channel: str, plan_id: str | None, ts: int) -> Cohort:
        """Return the cohort of those who come on `channel` in the minute of `ts`."""
        key = (ts // MINUTE_MS, channel)
        found = self._cohorts.get(key)
        if found is None:
            found = Cohort(self._room_id, channel, plan_id, key[0] * MINUTE_MS)
            self._cohorts[key] = found
        return found

    def cohorts(self) -> list[Cohort]:
        """Return all cohorts by minute, then channel."""
        return [self._cohorts[key] for key in sorted(self._cohorts)]

    def add(self, order: Order) -> None:
        """Enter an order with the future that was drawn."""
        self.orders.append(order)
        self._count(order, 1)

    def correct(self, order: Order, trouble_id: str, **changes: Any) -> None:
        """Change what becomes of an order on a trouble's account: `is_lost`, `paid_ts`, `refund_ts` and others."""
        self._count(order, -1)
        for name, value in changes.items():
            setattr(order, name, value)
        order.trouble_id = trouble_id
        self._count(order, 1)

    def _count(self, order: Order, sign: int) -> None:
        if not order.is_valid:
            return
        cohort = self.cohort(order.channel, order.plan_id, order.touch_ts)
        if order.is_lost:
            cohort.n_lost += sign
            return
        cohort.n_orders += sign
        if order.paid_ts is None:
            return
        cohort.n_paid += sign
        cohort.gmv_minor += sign * order.amount_minor
        if order.refund_ts is not None:
            cohort.n_refunds += sign
            cohort.refund_minor += sign * order.refund_minor
