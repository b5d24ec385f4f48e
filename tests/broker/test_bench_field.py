"""The field of `roompulse bench`: the load on a broker, and what is counted there."""

from __future__ import annotations

import pytest
from kafka import KafkaProducer

from agents.broker import CLIENT_API_VERSION, EmbeddedBroker
from agents.errors import ProgramError
from benchmarks.field import PARTITIONS, Field, records_of
from schemas.topics import ROOM_EVENTS

pytestmark = pytest.mark.integration


def test_the_load_lies_where_its_rooms_belong_and_what_is_written_beside_it_is_counted() -> None:
    with EmbeddedBroker() as broker:
        field = Field(broker.bootstrap)
        assert field.embedded
        own, whole, first = field.fill(records_of(20, 1_000, seed=1, rate=1_000), 300)
        assert (own.n_records, whole.n_records, first.n_records) == (1_100, 1_100, 300)
        assert own.ends == whole.ends
        assert (sum(whole.ends), sum(first.ends), len(first.ends)) == (1_100, 300, PARTITIONS)
        field.make(["out"])
        before = field.standing()
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap, api_version=CLIENT_API_VERSION)
        for n in range(10):
            producer.send("out", key=b"key", value=b"v" * 5, headers=[("h", b"x")], partition=n % PARTITIONS)
        producer.close()
        written = field.written_since(before)
        assert (written.n_records, written.n_bytes) == (10, 10 * (3 + 5 + 2))


def test_a_broker_with_a_deployments_topics_is_left_alone() -> None:
    alone = "broker must be one for benchmarks alone"
    with EmbeddedBroker(topics=[ROOM_EVENTS]) as broker, pytest.raises(ProgramError, match=alone):
        Field(broker.bootstrap)
