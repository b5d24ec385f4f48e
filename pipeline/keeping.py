"""What of a partition is saved and read back: rooms, their ledgers' segments, and the partition's own state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline import retirement, segments
from pipeline.context import Context
from pipeline.dormancy import Head, Rooms, head_of, may_sleep
from pipeline.retirement import Departures
from pipeline.room import Farewell, RoomState
from pipeline.snapshot import FORMAT, Saved, SnapshotError, dump_hot, format_of, load_room, load_star
from schemas.base import EVERY_ROOM
from schemas.settings import Policy


class Keeping:
    """Know which rooms changed since each was last saved, and save and read back what they are."""

    __slots__ = ("_ctx", "_departures", "_rooms", "dirty", "orphans")

    def __init__(self, ctx: Context, rooms: Rooms, departures: Departures) -> None:
        self._ctx, self._rooms, self._departures = ctx, rooms, departures
        self.dirty: dict[str, None] = {}
        """Rooms that changed since each was last saved."""
        self.orphans: dict[str, list[str]] = {}
        """Segments that are in the changelog and no room names."""

    def leave(self, room_id: str, keys: Iterable[str]) -> None:
        """Note segments of a room that it names no more: they go with its next save."""
        self.orphans[room_id] = [*self.orphans.get(room_id, ()), *keys]

    def let_go(self, room: RoomState, farewells: list[Farewell]) -> None:
        """Take a room out for good; what is saved of it next says that it went."""
        room_id = room.room_id
        del self._rooms[room_id]
        self._departures.gone[room_id], self.dirty[room_id] = farewells, None
        self.leave(room_id, [segments.key_of(room_id, link) for link in room.chain])

    def save(self, room_id: str) -> Saved:
        """Return a room's state as it is now; it counts as saved, and sleeps from then on where it may.

        Raises
        ------
        KeyError
            There is no room of that name.
        """
        self.dirty.pop(room_id, None)
        marker = self._departures.marker_of(room_id)
        if marker is not None:
            return Saved(((room_id, dump_hot(marker)),), (*self.orphans.pop(room_id, ()), room_id), ())
        room = self._rooms.get(room_id) or self._rooms.wake(room_id)
        if room is None:
            msg = f"room {room_id!r} must be one of this engine's, got none of that name"
            raise KeyError(msg)
        parts, retired = segments.extend(room)
        retired = [*self.orphans.pop(room_id, ()), *retired]
        hot = dump_hot(room)
        if may_sleep(room, self._ctx.policy.engine.ledger_ms):
            self._rooms.sleep(room, hot)
        return Saved((*parts, (room_id, hot)), tuple(retired), ())

    def restore(self, snapshots: Mapping[str, bytes]) -> list[str]:
        """Take back what was saved, the partition's own state and policy too; return the rooms that are awake.

        Raises
        ------
        SnapshotError
            Bytes that this version cannot read; nothing was taken.
        """
        star = load_star(snapshots[EVERY_ROOM]) if EVERY_ROOM in snapshots else self._ctx.star
        policy = Policy.model_validate_json(star.policy) if star.policy else self._ctx.policy
        rooms: dict[str, RoomState] = {}
        asleep: list[tuple[Head, bytes]] = []
        ledgers: dict[str, dict[str, bytes]] = {}
        for key, data in snapshots.items():
            room_id, mark, _ = key.partition("\0")
            if mark:
                ledgers.setdefault(room_id, {})[key] = data
            elif key != EVERY_ROOM:
                head = head_of(data)
                if head.room_id != room_id:
                    msg = f"a snapshot under the key {room_id!r} must be that room's, got {head.room_id!r}"
                    raise SnapshotError(msg)
                if format_of(data) != FORMAT:
                    self.dirty[room_id] = None  # or a room that is never touched again would stay in it for ever
                if may_sleep(head, policy.engine.ledger_ms):
                    asleep.append((head, data))
                else:
                    rooms[room_id] = load_room(data)
        orphans: dict[str, list[str]] = {}
        try:
            for room_id, room in rooms.items():
                orphans[room_id] = segments.load(room, ledgers.get(room_id, {}))
            for head, data in asleep:
                orphans[head.room_id] = self._rooms.keep_asleep(head, data, ledgers.get(head.room_id, {}))
        except segments.BrokenChainError as error:
            self._rooms.asleep.clear()
            raise SnapshotError(str(error)) from error
        self.orphans.update({room_id: keys for room_id, keys in orphans.items() if keys})
        for room_id, room in rooms.items():
            if self._departures.has_left(room, star.evaluated_ms):
                self.dirty[room_id] = None
            else:
                self._rooms[room_id] = room
        self._ctx.star = star
        if star.policy:
            self._ctx.set_policy(policy)
        for room in rooms.values():
            retirement.begin_time(room, self._ctx)
        return list(rooms)
