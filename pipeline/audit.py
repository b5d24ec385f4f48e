"""A room's trail: each entry carries the hash of the one before, so none can be changed or dropped unseen."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import orjson

from pipeline.ids import derived
from schemas.audit import AuditKind, AuditRecord


class Trail(msgspec.Struct, gc=False):
    """The head of a room's chain."""

    seq: int = 0
    head: str = ""

    def append(
        self,
        kind: AuditKind,
        room_id: str,
        ts: int,
        *,
        actor: str,
        content: dict[str, Any],
        policy_version: str,
    ) -> AuditRecord:
        """Add one entry and return it; `hash` is BLAKE2b-128 over the entry (sorted keys, no spaces) without `hash`."""
        self.seq += 1
        body: dict[str, Any] = {
            "audit_id": derived("audit", room_id, self.seq, ts, self.head),
            "room_id": room_id,
            "ts": ts,
            "seq": self.seq,
            "kind": kind,
            "actor": actor,
            "policy_version": policy_version,
            "content": content,
            "prev_hash": self.head,
        }
        digest = hashlib.blake2b(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), digest_size=16)
        self.head = digest.hexdigest()
        return AuditRecord.model_construct(**body, hash=self.head)
