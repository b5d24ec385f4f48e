"""A worker that finds what only a newer version can read stops, says so, and leaves it as it is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agents.kafka import partition_of
from agents.snapshots import pack
from pipeline.snapshot import FORMAT
from schemas import topics
from tests.integration.deployment import APP_ID, DEADLINE_S, deployment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
CHANGELOG = f"{APP_ID}-rooms-changelog"


def test_a_snapshot_of_a_newer_format_stops_the_worker_with_one_line_and_stays(tmp_path: Path) -> None:
    with deployment(tmp_path) as made:
        home = partition_of("room-1", 4)
        state = pack(1, -1, msgspec.msgpack.encode((FORMAT + 1, {"room_id": "room-1"})))
        made.producer.send(CHANGELOG, state, b"room-1", partition=home).get(DEADLINE_S)
        worker = made.start_worker()
        assert worker.process.wait(DEADLINE_S) == 1
        last = worker.log_file.read_text().splitlines()[-1]
        assert last == (
            f"roompulse: partition {home} of {CHANGELOG}: a snapshot must have format {FORMAT}, got {FORMAT + 1}: "
            "run the version that wrote it, or delete it"
        )
        assert [record.value for record in made.read(CHANGELOG)] == [state]
        assert made.read(topics.ROOM_SIGNALS) == []
