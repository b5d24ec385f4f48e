"""Which rooms to visit when: lists by moment, so that a room costs two appends a visit however many there are."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, Protocol

FAR_MS: Final = 3_600_000
"""An entry so much later than the new one is taken out: it would keep what it stands for in memory for days."""


class Due(Protocol):
    """A room, or what stands for it."""

    room_id: str
    due_ms: int


class Agenda:
    """Rooms by the moment they are due; a room is due once, at the earliest moment it was called for."""

    __slots__ = ("_moments", "_rooms")

    def __init__(self) -> None:
        self._rooms: dict[int, list[Due]] = {}
        self._moments: list[int] = []

    def call(self, room: Due, at_ms: int) -> None:
        """Put a room on the list of a moment, unless it is due before."""
        if room.due_ms < 0 or at_ms < room.due_ms:
            if room.due_ms - at_ms > FAR_MS:
                self._drop(room)
            room.due_ms = at_ms
            self.put(room)

    def _drop(self, room: Due) -> None:
        rooms = self._rooms.get(room.due_ms, [])
        rooms[:] = [other for other in rooms if other is not room]

    def put(self, room: Due) -> None:
        """Put a room on the list of the moment it is due at."""
        rooms = self._rooms.get(room.due_ms)
        if rooms is None:
            self._rooms[room.due_ms] = [room]
            heapq.heappush(self._moments, room.due_ms)
        else:
            rooms.append(room)

    def replace(self, room: Due, by: Due) -> None:
        """Let something else stand for a room on the list of the moment it is due at."""
        rooms = self._rooms.get(room.due_ms, [])
        for place, other in enumerate(rooms):
            if other is room:
                rooms[place] = by

    def pass_to(self, now_ms: int) -> Iterator[tuple[int, Due]]:
        """Yield (moment, room) for all that is due by now, by time and then by name, and take them off the list."""
        while self._moments and self._moments[0] <= now_ms:
            at_ms = heapq.heappop(self._moments)
            for room in sorted(self._rooms.pop(at_ms), key=_name):
                if room.due_ms == at_ms:  # else it was called for an earlier moment, and visited then
                    room.due_ms = -1
                    yield at_ms, room


def _name(room: Due) -> str:
    return room.room_id
