"""What the changelog of one partition says, whoever wrote into it: states count only from owners that still were one.

A worker that was taken for dead may write what it had under way after its successor began. So every record names the
*reign* it was written in, tombstones too, and whoever takes a partition first writes the star again under a higher
reign than any before. A record that stands after one of a higher reign is dead on arrival, whatever its offset: what
counts is what one owner after the other wrote, each until the next one's claim.

Offsets alone would not do: a worker that was stopped can be ahead of its successor and name segments that were merged
and removed since. Compaction knows nothing of this, it keeps the last record of a key. So the owner writes again what
stands before a dead record (`Snapshots.overtaken`), long before `min.compaction.lag.ms` lets compaction take it away.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from agents.errors import ProgramError
from schemas.base import EVERY_ROOM
from schemas.topics import ROOM_EVENTS

_FORMAT: Final = 2
_HEAD: Final = struct.Struct(">BQq")
_OLD_FORMAT: Final = 1
_OLD_HEAD: Final = struct.Struct(">BQ")
_REIGN: Final = struct.Struct(">Q")
_GENERATION_BITS: Final = 32
REIGN_HEADER: Final = "roompulse-reign"
"""Header of a tombstone, which has no value to say it in."""


class State(NamedTuple):
    """What a changelog value says: in which reign it was written, the offset of the log it stands for, the content."""

    reign: int
    offset: int
    content: bytes


def pack(reign: int, offset: int, content: bytes) -> bytes:
    """Return a state as the changelog holds it."""
    return _HEAD.pack(_FORMAT, reign, offset) + content


def unpack(value: bytes) -> State:
    """Return what a changelog value says; raise ProgramError when a newer program wrote it."""
    if value[:1] == bytes((_FORMAT,)) and len(value) >= _HEAD.size:
        _, reign, offset = _HEAD.unpack_from(value)
        return State(reign, offset, value[_HEAD.size :])
    if value[:1] == bytes((_OLD_FORMAT,)) and len(value) >= _OLD_HEAD.size:
        return State(0, _OLD_HEAD.unpack_from(value)[1], value[_OLD_HEAD.size :])
    found = value[:1].hex() or "nothing"
    msg = f"snapshot must be of format {_OLD_FORMAT} or {_FORMAT}, got {found}: run the version that wrote it"
    raise ProgramError(msg)


def tombstone_headers(reign: int) -> list[tuple[str, bytes]]:
    """Return what a tombstone carries beside its key."""
    return [(REIGN_HEADER, _REIGN.pack(reign))]


class Snapshots:
    """The changelog of one partition as far as it was read.

    >>> from types import SimpleNamespace as Record
    >>> snapshots = Snapshots()
    >>> snapshots.take([
    ...     Record(offset=0, key=b"room", value=pack(1, 100, b"first"), headers=()),
    ...     Record(offset=1, key=b"*", value=pack(2, 90, b"star"), headers=()),  # a successor's claim
    ...     Record(offset=2, key=b"room", value=pack(1, 120, b"late"), headers=()),
    ... ])
    >>> snapshots.contents(), list(snapshots.overtaken())
    ({'room': b'first', '*': b'star'}, ['room'])
    """

    def __init__(self) -> None:
        self.next = 0
        """Offset of the changelog to read on from."""
        self.reign = 0
        """The highest so far."""
        self._states: dict[str, State] = {}
        self._overtaken: set[str] = set()

    def take(self, records: Iterable[Any]) -> None:
        """Take in changelog records (`offset`, `key`, `value`, `headers`) in their order; known ones are skipped."""
        for record in records:
            if record.offset >= self.next:
                self._take(record.key.decode(), record.value, record.headers)
                self.next = record.offset + 1

    def _take(self, key: str, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> None:
        state = None if value is None else unpack(value)
        reign = _reign_of(headers) if state is None else state.reign
        if reign < self.reign:
            self._overtaken.add(key)
            return
        self.reign = reign
        self._overtaken.discard(key)
        if state is None:
            self._states.pop(key, None)
        else:
            self._states[key] = state

    def next_reign(self, generation: int) -> int:
        """Return the reign of an owner that has read this: above all before, and no other generation's."""
        return ((self.reign >> _GENERATION_BITS) + 1 << _GENERATION_BITS) + max(generation, 0)

    def contents(self) -> dict[str, bytes]:
        """Return what to restore a partition from: each key's content."""
        contents = {key: state.content for key, state in self._states.items()}
        if not contents.get(EVERY_ROOM, b"?"):
            del contents[EVERY_ROOM]  # claimed before there was any
        return contents

    @property
    def star(self) -> State:
        """The partition's own state; of offset -1 and without content before there is one."""
        return self._states.get(EVERY_ROOM, State(0, -1, b""))

    @property
    def n_bytes(self) -> int:
        """Bytes of the states held."""
        return sum([len(state.content) for state in self._states.values()])

    def newest(self) -> int:
        """Return the highest offset of the log that any state stands for, -1 without any."""
        return max((state.offset for state in self._states.values()), default=-1)

    def overtaken(self) -> dict[str, State | None]:
        """Return what must be written again because a dead record stands after it; None for a key that is gone."""
        return {key: self._states.get(key) for key in sorted(self._overtaken)}


def _reign_of(headers: Sequence[tuple[str, bytes]]) -> int:
    for name, value in headers:
        if name == REIGN_HEADER:
            reign: int = _REIGN.unpack(value)[0]
            return reign
    return 0


def check_log(partition: int, snapshots: Snapshots, next_offset: int, end: int) -> None:
    """Raise ProgramError where the log of a partition, from `next_offset` to `end`, is shorter than is known of it."""
    needed = max(next_offset, snapshots.newest() + 1)
    if needed > end:
        msg = (
            f"{ROOM_EVENTS} partition {partition} must reach offset {needed}, got {end}: "
            "the topic was made anew; set another ROOMPULSE_KAFKA__APP_ID"
        )
        raise ProgramError(msg)
