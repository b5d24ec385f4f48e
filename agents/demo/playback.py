"""A recorded log through Kafka in the log's own time: stamps as recorded, ticks between, any year.

A line without a stamp gets the one that a replay gives it: the largest `ts` accepted so far. The log's clock then
runs `speed` times as fast as the wall's; a pause in the log that would last longer than `MAX_PAUSE_S` here is cut
short. Whoever plays a file vouches for it, as in a replay: its controls and answers are signed anew, with this run's
key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from agents.bridge import seal
from agents.cli.replay import lines_of, read_record
from agents.demo.source import Due
from schemas.base import EVERY_ROOM
from schemas.decode import STRUCTS, Reject, decode

MAX_PAUSE_S: Final = 2.0
MAX_STEP_S: Final = 0.5
"""Wall time that one look may bring at most: while the worker is waited for, the log's clock stands still."""
MAX_RECORDS: Final = 2_000
"""Records of one look."""
LAST_MS: Final = 1_500
"""After the last record the clock goes on this long: every room's last emission falls into it."""
NOBODY: Final = ""
"""Room of a record that names none: it will be refused, and any partition does."""

_SIGNED: Final = (STRUCTS["control"], STRUCTS["ack"])
_NO_NEWS: Final = (STRUCTS["tick"], *_SIGNED)


class _Line(NamedTuple):
    """A record to be written once the log's clock has come to `moment_ms`."""

    moment_ms: int
    due: Due


class Playback:
    """The recorded log of a file; `control_key` signs its controls, `wall_ms` is when it begins."""

    def __init__(self, name: str, speed: float, *, control_key: bytes) -> None:
        self._lines = self._read(name, control_key)
        self._speed = speed
        self._next: _Line | None = next(self._lines, None)
        self._clock_ms: float | None = None if self._next is None else self._next.moment_ms
        self._wall_ms: int | None = None
        self._is_over = self._next is None

    @property
    def clock_ms(self) -> int | None:
        """The log's own time; None when the file holds no record."""
        return None if self._clock_ms is None else int(self._clock_ms)

    @property
    def is_live(self) -> bool:
        """Always: a recording has no past but its own."""
        return True

    @property
    def is_over(self) -> bool:
        """Whether the last record was returned, and the last tick's time has come."""
        return self._is_over

    def due(self, wall_ms: int) -> list[Due]:
        """Return what the log has by now."""
        if self._clock_ms is None:
            return []
        if self._next is None:
            self._is_over = True
            return []
        step_ms = 0 if self._wall_ms is None else min(wall_ms - self._wall_ms, round(MAX_STEP_S * 1_000))
        self._wall_ms = wall_ms
        clock_ms = self._clock_ms + max(0, step_ms) * self._speed
        clock_ms = max(clock_ms, self._next.moment_ms - MAX_PAUSE_S * 1_000 * self._speed)
        found: list[Due] = []
        while self._next is not None and self._next.moment_ms <= clock_ms and len(found) < MAX_RECORDS:
            found.append(self._next.due)
            last_ms = self._next.moment_ms
            self._next = next(self._lines, None)
            if self._next is None:
                clock_ms = last_ms + LAST_MS
            elif len(found) == MAX_RECORDS:
                clock_ms = last_ms  # the rest of this moment comes with the next look
        self._clock_ms = max(self._clock_ms, clock_ms)
        return found

    def _read(self, name: str, control_key: bytes) -> Iterator[_Line]:
        largest_ts = moment_ms = 0
        for number, line in lines_of([name]):
            (_, stamp, value, *rest), _ = read_record(line, number)
            raw_key = rest[0] if rest else None
            key = raw_key.decode(errors="replace") if raw_key is not None else None
            elements = decode(value, timestamp_ms=stamp, key=key)
            accepted = [element for element in elements if type(element) is not Reject]
            largest_ts = max([largest_ts, *(element.ts for element in accepted)])
            moment_ms = max(moment_ms, largest_ts if stamp is None else stamp)
            if accepted and isinstance(accepted[0], _SIGNED):
                value = seal(orjson.loads(value), control_key)
            n_events = sum(not isinstance(element, _NO_NEWS) for element in accepted)
            yield _Line(moment_ms, Due(moment_ms if stamp is None else stamp, _room_of(accepted, key), value, n_events))


def _room_of(accepted: list[Any], key: str | None) -> str:
    """Return whose partition a record goes to; what is said to all goes to all, whatever its key."""
    room_id = accepted[0].room_id if accepted else None
    if room_id == EVERY_ROOM or key is None:
        return room_id or NOBODY
    return key
