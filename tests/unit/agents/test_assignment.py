"""Partitions that come, stay, go, are lost and come back, over a Kafka in memory."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaTimeoutError, NotLeaderForPartitionError, TopicAuthorizationFailedError
from faust.types import TP

from agents.assignment import Assignment, is_passing
from agents.errors import ProgramError
from agents.rooms import LostError, Rooms
from agents.shard import Pace
from agents.snapshots import Snapshots
from schemas.topics import ROOM_EVENTS
from tests.chain_engine import ChainEngine, records
from tests.memory_kafka import Broker, Client

LOG = TP(ROOM_EVENTS, 0)
N_RECORDS = 30


class App:
    """Faust's application and its consumer, as far as an assignment knows them."""

    def __init__(self) -> None:
        self.consumer = self
        self.should_stop = False
        self.consumer_generation_id = 0
        self.sought: dict[TP, int] = {}

    async def sleep(self, _seconds: float) -> None:
        await asyncio.sleep(0)

    async def seek_wait(self, offsets: dict[TP, int]) -> None:
        self.sought |= offsets
        self.should_stop = True  # what was lost is back: the loop may end


class Member(Client):
    """The only member of its group, with one partition of one topic."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker, Random(1))
        self.consumer = self
        self.end = len(broker.records)

    def joined(self, generation: int) -> None:
        self.generation = generation
        self.forget_commits()

    def assigned(self, _topics: object) -> list[TP]:
        return [LOG]

    async def positions(self, tps: list[TP]) -> dict[TP, tuple[int, int]]:
        return dict.fromkeys(tps, (self.broker.committed + 1, self.end))


class Changelog:
    """The changelog's reader over the same memory; `reading` is awaited before it answers."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.reading: asyncio.Event | None = None

    def stand_by(self, *_: object) -> None: ...

    def release(self, _partition: int) -> None: ...

    def forget(self, _partition: int) -> None: ...

    async def is_ours(self, partition: int) -> bool:
        return await self.member.is_ours(partition)

    async def load(self, partitions: list[int]) -> dict[int, Snapshots]:
        found = {partition: await self.member.load() for partition in partitions}
        if self.reading is not None:
            await self.reading.wait()
        return found


class Guard:
    """Topics that never grow."""

    async def check_assignment(self) -> None: ...


class Process:
    """One worker with its parts, in the order in which Faust calls them."""

    def __init__(self) -> None:
        self.broker = Broker(records(N_RECORDS, 1))
        self.app, self.member = App(), Member(self.broker)
        self.changelog = Changelog(self.member)
        self.told: list[list[int]] = []
        self.failed: list[Exception] = []
        self.rooms = Rooms(
            lambda _: ChainEngine(),
            send_many=self.member.send_many,
            snapshots=self.member,
            group=self.member,
            pace=Pace(0.05, 0.2),
        )
        self.assignment = Assignment(
            self.app, cast("Any", self.member), self.rooms, cast("Any", self.changelog), cast("Any", Guard()),
            topics=(ROOM_EVENTS,), changelog_topic="changelog", told=self.told.append, fail=self.fail,
        )  # fmt: skip

    async def fail(self, error: Exception) -> None:
        self.failed.append(error)

    async def assign(self, generation: int) -> None:
        self.assignment.begin(generation, (0,), ())
        await self.assignment.complete()

    async def apply_all(self) -> None:
        shard = self.rooms.shard(0)
        assert shard is not None
        await self.rooms.apply(shard, self.broker.records)


def next_offset(process: Process) -> int | None:
    cursor = process.assignment.cursor(LOG)
    return None if cursor is None else cursor.next


@pytest.mark.parametrize("error", [LostError(), KafkaTimeoutError(), NotLeaderForPartitionError(), ConnectionError()])
def test_what_kafka_or_another_worker_did_passes(error: Exception) -> None:
    assert is_passing(error)


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError(), ProgramError("no"), ValueError("a bug")])
def test_what_nobody_but_us_can_mend_does_not(error: Exception) -> None:
    assert not is_passing(error)


@pytest.mark.parametrize(("generation", "stays"), [(2, True), (3, False)])
def test_a_partition_goes_on_where_it_rested_unless_a_generation_was_missed(generation: int, *, stays: bool) -> None:
    async def run() -> None:
        process = Process()
        await process.assign(1)
        await process.apply_all()
        before = process.rooms.shard(0)
        await process.assignment.hand_over(5.0)
        assert (process.rooms.partitions, next_offset(process)) == (frozenset(), None)
        assert process.broker.committed == N_RECORDS - 1
        await process.assign(generation)
        assert (process.rooms.shard(0) is before) is stays
        assert next_offset(process) == N_RECORDS
        assert process.told == [[0], [0]]

    asyncio.run(run())


def test_an_assignment_that_comes_while_snapshots_are_read_is_the_one_that_counts() -> None:
    async def run() -> None:
        process = Process()
        process.changelog.reading = asyncio.Event()
        process.assignment.begin(1, (0,), ())
        first = asyncio.create_task(process.assignment.complete())
        await asyncio.sleep(0)
        process.assignment.begin(2, (0,), ())
        process.changelog.reading.set()
        await first
        assert (process.told, next_offset(process), process.rooms.partitions) == ([], None, frozenset())
        await process.assignment.complete()
        assert (process.told, next_offset(process)) == ([[0]], 0)

    asyncio.run(run())


def test_a_lost_partition_begins_anew_from_what_is_durable() -> None:
    async def run() -> None:
        process = Process()
        await process.assign(1)
        await process.apply_all()  # and nothing of it is saved
        process.assignment.lose(LOG, LostError())
        assert (process.rooms.partitions, next_offset(process)) == (frozenset(), None)
        await process.assignment.begin_anew()
        assert (process.app.sought, next_offset(process), process.failed) == ({LOG: 0}, 0, [])
        shard = process.rooms.shard(0)
        assert shard is not None
        assert shard.offset == -1

    asyncio.run(run())


def test_a_topic_that_is_shorter_than_what_is_known_of_it_was_made_anew() -> None:
    async def run() -> None:
        process = Process()
        await process.assign(1)
        await process.apply_all()
        await process.assignment.hand_over(5.0)
        process.member.end = N_RECORDS - 1
        process.assignment.begin(3, (0,), ())
        with pytest.raises(
            ProgramError, match=f"must reach offset {N_RECORDS}, got {N_RECORDS - 1}: the topic was made"
        ):
            await process.assignment.complete()

    asyncio.run(run())
