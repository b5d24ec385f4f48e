"""Operators' actions and policies, as they take effect in the log."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import ValidationError

from pipeline.bidding.plan import goal_micro
from pipeline.commands import Commander, whole_minor
from pipeline.context import Context
from pipeline.judge import told
from pipeline.room import RoomState
from pipeline.slicing import attune
from schemas.anomalies import Anomaly
from schemas.base import EVERY_ROOM
from schemas.control import FOR_EVERY_ROOM, arguments
from schemas.settings import Policy


class Refused(ValueError):  # noqa: N818 - it reads as what it is: the control was refused
    """The control cannot be applied; nothing was changed."""


def read(event: Any) -> Any:
    """Return a control's arguments; raise `Refused` when they do not fit."""
    try:
        orjson.dumps(event.args)
    except TypeError as error:
        msg = f"args: integers must be within 64 bits and text must be encodable: {error}"
        raise Refused(msg) from None
    try:
        args = arguments(event.action, event.args)
        if event.action == "update_settings" and args.policy is not None:
            Policy.model_validate(args.policy)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        msg = f"args.policy.{path}: {first['msg']}"
        raise Refused(msg) from None
    except ValueError as error:
        raise Refused(str(error)) from None
    if event.room_id == EVERY_ROOM and event.action not in FOR_EVERY_ROOM:
        msg = f"room_id: must be one room for {event.action}, got '*' (only for {', '.join(FOR_EVERY_ROOM)})"
        raise Refused(msg)
    return args


def apply_to_all(event: Any, args: Any, ctx: Context) -> None:
    """Apply a control for every room of the partition."""
    star = ctx.star
    if event.action == "kill_switch":
        star.is_killed = args.on
    elif event.action == "silence":
        star.silences = [s for s in star.silences if s[0] > star.clock_ms] + [(args.until_ts, args.metric or "")]
    elif event.action == "update_settings" and args.policy is not None:
        ctx.set_policy(Policy.model_validate(args.policy))
        star.policy = ctx.policy.model_dump_json().encode()


class RoomControl:
    """Apply a control to one room; what it makes known is in `anomalies` and the commander's `messages`."""

    def __init__(self, room: RoomState, commander: Commander, now_ms: int, ctx: Context) -> None:
        self.room, self.commander, self.now_ms, self.ctx = room, commander, now_ms, ctx
        self.anomalies: list[Anomaly] = []

    def apply(self, event: Any, args: Any, now: Any) -> None:
        """Apply one action; `now` is the room's bidding situation."""
        room = self.room
        match event.action:
            case "set_mode":
                room.config.set_mode(args.mode, self.ctx.policy)
            case "kill_switch":
                room.is_killed = args.on
            case "approve":
                self.commander.approve(args.command_id)
            case "reject":
                self.commander.reject(args.command_id)
            case "ack_anomaly" | "resolve_anomaly":
                self._settle(event.action, args.anomaly_id, event.actor)
            case "silence":
                live = [silence for silence in room.silences if silence[0] > self.now_ms]
                room.silences = [*live, (args.until_ts, args.metric or "")]
            case "override_bid":
                plan = room.plans.get(args.plan_id)
                if plan is not None:
                    value = goal_micro(args.value) if plan.is_goal else whole_minor(args.value)
                    if value is not None:
                        self.commander.override(plan, value, now, actor=event.actor, control_id=event.control_id)
            case "exclude_window":
                live_windows = [window for window in room.excluded if window[1] > self.now_ms]
                room.excluded = [*live_windows, (args.from_ts, args.to_ts)]
            case "update_settings":
                if args.settings is not None:
                    room.config.set(args.settings, self.ctx.policy)
                    attune(room, self.ctx)
            case _:  # feedback: kept in the trail for whoever tunes the thresholds
                pass

    def _settle(self, action: str, anomaly_id: str, actor: str) -> None:
        for key, incident in sorted(self.room.incidents.items()):
            if incident.anomaly_id != anomaly_id or not incident.is_open:
                continue
            if action == "ack_anomaly":
                if incident.acknowledge():
                    self.anomalies.append(told(self.room, key, "acked", self.now_ms, self.ctx, params={"by": actor}))
            else:
                incident.resolve(self.now_ms)
                self.anomalies.append(told(self.room, key, "resolved", self.now_ms, self.ctx, params={"by": actor}))
