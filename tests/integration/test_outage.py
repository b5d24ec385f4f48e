"""The broker is not there yet, or stands still in the middle of the work: the worker waits, says so, loses nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from agents.broker import EmbeddedBroker
from tests.integration.deployment import (
    PRIVACY_KEY,
    SETTINGS,
    Embedded,
    await_ready,
    await_true,
    deployment,
    roompulse,
    undone,
)
from tests.integration.load import Load
from tests.integration.proxy import Proxy
from tests.integration.replay import assert_live_equals_replay
from tests.kafka.cluster import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOMS = [f"room-{number}" for number in range(12)]
STANDSTILL_S = float(os.environ.get("ROOMPULSE_TEST_STANDSTILL_S", "15"))


def test_a_worker_that_starts_before_its_broker_waits_for_it(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker, deployment(tmp_path, Embedded(broker)) as made:
        host, _, port = broker.bootstrap.rpartition(":")
        proxy = Proxy(free_ports(1)[0], (host, int(port)))
        worker = made.start_worker({"ROOMPULSE_BROKER": proxy.url})
        await_true(
            lambda: any(line["message"] == "broker does not answer" for line in worker.lines()), "it says that it waits"
        )
        proxy.start()
        try:
            await_ready(worker)
            assert worker.end(signal.SIGTERM) == 0
        finally:
            proxy.cut()


def test_a_start_gives_up_after_its_time_with_one_line(tmp_path: Path) -> None:
    settings = {name: value for name, value in os.environ.items() if not name.startswith("ROOMPULSE_")} | SETTINGS
    url = f"kafka://127.0.0.1:{free_ports(1)[0]}"
    settings |= {"ROOMPULSE_BROKER": url, "ROOMPULSE_WORKER__START_TIMEOUT_S": "1"}
    said = roompulse("worker", settings=settings | {"ROOMPULSE_WORKER__DATA_DIR": str(tmp_path)})
    assert said.returncode == 1
    last = said.stderr.decode().splitlines()[-1]
    assert "must answer within" in last
    assert "correct ROOMPULSE_BROKER" in last
    assert PRIVACY_KEY not in said.stderr.decode()


@pytest.mark.parametrize("kind", ["file", "missing folder"])
def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path, kind: str) -> None:
    with deployment(tmp_path) as made:
        blocked = tmp_path / "blocked"
        blocked.write_text("a file")
        folder = blocked if kind == "file" else blocked / "data"
        worker = made.start_worker({"ROOMPULSE_WORKER__DATA_DIR": str(folder)})
        assert worker.process.wait(60) == 2
        assert b"worker.data_dir" in worker.log_file.read_bytes()
        assert str(folder).encode() in worker.log_file.read_bytes()


def test_a_broker_that_stands_still_costs_time_and_nothing_else(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker, deployment(tmp_path, Embedded(broker)) as made:
        load = Load(made, ROOMS, seed=7)
        worker = made.start_worker()
        await_ready(worker)
        load.send(600)
        await_true(load.is_counted, "everything is counted")
        load.send(300)
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            time.sleep(STANDSTILL_S)  # the outage itself: nothing to wait for
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        load.send(300)
        await_true(load.is_counted, "everything is counted")
        await_true(lambda: undone(made) == [], "it has caught up")
        assert worker.process.poll() is None
        assert worker.end(signal.SIGTERM) == 0
        assert_live_equals_replay(made)
