"""What an event costs, stage by stage: `python -m benchmarks.bench_stages --rooms 500 --events 50000`.

Method: one real engine reads one seeded log. After a warm-up that fills the minute's windows the log goes on in
segments, by turns (1) as it is, timed as a whole, and (2) with the engine's own functions wrapped from outside. A
wrapper takes the time a call spends outside other wrapped calls, so every moment belongs to one stage; what the
wrappers themselves cost is measured beforehand on an empty function and taken off. Each number is the median over the
segments of its kind. A stage is what the engine really calls with what it really calls it with: nothing is rebuilt.

All of it is processor time: whole segments and chunks are timed by the process's own clock; the stages, whose calls are
too short for that clock, are scaled by the share of their segment in which the process had the processor. So neighbours
on the machine cost caches, not waiting.

The rival of the same run is `orjson.loads` over the same bytes: what any Python program pays to look at the events.
"""

from __future__ import annotations

import argparse
import gc
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import orjson

from benchmarks.workloads import DEFAULT_RATE, Workload
from pipeline import Engine, Record
from pipeline import engine as engine_module
from pipeline import room as room_module
from pipeline.commands import Commander
from pipeline.dedup import SeenIds
from pipeline.emit import View
from pipeline.identity import Identities
from pipeline.judge import Judge
from pipeline.output import Output
from pipeline.room import RoomState
from pipeline.sentiment import SentimentModel
from schemas.settings import WorkerSettings

CHUNK: Final = 2_000
"""Records a call of `process`, as a worker's consumer hands them over."""
WARM_UP_S: Final = 65
"""Seconds of the log before anything is timed: a full minute of base buckets, and some to expire."""

STAGES: Final[tuple[tuple[str, Any, tuple[str, ...]], ...]] = (
    ("decode", engine_module, ("decode",)),
    ("identity", Identities, ("token", "fingerprint")),
    ("dedup", SeenIds, ("has", "remember", "turn", "remember_money")),
    ("dedup", Engine, ("_is_repeated", "_remember")),
    ("sentiment", SentimentModel, ("score",)),
    ("sentiment", room_module, ("normalise", "topics")),
    ("apply", engine_module, ("apply",)),
    ("evaluation: fold", RoomState, ("fold",)),
    ("evaluation: judge", Judge, ("__init__", "run")),
    ("evaluation: bid", Commander, ("run",)),
    ("evaluation: view", View, ("__init__",)),
    ("evaluation: visit", Engine, ("_visit",)),
    ("outputs: signals", Engine, ("_emit",)),
    ("outputs: commands", Engine, ("_commands",)),
    ("outputs: encode", Output, ("json",)),
    ("snapshots", Engine, ("changed",)),
    ("loop", Engine, ("process",)),
)
"""Stage, where the functions live, and which; a function's own time ends where another wrapped one begins."""
VISIT, EMIT = "evaluation: visit", "outputs: signals"


