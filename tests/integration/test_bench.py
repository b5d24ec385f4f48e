"""`roompulse bench` on a broker: real contenders, few events."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from agents.broker import EmbeddedBroker
from benchmarks.field import Field, records_of
from benchmarks.running import Run, RunFailedError

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


def test_a_contender_that_hangs_is_ended_and_told() -> None:
    with EmbeddedBroker() as broker:
        field = Field(broker.bootstrap)
        load = field.fill(records_of(5, 100, seed=1, rate=1_000), 0)[0]
        with pytest.raises(RunFailedError, match="roompulse must finish count"):
            never = load._replace(n_records=load.n_records + 1)
            Run(field, "roompulse", "count", 0, never, save_interval_s=1.0, timeout_s=12.0).measure()
