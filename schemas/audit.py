"""`audit.log`: every command, control and answer, each chained to the one before it in its room.

A room that is long over is let go of; its chain ends, and an entry `retired` in the partition's own chain (`*`) keeps
its head. Should the room come back, its chain begins anew.
"""

from __future__ import annotations

from typing import Any, Literal

from schemas.base import Identifier, TimestampMs, WireModel

AuditKind = Literal["command", "control", "ack", "retired"]


class AuditRecord(WireModel):
    """One entry of a room's trail; `prev_hash` is the `hash` of the entry before it, empty for the first."""

    audit_id: Identifier
    room_id: Identifier
    ts: TimestampMs
    seq: int
    kind: AuditKind
    actor: str
    policy_version: str
    content: dict[str, Any]
    prev_hash: str
    hash: str
