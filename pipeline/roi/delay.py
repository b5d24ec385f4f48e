"""How much of the return of money just spent has come in yet."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

from pipeline.buckets import Windows

STEP_MS: Final = 1_000
CURVE_STEPS: Final = 7_200
MILLION: Final = 1_000_000


@lru_cache(maxsize=16)
def delay_curve_ppm(mean_s: int) -> tuple[int, ...]:
    """Return P(order within d | it will come), in millionths, for d = 0, 1, ... 7,200 s.

    Exponential delay with the given mean (Chapelle 2014), as integers: every processor decides alike.
    """
    return tuple(round(MILLION * -math.expm1(-second / mean_s)) for second in range(CURVE_STEPS + 1))


class Matured(NamedTuple):
    """Spend of a window, and the part of it (in millionths of a minor unit) whose return is due by now."""

    spend_minor: int
    due_ppm: int

    @property
    def maturity(self) -> float | None:
        """Share of the return that is due, 0..1; None when nothing was spent."""
        if self.spend_minor <= 0:
            return None
        return round(min(1.0, max(0.0, self.due_ppm / (MILLION * self.spend_minor))), 6)

    def with_rest(self, total_minor: int) -> Matured:
        """Return the session's: what it spent before this, its widest window, is taken as fully due."""
        return Matured(total_minor, self.due_ppm + (total_minor - self.spend_minor) * MILLION)


def matured_spend(spent: Windows, now_ms: int, mean_s: int) -> list[Matured]:
    """Return one `Matured` a window: its spend weighted by its age. `spent` holds minor units."""
    curve = delay_curve_ppm(mean_s)
    out: list[Matured] = []
    total = due = 0
    for zone in spent.zones:
        middle_ms = now_ms - zone.bucket_ms // 2
        total += zone.total
        for start_ms, cost in zip(zone.starts, zone.values, strict=True):
            age = (middle_ms - start_ms) // STEP_MS
            due += cost * (curve[age] if 0 <= age <= CURVE_STEPS else curve[0 if age < 0 else CURVE_STEPS])
        out.append(Matured(total, due))
    return out
