"""A hot room must not stall its neighbours: beyond its quota it is counted, and no longer looked at viewer by viewer.

A room may have so many events a tick (`engine.room_events_per_s`). After that, until the next tick,

- a comment is counted and its author noted as active, but nobody reads it: no mood, no evidence of repeats;
- a viewer's heartbeat is not noted at all: it counts nothing, and says only once more that somebody is there.

Everything else is applied as ever: orders, spend, gifts, plans, controls, acks, room, product and feed events, counts,
enters, leaves, interactions. So every plain counter stays exact, `n_comments` too; what is estimated from comments
(mood, topics, invalid traffic) rests on those that were read. `n_shed` says how many were not.

The rule is a function of the log: it looks at the room's own events and the log's clock alone.
"""

from __future__ import annotations

from typing import Any, Final

from pipeline.apply import UNREAD, Handler, Kind
from pipeline.context import Context
from pipeline.room import RoomState

CALM_MS: Final = 60_000
"""A room that shed nothing for a minute of its log is not hot any more: the shortest window has none of it."""


def is_over(room: RoomState, ctx: Context) -> bool:
    """Tell whether a room has had its quota in this tick; called once it had as many events as it was granted.

    A grant is for one quota and lasts until it is used up, however long that takes, so that a room below its quota is
    asked for nothing but one comparison an event. A room that takes more than its grant in one tick gets a new one
    for that tick, and is over when it used that up too: so the first tick of a burst may bring up to two quotas,
    every later one brings one.
    """
    tick = ctx.star.clock_ms // ctx.tick_ms
    if tick == room.granted_tick:
        return True
    room.granted_tick, room.granted_to = tick, room.n_events + ctx.room_events_per_tick
    return False


def handler_of(room: RoomState, kind: Kind, event: Any, handler: Handler, *, now_ms: int) -> Handler:
    """Return what to do with an event of a room that is over its quota; what is left out is counted."""
    unread = UNREAD.get(kind.name)
    if unread is None or (kind.name == "view" and event.action != "heartbeat"):
        return handler
    room.n_shed += 1
    room.shed_ms = now_ms
    return unread
