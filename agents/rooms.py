"""Each assigned partition's engine: records in, messages out, snapshots beside them, and only then the commit.

The order is what makes the state exact although Kafka delivers at least once: (1) records are applied and what follows
from them is sent; (2) once that is confirmed, the snapshots of every room they touched are written; (3) once those
are confirmed, the records are acknowledged. A crash anywhere in between repeats records, which the restored engine
skips room by room, and messages, which carry the same ids.

Nothing here knows Faust: how records arrive is `agents.app`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from agents.logs import facts
from agents.sender import Confirmation, Send, cloud_event
from schemas.base import EVERY_ROOM

log = logging.getLogger(__name__)

MAX_UNCONFIRMED: Final = 5_000
"""Messages on their way for one partition before its next records have to wait."""

Records = list[tuple[int, int | None, bytes, bytes | None]]


class EngineLike(Protocol):
    """What of `pipeline.Engine` is used here."""

    def process(self, records: Iterable[Any]) -> Sequence[Any]:
        """Apply records, return messages."""

    def changed(self) -> Mapping[str, bytes | None]:
        """Return snapshots of the rooms touched since the last call; None is a tombstone."""

    def restore(self, snapshots: Mapping[str, bytes]) -> None:
        """Go on from snapshots."""


class SnapshotLog(Protocol):
    """Where snapshots are kept: a partition of the changelog."""

    async def write(self, partition: int, room_id: str, offset: int, snapshot: bytes | None) -> Confirmation:
        """Queue the snapshot of a room as of `offset` of its partition."""


class Shard:
    """One partition: its engine, and what is not yet confirmed."""

    def __init__(self, partition: int, engine: EngineLike) -> None:
        self.partition, self.engine = partition, engine
        self.offset = -1
        """Last record applied since this process got the partition."""
        self.acknowledged = -1
        self.snapshot_due_s = 0.0
        self.unconfirmed: list[Confirmation] = []

    async def apply(self, records: Records, send: Send) -> None:
        """Apply records in order and send what follows from them to the same partition."""
        for output in self.engine.process(records):
            value = output.json()
            headers = cloud_event(output.topic, self.partition, value)
            confirmation = await send(output.topic, output.key.encode(), value, self.partition, headers=headers)
            self.unconfirmed.append(confirmation)
        self.offset = records[-1][0]
        if len(self.unconfirmed) > MAX_UNCONFIRMED:
            await self.confirm()

    async def confirm(self) -> None:
        """Return once everything sent so far is in Kafka."""
        sent, self.unconfirmed = self.unconfirmed, []
        for confirmation in sent:
            await confirmation


class Rooms:
    """The partitions that this worker has now.

    Parameters
    ----------
    make_engine : a new engine for a partition.
    send, snapshots : ways to Kafka.
    acknowledge : called with partition and offset once all up to it is durable.
    snapshot_interval_s : at most this much work is repeated after a crash.
    """

    def __init__(
        self,
        make_engine: Callable[[int], EngineLike],
        *,
        send: Send,
        snapshots: SnapshotLog,
        acknowledge: Callable[[int, int], None],
        snapshot_interval_s: float,
    ) -> None:
        self._make_engine, self._send, self._snapshots = make_engine, send, snapshots
        self._acknowledge, self._interval_s = acknowledge, snapshot_interval_s
        self._shards: dict[int, Shard] = {}
        # Records are applied under the first alone, snapshots written under both: while Kafka confirms them, the
        # engines go on.
        self._applying, self._saving = asyncio.Lock(), asyncio.Lock()

    @property
    def partitions(self) -> frozenset[int]:
        """Partitions whose engines are restored and at work."""
        return frozenset(self._shards)

    def begin(self, saved: Mapping[int, Mapping[str, bytes]]) -> None:
        """Take these partitions, each from its rooms' snapshots; any former state is forgotten."""
        now_s = time.monotonic()
        shards = {}
        for place, (partition, snapshots) in enumerate(sorted(saved.items())):
            engine = self._make_engine(partition)
            engine.restore(snapshots)
            shard = shards[partition] = Shard(partition, engine)
            # Partitions take turns, so that not all of them write at once.
            shard.snapshot_due_s = now_s + self._interval_s * (place + 1) / len(saved)
        self._shards = shards

    def forget(self) -> None:
        """Drop every partition without a word to Kafka: a successor goes on from what is durable."""
        self._shards = {}

    def shard(self, partition: int) -> Shard | None:
        """Return the partition as it is held now; None when it is not."""
        return self._shards.get(partition)

    async def apply(self, shard: Shard, records: Records) -> None:
        """Apply records to a partition, unless it was taken away, be it for a moment: then they come again."""
        async with self._applying:
            if self._shards.get(shard.partition) is shard and records:
                with self._whole_or_gone(shard):
                    await shard.apply(records, self._send)

    async def save_due(self) -> float:
        """Write the snapshots of partitions whose turn it is; return seconds until the next turn."""
        now_s = time.monotonic()
        for shard in [shard for shard in self._shards.values() if shard.snapshot_due_s <= now_s]:
            shard.snapshot_due_s = now_s + self._interval_s
            await self._save(shard)
        dues = [shard.snapshot_due_s for shard in self._shards.values()]
        return max(0.0, min(dues, default=now_s + self._interval_s) - time.monotonic())

    async def save_all(self) -> None:
        """Write every partition's snapshots now: before they go to another worker, or before the end."""
        for shard in list(self._shards.values()):
            await self._save(shard)

    @contextmanager
    def _whole_or_gone(self, shard: Shard) -> Iterator[None]:
        """Drop a partition whose work was interrupted: its state is no longer what was sent and written."""
        try:
            yield
        except BaseException:
            if self._shards.get(shard.partition) is shard:
                del self._shards[shard.partition]
            raise

    async def _save(self, shard: Shard) -> None:
        async with self._saving:
            if self._shards.get(shard.partition) is shard:
                with self._whole_or_gone(shard):
                    await self._save_whole(shard)

    async def _save_whole(self, shard: Shard) -> None:
        async with self._applying:
            if shard.offset == shard.acknowledged:
                return
            offset, sent = shard.offset, shard.unconfirmed
            shard.unconfirmed = []
            changed = shard.engine.changed()
        for confirmation in sent:
            await confirmation
        rooms = {room_id: snapshot for room_id, snapshot in changed.items() if room_id != EVERY_ROOM}
        await self._write(shard.partition, offset, rooms)
        # Last, so that a crash in between leaves rooms ahead of the partition's clock, which is harmless: they
        # skip records. A clock ahead of its rooms would date their records anew.
        await self._write(shard.partition, offset, {name: changed[name] for name in changed.keys() - rooms.keys()})
        shard.acknowledged = offset
        if self._shards.get(shard.partition) is shard:
            self._acknowledge(shard.partition, offset)
        log.debug("snapshots written", extra=facts(partition=shard.partition, offset=offset, n_rooms=len(rooms)))

    async def _write(self, partition: int, offset: int, snapshots: Mapping[str, bytes | None]) -> None:
        written = [
            await self._snapshots.write(partition, room_id, offset, snapshot) for room_id, snapshot in snapshots.items()
        ]
        for confirmation in written:
            await confirmation
