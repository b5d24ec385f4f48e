"""A producer that keeps a pace: events of `benchmarks.workloads` as they would come live, and probes among them.

`python -m benchmarks.pacing TASK` writes into `room.events` until its standard input is closed or the time is over. It
is a process of its own, so that it neither waits for whoever measures nor makes them wait. Events come from a pool made
beforehand, over and over, each time with an id and a moment of its own: making them costs ten times as much as sending.

A probe is a plan that runs out of budget: its room is visited on the next tick, which opens an anomaly, holds the plan
and tells the room's signals at once. So one event causes one message of each kind, and says so by its plan.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson
from confluent_kafka import Producer

from agents.kafka import partition_of
from benchmarks.workloads import HORIZON_MS, START_MS, Workload
from pipeline import Record
from schemas.topics import ROOM_EVENTS

HOT_ROOM: Final = "room-hot"
PROBE: Final = "probe"
"""Begins the id of a probe's plan."""
POOL_S: Final = 10.0
"""Seconds of the load in the pool: longer than the 5 s between a room's emissions, so that two do not look alike."""
MAX_POOL: Final = 300_000
ENOUGH: Final = 12
"""Events a room from which hardly one of 20,000 has none: e**-12 x 20,000 = 0.1."""
TURNS: Final = 4
SLICE_S: Final = 0.005
PROBE_OUT_S: Final = 8.0
"""How long a probe's plan stays out of budget: plans are looked at every 5 s, and must be seen to be back."""
FLUSH_S: Final = 30.0
_ID_DIGITS: Final = 12
_TS_DIGITS: Final = 13


class Load(NamedTuple):
    """What is written, and at which pace.

    `hot_share` of the events go to one more room. Of `probe_every_s` seconds each room is probed once; 0 is never.
    """

    bootstrap: str
    n_rooms: int
    n_partitions: int
    rate: int
    seconds: float
    seed: int
    hot_share: float = 0.0
    probe_every_s: float = 0.0
    opens: bool = True
    """Whether rooms are opened first; those of an earlier load are open."""
    is_even: bool = False
    """Whether rooms take turns: one event each, again and again, so that none is silent for long."""
    n_ended: int = 0
    """Rooms that are opened, used for a while and ended before the pace begins."""


class Template(NamedTuple):
    """An event without its id's number and its moment."""

    head: bytes
    middle: bytes
    tail: bytes
    key: bytes
    partition: int

    def at(self, number: int, now_ms: int) -> bytes:
        """Return the event with a number of its own, at a moment.

        >>> made = template((0, None, b'{"event_id":"vi-000000000001","ts":1767225600000,"a":1}', b"room-1"), 4)
        >>> made.at(7, 1767225600999)
        b'{"event_id":"vi-000000000007","ts":1767225600999,"a":1}'
        """
        return b"%b%012d%b%d%b" % (self.head, number, self.middle, now_ms, self.tail)


