"""A room over its quota is counted and no longer looked at viewer by viewer; money and controls never notice."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Engine, Record
from pipeline.shedding import CALM_MS
from schemas import topics
from schemas.settings import EngineSettings, Settings

BEGIN_MS = 1_767_225_600_000
TICK_MS = 500
PER_S = 20
PER_TICK = PER_S * TICK_MS // 1_000
ANGRY = "质量太差了，退货"
PLAIN = (
    "n_enters", "n_comments", "n_interactions", "n_product_clicks", "n_add_to_cart", "n_orders_created",
    "n_orders_paid", "n_refunds", "impressions", "clicks", "gmv_minor", "refund_minor", "spend_minor", "gift_minor",
    "aov_minor", "bounce_ratio", "dwell_mean_s", "dwell_p50_s", "prior_gmv_minor",
)  # fmt: skip
"""What a quota must never change."""


def engine(per_s: int = PER_S) -> Engine:
    return Engine(Settings(engine=EngineSettings(room_events_per_s=per_s)))


class Log:
    """A log that is written as it is told; `at_ms` counts from its begin."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, kind: str, at_ms: int, room: str = "hot", **fields: Any) -> None:
        number = len(self.records)
        event = {"type": kind, "event_id": f"e-{number}", "room_id": room, "ts": BEGIN_MS + at_ms, **fields}
        self.records.append((number, BEGIN_MS + at_ms, json.dumps(event).encode()))

    def comments(self, n: int, at_ms: int, room: str = "hot") -> None:
        for _ in range(n):
            number = len(self.records)  # nobody says anything twice: repeats move no mood
            self.add("comment", at_ms, room, user_id=f"u-{number}", text=f"{ANGRY}{number}")

    def tick(self, at_ms: int) -> None:
        number = len(self.records)
        event = {"type": "tick", "event_id": f"t-{number}", "room_id": "*", "ts": BEGIN_MS + at_ms}
        self.records.append((number, BEGIN_MS + at_ms, json.dumps(event).encode()))


def sessions(of: Engine) -> dict[str, Any]:
    return {room: found["session"] for room, found in of.summary()["rooms"].items()}


def run(log: Log, per_s: int = PER_S) -> tuple[Engine, list[dict[str, Any]]]:
    """Return the engine after a log, and its anomalies."""
    made = engine(per_s)
    outputs = made.process(log.records)
    return made, [json.loads(output.json()) for output in outputs if output.topic == topics.ROOM_ANOMALIES]


