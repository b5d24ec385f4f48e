"""The worker's order of writing, interrupted at every step over a Kafka in memory: the result is a replay's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from agents.rooms import LostError, Rooms
from agents.shard import EngineError, EngineLike, Pace, Records, Shard
from agents.snapshots import unpack
from pipeline import Engine
from schemas.base import EVERY_ROOM
from schemas.settings import Settings
from tests import chain_engine
from tests.chain_engine import ChainEngine
from tests.effort import LONG, effort
from tests.memory_kafka import Broker, Client, CrashError
from tests.scenario import RATES, scenario

SETTINGS = Settings.model_validate(
    {"privacy_key": "p" * 32, "control_key": "c" * 32, "trust_log": True, "currency": {"rates": RATES}}
)
MAX_RESTARTS = 20
STRIDE = 1 if effort(LONG) == LONG else 3
"""Every step is interrupted; in the quick profile each of three seeds takes a third of its own."""


@dataclass(frozen=True, eq=False)
class Case:
    """An engine, its log, and what the log goes on with."""

    make: Callable[[], EngineLike]
    records: Records
    later: Records
    chunk: int

    @cached_property
    def messages(self) -> Counter[tuple[str, bytes, bytes]]:
        """What one engine that sees the log once says."""
        return Counter((out.topic, out.key.encode(), out.json()) for out in self.make().process(self.records))

    @cached_property
    def later_messages(self) -> list[bytes]:
        """What an engine that has seen the whole log says to the rest of it."""
        engine = self.make()
        engine.process(self.records)
        return [out.json() for out in engine.process(self.later)]

    def messages_after(self, states: Mapping[str, bytes]) -> list[bytes]:
        """Return what an engine says to the rest of the log from these states."""
        engine = self.make()
        engine.restore(states)
        return [out.json() for out in engine.process(self.later)]


def chain_case(seed: int) -> Case:
    n_records = 90 + 25 * (seed % 3)
    whole = chain_engine.records(n_records + 60, seed)
    return Case(ChainEngine, whole[:n_records], whole[n_records:], chunk=9)


def real_case() -> Case:
    whole: Records = [(line.offset, line.timestamp, line.value, None) for line in scenario(7, 600)]
    return Case(lambda: Engine(SETTINGS, partition=0), whole[:400], whole[400:], chunk=40)


class Ticks:
    """A clock that goes on by being looked at: a worker has time for a room or two a group, as a busy one has."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s


class Worker:
    """One process: from what is durable to the end of the log."""

    def __init__(self, case: Case, client: Client) -> None:
        self.case, self.client, self.clock = case, client, Ticks()
        self.rooms = Rooms(
            lambda _: case.make(),
            send_many=client.send_many,
            snapshots=client,
            group=client,
            pace=Pace(0.05, 0.2),
            clock=self.clock,
        )

    async def begin(self) -> Shard:
        return self.rooms.begin(0, await self.client.load())

    async def run(self) -> None:
        for _ in range(MAX_RESTARTS):
            try:
                await self.run_once()
            except LostError:
                if not await self.client.still_here():
                    return  # it would join again, as the next worker does
                continue  # begins anew in place
            return
        raise AssertionError("the partition does not come to rest")

    async def run_once(self) -> None:
        shard, random = await self.begin(), self.client.random
        next_offset = self.client.broker.committed + 1
        while next_offset < len(self.case.records):
            size = random.randrange(1, 2 * self.case.chunk)
            chunk = self.case.records[next_offset : next_offset + size]
            next_offset = chunk[-1][0] + 1
            await self.rooms.apply(shard, chunk)
            for _ in range(random.randrange(4)):
                self.clock.now_s += 0.02
                await self.rooms.save_due()
            if random.random() < 0.3:
                await self.client.commit()
            if random.random() < 0.05:  # a rebalance in which the partition stays
                await self.hand_over()
                await self.client.step("revoked")
                if not await self.client.still_here():
                    return  # a generation was missed: it joins as a new one would, which the next worker does
                self.client.generation = self.client.broker.join()
                self.client.forget_commits()
                if not await self.client.is_ours(0):
                    raise LostError
                self.rooms.resume(0)
        await self.hand_over()

    async def hand_over(self) -> None:
        await self.rooms.save_all()
        await self.client.commit()
        await self.rooms.bury_all()
        self.rooms.rest()


