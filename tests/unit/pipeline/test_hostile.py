"""Valid but extreme records: none may stop the engine, or push out what a reader would refuse."""

from __future__ import annotations

import json
from typing import Any

from pipeline import Engine
from schemas import topics
from schemas.base import MAX_INTEGER
from schemas.settings import Settings
from tests.strategies import START_MS

Event = dict[str, Any]


def event(kind: str, number: int, **fields: Any) -> Event:
    return {"type": kind, "event_id": f"e-{number}", "room_id": "room-1", "ts": START_MS, **fields}


def outputs_of(values: list[Any]) -> tuple[Engine, list[Any]]:
    """Process values as a file; every output must pass its own model and its own bytes."""
    engine = Engine(Settings(trust_log=True))
    outputs = engine.process([(place, None, json.dumps(value).encode()) for place, value in enumerate(values)])
    outputs += engine.flush()
    for output in outputs:
        assert json.loads(output.json()) == json.loads(output.value.model_dump_json(exclude_none=True))
        type(output.value).model_validate_json(output.json())
    again = Engine(Settings(trust_log=True))
    again.restore(engine.snapshot())
    assert again.summary() == engine.summary()
    return engine, outputs


def test_more_channels_than_are_told_apart_then_an_order_without_one() -> None:
    channels = [event("view", n, action="enter", session_id="s", channel=f"channel-{n}") for n in range(20)]
    order = event("order", 30, order_id="o", status="created", amount_minor=5, currency="CNY")
    paid = {**order, "event_id": "e-31", "status": "paid", "ts": START_MS + 60_000}
    engine, _ = outputs_of([*channels, order, paid])
    assert engine.summary()["rooms"]["room-1"]["session"]["n_orders_paid"] == 1


def test_counts_at_their_limit_add_up_to_what_a_reader_still_takes() -> None:
    batch = [[event("counts", 500 * n + m, n_enters=MAX_INTEGER) for m in range(500)] for n in range(5)]
    engine, _ = outputs_of(batch)
    assert engine.summary()["rooms"]["room-1"]["session"]["n_enters"] <= MAX_INTEGER


def test_integers_beyond_64_bits_in_a_control() -> None:
    args = {"mode": "shadow", "note": 2**70, "deep": [{"n": -(2**80)}]}
    engine, outputs = outputs_of([event("control", 1, control_id="c", actor="a", action="set_mode", args=args)])
    told = [output.topic for output in outputs]
    # Kept in the trail or refused, but nobody stops.
    assert (topics.AUDIT_LOG in told) != bool(engine.counters.rejects)


def test_the_last_moment_that_the_wire_can_carry() -> None:
    engine, _ = outputs_of([event("view", 1, action="enter", session_id="s", ts=MAX_INTEGER)])
    assert engine.counters.n_events + sum(engine.counters.rejects.values()) == 1


def test_an_answer_that_reads_a_bid_back_as_a_decimal() -> None:
    plan = event("plan", 1, plan_id="p", status="delivering", bid_kind="cost_per_action", bid_minor=1_000)
    change = event("control", 2, control_id="c", actor="a", action="override_bid", args={"plan_id": "p", "value": 900})
    engine = Engine(Settings(trust_log=True))
    outputs = engine.process([(place, None, json.dumps(value).encode()) for place, value in enumerate([plan, change])])
    (command,) = [json.loads(output.json()) for output in outputs if output.topic == topics.BID_COMMANDS]
    ack = event("ack", 3, command_id=command["command_id"], status="applied", observed_value="900.5")
    engine.process([(2, None, json.dumps(ack).encode())])
    assert engine.counters.n_records == 3


def test_a_repeated_tick_or_ack_of_a_room_nobody_knows_counts_once() -> None:
    tick, ack = event("tick", 1), event("ack", 2, command_id="c", status="applied")
    engine, _ = outputs_of([tick, tick, ack, ack])
    assert (engine.counters.n_events, engine.counters.n_duplicates) == (2, 2)


def test_only_accepted_elements_of_an_array_move_the_clock_of_a_file() -> None:
    first = event("order", 1, order_id="o", status="paid", amount_minor=5, currency="CNY")
    repeated = {**first, "ts": START_MS + 3_600_000}
    foreign = {**first, "event_id": "e-2", "currency": "USD", "ts": START_MS + 7_200_000}
    engine = Engine()
    engine.process([(1, None, json.dumps([first, repeated, foreign]).encode())])
    assert (engine.counters.n_events, engine.counters.n_duplicates) == (1, 1)
    assert engine.clock_ms == START_MS
