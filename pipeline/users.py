"""Distinct users over every rolling window at once, and over the session."""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np

TOKEN_SPACE: Final = 1 << 63
CAPACITY: Final = 8_192
"""Users told apart: the minute of a room whose hour holds ten times as many is still within 10 %."""
HOUR_S: Final = 3_600
ZONES: Final = ((60, 1), (300, 5), (900, 15), (3_600, 60))
"""Reach and bucket in seconds, as in `pipeline.buckets`."""
_ACTED: Final = 1 << 32
"""A count of active users, beside one of users in the same integer."""
_REGISTERS: Final = 4_096
"""Of a HyperLogLog: its standard error is 1.04 / sqrt(registers) = 1.6 %."""
_INDEX_BITS: Final = 12
_RANK_BITS: Final = 63 - _INDEX_BITS


class HyperLogLog(msgspec.Struct, gc=False):
    """Distinct tokens so far, in 4 KiB however many (Flajolet et al. 2007; linear counting while few)."""

    registers: bytearray = msgspec.field(default_factory=lambda: bytearray(_REGISTERS))

    def add(self, token: int) -> None:
        """Note a token, uniform in 63 bits."""
        place = token >> _RANK_BITS
        rank = _RANK_BITS - (token & ((1 << _RANK_BITS) - 1)).bit_length() + 1
        self.registers[place] = max(self.registers[place], rank)

    def estimate(self) -> int:
        """Return about how many distinct tokens were noted."""
        counts = np.bincount(np.frombuffer(self.registers, np.uint8)).tolist()
        inverse = math.fsum(n * 2.0**-rank for rank, n in enumerate(counts))
        raw = 0.7213 / (1 + 1.079 / _REGISTERS) * _REGISTERS**2 / inverse
        if raw <= 2.5 * _REGISTERS and counts[0]:
            return round(_REGISTERS * math.log(_REGISTERS / counts[0]))
        return round(raw)


