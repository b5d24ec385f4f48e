"""Faust bent where exact state needs it: a partition's fetched records as one message, and commits that tell.

Rebalancing, fetching and commits stay Faust's. What is different, and why:

- One fetch is handed on as chunks of records, so that Faust's cost is paid once a chunk.
- Faust acknowledges messages it skips in a rebalance; here only `acknowledge` moves the commit.
- Faust drops messages below the offset it read last, which a late message can set too high; `agents.intake` judges.
- A partition that was just taken away has no high-water mark: asking for it raises, which would end the worker.
- Faust resumes all partitions at once; here those wait (`hold`) whose state is still being read.
- With nothing to fetch Faust sleeps for a second, also when partitions are resumed meanwhile; here that is noticed.
- Faust takes a commit for done whatever the broker said; here it is known which ones this generation's were.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, ClassVar, Final, cast

from aiokafka import OffsetAndMetadata, TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError
from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from agents.fetch import MAX_FETCH_BYTES, MAX_PARTITION_FETCH_BYTES, Fetched, LogRecord, fetched
from agents.logs import facts
from agents.producer import BatchProducer

log = logging.getLogger(__name__)

MAX_CHUNK_RECORDS: Final = 2_000
"""Bounds how long one chunk keeps the event loop; the engine's answers do not depend on it."""
EMBEDDED_FETCH_WAIT_MS: Final = 40
"""The embedded broker answers an empty fetch only when its wait is over, even if a record arrives meanwhile."""
FETCH_WAIT_MS: Final = 100
"""How long a broker may hold a fetch that finds nothing. It takes one request of a connection after the other: a record
of a partition that this fetch does not name waits as long, and so does whatever else is asked there."""
PREFETCH_PATIENCE_S: Final = 1.0
"""How long a broker is not asked while something of its last answer is untaken. aiokafka's own 0.1 s is less than a
busy worker takes for one answer: it then asks for the partitions with nothing to tell alone, and waits for these."""
THREAD_STOP_S: Final = 8.0
"""How long a stop waits for the group to let go; a rebalance under way comes first."""
NOTHING_TO_FETCH_S: Final = 0.02
"""Pause before looking again whether a partition was resumed."""
EMBEDDED_LEADER_DELAY_S: Final = 0.3
"""The embedded broker refuses followers that ask for their part after the leader has dealt it out."""


class Chunk(ConsumerMessage):
    """Records of one partition, in order, as one message; its offset is the last one's."""

    records: list[LogRecord]
    fetched_s: float
    """When asking for them began, on the monotonic clock."""


