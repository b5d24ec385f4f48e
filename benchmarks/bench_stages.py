"""What an event costs, stage by stage: `python -m benchmarks.bench_stages --rooms 500 --events 50000`.

Method: one real engine reads one seeded log. After a warm-up that fills the minute's windows the log goes on in
segments, by turns (1) as it is, timed as a whole, and (2) with the engine's own functions wrapped from outside. A
wrapper takes the time a call spends outside other wrapped calls, so every moment belongs to one stage; what the
wrappers cost is measured and taken off by the number of calls. Each number is the median over the segments of its
kind. A stage is what the engine really calls with what it really calls it with: nothing is rebuilt.

All of it is processor time: whole segments and chunks are timed by the process's own clock; the stages, whose calls are
too short for that clock, are scaled by the share of their segment in which the process had the processor. So neighbours
on the machine cost caches, not waiting.

The rival of the same run is `orjson.loads` over the same bytes: what any Python program pays to look at the events.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from agents.shard import Pace
from benchmarks.workloads import DEFAULT_RATE, Workload
from pipeline import Engine, Record
from pipeline import engine as engine_module
from pipeline.admission import Admission
from pipeline.commands import Commander
from pipeline.emit import View
from pipeline.identity import Identities, Tokens
from pipeline.judge import Judge
from pipeline.operations import Operations
from pipeline.output import Output
from pipeline.room import RoomState
from pipeline.sentiment import SentimentModel
from pipeline.visits import Visits
from schemas.settings import WorkerSettings

CHUNK: Final = 2_000
"""Records a call of `process`, as a worker's consumer hands them over."""
WARM_UP_S: Final = 65
"""Seconds of the log before anything is timed: a full minute of base buckets, and some to expire."""

STAGES: Final[tuple[tuple[str, Any, tuple[str, ...]], ...]] = (
    ("decode", engine_module, ("decode_one",)),
    ("identity", Identities, ("event", "fingerprint")),
    ("identity", Tokens, ("__getitem__",)),
    ("dedup", Admission, ("is_known", "remember")),
    ("sentiment", SentimentModel, ("read",)),
    ("apply", engine_module, ("apply", "catch_up")),
    ("evaluation: fold", RoomState, ("fold",)),
    ("evaluation: judge", Judge, ("__init__", "run")),
    ("evaluation: bid", Commander, ("run",)),
    ("evaluation: view", View, ("__init__",)),
    ("evaluation: visit", Visits, ("visit",)),
    ("outputs: signals", Visits, ("emit",)),
    ("outputs: commands", Operations, ("commands",)),
    ("outputs: encode", Output, ("json",)),
    ("snapshots", Engine, ("save",)),
    ("loop", Engine, ("process",)),
)
"""Stage, where the functions live, and which; a function's own time ends where another wrapped one begins."""


class Meter:
    """Own time of every stage, how often it was called, and how many wrapped calls it made itself."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.made: dict[str, int] = {}
        self._stack: list[list[int]] = []

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, timed under `stage`."""
        ns, calls, made, stack, clock = self.ns, self.calls, self.made, self._stack, time.perf_counter_ns
        for counter in (ns, calls, made):
            counter.setdefault(stage, 0)

        def timed(*args: Any, **kwargs: Any) -> Any:
            inner = [0, 0]  # time and number of the wrapped calls made from here
            stack.append(inner)
            begin = clock()
            result = function(*args, **kwargs)
            took = clock() - begin
            stack.pop()
            ns[stage] += took - inner[0]
            made[stage] += inner[1]
            calls[stage] += 1
            if stack:
                outer = stack[-1]
                outer[0] += took
                outer[1] += 1
            return result

        return timed

    def own_ns(self, inside_ns: float, around_ns: float) -> dict[str, float]:
        """Return the stages' own times without what the wrappers cost, a call, inside and around what they time."""
        return {
            stage: max(0.0, ns - self.calls[stage] * inside_ns - self.made[stage] * around_ns)
            for stage, ns in self.ns.items()
        }

    @contextlib.contextmanager
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


def wrapper_ns() -> tuple[float, float]:
    """Return what a wrapper adds inside the time it measures and around it, on an empty function in a warm cache."""

    def nothing(_: object) -> None:
        return None

    n = 50_000
    inside, around = [], []
    for _ in range(7):
        meter = Meter()
        timed = meter.wrap("", nothing)
        plain, whole = _loop_ns(nothing, n) / n, _loop_ns(timed, n) / n
        inside.append(max(0.0, meter.ns[""] / n - plain))
        around.append(max(0.0, whole - plain - inside[-1]))
    return statistics.median(inside), statistics.median(around)


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
        worker = WorkerSettings()
        self._rate = rate
        self._pace = Pace(worker.snapshot_interval_s, worker.snapshot_max_interval_s)
        self._epoch_s, self._n_taken, self._n_saved = self._pace.shortest_s, 0, 0
        self._n_input_bytes = self._n_written_bytes = 0
        self._rooms: tuple[str, ...] = ()
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
            n_saved += self._save(chunk)
        ns = clock() - begin
        busy_ratio = min(1.0, ns / (time.perf_counter_ns() - wall_begin))
        gc_ns = round((self.collector.ns - gc_before) * busy_ratio)
        return Segment(ns, busy_ratio, gc_ns, chunks, n_outputs, n_bytes, n_saved)

    def _save(self, chunk: list[Record]) -> int:
        """Save the rooms whose turn it is, evenly over an epoch as a worker does; return how many bytes they took."""
        length = max(1, round(self._epoch_s * self._rate))
        self._n_taken += len(chunk)
        self._n_input_bytes += sum(len(record[2]) for record in chunk)
        n_due = len(self._rooms) * min(self._n_taken, length) // length
        n_bytes = 0
        for room_id in self._rooms[self._n_saved : n_due]:
            n_bytes += sum(len(state) for _, state in self.engine.save(room_id).parts)
        self._n_saved = n_due
        self._n_written_bytes += n_bytes
        if self._n_taken >= length:
            self._epoch_s = self._pace.next_s(
                self._epoch_s, n_input_bytes=self._n_input_bytes, n_written_bytes=self._n_written_bytes
            )
            self._n_taken = self._n_saved = self._n_input_bytes = self._n_written_bytes = 0
            self._rooms = self.engine.checkpoint().rooms
        return n_bytes


