"""`roompulse bench` on a broker: real contenders, few events."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from kafka import KafkaProducer

from agents.broker import CLIENT_API_VERSION, EmbeddedBroker
from agents.errors import ProgramError
from benchmarks.field import PARTITIONS, Field, records_of
from benchmarks.running import Run, RunFailedError
from schemas.topics import ROOM_EVENTS

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).resolve().parents[2]


def test_two_contenders_do_both_jobs_and_every_record_is_accounted_for() -> None:
    sizes = ["--rooms", "20", "--events", "3000", "--runs", "1"]
    chosen = ["--contenders", "roompulse,faust-take", "--job", "count", "--job", "engine", "--broker", "embedded"]
    done = subprocess.run(
        [sys.executable, "-m", "agents", "bench", *chosen, *sizes, "--json"],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = orjson.loads(done.stdout)
    assert found["absent"] == {}
    assert found["broker"] == "embedded"
    for job in ("count", "engine"):
        rows = found["jobs"][job]
        assert {name: row["n_records"] for name, row in rows.items()} == {"roompulse": 3_100, "faust-take": 400}
        for row in rows.values():
            assert min(row["events_per_s"], row["cpu_s_per_million"], row["records_out_per_million"]) > 0
            assert row["versions"]["faust-streaming"]
        assert found["ratios"][job]["faust-take"]["events_per_s"] > 0
    assert found["jobs"]["engine"]["roompulse"]["runs"][0]["n_outputs"] > 0
    lines = done.stderr.decode().splitlines()
    assert all(line.startswith("roompulse bench: ") for line in lines)


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


def test_a_contender_that_hangs_is_ended_and_told() -> None:
    with EmbeddedBroker() as broker:
        field = Field(broker.bootstrap)
        load = field.fill(records_of(5, 100, seed=1, rate=1_000), 0)[0]
        with pytest.raises(RunFailedError, match="roompulse must finish count"):
            never = load._replace(n_records=load.n_records + 1)
            Run(field, "roompulse", "count", 0, never, save_interval_s=1.0, timeout_s=12.0).measure()
