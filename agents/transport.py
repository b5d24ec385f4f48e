"""Faust bent where exact state needs it: a partition's fetched records as one message, and a table of snapshots.

Rebalancing, fetching, commits and the recovery of tables stay Faust's. What is different, and why:

- One fetch is handed on as chunks of records, so that Faust's cost is paid once a chunk; the changelogs' too, since a
  recovery that pays it for each snapshot takes ten times as long.
- Faust acknowledges messages it skips in a rebalance; here only `acknowledge` moves the commit.
- Faust drops messages below the offset it read last, which a late message can set too high; `agents.intake` judges.
- A partition that was just taken away has no high-water mark: asking for it raises, which would end the worker.
- A table's store knows a key once; here the same key (`*`) lives in every partition.
"""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final, cast

import faust
from aiokafka.errors import ConsumerStoppedError, IllegalStateError
from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, EventT
from faust.types.tuples import ConsumerMessage

from agents.errors import ProgramError
from agents.fetch import MAX_FETCH_BYTES, MAX_PARTITION_FETCH_BYTES, Fetched, LogRecord, fetched
from agents.producer import BatchProducer

MAX_CHUNK_RECORDS: Final = 2_000
"""Bounds how long one chunk keeps the event loop; the engine's answers do not depend on it."""
EMBEDDED_FETCH_WAIT_MS: Final = 40
"""The embedded broker answers an empty fetch only when its wait is over, even if a record arrives meanwhile."""
FETCH_WAIT_MS: Final = 500
EMBEDDED_LEADER_DELAY_S: Final = 0.3
"""The embedded broker refuses followers that ask for their part after the leader has dealt it out."""


class Chunk(ConsumerMessage):
    """Records of one partition, in order, as one message; its offset is the last one's."""

    records: list[LogRecord]
    fetched_s: float
    """When asking for them began, on the monotonic clock."""


def messages(batch: Iterable[EventT[Any]]) -> Iterator[tuple[int, list[LogRecord]]]:
    """Yield partition and records of what the recovery of a table hands over, each partition's in order."""
    for event in batch:
        yield event.message.partition, cast(Chunk, event.message).records


class _Thread(driver.AIOKafkaConsumerThread):
    """Asks for new records as often as the broker needs it and in large pieces, and leaves them packed."""

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = cast("ChunkTransport", transport).fetch_wait_ms
        consumer._fetch_max_bytes = MAX_FETCH_BYTES
        consumer._max_partition_fetch_bytes = MAX_PARTITION_FETCH_BYTES
        return consumer

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP] | None,
        timeout: float | None = None,
        max_records: int | None = None,  # noqa: ARG002  (what is packed is not counted)
    ) -> Any:
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        with fetcher._subscriptions.fetch_context():
            return await fetched(fetcher, active_partitions, timeout or 0.0)


class ChunkConsumer(driver.Consumer):
    """Hands on each partition's fetched records as chunks."""

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield what one fetch brought, unpacked as far as it is taken."""
        fetched_s = time.monotonic()
        answer, active = await self._wait_next_records(timeout)
        packed = cast("dict[TP, Fetched] | None", answer)  # what `_Thread` returns
        if packed is None or self.should_stop:
            return
        if not self.flow_active:
            # As Faust does: what was fetched is forgotten, so it has to be fetched again.
            try:
                await self.perform_seek()
            except Exception as error:  # a rebalance may take the partitions away in the middle; it seeks again itself
                self.log.info("seek while paused failed: %r", error)
            return
        generation = self.app.consumer_generation_id
        for tp, batches in packed.items():
            if active is not None and tp not in active and tp not in self._buffered_partitions:
                continue
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            for records in batches.chunks(MAX_CHUNK_RECORDS):
                if not self.flow_active or self.app.consumer_generation_id != generation:
                    return
                self._read_offset[tp] = None
                yield tp, self._chunk(tp, records, fetched_s)

    def _chunk(self, tp: TP, records: list[LogRecord], fetched_s: float) -> Chunk:
        offset, timestamp, _, _ = records[-1]
        chunk = Chunk(
            tp.topic,
            tp.partition,
            offset,
            (timestamp or 0) / 1000,
            0,
            None,
            None,
            b"",
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        chunk.records, chunk.fetched_s = records, fetched_s
        return chunk

    def highwater(self, tp: TP) -> int:
        """Return the end of a partition as last heard; 0 for one that was just taken away."""
        try:
            return super().highwater(tp) or 0
        except (IllegalStateError, AttributeError):
            return 0

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look for a stalled partition, unless it was taken away while looking."""
        try:
            super().verify_event_path(now, tp)
        except (IllegalStateError, AttributeError, KeyError):
            return

    def ack(self, message: Any) -> bool:
        """Forget the message; the commit moves by `acknowledge` alone."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    def acknowledge(self, tp: TP, offset: int) -> None:
        """Let the next commit stand after `offset`: all up to it is done and durable."""
        self._acked[tp].append(offset)

    def _new_offset(self, tp: TP) -> int | None:
        acknowledged = self._acked[tp]
        if not acknowledged:
            return None
        newest = max(acknowledged)
        acknowledged.clear()
        return newest + 1

    async def positions(self, tps: Iterable[TP]) -> dict[TP, tuple[int, int]]:
        """Return, for each partition, the offset to go on from and the end of its log."""
        thread = self._thread
        found: dict[TP, tuple[int, int]] = await thread.call_thread(_positions, thread._ensure_consumer(), list(tps))
        return found


async def _positions(consumer: Any, tps: list[TP]) -> dict[TP, tuple[int, int]]:
    begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    found = {}
    for tp in tps:
        committed = await consumer.committed(tp)
        found[tp] = (max(committed or 0, begins[tp]), ends[tp])
    return found


class ChunkTransport(driver.Transport):
    """Kafka through `ChunkConsumer` and `BatchProducer`."""

    Consumer: ClassVar[type[ChunkConsumer]] = ChunkConsumer
    Producer: ClassVar[type[BatchProducer]] = BatchProducer
    fetch_wait_ms: int = FETCH_WAIT_MS


class PatientAssignor(PartitionAssignor):
    """Faust's assignor, slow enough for the embedded broker."""

    def assign(self, cluster: Any, member_metadata: Any) -> Any:
        """Return each member's part, after the others had time to ask for theirs."""
        time.sleep(EMBEDDED_LEADER_DELAY_S)  # in the consumer's own thread
        return super().assign(cluster, member_metadata)


