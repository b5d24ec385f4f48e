"""What the worker sent live is what the dump of its partition gives when replayed: the same ids, the same contents."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from agents.cli.replay import FILES
from schemas import topics
from tests.integration.deployment import (
    OUTPUTS,
    Cluster,
    Deployment,
    await_true,
    committed,
    deployment,
    environment,
    roompulse,
)
from tests.scenario import scenario

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
PARTITION = 2
# The embedded broker keeps the newest 5 MB of a partition: as many signals as this makes, and no more.
N_RECORDS = 1_300
# The log brings its own time: no ticks of now between records of the past.
OWN_TIME = {"ROOMPULSE_WORKER__CLOCK": "false"}


def test_a_log_with_everything_in_it_gives_the_same_live_and_replayed(cluster: Cluster, tmp_path: Path) -> None:
    lines = scenario(11, N_RECORDS)
    with deployment(tmp_path, cluster) as made:
        for line in lines:
            made.producer.send(topics.ROOM_EVENTS, value=line.value, partition=PARTITION, timestamp_ms=line.timestamp)
        made.producer.flush()
        worker = made.start_worker(OWN_TIME)
        await_true(lambda: committed(made.broker)[PARTITION] >= len(lines), "everything is worked off and saved")
        assert worker.end() == 0
        live = sent(made)
        replayed = replay(made)
    assert {topic: len(messages) > 0 for topic, messages in live.items()} == dict.fromkeys(OUTPUTS, True) | {
        topics.ROOM_ANOMALIES: bool(replayed[topics.ROOM_ANOMALIES])
    }
    for topic in OUTPUTS:
        assert live[topic] == replayed[topic], topic


def sent(made: Deployment) -> dict[str, set[bytes]]:
    """Return what the worker sent from this partition; a repeat after a crash would be the same bytes."""
    return {topic: {r.value for r in made.read(topic) if r.partition == PARTITION} for topic in OUTPUTS}


def replay(made: Deployment) -> dict[str, set[bytes]]:
    """Return what the partition's dump gives through the command line."""
    dump, out, settings = made.folder / "dump.jsonl", made.folder / "out", environment(made.broker)
    dumped = roompulse("dump", "--partition", str(PARTITION), "--out", str(dump), settings=settings)
    assert (dumped.returncode, dumped.stderr) == (0, b"")
    again = roompulse("replay", str(dump), "--out", str(out), "--no-trust-log", "--json", settings=settings)
    assert (again.returncode, again.stderr) == (0, b"")
    summary = orjson.loads(again.stdout)
    assert summary["n_rejects"] > 100
    assert summary["n_duplicates"] > 50
    return {topic: set((out / FILES[topic]).read_bytes().splitlines()) for topic in OUTPUTS}
