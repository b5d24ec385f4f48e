"""What `roompulse provision` makes on a real broker is what the documentation promises, and a difference is told."""

from __future__ import annotations

from contextlib import closing

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource
from kafka import KafkaProducer

from agents.kafka import MAX_SNAPSHOT_BYTES
from schemas import topics
from schemas.topics import DAY_MS, TOPICS
from tests.integration.deployment import APP_ID, await_true, environment, roompulse
from tests.kafka.cluster import KafkaCluster
from tests.kafka.conftest import empty

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
CHANGELOG = f"{APP_ID}-rooms-changelog"
NAMES = [*(topic.name for topic in TOPICS), CHANGELOG]
HOUR_MS = 60 * 60 * 1000


def configs(cluster: KafkaCluster, name: str) -> dict[str, str]:
    """Return a topic's settings in force."""
    asked = AdminClient({"bootstrap.servers": cluster.bootstrap})
    (answer,) = asked.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)]).values()
    return {entry.name: entry.value for entry in answer.result(30).values()}


def test_missing_topics_are_told_then_made_then_present(one_broker: KafkaCluster) -> None:
    empty(one_broker)
    settings = environment(one_broker)
    looked = roompulse("provision", "--check", settings=settings)
    assert looked.returncode == 1
    assert looked.stderr.endswith(b": run roompulse provision without --check\n")
    worker = roompulse("worker", settings=settings | {"ROOMPULSE_WORKER__START_TIMEOUT_S": "1"})
    assert worker.returncode == 1
    assert worker.stderr.endswith(b": run roompulse provision\n")
    for command, word in (("provision", b"created"), ("provision", b"present"), ("provision --check", b"present")):
        said = roompulse(*command.split(), settings=settings)
        assert (said.returncode, said.stderr) == (0, b"")
        shown = [line.split()[:3] for line in said.stdout.splitlines()]
        assert shown == [[name.encode(), word, b"4"] for name in NAMES]


def test_every_topic_is_kept_and_stamped_as_documented(cluster: KafkaCluster) -> None:
    for topic in TOPICS:
        found = configs(cluster, topic.name)
        assert found["cleanup.policy"] == topic.cleanup
        assert found["retention.ms"] == str(topic.retention_ms)
        assert found["message.timestamp.type"] == "LogAppendTime"
    changelog = configs(cluster, CHANGELOG)
    assert changelog["cleanup.policy"] == "compact"
    assert changelog["retention.ms"] == "-1"
    assert changelog["max.message.bytes"] == str(MAX_SNAPSHOT_BYTES)


def test_raw_ids_are_gone_an_hour_after_their_day_and_a_changelog_is_compacted_every_hour(
    cluster: KafkaCluster,
) -> None:
    # A broker forgets and compacts whole segments, and never the one it writes: that one must not live long.
    for name in (topics.ROOM_EVENTS, topics.ROOM_EVENTS_DLQ, CHANGELOG):
        assert int(configs(cluster, name)["segment.ms"]) == HOUR_MS
    for topic in TOPICS:
        if topic.retention_ms > 0:
            assert int(configs(cluster, topic.name)["segment.ms"]) <= max(topic.retention_ms / 24, 7 * DAY_MS)


def test_records_older_than_a_topics_time_are_deleted_while_new_ones_come(cluster: KafkaCluster) -> None:
    # The same proportions as a day and its 24 segments, in seconds.
    cluster.configure([topics.ROOM_EVENTS], {"retention.ms": "2400", "segment.ms": "100"})
    with closing(KafkaProducer(**cluster.client)) as producer:

        def first_is_gone() -> bool:
            producer.send(topics.ROOM_EVENTS, value=b"{}", partition=0).get(30)
            return cluster.beginning(topics.ROOM_EVENTS, 0) > 0

        await_true(first_is_gone, "the oldest record is deleted")


@pytest.mark.parametrize(
    ("name", "changed", "told"),
    [
        (topics.ROOM_EVENTS, {"message.timestamp.type": "CreateTime"}, b"message.timestamp.type must be LogAppendTime"),
        (topics.ROOM_EVENTS, {"retention.ms": "-1"}, b"retention.ms must be 86400000, got -1"),
        (CHANGELOG, {"cleanup.policy": "delete"}, b"cleanup.policy must be compact, got delete"),
    ],
)
def test_a_topic_that_somebody_changed_is_told_and_left_alone(
    name: str, changed: dict[str, str], told: bytes, cluster: KafkaCluster
) -> None:
    cluster.configure([name], changed)
    for arguments in (["provision"], ["provision", "--check"]):
        said = roompulse(*arguments, settings=environment(cluster))
        assert said.returncode == 1
        assert said.stderr.startswith(b"roompulse: " + name.encode() + b": " + told)
        assert said.stderr.count(b"\n") == 1
    assert changed.items() <= configs(cluster, name).items()


def test_every_partition_has_as_many_copies_as_the_settings_say_and_a_write_waits_for_two(trio: KafkaCluster) -> None:
    found = {topic.topic: topic for topic in trio.describe()}
    for name in NAMES:
        assert [len(partition.replicas) for partition in found[name].partitions.values()] == [3] * 4
        assert configs(trio, name)["min.insync.replicas"] == "2"
    fewer = environment(trio) | {"ROOMPULSE_KAFKA__REPLICATION_FACTOR": "2"}
    said = roompulse("provision", "--check", settings=fewer)
    assert said.returncode == 1
    assert b"room.events: replication factor must be 2, got 3;" in said.stderr


def test_more_copies_than_brokers_are_refused_in_one_line(one_broker: KafkaCluster) -> None:
    empty(one_broker)
    said = roompulse("provision", settings=environment(one_broker) | {"ROOMPULSE_KAFKA__REPLICATION_FACTOR": "3"})
    assert said.returncode == 1
    assert said.stderr.startswith(b"roompulse: topic room.events must be created, got InvalidReplicationFactor")
    assert said.stderr.count(b"\n") == 1
