"""Money of orders and of spend does not depend on what arrives first."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline import Engine
from tests.effort import effort
from tests.strategies import START_MS, Event

STATUSES = ("created", "refunded", "refunded", "cancelled")


def session_of(events: list[Event], names: tuple[str, ...]) -> dict[str, int]:
    """Return some of a room's session metrics after events that arrive in this order."""
    engine = Engine()
    # One timestamp for all: only the order of arrival differs.
    engine.process([(place, START_MS, json.dumps(event).encode()) for place, event in enumerate(events)])
    assert engine.counters.rejects == {}
    session = engine.summary()["rooms"]["room-1"]["session"]
    return {name: session.get(name, 0) for name in names}


def money_of(events: list[Event]) -> dict[str, int]:
    return session_of(events, ("n_orders_created", "n_orders_paid", "gmv_minor", "refund_minor"))


@st.composite
def orders(draw: st.DrawFn, *, payments: int = 1) -> list[Event]:
    """The events of one order: at most one creation, `payments` payments, refunds and cancellations."""
    statuses = ["paid"] * payments + draw(st.lists(st.sampled_from(STATUSES), max_size=5))
    amounts = st.integers(0, 10_000)
    return [
        {
            "type": "order",
            "event_id": f"e-{place}",
            "room_id": "room-1",
            "order_id": "order-1",
            "ts": START_MS - draw(st.sampled_from((0, 1, 500, 60_000, 300_000))),
            "status": status,
            "amount_minor": draw(amounts),
            "currency": "CNY",
        }
        for place, status in enumerate(statuses)
    ]


@given(orders(), st.data())
@settings(max_examples=effort(200))
def test_any_order_of_arrival_gives_the_same_money(events: list[Event], data: st.DataObject) -> None:
    assert money_of(data.draw(st.permutations(events))) == money_of(events)


@given(orders())
def test_refunds_are_what_was_refunded_and_at_most_what_was_paid(events: list[Event]) -> None:
    assume(not any(event["status"] == "cancelled" for event in events))
    money = money_of(events)
    wanted = sum(event["amount_minor"] for event in events if event["status"] == "refunded")
    assert money["gmv_minor"] == events[0]["amount_minor"]
    assert money["refund_minor"] == min(wanted, money["gmv_minor"])


@given(orders(payments=0))
def test_without_a_payment_there_is_no_money(events: list[Event]) -> None:
    assume(events)
    money = money_of(events)
    assert (money["gmv_minor"], money["refund_minor"], money["n_orders_paid"]) == (0, 0, 0)


@given(orders(), st.integers(0, 10_000), st.data())
def test_a_second_payment_is_an_event_without_effect(events: list[Event], amount: int, data: st.DataObject) -> None:
    again = {**events[0], "event_id": "again", "amount_minor": amount}
    rest = data.draw(st.permutations(events[1:]))
    place = data.draw(st.integers(0, len(rest)))
    once = [events[0], *rest]
    assert money_of([events[0], *rest[:place], again, *rest[place:]]) == money_of(once)


def test_a_cancellation_after_the_payment_refunds_the_rest() -> None:
    order: dict[str, Any] = {"type": "order", "room_id": "room-1", "order_id": "o", "currency": "CNY"}
    steps = [("paid", 100), ("refunded", 30), ("cancelled", 100)]
    events = [
        {**order, "event_id": f"e{place}", "ts": START_MS + place, "status": status, "amount_minor": amount}
        for place, (status, amount) in enumerate(steps)
    ]
    assert money_of(events) == {"n_orders_created": 0, "n_orders_paid": 1, "gmv_minor": 100, "refund_minor": 100}


SPEND = ("impressions", "clicks", "spend_minor")


@st.composite
def reports(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """Increments of a plan's day, and the cumulative totals that say the same."""
    increments, totals, sums = [], [], [0, 0, 0]
    for place in range(draw(st.integers(1, 8))):
        step = [draw(st.integers(0, 5_000)) for _ in SPEND]
        sums = [total + n for total, n in zip(sums, step, strict=True)]
        event = {"type": "spend", "event_id": f"e-{place}", "room_id": "room-1", "ts": START_MS - 1_000 * place}
        event |= {"plan_id": "plan-1", "currency": "CNY"}
        fields = ("impressions", "clicks", "cost_minor")
        increments.append({**event, **dict(zip(fields, step, strict=True))})
        total = {"reporting": "cumulative", "stat_date": "2026-01-01", "report_ts": START_MS + place}
        totals.append({**event, **dict(zip(fields, sums, strict=True)), **total})
    return increments, totals


@given(reports(), st.data())
def test_increments_and_totals_of_a_day_come_to_the_same(told: tuple[list[Event], list[Event]], data: Any) -> None:
    increments, totals = told
    expected = session_of(increments, SPEND)
    assert session_of(totals, SPEND) == expected
    # The newest report wins, whatever order they come in.
    assert session_of(data.draw(st.permutations(totals)), SPEND) == expected
    assert session_of(data.draw(st.permutations(increments)), SPEND) == expected


@given(reports(), st.integers(-3_000, 3_000), st.data())
def test_a_correction_is_added_to_whatever_was_reported(told: Any, cost: int, data: st.DataObject) -> None:
    _, totals = told
    adjust = {**totals[0], "event_id": "adjust", "reporting": "adjust", "cost_minor": cost}
    adjust |= {"impressions": 0, "clicks": 0}
    expected = session_of(totals, SPEND)
    assert session_of(data.draw(st.permutations([*totals, adjust])), SPEND) == {
        **expected,
        "spend_minor": expected["spend_minor"] + cost,
    }
