"""When the engine looks at a room, what it says when, and that time alone costs nothing."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from pipeline.ids import next_turn_ms
from schemas.settings import EngineSettings
from tests.partition import Partition, second_of
from tests.strategies import START_MS

YEAR_S = 365 * 86_400
GOLD = [0.5, 1.0, 0.5]


class Watched(Partition):
    """A partition that notes each visit to a room as (second, room)."""

    def __init__(self, **sections: Any) -> None:
        super().__init__(**sections)
        self.visits: list[tuple[float, str]] = []
        self.visit = self.engine._visits.visit
        self.engine._visits.visit = self._noted  # type: ignore[method-assign]

    def _noted(self, room: Any, now_ms: int, passing_ms: int, out: list[Any]) -> None:
        self.visits.append((second_of(now_ms), room.room_id))
        self.visit(room, now_ms, passing_ms, out)


def plan(partition: Partition, second: float, **fields: Any) -> None:
    shown = {"status": "delivering", "bid_kind": "cost_per_action", "bid_minor": 1_000, **fields}
    partition.at(second, "plan", plan_id="plan-1", **shown)


@pytest.mark.parametrize("tick_ms", [500, 1_000])
def test_evaluations_fall_on_multiples_of_the_tick_before_the_record_that_passed_them(tick_ms: int) -> None:
    log = Watched(engine=EngineSettings(tick_ms=tick_ms, visit_after_events=2))
    log.enter(0.1)
    for n in range(60):
        passed_ms = START_MS + 137 * n + 237
        before = len(log.visits)
        log.enter((passed_ms - START_MS) / 1_000)
        for second, _ in log.visits[before:]:
            assert (second * 1_000) % tick_ms == 0
            assert second * 1_000 <= passed_ms - START_MS
    assert len(log.visits) >= 6
    assert [second for second, _ in log.visits] == sorted(second for second, _ in log.visits)


def test_a_record_on_the_boundary_is_not_in_the_evaluation_that_it_brings_about() -> None:
    log = Partition(engine=EngineSettings(emit_interval_ms=500, visit_interval_ms=500))
    log.enter(0.2).enter(0.499).enter(0.5)
    #        0.2   0.499
    #   I     I     I
    #   [-----------)[0.5 ...
    (told,) = log.signals()
    assert (second_of(told["ts"]), told["windows"]["60"]["n_enters"]) == (0.5, 2)
    log.tick(1.0)
    assert log.signals()[-1]["windows"]["60"]["n_enters"] == 3


def test_a_late_event_shows_in_the_next_emission() -> None:
    log = Partition(engine=EngineSettings(emit_interval_ms=500, visit_interval_ms=500))
    log.enter(0).ticks(0, 10)
    assert log.signals()[-1]["windows"]["60"]["n_enters"] == 1
    n_before = len(log.signals())
    log.enter(10.1, late_s=9).tick(11.5)
    assert len(log.signals()) == n_before + 1
    assert log.signals()[-1]["windows"]["60"]["n_enters"] == 2
    assert log.engine.counters.n_late == 1


def test_a_stamp_that_steps_back_does_not_turn_the_clock_back() -> None:
    log = Watched()
    log.enter(10).enter(4).enter(10.2)
    assert log.engine.clock_ms == START_MS + 10_200
    assert log.visits == []
    log.enter(12)
    assert [second for second, _ in log.visits] == [11.0] or min(second for second, _ in log.visits) > 10


# -- heartbeats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [0.5, 0.7, 1.9, 5.0])
def test_a_heartbeat_goes_out_every_five_seconds_without_any_room(step_s: float) -> None:
    log = Partition()
    log.tick(0).ticks(0, 60, step_s)
    last_s = int(60 / step_s + 1e-9) * step_s
    assert [second_of(beat["ts"]) for beat in log.heartbeats()] == [5.0 * n for n in range(1, 13) if 5 * n <= last_s]
    assert log.engine.n_rooms == 0


def test_heartbeats_are_commands_of_the_partition_with_a_growing_seq() -> None:
    log = Partition()
    log.tick(0).ticks(0, 20)
    beats = log.heartbeats()
    assert {(beat["room_id"], beat["direction"], beat["status"]) for beat in beats} == {("*", "none", "issued")}
    assert [beat["seq"] for beat in beats] == sorted({beat["seq"] for beat in beats})
    assert len({beat["command_id"] for beat in beats}) == len(beats)
    assert all(0 < beat["expires_ts"] - beat["ts"] <= 60_000 for beat in beats)


def test_a_jump_gives_one_heartbeat_the_newest() -> None:
    log = Partition()
    log.tick(0).tick(3_603.3)
    assert [second_of(beat["ts"]) for beat in log.heartbeats()] == [3_600.0]


# -- what time costs --------------------------------------------------------------------------------------------


def test_a_jump_of_years_is_a_handful_of_visits() -> None:
    log = Watched()
    plan(log, 0)
    plan(log, 1, status="budget_out")
    for n in range(40):
        log.enter(2 + n, user_id=f"u{n}", channel=f"channel-{n % 5}")
    log.at(50, "feed", feed="view", complete_through_ts=START_MS + 50_000)
    log.at(51, "order", order_id="o", status="paid", amount_minor=5, currency="CNY")
    log.ticks(51, 60)
    before = len(log.visits)
    log.tick(3 * YEAR_S)
    # Each bucket leaves each of four windows once, deadlines come once: nothing grows with the length of the jump.
    assert len(log.visits) - before <= 4 * 50
    assert len(log.heartbeats()) <= 13
    before = len(log.visits)
    log.tick(9 * YEAR_S).tick(9 * YEAR_S + 0.5)
    assert len(log.visits) == before


def test_rooms_that_are_idle_are_not_visited() -> None:
    log = Watched()
    for n in range(100):
        log.enter(n / 100, room_id=f"room-{n}")
    log.ticks(1, 7_300, 50)
    before = len(log.visits)
    log.ticks(7_300, 7_400)
    assert log.visits[before:] == []
    for n in range(100):
        log.enter(7_400 + n / 10, room_id="room-7")
    assert {room for _, room in log.visits[before:]} == {"room-7"}


def test_a_busy_room_is_visited_about_once_a_second() -> None:
    log = Watched()
    for n in range(600):
        log.enter(n / 10)
    assert 55 <= len(log.visits) <= 75


# -- emissions --------------------------------------------------------------------------------------------------


def test_a_busy_rooms_signals_go_out_every_five_seconds_and_its_channels_every_thirty() -> None:
    log = Partition()
    for n in range(1_000):
        log.enter(n / 5, channel="paid")
    moments = [second_of(signals["ts"]) for signals in log.signals()]
    assert {later - earlier for earlier, later in pairwise(moments)} == {5.0}
    with_channels = [second_of(signals["ts"]) for signals in log.signals() if "channels" in signals]
    # The first emission brings them; from then on they keep their own turns.
    gaps = [later - earlier for earlier, later in pairwise(with_channels)]
    assert gaps
    assert min(gaps) >= 30.0
    assert set(gaps[1:]) <= {30.0}
    assert [signals["revision"] for signals in log.signals()] == list(range(1, len(moments) + 1))


def test_rooms_take_turns_by_a_stable_hash() -> None:
    log, turns = Partition(), Counter[float]()
    for n in range(200):
        log.enter(0.1, room_id=f"room-{n}")
    log.ticks(0.5, 10)
    first: dict[str, float] = {}
    for signals in log.signals():
        first.setdefault(signals["room_id"], second_of(signals["ts"]))
    turns.update(first.values())
    assert len(first) == 200
    #  Ten turns of half a second, about twenty rooms each.
    assert len(turns) == 10
    assert 5 <= min(turns.values()) <= max(turns.values()) <= 45
    # The same on every machine, in every process.
    assert [first[room] % 5 for room in ("room-1", "room-2", "room-3")] == GOLD


def test_nothing_changed_nothing_said() -> None:
    log = Partition()
    log.enter(0).ticks(0, 20)
    n_before = len(log.signals())
    log.ticks(20, 55)
    assert len(log.signals()) == n_before == 1


def test_an_anomalys_opening_brings_the_signals_at_once() -> None:
    log = Partition()
    plan(log, 0)
    for n in range(60):
        log.enter(1 + n / 4)
    turn_s = second_of(log.signals()[-1]["ts"])
    plan(log, turn_s + 6.6, status="budget_out")
    log.tick(turn_s + 7.2)
    (opened,) = [anomaly for anomaly in log.anomalies() if anomaly["status"] == "open"]
    assert second_of(opened["ts"]) == turn_s + 7.0
    assert log.signals()[-1]["ts"] == opened["ts"]


def test_an_opening_that_leads_to_no_command_brings_them_too() -> None:
    log = Partition().enter(0)
    log.at(2, "feed", feed="view", complete_through_ts=START_MS + 2_000)
    log.ticks(2, 184)
    #  dead after 180 s without news, between the room's turns at 180.5 and 185.5
    (opened,) = log.anomalies()
    assert second_of(opened["ts"]) == 182.5
    assert log.signals()[-1]["ts"] == opened["ts"]
    assert log.commands() == []


def test_a_command_brings_the_signals_at_once() -> None:
    log = Partition()
    plan(log, 0)
    for n in range(60):
        log.enter(1 + n / 4)
    turn_s = second_of(log.signals()[-1]["ts"])
    log.control(turn_s + 6.6, "override_bid", plan_id="plan-1", value=900)
    (command,) = log.steps()
    assert second_of(command["ts"]) == turn_s + 6.6
    log.tick(turn_s + 7.2)
    assert second_of(log.signals()[-1]["ts"]) == turn_s + 7.0


def test_a_hold_comes_with_signals_of_the_same_moment() -> None:
    log = Partition()
    plan(log, 0)
    log.ticks(0, 10)
    (hold,) = log.commands()
    assert hold["action"] == "hold"
    assert hold["ts"] in [signals["ts"] for signals in log.signals()]


@pytest.mark.parametrize("after_ms", [START_MS, START_MS + 1, START_MS + 999, START_MS + 2_500])
@pytest.mark.parametrize("phase", [0, 500, 4_500])
def test_the_next_turn_is_the_first_one_after(after_ms: int, phase: int) -> None:
    turn_ms = next_turn_ms(after_ms, phase, 5_000)
    assert turn_ms % 5_000 == phase
    assert after_ms < turn_ms <= after_ms + 5_000