def test_beyond_its_quota_a_room_s_comments_are_counted_and_not_read() -> None:
    # tick      0             1             2
    # comments  |=====|       |===========| |===========|
    # read      |=====|       |========|....|=====|.......   what is left of a grant comes on top in the first tick
    log = Log()
    log.comments(PER_TICK // 2, 0)
    for tick in (1, 2):
        log.comments(5 * PER_TICK, tick * TICK_MS)
    log.tick(4_000)
    found, _ = run(log)
    metrics = sessions(found)["hot"]
    n_shed = found.counters.n_shed
    assert metrics["n_comments"] == PER_TICK // 2 + 10 * PER_TICK
    assert n_shed == found.summary()["n_shed"] == 75 * PER_TICK // 10
    assert metrics["n_scored"] == metrics["n_comments"] - n_shed
    assert found.summary()["rooms"]["hot"]["n_shed"] == found.counters.n_shed
    assert metrics["negative_ratio"] == 1.0  # of those that were read


def test_what_is_not_read_is_no_evidence_that_traffic_is_valid() -> None:
    log = Log()
    for number in range(1_000):
        log.add("comment", 0, user_id=f"u-{number}", device_id="d", text=ANGRY)  # one device, one text: a script
    log.tick(4_000)
    for per_s in (200, 1_000_000):
        found, _ = run(log, per_s)
        assert found.counters.n_shed == (900 if per_s == 200 else 0)
        assert sessions(found)["hot"]["ivt_ratio"] > 0.6  # 0.09, had the unread ones been taken for valid


def test_a_room_at_its_quota_or_below_loses_nothing() -> None:
    log = Log()
    for tick in range(40):
        log.comments(PER_TICK, tick * TICK_MS)
    log.tick(40 * TICK_MS)
    found, anomalies = run(log)
    assert found.counters.n_shed == 0
    assert sessions(found)["hot"]["n_scored"] == 40 * PER_TICK
    assert anomalies == []


def test_neighbours_of_a_hot_room_lose_nothing() -> None:
    log = Log()
    for tick in range(10):
        log.comments(10 * PER_TICK, tick * TICK_MS)
        log.comments(3, tick * TICK_MS, "calm")
    log.tick(10 * TICK_MS)
    found, _ = run(log)
    assert "n_shed" not in found.summary()["rooms"]["calm"]
    assert sessions(found)["calm"]["n_scored"] == 30
    assert found.summary()["rooms"]["hot"]["n_shed"] > 80 * PER_TICK


def test_heartbeats_beyond_the_quota_note_nobody_and_enters_leaves_and_likes_always_do() -> None:
    log = Log()
    log.comments(10 * PER_TICK, 0)
    for number in range(5):
        log.add("view", 0, action="heartbeat", session_id="s", user_id=f"h-{number}")
        log.add("view", 0, action="enter", session_id="s", user_id=f"v-{number}")
        log.add("view", 0, action="leave", session_id="s", user_id=f"l-{number}", dwell_ms=1_000)
        log.add("interaction", 0, action="like", user_id=f"i-{number}")
    log.tick(4_000)
    found, _ = run(log)
    metrics = sessions(found)["hot"]
    assert metrics["n_users"] == 10 * PER_TICK + 15  # everybody but those five; authors of unread comments too
    assert (metrics["n_enters"], metrics["n_interactions"], metrics["bounce_ratio"]) == (5, 5, 1.0)
    assert found.counters.n_events == len(log.records)


def test_shed_events_without_consent_are_counted_as_ever() -> None:
    log = Log()
    log.comments(4 * PER_TICK, 0)
    for number in range(40):
        log.add("view", 0, action="heartbeat", session_id="s", user_id=f"h-{number}", consent=False)
        log.add("comment", 0, text="hi", user_id=f"h-{number}", consent=False)
    for kind in ("view", "comment"):
        few, many = engine(), engine(1_000_000)
        chosen = [record for record in log.records if f'"{kind}"'.encode() in record[2]]
        few.process(chosen)
        many.process(chosen)
        n_unnamed = [
            sum(
                counted >> 64 * 15 & (1 << 64) - 1
                for pending in made._rooms["hot"].pending.values()
                for counted in pending.own.values()
            )
            for made in (few, many)
        ]
        assert n_unnamed == [40, 40]


def test_a_repeated_event_counts_once_also_when_it_is_shed() -> None:
    log = Log()
    log.comments(10 * PER_TICK, 0)
    again = [(offset + 1_000, stamp, value) for offset, stamp, value, *_ in log.records]
    found = engine()
    found.process([*log.records, *again])
    assert found.counters.n_duplicates == len(again)
    assert sessions(found)["hot"]["n_comments"] == 10 * PER_TICK


def test_an_operator_is_told_once_that_a_room_is_over_its_quota_and_once_that_it_is_not() -> None:
    log = Log()
    for tick in range(20):
        log.comments(10 * PER_TICK, tick * TICK_MS)
    over_ms = 20 * TICK_MS
    for at_ms in range(over_ms, over_ms + 2 * CALM_MS, TICK_MS):
        log.add("interaction", at_ms, action="like", user_id="u-1")
    found, anomalies = run(log)
    mine = [anomaly for anomaly in anomalies if anomaly["code"] == "n_shed"]
    assert [(told["status"], told["severity"]) for told in mine] == [("open", "S4"), ("resolved", "S4")]
    opened, resolved = mine
    assert opened["ts"] <= BEGIN_MS + 2_000
    assert BEGIN_MS + over_ms + CALM_MS - TICK_MS < resolved["ts"] <= BEGIN_MS + over_ms + CALM_MS + 2_000
    assert opened["params"]["room_events_per_s"] == PER_S
    assert "money_at_risk_minor" not in opened
    told = [json.loads(o.json()) for o in engine().process(log.records) if o.topic == topics.ROOM_SIGNALS]
    assert told[-1]["n_shed"] == found.counters.n_shed


KINDS = ("view", "comment", "interaction", "order", "gift", "spend", "counts", "presence")


def mixture(seed: int, n: int) -> Log:
    """Return a burst of every kind, with money in every state and events that come late."""
    random, log = Random(seed), Log()
    for number in range(n):
        at_ms = 20_000 + number // 30 * 100
        kind, late_ms = random.choice(KINDS), random.choice((0, 0, 0, 700, 15_000))
        user = {"user_id": f"u-{random.randrange(30)}", "device_id": f"d-{random.randrange(9)}"}
        fields: dict[str, dict[str, Any]] = {
            "view": {"action": random.choice(("enter", "heartbeat", "leave")), "session_id": "s", "dwell_ms": 3_000},
            "comment": {"text": random.choice((ANGRY, "666", "好看"))},
            "interaction": {"action": random.choice(("like", "product_click", "add_to_cart"))},
            "order": {
                "order_id": f"o-{random.randrange(40)}",
                "status": random.choice(("created", "paid", "refunded", "cancelled")),
                "amount_minor": random.randrange(1, 9_999),
                "currency": "CNY",
            },
            "gift": {"amount_minor": 10, "currency": "CNY"},
            "spend": {"plan_id": "p", "impressions": 9, "clicks": 2, "cost_minor": 77, "currency": "CNY"},
            "counts": {"n_enters": 2, "n_comments": 3},
            "presence": {"n_online": 12},
        }
        log.add(kind, at_ms - late_ms, room=random.choice(("hot", "hot", "calm")), **user, **fields[kind])
        offset, _, value, *_ = log.records[-1]
        log.records[-1] = (offset, BEGIN_MS + at_ms, value)
    log.tick(20_000 + n // 30 * 100 + 1_000)
    return log


@given(st.integers(0, 2**32), st.sampled_from((2, 8, 50)))
def test_no_quota_changes_a_plain_counter_or_money(seed: int, per_s: int) -> None:
    log = mixture(seed, 400)
    few, _ = run(log, per_s)
    many, _ = run(log, 1_000_000)
    assert many.counters.n_shed == 0 < few.counters.n_shed
    assert few.counters._replace(n_shed=0) == many.counters
    for room, metrics in sessions(many).items():
        got = sessions(few)[room]
        assert {name: got.get(name) for name in PLAIN} == {name: metrics.get(name) for name in PLAIN}


def oracle(log: Log, per_s: int) -> Counter[str]:
    """Return what each room sheds, by the rule as it is written, event by event."""
    per_tick = per_s * TICK_MS // 1_000
    n_events, granted, ticks, shed = Counter[str](), Counter[str](), dict[str, int](), Counter[str]()
    clock_ms = 0
    for _, stamp, value, *_ in log.records:
        event = json.loads(value)
        clock_ms = max(clock_ms, stamp or 0)
        room, tick = event["room_id"], clock_ms // TICK_MS
        if event["type"] == "tick":
            continue
        if granted[room] == 0:
            if ticks.get(room) == tick:
                shed[room] += event["type"] == "comment" or event.get("action") == "heartbeat"
                continue
            ticks[room], granted[room] = tick, per_tick
        granted[room] -= 1
        n_events[room] += 1
    return +shed


@pytest.mark.parametrize("per_s", [2, 8, 50, 400])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_shed_is_what_a_plainer_calculation_says(seed: int, per_s: int) -> None:
    log = mixture(seed, 900)
    found, _ = run(log, per_s)
    shed = Counter({room: n for room, state in found.summary()["rooms"].items() if (n := state.get("n_shed", 0))})
    assert shed == oracle(log, per_s)
