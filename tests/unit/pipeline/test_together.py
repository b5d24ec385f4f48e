"""Rooms that wait, sleep, break, go and move, all at once: what each rule must not do to another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline import Engine, Output
from pipeline.apply import KINDS
from pipeline.rekey import rekey
from pipeline.snapshot import FORMAT, SnapshotError, format_of
from schemas import topics
from schemas.decode import STRUCTS
from schemas.settings import EngineSettings, Settings
from tests.strategies import START_MS

STAR = "*"
HOUR_MS = 3_600_000
ENTER = {"type": "view", "action": "enter", "session_id": "s"}
END = {"type": "room", "action": "end"}
TICK = {"type": "tick", "room_id": STAR}
BOOM = {"type": "comment", "text": "BOOM"}
KILL = {"type": "control", "control_id": "kill", "actor": "operator", "action": "kill_switch", "args": {"on": True}}


class Log:
    """Write events at an hour of the log; rooms are kept for two hours."""

    def __init__(self, first_offset: int = 0, **settings: Any) -> None:
        kept = {"engine": EngineSettings(ledger_ms=HOUR_MS), **settings}
        self.engine = Engine(Settings(trust_log=True, **kept))
        self.told: list[Output] = []
        self.offset = first_offset - 1

    def at(self, hour: float, event: dict[str, Any], room_id: str = "room-1") -> Log:
        self.offset += 1
        now_ms = START_MS + round(hour * HOUR_MS)
        full = {"event_id": f"e-{self.offset}", "room_id": room_id, "ts": now_ms, **event}
        self.told += self.engine.process([(self.offset, now_ms, json.dumps(full).encode())])
        return self

    def save(self) -> dict[str, bytes]:
        """Return what a round of saving writes; keep what it tells."""
        point = self.engine.checkpoint()
        kept = {STAR: point.star}
        for room_id in point.rooms:
            saved = self.engine.save(room_id)
            kept |= dict(saved.parts)
            self.told += saved.told
        return kept

    def messages(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(output.json()) for output in self.told if output.topic == topic]


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the comment BOOM break the program."""
    struct = STRUCTS["comment"]
    known = KINDS[struct]

    def handler(room: Any, event: Any, now_ms: int, ctx: Any) -> None:
        if event.text == "BOOM":
            raise ValueError
        assert known.handler is not None
        known.handler(room, event, now_ms, ctx)

    monkeypatch.setitem(KINDS, struct, known._replace(handler=handler))
    yield


def asleep() -> Log:
    """Return a log whose one room sleeps."""
    log = Log().at(0, ENTER).at(0.01, END).at(1.2, TICK).at(1.3, TICK)
    log.save()
    assert list(log.engine._rooms.asleep) == ["room-1"]
    return log


def test_a_room_that_sleeps_can_move_to_another_partition() -> None:
    found = rekey({0: asleep().engine.snapshot()}, [4, 0], lambda _: 1)
    arrivals = {room_id: state for room_id, state in found[1].items() if room_id != STAR}
    moved = Log().engine
    moved.restore(arrivals)
    assert [moved.save(room_id).parts[-1][0] for room_id in arrivals] == ["room-1"]


@pytest.mark.usefixtures("breaking")
def test_what_broke_a_room_is_told_also_where_a_room_that_went_is_saved_first() -> None:
    log = Log().at(0, ENTER, "a").at(0.001, END, "a").at(2.1, TICK).at(2.101, ENTER, "z").at(2.1011, BOOM, "z")
    assert log.messages(topics.ROOM_ANOMALIES) == []  # it waits
    log.save()
    assert [anomaly["code"] for anomaly in log.messages(topics.ROOM_ANOMALIES)] == ["engine_error"]
    assert len(log.messages(topics.ROOM_EVENTS_DLQ)) == 1


def damage(engine: Engine, part: str) -> None:
    """Make a sleeping room's bytes such that they cannot be read."""
    room = engine._rooms.asleep["room-1"]
    if part == "ledger":
        room.parts = (room.parts[0][:-5],)
    else:
        room.hot = room.hot[:9] + bytes(9) + room.hot[18:]


