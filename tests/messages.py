"""One valid message of every model that producers do not send, and the generated files to judge them by."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from schemas import export
from schemas.anomalies import Anomaly
from schemas.audit import AuditRecord
from schemas.commands import BidCommand
from schemas.control import Ack, ControlRequest, KillState
from schemas.deadletters import DeadLetter
from schemas.feedback import AudienceFeedback
from schemas.signals import RoomSignals
from tests.strategies import START_MS

METRICS = {"n_enters": 12, "gmv_minor": 0, "ctr": 0.031, "topics": {"price": 0.5}, "feed_state": {"order": "quiet"}}
MESSAGES: dict[type[BaseModel], dict[str, Any]] = {
    RoomSignals: {
        "room_id": "room-1",
        "ts": START_MS,
        "revision": 3,
        "n_shed": 17,
        "currency": "CNY",
        "stage": "acquisition",
        "mode": "shadow",
        "windows": {"60": METRICS, "session": METRICS | {"roas": 2.5, "quality_reasons": ["bounce"]}},
        "channels": {"paid": {"300": METRICS, "session": {}}},
        "segments": {"high_value": {"session": {"ivt_ratio": 0.1}}},
        "dimensions": {"region": {"guangdong": {"300": METRICS, "session": {}}}},
        "dimensions_since_ts": START_MS,
        "crowded": [
            {
                "by": "product_id",
                "value": "p-1",
                "n_negative": 12,
                "n_scored": 20,
                "negative_share": 0.6,
                "scored_share": 0.2,
            }
        ],
    },
    Anomaly: {
        "anomaly_id": "anomaly-1",
        "room_id": "room-1",
        "ts": START_MS,
        "status": "open",
        "severity": "S2",
        "metric": "cvr",
        "dimension": "channel:paid",
        "window_s": 300,
        "observed": 0.001,
        "expected": 0.02,
        "score": 0.00003,
        "cause": "payment",
        "cause_confidence": 0.7,
        "contributors": [{"dimension": "plan_id", "value": "plan-1", "share": 0.8}],
        "money_at_risk_minor": 12_000,
        "owner": "tech",
        "ack_due_ts": START_MS + 300_000,
        "resolve_due_ts": START_MS + 1_800_000,
        "escalation_level": 0,
        "runbook": "docs/runbook.md#payment",
        "code": "cvr_drop",
        "params": {"drop": 0.95},
        "evidence": {"n_clicks": 800},
    },
    BidCommand: {
        "command_id": "command-1",
        "revision": 1,
        "seq": 7,
        "room_id": "room-1",
        "plan_id": "plan-1",
        "channel": "paid",
        "ts": START_MS,
        "expires_ts": START_MS + 60_000,
        "action": "set_roi_goal",
        "direction": "less_spend",
        "prev_value": "2.35",
        "value": "2.58",
        "unit": "ratio",
        "mode": "approve",
        "status": "pending_approval",
        "emergency": False,
        "reason": {"code": "roas_below_target", "params": {"roas": 1.9}},
        "evidence": {"n_orders": 31},
        "anomaly_ids": ["anomaly-1"],
        "guardrails": [{"name": "step_ratio", "effect": "clipped", "params": {"limit": 0.1}}],
        "policy_version": "0123456789ab",
    },
    Ack: {
        "command_id": "command-1",
        "room_id": "room-1",
        "ts": START_MS,
        "status": "applied",
        "observed_value": "2.58",
        "detail": "read back",
        "kid": "controller:main",
        "sig": "0" * 64,
    },
    ControlRequest: {
        "control_id": "control-1",
        "room_id": "*",
        "ts": START_MS,
        "actor": "operator-1",
        "action": "kill_switch",
        "args": {"on": True},
        "kid": "control",
        "sig": "0" * 64,
    },
    KillState: {"on": True, "actor": "operator-1", "ts": START_MS},
    DeadLetter: {
        "reason": "bad_type",
        "error": "ts must be an integer, got '1'",
        "topic": "room.events",
        "partition": 3,
        "offset": 41,
        "index": 0,
        "ts": START_MS,
        "payload_b64": "e30=",
    },
    AudienceFeedback: {
        "feedback_id": "feedback-1",
        "revision": 2,
        "room_id": "room-1",
        "ts": START_MS,
        "since_ts": START_MS,
        "ended_ts": START_MS,
        "currency": "CNY",
        "roas_maturity": 0.8,
        "segments": {
            "high_value": {
                "n_visits": 120,
                "valid_ratio": 0.98,
                "valid_low": 0.95,
                "valid_high": 0.99,
                "n_interactions": 31,
                "n_comments": 8,
                "actions_per_visit": 0.325,
                "dwell_mean_s": 41.2,
                "n_orders": 7,
                "n_buyers": 6,
                "n_refunds": 1,
                "gmv_minor": 91_000,
                "refund_minor": 9_900,
                "spend_minor": 20_000,
                "roas_valid": 3.9,
                "roas_maturity": 0.9,
            }
        },
    },
    AuditRecord: {
        "audit_id": "audit-1",
        "room_id": "room-1",
        "ts": START_MS,
        "seq": 1,
        "kind": "command",
        "actor": "roompulse",
        "policy_version": "0123456789ab",
        "content": {"command_id": "command-1"},
        "prev_hash": "",
        "hash": "0" * 32,
    },
}


@functools.cache
def written(name: str) -> Any:
    return json.loads((export.GENERATED / name).read_text(encoding="utf-8"))


def nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes(child)


def resolve(document: Any, ref: str) -> Any:
    assert ref.startswith("#/"), f"{ref} should stay in its own file"
    return functools.reduce(lambda node, part: node[part], ref[2:].split("/"), document)
