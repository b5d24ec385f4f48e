"""The benchmarks of time: their loads are what they say, and an effect is counted for the event that caused it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import orjson
import pytest

from agents.kafka import partition_of
from benchmarks import backlog
from benchmarks.latency import Effect, effect, latencies, summary
from benchmarks.live import Seen, percentiles
from benchmarks.pacing import HOT_ROOM, Load, Template, lives, openings, pool, probe
from pipeline import Engine, Record
from schemas import topics
from schemas.settings import Settings

LOAD = Load("nowhere", 20, 4, 400, 10.0, seed=1, probe_every_s=20.0)
NOW_MS = time.time_ns() // 1_000_000


def shown(events: list[Template], now_ms: int = NOW_MS) -> list[dict[str, Any]]:
    return [orjson.loads(event.at(number, now_ms)) for number, event in enumerate(events)]


def engine() -> Engine:
    return Engine(Settings(trust_log=True))


def told(outputs: list[Any], read_ms: float) -> list[Effect]:
    """Return what a watcher keeps of an engine's messages."""
    found = [
        effect(Seen(output.topic, 0, 0, 0, read_ms, message)._replace(ts=message.get("ts", 0)))
        for output in outputs
        if (message := orjson.loads(output.json())) is not None
    ]
    return [one for one in found if one is not None]


# -- loads ------------------------------------------------------------------------------------------------------


def test_an_event_of_the_pool_is_a_new_event_each_time_it_is_sent() -> None:
    events = pool(LOAD)
    first, again = events[7].at(1, NOW_MS), events[7].at(2, NOW_MS + 5)
    one, two = orjson.loads(first), orjson.loads(again)
    assert one["event_id"] != two["event_id"]
    assert (one["ts"], two["ts"]) == (NOW_MS, NOW_MS + 5)
    assert {**one, "event_id": "", "ts": 0} == {**two, "event_id": "", "ts": 0}
    made = engine()
    made.process([(n, NOW_MS, event.at(n, NOW_MS), event.key) for n, event in enumerate([*events, *events])])
    made_n = len(events)
    again_ids = [(n + 2 * made_n, NOW_MS, event.at(n, NOW_MS), event.key) for n, event in enumerate(events)]
    made.process(again_ids)  # the same numbers: the same ids
    assert (made.counters.n_duplicates, made.counters.rejects) == (made_n, {})


