"""Records that no producer should send: an event made unacceptable in the ways of the contract, one reject each."""

from __future__ import annotations

import json
from typing import Any

Event = dict[str, Any]


def as_json(value: Any) -> bytes:
    """Return a value as most producers write it."""
    return json.dumps(value, ensure_ascii=False).encode()


def malformed(event: Event, incomplete: Event) -> tuple[bytes, ...]:
    """Return a good event in every kind of damage, always in the same order; `incomplete` lacks a required field."""
    good = as_json(event)
    return (
        b"\xff" + good,
        good[:-1],
        b"nonsense",
        b"17",
        b'"text"',
        b"null",
        b"[]",
        b"[[]",
        good + good,
        as_json(incomplete),
        as_json({**event, "type": "tock"}),
        as_json({**event, "ts": str(event["ts"])}),
        as_json({**event, "ts": float(event["ts"])}),
        as_json({**event, "ts": True}),
        as_json({**event, "ts": -1}),
        as_json({**event, "event_id": ""}),
        as_json({**event, "event_id": "x" * 129}),
        as_json({**event, "room_id": "a\u0000b"}),
        as_json({**event, "user_id": "line\nbreak"}),
        as_json({**event, "type": "order", "status": "paid", "order_id": "o", "amount_minor": -1, "currency": "CNY"}),
        as_json({**event, "type": "gift", "amount_minor": 10**12 + 1, "currency": "CNY"}),
        as_json({**event, "type": "gift", "amount_minor": 1, "currency": "cny"}),
        as_json({**event, "type": "view", "action": "leave", "session_id": "s"} | {"dwell_ms": None}),
        as_json({**event, "type": "presence", "n_online": "1"}),
        good[:-1] + b', "extra": ' + b"[" * 32 + b"]" * 32 + b"}",
        good[:-1] + b', "extra": NaN}',
    )
