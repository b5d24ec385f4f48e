"""A demo's life: it stops when told to, ends when a part of it dies, and refuses what makes no sense."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.demos import both_children, demo, finished
from tests.integration.deployment import await_true, is_alive

pytestmark = pytest.mark.integration


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
