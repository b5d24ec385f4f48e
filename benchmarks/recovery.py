"""`roompulse bench --job recovery`: a worker is killed under load; how long until every room is heard of again.

Two workers share the partitions of many rooms on air; before them a day's rooms came and went, whose remains are in the
changelog. One worker gets SIGKILL. For each room of its partitions the time is taken from the kill to the first signals
message, read from its topic, about a moment after the kill: detection, rebalance, reading the snapshots, working off
what was written meanwhile, and the wait for the room's turn to emit are all in it. How long rooms are silent without a
kill is measured before, and the worker's own words say when the partitions were back.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from agents.kafka import partition_of
from benchmarks.field import PARTITIONS
from benchmarks.live import (
    START_S,
    Deployment,
    Seen,
    TimeRunFailedError,
    Watcher,
    Worker,
    await_true,
    percentiles,
)
from benchmarks.pacing import Load
from schemas.topics import ROOM_SIGNALS

OPEN_S: Final = 900.0
"""How long the rooms may take to be opened, and all that ended before to be worked off."""
RECOVERY_S: Final = 180.0
"""A room that is silent for longer after the kill never came back."""
AIM_S: Final = 20.0
AIM_STANDBY_S: Final = 10.0

Tell = Callable[[str], object]


class Plan(NamedTuple):
    """What to measure: `n_rooms` on air at `rate` events a second in all, after `n_ended` that are over.

    `seconds` pass under load before the kill: some of it is a warm-up, the snapshots' epoch is up to 60 s.
    """

    n_rooms: int
    n_ended: int
    rate: int
    seconds: float
    seed: int
    n_standbys: int = 0


class Told(NamedTuple):
    """Signals of a room: about which moment, and when they were read."""

    room: str
    ts: int
    read_ms: float


def kept(seen: Seen) -> Told | None:
    """Return what is looked at of a message."""
    if seen.topic != ROOM_SIGNALS or not seen.message["room_id"].startswith("room-"):
        return None
    return Told(seen.message["room_id"], seen.ts, seen.read_ms)


def measure(plan: Plan, bootstrap: str, tell: Tell, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run the job and return seconds.

    Raises
    ------
    ProgramError
        The broker is not one for benchmarks, or a room never came back.
    """
    given = {"ROOMPULSE_WORKER__STANDBY_REPLICAS": str(plan.n_standbys), **(settings or {})}
    with (
        tempfile.TemporaryDirectory(prefix="roompulse-time-") as name,
        Deployment(bootstrap, Path(name), given) as made,
    ):
        made.make_topics()
        workers = made.start_worker(), made.start_worker()
        await_true(lambda: sum(len(one.partitions()) for one in workers) == PARTITIONS, START_S, "both workers' share")
        await_true(lambda: all(one.partitions() for one in workers), START_S, "both workers' share")
        load = Load(
            bootstrap, plan.n_rooms, PARTITIONS, plan.rate, plan.seconds + OPEN_S + RECOVERY_S, plan.seed,
            is_even=True, n_ended=plan.n_ended,
        )  # fmt: skip
        with Watcher(bootstrap, kept, embedded=made.field.embedded) as watcher:
            tell(f"{plan.n_ended:,} rooms come and go, {plan.n_rooms:,} open")
            pacing = made.pace(load)
            pacing.await_open(OPEN_S)
            rooms = {f"room-{number:06d}" for number in range(plan.n_rooms)}
            await_true(lambda: _is_up_to_date(watcher.seen), OPEN_S, "the rooms' signals, up to date")
            tell(f"{plan.seconds:g} s of load")
            time.sleep(plan.seconds)
            await_true(lambda: all(one.partitions() for one in workers), START_S, "both workers' share")
            victim, survivor = workers
            lost = victim.partitions()
            affected = {room for room in rooms if partition_of(room, PARTITIONS) in lost}
            n_readies = len(survivor.readies())
            usual = _longest_silence(watcher.seen, affected)
            tell(f"SIGKILL to the owner of {len(affected):,} rooms")
            killed_ms = time.time_ns() / 1e6
            victim.end(signal.SIGKILL)
            ready_ms = survivor.await_ready(n_readies)
            back = _Back(watcher, rooms, killed_ms)
            await_true(back.is_complete, RECOVERY_S, f"signals of every room, {plan.n_rooms:,}")
            done = pacing.end()
        said = _words(survivor, killed_ms)
        survivor.end()
    whole = percentiles([back.at_ms[room] - killed_ms for room in affected])
    others = percentiles([back.at_ms[room] - killed_ms for room in rooms - affected])
    largest = max(back.at_ms.values()) - killed_ms
    aim_s = AIM_STANDBY_S if plan.n_standbys else AIM_S
    return {
        **plan._asdict(),
        "n_partitions": PARTITIONS,
        "n_affected": len(affected),
        "load": done,
        "usual_silence_s": round(usual / 1_000, 1),
        "ready_s": round((ready_ms - killed_ms) / 1_000, 1),
        "affected_ms": whole,
        "others_ms": others,
        "recovery_s": round(largest / 1_000, 1),
        "survivor": said,
        "aims": {"recovery_s": {"is": round(largest / 1_000, 1), "aim": aim_s}},
    }


class _Back:
    """When each room was first heard of after the kill."""

    def __init__(self, watcher: Watcher, rooms: set[str], killed_ms: float) -> None:
        self._watcher, self._rooms, self._killed_ms, self._n = watcher, rooms, killed_ms, 0
        self.at_ms: dict[str, float] = {}

    def is_complete(self) -> bool:
        seen = self._watcher.seen
        end = len(seen)
        for one in seen[self._n : end]:
            if one.ts > self._killed_ms and one.room not in self.at_ms:
                self.at_ms[one.room] = one.read_ms
        self._n = end
        return self._rooms <= self.at_ms.keys()


def _is_up_to_date(seen: list[Told]) -> bool:
    """Tell whether the newest signals are about now: what came before the load is worked off."""
    newest = seen[-200:]
    return len(newest) == 200 and all(one.read_ms - one.ts < 2_000 for one in newest)


def _longest_silence(seen: list[Told], rooms: set[str]) -> float:
    """Return the longest time, in ms, that any room was silent lately, from one reading to the next."""
    since_ms = seen[-1].read_ms - 20_000
    heard: dict[str, list[float]] = defaultdict(list)
    for one in seen:
        if one.read_ms >= since_ms and one.room in rooms:
            heard[one.room].append(one.read_ms)
    gaps = [later - earlier for times in heard.values() for earlier, later in pairwise(times)]
    if not gaps:
        msg = "rooms must be told of again and again before the kill, got none: take more --rate or fewer --rooms"
        raise TimeRunFailedError(msg)
    return max(gaps)


def _words(worker: Worker, since_ms: float) -> list[str]:
    """Return what a worker said since a moment, and how many seconds later."""
    said = []
    for line in worker.lines():
        after_s = datetime.fromisoformat(line["ts"]).timestamp() - since_ms / 1_000
        if after_s >= 0:
            said.append(f"{after_s:.1f} s: {line['message']}")
    return said[:20]
