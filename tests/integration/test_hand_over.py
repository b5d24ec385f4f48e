"""Workers that come, go, stand by, stop and wake: each room's totals stay exact, and states are not read twice."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.deployment import WorkerProcess, await_ready, await_true, deployment, undone
from tests.integration.load import Load
from tests.integration.replay import assert_live_equals_replay

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ROOMS = [f"room-{number}" for number in range(12)]


def ready_lines(worker: WorkerProcess) -> list[dict[str, Any]]:
    return [line for line in worker.lines() if line["message"] == "ready"]


def test_a_worker_that_stood_still_for_longer_than_its_session_harms_nothing(tmp_path: Path) -> None:
    with deployment(tmp_path) as made:
        load = Load(made, ROOMS, seed=7)
        first, second = made.start_worker(), made.start_worker()
        await_ready(first, second)
        load.send(600)
        await_true(load.is_counted, "everything is counted")
        load.send(300)
        first.process.send_signal(signal.SIGSTOP)
        try:
            load.send(300)
            await_ready(second)
            load.send(300)
            await_true(load.is_counted, "everything is counted without the first")
        finally:
            first.process.send_signal(signal.SIGCONT)
        n_before = len(ready_lines(first))
        load.send(300)
        await_true(lambda: len(ready_lines(first)) > n_before, "the first joins again")
        await_ready(first, second)
        load.send(300)
        await_true(load.is_counted, "everything is counted once")
        await_true(lambda: undone(made) == [], "they have caught up")
        assert first.end(signal.SIGTERM) == 0
        await_ready(second)
        assert second.end(signal.SIGTERM) == 0
        for worker in (first, second):
            lines = [line["message"] for line in worker.lines() if line["level"] in ("error", "critical")]
            # That its threads, and a broker, did not answer while it stood still are the libraries' own remarks.
            assert not [line for line in lines if "keepalive" not in line and "RequestTimedOutError" not in line]
        assert_live_equals_replay(made)


@pytest.mark.parametrize("n_replicas", [0, 1])
def test_a_partition_that_stays_is_not_read_again_and_a_standby_has_what_it_needs(
    tmp_path: Path, n_replicas: int
) -> None:
    with deployment(tmp_path) as made:
        load = Load(made, ROOMS, seed=7)
        extra = {"ROOMPULSE_WORKER__STANDBY_REPLICAS": str(n_replicas), "ROOMPULSE_WORKER__LOG_LEVEL": "debug"}
        first = made.start_worker(extra)
        await_ready(first)
        load.send(600)
        await_true(load.is_counted, "everything is counted")
        second = made.start_worker(extra)
        await_ready(first, second)
        # What stayed with the first goes on with the engine it had.
        assert set(ready_lines(first)[-1]["kept"]) == first.partitions()
        load.send(600)
        await_true(load.is_counted, "everything is counted by both")
        await_true(lambda: undone(made) == [], "they have caught up")
        taken = first.partitions()
        first.end(signal.SIGKILL)
        load.send(300)
        await_ready(second)
        load.send(300)
        await_true(load.is_counted, "everything is counted once")
        loads = [line for line in second.lines() if line["message"] == "snapshots read"]
        (last,) = [line for line in loads if set(line["partitions"]) == taken]
        # A standby reads what was written since it last looked; anybody else reads it all.
        assert (last["n_records_before"] > 0) == (n_replicas > 0)
        assert second.end(signal.SIGTERM) == 0
        assert_live_equals_replay(made)