def test_half_of_a_hot_load_is_one_room_s_and_lies_where_it_belongs() -> None:
    events = pool(LOAD._replace(hot_share=0.5))
    rooms = Counter(event.key.decode() for event in events)
    assert rooms[HOT_ROOM] == len(events) / 2
    assert {event["room_id"] for event in shown(events)} == set(rooms)
    assert all(event.partition == partition_of(event.key.decode(), 4) for event in events)
    halves = Counter(event.key == HOT_ROOM.encode() for event in events[: len(events) // 2])
    assert abs(halves[True] - halves[False]) <= 2  # one beside the other, not one after the other


def test_rooms_of_an_even_load_take_turns() -> None:
    events = pool(LOAD._replace(is_even=True))
    turn = [event.key for event in events[: LOAD.n_rooms]]
    assert sorted(turn) == [b"room-%06d" % number for number in range(LOAD.n_rooms)]
    assert [event.key for event in events] == turn * (len(events) // LOAD.n_rooms)


def test_openings_vouch_for_feeds_from_now_and_lives_end() -> None:
    feeds = [event for event in shown(list(openings(LOAD))) if event["type"] == "feed"]
    assert len(feeds) == 2 * LOAD.n_rooms
    assert min(feed["complete_through_ts"] for feed in feeds) > NOW_MS + 3_600_000
    gone = shown(list(lives(LOAD._replace(n_ended=30))))
    assert len({event["room_id"] for event in gone}) == 30
    assert Counter(event["room_id"] for event in gone if event.get("action") == "end").total() == 30
    made = engine()
    made.process([(n, NOW_MS, orjson.dumps(event)) for n, event in enumerate(gone)])
    assert made.counters.rejects == {}


# -- effects ----------------------------------------------------------------------------------------------------


def test_a_probe_causes_one_anomaly_one_command_and_its_room_s_signals_and_nothing_else_does() -> None:
    made, records = engine(), list[Record]()

    def send(events: list[Template], at_ms: int) -> list[Any]:
        begin = len(records)
        records.extend((begin + n, at_ms, event.at(begin + n, at_ms), event.key) for n, event in enumerate(events))
        return made.process(records[begin:])

    send(list(openings(LOAD)), NOW_MS)
    usual = pool(LOAD)
    quiet: list[Any] = []
    for step in range(20):
        quiet += send(usual[step * 100 : step * 100 + 100], NOW_MS + 500 * step)
    assert {one.kind for one in told(quiet, 0.0)} == {"signals"}
    at_ms = NOW_MS + 20_000
    outputs = send([probe("room-000003", 4, is_out=True)], at_ms) + send(usual[:1], at_ms + 600)
    found = latencies([("room-000003", float(at_ms))], told(outputs, at_ms + 700.0))
    assert found == {"anomaly": [700.0], "command": [700.0], "signals": [700.0]}
    # Put back and out again after a while, it causes all of it again.
    send([probe("room-000003", 4, is_out=False)], at_ms + 8_000)
    outputs += send(usual[1:2], at_ms + 19_000)
    outputs += send([probe("room-000003", 4, is_out=True)], at_ms + 20_000) + send(usual[2:3], at_ms + 20_600)
    probes = [("room-000003", float(at_ms)), ("room-000003", at_ms + 20_000.0)]
    assert None not in latencies(probes, told(outputs, at_ms + 20_700.0))["command"]


def test_an_effect_belongs_to_the_newest_probe_that_its_evaluation_can_know() -> None:
    effects = [
        Effect("command", "r", 900, 950.0),  # from before
        Effect("command", "r", 1_500, 9_000.0),  # told again after a crash
        Effect("command", "r", 1_500, 1_600.0),
        Effect("command", "other", 1_500, 1_550.0),
    ]
    assert latencies([("r", 1_000.0), ("r", 2_000.0)], effects)["command"] == [600.0, None]
    found = summary([("r", 1_000.0), ("r", 2_000.0)], effects)
    assert (found["n_probes"], found["command"]["n"], found["command"]["n_missing"]) == (2, 1, 1)
    assert found["anomaly"] == {"n": 0, "p50": None, "p95": None, "p99": None, "max": None, "n_missing": 2}


@pytest.mark.parametrize(
    ("n", "expected"), [(1, (1, 1, 1, 1)), (2, (1, 2, 2, 2)), (100, (50, 95, 99, 100)), (1_000, (500, 950, 990, 1_000))]
)
def test_percentiles_are_values_that_were_measured(n: int, expected: tuple[int, ...]) -> None:
    found = percentiles([float(value) for value in range(n, 0, -1)])
    assert tuple(found[name] for name in ("p50", "p95", "p99", "max")) == expected


# -- a backlog --------------------------------------------------------------------------------------------------


def test_a_backlog_is_in_order_of_time_and_nobody_attends_its_rooms() -> None:
    plan = backlog.Plan(n_rooms=8, rate=50, span_s=120, seed=1)
    begin_ms = NOW_MS - 200_000
    records = list(backlog.records(plan, begin_ms))
    assert [stamp for _, stamp, _, _ in records] == sorted(stamp for _, stamp, _, _ in records)
    outputs: list[Any] = []
    for place in range(4):
        made = engine()
        mine = [(n, stamp, value, key) for n, (where, stamp, key, value) in enumerate(records) if where == place]
        outputs += made.process(mine)
        assert made.counters.rejects == {"not_json": 1}  # the end
    commands = [orjson.loads(output.json()) for output in outputs if output.topic == topics.BID_COMMANDS]
    statuses = Counter((one["action"], one["status"]) for one in commands if one["action"] != "heartbeat")
    assert set(statuses) == {("hold", "suppressed")}
    # The same rooms attended: there would have been something to suppress.
    steps = 0
    for place in range(4):
        mine = [record for record in records if record[0] == place and b'"every_ms"' not in record[3]]
        found = engine().process([(n, stamp, value, key) for n, (_, stamp, key, value) in enumerate(mine)])
        steps += sum(getattr(one.value, "action", "") in ("set_bid", "set_roi_goal") for one in found)
    assert steps > 0


def test_what_is_stale_and_what_of_it_could_be_acted_on_are_told_apart() -> None:
    def command(action: str, status: str, mode: str, *, is_over: bool) -> backlog.Command:
        return backlog.Command(action, status, mode, is_over)

    found = backlog._judged(
        [
            command("set_bid", "issued", "auto", is_over=True),
            command("set_bid", "issued", "auto", is_over=False),
            command("set_bid", "suppressed", "auto", is_over=True),
            command("set_bid", "issued", "shadow", is_over=True),
            command("set_bid", "approved", "approve", is_over=True),
            command("hold", "issued", "auto", is_over=True),
        ]
    )
    assert (found["n_stale"], found["n_stale_not_suppressed"], found["n_actionable_stale"]) == (5, 4, 2)
