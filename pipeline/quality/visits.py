"""Visits and comments as records of fixed size: what is kept of them, in logs of bounded length."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

LIKED: Final = 1
TOOK_PART: Final = 2
"""Commented, shared or followed."""
CLICKED: Final = 4
"""Opened a product or filled the cart."""
PAID: Final = 8
COPIED: Final = 16
"""Wrote a text that many wrote."""
SHARED_DEVICE: Final = 32
"""Its device had been seen with somebody else when it ended, or its block was:"""
CAME: Final = 32
"""The same bit of a visit that goes on: its beginning is in the log. Of one that is over it is known anyway."""
SHARED_BLOCK: Final = 64
MARKED: Final = 128
"""Counted as invalid already."""

VISIT: Final = Struct("<QQQQIBBBB")
FLAGS_AT: Final = VISIT.size - 3
"""Place of the flags in a visit's record: the one byte that changes."""
COMMENT: Final = Struct("<QQQQQIBBxx")

DWELL_EDGES_MS: Final = (1_500, 3_000, 5_000, 10_000, 20_000, 40_000, 80_000)
"""Stays in octaves, with the edges of a script's visit (3 s) and of a bounce (5 s) among them."""
N_STAYS: Final = len(DWELL_EDGES_MS) + 1
N_OUTCOMES: Final = 6
"""Nothing | liked | took part | both | opened a product | paid."""
OUTCOME: Final = tuple(5 if f & PAID else 4 if f & CLICKED else f & 3 for f in range(16))


class Visit(NamedTuple):
    """A visit that is over; tokens are 0 where unknown."""

    user: int
    device: int
    block: int
    left_ms: int
    dwell_ms: int
    channel: int
    """Place of the channel in the evidence's list, as `segment` is of the segment."""
    flags: int
    n: int
    """Judged events of the visit: its end, what was written and touched; 255 at most."""
    segment: int

    @property
    def stay(self) -> int:
        """Return the bin of the stay."""
        return stay_of(self.dwell_ms)

    @property
    def outcome(self) -> int:
        """Return what the visit came to."""
        return OUTCOME[self.flags & 15]


class Comment(NamedTuple):
    """A comment; `text` is the token of what is left of it once marks and repeats are taken out, 0 if too short."""

    user: int
    text: int
    device: int
    block: int
    at_ms: int
    n_characters: int
    channel: int
    flags: int


def stay_of(dwell_ms: int) -> int:
    """Return the bin of a stay.

    >>> [stay_of(ms) for ms in (0, 1_500, 1_501, 3_000, 80_001)]
    [0, 0, 1, 1, 7]
    """
    for place, edge in enumerate(DWELL_EDGES_MS):
        if dwell_ms <= edge:
            return place
    return N_STAYS - 1


def fine_stay(dwell_ms: int) -> int:
    """Return the narrow bin of a stay: sixteen equal ones an octave, 3 to 6 % wide.

    >>> fine_stay(30_000), fine_stay(31_000), fine_stay(16)
    (173, 174, 0)
    """
    shift = max(0, dwell_ms.bit_length() - 5)
    return max(0, (shift << 4) + (dwell_ms >> shift) - 16)


def read_visits(log: bytes | bytearray) -> list[Visit]:
    """Read a log of visits."""
    return list(map(Visit._make, VISIT.iter_unpack(log)))


def read_comments(log: bytes | bytearray) -> list[Comment]:
    """Read a log of comments."""
    return list(map(Comment._make, COMMENT.iter_unpack(log)))
