"""What the tests on a real Kafka share: one broker, or three, for the whole session, emptied for every test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import KafkaAdminClient

from tests.integration.deployment import DEADLINE_S, POLL_S, environment, roompulse
from tests.kafka.cluster import KafkaCluster


@pytest.fixture(scope="session")
def one_broker() -> Iterator[KafkaCluster]:
    """One real broker for the whole session."""
    with KafkaCluster() as running:
        yield running


@pytest.fixture(scope="session")
def three_brokers() -> Iterator[KafkaCluster]:
    """Three real brokers for the whole session; every topic has three copies, and a write waits for two."""
    with KafkaCluster(3) as running:
        yield running


@pytest.fixture
def cluster(one_broker: KafkaCluster) -> KafkaCluster:
    """Give one real broker with the topics as `roompulse provision` makes them, empty."""
    empty(one_broker)
    provision(one_broker)
    return one_broker


@pytest.fixture
def trio(three_brokers: KafkaCluster) -> KafkaCluster:
    """Give three real brokers, all of them up, with the topics as `roompulse provision` makes them, empty."""
    for broker in three_brokers.brokers:
        if not broker.is_running:  # a test failed while it was down
            three_brokers.bring_back(broker)
    empty(three_brokers)
    provision(three_brokers)
    return three_brokers


def empty(cluster: KafkaCluster) -> None:
    """Delete every topic but Kafka's own, and with them what groups committed of them."""
    with closing(KafkaAdminClient(**cluster.client)) as admin:
        deadline_s = time.monotonic() + DEADLINE_S
        while names := [name for name in admin.list_topics() if not name.startswith("__")]:
            assert time.monotonic() < deadline_s, f"gave up waiting: {names} are deleted"
            admin.delete_topics(names, timeout_ms=int(DEADLINE_S * 1_000))
            time.sleep(POLL_S)


def provision(cluster: KafkaCluster) -> None:
    """Make the topics as a user does."""
    said = roompulse("provision", settings=environment(cluster))
    assert (said.returncode, said.stderr) == (0, b"")
