"""Deviation from a room's own recent past, in units that an outlier cannot stretch."""

from __future__ import annotations

import math
from statistics import median
from typing import Final

import msgspec

from pipeline.detect.base import Judgement
from pipeline.detect.watched import Sample, Watched
from schemas.settings import DetectSettings

MAD_TO_SIGMA: Final = 1.4826
"""Median absolute deviation times this is the standard deviation of a normal sample (Rousseeuw and Croux 1993)."""


class RobustDeviation(msgspec.Struct, gc=False):
    """Median and MAD of the past, joined with a lag so that trouble does not become its own baseline.

    A constant past has no spread: the scale is never below what counting so few events scatters by itself, nor
    below `floor` and `floor_ratio` of the level. So the first change after a quiet time is judged against what
    matters, not against zero.
    """

    sampled_ms: int = -1
    waiting: list[tuple[int, float]] = msgspec.field(default_factory=list)
    past: list[float] = msgspec.field(default_factory=list)
    centre: float = 0.0
    spread: float = 0.0

    def update(self, sample: Sample, ts: int, watched: Watched, settings: DetectSettings) -> Judgement | None:
        """Judge a value, then let it join the past after the lag; None under the minimum sample."""
        self._join(ts, settings)
        judgement = None
        if sample.n >= watched.min_n and len(self.past) >= settings.min_samples:
            judgement = self._judge(sample, watched)
        if sample.n >= watched.min_past_n and (
            self.sampled_ms < 0 or ts - self.sampled_ms >= settings.sample_interval_ms
        ):
            self.sampled_ms = ts
            self.waiting.append((ts, sample.value))
        return judgement

    def exclude(self, since_ms: int) -> None:
        """Drop what waits to join the past since a moment: it was trouble, not normality."""
        self.waiting = [(ts, value) for ts, value in self.waiting if ts < since_ms]

    def _judge(self, sample: Sample, watched: Watched) -> Judgement:
        noise = watched.noise(self.centre, sample.n)
        scale = max(self.spread, noise, watched.floor, watched.floor_ratio * abs(self.centre))
        z = round((sample.value - self.centre) / scale, 4)
        # Six significant digits: the C library's last bit differs between processors.
        tail = float(f"{0.5 * math.erfc(abs(z) / math.sqrt(2)):.6g}")
        return Judgement(round(sample.value, 6), round(self.centre, 6), z, tail)

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
        self.spread = MAD_TO_SIGMA * median(abs(value - self.centre) for value in self.past)
