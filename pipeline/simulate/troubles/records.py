"""Orders whose records are late, lost, absurd or without attribution, and orders that come back in a wave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pipeline.simulate.dice import Dice
from pipeline.simulate.parameters import SECOND_MS
from pipeline.simulate.timeline import NEVER
from pipeline.simulate.troubles.base import Fault, Place, block
from schemas.base import FeedName

if TYPE_CHECKING:
    from pipeline.simulate.room import Room


class OrdersLate(Fault):
    """`size` of the order records come late, each by a time of its own (mean ten minutes); the feed's heartbeats lie.

    The records of one order may overtake each other: a refund before its payment.
    """

    kind = "orders_late"
    cause = "tracking"
    default_size = 0.6
    is_share = True
    mean_s: Final = 600.0

    def held_until(self, _feed: FeedName, kind: str, arrival_ts: int) -> int | None:
        """Return when the record comes."""
        if kind != "order" or not self.is_on(arrival_ts) or not self.dice.chance(self.size):
            return None
        self.n_records += 1
        return arrival_ts + SECOND_MS + int(self.dice.exponential(self.mean_s) * SECOND_MS)


class OrdersLost(Fault):
    """`size` of the order records never come; what they tell of happened. The books count it, the log cannot."""

    kind = "orders_lost"
    cause = "tracking"
    default_size = 0.5
    is_share = True

    def held_until(self, _feed: FeedName, kind: str, arrival_ts: int) -> int | None:
        """Return that the record is lost."""
        if kind != "order" or not self.is_on(arrival_ts) or not self.dice.chance(self.size):
            return None
        self.n_records += 1
        return NEVER


class TrackingOutage(Fault):
    """`size` of the orders made meanwhile lose their plan, channel and touch for good: attribution is `unknown`."""

    kind = "tracking_outage"
    cause = "tracking"
    default_size = 0.9
    is_share = True
    _lost: Final = ("plan_id", "campaign_id", "creative_id", "touch_ts", "channel")

    def rewritten(self, ts: int, order: dict[str, Any]) -> dict[str, Any]:
        """Return the order without what is not known."""
        order_id = order["order_id"]
        is_new = order["status"] == "created"
        is_ours = is_new and self.concerns(ts, order["channel"], order["segment"], order["product_id"])
        if is_ours and self.dice.chance(self.size):
            self.order_ids.append(order_id)
            self._unknown.add(order_id)
        if order_id not in self._unknown:
            return order
        self.n_records += 1
        kept = {name: value for name, value in order.items() if name not in self._lost}
        return {**kept, "attribution": "unknown"}

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        self._unknown: set[str] = set()


class AbsurdOrders(Fault):
    """Orders nobody means, `size` a minute: tests and typing errors, paid at once, from a cent to millions."""

    kind = "absurd_orders"
    cause = "tracking"
    default_size = 3.0
    is_invalid = True
    amounts_minor: Final = (1, 99_999_900, 1_000_000_000, 88_888_888, 1)

    def _act(self, ts: int) -> None:
        room, dice = self.room, self.dice
        for _ in range(dice.poisson(self.size / 60.0)):
            user_id = room.audience.new_user_id()
            self.user_ids.append(user_id)
            product = dice.choice(room.shop.products)
            fields = {
                "channel": self.channel or "follow",
                "user_id": user_id,
                "device_id": f"d{user_id[1:]}",
                "ip": f"{block(dice)}.{dice.between(1, 254)}",
                "segment": self.segment or "general",
                "region": "beijing",
                "product_id": product.product_id,
                "attribution": "organic",
            }
            self.order_ids.append(
                room.shop.invent(
                    fields,
                    ts + dice.between(0, SECOND_MS - 1),
                    dice.choice(self.amounts_minor),
                    trouble_id=self.mark.trouble_id,
                    is_paid=True,
                    quantity=dice.choice((1, 1, 999)),
                )
            )


class RefundWave(Fault):
    """`size` of what was paid before comes back within the trouble's time, in full: a bad batch, or a scandal."""

    kind = "refund_wave"
    cause = "refund_wave"
    default_size = 0.4
    is_share = True

    def _begin(self, ts: int) -> None:
        span_ms = self.end_ts - self.start_ts
        for record, truth in list(self.room.shop.paid):
            is_ours = self.concerns(ts, record["channel"], record["segment"], record["product_id"])
            if not is_ours or not self.dice.chance(self.size):
                continue
            moment = ts + int(self.dice.uniform() * span_ms)
            if self.room.shop.give_back(record, truth, moment, self.mark.trouble_id):
                self.order_ids.append(record["order_id"])
