"""`roompulse bench --job latency`: how long it takes from an event to what it causes, read from its topic.

Probes (`benchmarks.pacing`) are events whose effects can be told from all others. Each causes an anomaly, a command and
the room's signals; a latency is from the moment before the producer takes the event to the moment after the message
was read, both on this machine's clock. The engine's own wait for the next tick (500 ms) is in it.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from agents.kafka import partition_of
from benchmarks.field import PARTITIONS
from benchmarks.live import START_S, Deployment, Had, Pacing, Seen, Watcher, percentiles, shares
from benchmarks.pacing import HOT_ROOM, PROBE, Load
from schemas.topics import BID_COMMANDS, ROOM_ANOMALIES, ROOM_SIGNALS

PROBE_EVERY_S: Final = 20.0
"""A room is probed again once it is calm: twice a plan's 5 s of looking, and room to spare."""
WARM_UP_S: Final = 10.0
JOINS, LEAVES = "a second worker joins", "it leaves"
LAST_S: Final = 3.0
"""How long outputs of the last probes are waited for."""
KINDS: Final[dict[str, str]] = {"anomaly": ROOM_ANOMALIES, "command": BID_COMMANDS, "signals": ROOM_SIGNALS}
AIM_COMMAND_P99_MS: Final = 800
"""0.5 s until the next evaluation, 0.3 s for everything else."""
AIM_HOT_TIMES: Final = 2.0

Tell = Callable[[str], object]


class Effect(NamedTuple):
    """What a message says of a probe: the room, the evaluation it came from, and when it was read."""

    kind: str
    room: str
    ts: int
    read_ms: float
    n_shed: int = 0


def effect(seen: Seen) -> Effect | None:
    """Return what a message tells of a probe, or of a room's signals; None for anything else."""
    message = seen.message
    if seen.topic == ROOM_SIGNALS:
        return Effect("signals", message["room_id"], seen.ts, seen.read_ms, message.get("n_shed", 0))
    if seen.topic == ROOM_ANOMALIES and message["status"] == "open":
        is_mine = str(message["params"].get("plan_id", "")).startswith(PROBE)
        return Effect("anomaly", message["room_id"], seen.ts, seen.read_ms) if is_mine else None
    if seen.topic == BID_COMMANDS and str(message.get("plan_id") or "").startswith(PROBE):
        is_mine = message["reason"]["code"] == "not_delivering"
        return Effect("command", message["room_id"], seen.ts, seen.read_ms) if is_mine else None
    return None


def latencies(probes: list[tuple[str, float]], effects: list[Effect]) -> dict[str, list[float | None]]:
    """Return, per kind, each probe's latency in ms; None where nothing came.

    An effect belongs to the newest probe of its room that its evaluation can know; the signals are those of the same
    evaluation as the anomaly. What is told twice counts when it was read first.

    >>> found = latencies(
    ...     [("r", 1_000.0), ("r", 21_000.0)],
    ...     [Effect("signals", "r", 500, 510.0), Effect("anomaly", "r", 1_500, 1_530.0),
    ...      Effect("signals", "r", 1_500, 1_540.0), Effect("signals", "r", 1_500, 9_999.0)],
    ... )
    >>> found["anomaly"], found["signals"], found["command"]
    ([530.0, None], [540.0, None], [None, None])
    """
    by_room: dict[tuple[str, str], list[Effect]] = defaultdict(list)
    for found in sorted(effects, key=lambda one: one.read_ms):
        by_room[found.kind, found.room].append(found)
    nexts: dict[str, list[float]] = defaultdict(list)
    for room, sent_ms in probes:
        nexts[room].append(sent_ms)
    took: dict[str, list[float | None]] = {kind: [] for kind in KINDS}
    for room, sent_ms in probes:
        end_ms = min((later for later in nexts[room] if later > sent_ms), default=float("inf"))
        opened = _first([one for one in by_room["anomaly", room] if sent_ms <= one.ts < end_ms])
        held = _first([one for one in by_room["command", room] if sent_ms <= one.ts < end_ms])
        told = opened and _first([one for one in by_room["signals", room] if one.ts == opened.ts])
        for kind, one in (("anomaly", opened), ("command", held), ("signals", told)):
            took[kind].append(None if one is None else one.read_ms - sent_ms)
    return took


def _first(effects: list[Effect]) -> Effect | None:
    return effects[0] if effects else None


def summary(probes: list[tuple[str, float]], effects: list[Effect]) -> dict[str, Any]:
    """Return each kind's percentiles in ms, and how many probes never got an answer."""
    took = latencies(probes, effects)
    return {
        "n_probes": len(probes),
        **{
            kind: {**percentiles([ms for ms in found if ms is not None]), "n_missing": found.count(None)}
            for kind, found in took.items()
        },
    }


