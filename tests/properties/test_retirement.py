"""Rooms go when nobody has heard of them for long; counts, outputs and the changelog stay exact, whatever crashes.

             last event          T                        committed beyond T
room-1  ----------x-------------|=========================|
                  |<- kept ---->| a marker in the changelog | nothing
*       counts of rooms that are there | its counts too
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Engine, Output
from schemas import topics
from schemas.base import MAX_AHEAD_MS
from schemas.settings import EngineSettings, Settings
from tests.effort import effort
from tests.strategies import START_MS

STAR = "*"
HOUR_MS = 3_600_000
KEEP_MS = 2 * HOUR_MS
Log = list[tuple[int, int, bytes]]
Told = tuple[str, str, bytes]


def engine() -> Engine:
    """An engine that keeps ledgers, and so rooms, as shortly as settings allow."""
    return Engine(Settings(trust_log=True, engine=EngineSettings(ledger_ms=HOUR_MS)))


def visiting_log(seed: int, n_records: int, n_rooms: int = 4) -> Log:
    """Return a log over days: rooms have shows of some events, then silence, and many come back."""
    random = Random(seed)
    now_ms, log = START_MS, list[tuple[int, int, bytes]]()
    known: list[dict[str, Any]] = []
    for offset in range(0, 2 * n_records, 2):
        now_ms += random.choice((0, 300, 700, 2_000, 60_000, 20 * 60_000, HOUR_MS, 3 * HOUR_MS))
        room_id = f"room-{random.randrange(n_rooms)}"
        event: dict[str, Any] = {"event_id": f"e-{offset}", "room_id": room_id, "ts": now_ms - random.randrange(3_000)}
        kind = random.randrange(9)
        if kind == 0:
            event |= {"type": "room", "action": random.choice(("start", "end"))}
        elif kind == 1:
            event |= {"type": "order", "order_id": f"o-{random.randrange(30)}", "status": "paid", "currency": "CNY"}
            event |= {"amount_minor": random.randrange(1, 9_999)}
        elif kind == 2:
            event |= {"type": "order", "order_id": f"o-{random.randrange(30)}", "status": "refunded", "currency": "CNY"}
            event |= {"amount_minor": random.randrange(1, 9_999)}
        elif kind == 3 and known:
            event = random.choice(known)  # a repeat, be it after days
        elif kind == 4:
            event |= {"type": "control", "control_id": f"c-{offset}", "actor": "operator", "action": "silence"}
            event |= {"args": {"until_ts": now_ms + 1_000}}
        elif kind == 5:
            event |= {"type": "view", "action": "nonsense"}
        elif kind == 6:
            event |= {"type": "tick", "room_id": STAR}
        else:
            event |= {"type": "view", "action": "enter", "session_id": "s", "user_id": f"u-{random.randrange(20)}"}
        known.append(event)
        log.append((offset, now_ms, json.dumps(event).encode()))
    return log


def shown(outputs: list[Output]) -> list[Told]:
    return [(output.topic, output.key, output.json()) for output in outputs]


def whole(log: Log) -> tuple[Engine, list[Told]]:
    uninterrupted = engine()
    return uninterrupted, shown(uninterrupted.process(log))


class Store:
    """The changelog, with keys removed as `agents.rooms` removes them: only behind a commit that covers their end."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.offset = -1
        self.retired: dict[str, int] = {}

    def save(self, saving: Engine, room_id: str, now: int, since: int) -> None:
        saved = saving.save(room_id)
        for key, value in saved.parts:
            self.kept[key] = value
            self.retired.pop(key, None)
        self.retired.update(dict.fromkeys(saved.retired, max(now, since)))

    def commit(self, star: bytes, offset: int) -> None:
        self.kept[STAR], self.offset = star, offset

    def bury(self) -> None:
        for key in [key for key, needed in self.retired.items() if needed <= self.offset]:
            del self.kept[key], self.retired[key]


def with_crashes(log: Log, random: Random, *, crashes: float, pace: float) -> tuple[Engine, list[Told], Store]:
    """Process a log with saves and crashes between any two steps, as a worker would."""
    store, living, told = Store(), engine(), list[Output]()
    point: Any = None
    left: list[str] = []
    place = 0
    while place < len(log):
        told += living.process([log[place]])
        now = log[place][0]
        place += 1
        if point is None and random.random() < pace:
            point = living.checkpoint()
            left = list(point.rooms)
            random.shuffle(left)
        while point is not None and left and random.random() < pace:
            store.save(living, left.pop(), now, point.offset)
        if point is not None and not left and random.random() < pace:
            store.commit(point.star, point.offset)
            if random.random() < 0.8:  # else it is killed before it learns of it, or is slow
                living.settle(point.offset)
            point = None
        if random.random() < pace:
            store.bury()
        if random.random() < crashes:
            crashes /= 1.3
            living, point, left = engine(), None, []
            living.restore(store.kept)
            store.retired = {}  # who comes next learns from the states alone what may go
            place = next((n for n, record in enumerate(log) if record[0] > store.offset), len(log))
    return living, shown(told), store