def measure(n_rooms: int, n_events: int, *, seed: int, runs: int, rate: int, warm_up_s: int) -> dict[str, Any]:
    """Return the medians of `runs` segments of each kind as plain JSON values."""
    bench = Bench(n_rooms, seed, rate)
    bench.warm_up(warm_up_s * rate)
    whole: list[Segment] = []
    watched: list[tuple[Segment, Meter]] = []
    rival: list[int] = []
    n_comments = 0
    for _ in range(runs):
        records = bench.log.take(n_events)
        rival.append(_decode_plainly(records))
        whole.append(bench.run(records))
        records = bench.log.take(n_events)
        n_comments += sum(b'"type":"comment"' in record[2][:20] for record in records)
        meter = Meter()
        with meter.watching():
            watched.append((bench.run(records), meter))
    median = statistics.median
    chunks = sorted(ns / 1e6 for segment in whole for ns in segment.chunks_ns)
    whole_us = median(segment.ns for segment in whole) / n_events / 1_000
    rival_us = median(rival) / n_events / 1_000
    stages_us, call_ns = _stages_us(watched, whole_us, n_events)
    n_staged = runs * n_events
    calls = {stage: sum(meter.calls[stage] for _, meter in watched) for stage in stages_us}
    return {
        "rooms": n_rooms,
        "events": n_events,
        "seed": seed,
        "runs": runs,
        "rate": rate,
        "warm_up_s": warm_up_s,
        "event_bytes": round(sum(len(record[2]) for record in records) / n_events, 1),
        "stages_us": stages_us,
        "sum_us": round(sum(stages_us.values()), 3),
        "whole_us": round(whole_us, 3),
        "whole_us_min_max": [round(pick(s.ns for s in whole) / n_events / 1_000, 3) for pick in (min, max)],
        "events_per_s": round(1e6 / whole_us),
        "chunk_ms_p50": round(chunks[len(chunks) // 2], 2),
        "chunk_ms_p99": round(chunks[len(chunks) * 99 // 100], 2),
        "orjson_us": round(rival_us, 3),
        "ratio_to_orjson": round(whole_us / rival_us, 1),
        "sentiment_us_a_comment": round(stages_us["sentiment"] * n_staged / max(1, n_comments), 3),
        "garbage_collection_us": round(median(segment.gc_ns for segment in whole) / n_events / 1_000, 3),
        "output_bytes_per_event": round(sum(s.n_output_bytes for s in whole) / n_staged, 1),
        "snapshot_bytes_per_event": round(sum(s.n_snapshot_bytes for s in whole) / n_staged, 1),
        "calls_per_event": {stage: round(n / n_staged, 4) for stage, n in calls.items()},
        "wrapper_ns_a_call": round(call_ns),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _stages_us(watched: list[tuple[Segment, Meter]], whole_us: float, n_events: int) -> tuple[dict[str, float], float]:
    """Return each stage's own time an event, and what one wrapped call was taken to cost, in ns.

    In a real engine a wrapper costs more than in a loop that does nothing else: what the watched segments took longer
    than the others, a call, is that cost, at least the loop's and at most twice it.
    """
    inside, around = wrapper_ns()
    n_calls = statistics.median(sum(meter.calls.values()) for _, meter in watched)
    longer_ns = statistics.median(segment.ns for segment, _ in watched) - whole_us * n_events * 1_000
    times = min(2.0, max(1.0, longer_ns / n_calls / (inside + around)))
    own = [
        {stage: ns * segment.busy_ratio for stage, ns in meter.own_ns(inside * times, around * times).items()}
        for segment, meter in watched
    ]
    stages = {stage: round(statistics.median(run[stage] for run in own) / n_events / 1_000, 3) for stage in own[0]}
    return stages, (inside + around) * times


def _decode_plainly(records: list[Record]) -> int:
    loads = orjson.loads
    begin = time.process_time_ns()
    for record in records:
        loads(record[2])
    return time.process_time_ns() - begin


def machine() -> dict[str, str]:
    """Return what the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # not every system has it
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    names = ("msgspec", "orjson", "pydantic")
    return {"cpu": cpu, "python": platform.python_version()} | {name: version(name) for name in names}


def table(found: dict[str, Any]) -> str:
    """Return the result for people: a table of Markdown, and the figures beside it."""
    lines = ["| stage | µs an event | share | calls an event |", "|---|---:|---:|---:|"]
    stages, calls = found["stages_us"], found["calls_per_event"]
    for stage, us in stages.items():
        lines.append(f"| {stage} | {us:.2f} | {us / found['sum_us']:.0%} | {calls[stage]:.3f} |")
    lines.append(f"| sum of stages | {found['sum_us']:.2f} | | |")
    lines.append(f"| **whole engine, unwatched** | **{found['whole_us']:.2f}** | | |")
    lines.append(f"| `orjson.loads` of the same bytes | {found['orjson_us']:.2f} | | |")
    told = ("stages_us", "calls_per_event", "sum_us", "whole_us", "orjson_us")
    rest = {name: value for name, value in found.items() if name not in told}
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
