"""What an event of a hot room costs when it is looked at and when it is shed: `python -m benchmarks.bench_shedding`.

One room, one engine; µs of processor time an event, outputs included, snapshots not. Comments have texts of their own,
which is the dearest kind: no answer is remembered. The quota is the engine's setting: so large that nothing is shed, or
so small that everything is. `mixture` is the load of all benchmarks on one room at four times its quota of 5,000/s.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import timeit
from typing import Final

import orjson

from benchmarks.workloads import START_MS, Workload
from pipeline import Engine, Record
from schemas.settings import EngineSettings, Settings

RATE: Final = 20_000
CHUNK: Final = 2_000
NEVER, ALWAYS, USUAL = 1_000_000, 2, 5_000
"""Quotas, events a second."""
CHARACTERS: Final = "太差质量好看买了喜欢主播价格便宜贵物流快慢"


def of_one_kind(kind: str, n: int, seed: int) -> list[Record]:
    """Return a room's log of nothing but comments or heartbeats."""
    rng, log = random.Random(seed), list[Record]()
    for number in range(n):
        ts = START_MS + number * 1_000 // RATE
        who = {"user_id": f"u-{rng.randrange(30_000)}", "device_id": f"d-{rng.randrange(30_000)}", "ip": "10.1.2.3"}
        own: dict[str, str] = {"action": "heartbeat", "session_id": "s"}
        if kind == "comment":
            own = {"text": "".join(rng.choices(CHARACTERS, k=14))}
        event = {"type": kind, "event_id": f"e-{number}", "room_id": "hot", "ts": ts, "channel": "feed", **who, **own}
        log.append((number, ts, orjson.dumps(event), b"hot"))
    return log


def cost_us(log: list[Record], per_s: int) -> float:
    """Return processor time an event."""
    engine = Engine(Settings(engine=EngineSettings(room_events_per_s=per_s)))
    begun_s = time.process_time()
    for begin in range(0, len(log), CHUNK):
        engine.process(log[begin : begin + CHUNK])
    return (time.process_time() - begun_s) / len(log) * 1e6


def main() -> None:
    """Print a line a load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3, help="by turns; medians are told")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    work = Workload(1, given.seed, RATE)
    loads = {
        "comment": (of_one_kind("comment", given.events, given.seed), ALWAYS),
        "heartbeat": (of_one_kind("view", given.events, given.seed), ALWAYS),
        "mixture": ([*work.opening(), *work.take(given.events)], USUAL),
    }
    for name, (log, quota) in loads.items():
        runs = [(cost_us(log, NEVER), cost_us(log, quota)) for _ in range(given.runs)]
        looked_at, shed = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{name}: {looked_at:.1f} us looked at, {shed:.1f} us with a quota of {quota:,}/s")
    room = Engine()._blank_room("room")
    room.granted_to = 1 << 40
    asked, n = "room.n_events >= room.granted_to", 2_000_000
    timer = timeit.Timer(asked, globals={"room": room}, timer=time.process_time)
    print(f"asking a room below its quota: {min(timer.repeat(5, n)) / n * 1e9:.0f} ns")


if __name__ == "__main__":
    main()
