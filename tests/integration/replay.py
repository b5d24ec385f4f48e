"""What workers sent against what their partitions' dumps give."""

from __future__ import annotations

import orjson

from agents.broker import DEFAULT_PARTITIONS
from pipeline import Engine
from schemas.settings import Settings
from tests.integration.deployment import (
    CONTROL_KEY,
    OUTPUTS,
    PRIVACY_KEY,
    Deployment,
    committed,
    environment,
    roompulse,
)


def assert_live_equals_replay(made: Deployment) -> None:
    """What a partition's dump gives when replayed is what the workers sent, each at least once."""
    done = committed(made.broker)
    sent = {(topic, record.partition, record.key, record.value) for topic in OUTPUTS for record in made.read(topic)}
    for partition in range(DEFAULT_PARTITIONS):
        dump = made.folder / f"{partition}.jsonl"
        said = roompulse("dump", "--partition", str(partition), "--out", str(dump), settings=environment(made.broker))
        assert (said.returncode, said.stderr) == (0, b"")
        engine = Engine(
            Settings.model_validate({"privacy_key": PRIVACY_KEY, "control_key": CONTROL_KEY}), partition=partition
        )
        records = [orjson.loads(line) for line in dump.read_bytes().splitlines()]
        assert [record["offset"] for record in records] == list(range(len(records)))
        outputs = engine.process(
            (record["offset"], record["timestamp"], record["value"].encode(), record["key"].encode())
            for record in records
            if record["offset"] < done[partition]
        )
        replayed = {(out.topic, partition, out.key.encode(), out.json()) for out in outputs}
        assert len(replayed) > 3
        assert replayed == {one for one in sent if one[1] == partition}
