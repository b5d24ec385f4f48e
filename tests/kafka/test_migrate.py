"""More partitions on a real broker: every room moves once with all it knows, whatever dies on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import orjson
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from kafka import KafkaConsumer, TopicPartition

from agents.kafka import partition_of
from agents.layout import Layout
from agents.snapshots import Snapshots
from schemas import topics
from tests.integration.deployment import (
    APP_ID,
    DEADLINE_S,
    REPOSITORY,
    Deployment,
    WorkerProcess,
    await_ready,
    await_true,
    deployment,
    environment,
    roompulse,
)
from tests.integration.load import Load
from tests.kafka.cluster import KafkaCluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
BEFORE, AFTER = 4, 6
ROOMS = [f"room-{number}" for number in range(12)]
MOVING = [room for room in ROOMS if partition_of(room, BEFORE) != partition_of(room, AFTER)]
CHANGELOG = f"{APP_ID}-rooms-changelog"


def places(made: Deployment) -> dict[str, list[int]]:
    """Return in which partitions of the changelog each room has a state, or a segment of its ledger."""
    states: dict[int, Snapshots] = {}
    for record in made.read(CHANGELOG):
        states.setdefault(record.partition, Snapshots()).take([record])
    found: dict[str, list[int]] = {}
    for number, snapshots in sorted(states.items()):
        for room in {key.partition("\0")[0] for key in snapshots.contents()} - {"*"}:
            found.setdefault(room, []).append(number)
    return found


def notes(made: Deployment, n_partitions: int) -> set[Layout | None]:
    """Return what is noted beside the group's commits."""
    with closing(KafkaConsumer(**made.broker.client, group_id=APP_ID, enable_auto_commit=False)) as consumer:
        places = [TopicPartition(topics.ROOM_EVENTS, number) for number in range(n_partitions)]
        found = [consumer.committed(place, metadata=True) for place in places]
    return {Layout.read(commit.metadata) for commit in found if commit is not None}


def ends_with(worker: WorkerProcess) -> tuple[int, str]:
    """Return a worker's exit code and its last words, once it has ended by itself."""
    code = worker.process.wait(DEADLINE_S)
    return code, worker.log_file.read_text().splitlines()[-1]


