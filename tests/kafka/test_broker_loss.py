"""Brokers that die or restart under workers at work: nothing is lost, and nothing counts that only one broker has."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from schemas import topics
from tests.integration.deployment import (
    APP_ID,
    OUTPUTS,
    Deployment,
    await_true,
    committed,
    deployment,
    undone,
)
from tests.integration.load import Load
from tests.integration.replay import assert_live_equals_replay
from tests.kafka.cluster import KafkaCluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
ROOMS = [f"room-{number}" for number in range(12)]
CHANGELOG = f"{APP_ID}-rooms-changelog"
WATCHED_S = 6.0
"""Six turns of the snapshots: what has not happened by then is not about to happen."""


def ends(made: Deployment, name: str) -> dict[int, int]:
    """Return where each partition of a topic ends now."""
    with closing(KafkaConsumer(**made.broker.client)) as consumer:
        places = [TopicPartition(name, partition) for partition in range(KafkaCluster.n_partitions)]
        return {place.partition: end for place, end in consumer.end_offsets(places).items()}


def test_each_of_three_brokers_is_killed_in_turn_and_nothing_is_lost(trio: KafkaCluster, tmp_path: Path) -> None:
    with deployment(tmp_path, trio) as made:
        load = Load(made, ROOMS, seed=3)
        workers = made.start_worker(), made.start_worker()
        await_true(lambda: all(len(worker.partitions()) == 2 for worker in workers), "both have a share")
        load.send(1_000)
        await_true(load.is_counted, "everything is counted")

        # Whichever led a partition, the group or the whole cluster: the other two go on.
        for broker in trio.brokers:
            load.send(300)
            trio.kill(broker)
            load.send(700)
            await_true(load.is_counted, f"everything is counted without broker {broker.number}")
            load.send(300)
            trio.bring_back(broker)
        load.send(300)
        await_true(load.is_counted, "everything is counted once")

        await_true(lambda: undone(made) == [], "everything is saved")
        assert [worker.end(signal.SIGTERM) for worker in workers] == [0, 0]
        assert_live_equals_replay(made)


def test_nothing_is_taken_for_written_before_every_in_sync_broker_has_it(trio: KafkaCluster, tmp_path: Path) -> None:
    written = (*OUTPUTS, CHANGELOG)
    with deployment(tmp_path, trio) as made:
        load = Load(made, ROOMS, seed=4)
        worker = made.start_worker()
        await_true(lambda: len(worker.partitions()) == KafkaCluster.n_partitions, "the worker is ready")
        load.send(500)
        await_true(load.is_counted, "everything is counted")

        # Three copies are wanted and two are to be had: no write with `acks=all` is confirmed, any other would be.
        trio.configure(written, {"min.insync.replicas": "3"})
        lost = next(broker for broker in trio.brokers if broker.number != trio.coordinator(APP_ID))
        trio.kill(lost)
        await_true(lambda: in_sync(trio, written) == 2, "the loss is noticed")
        done = committed(made.broker)
        load.send(500)
        await_true(lambda: sum(ends(made, topics.ROOM_EVENTS).values()) >= sum(done.values()) + 500, "there is work")
        until_s = time.monotonic() + WATCHED_S
        while time.monotonic() < until_s:
            assert committed(made.broker) == done

        trio.bring_back(lost)
        await_true(load.is_counted, "what was refused is written, once there are three")
        await_true(lambda: undone(made) == [], "everything is saved")
        assert worker.end(signal.SIGTERM) == 0
        assert_live_equals_replay(made)


@pytest.mark.parametrize("keeps_the_group", [True, False])
def test_a_broker_that_hangs_is_left_for_those_that_took_over(
    keeps_the_group: bool, trio: KafkaCluster, tmp_path: Path
) -> None:
    with deployment(tmp_path, trio) as made:
        load = Load(made, ROOMS, seed=8)
        worker = made.start_worker()
        await_true(lambda: len(worker.partitions()) == KafkaCluster.n_partitions, "the worker is ready")
        load.send(500)
        await_true(load.is_counted, "everything is counted")

        keeper = trio.coordinator(APP_ID)
        hung = next(broker for broker in trio.brokers if (broker.number == keeper) == keeps_the_group)
        trio.freeze(hung)
        await_true(lambda: in_sync(trio, OUTPUTS) == 2, "the others have taken over")
        made.producer.close(timeout=1)
        made.connect()
        load.send(500)
        await_true(load.is_counted, "everything is counted while it hangs")

        trio.thaw(hung)
        load.send(500)
        await_true(load.is_counted, "everything is counted once")
        await_true(lambda: undone(made) == [], "everything is saved")
        assert worker.end(signal.SIGTERM) == 0
        assert_live_equals_replay(made)


def in_sync(cluster: KafkaCluster, names: tuple[str, ...]) -> int:
    """Return the most copies that any partition of these topics has in sync."""
    return max(
        len(partition.isrs)
        for topic in cluster.describe()
        if topic.topic in names
        for partition in topic.partitions.values()
    )


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_a_worker_outlives_its_only_broker_and_goes_on_where_it_was(
    way: str, cluster: KafkaCluster, tmp_path: Path
) -> None:
    (broker,) = cluster.brokers
    with deployment(tmp_path, cluster) as made:
        load = Load(made, ROOMS, seed=5)
        worker = made.start_worker()
        await_true(lambda: len(worker.partitions()) == KafkaCluster.n_partitions, "the worker is ready")
        load.send(1_000)
        cluster.kill(broker) if way == "killed" else cluster.halt(broker)
        cluster.bring_back(broker)
        load.send(1_000)
        await_true(load.is_counted, "everything is counted once")
        assert worker.process.poll() is None, worker.lines()[-1]
        await_true(lambda: undone(made) == [], "everything is saved")
        assert worker.end(signal.SIGTERM) == 0
        assert_live_equals_replay(made)


def test_workers_go_on_from_a_changelog_that_was_compacted(cluster: KafkaCluster, tmp_path: Path) -> None:
    cluster.configure(
        [CHANGELOG],
        {
            "cleanup.policy": "compact",
            "segment.ms": "1000",
            "min.cleanable.dirty.ratio": "0.01",
            "min.compaction.lag.ms": "0",
        },
    )
    with deployment(tmp_path, cluster) as made:
        load = Load(made, ROOMS, seed=6)
        worker = made.start_worker()
        await_true(lambda: len(worker.partitions()) == KafkaCluster.n_partitions, "the worker is ready")

        def is_compacted() -> bool:
            load.send(50)
            kept = made.read(CHANGELOG)
            return all(
                sum(record.partition == partition for record in kept) < end / 2
                for partition, end in ends(made, CHANGELOG).items()
            )

        await_true(is_compacted, "half of every changelog is gone")
        worker.end(signal.SIGKILL)
        load.send(500)
        successor = made.start_worker()
        await_true(load.is_counted, "everything is counted once")
        await_true(lambda: undone(made) == [], "everything is saved")
        assert successor.end(signal.SIGTERM) == 0
        assert_live_equals_replay(made)
