"""A platform that reports no single viewers: what they do is summed by channel and told as `counts`.

Views, interactions and comments become increments of `counts_s` seconds; orders, gifts and the platform's own count of
viewers go on. Nobody is told apart, so nothing speaks for or against anybody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pipeline.simulate.parameters import SECOND_MS

SUMMED: Final = frozenset({"view", "interaction", "comment"})
_OF_ACTION: Final = {"product_click": "n_product_clicks", "add_to_cart": "n_add_to_cart"}

Sums = dict[str, int]
"""Increments by the name of their field."""


class Tally:
    """What the viewers of one room did, by second and channel, until it is told."""

    def __init__(self, start_ts: int, n_under_way: int = 0) -> None:
        self._start_ts = start_ts
        self._sums: dict[tuple[int, str], Sums] = {}
        self._told: deque[tuple[int, int]] = deque([(start_ts, start_ts)], maxlen=4 + n_under_way)
        """Arrival and end of the last reports; the oldest has always arrived: `n_under_way` at most have not."""

    def add(self, kind: str, ts: int, fields: Mapping[str, Any]) -> None:
        """Count what would be a record of its own."""
        action = fields.get("action")
        names = ["n_comments"] if kind == "comment" else []
        if kind == "view" and action == "enter":
            names = ["n_enters"]
        elif kind == "interaction":
            names = ["n_interactions", *([_OF_ACTION[action]] if action in _OF_ACTION else [])]
        if not names:
            return
        sums = self._sums.setdefault(((ts - self._start_ts) // SECOND_MS, fields["channel"]), {})
        for name in names:
            sums[name] = sums.get(name, 0) + 1

    def before(self, ts: int) -> Iterator[tuple[str, Sums]]:
        """Yield each channel's sums of the whole seconds before `ts`."""
        last = (ts - self._start_ts) // SECOND_MS
        by_channel: dict[str, Sums] = {}
        for (second, channel), sums in sorted(self._sums.items()):
            if second < last:
                whole = by_channel.setdefault(channel, {})
                for name, n in sums.items():
                    whole[name] = whole.get(name, 0) + n
        yield from sorted(by_channel.items())

    def forget(self, ts: int) -> None:
        """Let go of what `before` yields."""
        last = (ts - self._start_ts) // SECOND_MS
        self._sums = {key: sums for key, sums in self._sums.items() if key[0] >= last}

    def told(self, arrival_ts: int, through_ts: int) -> None:
        """Note when all up to a moment will have arrived."""
        self._told.append((arrival_ts, through_ts))

    def told_through(self, ts: int) -> int:
        """Return up to when all is in reports that had arrived by `ts`."""
        return max(through for arrival_ts, through in self._told if arrival_ts <= ts)
