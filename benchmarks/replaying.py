"""`roompulse replay` on the records of the benchmark, as one partition."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import orjson

from agents.errors import ProgramError
from pipeline import Record

ROOT: Final = Path(__file__).resolve().parents[1]
TIMEOUT_S: Final = 1_200


def replay(records: Iterable[Record]) -> dict[str, Any]:
    """Write the records as a dump, replay it in a process of its own and return its numbers.

    Wall time is what `replay` says it took. Processor time is the process's, less that of a replay of nothing, which
    is the interpreter's start. The dump names no partition, so it is decided by default settings, as the worker's are.
    """
    with tempfile.TemporaryDirectory(prefix="roompulse-bench-") as name:
        folder = Path(name)
        n_records = _dump(records, folder / "log.jsonl")
        (folder / "nothing.jsonl").touch()
        start_s, _ = _run(folder, "nothing.jsonl")
        cpu_s, summary = _run(folder, "log.jsonl")
        n_bytes = sum(path.stat().st_size for path in (folder / "out").iterdir())
    if summary["n_records"] != n_records or summary["n_rejects"]:
        msg = f"replay must accept {n_records} records, got {summary['n_records']} and {summary['n_rejects']} rejects"
        raise ProgramError(msg)
    n_millions = n_records / 1e6
    cpu_s -= start_s
    return {
        "n_records": n_records,
        "wall_s": summary["elapsed_s"],
        "cpu_s": round(cpu_s, 3),
        "events_per_s": round(n_records / max(summary["elapsed_s"], 1e-9)),
        "cpu_s_per_million": round(cpu_s / n_millions, 2),
        "mb_out_per_million": round(n_bytes / 1e6 / n_millions, 1),
    }


def _dump(records: Iterable[Record], path: Path) -> int:
    n_records = 0
    with path.open("wb") as file:
        for record in records:
            offset, ts, value = record[:3]
            file.write(b'{"offset":%d,"timestamp":%d,"value":%s}\n' % (offset, ts or 0, value))
            n_records += 1
    return n_records


def _run(folder: Path, log: str) -> tuple[float, dict[str, Any]]:
    """Return processor seconds and the summary of one replay."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROOMPULSE_")}
    command = [sys.executable, "-m", "agents", "replay", log, "--out", "out", "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env=inherited | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False,
        timeout=TIMEOUT_S,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        msg = f"replay must succeed, got {done.stderr.decode(errors='replace').strip()[-300:]}"
        raise ProgramError(msg)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    summary: dict[str, Any] = orjson.loads(done.stdout)
    return cpu_s, summary
