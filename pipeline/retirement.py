"""Rooms whose show is long over: what is let go of them, when, and what is handed to the partition.

Many platforms give every show a room id of its own, so a worker that kept every room would grow for ever. An ended room
first shrinks to its session's figures and its order ledger. Once nothing was heard of it for as long as the ledger is
kept, it goes: its counts to the partition's own state (`*`), the head of its trail into the partition's trail, all
else nowhere. An event that comes after that begins the room anew.

That moment, T, is a moment of the log's clock, so every worker lets a room go at the same one. A crash may find the
partition's state saved before T and the room's after it, or the other way round. So the room leaves a `Farewell`: a
partition that stands before T still has to take it, one that stands at T or later has taken it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pipeline.context import Context, Star
from pipeline.crowding import Crowds
from pipeline.ids import next_turn_ms
from pipeline.quality.evidence import SOURCE_MEMORY_MS
from pipeline.room import LEDGER_SLACK_MS, Farewell, RoomState
from schemas.base import MAX_AHEAD_MS, MODE_RANK

COMPARED_MS: Final = 2 * SOURCE_MEMORY_MS
"""Nothing is compared with what is older: two generations of the longest memory of evidence."""


def keep_ms(ctx: Context) -> int:
    """Return how long a room is kept after the last event, and a control's id after it counted: its ledger's time."""
    return ctx.policy.engine.ledger_ms + LEDGER_SLACK_MS


def oldest_control_ts(ctx: Context) -> int:
    """Return from when on a signed control may count: an id counts once, for ever, and is not kept for ever.

    One that counted at C was signed at C + `MAX_AHEAD_MS` at the latest. So when its id is let go of, `keep_ms` after
    C, or its room with it, all that it could be repeated by is refused. A policy that keeps longer brings none back.
    """
    return max(ctx.star.controls_since_ts, ctx.star.clock_ms - keep_ms(ctx) + MAX_AHEAD_MS)


def forget_controls(control_ids: dict[str, int], now_ms: int, ctx: Context) -> None:
    """Let go of controls, oldest first, that nothing signed then would count as any more (`oldest_control_ts`).

    What stays is bounded by time, not by number: one a minute comes to 4,380 in the 73 hours of the defaults.
    """
    before_ms = now_ms - keep_ms(ctx)
    while control_ids and (oldest := next(iter(control_ids.items())))[1] < before_ms:
        del control_ids[oldest[0]]


def may_go(room: RoomState, ctx: Context) -> bool:
    """Tell whether nothing has to outlive the room: no kill switch, no limit and no mode stricter than the policy's."""
    config, bidding = room.config, ctx.policy.bidding
    return (
        room.parked is None
        and room.heard_ms >= 0
        and not room.is_killed
        and MODE_RANK[config.mode] >= min(MODE_RANK[bidding.mode], MODE_RANK[bidding.max_mode])
        and config.bid_floor_minor is None
        and config.bid_cap_minor is None
    )


def due_ms(room: RoomState, ctx: Context) -> int:
    """Return when a room that nobody hears of is over."""
    return room.heard_ms + keep_ms(ctx)


def end_session(room: RoomState, now_ms: int, ctx: Context) -> None:
    """End a show that no `end` ended, as of its last event, once its room is due to go: its incidents end with it."""
    if room.session.is_active and may_go(room, ctx) and now_ms >= due_ms(room, ctx):
        room.session.ended_ts = max(room.largest_ts, room.session.begins_ts)
        room.is_changed = True


def is_over(room: RoomState, now_ms: int, ctx: Context) -> bool:
    """Tell whether a room goes at this moment."""
    return (
        room.heard_ms >= 0
        and room.n_news == 0
        and not room.session.is_active
        and now_ms >= due_ms(room, ctx)
        and may_go(room, ctx)
        and not any(incident.is_open for incident in room.incidents.values())
    )


def shrink(room: RoomState, now_ms: int, ctx: Context) -> None:
    """Let go of what only recent events were compared with; the session's figures and the ledger stay."""
    if now_ms - room.heard_ms >= max(COMPARED_MS, 2 * ctx.recent_ids_ms):
        room.seen.recent, room.evidence, room.crowds = {}, room.evidence.shrunk(), Crowds()
        if room.slices is not None:
            room.slices.touches.clear()


def leave(room: RoomState, now_ms: int, offset: int) -> list[Farewell]:
    """Return the room's farewells, this one the last, at a moment of the log whose last record was at `offset`."""
    farewell = Farewell(
        now_ms,
        room.first_offset,
        offset,
        room.n_events,
        room.n_duplicates,
        room.n_late,
        room.n_shed,
        room.largest_ts,
        room.rejects,
        room.trail.seq,
        room.trail.head,
    )
    return [*room.farewells, farewell]


