"""The rule that moves a bid: a bounded step towards the target return, or an emergency cut, or a hold.

The step is half of the relative error, at most `step_ratio`; it is taken only when the whole 90 % band of the
matured return lies on one side of the target and the error is outside the dead band. A ROI goal moves the other
way from a bid: more spend means a lower goal.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from pipeline.bidding.guardrails import GATES, Clip, Params, clip_hourly, clip_range
from pipeline.bidding.plan import Plan
from pipeline.bidding.situation import Situation
from schemas.settings import BiddingSettings

GAIN: Final = 0.5
"""Share of the error that one step takes back; a half cannot overshoot a market of gain up to two."""
SMALLEST_STEP: Final = 0.01
"""Below one per cent an edit costs more (learning, protection) than it brings."""
EMERGENCY_CAUSES: Final = ("ivt", "landing_page", "auction_pressure")


class Decision(NamedTuple):
    """What to do with a plan: `value` None is a hold."""

    code: str
    params: Params
    value: int | None = None
    more_spend: bool = False
    emergency: bool = False
    anomaly_ids: tuple[str, ...] = ()
    clips: tuple[Clip, ...] = ()
    evidence: dict[str, Any] | None = None


def decide(plan: Plan, now: Situation, settings: BiddingSettings) -> Decision | None:
    """Return the step or the hold for one plan, None when there is nothing to say (on target)."""
    emergency = _emergency(now)
    for gate in GATES:
        if emergency and gate.emergency_passes:
            continue
        blocked = gate.blocks(plan, now, settings)
        if blocked is not None:
            return Decision(gate.name, blocked)
    return _cut(plan, now, settings) if emergency else _step(plan, now, settings)


def _emergency(now: Situation) -> bool:
    return any(emergency.cause in EMERGENCY_CAUSES for emergency in now.emergencies)


def _cut(plan: Plan, now: Situation, settings: BiddingSettings) -> Decision | None:
    since_ms = now.now_ms - plan.last_down_ms
    if plan.last_down_ms >= 0 and since_ms < settings.cooldown_down_s * 1_000:
        return Decision("cooldown", {"direction": "less_spend", "since_s": since_ms // 1_000})
    urgent = [emergency for emergency in now.emergencies if emergency.cause in EMERGENCY_CAUSES]
    return _move(
        plan, now, settings,
        ratio=-settings.brake_ratio,
        code="emergency_cut",
        params={"cause": urgent[0].cause},
        anomaly_ids=tuple(emergency.anomaly_id for emergency in urgent),
    )  # fmt: skip


def _step(plan: Plan, now: Situation, settings: BiddingSettings) -> Decision | None:
    mature, low, high, target = now.return_.mature, now.return_.low, now.return_.high, now.target_roas
    if mature is None or low is None or high is None or target is None:
        return Decision("little_data", {"n_orders": now.window_orders})
    error = mature / target - 1.0
    if abs(error) <= settings.dead_band or low <= target <= high:
        return None
    more_spend = error > 0
    last_ms = plan.last_up_ms if more_spend else plan.last_down_ms
    cooldown_s = settings.cooldown_up_s if more_spend else settings.cooldown_down_s
    if last_ms >= 0 and now.now_ms - last_ms < cooldown_s * 1_000:
        return Decision("cooldown", {"cooldown_s": cooldown_s, "since_s": (now.now_ms - last_ms) // 1_000})
    if more_spend and now.has_absurd_order:
        return Decision("absurd_order", {"factor": settings.absurd_order_factor})
    if more_spend and now.budget_minor is not None and now.spent_minor >= now.budget_minor:
        return Decision("budget_spent", {"budget_minor": now.budget_minor, "spent_minor": now.spent_minor})
    return _move(
        plan, now, settings,
        ratio=max(-settings.step_ratio, min(settings.step_ratio, GAIN * error)),
        code="return_above_target" if more_spend else "return_below_target",
        params={"target_roas": target, "roas_mature": mature, "roas_low": low, "roas_high": high},
    )  # fmt: skip


def _move(
    plan: Plan,
    now: Situation,
    settings: BiddingSettings,
    *,
    ratio: float,
    code: str,
    params: Params,
    anomaly_ids: tuple[str, ...] = (),
) -> Decision | None:
    knob = plan.knob
    if knob is None:  # a gate saw to it; said again for the type checker
        return None
    # A goal is divided where a bid is multiplied: both then mean the same change of spend per unit of return.
    exact = knob / (1.0 + ratio) if plan.is_goal else knob * (1.0 + ratio)
    # Towards where it is: rounding must not make a step larger than its limit.
    wanted = math.floor(exact) if exact > knob else math.ceil(exact)
    clips: list[Clip] = []
    value, clip = clip_hourly(plan, wanted, now.now_ms, settings)
    clips += [clip] if clip else []
    if not min(knob, wanted) <= value <= max(knob, wanted):
        return Decision("hourly_limit", clips[-1].params)  # the hour's reach lies beyond a step: nothing moves
    within_hour = value
    value, clip = clip_range(plan, value, now, settings)
    clips += [clip] if clip else []
    if not min(knob, within_hour) <= value <= max(knob, within_hour):
        return Decision("floor_cap", clips[-1].params)  # the range cannot be reached within a step
    more_spend = (value < knob) if plan.is_goal else (value > knob)
    if value == knob or abs(value / knob - 1.0) < SMALLEST_STEP or more_spend != (ratio > 0):
        # The limits leave nothing of the step (or would turn it round): hold, and say which.
        return Decision(clips[-1].name if clips else "smallest_step", clips[-1].params if clips else {"wanted": wanted})
    return Decision(
        code,
        params,
        value=value,
        more_spend=more_spend,
        emergency=bool(anomaly_ids),
        anomaly_ids=anomaly_ids,
        clips=tuple(clips),
        evidence={
            "window_s": settings.decision_window_s,
            "n_orders": now.window_orders,
            "spend_minor": now.window_spend_minor,
            "roas_valid": now.return_.valid,
            "roas_maturity": now.return_.maturity,
        },
    )
