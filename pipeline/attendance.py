"""Whether anybody was at work when a stretch of the log was written, as the log itself tells.

A worker writes a tick into each of its partitions every `every_ms`, and says so in it. Where those ticks stop while
other records go on, no worker had the partition: whoever applies that stretch does it later, perhaps an hour later,
and a command out of it is about a moment that is gone. So nothing is bid from there until the next tick, which is the
first word of whoever works now. Ticks without `every_ms` (recorded files, other clocks) promise nothing.
"""

from __future__ import annotations

from typing import Any, Final

from pipeline.context import Star

MISSED_TICKS: Final = 10
"""Ticks that may be late: 5 s of a worker that is busy, or of a partition that changes hands. [choice]"""


def note(star: Star, tick: Any) -> None:
    """Take in a tick: until when its writer will have written the next one."""
    star.attended_until_ms = -1 if tick.every_ms is None else star.clock_ms + MISSED_TICKS * tick.every_ms


def is_unattended(star: Star, now_ms: int) -> bool:
    """Tell whether the ticks that were promised are missing at `now_ms`."""
    return 0 <= star.attended_until_ms < now_ms
