"""`roompulse bench --job backlog`: a log that nobody read for an hour, worked off by a worker that starts now.

The log is as a worker leaves it that dies: its policy, by which rooms bid on their own, its last tick; then producers
go on alone. Two questions: at which multiple of real time the hour is worked off, and whether anything that comes out
of it could still move a bid. A controller acts on what is not over by its own clock; beyond that rule a command whose
time has passed when it is written should say `suppressed`.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import Producer

from agents.bridge import policy_record
from agents.clock import tick
from agents.kafka import partition_of
from benchmarks.field import PARTITIONS
from benchmarks.live import Deployment, Seen, TimeRunFailedError, Watcher, await_true
from benchmarks.rivals.engines import CONTROL_KEY
from benchmarks.workloads import HORIZON_MS, START_MS, Workload
from schemas.base import EVERY_ROOM
from schemas.settings import BiddingSettings, Policy, RoiSettings
from schemas.topics import BID_COMMANDS, ROOM_EVENTS, ROOM_EVENTS_DLQ

FLUSH_S: Final = 120.0
WORK_S: Final = 600.0
"""How long the log may take to be worked off."""
OPENING_S: Final = 10
"""After so long without ticks the rooms open, and nobody is there any more."""
POLICY: Final = Policy(
    # A pace at which a short log holds many commands that would move a bid; the rules are the product's own.
    bidding=BiddingSettings(
        mode="auto", cooldown_up_s=10, cooldown_down_s=10, hourly_ratio=1.0, max_per_session=10_000, min_orders=2,
        min_spend_minor=1, min_maturity=0.01, absurd_order_factor=1_000,
    ),
    roi=RoiSettings(conversion_delay_s=1, maturity_floor=0.01, min_orders=2),
)  # fmt: skip

Tell = Callable[[str], object]


class Plan(NamedTuple):
    """What to measure: a log of `span_s` seconds at `rate` events a second."""

    n_rooms: int
    rate: int
    span_s: int
    seed: int


class Command(NamedTuple):
    """What matters of a command here."""

    action: str
    status: str
    mode: str
    is_over: bool
    """Its time had passed when the broker had it."""


class End(NamedTuple):
    """A partition's last record of the log was applied."""

    partition: int
    read_ms: float


def kept(seen: Seen) -> Command | End | None:
    """Return what is counted of a message."""
    message = seen.message
    if seen.topic == ROOM_EVENTS_DLQ:
        return End(seen.partition, seen.read_ms)
    if seen.topic == BID_COMMANDS and message["action"] != "heartbeat":
        return Command(message["action"], message["status"], message["mode"], seen.written_ms >= message["expires_ts"])
    return None


def records(plan: Plan, begin_ms: int) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Yield partition, stamp, key and value of the whole log, in order of time."""
    star, version = EVERY_ROOM.encode(), {"engine": 0, "policy": POLICY.version()}
    for partition in range(PARTITIONS):
        policy = policy_record(POLICY, version, partition, key=CONTROL_KEY.encode(), start_ts=begin_ms, ts=begin_ms)
        yield partition, begin_ms, star, policy
        yield partition, begin_ms, star, tick(partition, begin_ms, POLICY.engine.tick_ms)
    begin_ms += OPENING_S * 1_000
    work, places = Workload(plan.n_rooms, plan.seed, plan.rate), dict[bytes, int]()
    vouched = b"%d" % (START_MS + HORIZON_MS), b"%d" % (begin_ms + HORIZON_MS)

    def moved(found: Any) -> tuple[int, int, bytes, bytes]:
        stamp = found[1] - START_MS + begin_ms
        value = found[2].replace(*vouched).replace(b'"ts":%d' % found[1], b'"ts":%d' % stamp)
        if (place := places.get(found[3])) is None:
            place = places[found[3]] = partition_of(found[3].decode(), PARTITIONS)
        return place, stamp, found[3], value

    yield from map(moved, work.opening())
    for _ in range(plan.span_s):
        yield from map(moved, work.take(plan.rate))
    for partition in range(PARTITIONS):  # refused with a word: that is how the end shows
        yield partition, begin_ms + (plan.span_s + 1) * 1_000, star, b"the end"


def _fill(plan: Plan, bootstrap: str, begin_ms: int) -> int:
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 100, "queue.buffering.max.messages": 500_000, "log_level": 0}
    )
    n_records, failed = 0, list[str]()

    def told(error: Any, _message: Any) -> None:
        if error is not None:
            failed.append(str(error))

    for partition, stamp, key, value in records(plan, begin_ms):
        n_records += 1
        while True:
            try:
                producer.produce(ROOM_EVENTS, value, key, partition, timestamp=stamp, on_delivery=told)
            except BufferError:
                producer.poll(0.1)
            else:
                break
        producer.poll(0)
    if producer.flush(FLUSH_S) or failed:
        msg = f"the log must reach the broker, got {failed[0] if failed else 'no answer'}"
        raise TimeRunFailedError(msg)
    return n_records


def measure(plan: Plan, bootstrap: str, tell: Tell, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run the job and return its numbers.

    Raises
    ------
    ProgramError
        The broker is not one for benchmarks, or the worker did not come to the log's end.
    """
    with (
        tempfile.TemporaryDirectory(prefix="roompulse-time-") as name,
        Deployment(bootstrap, Path(name), settings) as made,
    ):
        made.field.make([ROOM_EVENTS])  # with the stamps it is given, however old
        made.make_topics()
        begin_ms = time.time_ns() // 1_000_000 - (plan.span_s + 2 * OPENING_S) * 1_000
        tell(f"writing {plan.span_s:,} s of {plan.n_rooms:,} rooms at {plan.rate:,} events/s")
        n_records = _fill(plan, bootstrap, begin_ms)
        tell("a worker starts")
        with Watcher(bootstrap, kept, embedded=made.field.embedded) as watcher:
            worker = made.start_worker()
            ready_ms = worker.await_ready()
            await_true(
                lambda: len({one.partition for one in watcher.seen if isinstance(one, End)}) == PARTITIONS,
                WORK_S,
                "the log's end",
            )
            worker.end()
        end_ms = max(one.read_ms for one in watcher.seen if isinstance(one, End))
        work_s = max((end_ms - ready_ms) / 1_000, 0.001)
        commands = [one for one in watcher.seen if isinstance(one, Command)]
    return {
        **plan._asdict(),
        "n_partitions": PARTITIONS,
        "n_records": n_records,
        "start_s": round((ready_ms - worker.started_ms) / 1_000, 2),
        "work_s": round(work_s, 2),
        "events_per_s": round(n_records / work_s),
        "times_real_time": round(plan.span_s / work_s, 1),
        **_judged(commands),
        "aims": {"n_actionable_stale": {"is": _judged(commands)["n_actionable_stale"], "aim": 0}},
    }


def _judged(commands: list[Command]) -> dict[str, Any]:
    """Return how many commands came out, how many too late, and how many of these do not say so.

    `n_actionable_stale` are those that a controller would carry out if it looked at anything but their expiry.
    """
    stale = [one for one in commands if one.is_over]
    actionable = [
        one
        for one in stale
        if one.action != "hold" and ((one.mode == "auto" and one.status == "issued") or one.status == "approved")
    ]
    return {
        "n_commands": dict(sorted(Counter(f"{one.action} {one.status}" for one in commands).items())),
        "n_stale": len(stale),
        "n_stale_not_suppressed": sum(one.status != "suppressed" for one in stale),
        "n_actionable_stale": len(actionable),
    }
