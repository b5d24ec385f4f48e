"""The two jobs' state: this project's engine as a guest of a framework, and the counting engine of our own worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import orjson

from pipeline import Engine
from pipeline.snapshot import Checkpoint, Saved
from schemas.base import EVERY_ROOM
from schemas.settings import Settings

PRIVACY_KEY = "benchmark-privacy-key-0123456789abcdef"
CONTROL_KEY = "benchmark-control-key-0123456789abcdef"


_parts = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode


def make_engine(partition: int) -> Engine:
    """Return an engine as the worker makes it."""
    settings = Settings.model_validate({"privacy_key": PRIVACY_KEY, "control_key": CONTROL_KEY})
    return Engine(settings, partition=partition)


def save(engine: Engine, room_id: str) -> bytes:
    """Return a room's state as one value, as a framework's state under the room's key takes it."""
    return msgspec.msgpack.encode(engine.save(room_id).parts)


def restored(engine: Engine, found: Mapping[str, bytes | None]) -> None:
    """Give rooms that are new here back what was kept of them."""
    for value in found.values():
        if value is not None:
            engine.restore(dict(_parts(value)))


class CountingEngine:
    """Counts the events of each room; to our worker it is an engine like any other.

    A snapshot is the offset and the count. After a crash records at or below a room's offset are skipped, so that each
    counts once.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        self.counts: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        self._restored: dict[str, int] = {}
        self._dirty: dict[str, None] = {}
        self.offset = -1

    def process(self, records: Iterable[Any]) -> list[Any]:
        """Decode and count; says nothing."""
        counts, dirty, known, loads = self.counts, self._dirty, self._restored, orjson.loads
        for offset, _, value, _ in records:
            room_id = loads(value)["room_id"]
            if room_id == EVERY_ROOM or (known and offset <= known.get(room_id, -1)):
                continue
            counts[room_id] = counts.get(room_id, 0) + 1
            dirty[room_id] = None
            self.offset = offset
        return []

    def _dump(self, room_id: str) -> bytes:
        return orjson.dumps([self.offset, self.counts.get(room_id, 0)])

    def changed(self) -> dict[str, bytes | None]:
        """Return the snapshots of rooms counted since the last call, and the partition's own."""
        states: dict[str, bytes | None] = {room_id: self._dump(room_id) for room_id in self._dirty}
        self._dirty = {}
        return states | {EVERY_ROOM: self._dump(EVERY_ROOM)}

    def checkpoint(self) -> Checkpoint:
        """Return where the log stands and which rooms are to be saved before it counts."""
        return Checkpoint(self.offset, self._dump(EVERY_ROOM), tuple(self._dirty))

    def save(self, room_id: str) -> Saved:
        """Return a room's snapshot as of now."""
        self._dirty.pop(room_id, None)
        return Saved(((room_id, self._dump(room_id)),), ())

    def settle(self, offset: int) -> None:
        """Nothing rests on what is durable."""

    @property
    def ticked_ts(self) -> int | None:
        """It takes no notice of ticks."""
        return None

    def restore(self, snapshots: Mapping[str, bytes]) -> None:
        """Go on from snapshots."""
        for room_id, value in snapshots.items():
            offset, n = orjson.loads(value)
            if room_id != EVERY_ROOM:
                self._restored[room_id], self.counts[room_id] = offset, n