def test_rooms_spread_over_more_partitions_lose_nothing_and_count_nothing_twice(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    settings = environment(cluster)
    with deployment(tmp_path, cluster) as made:
        load = Load(made, ROOMS, seed=11)
        first = made.start_worker()
        await_ready(first, n_partitions=BEFORE)
        load.send(2_000)
        await_true(load.is_counted, "everything is counted")
        killed, calm = MOVING[0], MOVING[1]
        for room, states in ((killed, ("on=true",)), (calm, ("on=true", "on=false"))):
            for number, state in enumerate(states):
                name = f"ctl-{room}-{number}"
                said = roompulse(
                    "control", "kill_switch", "--room", room, "--actor", "test", "--arg", state, "--control-id", name,
                    settings=settings,
                )  # fmt: skip
                assert said.returncode == 0, said.stderr
                await_true(partial(is_audited, made, name), f"{name} takes effect")

        refused = roompulse("migrate", "--to", str(AFTER), "--yes", settings=settings)
        assert refused.returncode == 1
        assert b"must be stopped, got 1 at work" in refused.stderr
        first.end(signal.SIGKILL)  # so that there is something left to read to the end
        load.send(500)
        await_true(lambda: members_of(cluster) == 0, "the group is empty")

        asked = roompulse("migrate", "--to", str(AFTER), settings=settings)
        assert (asked.returncode, asked.stdout) == (2, b"")
        assert b"4 -> 6 partitions" in asked.stderr
        done = roompulse("migrate", "--to", str(AFTER), "--yes", "--json", settings=settings)
        assert done.returncode == 0, done.stderr
        told = orjson.loads(done.stdout)
        assert told["n_drained"] >= 500
        assert (told["n_before"], told["n_partitions"]) == (BEFORE, AFTER)
        assert (told["n_rooms"], told["n_moved"]) == (len(ROOMS), len(MOVING))
        assert places(made) == {room: [partition_of(room, AFTER)] for room in ROOMS}
        again = roompulse("migrate", "--to", str(AFTER), "--yes", settings=settings)
        assert (again.returncode, again.stdout) == (0, b"nothing to do: rooms are over 6 partitions\n")
        fewer = roompulse("migrate", "--to", "5", "--yes", settings=settings)
        assert fewer.returncode == 2
        assert b"--to must be at least 6" in fewer.stderr

        made.connect()  # a producer that knows the new partitions
        workers = [made.start_worker(), made.start_worker()]
        await_ready(*workers, n_partitions=AFTER)
        load.send(2_000)
        await_true(load.is_counted, "old and new is counted once")
        arrived = {r.key.decode(): r.partition for r in made.read(topics.ROOM_SIGNALS)[-200:] if r.partition >= BEFORE}
        assert arrived
        await_true(lambda: notes(made, AFTER) == {Layout(AFTER)}, "workers note the number")

        # The switch of the one room stays on, the other's off, for the engine and for whoever reads the topic.
        assert made.values(topics.ROOM_SIGNALS, killed)[-1]["windows"]["session"]["gmv_minor"]
        switches: dict[str, set[bool]] = {}
        for record in made.read(topics.OPS_KILL):
            if record.value and record.partition == partition_of(record.key.decode(), AFTER):
                switches[record.key.decode()] = {orjson.loads(record.value)["on"]}
        assert switches == {killed: {True}, calm: {False}}
        assert [worker.end(signal.SIGTERM) for worker in workers] == [0, 0]


def test_a_migration_killed_at_every_step_is_finished_by_running_it_again(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    settings = environment(cluster)
    with deployment(tmp_path, cluster) as made:
        load = Load(made, ROOMS, seed=12)
        worker = made.start_worker()
        await_ready(worker, n_partitions=BEFORE)
        load.send(1_000)
        await_true(load.is_counted, "everything is counted")
        worker.end(signal.SIGKILL)
        load.send(200)
        await_true(lambda: members_of(cluster) == 0, "the group is empty")

        n_killed = 0
        for n_lines in range(1, 40):
            migrating = subprocess.Popen(
                [sys.executable, "-m", "agents", "migrate", "--to", str(AFTER), "--yes"],
                cwd=REPOSITORY, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
            assert migrating.stderr is not None
            with migrating.stderr as lines:
                for _ in range(n_lines):
                    lines.readline()
                migrating.kill()
            if migrating.wait() == 0:
                break
            n_killed += 1
            if n_lines % 5 == 2:
                code, words = ends_with(made.start_worker())
                assert code == 1
                assert words.endswith(f"run roompulse migrate --to {AFTER}")
        assert n_killed >= 5
        done = roompulse("migrate", "--to", str(AFTER), "--yes", settings=settings)
        assert done.returncode == 0, done.stderr
        assert places(made) == {room: [partition_of(room, AFTER)] for room in ROOMS}
        made.connect()
        workers = [made.start_worker()]
        await_ready(*workers, n_partitions=AFTER)
        load.send(1_000)
        await_true(load.is_counted, "old and new is counted once")


def test_topics_that_grew_under_workers_stop_them_and_what_came_meanwhile_is_counted_after_the_migration(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    settings = environment(cluster)
    with deployment(tmp_path, cluster) as made:
        load = Load(made, ROOMS, seed=13)
        worker = made.start_worker()
        await_ready(worker, n_partitions=BEFORE)
        load.send(1_000)
        await_true(load.is_counted, "everything is counted")

        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        admin.create_partitions([NewPartitions(topics.ROOM_EVENTS, AFTER)])[topics.ROOM_EVENTS].result(DEADLINE_S)
        made.connect()  # a producer that writes to the new partitions at once
        load.send(500)
        code, words = ends_with(worker)
        assert code == 1
        assert "must have the 4 partitions that the rooms are spread over, got room.events 6" in words
        assert words.endswith("run roompulse migrate --to 6 with all workers stopped")
        code, words = ends_with(made.start_worker())
        assert code == 1
        assert words.endswith("stop all workers and run roompulse migrate --to 6")

        done = roompulse("migrate", "--to", str(AFTER), "--yes", settings=settings)
        assert done.returncode == 0, done.stderr
        await_ready(made.start_worker(), n_partitions=AFTER)
        load.send(500)
        await_true(load.is_counted, "everything is counted once")


def is_audited(made: Deployment, control_id: str) -> bool:
    return control_id in str(made.values(topics.AUDIT_LOG))


def members_of(cluster: KafkaCluster) -> int:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    return len(admin.describe_consumer_groups([APP_ID])[APP_ID].result(DEADLINE_S).members)
