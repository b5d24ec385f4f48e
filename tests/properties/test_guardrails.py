"""No decision leaves its limits: floor, cap, step and hour, for random plans in random situations."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.bidding import Emergency, Plan, Situation, decide
from pipeline.roi import Return
from schemas.settings import BiddingSettings
from tests.effort import effort
from tests.strategies import START_MS

SETTINGS = BiddingSettings()
HOUR_MS = 3_600_000
MICRO = 1_000_000


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """A room in which a step is possible: data are there, return is above, below or at the target."""
    mature = draw(st.floats(0.01, 50))
    band = draw(st.floats(1.0, 1.2))
    error = draw(st.floats(0.2, 0.85) | st.floats(1.2, 5))
    causes = draw(st.lists(st.sampled_from(("ivt", "landing_page", "creative")), max_size=2))
    return Situation(
        now_ms=START_MS + draw(st.integers(0, HOUR_MS)),
        mode=draw(st.sampled_from(("shadow", "approve", "auto"))),
        is_killed=False,
        is_excluded=False,
        target_roas=mature * error,
        budget_minor=10**7,
        spent_minor=draw(st.integers(0, 10**7)),
        return_=Return(mature, mature, mature, 1.0, mature, mature / band, mature * band),
        window_spend_minor=10**6,
        window_orders=100,
        stale_feeds={},
        has_absurd_order=False,
        emergencies=tuple(Emergency(f"a-{place}", cause) for place, cause in enumerate(causes)),
        floor_minor=draw(st.integers(1, 2_000)),
        cap_minor=draw(st.integers(2_000, 200_000)),
    )


@st.composite
def plans(draw: st.DrawFn, now_ms: int) -> Plan:
    """A plan that delivers, with some steps of ours behind it."""
    is_goal = draw(st.booleans())
    knob = draw(st.integers(1, 300_000) | st.integers(1, 60))
    plan = Plan("plan-1", status="delivering", bid_kind="roi_goal" if is_goal else "cost_per_action")
    plan.knob = knob * MICRO // 100 if is_goal else knob
    plan.learning_state = "learned"
    for ago_s in sorted(draw(st.lists(st.integers(0, 7_200), max_size=3)), reverse=True):
        was = round(plan.knob * draw(st.floats(0.8, 1.25))) or 1
        plan.moved(now_ms - ago_s * 1_000, was, plan.knob, more_spend=(was > plan.knob) == is_goal)
    return plan


@given(situations(), st.data())
@settings(max_examples=effort(600), suppress_health_check=[HealthCheck.filter_too_much])  # a hold says nothing here
def test_no_step_leaves_its_limits(now: Situation, data: Any) -> None:
    plan = data.draw(plans(now.now_ms))
    decision = decide(plan, now, SETTINGS)
    assume(decision is not None and decision.value is not None)
    assert decision is not None
    assert decision.value is not None
    assert plan.knob is not None
    value, knob = decision.value, plan.knob
    low, high = (round(SETTINGS.goal_floor * MICRO), round(SETTINGS.goal_cap * MICRO))
    if not plan.is_goal:
        low, high = now.floor_minor, now.cap_minor
    assert low <= value <= high
    # A goal is divided where a bid is multiplied: the change of what is paid per unit of return is what is limited.
    largest = SETTINGS.brake_ratio if decision.emergency else SETTINGS.step_ratio
    before, after = (value, knob) if plan.is_goal else (knob, value)
    slack = 1e-6 if plan.is_goal else 1e-9  # goals are kept in millionths
    assert 1 - largest - slack <= after / before <= 1 + SETTINGS.step_ratio + slack
    recent = [move for move in plan.moves if move[0] > now.now_ms - HOUR_MS]
    base = recent[0][1] if recent else knob
    assert abs(value - base) <= SETTINGS.hourly_ratio * base + 1e-6
    # More spend is a higher bid, or a lower goal.
    assert decision.more_spend == ((value < knob) if plan.is_goal else (value > knob))
    assert decision.emergency <= (not decision.more_spend)
