"""Reading the changelog: all of it before a partition begins here, and on and on where this worker stands by.

Faust says who has a partition and who stands by for it; the reading is ours. Faust's recovery empties its queue of
changelog records whenever the flow resumes, which leaves a hole in what a standby has read and tells nobody; it
judges what it read by counters that outlive an assignment; and it pays for each snapshot as for an event.

Memory: a partition's snapshots are held here while it is read or stood by for. Once its engine runs, the engine is the
one copy, and only the end of the changelog is remembered: nobody but the partition's owner writes there, so an end
that is further on than our own records says that somebody else did.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from agents.logs import facts
from agents.snapshots import Snapshots

log = logging.getLogger(__name__)

POLL_MS: Final = 500
RETRY_S: Final = 1.0
STOP_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 8.0
"""A connection that is silent for longer is closed and another one asked. aiokafka's own 40 s would hold up a whole
assignment where the broker, or something between, dropped a connection that nobody had used for a while."""
ATTEMPTS: Final = 4
"""As many answers are waited for before it is an error: not less patience than aiokafka's."""
MAX_FETCH_BYTES: Final = 8 * 1024 * 1024


class _Ending:
    """Where a running partition's changelog ends if we alone wrote."""

    __slots__ = ("offset",)

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def count(self) -> None:
        self.offset += 1


def _nothing() -> None: ...


