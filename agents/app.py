"""The Faust application: who consumes what, and what happens when partitions come and go.

Faust gives membership, assignment, fetching and commits. What decides is elsewhere: `agents.rooms` (engines and
snapshots), `agents.changelog` (reading them back), `agents.bridge` (signatures), `agents.clock` (time),
`agents.intake` (no hole, no repeat). A partition whose work Kafka interrupted begins anew from what is durable. Any
other error ends the worker: going on after a lost record would be worse than a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any, Final, cast

from aiokafka.errors import KafkaError, KafkaTimeoutError
from faust.types import TP

from agents.application import make_app
from agents.bridge import JUDGES, Bridge
from agents.changelog import Changelog
from agents.clock import Clock
from agents.config import control_key_of, privacy_key_of
from agents.errors import ProgramError
from agents.fetch import Detailed
from agents.intake import Cursor
from agents.kafka import Cluster, bootstrap, changelog_of, partition_of_key
from agents.layout import Layout, LayoutError, check, newest, partition_counts
from agents.logs import facts
from agents.producer import BatchProducer
from agents.rooms import LostError, Rooms
from agents.sender import Confirmation, Headers, Message
from agents.shard import Pace, Records
from agents.snapshots import pack, tombstone_headers
from agents.tables import SnapshotTable
from agents.transport import (
    EMBEDDED_FETCH_WAIT_MS,
    FETCH_WAIT_MS,
    Chunk,
    ChunkConsumer,
)
from pipeline import Engine
from pipeline.engine import ENGINE_VERSION
from pipeline.snapshot import SnapshotError
from schemas.base import EVERY_ROOM
from schemas.settings import Settings
from schemas.topics import ROOM_EVENTS

log = logging.getLogger(__name__)

TABLE: Final = "rooms"
HANDOVER_S: Final = 0.5
"""Share of the rebalance timeout spent on last snapshots; what is not saved by then is worked out again elsewhere."""
PAUSE: Final = 0.5
"""A worker that stood still for this share of the session asks the group before it writes on."""
SAVE_STEP_S: Final = 1.0
"""The loop that saves comes round at least so often: it is also what notices that the process stood still."""
LAYOUT_INTERVAL_S: Final = 10.0
"""How often the topics' partitions are counted: whoever adds some by hand splits rooms until workers stop."""
RETRY_S: Final = (0.5, 30.0)
"""Pauses between attempts to begin a partition anew: the first, doubled each time, and the longest."""

_STAR: Final = EVERY_ROOM.encode()
_PASSING: Final = (LostError, KafkaTimeoutError, ConnectionError, TimeoutError)


