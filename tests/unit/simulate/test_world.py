"""The world is a function of its arguments: not of steps, neighbours, hash seed or time zone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter

from pipeline.simulate import (
    DEFAULT_START_TS,
    SCENARIOS,
    Arrival,
    Parameters,
    UnknownScenarioError,
    World,
    play,
    simulate,
)
from pipeline.simulate.parameters import FEEDS
from schemas.base import FeedName
from schemas.events import EVENT_MODELS

ROOT = Path(__file__).parents[3]
START = DEFAULT_START_TS
MINUTE_MS = 60_000
Union: Any = EVENT_MODELS[0]
for model in EVENT_MODELS[1:]:
    Union = Union | model
ADAPTER: TypeAdapter[Any] = TypeAdapter(Annotated[Union, Field(discriminator="type")])
FEED_OF: dict[str, FeedName] = {
    "view": "view",
    "presence": "view",
    "interaction": "view",
    "comment": "comment",
    "order": "order",
    "gift": "order",
    "spend": "spend",
    "plan": "plan",
}


def early(scenario: str, n_rooms: int, seed: int) -> World:
    """Return a world whose troubles last from minute 1 to minute 3."""
    return World(scenario, n_rooms, seed, trouble_at_ms=START + MINUTE_MS, trouble_for_ms=2 * MINUTE_MS)


def text(arrivals: Iterable[Arrival]) -> bytes:
    return b"\n".join(orjson.dumps(arrival) for arrival in arrivals)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (text(simulate("mixed", 4, seed, minutes=5)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("hash_seed", "zone"), [("0", "UTC"), ("4242", "America/St_Johns")])
def test_neither_hash_seed_nor_time_zone_shows(hash_seed: str, zone: str) -> None:
    command = ["simulate", "--rooms", "3", "--minutes", "4", "--seed", "9", "--trouble-at-s", "60"]
    environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": hash_seed, "TZ": zone}
    done = subprocess.run(
        [sys.executable, "-m", "agents", *command], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    world = World("mixed", 3, 9, trouble_at_ms=START + 60_000)
    assert done.stdout.splitlines() == [orjson.dumps(event) for _, _, event in play(world, 4)]


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(st.integers(1, 40_000), min_size=1, max_size=60))
def test_the_size_of_steps_does_not_show(steps: list[int]) -> None:
    whole = early("mixed", 4, 11)
    stepped = early("mixed", 4, 11)
    moment, parts = START, []
    for step in steps:
        moment += step
        parts += stepped.advance(moment)
    assert text(parts) == text(whole.advance(moment))
    assert stepped.truth() == whole.truth()
    assert stepped.books() == whole.books()


def test_a_room_is_the_same_whatever_rooms_are_beside_it() -> None:
    few, many = (
        [arrival for arrival in simulate("mixed", n_rooms, 5, minutes=4) if arrival[1] == "room-002"]
        for n_rooms in (2, 12)
    )
    assert text(few) == text(many)


def test_going_back_in_time_returns_nothing() -> None:
    world = World("calm", 1, 1)
    assert world.advance(START + MINUTE_MS)
    assert world.advance(START) == []
    assert world.now_ts == START + MINUTE_MS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_event_is_valid_and_its_id_is_unique(scenario: str) -> None:
    world = early(scenario, 18 if SCENARIOS[scenario].mix else 1, 3)
    arrivals = list(play(world, 4))
    for arrival_ts, room_id, event in arrivals:
        ADAPTER.validate_json(orjson.dumps(event))
        assert event["room_id"] == room_id
        assert event["ts"] <= arrival_ts
    assert len({event["event_id"] for _, _, event in arrivals}) == len(arrivals)


def test_every_event_is_valid_across_midnight_and_the_end_of_the_session() -> None:
    #   23:50       00:00        00:10          00:30
    #   start ------- day turns -- session ends -- stop
    parameters = Parameters(session_s=20 * 60)
    world = World("calm", 2, 3, START + (3 * 60 + 50) * MINUTE_MS, parameters=parameters)
    events = [event for _, _, event in play(world, 40)]
    for event in events:
        ADAPTER.validate_json(orjson.dumps(event))
    dates = [event["stat_date"] for event in events if "stat_date" in event]
    assert sorted(set(dates)) == ["2025-06-01", "2025-06-02"]
    ends = {event["room_id"]: event["ts"] for event in events if event["type"] == "room" and event["action"] == "end"}
    assert set(ends) == {"room-001", "room-002"}
    entered = [event["ts"] for event in events if event["type"] == "view" and event["action"] == "enter"]
    assert max(entered) < min(ends.values()) + 1_000
    assert {event["status"] for event in events if event["type"] == "plan"} == {"delivering", "ended"}


def test_records_come_in_order_of_arrival_and_each_room_starts_with_its_start() -> None:
    arrivals = list(simulate("mixed", 6, 2, minutes=3))
    moments = [arrival_ts for arrival_ts, _, _ in arrivals]
    assert moments == sorted(moments)
    firsts: dict[str, str] = {}
    for _, room_id, event in arrivals:
        firsts.setdefault(room_id, event["type"])
    assert firsts == dict.fromkeys((f"room-{number:03d}" for number in range(1, 7)), "room")


@pytest.mark.parametrize("scenario", ["calm", "feed_dead"])
def test_a_heartbeat_never_promises_what_has_not_arrived(scenario: str) -> None:
    world = early(scenario, 3, 21)
    promised: dict[tuple[str, str], int] = {}
    n_promises = 0
    for _, room_id, event in play(world, 8):
        if event["type"] == "feed":
            promised[room_id, event["feed"]] = event["complete_through_ts"]
            n_promises += 1
        elif feed := FEED_OF.get(event["type"]):
            assert event["ts"] > promised.get((room_id, feed), 0)
    assert n_promises > 3 * 5 * 40


def test_a_spend_heartbeat_covers_no_cost_that_is_not_in_a_report_yet() -> None:
    told: dict[str, int] = {}
    n_promises = 0
    for _, _, event in simulate("calm", 1, 4, minutes=20):
        if event["type"] == "spend" and event["reporting"] != "adjust":
            told[event["plan_id"]] = event["ts"]
        elif event.get("feed") == "spend" and len(told) == 2:
            assert event["complete_through_ts"] <= min(told.values())
            n_promises += 1
    assert n_promises > 100


def test_every_feed_has_a_heartbeat_every_ten_seconds() -> None:
    beats: dict[str, list[int]] = {feed: [] for feed in FEEDS}
    for _, _, event in simulate("calm", 1, 4, minutes=5):
        if event["type"] == "feed":
            beats[event["feed"]].append(event["ts"])
    for feed, moments in beats.items():
        assert {after - before for before, after in pairwise(moments)} == {10_000}, feed


def test_an_unknown_scenario_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownScenarioError, match=r"must be one of calm, .*mixed.*, got 'storm'"):
        World("storm", 1, 1)


def test_a_world_that_opens_later_shares_no_id_with_an_earlier_one() -> None:
    ids = [
        {event["event_id"] for _, _, event in simulate("calm", 1, 1, start_ts, minutes=1)}
        for start_ts in (START, START + 3_600_000)
    ]
    assert ids[0].isdisjoint(ids[1])
