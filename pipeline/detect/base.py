"""What every detector answers."""

from __future__ import annotations

from typing import NamedTuple


class Judgement(NamedTuple):
    """One value against the past: what was expected, how far off in robust deviations, how unlikely (0..1)."""

    observed: float
    expected: float
    z: float
    tail: float
