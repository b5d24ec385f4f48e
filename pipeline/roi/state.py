"""What a room remembers about its return: cohorts of spend, and the curves learned from its orders."""

from __future__ import annotations

from typing import Final

import msgspec

from pipeline.buckets import BASE_MS, Windows
from pipeline.roi.cohorts import CHANNEL_COHORTS, LOOSE, NET, ORDERS, RISK, ROOM_COHORTS, SQUARES
from pipeline.roi.delay import MILLION, Curve
from pipeline.roi.refunds import MAX_PRODUCTS, RefundCurve

ROOM: Final = ""
"""The room's own curve among those of its channels."""


class ReturnState(msgspec.Struct, gc=False):
    """Cohorts by channel and of the room, the curves in force, and when they are learned anew.

    `since_ms`: money of before is in no bucket (another currency, a snapshot of an older format).
    """

    room: Windows = msgspec.field(default_factory=lambda: Windows(ROOM_COHORTS))
    channels: dict[str, Windows] = msgspec.field(default_factory=dict)
    curves: dict[str, Curve] = msgspec.field(default_factory=dict)
    refunds: RefundCurve = msgspec.field(default_factory=RefundCurve)
    dispersion_ppm: int = MILLION
    products: dict[str, int] = msgspec.field(default_factory=dict)
    n_news: int = 0
    """Payments and refunds since the curves were last learned."""
    due_after: int = 5
    learned_ms: int = -1
    since_ms: int = -1

    def product(self, product_id: str | None) -> int:
        """Return a product's number in the room; 0 for one that is not told apart."""
        if product_id is None:
            return 0
        number = self.products.get(product_id)
        if number is None:
            if len(self.products) >= MAX_PRODUCTS:
                return 0
            number = self.products[product_id] = len(self.products) + 1
        return number

    def spend(self, ts: int, channel: str, cost_minor: int, now_ms: int, *, is_past: bool) -> None:
        """Book what was spent at a moment."""
        self._book(ts, channel, cost_minor, now_ms, is_past=is_past)

    def order(
        self, at_ms: int, channel: str, before: tuple[int, int], after: tuple[int, int], now_ms: int, *,
        is_past: bool, has_touch: bool,
    ) -> int:  # fmt: skip
        """Book what an order is worth now instead of `before`, each as (net, risk) in minor units; return it packed."""
        (net, risk), (old_net, old_risk) = after, before
        packed = (net - old_net) * (NET if has_touch else LOOSE) + (risk - old_risk) * RISK
        packed += ((net > 0) - (old_net > 0)) * ORDERS + (net * net - old_net * old_net) * SQUARES
        self._book(at_ms, channel, packed, now_ms, is_past=is_past)
        return packed

    def _book(self, ts: int, channel: str, packed: int, now_ms: int, *, is_past: bool) -> None:
        if not packed:
            return
        own = self.channels.get(channel)
        if own is None:
            own = self.channels[channel] = Windows(CHANNEL_COHORTS)
        bucket = ts - ts % BASE_MS
        for windows in (self.room, own):
            if ts >= self.since_ms:
                windows.put(bucket, packed, now_ms)
            if not is_past:
                windows.session += packed

    def begin_session(self) -> None:
        """Start the session's sums anew; curves are the room's and stay."""
        for windows in (self.room, *self.channels.values()):
            windows.session = 0

    def forget_money(self, now_ms: int) -> None:
        """Empty the buckets: what was booked is in another currency."""
        for windows in (self.room, *self.channels.values()):
            for zone in windows.zones:
                zone.starts, zone.values, zone.total = [], [], 0
        self.since_ms = now_ms
