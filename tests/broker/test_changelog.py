"""Reading a changelog on a real broker: whole, on and on, and who wrote last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from kafka import KafkaProducer

from agents.broker import CLIENT_API_VERSION, EmbeddedBroker
from agents.changelog import Changelog
from agents.snapshots import pack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def run(broker: EmbeddedBroker, topic: str, story: Callable[[Changelog, KafkaProducer], Awaitable[None]]) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, api_version=CLIENT_API_VERSION)

    async def told() -> None:
        changelog = Changelog([broker.bootstrap], topic, fetch_wait_ms=40)
        try:
            await story(changelog, producer)
        finally:
            await changelog.stop()

    try:
        producer.partitions_for(topic)
        asyncio.run(told())
    finally:
        producer.close()


def write(producer: KafkaProducer, topic: str, partition: int, first: int, n_records: int) -> None:
    for number in range(first, first + n_records):
        value = pack(1, number, b"state %d" % number)
        producer.send(topic, key=b"room-%d" % (number % 7), value=value, partition=partition)
    producer.flush()


def test_a_standby_reads_on_and_has_nothing_to_read_again(broker: EmbeddedBroker, unique_prefix: str) -> None:
    topic = f"{unique_prefix}-changelog"

    async def story(changelog: Changelog, producer: KafkaProducer) -> None:
        write(producer, topic, 0, 0, 500)
        write(producer, topic, 1, 0, 20)
        await changelog.start()
        changelog.stand_by({0}, {1})
        write(producer, topic, 0, 500, 100)
        for _ in range(600):
            if changelog.n_read(0) == 600:
                break
            await asyncio.sleep(0.05)
        assert changelog.n_read(0) == 600
        changelog.stand_by((), {0, 1})
        found = await changelog.load([0, 1])
        assert found[0].contents()["room-3"] == b"state 598"
        assert found[1].newest() == 19
        assert changelog.held.keys() == {0, 1}

    run(broker, topic, story)


def test_a_running_partition_holds_no_bytes_and_knows_when_somebody_else_wrote(
    broker: EmbeddedBroker, unique_prefix: str
) -> None:
    topic = f"{unique_prefix}-changelog"

    async def story(changelog: Changelog, producer: KafkaProducer) -> None:
        write(producer, topic, 0, 0, 50)
        await changelog.load([0])
        changelog.release(0)
        assert changelog.held == {}
        assert await changelog.is_ours(0)
        count = changelog.counter(0)
        write(producer, topic, 0, 50, 1)
        count()
        assert await changelog.is_ours(0)
        write(producer, topic, 0, 51, 1)
        assert not await changelog.is_ours(0)
        changelog.forget(0)
        found = await changelog.load([0])
        assert found[0].next == 52
        # What was active becomes a standby: it is read from its beginning.
        changelog.release(0)
        changelog.stand_by({0}, ())
        found = await changelog.load([0])
        assert len(found[0].contents()) == 7

    run(broker, topic, story)


def test_what_was_queued_before_a_partition_began_anew_is_somebody_else_s(
    broker: EmbeddedBroker, unique_prefix: str
) -> None:
    topic = f"{unique_prefix}-changelog"

    async def story(changelog: Changelog, producer: KafkaProducer) -> None:
        write(producer, topic, 0, 0, 5)
        await changelog.load([0])
        changelog.release(0)
        count_before = changelog.counter(0)  # its record is held up on the way
        await changelog.load([0])
        changelog.release(0)
        write(producer, topic, 0, 5, 1)
        count_before()
        assert not await changelog.is_ours(0)

    run(broker, topic, story)


def test_readings_at_once_come_to_their_ends_each(broker: EmbeddedBroker, unique_prefix: str) -> None:
    topic = f"{unique_prefix}-changelog"

    async def story(changelog: Changelog, producer: KafkaProducer) -> None:
        for partition in range(3):
            write(producer, topic, partition, 0, 10 + 2_000 * partition)
        async with asyncio.timeout(60):
            begun = [asyncio.create_task(changelog.load(partitions)) for partitions in ([0], [0, 2], [1, 2])]
            begun[2].cancel()
            found = [await reading for reading in (*begun[:2], asyncio.create_task(changelog.load([1])))]
        assert [sorted(read) for read in found] == [[0], [0, 2], [1]]
        assert found[1][2].next == 4_010
        assert found[2][1].next == 2_010

    run(broker, topic, story)
