"""Workers that come, go, stand by, stop and wake: each room's totals stay exact, and states are not read twice."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agents.broker import DEFAULT_PARTITIONS
from schemas import topics
from tests.integration.deployment import Deployment, WorkerProcess, await_true, deployment, now_ms, undone
from tests.integration.test_worker import assert_live_equals_replay

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ROOMS = [f"room-{number}" for number in range(12)]


class Load:
    """Paid orders with known totals."""

    def __init__(self, made: Deployment) -> None:
        self.made, self.random = made, Random(7)
        self.expected = {room: Counter[str]() for room in ROOMS}

    def send(self, n_orders: int) -> None:
        for _ in range(n_orders):
            room = self.random.choice(ROOMS)
            amount_minor = self.random.randrange(1, 100_000)
            count = self.expected[room]
            count["n_orders_paid"] += 1
            count["gmv_minor"] += amount_minor
            self.made.send(topics.ROOM_EVENTS, room, _order(room, count["n_orders_paid"], amount_minor))
        self.made.producer.flush()

    def is_counted(self) -> bool:
        found = self.made.sessions()
        return all(found.get(room, {}).get(name) == n for room in ROOMS for name, n in self.expected[room].items())


def _order(room: str, number: int, amount_minor: int) -> dict[str, Any]:
    return {
        "type": "order",
        "event_id": f"order-{room}-{number}",
        "room_id": room,
        "ts": now_ms(),
        "order_id": f"order-{number}",
        "status": "paid",
        "amount_minor": amount_minor,
        "currency": "CNY",
    }


def ready_lines(worker: WorkerProcess) -> list[dict[str, Any]]:
    return [line for line in worker.lines() if line["message"] == "ready"]


def share(*workers: WorkerProcess) -> None:
    await_true(
        lambda: (
            sum(len(worker.partitions()) for worker in workers) == DEFAULT_PARTITIONS
            and all(worker.partitions() for worker in workers)
        ),
        "all have a share",
    )


def test_a_worker_that_stood_still_for_longer_than_its_session_harms_nothing(tmp_path: Path) -> None:
    with deployment(tmp_path) as made:
        load = Load(made)
        first, second = made.start_worker(), made.start_worker()
        share(first, second)
        load.send(600)
        await_true(load.is_counted, "everything is counted")
        load.send(300)
        first.process.send_signal(signal.SIGSTOP)
        try:
            load.send(300)
            await_true(lambda: len(second.partitions()) == DEFAULT_PARTITIONS, "the second has everything")
            load.send(300)
            await_true(load.is_counted, "everything is counted without the first")
        finally:
            first.process.send_signal(signal.SIGCONT)
        n_before = len(ready_lines(first))
        load.send(300)
        await_true(lambda: len(ready_lines(first)) > n_before, "the first joins again")
        share(first, second)
        load.send(300)
        await_true(load.is_counted, "everything is counted once")
        await_true(lambda: undone(made) == [], "they have caught up")
        assert first.end(signal.SIGTERM) == 0
        await_true(lambda: len(second.partitions()) == DEFAULT_PARTITIONS, "the second has everything at the end")
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
        load = Load(made)
        extra = {"ROOMPULSE_WORKER__STANDBY_REPLICAS": str(n_replicas), "ROOMPULSE_WORKER__LOG_LEVEL": "debug"}
        first = made.start_worker(extra)
        await_true(lambda: len(first.partitions()) == DEFAULT_PARTITIONS, "the first has everything")
        load.send(600)
        await_true(load.is_counted, "everything is counted")
        second = made.start_worker(extra)
        share(first, second)
        # What stayed with the first goes on with the engine it had.
        assert set(ready_lines(first)[-1]["kept"]) == first.partitions()
        load.send(600)
        await_true(load.is_counted, "everything is counted by both")
        await_true(lambda: undone(made) == [], "they have caught up")
        taken = first.partitions()
        first.end(signal.SIGKILL)
        load.send(300)
        await_true(lambda: len(second.partitions()) == DEFAULT_PARTITIONS, "the second has everything")
        load.send(300)
        await_true(load.is_counted, "everything is counted once")
        loads = [line for line in second.lines() if line["message"] == "snapshots read"]
        (last,) = [line for line in loads if set(line["partitions"]) == taken]
        # A standby reads what was written since it last looked; anybody else reads it all.
        assert (last["n_records_before"] > 0) == (n_replicas > 0)
        assert second.end(signal.SIGTERM) == 0
        assert_live_equals_replay(made)
