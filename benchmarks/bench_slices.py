"""What signals by dimension cost: `python -m benchmarks.bench_slices [--events 60000] [--rooms 500]`.

The load of all benchmarks, each event with six fields more: a segment and a region of its user, a creative of its paid
channel, a product of orders and clicks, a host and a partner of its room. µs of processor time an event, outputs
included; bytes of signals an event; bytes of a room's snapshot without its orders. Runs go by turns, medians are told.
"""

from __future__ import annotations

import argparse
import statistics
import time
import zlib
from typing import Any, Final

import orjson

from benchmarks.workloads import Workload
from pipeline import Engine, Record
from pipeline.snapshot import dump_hot
from schemas import topics
from schemas.settings import Settings, SignalsSettings

CHUNK: Final = 2_000
CASES: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("segment",),
    ("segment", "region", "creative_id"),
    ("segment", "region", "creative_id", "product_id", "host_id", "partner_id"),
)


def sliced(record: Record) -> Record:
    """Return a record with what producers may say besides."""
    event: dict[str, Any] = orjson.loads(record[2])
    if event["type"] not in ("plan", "feed", "room"):
        who, where = zlib.crc32(str(event.get("user_id")).encode()), zlib.crc32(event["room_id"].encode())
        event |= {"host_id": f"host-{where % 3}", "partner_id": f"partner-{where % 2}"}
        if "user_id" in event:
            event |= {"segment": f"segment-{who % 5}", "region": f"region-{who // 5 % 30}"}
        if event.get("channel") in ("feed_ads", "search_ads"):
            event["creative_id"] = f"creative-{who // 150 % 6}"
        if event["type"] == "order" or event.get("action") in ("product_click", "add_to_cart"):
            event["product_id"] = f"product-{zlib.crc32(event['event_id'].encode()) % 12}"
    return record[0], record[1], orjson.dumps(event)


def run(log: list[Record], dimensions: tuple[str, ...]) -> tuple[float, float, float]:
    """Return (µs an event, bytes of signals an event, bytes of a room's hot state)."""
    engine = Engine(Settings(signals=SignalsSettings.model_validate({"dimensions": dimensions})))
    n_bytes, spent_s = 0, 0.0
    for begin in range(0, len(log), CHUNK):
        begun_s = time.process_time()
        outputs = [(out.topic, out.json()) for out in engine.process(log[begin : begin + CHUNK])]
        spent_s += time.process_time() - begun_s
        n_bytes += sum(len(value) for topic, value in outputs if topic == topics.ROOM_SIGNALS)
    engine.catch_up()
    rooms = list(engine._rooms.values())
    return spent_s / len(log) * 1e6, n_bytes / len(log), sum(len(dump_hot(room)) for room in rooms) / len(rooms)


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rooms", type=int, default=100)
    parser.add_argument("--rate", type=int, default=1_000, help="events a second of the log's own time")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    work = Workload(given.rooms, given.seed, given.rate)
    log = [sliced(record) for record in [*work.opening(), *work.take(given.events)]]
    found: dict[tuple[str, ...], list[tuple[float, float, float]]] = {case: [] for case in CASES}
    for _ in range(given.runs):
        for case in CASES:
            found[case].append(run(log, case))
    for case, runs in found.items():
        cost_us, n_bytes, hot = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{len(case)} dimensions: {cost_us:6.2f} µs an event, {n_bytes:6.0f} B of signals, {hot:7.0f} B a room")


if __name__ == "__main__":
    main()
