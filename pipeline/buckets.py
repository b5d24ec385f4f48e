"""Sums by event time: what happened in the last minute, five, fifteen, sixty.

What is summed is any integer: packed counters (`pipeline.counters`), or money alone. Events wait in base buckets of
500 ms; an evaluation at T folds those that end by T, so a window's new edge is exact. Older buckets live in wider
ones, each value exactly once:

    60 s in 1 s buckets | to 300 s in 5 s | to 900 s in 15 s | to 3,600 s in 60 s
                     old <------------------------------------------------- T

so the old edge of a window is rounded down to a bucket of at most a sixtieth of its length.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

BASE_MS: Final = 500
ROOM_ZONES: Final = ((60_000, 1_000), (300_000, 5_000), (900_000, 15_000), (3_600_000, 60_000))
CHANNEL_ZONES: Final = ((300_000, 5_000),)


class Zone(msgspec.Struct, gc=False):
    """The buckets between two ages in order of time, and their sum."""

    reach_ms: int
    bucket_ms: int
    starts: list[int] = msgspec.field(default_factory=list)
    values: list[int] = msgspec.field(default_factory=list)
    total: int = 0

    def put(self, start_ms: int, value: int) -> None:
        """Add a value to the bucket that holds `start_ms`."""
        self.total += value
        starts = self.starts
        start_ms -= start_ms % self.bucket_ms
        if not starts or start_ms > starts[-1]:
            starts.append(start_ms)
            self.values.append(value)
            return
        place = bisect_left(starts, start_ms)
        if starts[place] == start_ms:
            self.values[place] += value
        else:
            starts.insert(place, start_ms)
            self.values.insert(place, value)


class Windows:
    """Rolling sums over several windows and since the session began; `put` adds, `totals` tells.

    `session` holds what belongs to this session alone, `prior` what came late for one before it: the rolling windows
    go by time and hold both.
    """

    __slots__ = ("prior", "session", "zones")

    def __init__(self, zones: tuple[tuple[int, int], ...]) -> None:
        self.zones = [Zone(reach_ms, bucket_ms) for reach_ms, bucket_ms in zones]
        self.session = self.prior = 0

    def put(self, start_ms: int, value: int, now_ms: int) -> None:
        """Add the value of one base bucket, seen from the evaluation at `now_ms`."""
        zone = self.zones[0]
        first_ms, starts = start_ms - start_ms % zone.bucket_ms, zone.starts
        if starts and first_ms >= starts[-1] and first_ms > now_ms - zone.reach_ms:
            # By far the most usual: it belongs to the newest bucket, or is a newer one.
            zone.total += value
            if first_ms == starts[-1]:
                zone.values[-1] += value
            else:
                starts.append(first_ms)
                zone.values.append(value)
            return
        for zone in self.zones:
            if start_ms - start_ms % zone.bucket_ms + zone.bucket_ms > now_ms - zone.reach_ms:
                zone.put(start_ms, value)
                return

    def expire(self, now_ms: int) -> bool:
        """Hand buckets that left a zone to the next one; tell whether any did."""
        changed = False
        for i, zone in enumerate(self.zones):
            starts = zone.starts
            last_start_ms = now_ms - zone.reach_ms - zone.bucket_ms
            if not starts or starts[0] > last_start_ms:
                continue
            changed = True
            n_gone, n_kept = 0, len(starts)
            older = self.zones[i + 1 :]
            while n_gone < n_kept and starts[n_gone] <= last_start_ms:
                start_ms, value = starts[n_gone], zone.values[n_gone]
                n_gone += 1
                zone.total -= value
                for next_zone in older:
                    if start_ms - start_ms % next_zone.bucket_ms + next_zone.bucket_ms > now_ms - next_zone.reach_ms:
                        next_zone.put(start_ms, value)
                        break
            del starts[:n_gone]
            del zone.values[:n_gone]
        return changed

    def next_expiry_ms(self) -> int | None:
        """Return the first moment at which some window's content changes by itself."""
        ends = [zone.starts[0] + zone.bucket_ms + zone.reach_ms for zone in self.zones if zone.starts]
        return min(ends, default=None)

    def totals(self) -> list[int]:
        """Return the sum over each window, from the shortest to the longest."""
        total, out = 0, []
        for zone in self.zones:
            total += zone.total
            out.append(total)
        return out
