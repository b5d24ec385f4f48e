"""The Faust application: who consumes what, and what happens when partitions come and go.

Faust gives membership, assignment, fetching, commits and the changelog's recovery. What decides is elsewhere:
`agents.rooms` (engines and snapshots), `agents.bridge` (signatures), `agents.clock` (time), `agents.intake` (no hole,
no repeat). Any error in them ends the worker: going on after a lost record would be worse than a restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Generator
from typing import Any, Final, cast

import faust
from faust.tables.recovery import Recovery
from faust.types import TP
from yarl import URL

from agents.bridge import JUDGES, Bridge
from agents.clock import Clock
from agents.config import broker_of, control_key_of, privacy_key_of
from agents.errors import ProgramError
from agents.fetch import Detailed
from agents.intake import Cursor
from agents.kafka import MAX_SNAPSHOT_BYTES, Cluster, changelog_of
from agents.logs import facts
from agents.producer import BatchProducer
from agents.rooms import Rooms
from agents.sender import Confirmation, Headers
from agents.transport import (
    EMBEDDED_FETCH_WAIT_MS,
    FETCH_WAIT_MS,
    Chunk,
    ChunkConsumer,
    ChunkTransport,
    PatientAssignor,
    SnapshotTable,
    pack,
)
from pipeline import Engine
from pipeline.engine import ENGINE_VERSION
from schemas.settings import Settings
from schemas.topics import ROOM_EVENTS

log = logging.getLogger(__name__)

TABLE: Final = "rooms"
QUEUED_CHUNKS: Final = 16
"""Chunks waiting for one agent before fetching pauses: at most a few MiB a partition."""
REQUEST_MARGIN_S: Final = 5.0
"""Beyond the longest answer that a broker may owe a consumer; Faust's own 90 s would stall a worker as long."""
HANDOVER_S: Final = 0.5
"""Share of the rebalance timeout spent on last snapshots; what is not saved by then is worked out again elsewhere."""


def make_app(settings: Settings, cluster: Cluster) -> faust.App:
    """Return a Faust application without agents, set up for this deployment and broker."""
    kafka, worker = settings.kafka, settings.worker
    app = faust.App(
        kafka.app_id,
        broker=broker_of(settings).replace(",", ";kafka://"),
        store="memory://",
        datadir=worker.data_dir,
        autodiscover=False,
        key_serializer="raw",
        value_serializer="raw",
        topic_partitions=cluster.n_partitions,
        topic_replication_factor=kafka.replication_factor,
        topic_allow_declare=False,  # `provision` makes topics; an embedded broker makes them by itself
        topic_disable_leader=True,
        stream_wait_empty=False,  # the rooms' own snapshots say what is done
        broker_client_id="roompulse",
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.heartbeat_interval_s,
        broker_rebalance_timeout=kafka.rebalance_timeout_s,
        broker_commit_interval=1.0,
        # A broker that is silent for longer is asked no more; joins wait for the whole rebalance.
        broker_request_timeout=max(kafka.session_timeout_s, kafka.rebalance_timeout_s) + REQUEST_MARGIN_S,
        consumer_auto_offset_reset="earliest",
        producer_max_request_size=MAX_SNAPSHOT_BYTES,
        stream_buffer_maxsize=QUEUED_CHUNKS,  # of the changelogs, while a table is recovered
        web_enabled=worker.web_port != 0,
        web_bind="127.0.0.1",
        web_port=worker.web_port or 6066,
        # Members are told apart by their addresses, also where no page is served.
        canonical_url=URL(f"http://{socket.gethostname()}-{os.getpid()}"),
        worker_redirect_stdouts=False,
        PartitionAssignor=PatientAssignor if cluster.embedded else "faust.assignor:PartitionAssignor",
    )
    transport = ChunkTransport(app.conf.broker_consumer or app.conf.broker, app)
    transport.fetch_wait_ms = EMBEDDED_FETCH_WAIT_MS if cluster.embedded else FETCH_WAIT_MS
    app.transport = transport
    return app


