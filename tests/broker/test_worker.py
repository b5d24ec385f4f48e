"""One real worker on a broker: events in, signals out, controls, the kill switch, and a clean stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.broker import DEFAULT_PARTITIONS
from schemas import topics
from schemas.control import sign
from tests.integration.deployment import (
    CONTROL_KEY,
    PRIVACY_KEY,
    SETTINGS,
    Cluster,
    await_ready,
    await_true,
    deployment,
    environment,
    now_ms,
    roompulse,
    undone,
)
from tests.integration.load import enter, order

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def control(room: str, action: str, args: dict[str, Any], control_id: str) -> dict[str, Any]:
    return {
        "control_id": control_id,
        "room_id": room,
        "ts": now_ms(),
        "actor": "test",
        "action": action,
        "args": args,
    }


def test_events_become_signals_controls_take_effect_and_a_stop_is_clean(cluster: Cluster, tmp_path: Path) -> None:
    with deployment(tmp_path, cluster) as made:
        worker = made.start_worker()
        await_ready(worker)

        for number in range(50):
            made.send(topics.ROOM_EVENTS, "room-1", enter("room-1", number))
        made.send(topics.ROOM_EVENTS, "room-1", order("room-1", 1, 12_345))
        made.send(topics.ROOM_EVENTS, "room-1", {"type": "view", "event_id": "bad", "room_id": "room-1"})
        made.producer.flush()
        await_true(lambda: made.sessions().get("room-1", {}).get("gmv_minor") == 12_345, "signals of the room")
        assert made.sessions()["room-1"]["n_enters"] == 50
        (letter,) = made.values(topics.ROOM_EVENTS_DLQ)
        assert letter["reason"] == "missing_field"

        # A control must be signed: the unsigned one ends in the dead letters, the other changes the room's mode.
        unsigned = control("room-1", "set_mode", {"mode": "auto"}, "ctl-unsigned")
        made.send(topics.OPS_CONTROL, "room-1", unsigned)
        signed = sign(control("room-1", "set_mode", {"mode": "approve"}, "ctl-signed"), CONTROL_KEY.encode())
        made.send(topics.OPS_CONTROL, "room-1", signed)
        made.producer.flush()

        def modes() -> list[str]:
            return [message["mode"] for message in made.values(topics.ROOM_SIGNALS, "room-1")]

        await_true(lambda: modes()[-1] == "approve", "the signed control takes effect")
        assert "auto" not in modes()
        refused = [letter for letter in made.values(topics.ROOM_EVENTS_DLQ) if letter["topic"] == topics.OPS_CONTROL]
        assert [letter["reason"] for letter in refused] == ["unsigned"]
        in_log = [record for record in made.values(topics.ROOM_EVENTS, "room-1") if record["type"] == "control"]
        assert [record["control_id"] for record in in_log] == ["ctl-signed"]

        # The kill switch for every room reaches every partition's log and its own topic.
        said = roompulse(
            "control", "kill_switch", "--all", "--actor", "test", "--arg", "on=true", "--control-id", "ctl-kill",
            settings=environment(made.broker),
        )  # fmt: skip
        assert (said.returncode, said.stderr) == (0, b"")
        await_true(lambda: made.values(topics.OPS_KILL), "the kill switch is known")
        assert made.values(topics.OPS_KILL)[0]["on"] is True
        killed = [
            record.partition
            for record in made.read(topics.ROOM_EVENTS)
            if orjson.loads(record.value).get("control_id") == "ctl-kill"
        ]
        assert sorted(killed) == list(range(DEFAULT_PARTITIONS))

        shown = roompulse(
            "tail", topics.ROOM_EVENTS, "--room", "room-1", "--from-beginning", "--limit", "2", "--json",
            settings=environment(made.broker),
        )  # fmt: skip
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert [orjson.loads(line)["value"]["event_id"] for line in shown.stdout.splitlines()] == [
            "enter-room-1-0",
            "enter-room-1-1",
        ]

        # Each partition was told the policy before its first tick.
        for partition in range(DEFAULT_PARTITIONS):
            log = [orjson.loads(r.value) for r in made.read(topics.ROOM_EVENTS) if r.partition == partition]
            kinds = [record["type"] for record in log]
            (policy,) = [record for record in log if record.get("action") == "update_settings"]
            assert log.index(policy) < kinds.index("tick")
            assert policy["args"]["policy"]["engine"]["emit_interval_ms"] == 1_000

        assert worker.end(signal.SIGTERM) == 0
        told = worker.log_file.read_text()
        assert not [line for line in worker.lines() if line["level"] in ("error", "critical")]
        for secret in (PRIVACY_KEY, CONTROL_KEY, "user-1", "ctl-unsigned"):
            assert secret not in told
        assert undone(made) == []


@pytest.mark.parametrize("missing", ["ROOMPULSE_BROKER", "ROOMPULSE_PRIVACY_KEY", "ROOMPULSE_CONTROL_KEY"])
def test_a_worker_without_its_settings_does_not_start(missing: str) -> None:
    settings = {name: value for name, value in os.environ.items() if not name.startswith("ROOMPULSE_")}
    settings |= SETTINGS | {"ROOMPULSE_BROKER": "kafka://127.0.0.1:1"}
    del settings[missing]
    said = roompulse("worker", settings=settings)
    assert said.returncode == 2
    assert missing.encode() in said.stderr
    assert said.stderr.count(b"\n") == 1
