"""Whether anybody was at work when a stretch of the log was written, as the log itself tells.

A worker writes a tick into each of its partitions every `every_ms`, and says so in it. Where those ticks stop while
other records go on, no worker had the partition: whoever applies that stretch does it later, perhaps an hour later,
and a command out of it is about a moment that is gone. So nothing is bid from there until the next tick that promises
another. A worker that has not come to its own last ticks yet is behind; it says 0, and nothing is bid either. Ticks
without `every_ms` (recorded files, other clocks) promise nothing, and nobody is missed.
"""

from __future__ import annotations

from typing import Any, Final

from pipeline.context import Star

MISSED_TICKS: Final = 10
"""Ticks that may be late, and that a worker may be behind: 5 s of one that is busy. [choice]"""


def note(star: Star, tick: Any) -> None:
    """Take in a tick: until when its writer will have written the next one."""
    star.attended_until_ms = -1 if tick.every_ms is None else star.clock_ms + MISSED_TICKS * tick.every_ms


def promise_ms(every_ms: int, ticked_ts: int | None, now_ms: int) -> int:
    """Return what a worker's tick may promise that has applied ticks up to `ticked_ts`, by the same clock as `now_ms`.

    >>> promise_ms(500, 9_400, 10_000), promise_ms(500, 4_000, 10_000), promise_ms(500, None, 10_000)
    (500, 0, 0)
    """
    return every_ms if ticked_ts is not None and now_ms - ticked_ts <= MISSED_TICKS * every_ms else 0


def is_unattended(star: Star, now_ms: int) -> bool:
    """Tell whether the ticks that were promised are missing at `now_ms`."""
    return 0 <= star.attended_until_ms < now_ms
