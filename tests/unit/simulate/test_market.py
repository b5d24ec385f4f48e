"""The market answers a bid: more buys more, ever less for the money."""

from __future__ import annotations

import pytest

from pipeline.simulate import DEFAULT_START_TS, Event, Parameters, World
from pipeline.simulate.market import Value

START = DEFAULT_START_TS
MINUTE_MS = 60_000
RICH = Parameters(size=4.0, budget_minor=10**9)


def spent(action: str | None, value: Value, plan: str = "cpa", minutes: int = 30) -> tuple[int, int, int]:
    """Return impressions, clicks and cost of a plan in the `minutes` after an edit."""
    world = World("calm", 1, 12, parameters=RICH)
    world.advance(START + MINUTE_MS)
    if action is not None:
        assert world.apply("room-001", f"room-001-{plan}", action, value).status == "applied"
    before = world.books()["room-001"].as_dict()
    world.advance(START + (1 + minutes) * MINUTE_MS)
    after = world.books()["room-001"].as_dict()
    impressions, clicks, cost = (after[name] - before[name] for name in ("impressions", "clicks", "spend_minor"))
    return impressions, clicks, cost


def plans(world: World, to_ts: int, plan: str = "cpa") -> list[Event]:
    return [
        event
        for _, _, event in world.advance(to_ts)
        if event["type"] == "plan" and event["plan_id"] == f"room-001-{plan}"
    ]


def test_a_higher_bid_buys_more_at_a_higher_price_with_diminishing_returns() -> None:
    half, same, double, fourfold = (spent("set_bid", bid) for bid in (1_800, 3_600, 7_200, 14_400))
    for less, more in ((half, same), (same, double), (double, fourfold)):
        assert less[0] < more[0]
        assert less[1] < more[1]
        assert less[2] / less[1] < more[2] / more[1]
    marginal = [
        (more[1] - less[1]) / (more[2] - less[2]) for less, more in ((half, same), (same, double), (double, fourfold))
    ]
    assert marginal[0] > marginal[1] > marginal[2] > 0


def test_a_higher_goal_buys_less() -> None:
    easy, same, strict = (spent("set_roi_goal", goal, "roi") for goal in ("1.2", "2.4", 4.8))
    assert easy[1] > same[1] > strict[1]
    assert easy[2] > same[2] > strict[2]


def test_an_edit_takes_effect_from_the_next_second_and_is_told_as_ours() -> None:
    world = World("calm", 1, 3)
    world.advance(START + MINUTE_MS + 250)
    answer = world.apply("room-001", "room-001-cpa", "set_bid", 3_240)
    assert (answer.status, answer.observed_value) == ("applied", 3_240)
    (event, *_) = [one for one in plans(world, START + 3 * MINUTE_MS) if one.get("changed_by") == "us"]
    assert (event["ts"], event["bid_minor"], event["edits_left"]) == (START + MINUTE_MS + 1_000, 3_240, 23)


def test_before_an_edit_nothing_differs_and_after_it_the_steps_still_do_not_show() -> None:
    def run(step_ms: int) -> list[Event]:
        world = World("calm", 1, 3)
        events: list[Event] = []
        for moment in range(START, START + 2 * MINUTE_MS, step_ms):
            events += [event for _, _, event in world.advance(moment + step_ms)]
            if moment + step_ms == START + MINUTE_MS:
                world.apply("room-001", "room-001-cpa", "set_bid", 7_000)
        return events

    assert run(500) == run(20_000)


def test_a_paused_plan_buys_nothing_until_it_is_resumed() -> None:
    paused = spent("pause", None)
    running = spent(None, None)
    assert 0 < paused[1] < running[1] / 2  # the other plan goes on
    world = World("calm", 1, 3)
    world.advance(START + MINUTE_MS)
    world.apply("room-001", "room-001-cpa", "pause")
    clicks = sum(
        event["clicks"]
        for _, _, event in world.advance(START + 10 * MINUTE_MS)
        if event["type"] == "spend" and event["plan_id"] == "room-001-cpa" and event["ts"] > START + 125_000
        if event["reporting"] == "increment"
    )
    assert clicks == 0
    assert world.apply("room-001", "room-001-cpa", "resume").status == "applied"
    assert plans(world, START + 12 * MINUTE_MS)[-1]["status"] == "delivering"


def test_a_spent_budget_stops_delivery_and_a_larger_one_starts_it_again() -> None:
    world = World("calm", 1, 3)
    world.advance(START + MINUTE_MS)
    world.apply("room-001", "room-001-cpa", "set_budget", 5_000)
    last = plans(world, START + 10 * MINUTE_MS)[-1]
    assert (last["status"], last["budget_minor"], last["budget_left_minor"]) == ("budget_out", 5_000, 0)
    world.apply("room-001", "room-001-cpa", "set_budget", 500_000)
    assert plans(world, START + 11 * MINUTE_MS)[-1]["status"] == "delivering"


def test_edits_run_out_and_a_refused_edit_uses_none() -> None:
    world = World("calm", 1, 3)
    refused = world.apply("room-001", "room-001-roi", "set_bid", 100)
    assert refused.status == "rejected"
    statuses = [world.apply("room-001", "room-001-roi", "set_roi_goal", "2.5").status for _ in range(14)]
    assert statuses == ["applied"] * 12 + ["rejected"] * 2


@pytest.mark.parametrize(
    ("room_id", "plan_id", "action", "value"),
    [
        ("room-009", "room-001-cpa", "set_bid", 100),
        ("room-001", "room-009-cpa", "set_bid", 100),
        ("room-001", "room-001-cpa", "set_bid", 0),
        ("room-001", "room-001-cpa", "set_bid", "100"),
        ("room-001", "room-001-cpa", "set_bid", True),
        ("room-001", "room-001-cpa", "set_roi_goal", "2.0"),
        ("room-001", "room-001-roi", "set_roi_goal", "nan"),
        ("room-001", "room-001-roi", "set_roi_goal", "lots"),
        ("room-001", "room-001-roi", "set_roi_goal", "1000"),
        ("room-001", "room-001-cpa", "set_budget", -1),
        ("room-001", "room-001-cpa", "fly", None),
    ],
)
def test_what_the_platform_cannot_do_it_rejects(room_id: str, plan_id: str, action: str, value: Value) -> None:
    world = World("calm", 1, 3)
    answer = world.apply(room_id, plan_id, action, value)
    assert answer.status == "rejected"
    assert answer.detail
