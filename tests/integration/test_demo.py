"""The demo in full: what it must show and when, with simulated rooms and with recorded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson
import pytest

from tests.integration.demos import ROOT, demo, finished

pytestmark = pytest.mark.integration

RECORDED: Final = ROOT.parent / "shared" / "data" / "live_rooms" / "live_rooms.jsonl.gz"
TS_2019: Final = 1_557_492_120_000


def recording(path: Path, n_events: int) -> str:
    """Write a busy minute of one room in 2019, with a line that is none."""
    lines = []
    for number in range(n_events):
        ts = TS_2019 + number * 60_000 // n_events
        event = {"type": "comment", "event_id": f"e{number}", "room_id": "live-1", "ts": ts, "text": f"好看 {number}"}
        lines.append(orjson.dumps(event))
    lines.insert(n_events // 2, b"this is no JSON")
    path.write_bytes(b"\n".join(lines))
    return str(path)


def test_signals_an_anomaly_and_a_bid_command_come_in_time_and_the_summary_is_the_last_line() -> None:
    with demo("--seconds", "42", "--json") as process:
        code, told, err = finished(process)
    assert (code, err) == (0, "")
    assert told["first_signal_s"] < 20
    assert told["first_anomaly_s"] < 40
    assert told["first_command_s"] < 40
    assert (told["lag"], told["rejects"], told["seed"], told["rooms"]) == (0, 0, 1, 20)
    assert told["answers"] >= 2  # the platform acted: a controller's part is played to the end
    assert told["found"] >= 1
    # Every room every second, or nearly: the policy for people who look came after the worker's own.
    assert told["signals"] > told["rooms"] * (told["elapsed_s"] - told["first_signal_s"]) / 1.5
    assert min(told["events"], told["signals"], told["anomalies"], told["commands"]) > 0


def test_a_recording_of_2019_plays_to_its_end_and_everything_is_worked_off(tmp_path: Path) -> None:
    with demo("--from", recording(tmp_path / "log.jsonl", 3_000), "--speed", "30", "--json") as process:
        code, told, err = finished(process)
    assert (code, err) == (0, "")
    assert (told["events"], told["rejects"], told["lag"], told["rooms"]) == (3_000, 1, 0, 1)
    assert told["signals"] > 0
    assert "seed" not in told


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded rooms are not in this checkout")
def test_real_rooms_of_2019_play_as_they_were() -> None:
    with demo("--from", str(RECORDED), "--speed", "60", "--seconds", "25", "--json") as process:
        code, told, err = finished(process)
    assert (code, err) == (0, "")
    assert told["first_signal_s"] < 20
    assert (told["rejects"], told["lag"]) == (0, 0)
    assert told["signals"] > told["rooms"] > 1
