"""Simulated rooms: a calm past in order, then real time; and an engine finds out about them soon enough."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import orjson
import pytest

from agents.clock import tick
from agents.demo.rooms import STARTS_MS, STEP_MS, WAVE_MS, SimulatedRooms, past_policy, past_s
from agents.demo.source import Due, watched_policy
from agents.kafka import partition_of
from pipeline import Engine
from schemas.settings import EngineSettings, Policy, Settings

NOW = 1_780_000_000_000
KEY = "k" * 32
N_PARTITIONS = 4
SOON_S = 28
"""Of the 40 s that a demo has until its first command, the rest is what broker, worker and past may take."""


def made(n_rooms: int = 6, seed: int = 1, scenario: str = "mixed") -> SimulatedRooms:
    return SimulatedRooms(scenario, n_rooms, seed, NOW, control_key=KEY.encode(), policy=Policy())


def the_past(rooms: SimulatedRooms) -> list[Due]:
    found: list[Due] = []
    while not rooms.is_live:
        found += rooms.due(NOW)
    return found


def test_the_past_begins_with_its_policy_and_comes_in_order_up_to_now() -> None:
    rooms = made()
    first, *past = the_past(rooms)
    control = orjson.loads(first.value)
    assert (first.room_id, control["action"]) == ("*", "update_settings")
    assert Policy.model_validate(control["args"]["policy"]) == past_policy(Policy())
    stamps = [due.stamp_ms for due in past]
    assert stamps == sorted(stamps)
    assert NOW - past_s(6) * 1_000 <= stamps[0]
    assert NOW - 2_000 < stamps[-1] < NOW
    assert all(due.n_events == 1 for due in past)
    assert rooms.live_since_ms == rooms.clock_ms == NOW


def test_no_look_brings_more_than_a_step_of_the_past() -> None:
    rooms, clocks = made(), [NOW - past_s(6) * 1_000]
    while not rooms.is_live:
        rooms.due(NOW)
        clocks.append(rooms.clock_ms or 0)
    assert max(after - before for before, after in pairwise(clocks)) == STEP_MS


def test_live_records_come_when_they_arrive_and_are_the_same_however_often_one_looks() -> None:
    often, rarely = made(), made()
    assert the_past(often) == the_past(rarely)
    found: list[Due] = []
    for step in range(1, 101):
        news = often.due(NOW + 100 * step)
        assert all(NOW + 100 * (step - 1) <= due.stamp_ms < NOW + 100 * step for due in news)
        found += news
    assert found == rarely.due(NOW + 10_000)


def test_only_troubles_that_have_begun_are_told() -> None:
    rooms = made(10)
    the_past(rooms)
    assert rooms.truth() == []
    rooms.due(NOW + STARTS_MS["bot_burst"] + 1_000)
    assert [trouble.kind for trouble in rooms.truth()] == ["bot_burst"]
    rooms.due(NOW + 16_000)
    kinds = Counter(trouble.kind for trouble in rooms.truth())
    assert kinds == {**dict.fromkeys(STARTS_MS, 1), "bot_burst": 2}


def test_the_next_wave_hits_other_rooms() -> None:
    rooms = made(8)
    the_past(rooms)
    for wall_ms in range(NOW, NOW + WAVE_MS + 2 * STEP_MS, STEP_MS):
        rooms.due(wall_ms)
    by_kind: dict[str, list[str]] = {}
    for trouble in sorted(rooms.truth(), key=lambda trouble: trouble.start_ts):
        by_kind.setdefault(trouble.kind, []).append(trouble.room_id)
    assert {kind: len(room_ids) for kind, room_ids in by_kind.items() if kind != "bot_burst"} == dict.fromkeys(
        ("landing_page", "cost_rise", "angry_chat", "crowd_echo"), 2
    )
    assert all(room_ids[0] != room_ids[1] for kind, room_ids in by_kind.items() if kind != "bot_burst")


def test_the_largest_rooms_act_by_themselves_and_few_rooms_are_no_error() -> None:
    rooms = made(8)
    past = the_past(rooms)
    enters = Counter(due.room_id for due in past if b'"enter"' in due.value)
    modes = rooms.modes()
    assert modes.auto[0] == enters.most_common(1)[0][0]
    assert not set(modes.auto) & set(modes.approve)
    alone = made(1)
    the_past(alone)
    assert (alone.modes().auto, alone.modes().approve) == (("room-001",), ())
    alone.due(NOW + 20_000)


def test_a_policy_of_the_users_own_is_kept_but_for_how_often_is_told() -> None:
    own = Policy(engine=EngineSettings(max_channels=3))
    for policy in (past_policy(own), watched_policy(own), watched_policy(own, 200.0)):
        assert policy.engine.max_channels == 3
        Policy.model_validate(policy.model_dump())
    assert watched_policy(own).engine.emit_interval_ms == watched_policy(own).engine.channels_interval_ms == 1_000
    assert watched_policy(own, 7.5).engine.emit_interval_ms == 8_000


@pytest.mark.parametrize("seed", [1, 2])
def test_an_engine_finds_bots_and_moves_a_bid_soon(seed: int) -> None:
    rooms = made(20, seed)
    engines = [
        Engine(Settings.model_validate({"privacy_key": "p" * 32, "control_key": KEY}), partition=number)
        for number in range(N_PARTITIONS)
    ]
    offsets, found = [0] * N_PARTITIONS, list[Any]()

    def write(due: Due) -> None:
        everywhere = range(N_PARTITIONS) if due.room_id == "*" else [partition_of(due.room_id, N_PARTITIONS)]
        for partition in everywhere:
            record = (offsets[partition], due.stamp_ms, due.value, due.room_id.encode())
            found.extend(engines[partition].process([record]))
            offsets[partition] += 1

    for due in the_past(rooms):
        write(due)
    opened_before = [output for output in found if output.topic == "room.anomalies"]
    assert opened_before == []  # a calm past
    found.clear()
    write(rooms.watched(NOW))
    for step in range(1, 2 * SOON_S + 1):
        wall_ms = NOW + 500 * step
        for due in rooms.due(wall_ms):
            write(due)
        for partition in range(N_PARTITIONS):
            write_tick = (offsets[partition], wall_ms, tick(partition, wall_ms), b"*")
            found.extend(engines[partition].process([write_tick]))
            offsets[partition] += 1
    messages = [(output.topic, orjson.loads(output.json())) for output in found]
    (bots, *_) = [trouble for trouble in rooms.truth() if trouble.kind == "bot_burst"]
    alarms = [message for topic, message in messages if topic == "room.anomalies" and message["cause"] == "ivt"]
    assert alarms[0]["room_id"] == bots.room_id
    moves = [message for topic, message in messages if topic == "bid.commands" and message.get("value") is not None]
    assert any(move["room_id"] == bots.room_id and move["emergency"] for move in moves)
    rooms_told = {message["room_id"] for topic, message in messages if topic == "room.signals"}
    assert len(rooms_told) == 20
    assert [message for topic, message in messages if topic == "room.events.dlq"] == []
