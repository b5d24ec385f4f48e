"""Partitions that come, stay, go, are lost and come back, over a Kafka in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from random import Random
from typing import Any, Self, cast

import pytest
from aiokafka.errors import (
    IllegalStateError,
    KafkaTimeoutError,
    NotLeaderForPartitionError,
    TopicAuthorizationFailedError,
)
from faust.types import TP

from agents.assignment import Assignment, is_passing
from agents.errors import ProgramError
from agents.rooms import LostError, Rooms
from agents.sender import Confirmation
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
        self.running: set[asyncio.Task[None]] = set()

    def add_future(self, running: Coroutine[Any, Any, None]) -> None:
        self.running.add(asyncio.create_task(running))

    async def sleep(self, _seconds: float) -> None:
        await asyncio.sleep(0)


class Stuck:
    """A producer that has no room; in the end it takes what waited, or fails."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.reached, self.may_end = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self.may_end.wait()
        if self.error is not None:
            raise self.error


class Member(Client):
    """The only member of its group, with its consumer; what is written of partitions beyond the first is not kept."""

    def __init__(self, broker: Broker, app: App) -> None:
        super().__init__(broker, Random(1))
        self.consumer = self
        self.app = app
        self.end = len(broker.records)
        self.partitions = [0]
        self.held: set[TP] = set()
        self.on_hold: Callable[[], None] | None = None
        self.on_positions: Callable[[], None] | None = None
        self.on_seek: Callable[[], Awaitable[None]] | None = None
        self.sending: Stuck | None = None
        self.writing: Stuck | None = None

    async def _queue(self, topic: str, record: Any) -> Confirmation:
        stuck = self.writing if topic == "changelog" else self.sending
        if stuck is not None:
            await stuck.wait()
        return await super()._queue(topic, record)

    def joined(self, generation: int) -> None:
        self.generation = self.broker.generation = generation
        self.forget_commits()

    def assigned(self, _topics: object) -> list[TP]:
        return [TP(ROOM_EVENTS, partition) for partition in self.partitions]

    async def hold(self, tps: Iterable[TP]) -> None:
        self.held = set(tps)
        if self.on_hold is not None:
            self.on_hold()

    async def release(self, tps: Iterable[TP]) -> None:
        self.held -= set(tps)

    async def seek_wait(self, offsets: dict[TP, int]) -> None:
        self.app.sought |= offsets
        self.app.should_stop = True  # what was lost is back: the loop may end
        if self.on_seek is not None:
            on_seek, self.on_seek = self.on_seek, None
            await on_seek()

    def committed(self, partition: int) -> int:
        return super().committed(partition) if partition == 0 else -1

    async def committed_offsets(self, tps: list[TP]) -> dict[TP, int]:
        return dict.fromkeys(tps, self.broker.committed + 1)

    async def positions(self, tps: list[TP]) -> dict[TP, tuple[int, int]]:
        if self.on_positions is not None:
            self.on_positions()
        return dict.fromkeys(tps, (self.broker.committed + 1, self.end))