def settled(living: Engine, store: Store, last: int) -> dict[str, bytes]:
    """Return what the changelog holds once everything is saved and what may go is gone."""
    for _ in range(2):
        point = living.checkpoint()
        for room_id in point.rooms:
            store.save(living, room_id, last, point.offset)
        store.commit(point.star, point.offset)
        living.settle(point.offset)
        store.bury()
    return store.kept


def same(got: list[Told], expected: list[Told]) -> None:
    """Nothing is missing, nothing else was told, and without repeats it comes in the same order."""
    assert set(got) == set(expected)
    for topic, key in {told[:2] for told in expected}:
        of_room = [told for told in got if told[:2] == (topic, key)]
        assert list(dict.fromkeys(of_room)) == [told for told in expected if told[:2] == (topic, key)]


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.sampled_from((0.1, 0.4, 0.8)))
@settings(max_examples=effort(150), deadline=None)
def test_whenever_it_crashes_rooms_go_once_and_everything_counts_once(seed: int, chance: int, pace: float) -> None:
    log = visiting_log(seed, 60)
    expected, told = whole(log)
    got, got_told, store = with_crashes(log, Random(chance), crashes=0.2, pace=pace)
    same(got_told, told)
    assert got.counters == expected.counters
    assert got.summary() == expected.summary()
    assert got.n_rooms == expected.n_rooms
    kept = settled(got, store, log[-1][0])
    fresh = engine()
    fresh.restore(kept)
    assert fresh.counters == expected.counters
    assert {key.partition("\0")[0] for key in kept} == {STAR, *expected.snapshot()}


def test_a_room_that_came_back_carries_its_farewells_until_the_partition_has_taken_them() -> None:
    """However often it goes and comes back between two states of the partition; and then it may sleep like others."""
    store, living = Store(), engine()
    for show in range(3):
        at_ms = START_MS + show * (KEEP_MS + HOUR_MS)
        for offset, (ms, event) in enumerate(((0, ENTER), (1_000, END), (KEEP_MS + 60_000, TICK)), 3 * show):
            full = {"event_id": f"e-{offset}", "room_id": "room-1", "ts": at_ms + ms, **event}
            living.process([(offset, at_ms + ms, json.dumps(full).encode())])
    back_ms = START_MS + 4 * (KEEP_MS + HOUR_MS)
    enter = {**ENTER, "event_id": "back", "room_id": "room-1", "ts": back_ms}
    living.process([(9, back_ms, json.dumps(enter).encode())])
    point = living.checkpoint()
    assert len(living._rooms["room-1"].farewells) == 3
    store.save(living, "room-1", 9, point.offset)
    store.commit(point.star, point.offset)
    living.settle(point.offset)
    came_back = engine()
    came_back.restore(store.kept)
    for one in (living, came_back):
        assert one._rooms["room-1"].farewells == []
        assert one.counters.n_events == 10


def epochs(log: Log) -> Iterator[tuple[Engine, Log]]:
    """Yield the engine after every record, with what is left of the log."""
    living = engine()
    for place, record in enumerate(log):
        living.process([record])
        yield living, log[place + 1 :]


@pytest.mark.parametrize("seed", range(3))
def test_whole_snapshots_know_of_rooms_that_went(seed: int) -> None:
    log = visiting_log(seed, 80)
    expected, _ = whole(log)
    for living, rest in epochs(log):
        again = engine()
        again.restore(living.snapshot())
        again.process(rest)
        assert again.counters == expected.counters


def test_rooms_sleep_once_they_are_saved_and_wake_as_they_were() -> None:
    """A process that saves after every record and starts anew now and then tells the same, and most rooms sleep."""
    log = visiting_log(5, 120)
    expected, told = whole(log)
    living, got, store = engine(), list[Output](), Store()
    most = 0
    for record in log:
        got += living.process([record])
        settled(living, store, record[0])
        most = max(most, len(living._rooms.asleep))
        if record[0] % 10 == 0:
            living = engine()
            living.restore(store.kept)
    assert shown(got) == told
    assert living.counters == expected.counters
    assert living.summary() == expected.summary()
    assert most >= 2


