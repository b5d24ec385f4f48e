"""Resident memory a room: on air, at the end of a long show, once it is over, and once it is let go of.

    python -m benchmarks.bench_memory --rooms 1000 --minutes 20
    python -m benchmarks.bench_memory --rooms 100 --minutes 1440 --json

The load is that of `workloads.py`, made by a process of its own, so that what is measured holds the engine alone. Each
room has `--rate` events a second. After `--minutes` of the log's time every room ends; two hours later (every window
has run out) and four days later (the rooms are let go of) the memory is read again. Memory given back to Python's
allocator and not to the system counts as used: `peak` says what the machine must have.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.workloads import START_MS, Workload
from pipeline import Engine, Record
from schemas.settings import Settings

CHUNK: Final = 2_000
HOUR_MS: Final = 3_600_000
PAGE: Final = resource.getpagesize()
MIB: Final = 1 << 20


def resident() -> int:
    """Return the bytes of this process that lie in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def _write(out: Any, n_rooms: int, rate: int, n_events: int, seed: int) -> None:
    workload = Workload(n_rooms, seed, rate)
    out.put(workload.opening())
    for begin in range(0, n_events, CHUNK):
        out.put(workload.take(min(CHUNK, n_events - begin)))
    out.put(None)


def load(n_rooms: int, rate: int, n_events: int, seed: int) -> Iterator[list[Record]]:
    """Yield a log chunk by chunk, made by another process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(4)
    maker = context.Process(target=_write, args=(queue, n_rooms, rate, n_events, seed))
    maker.start()
    try:
        while (chunk := queue.get()) is not None:
            yield chunk
    finally:
        maker.terminate()
        maker.join()


def silence(since_ms: int, until_ms: int, offset: int) -> Iterator[Record]:
    """Yield ticks, one a minute: nothing else happens."""
    for number, now_ms in enumerate(range(since_ms, until_ms, 60_000)):
        tick = {"type": "tick", "event_id": f"t-{now_ms}", "room_id": "*", "ts": now_ms}
        yield offset + number, now_ms, orjson.dumps(tick)


def endings(n_rooms: int, now_ms: int, offset: int) -> Iterator[Record]:
    """Yield every room's `end`."""
    for number in range(n_rooms):
        room_id = f"room-{number:06d}"
        end = {"type": "room", "event_id": f"end-{room_id}", "room_id": room_id, "ts": now_ms, "action": "end"}
        yield offset + number, now_ms, orjson.dumps(end)


def measure(n_rooms: int, *, rate: float, minutes: float, seed: int) -> dict[str, Any]:
    """Return bytes a room by phase, and what else was seen."""
    engine = Engine(Settings(trust_log=True))
    whole_rate = max(1, round(rate * n_rooms))
    n_events = round(minutes * 60 * whole_rate)
    before = resident()
    found: dict[str, Any] = {"n_rooms": n_rooms, "rate_per_room": whole_rate / n_rooms, "minutes": minutes}
    last: Record = (0, START_MS, b"")
    for chunk in load(n_rooms, whole_rate, n_events, seed):
        engine.process(chunk)
        last = chunk[-1]
    offset, now_ms = last[0], int(last[1] or 0)
    found["n_events"] = engine.counters.n_events
    found["on_air"] = (resident() - before) // n_rooms
    saved = engine.snapshot()
    found["snapshot"] = sum(map(len, saved.values())) // n_rooms
    del saved
    for ending in endings(n_rooms, now_ms, offset + 1):
        engine.process([ending])
    phases = (("over", now_ms + 2 * HOUR_MS), ("gone", now_ms + 96 * HOUR_MS))
    for name, until_ms in phases:
        for tick in silence(now_ms + 60_000, until_ms, offset + n_rooms + 1 + now_ms // 60_000):
            engine.process([tick])  # one at a time: nobody keeps what it gives
        now_ms = until_ms
        found[name] = (resident() - before) // n_rooms
        found[f"n_rooms_{name}"] = engine.n_rooms
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MIB
    return found


def main() -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rooms", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=0.5, help="events a second of each room")
    parser.add_argument("--minutes", type=float, default=20.0, help="of show, in the log's time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = measure(chosen.rooms, rate=chosen.rate, minutes=chosen.minutes, seed=chosen.seed)
    if chosen.json:
        sys.stdout.write(orjson.dumps(found).decode() + "\n")
        return
    for name in ("on_air", "snapshot", "over", "gone"):
        sys.stdout.write(f"{name:>10}: {found[name] / 1024:8.1f} KiB a room\n")
    sys.stdout.write(f"{'peak':>10}: {found['peak_mib']:,} MiB; {found['n_events']:,} events\n")


if __name__ == "__main__":
    main()
