"""Two short seeds of the chaos runs on the embedded broker; `python -m tests.chaos` runs any others.

Its name keeps it out of `make test`: `make test-chaos` asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.__main__ import run_seed, told

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.mark.parametrize("seed", [0, 4])
def test_nothing_is_lost_and_nothing_counts_twice_whatever_dies(seed: int, tmp_path: Path) -> None:
    report = run_seed(seed, tmp_path / "run", brokers="embedded", rate=500, seconds=12, n_rooms=12)
    assert report.is_ok, told(report)