class Worker:
    """One worker process: the application with its agents, and what they share."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self.app = make_app(settings, cluster)
        self._settings, self._n_partitions = settings, cluster.n_partitions
        control_key = control_key_of(settings)
        privacy_key_of(settings)  # without it ids could not become tokens: better not to start
        # The log alone says what policy decides: an engine begins with the defaults, live as in a replay.
        own = Settings(privacy_key=settings.privacy_key, control_key=settings.control_key)
        self.rooms = Rooms(
            lambda partition: Engine(own, partition=partition),
            send=self.send,
            snapshots=self,
            acknowledge=lambda partition, offset: self._consumer.acknowledge(TP(ROOM_EVENTS, partition), offset),
            snapshot_interval_s=settings.worker.snapshot_interval_s,
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
        self._cursors: dict[TP, Cursor] = {}
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

    async def write(self, partition: int, room_id: str, offset: int, snapshot: bytes | None) -> Confirmation:
        """Queue a room's snapshot for the changelog."""
        value = None if snapshot is None else pack(offset, snapshot)
        confirmation = await self.send(self.table.changelog_topic_name, room_id.encode(), value, partition)

        return _Kept(confirmation, lambda: self.table.keep(partition, room_id, value))

    # -- from Kafka -------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        app = self.app
        for topic in (ROOM_EVENTS, *JUDGES):
            source = app.topic(
                topic, key_type=bytes, value_type=bytes, partitions=self._n_partitions, maxsize=QUEUED_CHUNKS
            )
            app.agent(source, name=f"roompulse.{topic}")(self._agent)
        handlers: tuple[tuple[Any, Any], ...] = (
            (app.on_partitions_revoked, self._on_revoked),
            (app.on_rebalance_complete, self._on_recovered),
            (app.on_before_shutdown, self._on_shutdown),
        )
        for signal, handler in handlers:
            signal.connect(handler)
        app.task(self._save_in_turn)
        app.task(self._run_clock)

    async def _agent(self, stream: Any) -> None:
        async for event in stream.noack().events():
            try:
                await self._take(event.message)
            except Exception as error:
                await self._fail(error)
                return
            await asyncio.sleep(0)  # what was sent goes out, and the clock ticks, also while chunks wait in a row

    async def _take(self, chunk: Chunk) -> None:
        cursor = self._cursors.get(chunk.tp)
        if cursor is None or chunk.generation_id != self.app.consumer_generation_id:
            return  # of a former assignment: its records come again, here or elsewhere
        shard = self.rooms.shard(chunk.partition)
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

    async def _fail(self, error: Exception) -> None:
        self.rooms.forget()
        log.error("worker fails", exc_info=error)
        await self.app.crash(error)

    # -- partitions come and go -------------------------------------------------------------------------------

    async def _on_recovered(self, *_args: Any, **_kwargs: Any) -> None:
        """Start with the partitions of this assignment, from the changelog that was just read."""
        recovery = cast(Recovery, self.app.tables.recovery)  # type: ignore[attr-defined]  # not in TableManagerT
        if recovery.signal_recovery_start.is_set():
            return  # assigned anew meanwhile: this is called again once that is recovered
        assigned = [tp for tp in self.app.consumer.assignment() if tp.topic in (ROOM_EVENTS, *JUDGES)]
        positions = await self._consumer.positions(assigned) if assigned else {}
        lost = self.table.missing(recovery.active_highwaters)
        if lost:
            msg = f"changelog must be read to its end before work begins, got a gap in partitions {lost}: start again"
            raise ProgramError(msg)
        for tp, (next_offset, end) in positions.items():
            newest = self.table.newest(tp.partition) if tp.topic == ROOM_EVENTS else -1
            if max(next_offset, newest + 1) > end:
                msg = (
                    f"{tp.topic} partition {tp.partition} must reach offset {max(next_offset, newest + 1)}, got {end}: "
                    "the topic was made anew; set another ROOMPULSE_KAFKA__APP_ID"
                )
                raise ProgramError(msg)
        partitions = sorted(tp.partition for tp in positions if tp.topic == ROOM_EVENTS)
        self.rooms.begin({partition: self.table.snapshots(partition) for partition in partitions})
        self.clock.assigned(partitions)
        self._cursors = {tp: Cursor(next_offset) for tp, (next_offset, _) in positions.items()}
        log.info("ready", extra=facts(partitions=partitions, generation=self.app.consumer_generation_id))

    async def _on_revoked(self, *_args: Any, **_kwargs: Any) -> None:
        await self._hand_over(self._settings.kafka.rebalance_timeout_s * HANDOVER_S)

    async def _on_shutdown(self, *_args: Any, **_kwargs: Any) -> None:
        await self._hand_over(self._settings.kafka.rebalance_timeout_s)

    async def _hand_over(self, timeout_s: float) -> None:
        """Save what can be saved in time, then let go of everything."""
        self._cursors = {}
        try:
            async with asyncio.timeout(timeout_s):
                await self.rooms.save_all()
                await self.app.consumer.commit()
        except Exception as error:  # nothing is lost: a successor works it out again from the last snapshots
            log.warning("last snapshots not written", extra=facts(error=type(error).__name__))
        finally:
            self.rooms.forget()

    # -- as time goes by --------------------------------------------------------------------------------------

    async def _save_in_turn(self) -> None:
        while not self.app.should_stop:
            try:
                pause_s = await self.rooms.save_due()
            except Exception as error:
                await self._fail(error)
                return
            await self.app.sleep(max(pause_s, 0.01))

    async def _run_clock(self) -> None:
        await self.clock.run(lambda: self.app.should_stop, self.app.sleep)


class _Kept:
    """A snapshot's confirmation; once it is there, this process holds the snapshot too."""

    def __init__(self, confirmation: Confirmation, keep: Callable[[], None]) -> None:
        self._confirmation, self._keep = confirmation, keep

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._confirmation.__await__()
        self._keep()
