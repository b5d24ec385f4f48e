"""The Faust application: who consumes what, and how the parts of a worker are put together.

Faust gives membership, assignment, fetching and commits. What decides is elsewhere: `agents.rooms` (engines and
snapshots), `agents.assignment` (partitions that come and go), `agents.changelog` (reading snapshots back),
`agents.bridge` (signatures), `agents.clock` (time), `agents.intake` (no hole, no repeat), `agents.layout_guard` (topics
that grew). A partition whose work Kafka interrupted begins anew from what is durable. Any other error ends the worker:
going on after a lost record would be worse than a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, cast

from faust.types import TP

from agents.application import make_app
from agents.assignment import Assignment, is_passing
from agents.bridge import JUDGES, Bridge
from agents.changelog import Changelog
from agents.clock import Clock
from agents.config import control_key_of, privacy_key_of
from agents.errors import ProgramError
from agents.fetch import Detailed
from agents.intake import Cursor
from agents.kafka import Cluster, bootstrap, changelog_of
from agents.layout_guard import LayoutGuard
from agents.logs import facts
from agents.membership import Membership
from agents.producer import BatchProducer
from agents.rooms import Rooms
from agents.sender import Confirmation, Headers, Message
from agents.shard import Pace
from agents.snapshots import pack, tombstone_headers
from agents.tables import SnapshotTable
from agents.transport import EMBEDDED_FETCH_WAIT_MS, FETCH_WAIT_MS, Chunk
from pipeline import Engine
from pipeline.engine import ENGINE_VERSION
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
        self.member = Membership(self.app)
        self.guard = LayoutGuard(settings, cluster, self.member)
        self.rooms = Rooms(
            lambda partition: Engine(own, partition=partition),
            send_many=self.send_many,
            snapshots=self,
            group=self.member,
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
            ticked_ts=self.rooms.ticked_ts,
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
        self.assignment = Assignment(
            self.app,
            self.member,
            self.rooms,
            self.changelog,
            self.guard,
            topics=(ROOM_EVENTS, *JUDGES),
            changelog_topic=self.table.changelog_topic_name,
            told=self.clock.assigned,
            fail=self._fail,
        )
        self.table.on_assigned = self.assignment.begin
        self._attach()

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
        topic, count = self.table.changelog_topic_name, self.changelog.counter(partition)
        if snapshot is None:
            sent = await self.send(topic, key.encode(), None, partition, headers=tombstone_headers(reign))
        else:
            sent = await self.send(topic, key.encode(), pack(reign, offset, snapshot), partition)
        return _Counted(sent, count)

    async def is_ours(self, partition: int) -> bool:
        """Say whether nobody else wrote a partition's snapshots since it began here."""
        return await self.changelog.is_ours(partition)

    # -- from Kafka -------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        app = self.app
        for topic in (ROOM_EVENTS, *JUDGES):
            source = app.topic(topic, key_type=bytes, value_type=bytes, partitions=self._n_partitions)
            app.agent(source, name=f"roompulse.{topic}")(self._agent)
        handlers: tuple[tuple[Any, Any], ...] = (
            (app.on_partitions_revoked, self._on_revoked),
            (app.on_rebalance_complete, self.assignment.complete),
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
                if not is_passing(error):
                    await self._fail(error)
                    return
                self.assignment.lose(event.message.tp, error)
            await asyncio.sleep(0)  # what was sent goes out, and the clock ticks, also while chunks wait in a row

    async def _take(self, chunk: Chunk) -> None:
        cursor = self.assignment.cursor(chunk.tp)
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
                await self.guard.look_at_keys(chunk.partition, records)
                await self.rooms.apply(shard, records)
        else:
            await self.bridge.carry(chunk.topic, chunk.partition, [Detailed(*record) for record in records])
            if self.assignment.cursor(chunk.tp) is cursor:
                self.member.consumer.acknowledge(chunk.tp, last)

    async def _read_again(self, tp: TP, cursor: Cursor) -> None:
        try:
            await self.app.consumer.seek_wait({tp: cursor.next})
        except Exception:
            if self.assignment.cursor(tp) is cursor:
                raise
            return  # taken away while asking
        cursor.asked(time.monotonic())

    async def _fail(self, error: Exception) -> None:
        self.rooms.forget_all()
        log.error("worker fails", exc_info=error)
        await self.app.crash(error)

    # -- partitions come and go -------------------------------------------------------------------------------

    async def _on_revoked(self, *_args: Any, **_kwargs: Any) -> None:
        await self.assignment.hand_over(self._settings.kafka.rebalance_timeout_s * HANDOVER_S)

    async def _on_shutdown(self, *_args: Any, **_kwargs: Any) -> None:
        await self.assignment.hand_over(self._settings.kafka.rebalance_timeout_s)
        self.rooms.forget_all()
        await self.changelog.stop()

    # -- as time goes by --------------------------------------------------------------------------------------

    async def _save_in_turn(self) -> None:
        while not self.app.should_stop:
            pause_s = SAVE_STEP_S
            try:
                pause_s = min(await self.rooms.save_due(), SAVE_STEP_S)
            except Exception as error:
                if not is_passing(error):
                    await self._fail(error)
                    return
                for tp in self.assignment.room_partitions:
                    if tp.partition not in self.rooms.partitions:
                        self.assignment.lose(tp, error)
            await self.app.sleep(max(pause_s, 0.001))

    async def _begin_anew(self) -> None:
        await self.assignment.begin_anew()

    async def _watch_layout(self) -> None:
        await self.guard.watch(self.app, self._fail)

    async def _run_clock(self) -> None:
        await self.clock.run(lambda: self.app.should_stop, self.app.sleep)


class _Counted:
    """A snapshot's confirmation; once it is there, the changelog is one record of ours longer."""

    def __init__(self, confirmation: Confirmation, count: Callable[[], None]) -> None:
        self._confirmation, self._count = confirmation, count

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._confirmation.__await__()
        self._count()