class Plan(NamedTuple):
    """What to measure: `seconds` of each phase; a second worker comes and goes if `rebalances`."""

    n_rooms: int
    rate: int
    seconds: float
    seed: int
    rebalances: bool = True
    is_hot: bool = False


class _Measurement:
    """One deployment, phase after phase."""

    def __init__(self, plan: Plan, made: Deployment, watcher: Watcher, tell: Tell) -> None:
        self._plan, self._made, self._watcher, self._tell = plan, made, watcher, tell
        self._took_s: dict[str, float] = {}
        self._load = Load(
            made.bootstrap, plan.n_rooms, PARTITIONS, plan.rate, 4 * (plan.seconds + WARM_UP_S + START_S), plan.seed,
            probe_every_s=PROBE_EVERY_S,
        )  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Return every phase's summary."""
        plan = self._plan
        pacing = self._begin(self._load)
        had, begun_s = Had.of(self._made.workers[0].process.pid), time.monotonic()
        phases = {"steady": self._phase("steady")}
        worker = shares(had, Had.of(self._made.workers[0].process.pid), time.monotonic() - begun_s)
        if plan.rebalances:
            made = self._made
            phases["join"] = self._phase(JOINS, lambda: made.start_worker().await_ready())
            phases["leave"] = self._phase(LEAVES, made.workers[-1].end)
        found: dict[str, Any] = {"load": self._end(pacing), "worker_while_steady": worker}
        if plan.rebalances:
            found |= {"start_s": self._took_s[JOINS], "stop_s": self._took_s[LEAVES]}
        found |= {name: summary(_between(pacing, *phase), self._watcher.seen) for name, phase in phases.items()}
        return found | (self._hot(_between(pacing, *phases["steady"])) if plan.is_hot else {})

    def _hot(self, steady: list[tuple[str, float]]) -> dict[str, Any]:
        """Measure with half the load on one room; its neighbours are the rooms of its partition."""
        pacing = self._begin(self._load._replace(hot_share=0.5, seed=self._plan.seed + 1))
        phase = self._phase("half of the load on one room")
        done, seen = self._end(pacing), self._watcher.seen
        probes, home = _between(pacing, *phase), partition_of(HOT_ROOM, PARTITIONS)
        shed = [one.n_shed for one in seen if one.room == HOT_ROOM]
        return {
            "hot_load": {**done, "n_shed": max(shed, default=0)},
            "hot": summary(probes, seen),
            "neighbours": summary([one for one in probes if partition_of(one[0], PARTITIONS) == home], seen),
            "neighbours_before": summary([one for one in steady if partition_of(one[0], PARTITIONS) == home], seen),
        }

    def _begin(self, load: Load) -> Pacing:
        pacing = self._made.pace(load)
        pacing.await_open()
        time.sleep(WARM_UP_S)
        return pacing

    def _phase(self, words: str, first: Callable[[], object] = lambda: None) -> tuple[float, float]:
        """Do something, then go on for the plan's time; return begin and end in ms of the wall clock."""
        self._tell(words)
        begun_ms = time.time_ns() / 1e6
        first()
        self._took_s[words] = round(time.time_ns() / 1e9 - begun_ms / 1e3, 1)
        time.sleep(self._plan.seconds)
        return begun_ms, time.time_ns() / 1e6

    @staticmethod
    def _end(pacing: Pacing) -> dict[str, Any]:
        done = pacing.end()
        time.sleep(LAST_S)
        return done


def measure(plan: Plan, bootstrap: str, tell: Tell, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run the job and return its phases: `steady`, `join`, `leave`, and with `is_hot` also `hot` and `neighbours`.

    Raises
    ------
    ProgramError
        The broker is not one for benchmarks, or a worker or the load did not do its part.
    """
    with (
        tempfile.TemporaryDirectory(prefix="roompulse-time-") as name,
        Deployment(bootstrap, Path(name), settings) as made,
    ):
        made.make_topics()
        worker = made.start_worker()
        worker.await_ready()
        with Watcher(bootstrap, effect, embedded=made.field.embedded) as watcher:
            found = _Measurement(plan, made, watcher, tell).run()
        worker.end()
    aims = {"command_p99_ms": {"is": found["steady"]["command"]["p99"], "aim": AIM_COMMAND_P99_MS}}
    if plan.is_hot:
        now, before = (found[name]["command"]["p99"] for name in ("neighbours", "neighbours_before"))
        aims["neighbours_p99_times"] = {"is": round(now / before, 2) if now and before else None, "aim": AIM_HOT_TIMES}
    return {**plan._asdict(), "n_partitions": PARTITIONS, **found, "aims": aims}


def _between(pacing: Pacing, begin_ms: float, end_ms: float) -> list[tuple[str, float]]:
    return [one for one in pacing.probes if begin_ms <= one[1] < end_ms]
