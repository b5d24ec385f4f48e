"""Rooms of which nothing is expected but their end lie packed: some KiB each instead of dozens.

Ended shows outnumber those on air, since a room is kept for days after its last event (`pipeline.retirement`). Once a
room's windows have run out and it is saved, its state is kept as bytes with the few numbers that are asked for
meanwhile; its next event or visit unpacks it. What a worker finds in a changelog stays packed from the start, so that
coming back costs what is on air. That changes no output: a room comes back from bytes as it was, as after any restart.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from pipeline import segments
from pipeline.agenda import Agenda
from pipeline.room import Farewell, RoomState
from pipeline.segments import Link
from pipeline.snapshot import SnapshotError, load_as, load_room

LEVEL: Final = 1
"""Of zlib: the fastest. These bytes are read again at most once in days."""
STALE: Final = -2
"""Due moment of an entry that stands for no room any more."""


class Head(msgspec.Struct, gc=False):
    """What of a saved room says whether it may stay packed; fields as in `RoomState`."""

    room_id: str
    offset: int = -1
    chain: list[Link] = msgspec.field(default_factory=list)
    pending: dict[int, msgspec.Raw] = msgspec.field(default_factory=dict)
    farewells: list[Farewell] = msgspec.field(default_factory=list)
    is_gone: bool = False
    is_changed: bool = False
    n_news: int = 0
    heard_ms: int = -1
    due_ms: int = -1
    largest_ts: int = -1
    n_events: int = 0
    n_duplicates: int = 0
    n_late: int = 0
    n_shed: int = 0
    rejects: dict[str, int] = msgspec.field(default_factory=dict)
    first_offset: int = -1


class Asleep:
    """A packed room: its head, its hot state, its ledger's segments (compressed where we packed it ourselves)."""

    __slots__ = ("due_ms", "head", "hot", "is_compressed", "parts", "room_id")

    def __init__(self, head: Head, hot: bytes, parts: tuple[bytes, ...], *, is_compressed: bool) -> None:
        self.room_id, self.due_ms = head.room_id, head.due_ms
        self.head, self.hot, self.parts, self.is_compressed = head, hot, parts, is_compressed

    def unpacked(self, data: bytes) -> bytes:
        """Return what was packed."""
        return zlib.decompress(data) if self.is_compressed else data


def may_sleep(room: RoomState | Head, ledger_ms: int) -> bool:
    """Tell whether nothing is expected of a room for as long as a ledger is kept; `ledger_ms` of the policy."""
    return (
        room.heard_ms >= 0
        and room.n_news == 0
        and not room.is_changed
        and not room.pending
        and not room.is_gone
        and not room.farewells
        and (room.due_ms < 0 or room.due_ms >= room.heard_ms + ledger_ms)
    )


class Rooms(dict[str, RoomState]):
    """The rooms of a partition by id: those awake; those asleep wake up when they are asked for by `find`.

    `in_place_of` gives the room that stands for one whose bytes cannot be read any more.
    """

    def __init__(self, agenda: Agenda, in_place_of: Callable[[Head, RoomState | None, Exception], RoomState]) -> None:
        super().__init__()
        self._agenda, self._in_place_of = agenda, in_place_of
        self.asleep: dict[str, Asleep] = {}

    @property
    def n_held(self) -> int:
        """Rooms awake and asleep."""
        return len(self) + len(self.asleep)

    def find(self, room_id: str) -> RoomState | None:
        """Return a room, awake; None when there is none of that name."""
        room = self.get(room_id)
        return room if room is not None or room_id not in self.asleep else self.wake(room_id)

    def wake(self, room_id: str) -> RoomState | None:
        """Unpack a room that sleeps; None when none of that name does."""
        asleep = self.asleep.pop(room_id, None)
        if asleep is None:
            return None
        room: RoomState | None = None
        try:
            room = load_room(asleep.unpacked(asleep.hot))
            segments.fill(room, map(asleep.unpacked, asleep.parts))
        except MemoryError:
            raise
        except Exception as error:
            # Of this room alone: whoever asked for it must not end by it, and must not find it damaged for ever.
            self[room_id] = room = self._in_place_of(asleep.head, room, SnapshotError(str(error)))
        else:
            self[room_id] = room
            self._agenda.replace(asleep, room)
        asleep.due_ms = STALE
        return room

    def wake_all(self) -> None:
        """Unpack every room."""
        for room_id in list(self.asleep):
            self.wake(room_id)

    def sleep(self, room: RoomState, hot: bytes) -> None:
        """Pack a room that was just saved as `hot`."""
        head = Head(
            room.room_id,
            offset=room.offset,
            chain=room.chain,
            due_ms=room.due_ms,
            largest_ts=room.largest_ts,
            n_events=room.n_events,
            n_duplicates=room.n_duplicates,
            n_late=room.n_late,
            n_shed=room.n_shed,
            rejects=room.rejects,
            first_offset=room.first_offset,
        )
        parts = tuple([zlib.compress(part, LEVEL) for part in segments.ledger_of(room)])
        asleep = Asleep(head, zlib.compress(hot, LEVEL), parts, is_compressed=True)
        del self[room.room_id]
        self.asleep[room.room_id] = asleep
        self._agenda.replace(room, asleep)

    def keep_asleep(self, head: Head, hot: bytes, saved: Mapping[str, bytes]) -> list[str]:
        """Keep a room packed as the changelog holds it; return keys of segments that it does not name.

        Raises
        ------
        BrokenChainError
            A segment that it names is not there.
        """
        named = segments.named(head)
        parts = tuple([segments.required(head.room_id, key, saved) for key in named])
        self.asleep[head.room_id] = asleep = Asleep(head, hot, parts, is_compressed=False)
        if asleep.due_ms >= 0:
            self._agenda.put(asleep)
        return sorted(saved.keys() - set(named))


_decode_head: Final = msgspec.msgpack.Decoder(tuple[int, Head]).decode


def head_of(data: bytes) -> Head:
    """Return the head of a saved room; raise SnapshotError for bytes that are none of this version's."""
    head: Any = load_as(data, _decode_head)
    if not isinstance(head, Head):
        msg = f"a head must be one, got {type(head).__name__}"
        raise TypeError(msg)
    return head
