"""A room's events that wait to be applied together.

A room's state lies in no cache when one of its events comes: with many rooms, fetching it from memory takes as long as
the work. So events that ask for nothing at once (views, comments, orders in the room's own currency) wait, decoded,
until somebody looks at the room: a visit, a control, a save, or a full inbox. Then they are applied in their order,
each as of its own record's clock, and the room is as if nothing had waited.
"""

from __future__ import annotations

from typing import Any, Final

from pipeline import shedding
from pipeline.apply import KINDS, note_kind
from pipeline.context import Context
from pipeline.room import RoomState

CAPACITY: Final = 32
"""Events that may wait in one room."""
LARGEST_BYTES: Final = 1_024
"""A larger record does not wait: what waits in a room stays below 64 KiB."""


class Inbox:
    """What waits in one room: four entries an event, which are it, its record, the clock, and the last evaluation."""

    __slots__ = ("currency", "n_left", "offset", "room", "waiting")

    def __init__(self, room: RoomState) -> None:
        self.waiting: list[Any] = []
        self.close(room)

    def close(self, room: RoomState) -> None:
        """Let nothing wait."""
        self.room = room
        self.n_left = 0
        """Events that may still come to wait here."""
        self.offset = room.offset
        self.currency: str | None = None

    def open(self, room: RoomState, n_more: int) -> None:
        """Let events wait, up to the one with which the room has to be looked at."""
        self.room, self.offset, self.currency = room, room.offset, room.config.currency
        self.n_left = n_more if 0 < n_more < CAPACITY else CAPACITY

    def largest_ts(self) -> int:
        """Return the largest `ts` of what waits; -1 when nothing does."""
        return max((event.ts for event in self.waiting[::4]), default=-1)


def catch_up(room: RoomState, waiting: list[Any], ctx: Context) -> None:
    """Apply what waited in a room; `room.offset` is that of the last event taken, also where one raises."""
    seen, kinds, feeds, identify = room.seen, room.kinds, room.feeds, ctx.identities.event
    keep_ms, star = ctx.recent_ids_ms, ctx.star
    n_duplicates = n_late = 0
    n_events = n_before = room.n_events
    largest_ts = room.largest_ts
    entries = iter(waiting)
    try:
        for event, record, now_ms, evaluated_ms in zip(entries, entries, entries, entries, strict=True):
            kind = KINDS[type(event)]
            room.offset = record[0]
            fingerprint = identify(event.event_id)
            if fingerprint in seen.recent or (kind.is_money and fingerprint in seen.money):
                n_duplicates += 1
                continue
            if now_ms - seen.turned_ms >= keep_ms:
                seen.go_on(now_ms, keep_ms)
            seen.recent[fingerprint] = seen.turn
            if kind.is_money:
                seen.money[fingerprint] = now_ms
                seen.n_money += 1
            name, feed, ts = kind.name, kind.feed, event.ts
            if name not in kinds:
                note_kind(room, name, feed)
            if feed is not None:
                feeds[feed].event(ts)
            handler: Any = kind.handler
            if n_events >= room.granted_to:
                room.n_events = n_events
                if shedding.is_over(room, now_ms, ctx):
                    handler = shedding.handler_of(room, kind, event, handler, now_ms=now_ms)
            handler(room, event, now_ms, ctx)
            n_events += 1
            if ts > largest_ts:  # noqa: PLR1730  (max is a call, and this is every event)
                largest_ts = ts
            if ts < evaluated_ms:
                n_late += 1
    finally:
        room.n_duplicates += n_duplicates
        room.n_late += n_late
        room.n_events = n_events
        room.n_news += n_events - n_before
        if n_events > n_before:
            room.is_fresh, room.is_changed = False, True
        if largest_ts > room.largest_ts:
            room.largest_ts = largest_ts
            star.largest_ts = max(star.largest_ts, largest_ts)
