"""Names derived from the log alone, so that a repeat after a crash is recognisably the same."""

from __future__ import annotations

import hashlib


def derived(prefix: str, *parts: object) -> str:
    """Return `prefix-` and 20 hex digits of the parts; equal parts give equal names everywhere."""
    text = "\0".join(str(part) for part in parts)
    return f"{prefix}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"


def phase_ms(room_id: str, interval_ms: int, step_ms: int) -> int:
    """Return a room's own place in an interval, a multiple of `step_ms`: rooms take turns instead of a rush."""
    number = int.from_bytes(hashlib.blake2b(room_id.encode(), digest_size=8).digest(), "big")
    return number % (interval_ms // step_ms) * step_ms


def next_turn_ms(after_ms: int, phase: int, interval_ms: int) -> int:
    """Return the first moment after `after_ms` that is `phase` beyond a multiple of the interval.

    >>> next_turn_ms(10_000, 500, 1_000), next_turn_ms(10_500, 500, 1_000)
    (10500, 11500)
    """
    return after_ms - (after_ms - phase) % interval_ms + interval_ms
