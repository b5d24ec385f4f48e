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


def matured_spend(windows: Windows, now_ms: int, mean_s: int) -> list[Matured]:
    """Return one `Matured` a zone's window, then the session's: spend weighted by its age.

    What the session spent before the widest window is taken as fully due.
    """
    curve = delay_curve_ppm(mean_s)
    out: list[Matured] = []
    spend = due = 0
    for zone in windows.zones:
        half = zone.bucket_ms // 2
        for start_ms, tally in zone.buckets.items() if "spend_minor" in zone.total else ():
            cost = tally.get("spend_minor")
            if cost:
                age = (now_ms - start_ms - half) // STEP_MS
                spend += cost
                due += cost * curve[min(max(age, 0), CURVE_STEPS)]
        out.append(Matured(spend, due))
    total = windows.session.get("spend_minor", 0) - windows.session.get("past:spend_minor", 0)
    out.append(Matured(total, due + (total - spend) * MILLION))
    return out
