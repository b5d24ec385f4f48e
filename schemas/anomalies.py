"""`room.anomalies`: the life of each anomaly."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from schemas.base import Identifier, Severity, TimestampMs, WireModel

Cause = Literal[
    "ivt",
    "creative",
    "targeting",
    "content",
    "landing_page",
    "payment",
    "stock_price",
    "auction_pressure",
    "organic_surge",
    "refund_wave",
    "delivery_stopped",
    "tracking",
    "unknown",
]


class Contributor(WireModel):
    """A slice and its share of the deviation."""

    dimension: str
    value: str
    share: float


class Anomaly(WireModel):
    """One step in an anomaly's life; `anomaly_id` stays the same from `open` to `resolved`."""

    anomaly_id: Identifier
    room_id: Identifier
    ts: TimestampMs
    status: Literal["open", "update", "acked", "resolved"]
    severity: Severity
    metric: str
    dimension: str = Field(description="'room', or 'channel:NAME'")
    window_s: int
    observed: float
    expected: float
    score: float = Field(ge=0, le=1, description="tail probability: the smaller, the stranger")
    cause: Cause
    cause_confidence: float = Field(ge=0, le=1)
    contributors: list[Contributor] = Field(default_factory=list)
    money_at_risk_minor: int | None = Field(default=None, description="minor units per minute")
    owner: str
    ack_due_ts: TimestampMs | None = None
    resolve_due_ts: TimestampMs | None = None
    escalation_level: int = 0
    runbook: str
    code: str
    params: dict[str, Any] = Field(default_factory=dict)
    evidence: dict[str, Any] = Field(default_factory=dict)
