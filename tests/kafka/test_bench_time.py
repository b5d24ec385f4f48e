"""The benchmarks of time on a real Kafka, as small as they come: each finishes, and its numbers can be true."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import pytest

from tests.integration.deployment import REPOSITORY
from tests.kafka.cluster import KafkaCluster
from tests.kafka.conftest import empty

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def bench(one_broker: KafkaCluster, job: str, *arguments: str) -> dict[str, Any]:
    """Run a job in its quick size and return what it printed."""
    command = [sys.executable, "-m", "agents", "bench", "--job", job, "--quick", "--json"]
    empty(one_broker)
    try:
        done = subprocess.run(
            [*command, "--broker", one_broker.url, *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            timeout=270,
            check=False,
        )
    finally:
        empty(one_broker)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = orjson.loads(done.stdout)["jobs"][job]
    return found


def test_every_probe_causes_an_anomaly_a_command_and_signals_also_while_workers_come_and_go(
    one_broker: KafkaCluster,
) -> None:
    found = bench(one_broker, "latency", "--hot")
    assert found["load"]["n_sent"] > 0
    for phase in ("steady", "join", "leave", "hot"):
        assert found[phase]["n_probes"] > 5
        for kind in ("anomaly", "command", "signals"):
            row = found[phase][kind]
            assert row["n"] + row["n_missing"] == found[phase]["n_probes"]
            assert 0 < row["p50"] <= row["p95"] <= row["p99"] <= row["max"]
        assert found[phase]["command"]["n_missing"] == 0
    assert found["aims"]["command_p99_ms"]["is"] == found["steady"]["command"]["p99"]
    assert found["neighbours"]["n_probes"] < found["hot"]["n_probes"]


def test_nothing_of_a_backlog_that_nobody_attended_could_still_move_a_bid(one_broker: KafkaCluster) -> None:
    found = bench(one_broker, "backlog")
    assert found["n_records"] > found["rate"] * found["span_s"]
    assert found["times_real_time"] > 1
    assert found["n_stale"] > 0
    assert (found["n_stale_not_suppressed"], found["n_actionable_stale"]) == (0, 0)
    assert found["n_commands"]["hold suppressed"] >= found["n_stale"]


@pytest.mark.parametrize("n_standbys", [0, 1])
def test_every_room_of_a_killed_worker_is_heard_of_again(one_broker: KafkaCluster, n_standbys: int) -> None:
    found = bench(one_broker, "recovery", "--standbys", str(n_standbys))
    assert 0 < found["n_affected"] < found["n_rooms"]
    assert found["affected_ms"]["n"] == found["n_affected"]
    assert found["affected_ms"]["n"] + found["others_ms"]["n"] == found["n_rooms"]
    assert found["recovery_s"] >= round(found["affected_ms"]["p50"] / 1_000, 1) > 1  # the session had to pass first
    assert any("ready" in line for line in found["survivor"])