class Worker:
    """One worker process: the application with its agents, and what they share."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self.app = make_app(settings, cluster)
        self._settings, self._n_partitions = settings, cluster.n_partitions
        self._is_embedded = cluster.embedded
        control_key = control_key_of(settings)
        privacy_key_of(settings)  # without it ids could not become tokens: better not to start
        # The log alone says what policy decides: an engine begins with the defaults, live as in a replay.
        own = Settings(privacy_key=settings.privacy_key, control_key=settings.control_key)
        self.rooms = Rooms(
            lambda partition: Engine(own, partition=partition),
            send_many=self.send_many,
            snapshots=self,
            group=self,
            pace=Pace(settings.worker.snapshot_interval_s, settings.worker.snapshot_max_interval_s),
            pause_s=settings.kafka.session_timeout_s * PAUSE,
        )
        self.changelog = Changelog(
            bootstrap(settings),
            changelog_of(settings),
            fetch_wait_ms=EMBEDDED_FETCH_WAIT_MS if cluster.embedded else FETCH_WAIT_MS,
        )
        self.bridge = Bridge(self.send, control_key, self._n_partitions)
        self.clock = Clock(
            self.send,
            lambda: self.rooms.partitions,
            policy=settings.policy,
            versions={"engine": ENGINE_VERSION, "policy": settings.policy.version()},
            control_key=control_key,
            ticks=settings.worker.clock,
        )
        self.table = SnapshotTable(
            self.app,
            name=TABLE,
            key_type=bytes,
            value_type=bytes,
            partitions=self._n_partitions,
            recovery_buffer_size=1,  # a chunk at a time
        )
        self.app.tables.add(self.table)
        if self.table.changelog_topic_name != changelog_of(settings):
            msg = f"changelog must be named {changelog_of(settings)}, got {self.table.changelog_topic_name}"
            raise ProgramError(msg)
        self.table.on_assigned = self._on_assigned
        self._cursors: dict[TP, Cursor] = {}
        self._strangers: dict[int, set[bytes]] = {}
        """Keys of rooms that a producer sends to another partition than theirs."""
        self._lost: set[TP] = set()
        """Partitions of ours that have to begin anew."""
        self._generation = -1
        self._n_assignments = 0
        """What began under one assignment must not end under the next."""
        self._attach()

    @property
    def _consumer(self) -> ChunkConsumer:
        consumer = self.app.consumer
        if not isinstance(consumer, ChunkConsumer):
            msg = f"transport must be ours, got {type(consumer).__name__}"
            raise TypeError(msg)
        return consumer

    @property
    def _producer(self) -> BatchProducer:
        return cast(BatchProducer, self.app.producer)

    # -- to Kafka ---------------------------------------------------------------------------------------------

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int,
        *,
        timestamp_ms: int | None = None,
        headers: Headers | None = None,
    ) -> Confirmation:
        """Queue one record past Faust's topic layer, which would print its content when sending fails."""
        message = (topic, key, value, headers or ())
        return (await self._producer.send_many((message,), partition, timestamp_ms=timestamp_ms))[0]

    async def send_many(self, messages: Sequence[Message], partition: int) -> list[Confirmation]:
        """Queue records for one partition of their topics."""
        return await self._producer.send_many(messages, partition)

    async def write(self, partition: int, key: str, snapshot: bytes | None, *, reign: int, offset: int) -> Confirmation:
        """Queue the state of a key for the changelog; None removes the key."""
        topic = self.table.changelog_topic_name
        if snapshot is None:
            sent = await self.send(topic, key.encode(), None, partition, headers=tombstone_headers(reign))
        else:
            sent = await self.send(topic, key.encode(), pack(reign, offset, snapshot), partition)
        return _Counted(sent, lambda: self.changelog.wrote(partition))

    async def is_ours(self, partition: int) -> bool:
        """Say whether nobody else wrote a partition's snapshots since it began here."""
        return await self.changelog.is_ours(partition)

    @property
    def generation(self) -> int:
        """The group's generation that this worker is a member of."""
        return self._generation

    def acknowledge(self, partition: int, offset: int) -> None:
        """Let the next commit of a room partition stand after `offset`."""
        self._consumer.acknowledge(TP(ROOM_EVENTS, partition), offset)

    def committed(self, partition: int) -> int:
        """Return the last offset covered by a commit of this generation; -1 without one."""
        return self._consumer.confirmed_commits.get(TP(ROOM_EVENTS, partition), 0) - 1

    async def still_here(self) -> bool:
        """Ask the group whether this worker is a member of its current generation."""
        return await self._consumer.still_here()

    # -- from Kafka -------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        app = self.app
        for topic in (ROOM_EVENTS, *JUDGES):
            source = app.topic(topic, key_type=bytes, value_type=bytes, partitions=self._n_partitions)
            app.agent(source, name=f"roompulse.{topic}")(self._agent)
        handlers: tuple[tuple[Any, Any], ...] = (
            (app.on_partitions_revoked, self._on_revoked),
            (app.on_rebalance_complete, self._on_recovered),
            (app.on_before_shutdown, self._on_shutdown),
        )
        for signal, handler in handlers:
            signal.connect(handler)
        app.task(self._save_in_turn)
        app.task(self._begin_anew)
        app.task(self._run_clock)
        if not self._is_embedded:
            app.task(self._watch_layout)

    async def _agent(self, stream: Any) -> None:
        async for event in stream.noack().events():
            try:
                await self._take(event.message)
            except Exception as error:
                if not _is_passing(error):
                    await self._fail(error)
                    return
                self._lose(event.message.tp, error)
            await asyncio.sleep(0)  # what was sent goes out, and the clock ticks, also while chunks wait in a row

    async def _take(self, chunk: Chunk) -> None:
        cursor = self._cursors.get(chunk.tp)
        if cursor is None or chunk.generation_id != self.app.consumer_generation_id:
            return  # of a former assignment: its records come again, here or elsewhere
        shard = self.rooms.shard(chunk.partition)
        if chunk.topic == ROOM_EVENTS and shard is None:
            return  # it begins anew
        wanted = cursor.next
        first, last = chunk.records[0][0], chunk.records[-1][0]
        verdict = cursor.judge(first, last, fetched_s=chunk.fetched_s, now_s=time.monotonic())
        if verdict == "read_again":
            log.info("records read again", extra=facts(topic=chunk.topic, partition=chunk.partition, offset=wanted))
            await self._read_again(chunk.tp, cursor)
        if verdict != "take":
            return
        records = chunk.records if first >= wanted else [record for record in chunk.records if record[0] >= wanted]
        if chunk.topic == ROOM_EVENTS:
            if shard is not None:
                await self._look_at_keys(chunk.partition, records)
                await self.rooms.apply(shard, records)
        else:
            await self.bridge.carry(chunk.topic, chunk.partition, [Detailed(*record) for record in records])
            if self._cursors.get(chunk.tp) is cursor:
                self._consumer.acknowledge(chunk.tp, last)

    async def _read_again(self, tp: TP, cursor: Cursor) -> None:
        try:
            await self.app.consumer.seek_wait({tp: cursor.next})
        except Exception:
            if self._cursors.get(tp) is cursor:
                raise
            return  # taken away while asking
        cursor.asked(time.monotonic())

    def _lose(self, tp: TP, error: Exception) -> None:
        """Let a partition begin anew from what is durable."""
        if self._cursors.pop(tp, None) is None:
            return
        if tp.topic == ROOM_EVENTS:
            self.rooms.forget(tp.partition)
            self.changelog.forget(tp.partition)
        self._lost.add(tp)
        log.warning(
            "partition begins anew",
            extra=facts(topic=tp.topic, partition=tp.partition, error=f"{type(error).__name__}: {error}"),
        )

    async def _fail(self, error: Exception) -> None:
        self.rooms.forget_all()
        log.error("worker fails", exc_info=error)
        await self.app.crash(error)

    # -- partitions come and go -------------------------------------------------------------------------------

    def _on_assigned(self, generation: int, actives: Collection[int], standbys: Collection[int]) -> None:
        """Forget what did not stay with us without a break: in a generation we missed it may have been another's."""
        stayed = actives if generation == self._generation + 1 else ()
        self._generation = generation
        self._n_assignments += 1
        self._cursors = {}
        self._lost.clear()
        self._consumer.confirmed_commits.clear()
        self.rooms.rest()
        self.rooms.keep_resting(stayed)
        self.changelog.stand_by(standbys, actives)

    async def _on_recovered(self, *_args: Any, **_kwargs: Any) -> None:
        """Start with the partitions of this assignment: go on with what rested, read the others' snapshots."""
        number = self._n_assignments
        await self._check_layout()
        assigned = [tp for tp in self.app.consumer.assignment() if tp.topic in (ROOM_EVENTS, *JUDGES)]
        positions = await self._consumer.positions(assigned) if assigned else {}
        partitions = sorted(tp.partition for tp in positions if tp.topic == ROOM_EVENTS)
        kept = []
        for partition, offset in self.rooms.resting.items():
            next_offset, _ = positions.get(TP(ROOM_EVENTS, partition), (offset + 2, 0))
            if next_offset <= offset + 1 and await self.changelog.is_ours(partition):
                kept.append(partition)
        if not await self._start([partition for partition in partitions if partition not in kept], positions, number):
            return  # assigned anew meanwhile: this is called again for that
        cursors = {tp: Cursor(next_offset) for tp, (next_offset, _) in positions.items()}
        for partition in kept:
            cursors[TP(ROOM_EVENTS, partition)] = Cursor(self.rooms.resume(partition).offset + 1)
        self.clock.assigned(partitions)
        self._cursors = cursors
        log.info("ready", extra=facts(partitions=partitions, generation=self.app.consumer_generation_id, kept=kept))

    async def _start(self, partitions: list[int], positions: Mapping[TP, tuple[int, int]], number: int) -> bool:
        """Begin partitions from their snapshots; False when another assignment came meanwhile."""
        found = await self.changelog.load(partitions)
        for partition in partitions:
            if self._n_assignments != number:
                return False
            snapshots = found[partition]
            next_offset, end = positions[TP(ROOM_EVENTS, partition)]
            needed = max(next_offset, snapshots.newest() + 1)
            if needed > end:
                msg = (
                    f"{ROOM_EVENTS} partition {partition} must reach offset {needed}, got {end}: "
                    "the topic was made anew; set another ROOMPULSE_KAFKA__APP_ID"
                )
                raise ProgramError(msg)
            try:
                self.rooms.begin(partition, snapshots)
            except SnapshotError as error:
                msg = f"partition {partition} of {changelog_of(self._settings)}: {error}"
                raise ProgramError(msg) from None
            self.changelog.release(partition)
            await asyncio.sleep(0)  # a large partition takes its time: others' turn
        return self._n_assignments == number

    async def _begin_anew(self) -> None:
        """Bring lost partitions back, again and again while Kafka does not let us."""
        shortest_s, longest_s = RETRY_S
        pause_s, back_s = shortest_s, -longest_s
        while not self.app.should_stop:
            await self.app.sleep(pause_s)
            if not self._lost:
                # What is lost again soon after it came back has to wait longer than the last time.
                pause_s = pause_s if time.monotonic() - back_s < longest_s else shortest_s
                continue
            pause_s = min(pause_s * 2, longest_s)
            try:
                await self._bring_back()
                back_s = time.monotonic()
            except Exception as error:
                if not _is_passing(error):
                    await self._fail(error)
                    return
                log.warning(
                    "partitions wait for Kafka",
                    extra=facts(error=f"{type(error).__name__}: {error}", again_in_s=pause_s),
                )

    async def _bring_back(self) -> None:
        lost, number = sorted(self._lost), self._n_assignments
        if not lost or not await self._consumer.still_here():
            return  # a worker that is no member is assigned anew
        positions = await self._consumer.positions(lost)
        if not await self._start([tp.partition for tp in lost if tp.topic == ROOM_EVENTS], positions, number):
            return
        for tp in lost:
            self._lost.discard(tp)
            self._cursors[tp] = Cursor(positions[tp][0])
        await self.app.consumer.seek_wait({tp: positions[tp][0] for tp in lost})
        log.info("ready again", extra=facts(partitions=[f"{tp.topic}-{tp.partition}" for tp in lost]))

    async def _on_revoked(self, *_args: Any, **_kwargs: Any) -> None:
        await self._hand_over(self._settings.kafka.rebalance_timeout_s * HANDOVER_S)

    async def _on_shutdown(self, *_args: Any, **_kwargs: Any) -> None:
        await self._hand_over(self._settings.kafka.rebalance_timeout_s)
        self.rooms.forget_all()
        await self.changelog.stop()

    async def _hand_over(self, timeout_s: float) -> None:
        """Save what can be saved in time, then let everything rest until it is known whose it is."""
        self._cursors = {}
        self._lost.clear()
        self._n_assignments += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self.rooms.save_all()
                if not await self.app.consumer.commit():  # it waited for one under way, which knew less
                    await self.app.consumer.commit()
                await self.rooms.bury_all()
        except Exception as error:  # nothing is lost: a successor works it out again from the last snapshots
            log.warning("last snapshots not written", extra=facts(error=type(error).__name__))
        finally:
            self.rooms.rest()
        if self.rooms.n_written_bytes:
            log.info(
                "snapshots written so far",
                extra=facts(n_input_bytes=self.rooms.n_input_bytes, n_written_bytes=self.rooms.n_written_bytes),
            )

    # -- as time goes by --------------------------------------------------------------------------------------

    async def _save_in_turn(self) -> None:
        while not self.app.should_stop:
            pause_s = SAVE_STEP_S
            try:
                pause_s = min(await self.rooms.save_due(), SAVE_STEP_S)
            except Exception as error:
                if not _is_passing(error):
                    await self._fail(error)
                    return
                for tp in [tp for tp in self._cursors if tp.topic == ROOM_EVENTS]:
                    if tp.partition not in self.rooms.partitions:
                        self._lose(tp, error)
            await self.app.sleep(max(pause_s, 0.001))

    async def _run_clock(self) -> None:
        await self.clock.run(lambda: self.app.should_stop, self.app.sleep)

    # -- how many partitions there are ------------------------------------------------------------------------

    @property
    def _logs(self) -> list[TP]:
        return [TP(ROOM_EVENTS, partition) for partition in range(self._n_partitions)]

    async def _check_layout(self) -> None:
        """Stop where rooms would be split, or are on their way to other partitions.

        The start looked at the same, but before this worker was a member of the group: only from now on nobody else
        can write a note.
        """
        n_partitions = max([self._n_partitions, *(tp.partition + 1 for tp in self.app.consumer.assignment())])
        known = newest(await self._consumer.commit_notes(self._logs)) or Layout(self._n_partitions)
        check(known, {ROOM_EVENTS: n_partitions})

    async def _look_at_keys(self, partition: int, records: Records) -> None:
        """Stop before a record is applied that a producer sent here because the topic has grown.

        One that comes here for another reason, a wrong partitioner, stops nothing: the others must not suffer.
        """
        keys = {record[3] for record in records}
        strange = {
            key for key in keys if key and key != _STAR and partition_of_key(key, self._n_partitions) != partition
        }
        strange -= self._strangers.get(partition, set())
        if not strange or self._is_embedded:
            return
        check(Layout(self._n_partitions), await partition_counts(bootstrap(self._settings), (ROOM_EVENTS,)))
        self._strangers.setdefault(partition, set()).update(strange)
        log.warning("rooms in another partition than theirs", extra=facts(partition=partition, n_rooms=len(strange)))

    async def _watch_layout(self) -> None:
        """Look at the number of partitions again and again; a broker that does not answer is no news."""
        while not self.app.should_stop:
            await self.app.sleep(LAYOUT_INTERVAL_S)
            try:
                found = await partition_counts(bootstrap(self._settings), (ROOM_EVENTS,))
            except Exception as error:
                log.debug("partitions not counted", extra=facts(error=f"{type(error).__name__}: {error}"))
                continue
            try:
                check(Layout(self._n_partitions), found)
            except LayoutError as error:
                await self._fail(error)
                return


def _is_passing(error: Exception) -> bool:
    """Say whether Kafka or another worker did it: then the partition begins anew, and nothing of it is lost."""
    return isinstance(error, _PASSING) or (isinstance(error, KafkaError) and bool(error.retriable))


class _Counted:
    """A snapshot's confirmation; once it is there, the changelog is one record of ours longer."""

    def __init__(self, confirmation: Confirmation, count: Callable[[], None]) -> None:
        self._confirmation, self._count = confirmation, count

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._confirmation.__await__()
        self._count()
