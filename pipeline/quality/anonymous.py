"""Traffic without consent: nobody is told apart, so only how much there is and what it comes to can be judged.

A channel's events without consent are counted in steps of ten seconds. A step with surprisingly many of them (identity:
who hides is evidence once a crowd does), whose visits end at once (rate) or whose comments are copies (content), is a
flood: all of the step is invalid. Counts alone never suffice: a celebrity brings more of everybody.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pipeline.quality.surprise import surplus
from schemas.settings import QualitySettings

STEP_MS: Final = 10_000
MAX_FLOODS: Final = 64
USUAL: Final = 2.0
"""Events without consent in a step where nothing is known [choice]."""


class Step(msgspec.Struct, gc=False):
    """What came without consent on one channel in a step."""

    n: int = 0
    n_judged: int = 0
    n_leaves: int = 0
    n_short: int = 0
    n_comments: int = 0
    n_copied: int = 0


class Anonymous(msgspec.Struct, gc=False):
    """Steps by channel, the usual number of events in one, and the floods that were found."""

    steps: dict[int, dict[int, Step]] = msgspec.field(default_factory=dict)
    """By the step's number, then by channel."""
    usual_milli: dict[int, int] = msgspec.field(default_factory=dict)
    """Thousandths of events a step, by channel: moves by an eighth towards every step that was no flood."""
    floods: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """(number of the step, channel), the newest ones."""

    def note(self, ts: int, channel: int, *, dwell_ms: int | None = None, is_judged: bool, short_ms: int) -> Step:
        """Count an event without consent."""
        by_channel = self.steps.setdefault(ts // STEP_MS, {})
        step = by_channel.get(channel)
        if step is None:
            step = by_channel[channel] = Step()
        step.n += 1
        step.n_judged += is_judged
        if dwell_ms is not None:
            step.n_leaves += 1
            step.n_short += dwell_ms <= short_ms
        return step

    def review(self, now_ms: int, settings: QualitySettings) -> list[tuple[int, int, int]]:
        """Judge the steps that are over; return (ts, channel, invalid events) of floods."""
        if not self.steps:
            return []
        found = []
        for number in sorted(self.steps):
            if (number + 1) * STEP_MS > now_ms:
                break
            for channel, step in sorted(self.steps.pop(number).items()):
                usual = self.usual_milli.get(channel, round(USUAL * 1_000))
                if self._is_flood(step, usual / 1_000, settings):
                    self.floods = [*self.floods, (number, channel)][-MAX_FLOODS:]
                    if step.n_judged:
                        found.append((number * STEP_MS, channel, step.n_judged))
                else:
                    self.usual_milli[channel] = usual + (step.n * 1_000 - usual) // 8
        return found

    @staticmethod
    def _is_flood(step: Step, usual: float, settings: QualitySettings) -> bool:
        if surplus(step.n, 2.0 * usual) < settings.evidence_nats:
            return False
        is_rate = step.n_leaves >= 8 and 2 * step.n_short >= step.n_leaves
        is_content = step.n_copied >= settings.repeat_users and 2 * step.n_copied >= step.n_comments
        return is_rate or is_content

    def is_flood(self, ts: int, channel: int) -> bool:
        """Tell whether a moment lies in a flood of a channel."""
        return (ts // STEP_MS, channel) in self.floods