@pytest.mark.parametrize("part", ["hot", "ledger"])
@pytest.mark.parametrize("is_restored", [False, True])
@pytest.mark.parametrize("way", ["event", "its end", "save"])
def test_a_sleeping_room_that_cannot_be_read_is_parked_and_every_other_goes_on(
    way: str, part: str, *, is_restored: bool
) -> None:
    order = {"type": "order", "order_id": "o", "status": "paid", "amount_minor": 5, "currency": "CNY"}
    log = Log().at(0, ENTER).at(0, ENTER, "room-2").at(0, order).at(0.01, END).at(1.2, TICK).at(1.3, TICK)
    kept = log.save()
    if is_restored:
        log.engine.restore(kept)
    n_events = log.engine.counters.n_events
    damage(log.engine, part)
    if way == "save":
        log.engine._dirty["room-1"] = None
        log.save()
    log.at(1.4 if way == "event" else 2.5, ENTER).at(2.6, ENTER, "room-2").at(2.6, TICK).at(4, TICK)
    (opened,) = log.messages(topics.ROOM_ANOMALIES)
    assert (opened["severity"], opened["code"], opened["room_id"]) == ("S1", "engine_error", "room-1")
    assert opened["params"] == {"offset": 3, "error": "SnapshotError"}
    (letter,) = log.messages(topics.ROOM_EVENTS_DLQ)
    assert (letter["reason"], letter["offset"]) == ("engine_error", 6)
    assert [told["room_id"] for told in log.messages(topics.ROOM_SIGNALS)][-1] == "room-2"
    n_ticks = 2
    assert log.engine.counters.n_events == n_events + 1 + n_ticks
    # It is saved as parked, so nobody meets the damage again, and it begins anew when somebody says so.
    came_back = Log(first_offset=log.offset + 1)
    came_back.engine.restore(kept | log.save())
    resolve = {"type": "control", "control_id": "r", "actor": "operator", "action": "resolve_anomaly"}
    came_back.at(4.1, {**resolve, "args": {"anomaly_id": opened["anomaly_id"]}}).at(4.2, ENTER)
    assert came_back.messages(topics.ROOM_EVENTS_DLQ) == []
    assert came_back.engine.summary()["rooms"]["room-1"]["session"]["n_enters"] == 1
    # Whether somebody had stopped it can be read no more, unless the ledger alone is damaged: then it stays stopped.
    assert came_back.engine._rooms["room-1"].is_killed is (part == "hot")


def test_that_a_room_is_parked_is_told_before_it_is_saved_as_parked() -> None:
    engine = asleep().engine
    damage(engine, "hot")
    assert [(told.topic, told.key) for told in engine.save("room-1").told] == [(topics.ROOM_ANOMALIES, "room-1")]


def test_no_damage_of_a_saved_room_does_more_than_park_it_or_refuse_the_start() -> None:
    log = Log().at(0, ENTER).at(0.01, END).at(1.2, TICK).at(1.3, TICK)
    kept = log.save()
    for place in range(0, len(kept["room-1"]), 2):
        data = bytearray(kept["room-1"])
        data[place] ^= 0xFF
        came_back = Log(first_offset=log.offset + 1)
        try:
            came_back.engine.restore(kept | {"room-1": bytes(data)})
        except SnapshotError:
            continue
        came_back.at(1.4, ENTER).at(1.4, ENTER, "room-2").at(1.41, TICK)
        assert [told["code"] for told in came_back.messages(topics.ROOM_ANOMALIES)] in ([], ["engine_error"])
        assert "room-2" in [told["room_id"] for told in came_back.messages(topics.ROOM_SIGNALS)]


def test_a_new_policy_holds_for_rooms_in_which_events_may_wait() -> None:
    """Fewer events call for a visit from now on: whether a restart lay between must not show."""
    policy: dict[str, Any] = {"type": "control", "control_id": "p", "actor": "worker", "room_id": STAR}
    policy["action"] = "update_settings"
    policy["args"] = {"policy": {"engine": {"ledger_ms": HOUR_MS, "visit_after_events": 3}}}

    def run(*, restarts: bool) -> list[bytes]:
        log = Log().at(0, ENTER).at(0.0001, policy)
        if restarts:
            snapshot, told = log.engine.snapshot(), log.told
            log = Log(first_offset=2)
            log.engine.restore(snapshot)
            log.told = told
        for n in range(8):
            log.at(0.0002 + n / 1e5, ENTER)
        for n in range(1, 40):
            log.at(0.0003 + n * 500 / HOUR_MS, TICK)
        return [output.json() for output in log.told]

    assert run(restarts=True) == run(restarts=False)