class Changelog:
    """One worker's view of the changelog `topic`; belongs to the event loop it is started in."""

    def __init__(self, servers: Sequence[str], topic: str, *, fetch_wait_ms: int) -> None:
        self._servers, self._topic, self._fetch_wait_ms = servers, topic, fetch_wait_ms
        self._consumer: Any = None
        self._following: asyncio.Task[None] | None = None
        self._starting, self._reading = asyncio.Lock(), asyncio.Lock()
        self._standbys: frozenset[int] = frozenset()
        self._loads: list[set[int]] = []
        """Under way: a partition that begins anew may be read while a new assignment's are."""
        self._held: dict[int, Snapshots] = {}
        self._ends: dict[int, _Ending] = {}
        """Of partitions whose engine runs: where the changelog ends if we alone wrote."""
        self._assigned: frozenset[int] = frozenset()
        self._positions: dict[int, int] = {}
        """Where the consumer reads on, of what is assigned to it."""

    async def start(self) -> None:
        """Connect; does nothing the second time."""
        async with self._starting:
            if self._consumer is not None:
                return
            consumer = AIOKafkaConsumer(
                bootstrap_servers=list(self._servers),
                client_id="roompulse-changelog",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=self._fetch_wait_ms,
                max_partition_fetch_bytes=MAX_FETCH_BYTES,
                request_timeout_ms=int(ANSWER_TIMEOUT_S * 1_000),
            )
            await consumer.start()
            self._consumer = consumer
            self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Let go of the connection."""
        following, self._following = self._following, None
        consumer, self._consumer = self._consumer, None
        if following is not None:
            following.cancel()
            await asyncio.wait([following])
        if consumer is not None:
            # In a task of its own: aiokafka's close raises CancelledError where a fetch has just failed.
            await asyncio.wait([asyncio.create_task(consumer.stop())], timeout=STOP_TIMEOUT_S)

    # -- what is held -----------------------------------------------------------------------------------------

    @property
    def held(self) -> dict[int, int]:
        """Return how many bytes of which partition's snapshots are held in memory."""
        return {partition: snapshots.n_bytes for partition, snapshots in self._held.items()}

    def n_read(self, partition: int) -> int:
        """Return up to which offset a partition that is held was read."""
        held = self._held.get(partition)
        return 0 if held is None else held.next

    def stand_by(self, standbys: Collection[int], actives: Collection[int]) -> None:
        """Read these partitions on and on from now; what is neither stood by for nor active is forgotten."""
        self._standbys = frozenset(standbys)
        kept = self._standbys | frozenset(actives)
        self._held = {partition: held for partition, held in self._held.items() if partition in kept}
        self._ends = {partition: end for partition, end in self._ends.items() if partition in actives}

    async def load(self, partitions: Iterable[int]) -> dict[int, Snapshots]:
        """Return these partitions' snapshots, read to the end as it is now; what a standby read is not read again."""
        wanted = set(partitions)
        if not wanted:
            return {}
        await self.start()
        self._loads.append(wanted)
        try:
            ends = await self.ends(wanted)
            known = sum(self._snapshots(partition).next for partition in wanted)
            for partition in wanted:
                self._ends.pop(partition, None)
            while any(self._snapshots(partition).next < ends[partition] for partition in wanted):
                await self._read()
            log.debug(
                "snapshots read",
                extra=facts(partitions=sorted(wanted), n_records=sum(ends.values()) - known, n_records_before=known),
            )
            return {partition: self._snapshots(partition) for partition in wanted}
        finally:
            self._loads.remove(wanted)

    def release(self, partition: int) -> None:
        """Let go of a partition's snapshots: its engine has them now."""
        self._ends[partition] = _Ending(self._held.pop(partition).next)

    def forget(self, partition: int) -> None:
        """Know nothing of a partition: it is read from its beginning when it is needed."""
        self._held.pop(partition, None)
        self._ends.pop(partition, None)

    def counter(self, partition: int) -> Callable[[], None]:
        """Return what to call once a record that is queued now is in the changelog.

        It counts for the partition as it runs now alone: what arrives after it began anew is somebody else's.
        """
        ending = self._ends.get(partition)
        return _nothing if ending is None else ending.count

    async def is_ours(self, partition: int) -> bool:
        """Say whether nobody else wrote into a running partition's changelog; ours must be confirmed."""
        return bool(await self.ours((partition,)))

    async def ours(self, partitions: Iterable[int]) -> set[int]:
        """Return those of the running partitions whose changelog nobody else wrote to, asked for all at once."""
        expected = {partition: self._ends[partition].offset for partition in partitions if partition in self._ends}
        ends = await self.ends(expected)
        return {partition for partition, end in expected.items() if ends[partition] == end}

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return where these partitions of the changelog end."""
        await self.start()
        places = [TopicPartition(self._topic, partition) for partition in partitions]
        for attempt in range(1, ATTEMPTS + 1):
            try:
                found = await self._consumer.end_offsets(places) if places else {}
            except KafkaTimeoutError:
                if attempt == ATTEMPTS:
                    raise
                log.warning("changelog's ends asked for again", extra=facts(attempt=attempt))
                # The one that was asked may hang, and its partitions may have another leader by now.
                await self._consumer._client.force_metadata_update()
            else:
                break
        return {place.partition: end for place, end in found.items()}

    # -- reading ----------------------------------------------------------------------------------------------

    def _snapshots(self, partition: int) -> Snapshots:
        return self._held.setdefault(partition, Snapshots())

    async def _read(self) -> None:
        """Take in what one fetch brings of all that is loaded or stood by for."""
        async with self._reading:
            wanted = self._standbys.union(*self._loads)
            self._seek(wanted)
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            for place, records in batches.items():
                if place.partition in self._held:
                    self._held[place.partition].take(records)
            for partition in wanted:
                # A log may end in what is no record (a transaction's marker): the position passes it, `take` cannot.
                position = await self._consumer.position(TopicPartition(self._topic, partition))
                self._positions[partition] = position
                if partition in self._held:
                    self._held[partition].next = max(self._held[partition].next, position)

    def _seek(self, wanted: frozenset[int]) -> None:
        """Let the consumer read on where each partition's snapshots end."""
        if wanted != self._assigned:
            self._consumer.assign([TopicPartition(self._topic, partition) for partition in sorted(wanted)])
            self._assigned, self._positions = wanted, {}
        for partition in wanted:
            begin = self._snapshots(partition).next
            if self._positions.get(partition) != begin:
                self._consumer.seek(TopicPartition(self._topic, partition), begin)

    async def _follow(self) -> None:
        """Read on for the standbys; what goes wrong here shows again, and loud, when a partition is loaded."""
        while True:
            try:
                if self._standbys:
                    await self._read()
                else:
                    await asyncio.sleep(POLL_MS / 1_000)
            except Exception as error:
                log.warning("standby does not read", extra=facts(error=f"{type(error).__name__}: {error}"))
                await asyncio.sleep(RETRY_S)