def test_rooms_do_go_and_come_back() -> None:
    """The log above is no empty promise: it lets rooms go, some come back, and repeats arrive after that."""
    n_gone = n_back = 0
    for seed in range(10):
        before: set[str] = set()
        ever: set[str] = set()
        for living, _ in epochs(visiting_log(seed, 60)):
            now = set(living.snapshot()) - {STAR}
            n_gone += len(before - now)
            n_back += len((now - before) & ever)
            ever |= before
            before = now
    assert n_gone > 50
    assert n_back > 20


# -- one room, told slowly ----------------------------------------------------------------------------------------


def show(*events: tuple[float, dict[str, Any]], room_id: str = "room-1") -> tuple[Engine, list[Output]]:
    """Run events (hour of the log, fields) of a room."""
    log = []
    for offset, (hour, fields) in enumerate(events):
        now_ms = START_MS + round(hour * HOUR_MS)
        event = {"event_id": f"e-{offset}", "room_id": room_id, "ts": now_ms, **fields}
        log.append((offset, now_ms, json.dumps(event).encode()))
    told = engine()
    return told, told.process(log)


ENTER = {"type": "view", "action": "enter", "session_id": "s", "user_id": "u"}
END = {"type": "room", "action": "end"}
TICK = {"type": "tick", "room_id": STAR}


def test_an_ended_room_goes_once_its_ledger_is_let_go() -> None:
    assert show((0, ENTER), (0.01, END), (1.9, TICK))[0].n_rooms == 1
    gone, _ = show((0, ENTER), (0.01, END), (2.1, TICK), (2.2, TICK))
    assert gone.n_rooms == 0
    assert gone.counters.n_events == 4


def test_a_show_that_nobody_ended_ends_with_the_room_and_its_incidents_are_resolved() -> None:
    budget_out = {"type": "plan", "plan_id": "p", "status": "budget_out", "bid_kind": "none"}
    gone, told = show((0, ENTER), (0.01, budget_out), (0.02, TICK), (2.1, TICK), (2.2, TICK))
    statuses = [json.loads(output.json())["status"] for output in told if output.topic == topics.ROOM_ANOMALIES]
    assert statuses[0] == "open"
    assert statuses[-1] == "resolved"
    assert gone.n_rooms == 0


def test_a_late_refund_keeps_the_room_as_long_again() -> None:
    paid = {"type": "order", "order_id": "o", "status": "paid", "amount_minor": 100, "currency": "CNY"}
    kept, _ = show((0, paid), (0.01, END), (1.5, {**paid, "status": "refunded"}), (3.0, TICK))
    assert kept.n_rooms == 1
    assert kept.summary()["rooms"]["room-1"]["session"]["refund_minor"] == 100


@pytest.mark.parametrize(
    ("action", "args"), [("kill_switch", {"on": True}), ("set_mode", {"mode": "off"})], ids=["killed", "off"]
)
def test_what_keeps_a_room_from_spending_outlives_the_silence(action: str, args: dict[str, Any]) -> None:
    control = {"type": "control", "control_id": "c", "actor": "operator", "action": action, "args": args}
    kept, _ = show((0, ENTER), (0.01, control), (0.02, END), (90.0, TICK), (99.0, TICK))
    assert kept.n_rooms == 1


def test_the_head_of_the_trail_goes_into_the_partitions_own() -> None:
    control = {"type": "control", "control_id": "c", "actor": "operator", "action": "silence", "args": {}}
    control["args"] = {"until_ts": START_MS + HOUR_MS}
    _, told = show((0, ENTER), (0.01, control), (0.02, END), (2.1, TICK), (2.2, TICK))
    own, last = (json.loads(output.json()) for output in told if output.topic == topics.AUDIT_LOG)
    assert (last["kind"], last["room_id"]) == ("retired", STAR)
    assert last["content"] == {"room_id": "room-1", "seq": 1, "hash": own["hash"]}


def test_a_control_older_than_its_memory_is_refused() -> None:
    """Its id may be forgotten: repeated after days it must not count again."""
    control = {"type": "control", "control_id": "c", "actor": "operator", "action": "kill_switch", "args": {"on": True}}
    first = {**control, "event_id": "k", "ts": START_MS}
    again = {**first, "event_id": "k2"}
    refused, told = show((0, ENTER), (0, first), (0.01, {**control, "args": {"on": False}}), (50, again))
    letters = [json.loads(output.json()) for output in told if output.topic == topics.ROOM_EVENTS_DLQ]
    assert [letter["reason"] for letter in letters] == ["bad_value"]
    assert "sign it anew" in letters[0]["error"]
    assert refused.counters.rejects == {"bad_value": 1}


