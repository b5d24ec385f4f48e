"""The whole job end to end, this worker against rivals, on one broker and one load: what `roompulse bench` runs.

A run is one process of one contender. It measures from the first record taken to the moment when the load is applied,
all output is confirmed and the state is durable: wall time, processor time of its process, and what it wrote to Kafka.
Contenders take turns, run after run, so that what else the machine does falls on all alike; results are medians.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, get_args

from benchmarks import environment
from benchmarks.bench_stages import machine
from benchmarks.field import PARTITIONS, Field, records_of
from benchmarks.replaying import replay
from benchmarks.rivals.meter import Job
from benchmarks.running import CONTENDERS, OURS, Run, RunFailedError

JobName = Literal["count", "engine", "replay"]
JOBS: Final[tuple[JobName, ...]] = get_args(JobName)
OPENING: Final = 5
"""Records a room that come before the mixture."""
SLOW_SHARE: Final = 10
"""A slow contender gets one event in so many, the first ones."""
MEDIANS: Final = ("events_per_s", "cpu_s_per_million", "mb_out_per_million", "records_out_per_million", "peak_mib")

Tell = Callable[[str], object]


class Plan(NamedTuple):
    """What to measure."""

    jobs: tuple[JobName, ...]
    contenders: tuple[str, ...]
    n_rooms: int
    n_events: int
    rate: int
    n_runs: int
    seed: int
    save_interval_s: float


class _Measurement:
    """The runs of one plan."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self._plan, self._tell = plan, tell
        self.runs: dict[str, dict[str, list[dict[str, Any]]]] = {job: {} for job in plan.jobs}
        self.absent: dict[str, str] = {}
        """`job/contender`, and why there is no number of it."""

    def replays(self, number: int) -> None:
        """Replay the load once."""
        plan = self._plan
        self._tell(f"run {number + 1} of {plan.n_runs}: replay")
        log = records_of(plan.n_rooms, plan.n_events, seed=plan.seed, rate=plan.rate)
        self.runs["replay"].setdefault(OURS, []).append(replay(log))

    def lives(self, field: Field) -> None:
        """Run every contender's every job, by turns."""
        plan = self._plan
        live: tuple[Job, ...] = get_args(Job)
        pairs = [
            (job, name) for job in live if job in plan.jobs for name in plan.contenders if job in CONTENDERS[name].jobs
        ]
        for job, name in pairs:
            if field.embedded and CONTENDERS[name].needs_kafka:
                self.absent[f"{job}/{name}"] = (
                    "needs a broker that describes its topics, which the embedded one does not"
                )
        here = [pair for pair in pairs if "/".join(pair) not in self.absent]
        foreign = environment.ready(self._tell) if any(CONTENDERS[name].is_foreign for _, name in here) else None
        self._tell(f"writing {plan.n_events:,} events of {plan.n_rooms:,} rooms")
        log = records_of(plan.n_rooms, plan.n_events, seed=plan.seed, rate=plan.rate)
        own, whole, first = field.fill(log, plan.n_rooms * OPENING + plan.n_events // SLOW_SHARE)
        for number in range(plan.n_runs):
            for job, name in here:
                if f"{job}/{name}" not in self.absent:
                    self._tell(f"run {number + 1} of {plan.n_runs}: {job}, {name}")
                    load = own if name == OURS else first if CONTENDERS[name].is_slow else whole
                    interval_s = plan.save_interval_s
                    self._live(Run(field, name, job, number, load, save_interval_s=interval_s, python=foreign))
            if "replay" in plan.jobs:
                self.replays(number)

    def _live(self, run: Run) -> None:
        job, name = run.job, run.name
        try:
            self.runs[job].setdefault(name, []).append(run.measure())
        except RunFailedError as error:
            if name == OURS:
                raise
            self.absent[f"{job}/{name}"] = str(error)
            self._tell(str(error))


def measure(plan: Plan, bootstrap: str | None, broker: str, tell: Tell) -> dict[str, Any]:
    """Run everything of the plan and return it as plain JSON values.

    Parameters
    ----------
    plan : what to measure.
    bootstrap : host:port of a broker for benchmarks alone; None when nothing but replays is wanted.
    broker : what it is, for the record.
    tell : takes a line on how far it got.

    Raises
    ------
    ProgramError
        The broker is not one for benchmarks, or this project's own worker failed. A rival that fails is told with its
        reason and costs nobody else's numbers.
    """
    found = _Measurement(plan, tell)
    if bootstrap is None:
        for number in range(plan.n_runs):
            found.replays(number)
    else:
        field = Field(bootstrap)
        try:
            found.lives(field)
        finally:
            field.delete(field.topics())
    jobs = {
        job: {name: summarise(runs) for name, runs in by_name.items() if runs} for job, by_name in found.runs.items()
    }
    told = {name: value for name, value in plan._asdict().items() if name not in ("jobs", "contenders")}
    return {
        **told,
        "n_partitions": PARTITIONS,
        "broker": broker,
        "machine": {**machine(), "n_processors": os.cpu_count()},
        "jobs": jobs,
        "ratios": ratios(jobs),
        "absent": found.absent,
    }


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of runs of the same kind, the slowest and fastest, and the runs themselves."""
    medians = {}
    for name in MEDIANS:
        values = [run[name] for run in runs if run.get(name) is not None]
        medians[name] = statistics.median(values) if values else None
    speeds = [run["events_per_s"] for run in runs]
    return {
        "n_records": runs[0]["n_records"],
        **medians,
        "slowest_events_per_s": min(speeds),
        "fastest_events_per_s": max(speeds),
        "versions": runs[0].get("versions", {}),
        "runs": [{name: value for name, value in run.items() if name != "versions"} for run in runs],
    }


def ratios(jobs: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return, per job, how many times a rival's speed this worker has, and how many times its processor time it takes.

    A replay's rival is the worker at the job `engine`: the same records through the same engine.

    >>> worker = {"events_per_s": 300, "cpu_s_per_million": 4.0}
    >>> ratios({"count": {"roompulse": worker, "faust": {"events_per_s": 100, "cpu_s_per_million": 8.0}}})
    {'count': {'faust': {'events_per_s': 3.0, 'cpu_s_per_million': 0.5}}}
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for job, by_name in jobs.items():
        ours = by_name.get(OURS)
        rivals = {name: their for name, their in by_name.items() if name != OURS}
        if job == "replay":
            rivals = {"worker": jobs["engine"][OURS]} if OURS in jobs.get("engine", {}) else {}
        if ours is not None and rivals:
            found[job] = {
                name: {
                    what: round(ours[what] / their[what], 2)
                    for what in ("events_per_s", "cpu_s_per_million")
                    if their[what]
                }
                for name, their in rivals.items()
            }
    return found


def table(found: dict[str, Any]) -> str:
    """Return the result for people: one table of Markdown a job, and what it was measured on."""
    lines: list[str] = []
    for job, by_name in found["jobs"].items():
        lines += [
            f"| {job} | events/s | slowest to fastest | CPU s a million | MB out a million | peak MiB "
            "| our speed | our CPU |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for name, row in by_name.items():
            times = found["ratios"].get(job, {}).get(name, {})
            cells = [
                name,
                f"{row['events_per_s']:,.0f}",
                f"{row['slowest_events_per_s']:,} to {row['fastest_events_per_s']:,}",
                _cell(row["cpu_s_per_million"]),
                _cell(row["mb_out_per_million"]),
                _cell(row["peak_mib"]),
                f"{times['events_per_s']:g} x" if "events_per_s" in times else "",
                f"{times['cpu_s_per_million']:g} x" if "cpu_s_per_million" in times else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines += [f"{pair} is absent: {why}" for pair, why in found["absent"].items()]
    replay_ratio = found["ratios"].get("replay", {}).get("worker")
    if replay_ratio is not None:
        lines.append(f"replay: {replay_ratio['events_per_s']:g} times the worker's events/s")
    names = ("n_rooms", "n_events", "rate", "n_runs", "seed", "save_interval_s", "n_partitions", "broker", "machine")
    lines += [f"{name}: {found[name]}" for name in names]
    rows = [row for by_name in found["jobs"].values() for row in by_name.values()]
    versions = {package: number for row in rows for package, number in row["versions"].items()}
    return "\n".join([*lines, f"versions: {versions}"])


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if value < 1_000 else f"{value:,.0f}"
