"""A partition's records without a hole and without a repeat, whatever the transport above dropped or sent twice.

Around a rebalance Faust may skip records it has already fetched, or deliver some again. Both end here: what was taken
is not taken again, and when records are missing, the partition is read again from where they should be. Only what is
missing twice is missing in the log itself (removed by retention, or a transaction's marker).
"""

from __future__ import annotations

from typing import Final, Literal

Verdict = Literal["take", "repeat", "wait", "read_again"]

RETRY_S: Final = 2.0
"""How long to wait for records asked for again before asking once more."""


class Cursor:
    """The next offset wanted of one partition, and the hole before the records seen last.

    >>> cursor = Cursor(100)
    >>> cursor.judge(100, 119, 0.0)
    'take'
    >>> cursor.judge(110, 115, 0.0)     # taken before
    'repeat'
    >>> cursor.judge(130, 139, 0.0)     # 120..129 are missing
    'read_again'
    >>> cursor.judge(140, 149, 0.1)     # was on its way already
    'wait'
    >>> cursor.judge(130, 139, 0.2)     # the second time: the log has none
    'take'
    >>> cursor.next
    140
    """

    __slots__ = ("_asked_s", "_hole_end", "next")

    def __init__(self, next_offset: int) -> None:
        self.next = next_offset
        self._hole_end: int | None = None
        self._asked_s = 0.0

    def judge(self, first: int, last: int, now_s: float) -> Verdict:
        """Return what to do with records `first`..`last`; after "take" they count as taken.

        Records taken together may begin before `next`: those are the caller's to leave out. "read_again" means that
        the partition must be read again from `next`. `now_s` is any clock that does not go back.
        """
        if last < self.next:
            return "repeat"
        if first <= self.next or first == self._hole_end:
            self.next = last + 1
            self._hole_end = None
            return "take"
        if self._hole_end is not None and first > self._hole_end and now_s - self._asked_s < RETRY_S:
            return "wait"
        self._hole_end = first if self._hole_end is None else min(first, self._hole_end)
        self._asked_s = now_s
        return "read_again"