class Meter:
    """Own time and calls of every stage, gathered by wrappers."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self._inner: list[int] = []
        self._own_ns = self._around_ns = 0
        self._own_ns, self._around_ns = self._calibrated()

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, timed under `stage`."""
        ns, calls, inner, clock = self.ns, self.calls, self._inner, time.perf_counter_ns
        ns.setdefault(stage, 0)
        calls.setdefault(stage, 0)
        own_ns, around_ns = self._own_ns, self._own_ns + self._around_ns

        def timed(*args: Any, **kwargs: Any) -> Any:
            inner.append(0)
            begin = clock()
            result = function(*args, **kwargs)
            took = clock() - begin
            ns[stage] += took - inner.pop() - own_ns
            calls[stage] += 1
            if inner:
                inner[-1] += took + around_ns - own_ns
            return result

        return timed

    def _calibrated(self) -> tuple[int, int]:
        """Return what a wrapper adds to its own function's time, and to that of the function that calls it."""

        def nothing(_: object) -> None:
            return None

        n = 50_000
        own, around = [], []
        for _ in range(7):
            timed = self.wrap("", nothing)
            self.ns[""] = 0
            plain_ns, timed_ns = _loop_ns(nothing, n), _loop_ns(timed, n)
            # What is inside is dearer than the plain call by the wrapper's own part; the rest is around it.
            own.append(max(0, self.ns[""] // n - plain_ns // n))
            around.append(max(0, (timed_ns - plain_ns) // n - own[-1]))
        self.ns.clear()
        self.calls.clear()
        return round(statistics.median(own)), round(statistics.median(around))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Wrap the stages' functions, and put them back afterwards."""
        saved = [(owner, name, getattr(owner, name)) for _, owner, names in STAGES for name in names]
        try:
            for stage, owner, names in STAGES:
                for name in names:
                    setattr(owner, name, self.wrap(stage, getattr(owner, name)))
            yield
        finally:
            for owner, name, function in saved:
                setattr(owner, name, function)


def _loop_ns(function: Callable[[object], object], n: int) -> int:
    begin = time.perf_counter_ns()
    for _ in range(n):
        function(None)
    return time.perf_counter_ns() - begin


class Collector:
    """Time spent in Python's cyclic garbage collector, which falls into whatever stage allocates."""

    def __init__(self) -> None:
        self.ns = 0
        self._begin = 0

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        """Take a start or an end of a collection."""
        now = time.perf_counter_ns()
        if phase == "start":
            self._begin = now
        else:
            self.ns += now - self._begin


class Segment(NamedTuple):
    """One stretch of the log through the engine: processor time, its share of the wall's, and what came out."""

    ns: int
    busy_ratio: float
    gc_ns: int
    chunks_ns: list[int]
    n_outputs: int
    n_output_bytes: int
    n_snapshot_bytes: int


class Bench:
    """One engine and its log."""

    def __init__(self, n_rooms: int, seed: int, rate: int) -> None:
        self.engine = Engine()
        self.log = Workload(n_rooms, seed, rate)
        self.collector = Collector()
        gc.callbacks.append(self.collector)
        self._snapshot_every = max(1, round(WorkerSettings().snapshot_interval_s * rate))
        self._unsaved = 0
        self.run(self.log.opening())

    def warm_up(self, n: int) -> None:
        """Let the log go on without timing."""
        while n > 0:
            self.run(self.log.take(min(n, 50_000)))
            n -= 50_000

    def run(self, records: list[Record]) -> Segment:
        """Process records as a worker does: chunk by chunk, each output encoded, snapshots at their interval."""
        clock, engine = time.process_time_ns, self.engine
        chunks, n_outputs, n_bytes, n_saved = [], 0, 0, 0
        gc.collect()
        gc_before, wall_begin, begin = self.collector.ns, time.perf_counter_ns(), clock()
        for at in range(0, len(records), CHUNK):
            chunk = records[at : at + CHUNK]
            chunk_begin = clock()
            for output in engine.process(chunk):
                n_outputs += 1
                n_bytes += len(output.json())
            chunks.append(clock() - chunk_begin)
            self._unsaved += len(chunk)
            if self._unsaved >= self._snapshot_every:
                self._unsaved -= self._snapshot_every
                n_saved += sum(len(state or b"") for state in engine.changed().values())
        ns = clock() - begin
        busy_ratio = min(1.0, ns / (time.perf_counter_ns() - wall_begin))
        gc_ns = round((self.collector.ns - gc_before) * busy_ratio)
        return Segment(ns, busy_ratio, gc_ns, chunks, n_outputs, n_bytes, n_saved)


def measure(n_rooms: int, n_events: int, *, seed: int, runs: int, rate: int, warm_up_s: int) -> dict[str, Any]:
    """Return the medians of `runs` segments of each kind as plain JSON values."""
    bench = Bench(n_rooms, seed, rate)
    bench.warm_up(warm_up_s * rate)
    whole: list[Segment] = []
    rival: list[int] = []
    staged: list[dict[str, float]] = []
    collected: list[float] = []
    calls: dict[str, int] = {}
    n_comments = 0
    for _ in range(runs):
        records = bench.log.take(n_events)
        rival.append(_decode_plainly(records))
        whole.append(bench.run(records))
        records = bench.log.take(n_events)
        n_comments += sum(b'"type":"comment"' in record[2][:20] for record in records)
        meter = Meter()
        with meter.watching():
            segment = bench.run(records)
        staged.append({stage: ns * segment.busy_ratio / n_events / 1_000 for stage, ns in meter.ns.items()})
        collected.append(segment.gc_ns / n_events / 1_000)
        for stage, n in meter.calls.items():
            calls[stage] = calls.get(stage, 0) + n
    median = statistics.median
    chunks = sorted(ns / 1e6 for segment in whole for ns in segment.chunks_ns)
    whole_us = median(segment.ns for segment in whole) / n_events / 1_000
    rival_us = median(rival) / n_events / 1_000
    n_staged = runs * n_events
    n_saved = [segment.n_snapshot_bytes for segment in whole if segment.n_snapshot_bytes]
    return {
        "rooms": n_rooms,
        "events": n_events,
        "seed": seed,
        "runs": runs,
        "rate": rate,
        "warm_up_s": warm_up_s,
        "event_bytes": round(sum(len(record[2]) for record in records) / n_events, 1),
        "stages_us": {stage: round(median(run[stage] for run in staged), 3) for stage in staged[0]},
        "sentiment_us_a_comment": round(median(run["sentiment"] for run in staged) * n_staged / max(1, n_comments), 3),
        "garbage_collection_us": round(median(collected), 3),
        "sum_us": round(sum(median(run[stage] for run in staged) for stage in staged[0]), 3),
        "whole_us": round(whole_us, 3),
        "whole_us_min_max": [round(f(s.ns for s in whole) / n_events / 1_000, 3) for f in (min, max)],
        "events_per_s": round(1e6 / whole_us),
        "chunk_ms_p50": round(chunks[len(chunks) // 2], 2),
        "chunk_ms_p99": round(chunks[len(chunks) * 99 // 100], 2),
        "orjson_us": round(rival_us, 3),
        "ratio_to_orjson": round(whole_us / rival_us, 1),
        "visits_per_event": round(calls[VISIT] / n_staged, 4),
        "emissions_per_event": round(calls[EMIT] / n_staged, 4),
        "output_bytes_per_event": round(sum(s.n_output_bytes for s in whole) / n_staged, 1),
        "snapshot_bytes_a_save": round(median(n_saved)) if n_saved else None,
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _decode_plainly(records: list[Record]) -> int:
    loads = orjson.loads
    begin = time.process_time_ns()
    for record in records:
        loads(record[2])
    return time.process_time_ns() - begin


def machine() -> dict[str, str]:
    """Return what the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a pseudo file without a size
            cpu = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), cpu)
    except OSError:
        pass
    names = ("msgspec", "orjson", "pydantic")
    return {"cpu": cpu, "python": platform.python_version()} | {name: version(name) for name in names}


def table(found: dict[str, Any]) -> str:
    """Return the result for people: a table of Markdown, and the figures beside it."""
    lines = ["| stage | µs an event | share |", "|---|---:|---:|"]
    for stage, us in found["stages_us"].items():
        lines.append(f"| {stage} | {us:.2f} | {us / found['sum_us']:.0%} |")
    lines.append(f"| sum of stages | {found['sum_us']:.2f} | |")
    lines.append(f"| **whole engine, unwatched** | **{found['whole_us']:.2f}** | |")
    lines.append(f"| `orjson.loads` of the same bytes | {found['orjson_us']:.2f} | |")
    rest = {
        name: value for name, value in found.items() if name not in ("stages_us", "sum_us", "whole_us", "orjson_us")
    }
    return "\n".join([*lines, "", *(f"{name}: {value}" for name, value in rest.items())])


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description="What an event costs, stage by stage.")
    parser.add_argument("--rooms", type=int, default=500)
    parser.add_argument("--events", type=int, default=50_000, help="a segment; twice --runs of them are made")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rate", type=int, default=DEFAULT_RATE, help="events a second of the log's own time")
    parser.add_argument("--warm-up-s", type=int, default=WARM_UP_S, help="seconds of the log before timing")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if min(given.rooms, given.events, given.runs, given.rate) < 1 or given.warm_up_s < 0:
        parser.error("--rooms, --events, --runs and --rate must be at least 1, --warm-up-s at least 0")
    found = measure(
        given.rooms, given.events, seed=given.seed, runs=given.runs, rate=given.rate, warm_up_s=given.warm_up_s
    )
    found["machine"] = machine()
    sys.stdout.write(orjson.dumps(found).decode() + "\n" if given.json else table(found) + "\n")


if __name__ == "__main__":
    main()
