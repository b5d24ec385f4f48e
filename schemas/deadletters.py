"""`room.events.dlq`: records that were refused, with words a producer's developer can act on."""

from __future__ import annotations

from typing import Literal

from schemas.base import TimestampMs, WireModel

RejectReason = Literal[
    "not_utf8",
    "not_json",
    "not_object",
    "empty_array",
    "nested_array",
    "foreign_room",
    "not_in_array",
    "too_large",
    "too_deep",
    "not_finite",
    "unknown_type",
    "unknown_value",
    "missing_field",
    "bad_type",
    "bad_id",
    "bad_value",
    "negative",
    "over_limit",
    "bad_currency",
    "ts_negative",
    "ts_ahead",
    "currency_unknown",
    "unsigned",
    "bad_signature",
    "engine_error",
]


class DeadLetter(WireModel):
    """One refused element. `offset` is the line number in a replay; `index` its place in an array."""

    reason: RejectReason
    error: str
    topic: str
    partition: int
    offset: int
    index: int | None = None
    ts: TimestampMs | None = None
    payload_b64: str
