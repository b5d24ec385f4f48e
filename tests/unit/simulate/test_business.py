"""Troubles of sales, delivery and data: each does what its documentation says, and the ledger knows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest

from pipeline.simulate import DEFAULT_START_TS, SCENARIOS, Arrival, Event, Order, Parameters, Trouble, World, play
from pipeline.simulate.troubles import FAULTS
from pipeline.simulate.truth import TroubleKind

MINUTE_MS = 60_000
START = DEFAULT_START_TS
AT, UNTIL, END = START + 10 * MINUTE_MS, START + 20 * MINUTE_MS, START + 30 * MINUTE_MS
BIG = Parameters(size=8.0, shape=(), budget_minor=10_000_000, report_s=(10, 15))


class Run(NamedTuple):
    arrivals: list[Arrival]
    trouble: Trouble
    orders: dict[str, Order]
    world: World


@cache
def run(kind: TroubleKind) -> Run:
    world = World(kind, 1, 23, trouble_at_ms=AT, trouble_for_ms=UNTIL - AT, parameters=BIG)
    arrivals = list(play(world, 30))
    (trouble,) = world.truth()
    return Run(arrivals, trouble, {order.order_id: order for order in world.orders()}, world)


def count(made: Run, wanted: Callable[[Event], Any], start_ts: int = AT, end_ts: int = UNTIL) -> int:
    return sum(start_ts <= event["ts"] < end_ts and bool(wanted(event)) for _, _, event in made.arrivals)


def rise(made: Run, wanted: Callable[[Event], Any]) -> float:
    """Return the rate during the trouble against that of the ten minutes before and after it."""
    around = count(made, wanted, START, AT) + count(made, wanted, UNTIL, END)
    return count(made, wanted) / (around / 2)


def is_status(status: str) -> Callable[[Event], bool]:
    return lambda event: event["type"] == "order" and event["status"] == status


def is_action(action: str, channel: str | None = None) -> Callable[[Event], bool]:
    return lambda event: event.get("action") == action and channel in {None, event.get("channel")}


def spent(made: Run, field: str, start_ts: int, end_ts: int) -> int:
    return sum(
        event[field]
        for _, _, event in made.arrivals
        if event["type"] == "spend" and event["reporting"] == "increment" and start_ts + 15_000 <= event["ts"] < end_ts
    )


def test_every_trouble_has_a_scenario_and_every_scenario_known_troubles() -> None:
    for kind in FAULTS:
        assert SCENARIOS[kind].kind == kind
    for scenario in SCENARIOS.values():
        assert {kind for kind in scenario.mix if kind is not None} <= set(FAULTS)


@pytest.mark.parametrize("name", ["traffic", "causes", "returns"])
def test_a_mix_repeats_and_has_controls(name: str) -> None:
    mix = SCENARIOS[name].mix
    kinds = [SCENARIOS[name].trouble_of(index) for index in range(3 * len(mix))]
    assert kinds == list(mix) * 3
    assert mix.count(None) >= 3


def test_when_paying_fails_orders_are_made_and_not_paid() -> None:
    made = run("payment_failure")
    assert 0.75 < rise(made, is_status("created")) < 1.3
    assert rise(made, is_status("paid")) < 0.4
    failed = [order for order in made.orders.values() if order.trouble_id == made.trouble.trouble_id]
    assert made.trouble.n_orders_lost == len(failed) > 20
    assert all(order.paid_ts is None and not order.is_lost for order in failed)


@pytest.mark.parametrize("kind", ["sold_out", "delisted"])
def test_what_is_not_there_is_not_ordered_while_others_are(kind: TroubleKind) -> None:
    made = run(kind)
    gone = made.trouble.product_ids
    assert len(gone) == 4

    def is_order_of_gone(event: Event) -> bool:
        return is_status("created")(event) and event["product_id"] in gone

    assert count(made, is_order_of_gone) == 0
    assert count(made, is_order_of_gone, START, AT) > 0
    assert count(made, is_order_of_gone, UNTIL, END) > 0
    assert count(made, is_status("created")) > 0
    assert rise(made, is_action("product_click")) == pytest.approx(1.0, abs=0.2)


def test_stock_and_shelf_are_told_at_the_beginning_and_at_the_end() -> None:
    for kind, gone, back in (
        ("sold_out", ("stock", 0), ("stock", 500)),
        ("delisted", ("delist", None), ("list", None)),
    ):
        made = run(kind)
        for moment, (action, stock) in ((AT, gone), (UNTIL, back)):
            told = [
                event
                for _, _, event in made.arrivals
                if event["type"] == "product" and event["ts"] == moment and event["action"] == action
            ]
            assert {event["product_id"] for event in told} == set(made.trouble.product_ids)
            assert stock is None or {event["stock"] for event in told} == {stock}


def test_dearer_products_sell_less_at_the_new_price() -> None:
    made = run("price_rise")
    assert rise(made, is_status("created")) == pytest.approx(1.4**-3, abs=0.2)
    told = {event["product_id"]: event for _, _, event in made.arrivals if event.get("action") == "price"}
    listed = {event["product_id"]: event for _, _, event in made.arrivals if event.get("action") == "list"}
    raised = {
        event["product_id"]: event["price_minor"]
        for _, _, event in made.arrivals
        if event.get("action") == "price" and event["ts"] == AT
    }
    for product_id, event in listed.items():
        assert raised[product_id] == pytest.approx(1.4 * event["price_minor"], abs=1)
        assert told[product_id]["price_minor"] == event["price_minor"]


def test_a_refund_wave_sends_back_its_share_of_what_was_paid_before() -> None:
    made = run("refund_wave")
    back = [order for order in made.orders.values() if order.trouble_id == made.trouble.trouble_id]
    assert sorted(made.trouble.order_ids) == sorted(order.order_id for order in back)
    paid_before = [order for order in made.orders.values() if order.paid_ts is not None and order.paid_ts < AT]
    assert len(back) / len(paid_before) == pytest.approx(made.trouble.size, abs=0.15)
    assert all(AT <= (order.refund_ts or 0) < UNTIL and order.refund_minor == order.amount_minor for order in back)
    records = [event for _, _, event in made.arrivals if event.get("status") == "refunded"]
    refunds = Counter(event["order_id"] for event in records)
    assert set(made.trouble.order_ids) <= set(refunds)
    assert max(refunds.values()) == 1


def test_a_tired_creative_brings_fewer_and_dearer_clicks_of_as_many_impressions() -> None:
    made = run("creative_fatigue")
    ctr = {
        (start, end): spent(made, "clicks", start, end) / spent(made, "impressions", start, end)
        for start, end in ((START, AT), (AT, UNTIL))
    }
    assert ctr[AT, UNTIL] / ctr[START, AT] == pytest.approx(0.4, abs=0.08)
    shown = spent(made, "impressions", AT, UNTIL) / spent(made, "impressions", START, AT)
    assert shown == pytest.approx(1.0, abs=0.1)
    price = {
        (start, end): spent(made, "cost_minor", start, end) / spent(made, "clicks", start, end)
        for start, end in ((START, AT), (AT, UNTIL))
    }
    assert price[AT, UNTIL] / price[START, AT] == pytest.approx(0.4**-0.7, abs=0.2)


def test_the_wrong_people_come_as_many_and_do_not_care() -> None:
    made = run("targeting_drift")
    assert rise(made, is_action("enter", "feed_ads")) == pytest.approx(1.0, abs=0.15)
    assert rise(made, is_action("product_click", "feed_ads")) < 0.8
    assert rise(made, lambda event: is_status("created")(event) and event["channel"] == "feed_ads") < 0.6
    assert rise(made, is_action("product_click", "recommend")) > 0.75
    segments = Counter(
        event["segment"]
        for _, _, event in made.arrivals
        if is_action("enter", "feed_ads")(event) and AT <= event["ts"] < UNTIL
    )
    assert segments["general"] > 0.85 * segments.total()


def test_a_boring_show_is_left_soon_on_all_channels() -> None:
    made = run("content_slump")

    def dwell(start_ts: int, end_ts: int, channel: str) -> float:
        stays = [
            event["dwell_ms"]
            for _, _, event in made.arrivals
            if is_action("leave", channel)(event) and start_ts <= event["ts"] - event["dwell_ms"] < end_ts
        ]
        return float(sum(stays)) / len(stays)

    for channel in BIG.channels:
        assert dwell(AT, UNTIL, channel) / dwell(START, AT, channel) == pytest.approx(0.4, abs=0.17), channel
    assert rise(made, is_action("enter")) == pytest.approx(1.0, abs=0.1)


def test_without_balance_the_plan_says_so_and_delivers_nothing_until_it_is_filled() -> None:
    made = run("delivery_stopped")
    assert count(made, is_action("enter", "feed_ads"), AT + 1_000, UNTIL) == 0
    assert count(made, is_action("enter", "feed_ads"), UNTIL + 1_000, END) > 100
    statuses = [
        (event["ts"], event["status"])
        for _, _, event in made.arrivals
        if event["type"] == "plan" and event["plan_id"] == "room-001-cpa" and event.get("changed_by") == "platform"
    ]
    assert statuses == [(AT, "balance_out"), (UNTIL, "delivering")]


def test_a_plan_without_balance_cannot_be_resumed() -> None:
    world = World("delivery_stopped", 1, 1, trouble_at_ms=START + MINUTE_MS)
    world.advance(START + 2 * MINUTE_MS)
    answer = world.apply("room-001", "room-001-cpa", "resume")
    assert (answer.status, answer.detail) == ("rejected", "the account's balance is out")


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        ("view_feed_dead", {"view", "interaction", "presence"}),
        ("comment_feed_dead", {"comment"}),
        ("spend_feed_dead", {"spend"}),
    ],
)
def test_a_dead_feed_says_nothing_meanwhile_and_all_of_it_afterwards(kind: TroubleKind, types: set[str]) -> None:
    made = run(kind)
    told = [(arrival_ts, event) for arrival_ts, _, event in made.arrivals if event["type"] in types]
    assert [event for arrival_ts, event in told if AT <= arrival_ts < UNTIL] == []
    late = [event for arrival_ts, event in told if UNTIL <= arrival_ts < UNTIL + 3_000 and event["ts"] < UNTIL]
    assert len(late) > 20
    feed = kind.removesuffix("_feed_dead")
    beats = [arrival_ts for arrival_ts, _, event in made.arrivals if event.get("feed") == feed]
    assert not [beat for beat in beats if AT <= beat < UNTIL]
    assert [beat for beat in beats if UNTIL <= beat < UNTIL + 20_000]


def test_orders_without_tracking_have_no_channel_and_the_ledger_knows_it() -> None:
    made = run("tracking_outage")
    unknown = [event for _, _, event in made.arrivals if event.get("attribution") == "unknown"]
    assert made.trouble.n_records == len(unknown) > 20
    assert {event["order_id"] for event in unknown} == set(made.trouble.order_ids)
    assert not any(event.keys() & {"channel", "plan_id", "touch_ts", "creative_id"} for event in unknown)
    new = [event for event in unknown if event["status"] == "created"]
    assert len(new) / count(made, is_status("created")) == pytest.approx(0.9, abs=0.08)
    assert any(made.orders[event["order_id"]].plan_id for event in new)


def test_late_orders_come_later_than_the_feed_ever_is_and_lost_ones_never() -> None:
    late = run("orders_late")
    delays = [
        arrival_ts - event["ts"]
        for arrival_ts, _, event in late.arrivals
        if event["type"] == "order" and AT <= event["ts"] < UNTIL
    ]
    n_late = sum(delay > 5_000 for delay in delays)
    assert n_late / len(delays) == pytest.approx(late.trouble.size, abs=0.1)
    lost = run("orders_lost")
    books = lost.world.books()["room-001"]
    n_told = count(lost, lambda event: event["type"] == "order", 0, END)
    n_happened = books.n_orders_created + books.n_orders_paid + books.n_orders_cancelled + books.n_refunds
    assert n_happened - n_told == lost.trouble.n_records > 20


def test_absurd_orders_are_in_the_log_and_invalid_in_the_truth() -> None:
    made = run("absurd_orders")
    absurd = [order for order in made.orders.values() if not order.is_valid]
    assert sorted(order.order_id for order in absurd) == sorted(made.trouble.order_ids)
    assert len(absurd) == pytest.approx(made.trouble.size * 10, rel=0.5)
    assert {order.amount_minor for order in absurd} >= {1, 1_000_000_000}
    users = {event["user_id"] for _, _, event in made.arrivals if event.get("order_id") in made.trouble.order_ids}
    assert users == set(made.trouble.user_ids)


def test_a_trouble_can_be_confined_to_a_segment_and_a_product() -> None:
    world = World("calm", 1, 23, parameters=BIG)
    world.inject("landing_page", "room-001", START + 1_000, END, size=1.0, segment="general")
    world.inject("payment_failure", "room-001", START + 1_000, END, size=1.0, product_id="room-001-p2")
    orders = [event for _, _, event in play(world, 25) if event["type"] == "order"]
    assert {event["segment"] for event in orders} == {"potential", "high_value"}
    paid = {event["product_id"] for event in orders if event["status"] == "paid"}
    assert "room-001-p2" not in paid
    assert len(paid) == 5
    for name, value in (("segment", "kings"), ("product_id", "p9")):
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            world.inject("landing_page", "room-001", END, END + 1, **{name: value})  # type: ignore[arg-type]
