"""The demo as a user starts it: what it must show and when, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from tests.integration.deployment import await_true, is_alive

pytestmark = pytest.mark.integration

ROOT: Final = Path(__file__).parents[2]
RECORDED: Final = ROOT.parent / "shared" / "data" / "live_rooms" / "live_rooms.jsonl.gz"
TS_2019: Final = 1_557_492_120_000


@contextmanager
def demo(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in a process of its own, which is over at the end whatever happens."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROOMPULSE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "agents", "demo", *arguments],
        cwd=ROOT,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finished(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Return exit code, the object on the last line of standard output, and standard error."""
    out, err = process.communicate(timeout=110)
    lines = out.splitlines()
    return process.returncode, orjson.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}, err


def children_of(pid: int) -> dict[int, str]:
    """Return the processes that a process started: id and command line."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found[int(stat.parent.name)] = stat.with_name("cmdline").read_bytes().decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def both_children(process: subprocess.Popen[str]) -> dict[str, int]:
    """Return broker and worker of a demo, once it has them."""
    await_true(lambda: len(children_of(process.pid)) == 2, "two children")
    found = children_of(process.pid)
    return {"broker" if "embedded.py" in line else "worker": pid for pid, line in found.items()}


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_when_told_to_and_leaves_no_process(number: signal.Signals) -> None:
    with demo("--json", "--rooms", "3") as process:
        children = both_children(process)
        process.send_signal(number)
        code, told, err = finished(process)
    assert (code, err) == (0, "")
    assert "events" in told
    assert not [pid for pid in children.values() if is_alive(pid)]


def test_its_children_end_with_it_even_when_it_is_killed(tmp_path: Path) -> None:
    with demo("--rooms", "3", TMPDIR=str(tmp_path)) as process:
        children = both_children(process)
        await_true(lambda: list(tmp_path.glob("*/worker.log")), "the throw-away folder")
        process.kill()
        await_true(lambda: not [pid for pid in children.values() if is_alive(pid)], "the end of both children")
        await_true(lambda: not list(tmp_path.iterdir()), "the end of the throw-away folder")


@pytest.mark.parametrize("who", ["worker", "broker"])
def test_the_death_of_a_child_is_one_clear_line_and_exit_code_1(who: str) -> None:
    with demo("--rooms", "3") as process:
        children = both_children(process)
        os.kill(children[who], signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1
    assert err.count("\n") == 1
    assert err.startswith("roompulse: the ")
    assert who in err
    assert "Traceback" not in out + err
    assert not [pid for pid in children.values() if is_alive(pid)]


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scenario", "none"], "--scenario must be one of"),
        (["--speed", "2"], "--speed must come with --from"),
        (["--from", "log.jsonl", "--seed", "1"], "--from must not come with --seed"),
        (["--from", "no-such-file"], "no-such-file must be a file that can be read"),
        (["--from", "pyproject.toml", "--speed", "0"], "--speed must be above 0"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], words: str) -> None:
    with demo(*arguments) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert words in err
