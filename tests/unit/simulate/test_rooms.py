"""A healthy room's ratios lie where a healthy room's lie."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict

import orjson
import pytest

from pipeline.simulate import Arrival, Books, Event, World, play

MINUTES = 60
N_ROOMS = 12


@pytest.fixture(scope="module")
def hour() -> tuple[list[Arrival], dict[str, Books]]:
    world = World("calm", N_ROOMS, 2)
    return list(play(world, MINUTES)), world.books()


def events_of(hour: tuple[list[Arrival], dict[str, Books]]) -> list[Event]:
    return [event for _, _, event in hour[0]]


def test_a_room_writes_two_to_four_events_a_second_of_some_250_bytes(
    hour: tuple[list[Arrival], dict[str, Books]],
) -> None:
    assert 2.0 < len(hour[0]) / N_ROOMS / MINUTES / 60 < 4.0
    assert 200 < statistics.fmean(len(orjson.dumps(event)) for event in events_of(hour)) < 320


def test_the_rates_of_the_whole_are_plausible(hour: tuple[list[Arrival], dict[str, Books]]) -> None:
    books = hour[1].values()

    def total(field: str) -> int:
        return sum(getattr(one, field) for one in books)

    assert 0.035 < total("clicks") / total("impressions") < 0.06
    assert 150 < total("spend_minor") / total("clicks") < 270
    assert 0.82 < total("n_orders_paid") / total("n_orders_created") < 0.95
    assert 0.01 < total("refund_minor") / total("gmv_minor") < 0.12
    assert 2.0 < (total("gmv_minor") - total("refund_minor")) / total("spend_minor") < 4.5
    assert 6_000 < total("gmv_minor") / total("n_orders_paid") < 14_000


def test_paid_traffic_converts_and_returns_around_the_target(hour: tuple[list[Arrival], dict[str, Books]]) -> None:
    paid: dict[str, list[int]] = defaultdict(list)
    for event in events_of(hour):
        if event["type"] == "order" and event["status"] == "paid" and event["attribution"] != "organic":
            assert event["plan_id"].startswith(event["room_id"])
            assert event["touch_ts"] <= event["ts"]
            paid[event["room_id"]].append(event["amount_minor"])
    for room_id, books in hour[1].items():
        assert 0.03 < len(paid[room_id]) / books.clicks < 0.085, room_id
        assert 0.9 < sum(paid[room_id]) / books.spend_minor < 4.5, room_id
    mean = sum(map(sum, paid.values())) / sum(books.spend_minor for books in hour[1].values())
    assert 1.8 < mean < 2.8


def test_viewers_stay_and_few_leave_at_once(hour: tuple[list[Arrival], dict[str, Books]]) -> None:
    stays: dict[str, list[float]] = defaultdict(list)
    for event in events_of(hour):
        if event["type"] == "view" and event["action"] == "leave":
            stays[event["room_id"]].append(event["dwell_ms"] / 1_000)
    for room_id, seconds in stays.items():
        assert 35 < statistics.fmean(seconds) < 55, room_id
        assert 0.15 < sum(stay < 5 for stay in seconds) / len(seconds) < 0.26, room_id


def test_every_visit_enters_once_beats_while_it_lasts_and_leaves_when_it_says(
    hour: tuple[list[Arrival], dict[str, Books]],
) -> None:
    entered: dict[str, int] = {}
    for event in sorted(events_of(hour), key=lambda event: event["ts"]):
        if event["type"] != "view":
            continue
        session_id = event["session_id"]
        if event["action"] == "enter":
            assert session_id not in entered
            entered[session_id] = event["ts"]
        elif event["action"] == "heartbeat":
            assert (event["ts"] - entered[session_id]) % 30_000 == 0
        else:
            assert event["dwell_ms"] == event["ts"] - entered.pop(session_id)


def test_no_device_has_the_users_of_a_script_and_no_long_text_its_repeats(
    hour: tuple[list[Arrival], dict[str, Books]],
) -> None:
    users: dict[str, set[str]] = defaultdict(set)
    texts: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for event in events_of(hour):
        if "device_id" in event:
            users[event["device_id"]].add(event["user_id"])
        if event["type"] == "comment" and len(event["text"]) >= 6:
            texts[event["room_id"], event["text"], event["ts"] // 60_000].add(event["user_id"])
    sizes = Counter(map(len, users.values()))
    assert sizes[1] / sizes.total() > 0.9
    assert max(sizes) <= 6
    assert max(map(len, texts.values())) < 5


def test_the_platforms_count_is_the_number_of_visits_open(hour: tuple[list[Arrival], dict[str, Books]]) -> None:
    open_visits: Counter[str] = Counter()
    n_compared = 0
    for event in sorted(events_of(hour), key=lambda event: event["ts"]):
        if event["type"] == "view" and event["action"] != "heartbeat":
            open_visits[event["room_id"]] += 1 if event["action"] == "enter" else -1
        elif event["type"] == "presence":
            # The count is kept by whole seconds: those who come or go within one make the difference.
            assert abs(event["n_online"] - open_visits[event["room_id"]]) <= 6
            n_compared += 1
    assert n_compared > N_ROOMS * MINUTES


def test_more_is_sold_at_the_end_of_an_explanation_than_between(
    hour: tuple[list[Arrival], dict[str, Books]],
) -> None:
    clicks: Counter[str] = Counter()
    orders: Counter[str] = Counter()
    on_stage: dict[str, int | None] = {}
    touched: dict[tuple[str, str], str] = {}
    for event in sorted(events_of(hour), key=lambda event: event["ts"]):
        room_id = event["room_id"]
        if event["type"] == "product" and event["action"] in {"explain_start", "explain_end"}:
            on_stage[room_id] = event["ts"] if event["action"] == "explain_start" else None
        elif event["type"] == "interaction" and event["action"] == "product_click":
            phase = "stage" if on_stage.get(room_id) is not None else "pause"
            clicks[phase] += 1
            touched[room_id, event["user_id"]] = phase
        elif event["type"] == "order" and event["status"] == "created":
            orders[touched[room_id, event["user_id"]]] += 1
    assert orders["stage"] / clicks["stage"] > 1.5 * orders["pause"] / clicks["pause"]
