"""Binned samples by event time: the middle of a window's durations, the spread of its order values.

A sample is one byte, the number of its bin (`pipeline.sketches.log_bin`); a bucket is a string of them. So an hour
costs a byte a sample beside its buckets, a quiet bucket costs next to nothing, and moving one to a wider bucket is a
concatenation.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec
import numpy as np

from pipeline.buckets import ROOM_ZONES

_SMALL: Final = 200
"""Samples up to which sorting the bytes beats numpy's counting (measured)."""


class SampleZone(msgspec.Struct, gc=False):
    """The buckets between two ages in order of time."""

    reach_ms: int
    bucket_ms: int
    starts: list[int] = msgspec.field(default_factory=list)
    chunks: list[bytes] = msgspec.field(default_factory=list)

    def put(self, start_ms: int, samples: bytes) -> None:
        """Add samples to the bucket that holds `start_ms`."""
        starts, start_ms = self.starts, start_ms - start_ms % self.bucket_ms
        place = len(starts) if not starts or start_ms > starts[-1] else bisect_left(starts, start_ms)
        if place < len(starts) and starts[place] == start_ms:
            self.chunks[place] += samples
        else:
            starts.insert(place, start_ms)
            self.chunks.insert(place, samples)


def _zones() -> list[SampleZone]:
    return [SampleZone(reach_ms, bucket_ms) for reach_ms, bucket_ms in ROOM_ZONES]


class Samples(msgspec.Struct, gc=False):
    """A metric's samples over the room's windows, and how many fell into each bin in the session."""

    zones: list[SampleZone] = msgspec.field(default_factory=_zones)
    session: dict[int, int] = msgspec.field(default_factory=dict)

    def put(self, start_ms: int, samples: bytes, now_ms: int) -> None:
        """Add the samples of one base bucket, seen from the evaluation at `now_ms`."""
        for zone in self.zones:
            if start_ms - start_ms % zone.bucket_ms + zone.bucket_ms > now_ms - zone.reach_ms:
                zone.put(start_ms, samples)
                return

    def count(self, samples: bytes) -> None:
        """Count samples into the session."""
        for number in samples:
            self.session[number] = self.session.get(number, 0) + 1

    def expire(self, now_ms: int) -> None:
        """Hand buckets that left a zone to the next one."""
        for i, zone in enumerate(self.zones):
            last_start_ms = now_ms - zone.reach_ms - zone.bucket_ms
            while zone.starts and zone.starts[0] <= last_start_ms:
                start_ms, samples = zone.starts.pop(0), zone.chunks.pop(0)
                for older in self.zones[i + 1 :]:
                    if start_ms - start_ms % older.bucket_ms + older.bucket_ms > now_ms - older.reach_ms:
                        older.put(start_ms, samples)
                        break

    def windows(self) -> list[bytes]:
        """Return each window's samples, from the shortest to the longest."""
        out, so_far = [], b""
        for zone in self.zones:
            if zone.chunks:
                so_far += b"".join(zone.chunks)
            out.append(so_far)
        return out

    def clear(self) -> None:
        """Forget the rolling windows."""
        for zone in self.zones:
            zone.starts.clear()
            zone.chunks.clear()


def middle(samples: bytes) -> int | None:
    """Return the bin that half of the samples do not exceed; None without samples."""
    n = len(samples)
    if n == 0:
        return None
    if n <= _SMALL:
        return sorted(samples)[(n - 1) // 2]
    below = np.bincount(np.frombuffer(samples, np.uint8)).cumsum()
    return int(below.searchsorted((n + 1) // 2))


def counted(samples: bytes) -> dict[int, int]:
    """Return how many samples fell into each bin."""
    if len(samples) <= _SMALL:
        found: dict[int, int] = {}
        for number in samples:
            found[number] = found.get(number, 0) + 1
        return found
    counts = np.bincount(np.frombuffer(samples, np.uint8)) if samples else ()
    return {number: int(n) for number, n in enumerate(counts) if n}