_FORMAT: Final = 1
_HEAD: Final = struct.Struct(">BQ")


def pack(offset: int, snapshot: bytes) -> bytes:
    """Return a snapshot as the changelog holds it: format, offset of the partition it stands for, content."""
    return _HEAD.pack(_FORMAT, offset) + snapshot


def unpack(value: bytes) -> tuple[int, bytes]:
    """Return offset and content of a changelog value; raise ProgramError when a newer program wrote it."""
    if len(value) < _HEAD.size or value[0] != _FORMAT:
        msg = f"snapshot must be of format {_FORMAT}, got {value[:1].hex() or 'nothing'}: run the version that wrote it"
        raise ProgramError(msg)
    return _HEAD.unpack_from(value)[1], value[_HEAD.size :]


class SnapshotTable(faust.Table[bytes, bytes]):
    """Snapshots a partition and room, kept in a compacted changelog; this process holds its own partitions' copy.

    A worker that was taken for dead may still write a snapshot after its successor did. The log makes both the same
    function of their offset, so the one with the higher offset is kept, whichever was written last.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.saved: dict[int, dict[str, bytes]] = {}
        """Packed snapshots: partition -> room -> value."""
        self.applied: dict[int, int] = {}
        """Offset of the changelog up to which `saved` stands, by partition."""

    def keep(self, partition: int, room: str, value: bytes | None) -> None:
        """Hold a snapshot that is in the changelog; None is a tombstone."""
        rooms = self.saved.get(partition)
        if rooms is None:
            return
        if value is None:
            rooms.pop(room, None)
        elif room not in rooms or unpack(rooms[room])[0] <= unpack(value)[0]:
            rooms[room] = value

    def snapshots(self, partition: int) -> dict[str, bytes]:
        """Return what to restore a partition from."""
        return {room: unpack(value)[1] for room, value in self.saved.get(partition, {}).items()}

    def newest(self, partition: int) -> int:
        """Return the highest offset of the log that a snapshot of this partition stands for, -1 without any."""
        return max((unpack(value)[0] for value in self.saved.get(partition, {}).values()), default=-1)

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Take in changelog records, each partition's in order."""
        for partition, records in messages(batch):
            for offset, _, value, key in records:
                # A partition that is not ours is not in `applied`: what is still on its way for it is left out.
                if offset > self.applied.get(partition, offset):
                    self.applied[partition] = offset
                    self.keep(partition, (key or b"").decode(), value or None)

    def persisted_offset(self, tp: TP) -> int | None:
        """Return where to read the changelog on from: Faust's own note can belong to a former assignment."""
        return self.applied.get(tp.partition, -1)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Forget partitions that went, start empty with those that came."""
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        here = {tp.partition for tp in assigned if tp.topic == self.changelog_topic_name}
        came = {tp.partition for tp in newly_assigned if tp.topic == self.changelog_topic_name}
        self.saved = {partition: {} if partition in came else self.saved.get(partition, {}) for partition in here}
        self.applied = {partition: -1 if partition in came else self.applied.get(partition, -1) for partition in here}

    def missing(self, highwaters: Mapping[TP, int]) -> list[int]:
        """Return partitions whose changelog was not read to its end as it was when recovery began."""
        ends = {tp.partition: end for tp, end in highwaters.items() if tp.topic == self.changelog_topic_name}
        return [partition for partition, applied in self.applied.items() if applied < ends.get(partition, -1)]