def states_of(broker: Broker) -> Mapping[str, bytes]:
    return broker.read().contents()


def assert_exact(case: Case, broker: Broker, said: str) -> None:
    """The messages are an uninterrupted run's, and the states go on as its own would, compacted or not."""
    expected = case.messages
    seen = set(broker.messages)
    assert expected.keys() - seen == set(), f"{said}: lost"
    assert seen - expected.keys() == set(), f"{said}: made up"
    assert broker.committed == len(case.records) - 1, f"{said}: not acknowledged"
    later = case.later_messages
    assert case.messages_after(states_of(broker)) == later, f"{said}: the states differ"
    broker.compact()
    assert case.messages_after(states_of(broker)) == later, f"{said}: the states differ once compacted"


def run_whole(case: Case, seed: int) -> tuple[Broker, Client]:
    broker = Broker(case.records)
    client = Client(broker, Random(seed))
    asyncio.run(Worker(case, client).run())
    return broker, client


@pytest.mark.parametrize("case", [chain_case(1), real_case()], ids=["chain", "engine"])
def test_without_an_interruption_every_message_is_sent_once(case: Case) -> None:
    broker, client = run_whole(case, 1)
    assert len(broker.messages) > 50
    assert Counter(broker.messages) == case.messages
    assert_exact(case, broker, "whole")
    assert client.steps.keys() >= {
        "load", "send changelog", "confirm changelog", "is ours", "acknowledge", "before commit", "after commit"
    }  # fmt: skip


def test_segments_that_nobody_names_and_rooms_that_went_leave_the_changelog() -> None:
    case = chain_case(1)
    broker, _ = run_whole(case, 1)
    keys = {record.key.decode() for record in broker.changelog}
    tombstones = {record.key.decode() for record in broker.changelog if record.value is None}
    assert any("\0" in key for key in tombstones), "no segment was removed"
    assert any("\0" not in key for key in tombstones), "no room was removed"
    engine = ChainEngine()
    engine.restore(states_of(broker))
    named = {key for room in engine.rooms.values() for key in room.chain}
    unnamed = {key for key in keys - tombstones if "\0" in key and key not in named}
    # What the last hand-over merged waits for a commit that comes with the next records.
    assert len(unnamed) <= 10


async def crash_then_recover(case: Case, seed: int, crash_at: int) -> tuple[Broker, str]:
    broker, random = Broker(case.records), Random(seed)
    at, name = crash_at, "no crash"
    for _ in range(3):
        client = Client(broker, random, crash_at=at)
        try:
            await Worker(case, client).run()
        except CrashError as crash:
            name = str(crash)
            at = random.randrange(1, crash_at + 1)
            continue
        return broker, name
    await Worker(case, Client(broker, random)).run()
    return broker, name


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_a_crash_at_any_step_nothing_is_missing_and_nothing_is_new(seed: int) -> None:
    case = chain_case(seed)
    _, whole = run_whole(case, seed)
    for crash_at in range(1 + seed % STRIDE, whole.n_steps + 1, STRIDE):
        broker, name = asyncio.run(crash_then_recover(case, seed, crash_at))
        assert_exact(case, broker, f"crash at step {crash_at}, {name}")


@pytest.mark.long
def test_after_a_crash_the_real_engine_goes_on_as_if_there_had_been_none() -> None:
    case = real_case()
    _, whole = run_whole(case, 1)
    for crash_at in sorted(Random(4).sample(range(1, whole.n_steps), effort(12))):
        broker, name = asyncio.run(crash_then_recover(case, 1, crash_at))
        assert_exact(case, broker, f"crash at step {crash_at}, {name}")