def controlled_log(seed: int, n_records: int) -> Log:
    """Return a log over days: signed controls, many ahead of the log's clock, all of them repeated now and then."""
    random = Random(seed)
    now_ms, log = START_MS, list[tuple[int, int, bytes]]()
    known: list[dict[str, Any]] = []
    for offset in range(n_records):
        now_ms += random.choice((0, 2_000, 60_000, 10 * 60_000, HOUR_MS, KEEP_MS - 100_000, KEEP_MS + 1))
        kind = random.randrange(8)
        event: dict[str, Any] = {"event_id": f"e-{offset}", "ts": now_ms}
        event["room_id"] = random.choice(("room-1", "room-2", STAR))
        if kind < 5 and known:
            event = {**random.choice(known[-12:]), "event_id": f"e-{offset}"}
        elif kind < 7:
            event["ts"] += random.choice((-HOUR_MS, 0, MAX_AHEAD_MS))
            event |= {"type": "control", "control_id": f"c-{offset}", "actor": "operator", "action": "silence"}
            event |= {"args": {"until_ts": now_ms + 1_000}}
            if event["room_id"] == STAR and random.random() < 0.5:
                policy = {"engine": {"ledger_ms": random.choice((HOUR_MS, 3 * HOUR_MS))}}
                event |= {"action": "update_settings", "args": {"policy": policy}}
            known.append(event)
        elif event["room_id"] == STAR:
            event |= {"type": "tick"}
        else:
            event |= {"type": "view", "action": "enter", "session_id": "s"}
        log.append((offset, now_ms, json.dumps(event).encode()))
    return log


@pytest.mark.parametrize("seed", range(40))
def test_a_control_counts_once_for_ever_and_its_id_is_not_kept_for_ever(seed: int) -> None:
    """However far ahead it was signed, whether its room went, and whatever policies say of how long things are kept."""
    log, living = controlled_log(seed, 400), engine()
    told = living.process(log)
    trail = [json.loads(output.json()) for output in told if output.topic == topics.AUDIT_LOG]
    counted = [entry["content"]["control_id"] for entry in trail if entry["kind"] == "control"]
    assert len(counted) > 20
    assert len(counted) == len(set(counted))
    longest_ms = 4 * HOUR_MS
    for ids in (living._ctx.star.control_ids, *(room.control_ids for room in living._rooms.values())):
        assert not ids or max(ids.values()) - min(ids.values()) <= longest_ms


def test_a_knobs_numbers_go_on_rising_when_its_room_comes_back() -> None:
    """Controllers act only on a higher number than the last, and remember for longer than a room is kept."""
    plan = {"type": "plan", "plan_id": "p", "status": "delivering", "bid_kind": "cost_per_action", "bid_minor": 100}
    hold = (0.0, plan), (0.001, TICK), (0.002, END), (2.1, TICK), (2.2, TICK), (50.0, plan), (50.001, TICK)
    told = show(*hold)[1]
    holds = [json.loads(output.json()) for output in told if output.topic == topics.BID_COMMANDS]
    seqs = [command["seq"] for command in holds if command["action"] == "hold"]
    assert len(seqs) >= 2
    assert seqs[-1] > seqs[0] + 3_600


def test_a_replay_tells_of_rooms_that_went() -> None:
    log = visiting_log(3, 60)
    replaying = Engine(Settings(trust_log=True, engine=EngineSettings(ledger_ms=HOUR_MS)), keep_outcomes=True)
    replaying.process(log)
    every = {json.loads(record[2])["room_id"] for record in log} - {STAR}
    assert set(replaying.summary()["rooms"]) == every
    assert replaying.n_rooms < len(every)


def test_the_policy_of_a_log_in_its_own_time_has_no_age() -> None:
    """A worker that writes no ticks must not move the log's clock by telling its policy."""
    policy = {"type": "control", "control_id": "p", "actor": "worker", "action": "update_settings", "room_id": STAR}
    told, _ = show((0, ENTER), (50, {**policy, "ts": 0, "args": {"policy": {"engine": {"emit_interval_ms": 2_000}}}}))
    assert told.counters.rejects == {}
    assert told.policy_version != engine().policy_version
