"""`bid.commands`: what a bid controller may act on, and why."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from schemas.base import Decimal6, Identifier, Mode, TimestampMs, WireModel

CommandAction = Literal[
    "set_bid",
    "set_roi_goal",
    "set_budget",
    "pause",
    "resume",
    "exclude_audience",
    "block_source",
    "remove_creative",
    "hold",
    "rollback",
    "heartbeat",
]
Direction = Literal["more_spend", "less_spend", "none"]
CommandStatus = Literal["issued", "pending_approval", "approved", "suppressed"]

MAX_LIFETIME_MS = 60_000


class Reason(WireModel):
    """Why, as a code with parameters; words are made where people read."""

    code: str
    params: dict[str, Any] = Field(default_factory=dict)


class Guardrail(WireModel):
    """A limit that clipped or blocked the command."""

    name: str
    effect: Literal["clipped", "blocked"]
    params: dict[str, Any] = Field(default_factory=dict)


class BidCommand(WireModel):
    """One step on one knob of one plan, or a word about none being taken."""

    command_id: Identifier
    revision: int = 1
    seq: int
    room_id: Identifier
    plan_id: Identifier | None = None
    channel: Identifier | None = None
    ts: TimestampMs
    expires_ts: TimestampMs
    action: CommandAction
    direction: Direction
    prev_value: int | Decimal6 | None = None
    value: int | Decimal6 | None = None
    unit: str | None = Field(
        default=None, description="'minor:CNY' (or 'minor' while no currency is known), or 'ratio' for a goal"
    )
    mode: Mode
    status: CommandStatus
    emergency: bool = False
    reason: Reason
    evidence: dict[str, Any] = Field(default_factory=dict)
    anomaly_ids: list[str] = Field(default_factory=list)
    guardrails: list[Guardrail] = Field(default_factory=list)
    policy_version: str
