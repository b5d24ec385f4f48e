"""The benchmarks of time as `roompulse bench --job latency|backlog|recovery` asks for them and people read them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, get_args

from benchmarks import backlog, latency, recovery
from benchmarks.bench_stages import machine

TimeJob = Literal["latency", "backlog", "recovery"]
TIME_JOBS: Final[tuple[TimeJob, ...]] = get_args(TimeJob)

Tell = Callable[[str], object]


class Size(NamedTuple):
    """How large a run is: rooms, events a second, and seconds (of a phase, of the backlog, before the kill)."""

    n_rooms: int
    rate: int
    seconds: int


SIZES: Final[dict[TimeJob, Size]] = {
    "latency": Size(500, 20_000, 30),
    "backlog": Size(100, 500, 3_600),
    "recovery": Size(20_000, 4_000, 60),
}
QUICK: Final[dict[TimeJob, Size]] = {
    "latency": Size(50, 500, 8),
    "backlog": Size(10, 100, 300),
    "recovery": Size(200, 400, 8),
}
N_ENDED, N_ENDED_QUICK = 40_000, 50
"""Rooms that came and went before, for `recovery`: 20,000 at a time, two turns of them a day."""


class Options(NamedTuple):
    """What the command line says; None takes the job's own size."""

    n_rooms: int | None
    rate: int | None
    seconds: int | None
    seed: int
    is_quick: bool
    is_hot: bool
    n_standbys: int
    n_ended: int | None


def measure(job: TimeJob, options: Options, bootstrap: str, broker: str, tell: Tell) -> dict[str, Any]:
    """Run one job and return it as plain JSON values, with what it was measured on.

    Raises
    ------
    ProgramError
        The broker is not one for benchmarks, or a worker or the load did not do its part.
    """
    size = (QUICK if options.is_quick else SIZES)[job]
    n_rooms, rate, seconds = options.n_rooms or size.n_rooms, options.rate or size.rate, options.seconds or size.seconds
    if job == "latency":
        found = latency.measure(
            latency.Plan(n_rooms, rate, seconds, options.seed, is_hot=options.is_hot), bootstrap, tell
        )
    elif job == "backlog":
        found = backlog.measure(backlog.Plan(n_rooms, rate, seconds, options.seed), bootstrap, tell)
    else:
        n_ended = options.n_ended if options.n_ended is not None else N_ENDED_QUICK if options.is_quick else N_ENDED
        plan = recovery.Plan(n_rooms, n_ended, rate, seconds, options.seed, options.n_standbys)
        found = recovery.measure(plan, bootstrap, tell)
    load = [round(share, 1) for share in os.getloadavg()]
    return {
        **found,
        "broker": broker,
        "machine": {**machine(), "n_processors": os.cpu_count(), "load_average_at_the_end": load},
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the results for people: percentiles as tables of Markdown, everything else a line each."""
    lines: list[str] = []
    for job, result in found.items():
        phases = {name: value for name, value in result.items() if isinstance(value, dict) and "command" in value}
        lines += [f"{job}:"]
        if phases:
            lines += ["", "| phase | caused | n | p50 ms | p95 ms | p99 ms | max ms | without an answer |"]
            lines += ["|---|---|---:|---:|---:|---:|---:|---:|"]
            for name, phase in phases.items():
                for kind in latency.KINDS:
                    row = phase[kind]
                    cells = [str(row[what]) for what in ("n", "p50", "p95", "p99", "max", "n_missing")]
                    lines.append(f"| {name} | {kind} | {' | '.join(cells)} |")
            lines.append("")
        lines += [f"{name}: {value}" for name, value in result.items() if name not in phases]
    return "\n".join(lines)