class DistinctUsers(msgspec.Struct, gc=False):
    """Distinct users and active users, exact while a room's hour has few and sampled by token beyond.

    Each user's token is uniform; only tokens below a threshold are kept, and the threshold halves when a sample of the
    last hour outgrows its capacity (distinct sampling, Gibbons 2001). Because a kept user has *one* last-seen second,
    moving it is a +1 there and a -1 at its former place: sums of these are distinct counts, with an error of
    1/sqrt(users of the window in the sample). Users are let go an hour after they were last seen; from then on the
    session is told by a HyperLogLog. Times are in whole seconds of event time.
    """

    capacity: int = CAPACITY
    below: int = TOKEN_SPACE
    seen: dict[int, int] = msgspec.field(default_factory=dict)
    acted: dict[int, int] = msgspec.field(default_factory=dict)
    zones: list[dict[int, int]] = msgspec.field(default_factory=lambda: [{}, {}, {}, {}])
    edges: list[int] = msgspec.field(default_factory=lambda: [-1, -1, -1, -1])
    """First second that each zone holds; what is older lies in the next."""
    begins_s: int = 0
    n_session: int = 0
    n_session_active: int = 0
    session: HyperLogLog | None = None
    session_active: HyperLogLog | None = None

    def see(self, token: int, second: int, *, active: bool, in_session: bool = True) -> None:
        """Note a user; `in_session` is False for what belongs to a session before this one."""
        if token >= self.below:
            if self.session is not None and in_session:
                self.session.add(token)
                if active and self.session_active is not None:
                    self.session_active.add(token)
            return
        last = self.seen.get(token, -1)
        if second > last:
            self.seen[token] = second
            self._move(last, second, 1)
            if last < 0 and len(self.seen) > self.capacity:
                self._shrink(second)
        if last < self.begins_s and in_session:
            self.n_session += 1
            if self.session is not None:
                self.session.add(token)
        if active:
            last = self.acted.get(token, -1)
            if second > last and token < self.below:
                self.acted[token] = second
                self._move(last, second, _ACTED)
            if last < self.begins_s and in_session:
                self.n_session_active += 1
                if self.session_active is not None:
                    self.session_active.add(token)

    def _move(self, from_s: int, to_s: int, unit: int) -> None:
        """Count a user at the second it was seen now instead of where it was seen last."""
        edges = self.edges
        if to_s >= edges[0]:
            recent = self.zones[0]
            recent[to_s] = recent.get(to_s, 0) + unit
        else:
            self._book(to_s, unit)
        if from_s >= edges[0] and from_s >= 0:
            recent = self.zones[0]
            recent[from_s] = recent.get(from_s, 0) - unit
        elif from_s >= 0:
            self._book(from_s, -unit)

    def _book(self, second: int, n: int) -> None:
        for (_, width), edge, zone in zip(ZONES, self.edges, self.zones, strict=True):
            if second >= edge:
                start = second - second % width
                zone[start] = zone.get(start, 0) + n
                return

    def expire(self, now_s: int) -> None:
        """Hand what left a zone to the next one."""
        for place, (reach, width) in enumerate(ZONES):
            edge = now_s - reach
            edge -= edge % width
            if edge <= self.edges[place]:
                continue
            self.edges[place] = edge
            zone = self.zones[place]
            gone = [start for start in zone if start < edge]
            if place + 1 == len(ZONES):
                for start in gone:
                    del zone[start]
                continue
            older, wider = self.zones[place + 1], ZONES[place + 1][1]
            for start in gone:
                at = start - start % wider
                older[at] = older.get(at, 0) + zone.pop(start)

    def _forget(self) -> None:
        """Let go of users who lie in no window any more; the session's are sketched from then on."""
        if self.session is None:
            self._sketch()
        edge = self.edges[-1]
        for users in (self.seen, self.acted):
            for token in [token for token, last in users.items() if last < edge]:
                del users[token]

    def _sketch(self) -> None:
        self.session, self.session_active = HyperLogLog(), HyperLogLog()
        for users, sketch in ((self.seen, self.session), (self.acted, self.session_active)):
            for token, last in users.items():
                if last >= self.begins_s:
                    sketch.add(token)

    def _shrink(self, now_s: int) -> None:
        """Forget users beyond the hour; halve the sample while that is not enough."""
        self.expire(now_s)
        self._forget()
        while len(self.seen) > self.capacity:
            self.below //= 2
            for users, unit in ((self.seen, 1), (self.acted, _ACTED)):
                for token in [token for token in users if token >= self.below]:
                    self._book(users.pop(token), -unit)

    def windows(self, now_s: int) -> list[tuple[int, int]]:
        """Return (users, active users) of each window, from the shortest to the longest: estimates."""
        self.expire(now_s)
        total, n_users, out = 0, 0, []
        for zone in self.zones:
            total += sum(zone.values())
            n_users = _n_users(total)
            out.append((self._scaled(n_users), self._scaled((total - n_users) // _ACTED)))
        if len(self.seen) > 2 * n_users + 32:
            self._forget()
        return out

    def session_counts(self) -> tuple[int, int]:
        """Return (users, active users) of the session: exact until the first of them was let go."""
        if self.session is None or self.session_active is None:
            return self.n_session, self.n_session_active
        return self.session.estimate(), self.session_active.estimate()

    def _scaled(self, count: int) -> int:
        return count if self.below == TOKEN_SPACE else round(count * (TOKEN_SPACE / self.below))

    @property
    def is_known(self) -> bool:
        """Somebody was told apart in this session or the last hour."""
        return bool(self.seen) or self.session is not None

    def begin_session(self, begins_s: int) -> None:
        """A session counts its own users, those seen from `begins_s` on; rolling windows go on."""
        self.begins_s = begins_s
        self.n_session = self.n_session_active = 0
        self.session = self.session_active = None
        if self.below < TOKEN_SPACE:
            self.session, self.session_active = HyperLogLog(), HyperLogLog()


def _n_users(packed: int) -> int:
    low = packed & (_ACTED - 1)
    return low - _ACTED if low >= _ACTED >> 1 else low
