"""One decision about one plan: every gate, every other reason to hold, and the step."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.bidding import GATES, Decision, Emergency, OpenCommand, Plan, Situation, decide
from pipeline.roi import Return
from schemas.settings import BiddingSettings
from tests.strategies import START_MS

SETTINGS = BiddingSettings()
MICRO = 1_000_000
OPEN = OpenCommand("cmd-1", 1, START_MS - 1_000, START_MS + 59_000, 1_100, "issued", {})


def a_plan(**changes: Any) -> Plan:
    """Return a plan that may be moved, changed as told."""
    plan = Plan("plan-1", status="delivering", bid_kind="cost_per_action", knob=1_000, learning_state="learned")
    for name, value in changes.items():
        setattr(plan, name, value)
    return plan


def a_situation(**changes: Any) -> Situation:
    """Return a room whose return is twice its target and well known, changed as told."""
    return Situation(
        now_ms=START_MS, mode="auto", is_killed=False, is_excluded=False, target_roas=2.0, budget_minor=10**7,
        spent_minor=10**5, return_=Return(4.0, 4.0, 4.0, 0.9, 4.0, 3.5, 4.5), window_spend_minor=10**6,
        window_orders=100, stale_feeds={}, has_absurd_order=False, emergencies=(), floor_minor=10, cap_minor=100_000,
    )._replace(**changes)  # fmt: skip


def returned(mature: float, *, maturity: float | None = 0.9, band: float = 1.1) -> Return:
    return Return(mature, mature, mature, maturity, mature, mature / band, mature * band)


TABLE: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # gate: plan and situation that trip it | plan and situation next to them that do not
    "unattended": ({}, {"is_unattended": True}, {}, {}),
    "kill_switch": ({}, {"is_killed": True}, {}, {}),
    "excluded_window": ({}, {"is_excluded": True}, {}, {}),
    "plan_unknown": ({"knob": None}, {}, {"knob": 1_000}, {}),
    "not_delivering": ({"status": "review"}, {}, {"status": "delivering"}, {}),
    "stale_feed": ({}, {"stale_feeds": {"order": "late"}}, {}, {}),
    "no_target": ({}, {"target_roas": None}, {}, {"target_roas": 0.5}),
    "no_budget": ({}, {"budget_minor": None}, {}, {"budget_minor": None, "mode": "approve"}),
    "outcome_unknown": ({"is_outcome_unknown": True}, {}, {}, {}),
    "open_command": ({"open": OPEN}, {}, {"open": None}, {}),
    "session_limit": ({"n_moves": SETTINGS.max_per_session}, {}, {"n_moves": SETTINGS.max_per_session - 1}, {}),
    "learning": ({"learning_state": "learning"}, {}, {"learning_state": "failed"}, {}),
    "little_data": (
        {}, {"window_orders": SETTINGS.min_orders - 1},
        {}, {"window_orders": SETTINGS.min_orders, "window_spend_minor": SETTINGS.min_spend_minor},
    ),
    "immature": (
        {}, {"return_": returned(4.0, maturity=SETTINGS.min_maturity - 0.01)},
        {}, {"return_": returned(4.0, maturity=SETTINGS.min_maturity)},
    ),
    "edits_left": ({"edits_left": 0}, {}, {"edits_left": 1}, {}),
    "edit_gap": (
        {"min_edit_gap_s": 600, "changed_ms": START_MS - 599_999}, {},
        {"min_edit_gap_s": 600, "changed_ms": START_MS - 600_000}, {},
    ),
}  # fmt: skip


def test_every_gate_is_in_the_table() -> None:
    assert set(TABLE) == {gate.name for gate in GATES}


@pytest.mark.parametrize("name", TABLE)
def test_a_gate_blocks_what_it_is_for_and_nothing_next_to_it(name: str) -> None:
    plan, situation, next_plan, next_situation = TABLE[name]
    blocked = decide(a_plan(**plan), a_situation(**situation), SETTINGS)
    assert blocked is not None
    assert (blocked.code, blocked.value) == (name, None)
    passed = decide(a_plan(**next_plan), a_situation(**next_situation), SETTINGS)
    assert passed is not None
    assert passed.value == 1_100


MORE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a knob of zero": ({"knob": 0}, {}, "plan_unknown"),
    "a plan without a knob to turn": ({"bid_kind": "none"}, {}, "plan_unknown"),
    "a plan nobody has shown the status of": ({"status": None}, {}, "not_delivering"),
    "a maturity nobody knows": ({}, {"return_": returned(4.0, maturity=None)}, "immature"),
    "too little spend": ({}, {"window_spend_minor": SETTINGS.min_spend_minor - 1}, "little_data"),
    "a return without a band": ({}, {"return_": Return(4.0, 4.0, 4.0, 0.9, 4.0, None, None)}, "little_data"),
    "our own edit too recent": ({"min_edit_gap_s": 600, "last_down_ms": START_MS - 1}, {}, "edit_gap"),
    "the kill switch before all": ({"knob": None}, {"is_killed": True, "target_roas": None}, "kill_switch"),
    "an increase too soon": ({"last_up_ms": START_MS - SETTINGS.cooldown_up_s * 1_000 + 1}, {}, "cooldown"),
    "a cut too soon": (
        {"last_down_ms": START_MS - SETTINGS.cooldown_down_s * 1_000 + 1}, {"return_": returned(1.0)}, "cooldown",
    ),
    "one absurd order": ({}, {"has_absurd_order": True}, "absurd_order"),
    "nothing left of the budget": ({}, {"spent_minor": 10**7}, "budget_spent"),
    "a bid at its cap": ({}, {"cap_minor": 1_000}, "floor_cap"),
    "a bid at its floor": ({}, {"floor_minor": 1_000, "return_": returned(1.0)}, "floor_cap"),
    "an hour that has used up its change": ({"moves": [(START_MS - 1_800_000, 770, 1_000)]}, {}, "hourly_limit"),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_every_other_reason_to_hold(name: str) -> None:
    plan, situation, code = MORE[name]
    decision = decide(a_plan(**plan), a_situation(**situation), SETTINGS)
    assert decision is not None
    assert (decision.code, decision.value) == (code, None)


@pytest.mark.parametrize(
    ("plan", "situation"),
    [
        ({}, {"has_absurd_order": True, "return_": returned(1.0)}),
        ({}, {"spent_minor": 10**7, "return_": returned(1.0)}),
        ({"last_up_ms": START_MS - 1}, {"return_": returned(1.0)}),
    ],
)
def test_what_holds_an_increase_does_not_hold_a_cut(plan: dict[str, Any], situation: dict[str, Any]) -> None:
    decision = decide(a_plan(**plan), a_situation(**situation), SETTINGS)
    assert decision is not None
    assert decision.value == 900


@pytest.mark.parametrize(
    "return_",
    [
        returned(2.0), returned(2.19, band=1.001), returned(1.81, band=1.001),
        Return(4.0, 4.0, 4.0, 0.9, 4.0, 1.9, 8.0), Return(1.0, 1.0, 1.0, 0.9, 1.0, 0.5, 2.1),
    ],
)  # fmt: skip
def test_on_target_or_unsure_nothing_is_said(return_: Return) -> None:
    assert decide(a_plan(), a_situation(return_=return_), SETTINGS) is None


@pytest.mark.parametrize(("mature", "more_spend"), [(4.0, True), (1.0, False)])
@pytest.mark.parametrize(("kind", "knob"), [("cost_per_action", 1_000), ("roi_goal", 2 * MICRO)])
def test_more_spend_is_a_higher_bid_or_a_lower_goal(kind: str, knob: int, mature: float, *, more_spend: bool) -> None:
    decision = decide(a_plan(bid_kind=kind, knob=knob), a_situation(return_=returned(mature)), SETTINGS)
    assert decision is not None
    assert decision.value is not None
    assert decision.more_spend == more_spend
    assert (decision.value > knob) == (more_spend != (kind == "roi_goal"))


@pytest.mark.parametrize(("kind", "knob"), [("cost_per_action", 1_000), ("roi_goal", 2 * MICRO)])
@pytest.mark.parametrize("name", TABLE)
def test_an_emergency_passes_pace_and_patience_only(name: str, kind: str, knob: int) -> None:
    plan, situation, *_ = TABLE[name]
    passes = next(gate.emergency_passes for gate in GATES if gate.name == name)
    assert passes == (name in ("learning", "little_data", "immature", "edits_left", "edit_gap"))
    emergency = {**situation, "emergencies": (Emergency("a-1", "ivt"),)}
    decision = decide(a_plan(**{"bid_kind": kind, "knob": knob, **plan}), a_situation(**emergency), SETTINGS)
    assert decision is not None
    assert (decision.value is not None) == passes
    if decision.value is not None:
        assert (decision.code, decision.emergency, decision.more_spend) == ("emergency_cut", True, False)
        assert (decision.value < knob) == (kind == "cost_per_action")
        assert decision.anomaly_ids == ("a-1",)


def test_an_anomaly_that_burns_no_money_is_no_emergency() -> None:
    decision = decide(a_plan(), a_situation(emergencies=(Emergency("a-1", "content"),)), SETTINGS)
    assert isinstance(decision, Decision)
    assert (decision.code, decision.emergency) == ("return_above_target", False)
