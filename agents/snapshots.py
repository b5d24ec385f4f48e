"""What the changelog of one partition says: the newest state of each key, whoever wrote last.

A worker that was taken for dead may still write what it had under way after its successor wrote the same key. Each
record therefore names the offset of the room's log that it stands for, tombstones too, and the highest offset counts,
not the last record. Compaction knows nothing of that: it keeps the last record. So whoever reads the changelog writes
again what was overtaken (`Snapshots.overtaken`), long before `min.compaction.lag.ms` lets compaction take it away.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from agents.errors import ProgramError

_FORMAT: Final = 1
_HEAD: Final = struct.Struct(">BQ")
_OFFSET: Final = struct.Struct(">q")
OFFSET_HEADER: Final = "roompulse-offset"
"""Header of a tombstone, which has no value to carry its offset in."""
MAX_GONE: Final = 50_000
"""Removed keys remembered, so that an older record that comes late does not bring them back."""


class Entry(NamedTuple):
    """A key's newest state: the offset of the log it stands for, and the packed value; None for a removed key."""

    offset: int
    packed: bytes | None


def pack(offset: int, snapshot: bytes) -> bytes:
    """Return a snapshot as the changelog holds it: format, offset of the partition it stands for, content."""
    return _HEAD.pack(_FORMAT, offset) + snapshot


def unpack(value: bytes) -> tuple[int, bytes]:
    """Return offset and content of a changelog value; raise ProgramError when a newer program wrote it."""
    return _offset_of(value), value[_HEAD.size :]


def _offset_of(value: bytes) -> int:
    if len(value) < _HEAD.size or value[0] != _FORMAT:
        msg = f"snapshot must be of format {_FORMAT}, got {value[:1].hex() or 'nothing'}: run the version that wrote it"
        raise ProgramError(msg)
    offset: int = _HEAD.unpack_from(value)[1]
    return offset


def tombstone_headers(offset: int) -> list[tuple[str, bytes]]:
    """Return what a tombstone carries beside its key: the offset of the log as of which the key is gone."""
    return [(OFFSET_HEADER, _OFFSET.pack(offset))]


class Snapshots:
    """The changelog of one partition as far as it was read.

    >>> from types import SimpleNamespace as Record
    >>> snapshots = Snapshots()
    >>> snapshots.take([
    ...     Record(offset=0, key=b"room", value=pack(100, b"new"), headers=()),
    ...     Record(offset=1, key=b"room", value=pack(70, b"old"), headers=()),  # of one that was taken for dead
    ... ])
    >>> snapshots.contents(), list(snapshots.overtaken())
    ({'room': b'new'}, ['room'])
    """

    def __init__(self) -> None:
        self.next = 0
        """Offset of the changelog to read on from."""
        self._entries: dict[str, bytes] = {}
        self._gone: dict[str, int] = {}
        self._overtaken: set[str] = set()

    def take(self, records: Iterable[Any]) -> None:
        """Take in changelog records (`offset`, `key`, `value`, `headers`) in their order; known ones are skipped."""
        for record in records:
            if record.offset >= self.next:
                self.next = record.offset + 1
                self._take(record.key.decode(), record.value, record.headers)

    def _take(self, key: str, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> None:
        kept = self._entries.get(key)
        known = _offset_of(kept) if kept is not None else self._gone.get(key, -1)
        offset = _gone_as_of(headers, known) if value is None else _offset_of(value)
        if offset < known:
            self._overtaken.add(key)
            return
        self._overtaken.discard(key)
        if value is not None:
            self._entries[key] = value
            self._gone.pop(key, None)
            return
        self._entries.pop(key, None)
        self._gone.pop(key, None)
        self._gone[key] = offset
        if len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]

    def contents(self) -> dict[str, bytes]:
        """Return what to restore a partition from: each key's content."""
        return {key: value[_HEAD.size :] for key, value in self._entries.items()}

    @property
    def n_bytes(self) -> int:
        """Bytes of the states held."""
        return sum(map(len, self._entries.values()))

    def offset_of(self, key: str) -> int:
        """Return the offset of the log that a key's state stands for, -1 without one."""
        kept = self._entries.get(key)
        return -1 if kept is None else _offset_of(kept)

    def newest(self) -> int:
        """Return the highest offset of the log that any state stands for, -1 without any."""
        return max(map(_offset_of, self._entries.values()), default=-1)

    def overtaken(self) -> dict[str, Entry]:
        """Return what must be written again because an older record stands after it, by key."""
        return {key: self._entry(key) for key in sorted(self._overtaken)}

    def _entry(self, key: str) -> Entry:
        kept = self._entries.get(key)
        return Entry(self._gone.get(key, 0), None) if kept is None else Entry(_offset_of(kept), kept)


def _gone_as_of(headers: Sequence[tuple[str, bytes]], known: int) -> int:
    """Return the offset a tombstone stands for; one that says nothing counts where it is."""
    for name, value in headers:
        if name == OFFSET_HEADER:
            offset: int = _OFFSET.unpack(value)[0]
            return offset
    return known
