"""The worker's order of writing, over a Kafka in memory that crashes anywhere: the result is what a replay gives."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator, Mapping
from random import Random
from typing import Any

import pytest

from agents.rooms import Records, Rooms, Shard
from agents.sender import Confirmation
from agents.transport import pack, unpack
from pipeline import Engine
from schemas.settings import Settings
from tests.scenario import RATES, scenario

SETTINGS = Settings.model_validate(
    {"privacy_key": "p" * 32, "control_key": "c" * 32, "trust_log": True, "currency": {"rates": RATES}}
)
N_RECORDS = 400
CHUNK = 25


class CrashError(Exception):
    """The worker process ends here."""


class Queued:
    """What to wait for after sending; not waiting is no error."""

    def __init__(self, kafka: Kafka, number: int) -> None:
        self.kafka, self.number = kafka, number

    def __await__(self) -> Generator[None, None, None]:
        self.kafka.confirm(self.number)
        return
        yield


class Kafka:
    """One partition of everything: what is confirmed stays, what is only queued may or may not arrive at a crash."""

    def __init__(self, records: Records, random: Random) -> None:
        self.records, self.random = records, random
        self.messages: list[tuple[str, bytes, bytes]] = []
        self.snapshots: dict[str, bytes] = {}
        self.committed = -1
        self.queued: dict[int, tuple[str, bytes, bytes | None]] = {}
        self.n_queued = self.n_steps = 0
        self.crash_at: int | None = None

    def _step(self) -> None:
        self.n_steps += 1
        if self.n_steps == self.crash_at:
            arrived = [number for number in self.queued if self.random.random() < 0.5]
            for number in arrived:
                self._arrive(number)
            self.queued.clear()
            raise CrashError

    def _arrive(self, number: int) -> None:
        topic, key, value = self.queued.pop(number)
        if topic != "changelog":
            self.messages.append((topic, key, value or b""))
        elif value is None:
            self.snapshots.pop(key.decode(), None)
        else:
            self.snapshots[key.decode()] = value

    def _queue(self, topic: str, key: bytes, value: bytes | None) -> Confirmation:
        self._step()
        number = self.n_queued
        self.n_queued += 1
        self.queued[number] = (topic, key, value)

        return Queued(self, number)

    def confirm(self, number: int) -> None:
        self._step()
        if number in self.queued:
            self._arrive(number)

    async def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int, **_: Any) -> Confirmation:
        assert partition == 0
        return self._queue(topic, key or b"", value)

    async def write(self, partition: int, room_id: str, offset: int, snapshot: bytes | None) -> Confirmation:
        assert partition == 0
        return self._queue("changelog", room_id.encode(), None if snapshot is None else pack(offset, snapshot))

    def acknowledge(self, partition: int, offset: int) -> None:
        assert partition == 0
        self._step()
        self.committed = offset

    def saved(self) -> Mapping[str, bytes]:
        return {room_id: unpack(value)[1] for room_id, value in self.snapshots.items()}


def worker(kafka: Kafka) -> Rooms:
    rooms = Rooms(
        lambda partition: Engine(SETTINGS, partition=partition),
        send=kafka.send,
        snapshots=kafka,
        acknowledge=kafka.acknowledge,
        snapshot_interval_s=60.0,
    )
    rooms.begin({0: kafka.saved()})
    return rooms


def held(rooms: Rooms) -> Shard:
    shard = rooms.shard(0)
    assert shard is not None
    return shard


async def work(kafka: Kafka, chunk: int) -> None:
    """Run a worker from what is durable to the end of the log, with a save after every few chunks."""
    rooms = worker(kafka)
    todo = [record for record in kafka.records if record[0] > kafka.committed]
    for place, begin in enumerate(range(0, len(todo), chunk)):
        await rooms.apply(held(rooms), todo[begin : begin + chunk])
        if place % 4 == 3:
            await rooms.save_all()
    await rooms.save_all()


def records() -> Records:
    return [(line.offset, line.timestamp, line.value, None) for line in scenario(7, N_RECORDS)]


def straight() -> tuple[Counter[tuple[str, bytes, bytes]], dict[str, bytes]]:
    """Return the messages and the last states of one engine that sees the log once."""
    engine = Engine(SETTINGS, partition=0)
    outputs = engine.process(records())
    return Counter((out.topic, out.key.encode(), out.json()) for out in outputs), engine.snapshot()


def going_on(states: Mapping[str, bytes]) -> list[bytes]:
    """Return what an engine restored from these states says to the rest of the log: equal states say the same."""
    engine = Engine(SETTINGS, partition=0)
    engine.restore(states)
    rest = scenario(7, N_RECORDS + 200)[N_RECORDS:]
    return [out.json() for out in engine.process((line.offset, line.timestamp, line.value) for line in rest)]


@pytest.fixture(scope="module")
def expected() -> tuple[Counter[tuple[str, bytes, bytes]], dict[str, bytes]]:
    return straight()


def test_without_a_crash_every_message_is_sent_once(
    expected: tuple[Counter[tuple[str, bytes, bytes]], dict[str, bytes]],
) -> None:
    kafka = Kafka(records(), Random(1))
    asyncio.run(work(kafka, CHUNK))
    messages, states = expected
    assert len(messages) > 50
    assert Counter(kafka.messages) == messages
    assert going_on(kafka.saved()) == going_on(states)
    assert kafka.committed == kafka.records[-1][0]


def test_after_a_crash_anywhere_nothing_is_missing_and_nothing_is_new(
    expected: tuple[Counter[tuple[str, bytes, bytes]], dict[str, bytes]],
) -> None:
    messages, states = expected
    later = going_on(states)
    assert len(later) > 50
    whole = Kafka(records(), Random(1))
    asyncio.run(work(whole, CHUNK))
    random = Random(2)
    for crash_at in sorted(random.sample(range(1, whole.n_steps), 25)):
        kafka = Kafka(records(), random)
        for crash in (crash_at, random.randrange(1, whole.n_steps), None):
            kafka.n_steps, kafka.crash_at = 0, crash
            try:
                asyncio.run(work(kafka, random.choice((1, 7, CHUNK, 200))))
            except CrashError:
                continue
            break
        seen = set(kafka.messages)
        assert messages.keys() - seen == set(), f"crash at {crash_at}: lost"
        assert seen - messages.keys() == set(), f"crash at {crash_at}: made up"
        assert going_on(kafka.saved()) == later, f"crash at {crash_at}: the states differ"


def test_nothing_is_acknowledged_before_its_snapshots_are_written() -> None:
    kafka = Kafka(records(), Random(3))
    offsets: list[int] = []

    def acknowledge(partition: int, offset: int) -> None:
        offsets.append(offset)
        assert partition == 0
        assert not kafka.queued
        assert max(unpack(value)[0] for value in kafka.snapshots.values()) == offset

    kafka.acknowledge = acknowledge  # type: ignore[method-assign]  # looked at on the way
    asyncio.run(work(kafka, CHUNK))
    assert offsets == sorted(offsets)
    assert offsets[-1] == kafka.records[-1][0]


def test_a_partition_taken_away_in_the_middle_is_not_acknowledged() -> None:
    async def story() -> Kafka:
        kafka = Kafka(records(), Random(4))
        rooms = worker(kafka)
        former = held(rooms)
        await rooms.apply(former, kafka.records[:100])
        rooms.begin({0: kafka.saved()})  # taken away and given back
        await rooms.apply(former, kafka.records[100:200])
        await rooms.save_all()
        return kafka

    kafka = asyncio.run(story())
    assert kafka.committed == -1
    assert kafka.snapshots == {}


def test_after_a_failed_save_the_partition_is_given_up() -> None:
    async def story() -> Kafka:
        kafka = Kafka(records(), Random(5))
        rooms = worker(kafka)
        await rooms.apply(held(rooms), kafka.records[:100])
        kafka.crash_at = kafka.n_steps + 3
        with pytest.raises(CrashError):
            await rooms.save_all()
        kafka.crash_at = None
        assert rooms.partitions == frozenset()
        await rooms.save_all()
        return kafka

    assert asyncio.run(story()).committed == -1