def take(star: Star, farewell: Farewell) -> None:
    """Hand a room's counts to the partition."""
    star.n_events += farewell.n_events
    star.n_duplicates += farewell.n_duplicates
    star.n_late += farewell.n_late
    star.n_shed += farewell.n_shed
    star.largest_ts = max(star.largest_ts, farewell.largest_ts)
    for reason, n in farewell.rejects.items():
        star.rejects[reason] = star.rejects.get(reason, 0) + n


def begin_time(room: RoomState, ctx: Context) -> None:
    """Let a room's time run from its last visit where a version saved it that kept rooms for ever."""
    if room.heard_ms < 0 <= room.evaluated_ms and room.parked is None and not room.is_gone:
        room.heard_ms = room.evaluated_ms
        if room.due_ms < 0:
            room.due_ms = next_turn_ms(due_ms(room, ctx), 0, ctx.tick_ms)


class Departures:
    """Rooms that went, for as long as a saved state may still stand before it; `blank` makes an empty room."""

    def __init__(self, blank: Callable[[str], RoomState]) -> None:
        self._blank = blank
        self.gone: dict[str, list[Farewell]] = {}
        """Farewells of rooms that went since the last state of the partition that is known to be saved."""
        self.markers: list[RoomState] = []
        """Rooms that went at a moment the log has still to reach: a crash lies between. Some began anew since."""
        self._returned: set[str] = set()
        """Rooms that carry farewells of former ones of their name."""
        self._noted = (-1, -1)
        """Offset and clock of the last checkpoint."""

    def expected(self) -> Iterator[Farewell]:
        """Yield what the partition has still to take."""
        return (marker.farewells[-1] for marker in self.markers)

    def arrived(self, marker: RoomState) -> list[Farewell]:
        """Return a marker's farewells: its moment is here."""
        self.markers = [other for other in self.markers if other is not marker]
        return marker.farewells

    def undone(self, room_id: str) -> list[Farewell]:
        """Return the farewells that a room must go on carrying which comes back."""
        farewells = self.gone.pop(room_id, [])
        if farewells:
            self._returned.add(room_id)
        return farewells

    def note(self, offset: int, evaluated_ms: int) -> None:
        """Note where a checkpoint stands."""
        self._noted = offset, evaluated_ms

    def settle(self, offset: int, rooms: Mapping[str, RoomState]) -> None:
        """Forget what every state saved from now on has taken: the checkpoint at `offset` is durable."""
        noted, settled_ms = self._noted
        if offset == noted:
            self.gone = {name: gone for name, gone in self.gone.items() if gone[-1].at_ms > settled_ms}
            for room_id in list(self._returned):
                self._relieve(rooms.get(room_id), room_id, settled_ms)

    def _relieve(self, room: RoomState | None, room_id: str, settled_ms: int) -> None:
        """Let a room that came back carry only what the partition's saved state may still have to take."""
        if room is not None:
            room.farewells = [farewell for farewell in room.farewells if farewell.at_ms > settled_ms]
        if room is None or not room.farewells:
            self._returned.discard(room_id)

    def marker_of(self, room_id: str) -> RoomState | None:
        """Return what to save of a room that went; None for one that did not."""
        gone = self.gone.get(room_id)
        return None if gone is None else self._marker(room_id, gone)

    def has_left(self, room: RoomState, evaluated_ms: int) -> bool:
        """Meet a saved room again; tell whether it went by the time at which the partition's saved state stands."""
        ahead = [place for place, farewell in enumerate(room.farewells) if farewell.at_ms > evaluated_ms]
        for place in ahead:
            is_itself = room.is_gone and place == len(room.farewells) - 1
            self.markers.append(room if is_itself else self._marker(room.room_id, room.farewells[: place + 1]))
        if not room.is_gone:
            self._returned.add(room.room_id)
            self._relieve(room, room.room_id, evaluated_ms)
            return False
        if ahead:
            return False
        self.gone[room.room_id] = room.farewells
        return True

    def _marker(self, room_id: str, farewells: list[Farewell]) -> RoomState:
        """Return what stands in the changelog for a room that went, until the log is committed beyond that moment."""
        marker = self._blank(room_id)
        marker.is_gone, marker.offset, marker.farewells = True, farewells[-1].offset, farewells
        marker.due_ms, marker.first_offset = farewells[-1].at_ms, farewells[-1].first_offset
        return marker
