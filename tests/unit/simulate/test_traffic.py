"""Invalid traffic of every family, the crowds that look like it, and the truth about each event."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise
from typing import NamedTuple, get_args

import pytest

from pipeline.simulate import DEFAULT_START_TS, Arrival, Event, Label, Parameters, Trouble, World, play
from pipeline.simulate.truth import BotKind, CrowdKind, TroubleKind

MINUTE_MS = 60_000
AT, UNTIL = DEFAULT_START_TS + 5 * MINUTE_MS, DEFAULT_START_TS + 15 * MINUTE_MS
BIG = Parameters(size=5.0)
BOTS: tuple[BotKind, ...] = get_args(BotKind)
VIEW_BOTS = [kind for kind in BOTS if not kind.endswith("comments")]
CROWDS: tuple[CrowdKind, ...] = get_args(CrowdKind)
VISITORS = ("celebrity", "organic_surge", "campus")


class Run(NamedTuple):
    arrivals: list[Arrival]
    trouble: Trouble
    labels: dict[str, Label]

    @property
    def mine(self) -> list[Event]:
        """The events of those whom the trouble brought, in order of time."""
        users = set(self.trouble.user_ids)
        events = [event for _, _, event in self.arrivals if event.get("user_id") in users]
        return sorted(events, key=lambda event: event["ts"])


@cache
def run(kind: TroubleKind) -> Run:
    world = World(kind, 1, 12, trouble_at_ms=AT, trouble_for_ms=UNTIL - AT, parameters=BIG, is_labelled=True)
    arrivals = list(play(world, 25))
    (trouble,) = world.truth()
    return Run(arrivals, trouble, {label.event_id: label for label in world.labels()})


@pytest.mark.parametrize("kind", BOTS)
def test_an_event_is_invalid_if_and_only_if_its_user_is_one_of_the_bots(kind: BotKind) -> None:
    arrivals, trouble, labels = run(kind)
    assert (trouble.is_invalid, trouble.family, trouble.cause, trouble.innocent) == (True, kind, "ivt", False)
    users = set(trouble.user_ids)
    n_invalid = 0
    for _, _, event in arrivals:
        label = labels.get(event["event_id"])
        is_invalid = label is not None and label.is_invalid
        assert is_invalid == (event.get("user_id") in users)
        if label is not None and is_invalid:
            assert (label.family, label.trouble_id, label.ts) == (kind, trouble.trouble_id, event["ts"])
            n_invalid += 1
    assert n_invalid > 100


@pytest.mark.parametrize("kind", CROWDS)
def test_no_event_of_an_innocent_crowd_is_invalid(kind: CrowdKind) -> None:
    _, trouble, labels = run(kind)
    assert (trouble.innocent, trouble.is_invalid, trouble.family) == (True, False, None)
    assert not any(label.is_invalid or label.family for label in labels.values())


@pytest.mark.parametrize("kind", [kind for kind in BOTS if kind != "click_farm"])
def test_what_was_injected_is_as_much_as_the_truth_says(kind: BotKind) -> None:
    made = run(kind)
    assert made.trouble.n_injected == len(made.mine)
    enters = [event for event in made.mine if event["type"] == "view" and event["action"] == "enter"]
    assert made.trouble.n_injected_enters == len(enters)
    assert all(AT <= event["ts"] < UNTIL for event in enters)


@pytest.mark.parametrize("kind", VIEW_BOTS)
def test_bots_enter_as_often_as_their_size_says(kind: BotKind) -> None:
    usual = World("calm", 1, 12, parameters=BIG)
    channel = BIG.channels["feed_ads"]
    traffic = usual._rooms["room-001"].traffic
    expected = run(kind).trouble.size * channel.enters_s * traffic * (UNTIL - AT) / 1_000
    assert run(kind).trouble.n_injected_enters == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("kind", VIEW_BOTS)
def test_on_a_paid_channel_every_visit_of_a_bot_is_a_billed_click_and_none_ends_in_a_payment(kind: BotKind) -> None:
    made = run(kind)
    assert 120 < made.trouble.cost_minor / made.trouble.n_injected_enters < 280
    assert {event["plan_id"] for event in made.mine} == {"room-001-cpa"}
    assert not [event for event in made.mine if event.get("status") in {"paid", "refunded"}]


def gaps(events: list[Event], key: str = "device_id") -> list[float]:
    moments: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event.get("action") == "enter":
            moments[event[key]].append(event["ts"])
    return [(after - before) / 1_000 for times in moments.values() for before, after in pairwise(times)]


def dwells(events: list[Event]) -> list[float]:
    return [event["dwell_ms"] / 1_000 for event in events if event.get("action") == "leave"]


def test_fixed_bots_come_back_to_the_second_and_random_ones_do_not() -> None:
    fixed, random = gaps(run("view_bots_fixed").mine), gaps(run("view_bots_random").mine)
    assert all(abs(gap - BIG.bots.fixed_interval_s) < 0.2 for gap in fixed)
    assert statistics.stdev(random) > 0.7 * statistics.fmean(random)
    assert statistics.stdev(dwells(run("view_bots_fixed").mine)) < 0.1


def test_random_bots_stay_as_long_as_their_distribution_says_and_use_many_blocks() -> None:
    made = run("view_bots_random").mine
    assert statistics.median(dwells(made)) == pytest.approx(BIG.bots.random_dwell_median_s, rel=0.15)
    assert len({event["ip"].rpartition(".")[0] for event in made}) > 0.8 * BIG.bots.random_blocks
    clicks = sum(event.get("action") == "product_click" for event in made)
    assert clicks / len(dwells(made)) == pytest.approx(BIG.bots.random_click_ratio, abs=0.02)


def test_a_device_farm_has_few_devices_and_a_new_account_each_visit() -> None:
    made, trouble = run("device_farm").mine, run("device_farm").trouble
    assert {event["device_id"] for event in made} == set(trouble.device_ids)
    assert len(trouble.device_ids) == BIG.bots.farm_devices
    assert len(trouble.user_ids) == trouble.n_injected_enters


def test_machines_of_a_shared_address_have_devices_of_their_own_in_one_block() -> None:
    made, trouble = run("shared_address").mine, run("shared_address").trouble
    assert {f"{event['ip'].rpartition('.')[0]}.0/24" for event in made} == set(trouble.ip_blocks)
    assert len(trouble.ip_blocks) == 1
    assert len({event["device_id"] for event in made}) == trouble.n_injected_enters


def test_paid_hands_click_products_and_their_few_orders_are_never_paid() -> None:
    made = run("click_farm").mine
    n_visits = len(dwells(made))
    clicks = sum(event.get("action") == "product_click" for event in made)
    assert clicks / n_visits == pytest.approx(BIG.bots.hands_click_ratio, abs=0.04)
    statuses = Counter(event["status"] for event in made if event["type"] == "order")
    assert statuses["created"] / n_visits == pytest.approx(
        BIG.bots.hands_click_ratio * BIG.bots.hands_order_ratio, abs=0.015
    )
    assert set(statuses) <= {"created", "cancelled"}


def test_hunters_leave_when_their_task_is_done() -> None:
    stays = dwells(run("incentive_hunters").mine)
    assert min(stays) >= BIG.bots.task_s
    assert statistics.fmean(stays) == pytest.approx(BIG.bots.task_s + BIG.bots.task_over_s, abs=0.5)
    assert len({event["device_id"] for event in run("incentive_hunters").mine}) == len(stays)


def texts(kind: TroubleKind) -> list[str]:
    return [event["text"] for event in run(kind).mine if event["type"] == "comment"]


def test_scripts_repeat_themselves_and_paraphrases_do_not() -> None:
    fixed, reworded = texts("script_comments"), texts("paraphrase_comments")
    assert len(set(fixed)) == BIG.bots.script_texts
    assert len(set(reworded)) > 0.7 * len(reworded)
    assert len(reworded) > 300


@pytest.mark.parametrize("kind", ["script_comments", "paraphrase_comments"])
def test_script_accounts_write_as_much_as_their_size_says(kind: TroubleKind) -> None:
    usual_s = World("calm", 1, 12, parameters=BIG)._rooms["room-001"].usual_comments_s
    expected = run(kind).trouble.size * usual_s * (UNTIL - AT) / 1_000
    assert len(texts(kind)) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("kind", VISITORS)
def test_a_crowd_behaves_and_buys_as_people_do(kind: TroubleKind) -> None:
    made = run(kind)
    assert len(made.trouble.user_ids) == made.trouble.n_injected_enters > 300
    assert len({event["device_id"] for event in made.mine}) > 0.9 * len(made.trouble.user_ids)
    assert {"like", "product_click"} <= {event.get("action") for event in made.mine}
    assert any(event.get("status") == "paid" for event in made.mine)


def test_a_campus_is_one_block_and_one_region_in_the_breaks_only() -> None:
    made = run("campus")
    guests = [event for event in made.mine if event.get("action") == "enter" and event["ts"] < UNTIL]
    home = [event for event in guests if f"{event['ip'].rpartition('.')[0]}.0/24" == made.trouble.ip_block]
    assert len(home) > 0.95 * len(guests)
    assert len({event["region"] for event in home}) == 1
    crowds = BIG.crowds
    period_ms = (crowds.campus_break_s + crowds.campus_class_s) * 1_000
    first = [event for event in home if (event["ts"] - AT) % period_ms < crowds.campus_break_s * 1_000]
    assert len(first) > 0.9 * len(home)  # the rest are those who come back later


def test_a_carrier_takes_its_share_of_the_channels_new_viewers_and_adds_nobody() -> None:
    made = run("carrier_nat")
    calm = World("calm", 1, 12, parameters=BIG)
    usual = sum(event.get("action") == "enter" for _, _, event in play(calm, 25))
    enters = sum(event.get("action") == "enter" for _, _, event in made.arrivals)
    assert enters == pytest.approx(usual, rel=0.06)
    inside = [
        event
        for _, _, event in made.arrivals
        if event.get("action") == "enter" and event["channel"] == "feed_ads" and AT <= event["ts"] < UNTIL
    ]
    behind = [event for event in inside if f"{event['ip'].rpartition('.')[0]}.0/24" == made.trouble.ip_block]
    new = made.trouble.size * (1.0 - BIG.returning_ratio)
    assert len(behind) / len(inside) == pytest.approx(new, abs=0.08)
    assert len({event["ip"] for event in behind}) <= BIG.crowds.nat_addresses


def test_a_lottery_phrase_is_long_the_same_and_written_by_many_who_were_there() -> None:
    made = run("lottery")
    said = [event for _, _, event in made.arrivals if event["event_id"] in made.labels and event["type"] == "comment"]
    mine = [event for event in said if made.labels[event["event_id"]].trouble_id]
    (phrase, n_times), *_ = Counter(event["text"] for event in mine).most_common()
    assert len(phrase) >= 10
    assert n_times == pytest.approx(0.85 * len(mine), rel=0.1)
    assert len({event["user_id"] for event in mine if event["text"] == phrase}) > 100


@pytest.mark.parametrize(
    ("kind", "topic"),
    [
        ("complaint_price", "price"),
        ("complaint_quality", "quality"),
        ("complaint_logistics", "logistics"),
        ("complaint_host", "host"),
    ],
)
def test_every_comment_says_in_the_labels_what_it_means(kind: TroubleKind, topic: str) -> None:
    arrivals, trouble, labels = run(kind)
    said = {event["event_id"] for _, _, event in arrivals if event["type"] == "comment"}
    assert said <= set(labels)
    mine = [labels[event_id] for event_id in said if labels[event_id].trouble_id == trouble.trouble_id]
    assert {(label.feeling, label.topic, label.is_invalid) for label in mine} == {("negative", topic, False)}
    assert len(mine) == trouble.n_injected > 200
    usual = Counter(labels[event_id].feeling for event_id in said if labels[event_id].trouble_id is None)
    assert usual["negative"] / usual.total() == pytest.approx(BIG.negative_ratio, abs=0.02)
    assert usual["positive"] / usual.total() == pytest.approx(BIG.positive_ratio, abs=0.03)


def test_bots_may_pretend_to_be_of_a_segment() -> None:
    world = World("calm", 1, 2)
    world.inject("device_farm", "room-001", AT, UNTIL, segment="high_value")
    mine = set()
    arrivals = list(play(world, 8))
    (trouble,) = world.truth()
    mine = {event["segment"] for _, _, event in arrivals if event.get("user_id") in set(trouble.user_ids)}
    assert (trouble.segment, mine) == ("high_value", {"high_value"})


def test_a_world_without_labels_keeps_none() -> None:
    world = World("bot_burst", 1, 1, trouble_at_ms=DEFAULT_START_TS + MINUTE_MS)
    list(play(world, 2))
    assert world.labels() == []


def test_sizes_and_beginnings_of_a_scenarios_troubles_can_differ_between_rooms() -> None:
    spread = Parameters(trouble_size_sigma=0.5, trouble_jitter_s=120.0)
    troubles = World("bot_burst", 20, 1, parameters=spread).truth()
    assert len({trouble.size for trouble in troubles}) == len(troubles)
    starts = [(trouble.start_ts - DEFAULT_START_TS) / 1_000 - 600 for trouble in troubles]
    assert 0 <= min(starts) < max(starts) <= 120
    assert {trouble.end_ts - trouble.start_ts for trouble in troubles} == {300_000}
