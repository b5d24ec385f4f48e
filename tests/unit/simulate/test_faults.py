"""Each trouble does what the truth says, from its start to its end, and nothing else."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import orjson
import pytest

from pipeline.simulate import DEFAULT_START_TS, Arrival, Event, Parameters, Trouble, World, play
from pipeline.simulate import comments as texts
from pipeline.simulate.scenarios import MIXED
from pipeline.simulate.troubles import FAULTS

START = DEFAULT_START_TS
MINUTE_MS = 60_000
AT, UNTIL = START + 10 * MINUTE_MS, START + 20 * MINUTE_MS
BIG = Parameters(size=6.0)


def played(scenario: str, n_rooms: int = 1, minutes: float = 25) -> tuple[list[Arrival], Trouble]:
    world = World(scenario, n_rooms, 31, trouble_at_ms=AT, trouble_for_ms=UNTIL - AT, parameters=BIG)
    arrivals = list(play(world, minutes))
    (trouble,) = (one for one in world.truth() if one.room_id == "room-001")
    return arrivals, trouble


def count(arrivals: list[Arrival], wanted: Callable[[Event], bool], start_ts: int, end_ts: int) -> int:
    return sum(start_ts <= event["ts"] < end_ts and wanted(event) for _, _, event in arrivals)


def is_order(event: Event) -> bool:
    return bool(event["type"] == "order" and event["status"] == "created")


def is_product_click(event: Event) -> bool:
    return bool(event["type"] == "interaction" and event["action"] == "product_click")


def ratio_of_rates(arrivals: list[Arrival], wanted: Callable[[Event], bool]) -> float:
    """Return the rate during the trouble against the rate in the five minutes before and after it."""
    during = count(arrivals, wanted, AT, UNTIL) / (UNTIL - AT)
    around = count(arrivals, wanted, AT - 5 * MINUTE_MS, AT) + count(arrivals, wanted, UNTIL, UNTIL + 5 * MINUTE_MS)
    return during / (around / (10 * MINUTE_MS))


@pytest.mark.parametrize("kind", FAULTS)
def test_up_to_its_start_the_room_is_the_one_without_it(kind: str) -> None:
    before = [World(name, 1, 9, trouble_at_ms=AT).advance(AT) for name in (kind, "calm")]
    assert orjson.dumps(before[0]) == orjson.dumps(before[1])


@pytest.mark.parametrize("kind", FAULTS)
def test_every_other_room_is_a_control(kind: str) -> None:
    world = World(kind, 4, 1)
    assert [(one.kind, one.room_id) for one in world.truth()] == [(kind, "room-001"), (kind, "room-003")]


def test_the_mix_has_each_of_its_kinds_once_and_healthy_rooms_between() -> None:
    truth = World("mixed", 30, 1).truth()
    kinds = sorted(kind for kind in MIXED if kind is not None)
    assert sorted(one.kind for one in truth) == kinds
    assert len({one.room_id for one in truth}) == len(kinds)
    assert [one.kind for one in truth if one.innocent] == ["crowd_echo"]
    assert {(one.start_ts, one.end_ts) for one in truth} == {(AT, START + 15 * MINUTE_MS)}


def test_the_share_of_bots_in_the_truth_is_that_of_the_marked_events() -> None:
    arrivals, trouble = played("bot_burst")
    marked = [event for _, _, event in arrivals if event.get("device_id") in trouble.device_ids]
    enters = [
        event
        for _, _, event in arrivals
        if event["type"] == "view"
        and event["action"] == "enter"
        and event["channel"] == trouble.channel
        and trouble.start_ts <= event["ts"] < trouble.end_ts
    ]
    n_marked_enters = sum(event["device_id"] in trouble.device_ids for event in enters)
    assert trouble.n_injected == len(marked)
    assert trouble.n_injected_enters == n_marked_enters
    assert trouble.enters_ratio == round(n_marked_enters / len(enters), 6)
    assert 0.7 < n_marked_enters / len(enters) < 0.9


def test_bots_stay_a_second_or_two_in_one_address_block_and_never_buy() -> None:
    arrivals, trouble = played("bot_burst")
    marked = [event for _, _, event in arrivals if event.get("device_id") in trouble.device_ids]
    assert trouble.ip_block is not None
    block = ipaddress.ip_network(trouble.ip_block)
    assert all(ipaddress.ip_address(event["ip"]) in block for event in marked)
    assert {event["type"] for event in marked} == {"view", "comment", "interaction"}
    assert {event["action"] for event in marked if event["type"] == "interaction"} == {"like"}
    assert all(1_000 <= event["dwell_ms"] <= 2_000 for event in marked if event.get("action") == "leave")
    assert len({event["text"] for event in marked if event["type"] == "comment"}) == 3
    users = {event["user_id"] for event in marked}
    assert len(users) == trouble.n_injected_enters
    assert len(users) > 20 * len(trouble.device_ids)


def test_bots_on_a_paid_channel_are_billed() -> None:
    _, trouble = played("bot_burst")
    assert 120 < trouble.cost_minor / trouble.n_injected_enters < 280


def test_angry_viewers_complain_about_one_topic_in_many_words_and_go_on_buying() -> None:
    arrivals, trouble = played("angry_chat")
    (about,) = (topic for topic in texts.TOPICS if topic == trouble.topic)
    cores = texts.NEGATIVE_ZH[about] + texts.NEGATIVE_EN[about]

    def is_complaint(event: Event) -> bool:
        return event["type"] == "comment" and any(core in event["text"] for core in cores)

    n_complaints = count(arrivals, is_complaint, AT, UNTIL)
    n_usual = count(arrivals, is_complaint, START, AT)
    assert trouble.n_injected <= n_complaints <= trouble.n_injected + 3 * (n_usual + 10)
    assert ratio_of_rates(arrivals, is_complaint) > 20
    written = [event["text"] for _, _, event in arrivals if is_complaint(event) and AT <= event["ts"] < UNTIL]
    assert len(set(written)) > len(written) / 4
    assert 0.6 < ratio_of_rates(arrivals, is_order) < 1.5


def test_a_broken_landing_page_loses_orders_while_clicks_go_on() -> None:
    arrivals, trouble = played("landing_page")
    assert 0.8 < ratio_of_rates(arrivals, is_product_click) < 1.2
    assert ratio_of_rates(arrivals, is_order) < 0.3
    made = count(arrivals, is_order, AT, UNTIL)
    assert 0.8 < trouble.n_orders_lost / (trouble.n_orders_lost + made) <= 1.0


def test_a_rise_of_cost_raises_the_price_of_a_click_and_not_the_clicks() -> None:
    arrivals, trouble = played("cost_rise")
    spends = [event for _, _, event in arrivals if event["type"] == "spend" and event["reporting"] == "increment"]

    def price(start_ts: int, end_ts: int) -> float:
        within = [event for event in spends if start_ts + 15_000 <= event["ts"] < end_ts]
        cost_minor: int = sum(event["cost_minor"] for event in within)
        n_clicks: int = sum(event["clicks"] for event in within)
        return cost_minor / n_clicks

    assert 2.3 < price(AT, UNTIL) / price(START, AT) < 2.7
    assert 0.8 < ratio_of_rates(arrivals, is_product_click) < 1.2
    assert 0.6 < ratio_of_rates(arrivals, is_order) < 1.5
    assert trouble.cost_minor > 0


def test_the_cost_of_a_rise_is_the_difference_to_the_same_room_without_it() -> None:
    #            AT                UNTIL
    # calm       |  c              |        the clicks are the same ones: only their price differs,
    # cost_rise  |  2.5 c          |        and a price changes nothing else while budgets last
    quiet = Parameters(credit_ratio=0.0)
    spends = {}
    for scenario in ("calm", "cost_rise"):
        world = World(scenario, 1, 5, trouble_at_ms=AT, trouble_for_ms=UNTIL - AT, parameters=quiet)
        list(play(world, 25))
        spends[scenario] = world.books()["room-001"]
    (trouble,) = world.truth()
    assert spends["cost_rise"].clicks == spends["calm"].clicks
    assert spends["cost_rise"].spend_minor - spends["calm"].spend_minor == trouble.cost_minor


def test_a_dead_order_feed_says_nothing_and_then_catches_up() -> None:
    #      AT            UNTIL  +3 s
    # -----[-------------)------|-----
    #   ok |   nothing   | all  | ok, heartbeats again
    arrivals, _ = played("feed_dead")
    told = [
        (arrival_ts, event)
        for arrival_ts, _, event in arrivals
        if event["type"] in {"order", "gift"} or event.get("feed") == "order"
    ]
    assert [event for arrival_ts, event in told if AT <= arrival_ts < UNTIL] == []
    late = [event for arrival_ts, event in told if UNTIL <= arrival_ts < UNTIL + 3_000]
    assert len(late) > 50
    assert all(event["type"] != "feed" for event in late)
    assert any(event["type"] == "feed" for arrival_ts, event in told if UNTIL + 3_000 <= arrival_ts < UNTIL + 15_000)
    assert 0.6 < ratio_of_rates(arrivals, is_order) < 1.5


def test_an_echo_is_short_honest_and_innocent() -> None:
    arrivals, trouble = played("crowd_echo")
    devices = {event["device_id"] for _, _, event in arrivals if event.get("text") in texts.ECHO}
    assert trouble.innocent
    assert trouble.cause is None
    assert len(devices) > 200
    assert ratio_of_rates(arrivals, lambda event: event["type"] == "comment") > 4


def test_a_trouble_can_be_put_in_while_the_world_runs() -> None:
    world = World("calm", 2, 3)
    world.advance(START + MINUTE_MS)
    world.inject("bot_burst", "room-002", START + 70_500, START + 90_500, size=8.0, channel="search_ads")
    world.advance(START + 3 * MINUTE_MS)
    (trouble,) = world.truth()
    assert (trouble.room_id, trouble.channel, trouble.size) == ("room-002", "search_ads", 8.0)
    assert (trouble.start_ts, trouble.end_ts) == (START + 71_000, START + 91_000)  # whole seconds
    assert trouble.n_injected_enters > 0


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("storm", "room-001", START, START + 1_000), "kind must be one of bot_burst"),
        (("bot_burst", "room-099", START, START + 1_000), "room_id must be one of the world's"),
        (("bot_burst", "room-001", START - 1, START + 1_000), "start_ts must be in"),
        (("bot_burst", "room-001", START + 5, START + 5), "start_ts must be in"),
    ],
)
def test_a_trouble_that_cannot_be_is_refused(arguments: tuple[str, str, int, int], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        World("calm", 1, 1).inject(*arguments)


def test_a_trouble_on_an_unknown_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="channel must be one of feed_ads"):
        World("calm", 1, 1).inject("bot_burst", "room-001", START, START + 1_000, channel="radio")