async def stop_replace_go_on(case: Case, seed: int, stop_at: int, successor_steps: int | None) -> Broker:
    """Stop a worker at a step, let a successor work for a while, wake the first, let both come to their end."""
    broker = Broker(case.records)
    first = Client(broker, Random(seed), stop_at=stop_at)
    zombie = asyncio.create_task(Worker(case, first).run())
    await first.stopped.wait()
    second = Client(broker, Random(seed + 1), stop_at=successor_steps)
    successor = asyncio.create_task(Worker(case, second).run())
    stopped = asyncio.create_task(second.stopped.wait())
    await asyncio.wait((successor, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    first.may_go_on.set()
    await zombie
    second.may_go_on.set()
    await successor
    # Whoever comes next reads it all, and writes again what the first one's late writes stand before.
    await Worker(case, Client(broker, Random(seed + 2))).run()
    return broker


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_worker_that_was_taken_for_dead_at_any_step_harms_nothing_when_it_wakes(seed: int) -> None:
    case = chain_case(seed)
    _, whole = run_whole(case, seed)
    random = Random(seed)
    for stop_at in range(1 + seed % STRIDE, whole.n_steps, STRIDE):
        until = random.choice((None, random.randrange(2, whole.n_steps)))
        broker = asyncio.run(stop_replace_go_on(case, seed, stop_at, until))
        assert_exact(case, broker, f"stopped at step {stop_at}, its successor at {until}")


def test_a_room_is_written_at_its_turn_and_the_star_after_all_of_them() -> None:
    """An epoch's writes: rooms spread over it, each at its own later offset, the star's checkpoint last."""
    case = chain_case(1)
    broker, _ = run_whole(case, 1)
    values = [(record.key.decode(), unpack(record.value)) for record in broker.changelog if record.value is not None]
    stars = [place for place, (key, _) in enumerate(values) if key == EVERY_ROOM]
    assert len(stars) > 3
    ahead = 0
    for begin, end in pairwise(stars):
        checkpoint = values[end][1].offset
        assert all(state.offset >= values[begin][1].offset for _, state in values[begin + 1 : end])
        ahead += sum(state.offset > checkpoint for _, state in values[begin + 1 : end])
    assert ahead > 0, "no room went on while others were written"


def test_an_epoch_grows_until_the_changelog_takes_no_more_bytes_than_came_in() -> None:
    pace, length_s = Pace(1.0, 60.0), 1.0
    for _ in range(20):  # 1,000 rooms of 500 bytes that change all the time; 25,000 bytes a second come in
        length_s = pace.next_s(length_s, n_input_bytes=int(25_000 * length_s), n_written_bytes=500_000)
    assert length_s == pytest.approx(20.0)


def test_the_engine_s_failure_names_partition_and_offset() -> None:
    class Failing(ChainEngine):
        def process(self, records: Iterable[Any]) -> list[Any]:
            found = []
            for record in records:
                if record[0] == 13:
                    raise ZeroDivisionError("division by zero")
                found += super().process([record])
            return found

    async def story() -> None:
        case = chain_case(1)
        worker = Worker(replace(case, make=Failing), Client(Broker(case.records), Random(1)))
        shard = await worker.begin()
        await worker.rooms.apply(shard, case.records[:10])
        with pytest.raises(EngineError, match="offsets 10 to 19 of partition 0, at offset 13 got ZeroDivisionError"):
            await worker.rooms.apply(shard, case.records[10:20])
        assert worker.rooms.partitions == frozenset()

    asyncio.run(story())


def test_after_a_pause_nothing_is_written_by_a_worker_the_group_does_not_know() -> None:
    async def story() -> None:
        case = chain_case(1)
        broker = Broker(case.records)
        worker = Worker(case, Client(broker, Random(1)))
        worker.rooms._pause_s = 5.0
        await worker.rooms.apply(await worker.begin(), case.records[:20])
        await worker.rooms.save_due()
        broker.join()
        before = len(broker.changelog)
        worker.clock.now_s += 6.0
        with pytest.raises(LostError):
            await worker.rooms.save_due()
        assert worker.rooms.partitions == frozenset()
        assert len(broker.changelog) == before

    asyncio.run(story())
