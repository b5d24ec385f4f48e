"""`roompulse demo` in a process of its own, and the processes it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson

from tests.integration.deployment import await_true

ROOT: Final = Path(__file__).parents[2]


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