class Changelog:
    """The changelog's reader over the same memory; `reading` is awaited before it answers."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.reading: asyncio.Event | None = None
        self.error: Exception | None = None
        self.is_away = False
        self.n_loads = 0

    def stand_by(self, *_: object) -> None: ...

    def release(self, _partition: int) -> None: ...

    def forget(self, _partition: int) -> None: ...

    async def ours(self, partitions: Iterable[int]) -> set[int]:
        if self.is_away:
            raise KafkaTimeoutError
        return {partition for partition in partitions if await self.member.is_ours(partition)}

    async def load(self, partitions: list[int]) -> dict[int, Snapshots]:
        self.n_loads += 1
        found = {partition: Snapshots() if partition else await self.member.load() for partition in partitions}
        if self.reading is not None:
            await self.reading.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error
        return found


class Guard:
    """Topics that never grow."""

    async def check_assignment(self) -> None: ...


class Process:
    """One worker with its parts, in the order in which Faust calls them."""

    def __init__(self) -> None:
        self.broker = Broker(records(N_RECORDS, 1))
        self.app = App()
        self.member = Member(self.broker, self.app)
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

    @classmethod
    async def at_work(cls) -> Self:
        """Return one that has its partition and has applied all that is in it."""
        process = cls()
        await process.assign(1)
        await process.apply_all()
        return process

    async def fail(self, error: Exception) -> None:
        self.failed.append(error)

    async def complete(self) -> None:
        """Do what Faust waits for, then all that goes on meanwhile."""
        await self.assignment.complete()
        while self.app.running:
            await self.app.running.pop()
        self.app.should_stop = False

    async def assign(self, generation: int) -> None:
        self.assignment.begin(generation, self.member.partitions, ())
        await self.complete()

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
        process = await Process.at_work()
        before = process.rooms.shard(0)
        await process.assignment.hand_over(5.0)
        assert (process.rooms.partitions, next_offset(process)) == (frozenset(), None)
        assert process.broker.committed == N_RECORDS - 1
        await process.assign(generation)
        assert (process.rooms.shard(0) is before) is stays
        assert next_offset(process) == N_RECORDS
        # Another may have written its policy into what did not stay.
        assert process.told == [[], [0], [0] if stays else [], [0]]

    asyncio.run(run())


def test_a_partition_that_stays_goes_on_while_the_snapshots_of_one_that_came_are_read() -> None:
    async def run() -> None:
        process, new = Process(), TP(ROOM_EVENTS, 1)
        await process.assign(1)
        await process.apply_all()
        await process.assignment.hand_over(5.0)
        process.member.partitions = [0, 1]
        process.changelog.reading = asyncio.Event()
        process.assignment.begin(2, (0, 1), ())
        await process.assignment.complete()
        await asyncio.sleep(0)
        assert (next_offset(process), process.rooms.partitions) == (N_RECORDS, frozenset({0}))
        # Nothing is fetched of the other yet, and what was on its way is not taken.
        assert (process.member.held, process.assignment.cursor(new)) == ({new}, None)
        process.changelog.reading.set()
        await process.app.running.pop()
        assert process.failed == []
        assert (process.member.held, process.rooms.partitions) == (set(), frozenset({0, 1}))
        cursor = process.assignment.cursor(new)
        assert cursor is not None
        assert process.app.sought[new] == cursor.next

    asyncio.run(run())


def test_an_assignment_that_comes_while_snapshots_are_read_is_the_one_that_counts() -> None:
    async def run() -> None:
        process = Process()
        process.changelog.reading = asyncio.Event()
        process.assignment.begin(1, (0,), ())
        first = asyncio.create_task(process.complete())
        await asyncio.sleep(0)
        process.assignment.begin(2, (0,), ())
        process.changelog.reading.set()
        await first
        assert (next_offset(process), process.rooms.partitions) == (None, frozenset())
        assert process.app.sought == {}
        await process.complete()
        assert (process.told[-1], next_offset(process)) == ([0], 0)

    asyncio.run(run())


def test_a_partition_of_which_kafka_does_not_say_whose_it_is_begins_from_its_snapshots() -> None:
    async def run() -> None:
        process = await Process.at_work()
        before = process.rooms.shard(0)
        await process.assignment.hand_over(5.0)
        process.changelog.is_away = True
        await process.assign(2)
        after = process.rooms.shard(0)
        assert after is not None
        assert after is not before
        assert (next_offset(process), process.failed) == (N_RECORDS, [])

    asyncio.run(run())


def test_snapshots_that_kafka_does_not_give_are_asked_for_again() -> None:
    async def run() -> None:
        process = Process()
        process.changelog.error = KafkaTimeoutError()
        await process.assign(1)
        assert (process.rooms.partitions, process.failed, process.member.held) == (frozenset(), [], {LOG})
        await process.assignment.begin_anew()
        assert (next_offset(process), process.failed, process.member.held) == (0, [], set())

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
        process = await Process.at_work()
        await process.assignment.hand_over(5.0)
        process.member.end = N_RECORDS - 1
        await process.assign(3)
        (error,) = process.failed
        assert isinstance(error, ProgramError)
        assert f"must reach offset {N_RECORDS}, got {N_RECORDS - 1}: the topic was made" in str(error)

    asyncio.run(run())


async def save_now(process: Process) -> None:
    """Do all that a turn of the loop that saves may do, as if time enough had gone by."""
    shard = process.rooms.shard(0)
    assert shard is not None
    shard.next_s = 0.0
    if shard.epoch is not None:
        shard.epoch.begun_s = 0.0
    await process.rooms.save_due()


def totals(engine: ChainEngine) -> dict[str, int]:
    return {name: room.total for name, room in engine.rooms.items()}


def test_a_room_whose_write_fails_while_its_partition_rests_is_written_all_the_same() -> None:
    async def run() -> None:
        process = await Process.at_work()
        shard = process.rooms.shard(0)
        assert shard is not None
        expected = totals(cast("ChainEngine", shard.engine))
        await save_now(process)  # the claim, and an epoch begins
        stuck = process.member.writing = Stuck(KafkaTimeoutError())
        saving = asyncio.create_task(save_now(process))
        await stuck.reached.wait()  # the engine takes its rooms for written
        await process.assignment.hand_over(0.0)
        stuck.may_end.set()
        await asyncio.wait([saving])
        process.member.writing = None
        await process.assign(2)
        await process.apply_all()
        await process.assignment.hand_over(5.0)
        successor = ChainEngine()
        successor.restore(process.broker.read().contents())
        assert (successor.offset, totals(successor)) == (N_RECORDS - 1, expected)

    asyncio.run(run())


@pytest.mark.parametrize("goes_on", ["before", "after"])
def test_messages_that_could_not_be_sent_while_their_partition_rested_are_sent_when_it_goes_on(goes_on: str) -> None:
    async def run() -> None:
        process, undisturbed = Process(), Process()
        await undisturbed.assign(1)
        await undisturbed.apply_all()
        await undisturbed.assignment.hand_over(5.0)
        await process.assign(1)
        stuck = process.member.sending = Stuck(KafkaTimeoutError())
        applying = asyncio.create_task(process.apply_all())
        await stuck.reached.wait()
        await process.assignment.hand_over(0.0)
        if goes_on == "after":
            stuck.may_end.set()
            await asyncio.wait([applying])
        process.member.sending = None
        await process.assign(2)
        stuck.may_end.set()
        await asyncio.wait([applying])
        if process.rooms.shard(0) is None:
            process.assignment.lose(LOG, KafkaTimeoutError())
            await process.assignment.begin_anew()
            process.app.should_stop = False
        assert next_offset(process) == 0
        await process.apply_all()
        await process.assignment.hand_over(5.0)
        assert sorted(process.broker.messages) == sorted(undisturbed.broker.messages)

    asyncio.run(run())


def test_a_partition_that_is_lost_before_it_is_at_work_comes_back() -> None:
    async def run() -> None:
        process = Process()

        async def lose() -> None:
            """Let the claim fail, and do what the loop that saves does then."""
            process.broker.append(b"*", None, ())
            with pytest.raises(LostError):
                await save_now(process)
            for tp in process.assignment.room_partitions:
                process.assignment.lose(tp, LostError())

        process.member.on_seek = lose
        await process.assign(1)
        assert (process.rooms.partitions, next_offset(process)) == (frozenset(), None)
        await process.assignment.begin_anew()
        assert (process.rooms.partitions, next_offset(process), process.failed) == (frozenset({0}), 0, [])

    asyncio.run(run())


def test_what_fails_of_a_lost_partition_after_it_was_taken_away_ends_nobody() -> None:
    async def run() -> None:
        process = Process()
        await process.assign(1)
        process.assignment.lose(LOG, LostError())

        async def take_away() -> None:
            process.assignment.begin(2, (), ())
            raise IllegalStateError("not assigned")

        process.member.on_seek = take_away
        await process.assignment.begin_anew()
        assert process.failed == []

    asyncio.run(run())


def test_a_save_under_way_writes_nothing_more_once_its_partition_began_anew() -> None:
    async def run() -> None:
        process = await Process.at_work()
        await save_now(process)
        stuck = process.member.writing = Stuck(None)
        saving = asyncio.create_task(save_now(process))
        await stuck.reached.wait()  # one room is on its way, the others wait for it
        process.member.writing = None
        process.assignment.lose(LOG, LostError())
        await process.assignment.begin_anew()
        await save_now(process)  # the new reign's claim
        n_before = process.broker.changelog_end
        stuck.may_end.set()
        await asyncio.wait([saving])
        assert process.broker.changelog_end <= n_before + 1

    asyncio.run(run())


def test_a_partition_that_is_dropped_while_it_is_resumed_begins_from_its_snapshots() -> None:
    async def run() -> None:
        process = await Process.at_work()
        await process.assignment.hand_over(5.0)
        process.member.on_hold = process.rooms.forget_all  # as after a pause, by the loop that saves
        await process.assign(2)
        assert (process.rooms.partitions, next_offset(process)) == (frozenset({0}), N_RECORDS)

    asyncio.run(run())


def test_no_snapshots_are_read_for_an_assignment_that_has_passed() -> None:
    async def run() -> None:
        process = Process()
        process.member.on_positions = lambda: process.assignment.begin(2, (), ())
        await process.assign(1)
        assert (process.changelog.n_loads, process.failed) == (0, [])

    asyncio.run(run())
