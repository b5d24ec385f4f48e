"""Deviation from a room's own recent past, in units that an outlier cannot stretch."""

from __future__ import annotations

import math
from statistics import median
from typing import Final

import msgspec

from pipeline.detect.base import Judgement
from schemas.settings import DetectSettings

MAD_TO_SIGMA: Final = 1.4826
"""Median absolute deviation times this is the standard deviation of a normal sample (Rousseeuw and Croux 1993)."""


class RobustDeviation(msgspec.Struct):
    """Median and MAD of the past, joined with a lag so that trouble does not become its own baseline.

    A constant past has no spread: the scale never falls below `floor_ratio` of the level nor below `floor`, so the
    first change after a quiet time is judged against what matters, not against zero.

    Parameters
    ----------
    floor : smallest scale, in the metric's own unit.
    floor_ratio : smallest scale as a share of the past's median.
    """

    floor: float
    floor_ratio: float
    sampled_ms: int = -1
    waiting: list[tuple[int, float]] = msgspec.field(default_factory=list)
    past: list[float] = msgspec.field(default_factory=list)
    centre: float = 0.0
    scale: float = 0.0

    def update(self, value: float, ts: int, settings: DetectSettings) -> Judgement | None:
        """Judge `value`, then let it join the past after the lag; None under the minimum sample."""
        self._join(ts, settings)
        judgement = self._judge(value, settings)
        if self.sampled_ms < 0 or ts - self.sampled_ms >= settings.sample_interval_ms:
            self.sampled_ms = ts
            self.waiting.append((ts, value))
        return judgement

    def exclude(self, since_ms: int) -> None:
        """Drop what waits to join the past since a moment: it was trouble, not normality."""
        self.waiting = [(ts, value) for ts, value in self.waiting if ts < since_ms]

    def _judge(self, value: float, settings: DetectSettings) -> Judgement | None:
        if len(self.past) < settings.min_samples:
            return None
        z = round((value - self.centre) / self.scale, 4)
        # Six significant digits: the C library's last bit differs between processors.
        tail = float(f"{0.5 * math.erfc(abs(z) / math.sqrt(2)):.6g}")
        return Judgement(round(value, 6), round(self.centre, 6), z, tail)

    def _join(self, ts: int, settings: DetectSettings) -> None:
        n_ripe = 0
        for sampled_ms, _ in self.waiting:
            if sampled_ms > ts - settings.lag_ms:
                break
            n_ripe += 1
        if n_ripe == 0:
            return
        self.past.extend(value for _, value in self.waiting[:n_ripe])
        del self.waiting[:n_ripe]
        del self.past[: max(0, len(self.past) - settings.history)]
        self.centre = median(self.past)
        spread = MAD_TO_SIGMA * median(abs(value - self.centre) for value in self.past)
        self.scale = max(spread, self.floor, self.floor_ratio * abs(self.centre))
