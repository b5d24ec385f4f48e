"""Rooms over more partitions: each once, where it belongs, with all it knew; and no switch is lost on the way."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.kafka import partition_of
from pipeline import Engine
from pipeline.dedup import SeenIds
from pipeline.rekey import RekeyError, rekey
from pipeline.snapshot import dump, load_room, load_star
from schemas.settings import Settings
from tests import scenario
from tests.effort import effort

BEGIN_MS = scenario.BEGIN_MS
OWN = Settings(trust_log=True)
ROOMS = [f"room-{number}" for number in range(9)]


def event(random: Random, number: int, ts: int) -> dict[str, Any]:
    common = {"event_id": f"e-{number}", "room_id": random.choice(ROOMS), "ts": ts - random.randrange(3_000)}
    match random.randrange(4):
        case 0:
            status = random.choice(("created", "paid", "refunded"))
            return common | {
                "type": "order", "order_id": f"o-{random.randrange(40)}", "status": status,
                "amount_minor": random.randrange(1, 10_000), "currency": "CNY",
            }  # fmt: skip
        case 1:
            return common | {"type": "view", "action": "enter", "session_id": f"s-{number}", "user_id": f"u-{number}"}
        case 2:
            return common | {
                "type": "spend", "plan_id": "p", "cost_minor": random.randrange(99), "currency": "CNY",
                "impressions": 9, "clicks": 3,
            }  # fmt: skip
        case _:
            return common | {"type": "interaction", "action": "like", "user_id": f"u-{number % 7}"}


class Partitions:
    """A log over so many partitions, and an engine for each."""

    def __init__(self, n_partitions: int) -> None:
        self.engines = [Engine(OWN, partition=number) for number in range(n_partitions)]
        self.ends = [0] * n_partitions

    def send(self, message: dict[str, Any], stamp_ms: int, partition: int | None = None) -> None:
        room = message["room_id"]
        number = partition_of(room, len(self.engines)) if partition is None else partition
        self.engines[number].process([(self.ends[number], stamp_ms, json.dumps(message).encode(), room.encode())])
        self.ends[number] += 1

    def to_all(self, message: dict[str, Any], stamp_ms: int) -> None:
        for number in range(len(self.engines)):
            self.send(message, stamp_ms, number)

    def tick(self, stamp_ms: int) -> None:
        self.to_all({"type": "tick", "event_id": f"t-{stamp_ms}", "room_id": "*", "ts": stamp_ms}, stamp_ms)

    def grown(self, n_partitions: int) -> Partitions:
        more = Partitions(n_partitions)
        more.ends = self.ends + [0] * (n_partitions - len(self.ends))
        states = dict(enumerate(engine.snapshot() for engine in self.engines))
        for engine, parts in zip(more.engines, rekey(states, more.ends, home_of(n_partitions)), strict=True):
            engine.restore(parts)
        return more

    def rooms(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for engine in self.engines:
            for room, told in engine.summary()["rooms"].items():
                assert room not in found, f"{room} must be in one partition"
                # What depends on the moment of looking differs: each partition's own clock says when.
                found[room] = {name: n for name, n in told["session"].items() if isinstance(n, int)}
        return found

    def counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for engine in self.engines:
            total.update(engine.counters._asdict() | {"rejects": sum(engine.counters.rejects.values())})
        return total


def home_of(n_partitions: int) -> Any:
    return lambda room: partition_of(room, n_partitions)


@settings(max_examples=effort(40), deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6))
def test_every_room_lands_once_and_goes_on_as_if_nothing_had_happened(seed: int, before: int, more: int) -> None:
    random, stamp_ms = Random(seed), BEGIN_MS
    log = Partitions(before)
    messages: list[tuple[int, dict[str, Any]]] = []
    for number in range(120):
        stamp_ms += random.randrange(400)
        messages.append((stamp_ms, event(random, number, stamp_ms)))
    for at_ms, message in messages[:70]:
        log.send(message, at_ms)
    stays, moved = log, log.grown(before + more)
    assert moved.counts() == stays.counts()
    assert moved.rooms() == stays.rooms()
    for number, engine in enumerate(moved.engines):
        states = engine.snapshot()
        assert load_star(states["*"]).offset == moved.ends[number] - 1
        rooms = [load_room(state) for room, state in states.items() if room != "*"]
        assert all(partition_of(room.room_id, before + more) == number for room in rooms)
        assert all(room.offset < moved.ends[number] for room in rooms)
    assert moved.engines[-1].clock_ms == max(engine.clock_ms or -1 for engine in stays.engines)

    # What comes after, repeats of money among it, counts in both the same.
    for at_ms, message in messages[70:] + [
        (stamp_ms, message) for _, message in messages[:70] if message["type"] in ("order", "spend")
    ]:
        stays.send(message, at_ms)
        moved.send(message, at_ms)
    for log in (stays, moved):
        log.tick(stamp_ms + 5_000)
    assert moved.rooms() == stays.rooms()
    assert moved.counts()["n_duplicates"] == stays.counts()["n_duplicates"] > 0


def test_doing_it_again_changes_nothing() -> None:
    log, random = Partitions(3), Random(5)
    for number in range(60):
        log.send(event(random, number, BEGIN_MS + number * 100), BEGIN_MS + number * 100)
    once = log.grown(5)
    twice = once.grown(5)
    assert [engine.snapshot() for engine in twice.engines] == [engine.snapshot() for engine in once.engines]


def control(control_id: str, action: str, **args: Any) -> dict[str, Any]:
    return {
        "type": "control", "event_id": control_id, "room_id": "*", "ts": BEGIN_MS, "control_id": control_id,
        "actor": "test", "action": action, "args": args,
    }  # fmt: skip


def test_a_switch_or_silence_anywhere_holds_everywhere_and_its_control_never_counts_again() -> None:
    log = Partitions(2)
    log.tick(BEGIN_MS)
    log.send(control("c-1", "kill_switch", on=True), BEGIN_MS + 100, 1)
    log.send(control("c-2", "silence", until_ts=BEGIN_MS + 60_000), BEGIN_MS + 900, 0)
    moved = log.grown(4)
    for number, engine in enumerate(moved.engines):
        star = load_star(engine.snapshot()["*"])
        assert star.is_killed
        assert star.silences == [(BEGIN_MS + 60_000, "")]
        assert set(star.control_ids) == {"c-1", "c-2"}
        n_events = engine.counters.n_events
        moved.send(control("c-1", "kill_switch", on=True), BEGIN_MS + 1_000, number)
        assert engine.counters.n_events == n_events
        moved.send(control(f"c-off-{number}", "kill_switch", on=False), BEGIN_MS + 1_100, number)
        assert not load_star(engine.snapshot()["*"]).is_killed


def test_ids_seen_are_as_many_turns_old_as_before() -> None:
    young, old = SeenIds(turned_ms=9, turn=7), SeenIds(turned_ms=4, turn=2)
    young.recent |= {b"new": 7, b"both": 6}
    old.recent |= {b"old": 1, b"both": 2}
    stars = [load_star(Engine(OWN).snapshot()["*"]) for _ in range(2)]
    stars[0].seen, stars[1].seen = young, old
    (only,) = rekey({n: {"*": dump(star)} for n, star in enumerate(stars)}, [0], lambda _: 0)
    seen = load_star(only["*"]).seen
    assert (seen.turned_ms, seen.turn, seen.recent) == (9, 7, {b"new": 7, b"both": 7, b"old": 6})


def test_a_room_in_two_partitions_is_refused() -> None:
    log = Partitions(1)
    log.send(event(Random(1), 1, BEGIN_MS), BEGIN_MS)
    (states,) = [engine.snapshot() for engine in log.engines]
    with pytest.raises(RekeyError, match="must be in one partition, got 0 and 1"):
        rekey({0: states, 1: states}, [1, 1], lambda _: 0)
