"""What may stop a step, each a small named rule; the first that blocks gives the reason to hold.

An emergency cut passes the gates of pace and patience (learning, maturity, sample size, the plan's own gap), never
those of data, of consent (kill switch, excluded windows) or of what is still open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pipeline.bidding.plan import MICRO, Plan
from pipeline.bidding.situation import Situation
from schemas.settings import BiddingSettings

Params = dict[str, Any]
Rule = Callable[[Plan, Situation, BiddingSettings], Params | None]


class Gate(NamedTuple):
    """A named rule that returns parameters when it blocks."""

    name: str
    blocks: Rule
    emergency_passes: bool = False


def _unattended(_: Plan, now: Situation, __: BiddingSettings) -> Params | None:
    return {} if now.is_unattended else None


def _kill_switch(_: Plan, now: Situation, __: BiddingSettings) -> Params | None:
    return {} if now.is_killed else None


def _excluded_window(_: Plan, now: Situation, __: BiddingSettings) -> Params | None:
    return {} if now.is_excluded else None


def _plan_unknown(plan: Plan, _: Situation, __: BiddingSettings) -> Params | None:
    return None if plan.knob and plan.bid_kind in ("cost_per_action", "roi_goal") else {"bid_kind": plan.bid_kind}


def _not_delivering(plan: Plan, _: Situation, __: BiddingSettings) -> Params | None:
    return None if plan.status == "delivering" else {"status": plan.status}


def _stale_feed(_: Plan, now: Situation, __: BiddingSettings) -> Params | None:
    return {"feeds": now.stale_feeds} if now.stale_feeds else None


def _no_target(_: Plan, now: Situation, __: BiddingSettings) -> Params | None:
    return {} if now.target_roas is None else None


def _no_budget(_: Plan, now: Situation, __: BiddingSettings) -> Params | None:
    return {} if now.mode == "auto" and now.budget_minor is None else None


def _outcome_unknown(plan: Plan, _: Situation, __: BiddingSettings) -> Params | None:
    return {} if plan.is_outcome_unknown else None


def _open_command(plan: Plan, now: Situation, settings: BiddingSettings) -> Params | None:
    if plan.open is None:
        return None
    late = now.now_ms - plan.open.ts >= settings.ack_timeout_ms
    return {"command_id": plan.open.command_id, "is_answer_missing": late}


def _learning(plan: Plan, _: Situation, __: BiddingSettings) -> Params | None:
    return {} if plan.learning_state == "learning" else None


def _immature(_: Plan, now: Situation, settings: BiddingSettings) -> Params | None:
    maturity = now.return_.maturity
    if maturity is not None and maturity >= settings.min_maturity:
        return None
    return {"maturity": maturity, "needed": settings.min_maturity}


def _little_data(_: Plan, now: Situation, settings: BiddingSettings) -> Params | None:
    if now.window_orders >= settings.min_orders and now.window_spend_minor >= settings.min_spend_minor:
        return None
    return {
        "n_orders": now.window_orders,
        "orders_needed": settings.min_orders,
        "spend_minor": now.window_spend_minor,
        "spend_needed_minor": settings.min_spend_minor,
    }


def _edits_left(plan: Plan, _: Situation, __: BiddingSettings) -> Params | None:
    return {} if plan.edits_left == 0 else None


def _edit_gap(plan: Plan, now: Situation, __: BiddingSettings) -> Params | None:
    last_ms = max(plan.changed_ms, plan.last_up_ms, plan.last_down_ms)
    if last_ms < 0 or now.now_ms - last_ms >= plan.min_edit_gap_s * 1_000:
        return None
    return {"min_edit_gap_s": plan.min_edit_gap_s, "since_s": (now.now_ms - last_ms) // 1_000}


def _session_limit(plan: Plan, _: Situation, settings: BiddingSettings) -> Params | None:
    return {"max_per_session": settings.max_per_session} if plan.n_moves >= settings.max_per_session else None


GATES: Final = (
    Gate("unattended", _unattended),
    Gate("kill_switch", _kill_switch),
    Gate("excluded_window", _excluded_window),
    Gate("plan_unknown", _plan_unknown),
    Gate("not_delivering", _not_delivering),
    Gate("stale_feed", _stale_feed),
    Gate("no_target", _no_target),
    Gate("no_budget", _no_budget),
    Gate("outcome_unknown", _outcome_unknown),
    Gate("open_command", _open_command),
    Gate("session_limit", _session_limit),
    Gate("learning", _learning, emergency_passes=True),
    Gate("little_data", _little_data, emergency_passes=True),
    Gate("immature", _immature, emergency_passes=True),
    Gate("edits_left", _edits_left, emergency_passes=True),
    Gate("edit_gap", _edit_gap, emergency_passes=True),
)


class Clip(NamedTuple):
    """A limit that cut a step short."""

    name: str
    params: Params


def clip_hourly(plan: Plan, value: int, now_ms: int, settings: BiddingSettings) -> tuple[int, Clip | None]:
    """Keep the net change of the last hour within `hourly_ratio` of the value an hour ago."""
    recent = [move for move in plan.moves if move[0] > now_ms - 3_600_000]
    base = recent[0][1] if recent else plan.knob
    if base is None:
        return value, None
    reach = math.floor(base * settings.hourly_ratio)
    return _within("hourly_limit", value, base - reach, base + reach)


def clip_range(plan: Plan, value: int, now: Situation, settings: BiddingSettings) -> tuple[int, Clip | None]:
    """Keep a bid between floor and cap, a goal between its own."""
    if plan.is_goal:
        low, high = round(settings.goal_floor * MICRO), round(settings.goal_cap * MICRO)
    else:
        low, high = now.floor_minor, now.cap_minor
    if low > high:  # a room's own limits can contradict each other: then nothing moves
        low = high = value if plan.knob is None else plan.knob
    return _within("floor_cap", value, low, high)


def _within(name: str, value: int, low: int, high: int) -> tuple[int, Clip | None]:
    clipped = min(max(value, low), high)
    return clipped, None if clipped == value else Clip(name, {"wanted": value, "low": low, "high": high})
