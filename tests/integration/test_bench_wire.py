"""The benchmark of the wire measures what it names, on a small load."""

from __future__ import annotations

import subprocess
import sys

import orjson
import pytest

from benchmarks.bench_wire import MEASUREMENTS
from tests.integration.deployment import REPOSITORY


@pytest.mark.integration
def test_every_measurement_is_made_and_costs_something() -> None:
    sizes = ["--events", "1000", "--outputs", "1000", "--snapshots", "40", "--json"]
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_wire", *sizes],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=110,
        check=True,
    )
    found = orjson.loads(answer.stdout)["found"]
    assert list(found) == list(MEASUREMENTS)
    assert all(values["us"] > 0 for name, values in found.items() if name != "recover")
    assert found["recover"]["snapshots"] == 40
    assert found["fetch, decode"]["us"] > found["fetch"]["us"]
