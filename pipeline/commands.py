"""Bid commands of a visit: the situation gathered, each plan decided, the message with its reasons."""

from __future__ import annotations

from typing import Any, Final, Literal

from pipeline.attendance import is_unattended
from pipeline.bidding import Decision, Emergency, OpenCommand, Plan, Situation, decide
from pipeline.bidding.guardrails import clip_range
from pipeline.bidding.plan import goal_micro
from pipeline.buckets import ROOM_ZONES
from pipeline.context import Context
from pipeline.counters import N_PAID_ATTRIBUTED, SPEND
from pipeline.emit import View
from pipeline.ids import derived
from pipeline.judge import is_stale
from pipeline.room import RoomState
from pipeline.sketches import bin_value, quantile
from schemas.base import MODE_RANK, capped
from schemas.commands import BidCommand, Guardrail, Reason

NEEDED_FEEDS: Final = ("spend", "order")
_PLACE_OF_WINDOW: Final = {reach_ms // 1_000: place for place, (reach_ms, _) in enumerate(ROOM_ZONES)}


def situation(view: View) -> Situation:
    """Return all that decisions of a room rest on at one evaluation."""
    room, now_ms, ctx = view.room, view.now_ms, view.ctx
    bidding = ctx.policy.bidding
    config = room.config
    place = _PLACE_OF_WINDOW[bidding.decision_window_s]
    counts = view.counts[place]
    # A feed nobody can judge yet is as bad as a dead one: bids wait for data that is known to be fresh.
    stale = {
        feed: room.feed_states.get(feed, "unknown")
        for feed in NEEDED_FEEDS
        if is_stale(room, feed) or feed not in room.feed_states
    }
    emergencies = tuple(
        Emergency(incident.anomaly_id, incident.trouble.cause)
        for _, incident in sorted(room.incidents.items())
        if incident.is_open and incident.trouble is not None and incident.trouble.severity in ("S1", "S2")
    )
    floor, cap = config.bid_floor_minor, config.bid_cap_minor
    return Situation(
        now_ms=now_ms,
        mode=config.mode,
        is_killed=room.is_killed or ctx.star.is_killed,
        is_excluded=room.is_excluded(now_ms),
        target_roas=config.target_roas if config.target_roas is not None else bidding.default_target_roas,
        budget_minor=config.budget_minor,
        spent_minor=view.session[SPEND],
        return_=view.returns[place],
        window_spend_minor=counts[SPEND],
        window_orders=counts[N_PAID_ATTRIBUTED],
        stale_feeds=stale,
        has_absurd_order=_has_absurd_order(view.amounts[place], bidding.absurd_order_factor),
        emergencies=emergencies,
        floor_minor=max(bidding.floor_minor, floor or 0),
        cap_minor=bidding.cap_minor if cap is None else min(bidding.cap_minor, cap),
        is_unattended=is_unattended(ctx.star, now_ms),
    )


def _has_absurd_order(amounts: dict[int, int], factor: int) -> bool:
    """Tell whether the window's largest order is `factor` times its median."""
    middle = quantile(amounts, 0.5)
    return middle is not None and bin_value(max(amounts)) >= factor * middle


class Commander:
    """Decide every plan of a room at one evaluation; messages are in `messages` afterwards.

    `passing_ms` is the timestamp of the record the clock is on its way to: a command that is over by then was born
    in a backlog and is suppressed. So is what comes out of a stretch of the log that nobody attended.
    """

    def __init__(self, room: RoomState, now_ms: int, passing_ms: int, ctx: Context) -> None:
        self.room, self.now_ms, self.passing_ms, self.ctx = room, now_ms, passing_ms, ctx
        self.is_unattended = is_unattended(ctx.star, now_ms)
        self.messages: list[BidCommand] = []

    def run(self, now: Situation) -> None:
        """Decide each plan once."""
        room, settings = self.room, self.ctx.policy.bidding
        if room.config.mode == "off" or not room.session.is_active:
            return
        for _, plan in sorted(room.plans.items()):
            opened = plan.open
            if opened is not None and opened.status == "pending_approval" and self.now_ms >= opened.expires_ts:
                plan.open = None  # nobody approved in time: the moment is gone
            decision = decide(plan, now, settings)
            if decision is None:
                plan.hold_code = ""
            elif decision.value is None:
                self._hold(plan, decision)
            else:
                self._step(plan, decision, decision.value)

    def _hold(self, plan: Plan, decision: Decision) -> None:
        told = self.now_ms - plan.hold_told_ms < self.ctx.policy.bidding.hold_interval_ms
        if decision.code == plan.hold_code and told:
            return
        plan.hold_code, plan.hold_told_ms = decision.code, self.now_ms
        self._send(
            plan,
            action="hold",
            seq=plan.seq,
            reason=Reason(code=decision.code, params=decision.params),
            guardrails=[Guardrail(name=decision.code, effect="blocked", params=decision.params)],
        )

    def _step(self, plan: Plan, decision: Decision, value: int) -> None:
        mode = self.room.config.mode
        status: Literal["issued", "pending_approval"] = "pending_approval" if mode == "approve" else "issued"
        clipped = [Guardrail(name=clip.name, effect="clipped", params=clip.params) for clip in decision.clips]
        command = self._send(
            plan,
            action="set_roi_goal" if plan.is_goal else "set_bid",
            seq=plan.seq + 1,
            value=value,
            status=status,
            more_spend=decision.more_spend,
            emergency=decision.emergency,
            reason=Reason(code=decision.code, params=decision.params),
            evidence=decision.evidence or {},
            anomaly_ids=list(decision.anomaly_ids),
            guardrails=clipped,
        )
        if command.status == "suppressed":
            return
        plan.seq += 1
        plan.hold_code = ""
        if plan.knob is not None:
            plan.moved(self.now_ms, plan.knob, value, more_spend=decision.more_spend)
        if mode != "shadow":
            plan.open = OpenCommand(
                command.command_id, 1, self.now_ms, command.expires_ts, value, status, command.model_dump(mode="json")
            )

    def _send(
        self,
        plan: Plan,
        *,
        action: Literal["set_bid", "set_roi_goal", "hold"],
        seq: int,
        reason: Reason,
        guardrails: list[Guardrail],
        value: int | None = None,
        status: Literal["issued", "pending_approval", "approved"] = "issued",
        more_spend: bool | None = None,
        asked_by: str | None = None,
        **rest: Any,
    ) -> BidCommand:
        """Make a command and queue it; `asked_by` tells apart what one moment may bring twice without a new `seq`."""
        room = self.room
        told_apart = () if asked_by is None else (asked_by,)
        expires_ts = self.now_ms + self.ctx.policy.bidding.lifetime_ms
        is_stillborn = expires_ts <= self.passing_ms
        if is_stillborn:
            guardrails = [*guardrails, Guardrail(name="expired_at_birth", effect="blocked")]
        if self.is_unattended and reason.code != "unattended":
            guardrails = [*guardrails, Guardrail(name="unattended", effect="blocked")]
        command = BidCommand.model_construct(
            command_id=derived(
                "cmd", room.room_id, room.session.number, plan.plan_id, action, seq, self.now_ms, *told_apart
            ),
            revision=1,
            seq=seq,
            room_id=room.room_id,
            plan_id=plan.plan_id,
            channel=plan.channel,
            ts=capped(self.now_ms),
            expires_ts=capped(expires_ts),
            action=action,
            direction="none" if more_spend is None else "more_spend" if more_spend else "less_spend",
            prev_value=plan.shown(plan.knob),
            value=plan.shown(value),
            unit="ratio" if plan.is_goal else f"minor:{room.config.currency}" if room.config.currency else "minor",
            mode=room.config.mode,
            status="suppressed" if is_stillborn or self.is_unattended else status,
            reason=reason,
            guardrails=guardrails,
            policy_version=self.ctx.policy_version,
            **{"emergency": False, "evidence": {}, "anomaly_ids": [], **rest},
        )
        room.n_commands[action] = room.n_commands.get(action, 0) + 1
        self.messages.append(command)
        return command

    # -- what operators decide --------------------------------------------------------------------------------

    def approve(self, command_id: str) -> bool:
        """Send a pending command again as approved, under its own id; False when it is not pending any more."""
        room = self.room
        is_stopped = (
            self.is_unattended
            or room.is_killed
            or self.ctx.star.is_killed
            or not room.session.is_active
            or MODE_RANK[room.config.mode] < MODE_RANK["approve"]
            or room.is_excluded(self.now_ms)
        )
        for plan in self.room.plans.values():
            opened = plan.open
            if opened is None or opened.command_id != command_id or opened.status != "pending_approval":
                continue
            if is_stopped or plan.status != "delivering" or self.now_ms >= opened.expires_ts:
                plan.open = None
                return False
            opened.status, opened.revision = "approved", opened.revision + 1
            opened.message |= {"status": "approved", "revision": opened.revision, "mode": "approve"}
            self.messages.append(BidCommand.model_validate(opened.message))
            return True
        return False

    def reject(self, command_id: str) -> bool:
        """Drop a pending command."""
        for plan in self.room.plans.values():
            if plan.open is not None and plan.open.command_id == command_id and plan.open.status == "pending_approval":
                plan.open = None
                return True
        return False

    def override(self, plan: Plan, value: int, now: Situation, *, actor: str, control_id: str) -> bool:
        """Send an operator's own value, within floor and cap, in any mode but `off`; False when nothing may be bid."""
        if not self.room.session.is_active or now.mode == "off":
            return False
        if not plan.knob or now.is_killed or plan.bid_kind not in ("cost_per_action", "roi_goal"):
            return False
        clipped_to, clip = clip_range(plan, value, now, self.ctx.policy.bidding)
        if clipped_to == plan.knob:
            return False  # it is there already
        more_spend = (clipped_to < plan.knob) if plan.is_goal else (clipped_to > plan.knob)
        command = self._send(
            plan,
            action="set_roi_goal" if plan.is_goal else "set_bid",
            seq=plan.seq + 1,
            value=clipped_to,
            status="approved",
            more_spend=more_spend,
            asked_by=control_id,
            reason=Reason(code="override", params={"actor": actor, "wanted": plan.shown(value)}),
            guardrails=[Guardrail(name=clip.name, effect="clipped", params=clip.params)] if clip else [],
        )
        if command.status == "suppressed":
            return False
        plan.seq += 1
        plan.moved(self.now_ms, plan.knob, clipped_to, more_spend=more_spend)
        message = command.model_dump(mode="json")
        plan.open = OpenCommand(command.command_id, 1, self.now_ms, command.expires_ts, clipped_to, "approved", message)
        return True


def decision_due(room: RoomState, now_ms: int, ctx: Context) -> list[int]:
    """Return when a decision may come out otherwise though nothing happens: a cooldown or an excluded window ends."""
    bidding = ctx.policy.bidding
    moments = [end for _, end in room.excluded]
    for plan in room.plans.values():
        if plan.last_up_ms >= 0:
            moments.append(plan.last_up_ms + bidding.cooldown_up_s * 1_000)
        if plan.last_down_ms >= 0:
            moments.append(plan.last_down_ms + bidding.cooldown_down_s * 1_000)
        if plan.open is not None:
            moments.append(plan.open.expires_ts)
    return [moment for moment in moments if moment > now_ms]


def answer(room: RoomState, ack: Any) -> bool:
    """Take a controller's answer to an open command; False when no open command has that id."""
    for plan in room.plans.values():
        opened = plan.open
        if opened is None or opened.command_id != ack.command_id:
            continue
        if ack.status == "accepted":
            opened.is_accepted = True
            return True
        plan.open = None
        if ack.status == "unknown":
            plan.is_outcome_unknown = True
        elif ack.status == "applied":
            knob = _observed(plan, ack.observed_value, opened.value)
            if knob is None:
                plan.is_outcome_unknown = True
                return True
            plan.knob, plan.changed_ms = knob, ack.ts
            if plan.edits_left:
                plan.edits_left -= 1
        return True
    return False


def _observed(plan: Plan, observed: int | str | None, wanted: int) -> int | None:
    """Return the knob as the controller read it back, else as it was asked for; None for what no knob can be."""
    if observed is None:
        return wanted
    return goal_micro(observed) if plan.is_goal else whole_minor(observed)


def whole_minor(value: int | str) -> int | None:
    """Return a bid in minor units; None for a decimal with places."""
    if isinstance(value, int):
        return value
    return int(value) if value.isdigit() else None
