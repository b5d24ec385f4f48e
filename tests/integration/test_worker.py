"""Real worker processes on the embedded broker: what goes in comes out, shared, through crashes, exactly once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from agents.broker import DEFAULT_PARTITIONS
from agents.kafka import partition_of
from tests.integration.deployment import (
    Cluster,
    await_true,
    deployment,
    undone,
)
from tests.integration.load import Load
from tests.integration.replay import assert_live_equals_replay

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_two_workers_share_the_rooms_and_a_killed_one_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    rooms = [f"room-{number}" for number in range(12)]
    assert {partition_of(room, DEFAULT_PARTITIONS) for room in rooms} == set(range(DEFAULT_PARTITIONS))
    with deployment(tmp_path, cluster) as made:
        load = Load(made, rooms, seed=7)
        first, second = made.start_worker(), made.start_worker()
        load.send(2_000)
        await_true(
            lambda: len(first.partitions()) == len(second.partitions()) == DEFAULT_PARTITIONS / 2, "both have a share"
        )
        assert first.partitions() | second.partitions() == set(range(DEFAULT_PARTITIONS))
        load.send(2_000)
        await_true(load.is_counted, "everything is counted")

        load.send(1_000)
        first.end(signal.SIGKILL)
        load.send(1_000)
        third = made.start_worker()
        load.send(1_000)
        await_true(third.partitions, "the third has a share")
        load.send(1_000)
        await_true(load.is_counted, "everything is counted once, the killed worker's share too")

        assert second.end(signal.SIGTERM) == 0
        await_true(lambda: len(third.partitions()) == DEFAULT_PARTITIONS, "the third has everything")
        await_true(lambda: undone(made) == [], "the third has caught up")
        assert third.end(signal.SIGINT) == 0
        assert_live_equals_replay(made)
