"""Counters by event time: what happened in the last minute, five, fifteen, sixty, and in the session.

A tally is a sparse dict of integers. Events land in base buckets of 500 ms; an evaluation at T folds those that end
by T, so a window's new edge is exact. Older buckets live in wider ones, each tally exactly once:

    60 s in 0.5 s buckets | to 300 s in 5 s | to 900 s in 15 s | to 3,600 s in 60 s
                     old <------------------------------------------------- T

so the old edge of a window is rounded down to a bucket of at most a sixtieth of its length.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Final

import msgspec

BASE_MS: Final = 500
ROOM_ZONES: Final = ((60_000, 500), (300_000, 5_000), (900_000, 15_000), (3_600_000, 60_000))
CHANNEL_ZONES: Final = ((300_000, 5_000),)

Tally = dict[str, int]


def add(into: Tally, tally: Tally) -> None:
    """Add every counter of `tally`."""
    for name, n in tally.items():
        into[name] = into.get(name, 0) + n


def subtract(from_: Tally, tally: Tally) -> None:
    """Take every counter of `tally` out again; what comes to zero is dropped."""
    for name, n in tally.items():
        left = from_.get(name, 0) - n
        if left:
            from_[name] = left
        else:
            from_.pop(name, None)


class Zone(msgspec.Struct):
    """The buckets between two ages, and their sum."""

    reach_ms: int
    bucket_ms: int
    buckets: dict[int, Tally] = msgspec.field(default_factory=dict)
    order: list[int] = msgspec.field(default_factory=list)
    total: Tally = msgspec.field(default_factory=dict)

    def put(self, start_ms: int, tally: Tally) -> None:
        """Add a tally to the bucket that holds `start_ms`."""
        start_ms -= start_ms % self.bucket_ms
        bucket = self.buckets.get(start_ms)
        if bucket is None:
            self.buckets[start_ms] = dict(tally)
            insort(self.order, start_ms)
        else:
            add(bucket, tally)
        add(self.total, tally)

    def oldest_end_ms(self) -> int | None:
        """Return when the oldest bucket ends, None when there is none."""
        return self.order[0] + self.bucket_ms if self.order else None


class Windows(msgspec.Struct):
    """Rolling sums over several windows and the session; `update` by `put`, read by `get`."""

    zones: list[Zone]
    session: Tally = msgspec.field(default_factory=dict)

    @classmethod
    def over(cls, zones: tuple[tuple[int, int], ...]) -> Windows:
        """Return empty windows, one a zone."""
        return cls([Zone(reach_ms, bucket_ms) for reach_ms, bucket_ms in zones])

    def put(self, start_ms: int, tally: Tally, now_ms: int) -> None:
        """Add the tally of one base bucket, seen from the evaluation at `now_ms`."""
        add(self.session, tally)
        for zone in self.zones:
            if start_ms - start_ms % zone.bucket_ms + zone.bucket_ms > now_ms - zone.reach_ms:
                zone.put(start_ms, tally)
                return

    def expire(self, now_ms: int) -> bool:
        """Hand buckets that left a zone to the next one; tell whether any did."""
        changed = False
        for i, zone in enumerate(self.zones):
            edge = now_ms - zone.reach_ms
            while zone.order and zone.order[0] + zone.bucket_ms <= edge:
                start_ms = zone.order.pop(0)
                tally = zone.buckets.pop(start_ms)
                subtract(zone.total, tally)
                changed = True
                for older in self.zones[i + 1 :]:
                    if start_ms - start_ms % older.bucket_ms + older.bucket_ms > now_ms - older.reach_ms:
                        older.put(start_ms, tally)
                        break
        return changed

    def drop(self, is_dropped: Callable[[str], bool]) -> None:
        """Forget counters of the rolling windows by name; the session's stay."""
        for zone in self.zones:
            for tally in (zone.total, *zone.buckets.values()):
                for name in [name for name in tally if is_dropped(name)]:
                    del tally[name]

    def next_expiry_ms(self) -> int | None:
        """Return the first moment at which some window's content changes by itself."""
        ends = [end + zone.reach_ms for zone in self.zones if (end := zone.oldest_end_ms()) is not None]
        return min(ends, default=None)

    def get(self, window_ms: int) -> Tally:
        """Return the sum over one of the windows."""
        total: Tally = {}
        for zone in self.zones:
            add(total, zone.total)
            if zone.reach_ms == window_ms:
                return total
        msg = f"window_ms must be one of {[zone.reach_ms for zone in self.zones]}, got {window_ms}"
        raise ValueError(msg)
