"""A room's orders: each counts once, refunds never exceed what was paid, whatever arrives first."""

from __future__ import annotations

from fractions import Fraction

import msgspec

from pipeline.money import convert


class Effect(msgspec.Struct, frozen=True, gc=False):
    """A change to a room's money: `field` by `amount` at event time `ts`, on the order's own terms."""

    ts: int
    field: str
    amount: int


class Order(msgspec.Struct, array_like=True, gc=False):
    """What is known of one order. -1 stands for "not seen yet" in the times."""

    session: int
    created_ts: int = -1
    paid_ts: int = -1
    paid_minor: int = 0
    cancelled: tuple[int, ...] = ()
    channel: str = ""
    is_attributed: bool = False
    is_valid: bool = True
    refunds: tuple[tuple[int, int], ...] = ()
    touched_ms: int = 0
    touched: int = -1
    """Offset of the last record about it."""
    touch_ts: int = -1
    product: int = 0
    """Number of the product in its room; 0 is not told apart."""
    cost_minor: int = -1
    """Goods and commission; -1 where the payment did not say."""
    worth_ppm: int = 1_000_000
    """Weight of its customer, new or returning."""
    risk_ppm: int = 1_000_000
    """How often its product came back against the room's mean, as known when it was paid."""
    sliced: int = 0
    """Its places in the room's slices, with their numbering (`pipeline.slicing`)."""

    def worth(self) -> tuple[int, int]:
        """Return what the order counts for in a matured return, and its part that may still come back."""
        if self.paid_ts < 0 or not (self.is_attributed and self.is_valid):
            return 0, 0
        net = self.paid_minor - sum(amount for _, amount in self.refunded())
        net = net * self.worth_ppm // 1_000_000
        return net, net * self.risk_ppm // 1_000_000

    def costs_back(self) -> list[tuple[int, int]]:
        """Return the costs that refunds in force save, as (ts, amount); together with all of the value, all of them.

        Goods that come back are sold again, and commission is paid on what stays.
        """
        if self.cost_minor < 0 or self.paid_minor <= 0:
            return []
        saved, so_far, before = [], 0, 0
        for ts, amount in self.refunded():
            so_far += amount
            until = self.cost_minor * so_far // self.paid_minor
            saved.append((ts, until - before))
            before = until
        return saved

    def refunded(self) -> list[tuple[int, int]]:
        """Return the refunds in force as (ts, amount): oldest first, up to what was paid.

        The first cancellation after the payment refunds the rest. Order of arrival does not matter.
        """
        if self.paid_ts < 0:
            return []
        left, in_force = self.paid_minor, []
        for ts, amount in sorted(self.refunds):
            taken = min(amount, left)
            if taken > 0:
                in_force.append((ts, taken))
                left -= taken
        cancelled_ts = min((ts for ts in self.cancelled if ts >= self.paid_ts), default=None)
        if cancelled_ts is not None and left > 0:
            in_force.append((cancelled_ts, left))
        return in_force


class Ledger(msgspec.Struct, gc=False):
    """Orders by 128-bit fingerprint, the one touched last at the end; `apply` gives the effects of one more event."""

    orders: dict[bytes, Order] = msgspec.field(default_factory=dict)
    is_rewritten: bool = False
    """Every order changed since the last save: no segment holds any more."""
    forgotten: tuple[int, int] | None = None
    """Session and time of the last `forget`."""

    def get(self, fingerprint: bytes, session: int, now_ms: int, offset: int) -> Order:
        """Return the order that a record is about, made on its first event."""
        order = self.orders.pop(fingerprint, None)
        if order is None:
            order = Order(session)
        self.orders[fingerprint] = order
        order.touched_ms, order.touched = max(order.touched_ms, now_ms), offset
        return order

    def since(self, offset: int) -> list[tuple[bytes, Order]]:
        """Return the orders touched after an offset, in that order."""
        found = []
        for fingerprint, order in reversed(self.orders.items()):
            if order.touched <= offset:
                break
            found.append((fingerprint, order))
        found.reverse()
        return found

    @staticmethod
    def create(order: Order, ts: int) -> list[Effect]:
        """The order was placed."""
        if order.created_ts >= 0:
            return []
        order.created_ts = ts
        return [Effect(ts, "n_orders_created", 1)]

    @staticmethod
    def pay(order: Order, ts: int, amount_minor: int) -> list[Effect]:
        """The order was paid; a second payment has no effect."""
        if order.paid_ts >= 0:
            return []
        order.paid_ts, order.paid_minor = ts, amount_minor
        paid = [Effect(ts, "n_orders_paid", 1), Effect(ts, "gmv_minor", amount_minor)]
        return paid + _difference([], order.refunded())

    @staticmethod
    def refund(order: Order, ts: int, amount_minor: int) -> list[Effect]:
        """Money went back; it counts once the payment is known, up to that."""
        before = order.refunded()
        order.refunds = (*order.refunds, (ts, amount_minor))
        return _difference(before, order.refunded())

    @staticmethod
    def cancel(order: Order, ts: int) -> list[Effect]:
        """The order was called off: what was paid before goes back; unpaid, it is only closed."""
        before = order.refunded()
        order.cancelled = (*order.cancelled, ts)
        return _difference(before, order.refunded())

    def convert(self, factor: Fraction, offset: int) -> None:
        """Restate every amount in another currency, as a record at `offset` asks for."""
        for order in self.orders.values():
            order.paid_minor = convert(order.paid_minor, factor)
            order.refunds = tuple((ts, convert(amount, factor)) for ts, amount in order.refunds)
            if order.cost_minor >= 0:
                order.cost_minor = convert(order.cost_minor, factor)
            order.touched = offset
        self.is_rewritten = True

    def forget(self, before_session: int, touched_before_ms: int) -> None:
        """Let go of orders of past sessions that nothing has touched for the ledger's keeping time."""
        self.forgotten = before_session, touched_before_ms
        gone = [f for f, o in self.orders.items() if o.session < before_session and o.touched_ms < touched_before_ms]
        for fingerprint in gone:
            del self.orders[fingerprint]

    def forget_again(self) -> None:
        """Let go of what came back from old segments."""
        if self.forgotten is not None:
            self.forget(*self.forgotten)


def _difference(before: list[tuple[int, int]], after: list[tuple[int, int]]) -> list[Effect]:
    """Return what turns one list of refunds in force into the other."""
    effects: list[Effect] = []
    for refunds, sign in ((before, -1), (after, 1)):
        for ts, amount in refunds:
            effects.append(Effect(ts, "n_refunds", sign))
            effects.append(Effect(ts, "refund_minor", sign * amount))
    return effects
