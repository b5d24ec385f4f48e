"""Is a feed alive? A quiet room and a broken producer look alike unless somebody asks."""

from __future__ import annotations

from typing import Final

import msgspec

from schemas.base import FeedState
from schemas.settings import FeedSettings

FEED_OF: Final = {
    "view": "view",
    "presence": "view",
    "counts": "view",
    "interaction": "view",
    "comment": "comment",
    "order": "order",
    "spend": "spend",
    "plan": "plan",
}
"""Which feed an event type proves alive."""

BY_PEOPLE: Final = ("comment", "order", "plan")
"""Feeds whose events come when somebody does something; the others report at regular times."""


class Feed(msgspec.Struct, gc=False):
    """One producer's feed: by its own heartbeats, or by its usual gap where it sends none.

    `quiet` (complete, but nothing happened) is not `dead` (no news): only a dead feed is a fault.
    """

    newest_ts: int = -1
    complete_ts: int = -1
    expected_lag_ms: int = 0
    n_gaps: int = 0
    usual_gap_ms: float = 0.0

    def event(self, ts: int) -> None:
        """Note an event of this feed."""
        if ts > self.newest_ts:
            if self.newest_ts >= 0:
                # Mean of the first gaps, then exponential with weight 1/20.
                self.n_gaps = min(self.n_gaps + 1, 20)
                self.usual_gap_ms += (ts - self.newest_ts - self.usual_gap_ms) / self.n_gaps
            self.newest_ts = ts

    def heartbeat(self, complete_ts: int, expected_lag_s: int | None) -> None:
        """Note the producer's word that all up to a moment was sent."""
        self.complete_ts = max(self.complete_ts, complete_ts)
        if expected_lag_s is not None:
            self.expected_lag_ms = expected_lag_s * 1_000

    def freshness_ms(self, now_ms: int) -> int | None:
        """Return how far the feed is behind the clock; None before its first news."""
        newest = self.complete_ts if self.complete_ts >= 0 else self.newest_ts
        return None if newest < 0 else max(0, now_ms - newest)

    def _limits_ms(self, settings: FeedSettings) -> tuple[float, float] | None:
        if self.complete_ts >= 0:
            late: float = self.expected_lag_ms + settings.late_after_s * 1_000
            return late, late + (settings.dead_after_s - settings.late_after_s) * 1_000
        if self.n_gaps < settings.min_gaps:
            return None
        late = max(settings.late_after_s * 1_000, settings.gap_factor_late * self.usual_gap_ms)
        return late, max(settings.dead_after_s * 1_000, settings.gap_factor_dead * self.usual_gap_ms)

    def look(self, name: str, now_ms: int, settings: FeedSettings) -> tuple[FeedState | None, int | None]:
        """Return the state at `now_ms`, and when it changes if no news comes.

        The state is None while there is too little to judge by, the moment when it cannot get worse. People fall
        silent, machines do not: without heartbeats, comments and orders are at worst `late`.
        """
        complete_ts, newest_ts = self.complete_ts, self.newest_ts
        limits, newest = self._limits_ms(settings), complete_ts if complete_ts >= 0 else newest_ts
        if newest < 0 or limits is None:
            return None, None
        late_ms, dead_ms = limits
        behind = now_ms - newest if now_ms > newest else 0
        quiet_at = newest_ts + settings.quiet_after_s * 1_000 + 1
        late_at, dead_at = newest + round(late_ms) + 1, newest + round(dead_ms) + 1
        change: int | None = None
        for moment in (late_at, dead_at, quiet_at):
            if moment > now_ms and (change is None or moment < change):
                change = moment
        state: FeedState = "live"
        if behind > dead_ms and (complete_ts >= 0 or name not in BY_PEOPLE):
            state = "dead"
        elif behind > late_ms:
            state = "late"
        elif now_ms >= quiet_at:
            state = "quiet"
        return state, change

    def state(self, name: str, now_ms: int, settings: FeedSettings) -> FeedState | None:
        """Return the state at `now_ms` alone."""
        return self.look(name, now_ms, settings)[0]

    def next_change_ms(self, now_ms: int, settings: FeedSettings) -> int | None:
        """Return the moment of change alone."""
        return self.look("", now_ms, settings)[1]