def test_a_room_that_wakes_and_sleeps_leaves_nothing_behind() -> None:
    log = asleep()
    for show in range(1, 5):
        log.at(1.5 * show, ENTER).at(1.5 * show + 0.01, END).at(1.5 * show + 1.2, TICK).at(1.5 * show + 1.3, TICK)
        log.save()
    assert sum(map(len, log.engine._agenda._rooms.values())) == 1


def test_a_room_in_a_former_format_is_written_anew_though_nothing_happens_in_it() -> None:
    log = Log().at(0, ENTER).at(0.01, KILL).at(0.02, END).at(1.3, TICK).at(1.4, TICK)
    kept = log.save()
    old = {key: value[:1] + bytes((FORMAT - 1,)) + value[2:] for key, value in kept.items()}
    assert {format_of(value) for value in old.values()} == {FORMAT - 1}
    later = Log(first_offset=10)
    later.engine.restore(old)
    assert format_of(later.at(2, TICK).save()["room-1"]) == FORMAT


def test_a_partition_that_begins_by_a_move_knows_that_nobody_attended_the_log_since() -> None:
    log = Log().at(0, ENTER).at(0.001, {**TICK, "every_ms": 500})
    stays, moves = rekey({0: log.engine.snapshot()}, [2, 0], lambda _: 1)
    plan = {"type": "plan", "plan_id": "p", "status": "delivering", "bid_kind": "cost_per_action", "bid_minor": 100}
    for states in (stays, moves):
        after = Log(first_offset=2)
        after.engine.restore({**moves, STAR: states[STAR]})
        after.at(0.02, plan).at(0.03, ENTER).at(0.04, ENTER)
        commands = [c for c in after.messages(topics.BID_COMMANDS) if c["action"] != "heartbeat"]
        assert {command["status"] for command in commands} == {"suppressed"}


@pytest.mark.usefixtures("breaking")
def test_a_room_that_begins_anew_is_still_killed_and_goes_when_nothing_more_is_heard() -> None:
    log = Log().at(0, ENTER).at(0.0001, KILL).at(0.0002, BOOM).at(0.01, TICK)
    (anomaly,) = log.messages(topics.ROOM_ANOMALIES)
    resolve = {**KILL, "control_id": "r", "action": "resolve_anomaly", "args": {"anomaly_id": anomaly["anomaly_id"]}}
    log.at(0.02, resolve)
    room = log.engine._rooms["room-1"]
    assert room.parked is None
    assert room.is_killed
    off = {**KILL, "control_id": "off", "args": {"on": False}}
    log.at(0.03, off).at(0.04, TICK).at(2.5, TICK).at(3, TICK).at(6, TICK).at(7, TICK)
    assert log.engine.n_rooms == 0


@pytest.mark.parametrize("idle_hours", [0.01, 1.3], ids=["at once", "after its evidence was let go of"])
@pytest.mark.parametrize("restarts", [False, True])
def test_an_order_found_invalid_leaves_the_valid_return_whenever_the_rooms_next_event_comes(
    idle_hours: float, *, restarts: bool
) -> None:
    order = {"type": "order", "order_id": "o", "status": "paid", "amount_minor": 500, "currency": "CNY"}
    spend = {"type": "spend", "plan_id": "p", "impressions": 9, "clicks": 1, "cost_minor": 100, "currency": "CNY"}
    log = Log().at(0, {**order, "attribution": "direct", "user_id": "u"}).at(0.001, spend).at(0.002, TICK)
    room = log.engine._rooms["room-1"]
    room.evidence.flips += room.ledger.orders  # as an inquest does that finds its buyer
    log.at(idle_hours - 0.005, TICK).at(idle_hours - 0.004, TICK)
    assert (log.engine._rooms.find("room-1") or room).evidence.buyers.keys() == (
        set(room.ledger.orders) if idle_hours < 1 else set()
    )
    if restarts:
        kept, told = log.engine.snapshot(), log.told
        log = Log(first_offset=log.offset + 1)
        log.engine.restore(kept)
        log.told = told
    log.at(idle_hours, ENTER).at(idle_hours + 0.01, TICK)
    session = log.engine.summary()["rooms"]["room-1"]["session"]
    assert (session["roas"], session["roas_attributed"], session["roas_valid"]) == (5.0, 5.0, 0.0)
