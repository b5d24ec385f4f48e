"""The truth about money: orders, what a minute's spend brings in the end, and how long it takes."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from functools import cache
from typing import Any, NamedTuple

import pytest

from pipeline.simulate import (
    DEFAULT_START_TS,
    Arrival,
    Books,
    Cohort,
    Order,
    ParameterError,
    Parameters,
    World,
    play,
    with_values,
)
from pipeline.simulate.settings import names
from pipeline.simulate.shop import mean_quantity

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


class Told(NamedTuple):
    arrivals: list[Arrival]
    books: dict[str, Books]
    orders: list[Order]
    cohorts: list[Cohort]
    end_ts: int


@cache
def told(scenario: str = "calm", n_rooms: int = 12, minutes: int = 60, **values: str) -> Told:
    parameters = with_values(Parameters(size=3.0), values)
    world = World(scenario, n_rooms, 3, parameters=parameters)
    arrivals = list(play(world, minutes))
    books = {room_id: Books(**one.as_dict()) for room_id, one in world.books().items()}
    world.settle()
    return Told(arrivals, books, world.orders(), world.cohorts(), DEFAULT_START_TS + minutes * MINUTE_MS)


def total(cohorts: list[Cohort], field: str) -> Any:
    return sum(getattr(cohort, field) for cohort in cohorts)


@pytest.mark.parametrize("scenario", ["calm", "landing_page", "click_farm"])
def test_every_order_of_the_log_is_in_the_ledger_with_what_became_of_it(scenario: str) -> None:
    made = told(scenario, 4, 30)
    orders = {order.order_id: order for order in made.orders}
    created = set()
    for _, _, event in made.arrivals:
        if event["type"] != "order":
            continue
        order = orders[event["order_id"]]
        assert not order.is_lost
        if event["status"] == "created":
            created.add(order.order_id)
            assert (event["ts"], event["amount_minor"]) == (order.created_ts, order.amount_minor)
        elif event["status"] == "paid":
            assert event["ts"] == order.paid_ts
        elif event["status"] == "refunded":
            assert (event["ts"], event["amount_minor"]) == (order.refund_ts, order.refund_minor)
        else:
            assert order.paid_ts is None
    due = {order.order_id for order in made.orders if order.created_ts < made.end_ts and not order.is_lost}
    assert created == due
    assert len(created) > 100


def test_cohorts_are_the_sums_of_the_orders_they_brought() -> None:
    made = told("landing_page", 4, 30)
    sums: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for order in made.orders:
        sums_of = sums[order.room_id, order.channel, order.touch_ts // MINUTE_MS]
        if order.is_lost:
            sums_of[3] += 1
            continue
        sums_of[0] += 1
        if order.paid_ts is not None:
            sums_of[1] += order.amount_minor
            sums_of[2] += order.refund_minor if order.refund_ts is not None else 0
    assert total(made.cohorts, "n_lost") > 20
    for cohort in made.cohorts:
        found = [cohort.n_orders, cohort.gmv_minor, cohort.refund_minor, cohort.n_lost]
        assert found == sums[cohort.room_id, cohort.channel, cohort.start_ts // MINUTE_MS]


def test_what_the_log_does_not_show_yet_is_in_the_ledger() -> None:
    made = told()
    shown = sum(books.gmv_minor - books.refund_minor for books in made.books.values())
    due = sum(
        (order.amount_minor if order.paid_ts >= made.end_ts else 0)
        - (order.refund_minor if order.refund_ts is not None and order.refund_ts >= made.end_ts else 0)
        for order in made.orders
        if order.paid_ts is not None
    )
    assert total(made.cohorts, "gmv_minor") - total(made.cohorts, "refund_minor") == shown + due
    assert due != 0


def test_spend_of_the_cohorts_is_what_was_reported_and_what_is_still_to_be() -> None:
    made = told()
    credited = [cohort for cohort in made.cohorts if cohort.start_ts < made.end_ts]
    billed = total(made.cohorts, "spend_minor") - total(credited, "credit_minor")
    reported = sum(books.spend_minor for books in made.books.values())
    assert reported <= billed
    assert billed == pytest.approx(reported, rel=0.01)


def test_the_expectation_is_the_mean_of_what_comes() -> None:
    made = told()
    n_orders, expected = total(made.cohorts, "n_orders"), total(made.cohorts, "expected_orders")
    assert abs(n_orders - expected) < 3.0 * math.sqrt(expected)
    assert total(made.cohorts, "gmv_minor") == pytest.approx(total(made.cohorts, "expected_gmv_minor"), rel=0.05)
    assert total(made.cohorts, "refund_minor") == pytest.approx(total(made.cohorts, "expected_refund_minor"), rel=0.15)


def test_refunds_come_at_the_products_own_rate_some_soon_and_most_days_later() -> None:
    made = told()
    paid = [order for order in made.orders if order.paid_ts is not None]
    waits_s = [(order.refund_ts - order.paid_ts) / 1_000 for order in paid if order.refund_ts and order.paid_ts]
    assert len(waits_s) / len(paid) == pytest.approx(Parameters().refund_ratio, abs=0.02)
    assert sum(wait < 7_200 for wait in waits_s) / len(waits_s) == pytest.approx(0.42, abs=0.06)
    late = [wait for wait in waits_s if wait > 10_800]
    assert statistics.median(late) / 86_400 == pytest.approx(2.0, rel=0.25)
    by_product: dict[str, list[bool]] = defaultdict(list)
    for order in paid:
        by_product[order.product_id].append(order.refund_ts is not None)
    rates = sorted(statistics.fmean(flags) for flags in by_product.values() if len(flags) > 50)
    assert rates[-1] > 2 * rates[len(rates) // 4]


@pytest.mark.parametrize(
    ("kind", "median_s"),
    [("exponential", 30 + 300 * math.log(2)), ("lognormal", 30 + 300 * math.exp(-(1.5**2) / 2)), ("pareto", 30 + 88.1)],
)
def test_late_orders_wait_as_the_chosen_distribution_says(kind: str, median_s: float) -> None:
    made = told(late_order_kind=kind)
    waits = [
        (order.created_ts - order.click_ts) / 1_000
        for order in made.orders
        if order.attribution == "indirect" and order.click_ts < made.end_ts
    ]
    assert len(waits) > 200
    assert statistics.median(waits) == pytest.approx(median_s, rel=0.2)
    prompt = [order for order in made.orders if order.attribution == "direct"]
    assert statistics.fmean((order.created_ts - order.click_ts) / 1_000 for order in prompt) == pytest.approx(
        10, rel=0.1
    )


def test_quantities_have_the_heavy_tail_they_should() -> None:
    events = [event for _, _, event in told().arrivals if event.get("status") == "created"]
    quantities = [event["quantity"] for event in events]
    assert statistics.fmean(quantities) == pytest.approx(mean_quantity(Parameters()), rel=0.06)
    assert max(quantities) >= 8


def test_a_click_farms_orders_are_invalid_and_its_clicks_are_apart() -> None:
    made = told("click_farm", 4, 30)
    invalid = [order for order in made.orders if not order.is_valid]
    assert invalid
    assert {order.room_id for order in invalid} <= {"room-001", "room-003"}
    assert all(order.paid_ts is None for order in invalid)
    mine = [cohort for cohort in made.cohorts if cohort.n_invalid_clicks]
    assert {cohort.channel for cohort in mine} == {"feed_ads"}
    assert {cohort.room_id for cohort in mine} == {"room-001", "room-003"}
    assert 100 < total(mine, "invalid_spend_minor") / total(mine, "n_invalid_clicks") < 280


def test_the_session_has_its_course() -> None:
    #  0 min      30 min    60 min
    #  0.75 ----- 1.0 ----- 1.08       of a session of four hours
    made = told()
    enters: dict[int, int] = defaultdict(int)
    for cohort in made.cohorts:
        enters[(cohort.start_ts - DEFAULT_START_TS) // MINUTE_MS // 10] += cohort.n_enters
    assert enters[0] / enters[5] == pytest.approx(0.79 / 1.07, abs=0.08)


def test_a_weekend_and_the_hours_change_traffic_alone() -> None:
    hours = ",".join(["0.5"] * 24)
    usual, half, weekend = (
        told(n_rooms=2, minutes=30, **values) for values in ({}, {"hours": hours}, {"weekend_factor": "2"})
    )
    n_usual = total(usual.cohorts, "n_enters")
    assert total(half.cohorts, "n_enters") == pytest.approx(0.5 * n_usual, rel=0.1)
    assert total(weekend.cohorts, "n_enters") == pytest.approx(2 * n_usual, rel=0.1)  # 2025-06-01 was a Sunday


def test_another_currency_is_on_every_record_and_foreign_orders_are_converted_in_the_truth() -> None:
    made = told(n_rooms=2, minutes=30, currency="HKD", foreign_ratio="0.3")
    orders = {order.order_id: order for order in made.orders}
    seen: dict[str, int] = defaultdict(int)
    for _, _, event in made.arrivals:
        if event["type"] in {"spend", "gift"}:
            assert event["currency"] == "HKD"
        if event.get("status") == "created":
            seen[event["currency"]] += 1
            rate = 1.0 if event["currency"] == "HKD" else Parameters().foreign_rate
            assert event["amount_minor"] * rate == pytest.approx(orders[event["order_id"]].amount_minor, abs=rate)
    assert seen["USD"] / sum(seen.values()) == pytest.approx(0.3, abs=0.12)


def test_every_parameter_can_be_set_by_its_name_and_shows() -> None:
    for name in names():
        value: Any = Parameters()
        for part in name.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert with_values(Parameters(), {name: text}) == Parameters(), name


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("storm", "1", "parameter storm must name one of size"),
        ("bots.storm", "1", "parameter bots.storm must name one of burst_devices"),
        ("size.x", "1", "parameter size.x must name one of no parts at 'x'"),
        ("bots", "1", "parameter bots must name a single value"),
        ("size", "wide", "parameter size must be like 1.0, got 'wide'"),
        ("size", "nan", "parameter size must be a finite number >= 0, got nan"),
        ("size", "-1", "parameter size must be a finite number >= 0, got -1"),
        ("size", "0", "parameter size must be above 0, got 0"),
        ("pay_ratio", "1.1", "parameter pay_ratio must be in 0..1, got 1.1"),
        ("n_products", "2.5", "parameter n_products must be like 6"),
        ("feeds.order.lag_ms", "9", "parameter feeds.order.lag_ms must be least,largest"),
        ("report_s", "30,10", "parameter report_s must be least,largest"),
        ("late_order_kind", "weekly", "parameter late_order_kind must be one of exponential"),
        ("hours", "1,2", "parameter hours must be 24 factors"),
        ("burst_s", "500", "parameter burst_s must be at most"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(name: str, text: str, rule: str) -> None:
    with pytest.raises(ParameterError, match=rule):
        with_values(Parameters(), {name: text})
