"""What a log came to: the partition's own counts and those of its rooms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.context import Star
from pipeline.dormancy import Head
from pipeline.room import Farewell, RoomState


class Counters(NamedTuple):
    """What the log came to so far."""

    n_records: int
    n_events: int
    n_duplicates: int
    n_late: int
    n_shed: int
    rejects: dict[str, int]


def tally(star: Star, rooms: Iterable[RoomState | Head | Farewell]) -> Counters:
    """Return the counts of a partition and of its rooms together."""
    counted = list(rooms)
    rejects = dict(star.rejects)
    for one in counted:
        for reason, n in one.rejects.items():
            rejects[reason] = rejects.get(reason, 0) + n
    return Counters(
        star.n_records,
        star.n_events + sum(one.n_events for one in counted),
        star.n_duplicates + sum(one.n_duplicates for one in counted),
        star.n_late + sum(one.n_late for one in counted),
        star.n_shed + sum(one.n_shed for one in counted),
        rejects,
    )
