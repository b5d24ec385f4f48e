"""A disk that is full, or a file that may grow no further: one line that says so, no traceback, no result half told."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenario import scenario

ROOT = Path(__file__).parents[3]
LIMIT = 20_000
"""Bytes a file may have: less than the results of the log below."""
FULL = Path("/dev/full")


def no_large_files() -> None:
    """Let every write beyond the limit fail, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"".join(line.value.replace(b"\n", b" ") + b"\n" for line in scenario(1, 500)))
    return file


def test_a_replay_with_no_room_for_its_results_says_so_and_leaves_no_summary(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "agents", "replay", str(log), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=no_large_files, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("roompulse: --out must have room for the results, got ")
    assert done.stderr.count("\n") == 1
    assert not (out / "summary.json").exists()


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_results_that_the_standard_output_cannot_take_are_an_error_in_one_line(log: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agents", "replay", str(log), "--out", str(tmp_path / "out"), "--json"]
    with FULL.open("w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("roompulse: standard output must have room for the results, got ")
    assert done.stderr.count("\n") == 1
