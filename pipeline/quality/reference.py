"""What honest visits of a room look like: how long they stay, what they come to, how often sources are shared.

Counted from visits that left the log unmarked, and from those in it whose source nobody shares; a channel with few of
them borrows from the room, a room with few from a plain expectation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from pipeline.quality.visits import (
    DWELL_EDGES_MS,
    N_OUTCOMES,
    N_STAYS,
    SHARED_BLOCK,
    SHARED_DEVICE,
    Visit,
    stay_of,
)

CELLS: Final = N_STAYS * N_OUTCOMES
BORROWED: Final = 12.0
"""Visits that what is borrowed counts for."""
KEPT: Final = 1_000
"""Visits of a channel's past after which all of it is halved: an exponential memory as long as a log."""
PRIOR_SHARED: Final = (0.06, 0.12)
"""Shares of visits on shared devices and from shared blocks where nothing is known yet [choice]; for 50 visits."""
_PRIOR_STAY: Final = (0.04, 0.06, 0.10, 0.12, 0.18, 0.20, 0.16, 0.14)
_PRIOR_OUTCOME: Final = (
    (0.960, 0.020, 0.008, 0.002, 0.009, 0.001),
    (0.80, 0.09, 0.05, 0.01, 0.04, 0.01),
    (0.54, 0.15, 0.13, 0.04, 0.12, 0.02),
)
"""P(stay), and P(outcome) of a class of stays, where nothing is known yet [choice]."""
CLASS_OF: Final = (0, 0, 0, 1, 2, 2, 2, 2)
"""Class of a stay: too few visits of one stay are known to tell its own outcomes; up to 5 s, up to 10 s, longer."""
OPEN_STAY_MS: Final = 320_000
"""Where the last, open bin of stays is taken to end when only a part of it can be over."""


class Past(msgspec.Struct, gc=False):
    """A channel's honest visits so far: how many in each cell (stay x outcome), and on shared sources."""

    cells: list[int] = msgspec.field(default_factory=lambda: [0] * CELLS)
    n: int = 0
    n_device: int = 0
    n_block: int = 0

    def add(self, visit: Visit) -> None:
        """Count one more honest visit."""
        self.cells[visit.stay * N_OUTCOMES + visit.outcome] += 1
        self.n += 1
        self.n_device += bool(visit.flags & SHARED_DEVICE)
        self.n_block += bool(visit.flags & SHARED_BLOCK)
        if self.n >= KEPT:
            self.cells = [count >> 1 for count in self.cells]
            self.n, self.n_device, self.n_block = sum(self.cells), self.n_device >> 1, self.n_block >> 1


def whole(pasts: dict[int, Past]) -> Past:
    """Return how many visits the room's channels had, and on shared sources; without the cells."""
    room = Past([])
    for past in pasts.values():
        room.n += past.n
        room.n_device += past.n_device
        room.n_block += past.n_block
    return room


class Reference(msgspec.Struct, gc=False):
    """The same as shares, smoothed."""

    stay: list[float]
    outcome: list[list[float]]
    """P(outcome | stay), the same for stays of one class."""
    device: float
    block: float
    n: float
    """Visits that `stay` rests on; `n_of_outcome` those that a stay's outcomes do."""
    n_of_outcome: list[float]

    def stays_by(self, age_ms: int) -> list[float]:
        """Return P(stay | over by now) of a visit that began `age_ms` ago.

        Who came a moment ago and is gone stayed shortly: of a crowd that has just come only the short visits are in the
        log yet (right truncation), and to take them for what its visits are like condemned every burst of new people.
        """
        if age_ms >= OPEN_STAY_MS:
            return self.stay
        last = stay_of(age_ms)
        begin = DWELL_EDGES_MS[last - 1] if last else 0
        end = DWELL_EDGES_MS[last] if last < N_STAYS - 1 else OPEN_STAY_MS
        shares = [*self.stay[:last], self.stay[last] * max(0.1, (age_ms - begin) / (end - begin))]
        total = math.fsum(shares)
        return [*(share / total for share in shares), *([0.0] * (N_STAYS - 1 - last))]


def tabulate(visits: Iterable[Visit]) -> list[int]:
    """Return how many visits fell into each cell."""
    cells = [0] * CELLS
    for visit in visits:
        cells[visit.stay * N_OUTCOMES + visit.outcome] += 1
    return cells


def reference(own: Sequence[int], room: Sequence[int], past: Past) -> Reference:
    """Return what to expect of a channel whose honest visits are `own`, in a room whose are `room`."""
    stay = _mixed(_by_stay(own), _mixed(_by_stay(room), _PRIOR_STAY))
    outcome, n_of_outcome = [], []
    for number in range(len(_PRIOR_OUTCOME)):
        mine, everybody = _by_outcome(own, number), _by_outcome(room, number)
        outcome.append(_mixed(mine, _mixed(everybody, _PRIOR_OUTCOME[number])))
        n_of_outcome.append(sum(mine) + min(BORROWED, sum(everybody)))
    weight = 50.0
    device, block = (
        (n + weight * prior) / (past.n + weight)
        for n, prior in zip((past.n_device, past.n_block), PRIOR_SHARED, strict=True)
    )
    return Reference(
        stay,
        [outcome[number] for number in CLASS_OF],
        device,
        block,
        sum(own) + min(BORROWED, sum(room)),
        [n_of_outcome[number] for number in CLASS_OF],
    )


def _by_stay(cells: Sequence[int]) -> list[int]:
    return [sum(cells[b * N_OUTCOMES : (b + 1) * N_OUTCOMES]) for b in range(N_STAYS)]


def _by_outcome(cells: Sequence[int], number: int) -> list[int]:
    return [
        sum(cells[b * N_OUTCOMES + outcome] for b in range(N_STAYS) if CLASS_OF[b] == number)
        for outcome in range(N_OUTCOMES)
    ]


def _mixed(counts: Sequence[int], borrowed: Sequence[float]) -> list[float]:
    total = sum(counts) + BORROWED
    return [(count + BORROWED * share) / total for count, share in zip(counts, borrowed, strict=True)]
