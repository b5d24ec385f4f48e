"""Another checkout beside this one: a rolling upgrade has workers of both at once, and so may a run of this harness."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.chaos.processes import REPOSITORY, code_path

TIMEOUT_S: Final = 60.0
_ASK: Final = (
    "from pipeline.engine import ENGINE_VERSION; from pipeline.snapshot import FORMAT; print(FORMAT, ENGINE_VERSION)"
)


class CannotMixError(Exception):
    """The two cannot work beside each other, or the other one is not there; the words say why."""


class Versions(NamedTuple):
    """What two checkouts must have in common: else one cannot read the other's snapshots, or would not do the same."""

    snapshot_format: int
    engine: int


def versions_of(checkout: Path) -> Versions:
    """Return what a checkout says of itself."""
    said = subprocess.run(
        [sys.executable, "-c", _ASK],
        cwd=checkout, env=code_path(checkout), capture_output=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    numbers = said.stdout.split()
    if said.returncode or len(numbers) != 2:
        words = (said.stderr.decode(errors="replace").splitlines() or ["no word"])[-1]
        msg = f"{checkout} must be a checkout of roompulse, got {words}"
        raise CannotMixError(msg)
    return Versions(int(numbers[0]), int(numbers[1]))


def check(checkout: Path) -> None:
    """Raise CannotMixError unless workers of that checkout and of this one may share the partitions."""
    other, own = versions_of(checkout), versions_of(REPOSITORY)
    if other != own:
        msg = (
            f"both must have one snapshot format and engine version, got {other.snapshot_format} and {other.engine} "
            f"in {checkout}, {own.snapshot_format} and {own.engine} here: such an upgrade is no rolling one"
        )
        raise CannotMixError(msg)


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """Check out a commit of this repository into `folder`, and remove it at the end."""
    _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    _git("worktree", "add", "--detach", str(folder), commit)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> None:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    try:
        said = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        msg = "git must be installed for a checkout of another commit, got none"
        raise CannotMixError(msg) from None
    if said.returncode:
        words = (said.stderr.decode(errors="replace").splitlines() or ["the history has no such commit"])[-1]
        msg = f"git {' '.join(arguments)} must work, got {words}"
        raise CannotMixError(msg)