class _Thread(driver.AIOKafkaConsumerThread):
    """Asks for new records as often as the broker needs it and in large pieces, and leaves them packed."""

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = cast("ChunkTransport", transport).fetch_wait_ms
        consumer._fetch_max_bytes = MAX_FETCH_BYTES
        consumer._max_partition_fetch_bytes = MAX_PARTITION_FETCH_BYTES
        _note_commits(consumer, cast("ChunkTransport", transport).commit_note)
        return consumer

    async def on_start(self) -> None:
        """Connect, and let the next fetch be of all partitions."""
        await super().on_start()
        self._ensure_consumer()._fetcher._prefetch_backoff = PREFETCH_PATIENCE_S

    async def on_thread_stop(self) -> None:
        """Leave the group and close the connections, for so long; what comes after must come after.

        aiokafka's own close raises CancelledError where a fetch has just failed, and waits for ever where a rebalance
        waits for a call that nobody takes any more. Either would leave the thread's end untold, which the worker waits
        a minute for.
        """
        consumer = self._consumer
        try:
            async with asyncio.timeout(THREAD_STOP_S):
                await super().on_thread_stop()
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            log.info("consumer not closed in order", extra=facts(error=type(error).__name__))
            if consumer is not None:
                await consumer._client.close()

    def close(self) -> None:
        """Leave it to `on_thread_stop`: Faust closes the connections here, from the wrong thread, and leaves no group.

        It does so when a rebalance meets a worker that is about to stop.
        """

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.confirmed_commits: dict[TP, int] = {}
        """Next offsets that stand in the group by a commit of the present generation; emptied with each assignment."""
        self._held: frozenset[TP] = frozenset()

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield what one fetch brought, unpacked as far as it is taken."""
        await self.wait(cast("Any", self.can_resume_flow))
        if not self._get_active_partitions():
            await self.sleep(NOTHING_TO_FETCH_S)
            return
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

    async def hold(self, tps: Iterable[TP]) -> None:
        """Fetch nothing of these from now on, and all of the others once Faust resumes them."""
        self._held = frozenset(tps)
        self.pause_partitions(self._held)
        await self._thread.call_thread(_pause, self._thread._ensure_consumer(), self._held)

    async def release(self, tps: Iterable[TP]) -> None:
        """Fetch these partitions that were held."""
        released = frozenset(tps)
        self._held -= released
        self.resume_partitions(released)
        await self._thread.call_thread(_resume, self._thread._ensure_consumer(), released)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume fetching, but of what is held."""
        super().resume_partitions(frozenset(tps) - self._held)

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

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit, and note what the broker took from a member of its current generation.

        Generation and member id go with the request, and no broker takes it under ones that have passed. They are
        compared before and after, since a request that waited for the coordinator may have gone out with others; a
        consumer without a generation (-1) is let in by a group that has no members, which proves nothing.
        """
        before = self._membership()
        done = await super()._commit(offsets)
        if done and before[0] > 0 and before == self._membership():
            for tp, offset in offsets.items():
                self.confirmed_commits[tp] = max(offset, self.confirmed_commits.get(tp, 0))
        return done

    def _membership(self) -> tuple[int, str]:
        coordinator = self._thread._ensure_consumer()._coordinator
        return coordinator.generation, coordinator.member_id

    async def still_here(self) -> bool:
        """Ask the group at once whether this worker is a member of its current generation; if not, it joins again."""
        thread = self._thread
        is_member: bool = await thread.call_thread(_heartbeat, thread._ensure_consumer())
        return is_member and self._membership()[0] == self.app.consumer_generation_id

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

    async def committed_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Return where the group stands in each partition, 0 where it never committed: the coordinator alone is asked.

        Questions to a partition's own broker wait behind the fetch that is under way there.
        """
        thread = self._thread
        found: dict[TP, int] = await thread.call_thread(_committed, thread._ensure_consumer(), list(tps))
        return found

    async def commit_notes(self, tps: Iterable[TP]) -> list[str]:
        """Return what is noted beside these partitions' commits, whoever made them."""
        thread = self._thread
        found: list[str] = await thread.call_thread(_notes, thread._ensure_consumer(), list(tps))
        return found


def _note_commits(consumer: Any, note: str) -> None:
    """Let every commit carry a note: Faust's own are empty."""
    commit = consumer.commit

    async def commit_noted(offsets: Mapping[Any, Any]) -> None:
        await commit({place: OffsetAndMetadata(found.offset, note) for place, found in offsets.items()})

    consumer.commit = commit_noted


async def _notes(consumer: Any, tps: list[TP]) -> list[str]:
    found = await consumer._coordinator.fetch_committed_offsets(tps)
    return [commit.metadata for commit in found.values()]


async def _pause(consumer: Any, tps: Iterable[TP]) -> None:
    """Ask for no more of these; what is fetched of them already is dropped by `agents.fetch`."""
    consumer.pause(*(TopicPartition(*tp) for tp in tps if consumer._subscription.is_assigned(tp)))


async def _resume(consumer: Any, tps: Iterable[TP]) -> None:
    consumer.resume(*(TopicPartition(*tp) for tp in tps if consumer._subscription.is_assigned(tp)))


async def _committed(consumer: Any, tps: list[TP]) -> dict[TP, int]:
    found = await consumer._coordinator.fetch_committed_offsets(tps)
    return {tp: max(found[tp].offset, 0) if tp in found else 0 for tp in tps}


async def _heartbeat(consumer: Any) -> bool:
    coordinator = consumer._coordinator
    return bool(coordinator.generation > 0 and await coordinator._do_heartbeat())


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
    commit_note: str = ""
    """Kept by Kafka beside each commit."""


class PatientAssignor(PartitionAssignor):
    """Faust's assignor, slow enough for the embedded broker."""

    def assign(self, cluster: Any, member_metadata: Any) -> Any:
        """Return each member's part, after the others had time to ask for theirs."""
        time.sleep(EMBEDDED_LEADER_DELAY_S)  # in the consumer's own thread
        return super().assign(cluster, member_metadata)
