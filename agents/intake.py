"""A partition's records without a hole and without a repeat, whatever the transport above dropped or sent twice.

Around a rebalance Faust may skip records it has already fetched, or deliver some again. Both end here: what was taken
is not taken again, and when records are missing, the partition is read again from where they should be. Only what is
missing in that reading too is missing in the log itself (removed by retention, or a transaction's marker).
"""

from __future__ import annotations

from typing import Final, Literal

Verdict = Literal["take", "repeat", "wait", "read_again"]

RETRY_S: Final = 2.0
"""How long to wait for a reading asked for before asking once more."""


class Cursor:
    """The next offset wanted of one partition, and the hole that was seen before it. Times are of any clock.

    >>> cursor = Cursor(100)
    >>> cursor.judge(100, 119, fetched_s=0.0, now_s=0.0)
    'take'
    >>> cursor.judge(110, 115, fetched_s=0.0, now_s=0.0)     # taken before
    'repeat'
    >>> cursor.judge(130, 139, fetched_s=0.0, now_s=0.0)     # 120..129 are missing
    'read_again'
    >>> cursor.asked(0.1)
    >>> cursor.judge(140, 149, fetched_s=0.0, now_s=0.2)     # was on its way already
    'wait'
    >>> cursor.judge(130, 139, fetched_s=0.2, now_s=0.3)     # the log has none
    'take'
    >>> cursor.next
    140
    """

    __slots__ = ("_asked_s", "_hole_end", "next")

    def __init__(self, next_offset: int) -> None:
        self.next = next_offset
        self._hole_end: int | None = None
        self._asked_s: float | None = None

    def judge(self, first: int, last: int, *, fetched_s: float, now_s: float) -> Verdict:
        """Return what to do with records `first`..`last` of a fetch begun at `fetched_s`.

        After "take" they count as taken; they may begin before `next`, which is the caller's to leave out.
        "read_again" means that the partition must be read again from `next`, and `asked` called once it is.
        """
        if last < self.next:
            return "repeat"
        if self._asked_s is not None and fetched_s <= self._asked_s and first > self.next:
            if now_s - self._asked_s < RETRY_S:
                return "wait"
        elif first <= self.next or (self._asked_s is not None and first == self._hole_end):
            self.next, self._hole_end, self._asked_s = last + 1, None, None
            return "take"
        self._hole_end = first
        return "read_again"

    def asked(self, now_s: float) -> None:
        """Note that the next fetch begins at `next`."""
        self._asked_s = now_s