def template(record: Record, n_partitions: int) -> Template:
    """Return an event of the load to be sent again and again; what feeds vouch for counts from now."""
    key = record[3] or b""  # type: ignore[misc]  # a workload gives keys
    value = record[2].replace(b"%d" % (START_MS + HORIZON_MS), b"%d" % (time.time_ns() // 1_000_000 + HORIZON_MS))
    id_at = value.index(b'"event_id":"') + len(b'"event_id":"')
    number_at = value.index(b"-", id_at) + 1
    ts_at = value.index(b'"ts":', number_at) + len(b'"ts":')
    return Template(
        value[:number_at],
        value[number_at + _ID_DIGITS : ts_at],
        value[ts_at + _TS_DIGITS :],
        key,
        partition_of(key.decode(), n_partitions),
    )


def pool(load: Load) -> list[Template]:
    """Return the events that the load is made of, in order."""
    n_events = min(max(int(load.rate * POOL_S), ENOUGH * load.n_rooms if load.is_even else 2_000), MAX_POOL)
    n_hot = int(n_events * load.hot_share)
    usual = Workload(load.n_rooms, load.seed, load.rate).take(n_events - n_hot)
    hot = Workload(1, load.seed + 1, load.rate).take(n_hot)
    made = [template(record, load.n_partitions) for record in usual]
    if load.is_even:
        return _in_turns(made)
    if not hot:
        return made
    hot_made = [template(_renamed(record), load.n_partitions) for record in hot]
    step = n_events / n_hot
    places = {int(number * step) for number in range(n_hot)}
    sources = (iter(hot_made), iter(made))
    return [found for n in range(n_events) if (found := next(sources[n not in places], None)) is not None]


def _in_turns(events: list[Template]) -> list[Template]:
    """Return some events of each room, one of each after the other."""
    by_room: dict[bytes, list[Template]] = {}
    for event in events:
        by_room.setdefault(event.key, []).append(event)
    return [own[turn % len(own)] for turn in range(TURNS) for own in by_room.values()]


def _renamed(record: Record) -> Record:
    name = HOT_ROOM.encode()
    return record[0], record[1], record[2].replace(b"room-000000", name), name


def openings(load: Load) -> Iterator[Template]:
    """Yield what opens each room, and its probe's plan."""
    work = Workload(load.n_rooms, load.seed, load.rate)
    for record in work.opening():
        yield template(record, load.n_partitions)
    if load.hot_share:
        for record in Workload(1, load.seed, load.rate).opening():
            yield template(_renamed(record), load.n_partitions)
    if load.probe_every_s:
        for room in work.rooms:
            yield probe(room.name, load.n_partitions, is_out=False)


def lives(load: Load) -> Iterator[Template]:
    """Yield the lives of the rooms that ended: each is opened, has twenty events, and ends."""
    for begin in range(0, load.n_ended, 1_000):
        work = Workload(min(1_000, load.n_ended - begin), load.seed + begin + 1, load.rate)
        for room in work.rooms:
            room.name = f"former-{begin + int(room.name.rpartition('-')[2]):06d}"
        for record in (*work.opening(), *work.take(20 * len(work.rooms))):
            yield template(record, load.n_partitions)
        for room in work.rooms:
            event = {"type": "room", "event_id": f"en-{0:012d}", "room_id": room.name, "ts": START_MS, "action": "end"}
            yield template((0, None, orjson.dumps(event), room.name.encode()), load.n_partitions)


def probe(room: str, n_partitions: int, *, is_out: bool) -> Template:
    """Return what takes a room's probe out of budget, or puts it back."""
    event = {
        "type": "plan",
        "event_id": f"{PROBE}-{0:012d}",
        "room_id": room,
        "ts": START_MS,
        "plan_id": f"{PROBE}-{room}",
        "channel": "feed_ads",
        "status": "budget_out" if is_out else "delivering",
        "bid_kind": "cost_per_action",
        "bid_minor": 3_000,
        "changed_by": "platform",
    }
    return template((0, None, orjson.dumps(event), room.encode()), n_partitions)


class Pacer:
    """Sends a load at its pace and notes when each probe went out."""

    def __init__(self, load: Load) -> None:
        self._load, self._n_sent = load, 0
        self._number = time.time_ns() // 1_000_000 % 10**10 * 100
        """Of the next event: no earlier load's, since each counts on from its own begin."""
        self.n_failed = 0
        self._producer = Producer(
            {
                "bootstrap.servers": load.bootstrap,
                "linger.ms": 5,
                "batch.num.messages": 10_000,
                "queue.buffering.max.messages": 500_000,
                "log_level": 0,
            }
        )

    def _told(self, error: Any, _message: Any) -> None:
        self.n_failed += error is not None

    def send(self, event: Template, now_ms: int) -> None:
        """Queue an event for Kafka."""
        self._number += 1
        value = event.at(self._number % 10**_ID_DIGITS, now_ms)
        while True:
            try:
                self._producer.produce(ROOM_EVENTS, value, event.key, event.partition, on_delivery=self._told)
            except BufferError:  # the queue is full: let some go
                self._producer.poll(0.05)
            else:
                return

    def flush(self) -> None:
        """Wait until all of it is in Kafka."""
        self.n_failed += self._producer.flush(FLUSH_S)

    def run(self, events: list[Template], is_over: threading.Event) -> dict[str, Any]:
        """Send events at the load's pace until the time is over; return how it went."""
        load, n_pool, place, n_sent, behind_s = self._load, len(events), 0, 0, 0.0
        probes = list(_probes(load))
        due_probe = 0
        begun_s = time.monotonic()
        while (at_s := time.monotonic() - begun_s) < load.seconds and not is_over.is_set():
            now_ms = time.time_ns() // 1_000_000
            n_due = int(at_s * load.rate)
            behind_s = max(behind_s, (n_due - n_sent) / load.rate)
            n_due = min(n_due, n_sent + max(1, load.rate // 20))  # what fell behind is caught up in small steps
            for _ in range(n_sent, n_due):
                self.send(events[place], now_ms)
                place = place + 1 if place + 1 < n_pool else 0
            n_sent = n_due
            while due_probe < len(probes) and probes[due_probe][0] <= at_s:
                _, room, is_out = probes[due_probe]
                due_probe += 1
                sent_ns = time.time_ns()
                self.send(probe(room, load.n_partitions, is_out=is_out), sent_ns // 1_000_000)
                if is_out:
                    tell({"what": "probe", "room": room, "sent_ms": sent_ns / 1e6})
            self._producer.poll(0)
            time.sleep(max(0.0, SLICE_S - (time.monotonic() - begun_s - at_s)))
        return {"n_sent": n_sent, "behind_s": round(behind_s, 3), "took_s": round(time.monotonic() - begun_s, 3)}


def _probes(load: Load) -> Iterator[tuple[float, str, bool]]:
    """Yield when which room's probe is put out, and back: rooms take turns, evenly over `probe_every_s`."""
    if not load.probe_every_s:
        return
    found = []
    for number in range(load.n_rooms):
        at_s = load.probe_every_s * number / load.n_rooms
        while at_s < load.seconds:
            found += [(at_s, f"room-{number:06d}", True), (at_s + PROBE_OUT_S, f"room-{number:06d}", False)]
            at_s += load.probe_every_s
    yield from sorted(found)


def tell(fact: dict[str, Any]) -> None:
    """Write one line for whoever started this process."""
    sys.stdout.write(orjson.dumps(fact).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the task on the command line."""
    load = Load(**orjson.loads(sys.argv[1]))
    events = pool(load)
    pacer, is_over = Pacer(load), threading.Event()

    def listen() -> None:
        sys.stdin.read()  # until it is closed, or its owner is gone
        is_over.set()

    threading.Thread(target=listen, daemon=True).start()
    for source in (lives(load), openings(load) if load.opens else ()):
        for event in source:
            pacer.send(event, time.time_ns() // 1_000_000)
    pacer.flush()
    tell({"what": "open"})
    found = pacer.run(events, is_over)
    pacer.flush()
    tell({"what": "done", "n_failed": pacer.n_failed, **found})


if __name__ == "__main__":
    main()
