"""Short seeds of the chaos runs on the embedded broker; `python -m tests.chaos` runs any others.

Its name keeps it out of `make test`: `make test-chaos` asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.__main__ import run_seed, told
from tests.chaos.beside import CannotMixError, check, worktree

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.mark.parametrize("seed", [0, 4])
def test_nothing_is_lost_and_nothing_counts_twice_whatever_dies(seed: int, tmp_path: Path) -> None:
    report = run_seed(seed, tmp_path / "run", brokers="embedded", rate=500, seconds=12, n_rooms=12)
    assert report.is_ok, told(report)


def test_workers_of_the_commit_before_and_of_this_one_take_each_other_s_place_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    try:
        with worktree("HEAD~1", tmp_path / "before") as before:
            check(before)
            report = run_seed(2, tmp_path / "run", brokers="embedded", rate=400, seconds=20, n_rooms=12, beside=before)
    except CannotMixError as why:
        pytest.skip(str(why))
    assert report.is_ok, told(report)
    assert min(report.stats["n_ready"].get(kind, 0) for kind in ("here", "beside")) >= 2
