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
_SECOND_BITS: Final = 25
"""A person is one integer of 63 bits: second last seen | 1 + second last active | tag. Seconds count from the room's
own zero, and reach for more than a year."""
_SECONDS: Final = (1 << _SECOND_BITS) - 1
_TAG_SHIFT: Final = 2 * _SECOND_BITS
_TIMES: Final = (1 << _TAG_SHIFT) - 1
TAG_BITS: Final = 13
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
        counts = np.bincount(np.frombuffer(self.registers, np.uint8), minlength=_RANK_BITS + 2).tolist()
        z = _REGISTERS * _tau(1.0 - counts[_RANK_BITS + 1] / _REGISTERS)
        for rank in range(_RANK_BITS, 0, -1):
            z = 0.5 * (z + counts[rank])
        z += _REGISTERS * _sigma(counts[0] / _REGISTERS)
        return round(_REGISTERS * _REGISTERS / (2 * math.log(2)) / z)


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z = 1.0, x
    while True:
        x *= x
        before, z, y = z, z + x * y, y + y
        if z == before:
            return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z = 1.0, 1.0 - x
    while True:
        x = math.sqrt(x)
        y *= 0.5
        before, z = z, z - (1.0 - x) ** 2 * y
        if z == before:
            return z / 3.0


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
    people: dict[int, int] = msgspec.field(default_factory=dict)
    zones: list[dict[int, int]] = msgspec.field(default_factory=lambda: [{}, {}, {}, {}])
    edges: list[int] = msgspec.field(default_factory=lambda: [-1, -1, -1, -1])
    """First second that each zone holds; what is older lies in the next. These and `begins_s` count from `zero_s`."""
    zero_s: int = -1
    begins_s: int = 0
    n_session: int = 0
    n_session_active: int = 0
    session: HyperLogLog | None = None
    session_active: HyperLogLog | None = None

    def see(self, token: int, second: int, tag: int, *, active: bool, in_session: bool = True) -> bool:
        """Note a user; tell whether it is known under this tag (`tag`).

        `in_session` is False for what belongs to a session before this one. A tag is any 13 bits; 0 is none.
        """
        second -= self.zero_s
        if not 0 <= second < _SECONDS:
            second = self._within(second)
        if in_session and second < self.begins_s:
            second = self.begins_s
        packed = self.people.get(token)
        if packed is None:
            self._new(token, second, active=active, in_session=in_session)
            return False
        last, acted = packed & _SECONDS, packed >> _SECOND_BITS & _SECONDS
        fresh = packed
        if second > last:
            fresh += second - last
            self._move(last, second, 1)
        if last < self.begins_s and in_session:
            self.n_session += 1
            if self.session is not None:
                self.session.add(token)
        if active:
            before = acted - 1
            if second > before:
                fresh += (second - before) << _SECOND_BITS
                self._move(before, second, _ACTED)
            if before < self.begins_s and in_session:
                self.n_session_active += 1
                if self.session_active is not None:
                    self.session_active.add(token)
        if fresh != packed:
            self.people[token] = fresh
        return packed >> _TAG_SHIFT == tag

    def _within(self, second: int) -> int:
        """Return a second that does not fit counted from the room's zero; move that on where time has run so far."""
        if self.zero_s < 0 and not self.people:  # nobody was seen before: an hour of what comes late still fits
            at_s = second + self.zero_s
            self.zero_s = at_s - at_s % 60 - 2 * HOUR_S  # a whole minute, as the buckets of every window are
            self.begins_s = max(0, self.begins_s - self.zero_s)
            return at_s - self.zero_s
        if second < 0:
            return 0
        self._forget()
        self.people.clear()
        for zone in self.zones:
            zone.clear()
        self.edges = [-1, -1, -1, -1]
        self.zero_s += second - 2 * HOUR_S
        self.begins_s = max(0, self.begins_s - second + 2 * HOUR_S)
        return 2 * HOUR_S

    def _new(self, token: int, second: int, *, active: bool, in_session: bool) -> None:
        is_sampled = token < self.below
        if is_sampled:
            self.people[token] = second + ((second + 1) << _SECOND_BITS if active else 0)
            self._move(-1, second, 1 + _ACTED if active else 1)
        if in_session:
            self.n_session += is_sampled
            self.n_session_active += is_sampled and active
            if self.session is not None and self.session_active is not None:
                self.session.add(token)
                if active:
                    self.session_active.add(token)
        if len(self.people) > self.capacity:
            self._shrink()

    def tag(self, token: int, tag: int) -> None:
        """Note something about a user that `see` then recognises; 0 takes it back."""
        packed = self.people.get(token)
        if packed is not None:
            self.people[token] = (packed & _TIMES) + (tag << _TAG_SHIFT)

    def _move(self, from_s: int, to_s: int, unit: int) -> None:
        """Count a user at the second it was seen now instead of where it was seen last."""
        edge, recent = self.edges[0], self.zones[0]
        if to_s >= edge:
            recent[to_s] = recent.get(to_s, 0) + unit
        else:
            self._book(to_s, unit)
        if from_s < 0:
            return
        if from_s >= edge:
            recent[from_s] -= unit
        else:
            self._book(from_s, -unit)

    def _book(self, second: int, n: int) -> None:
        for (_, width), edge, zone in zip(ZONES, self.edges, self.zones, strict=True):
            if second >= edge:
                start = second - second % width
                zone[start] = zone.get(start, 0) + n
                return

    def expire(self, now_s: int) -> None:
        """Hand what left a zone to the next one; `now_s` counts from the room's zero."""
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
        for token in [token for token, packed in self.people.items() if packed & _SECONDS < edge]:
            del self.people[token]

    def _sketch(self) -> None:
        self.session, self.session_active = HyperLogLog(), HyperLogLog()
        for token, packed in self.people.items():
            if packed & _SECONDS >= self.begins_s:
                self.session.add(token)
            if (packed >> _SECOND_BITS & _SECONDS) > self.begins_s:
                self.session_active.add(token)

    def _shrink(self) -> None:
        """Forget users beyond the hour; halve the sample while that is not enough."""
        self._forget()
        while len(self.people) > self.capacity:
            self.below -= self.below >> 2
            for token in [token for token in self.people if token >= self.below]:
                packed = self.people.pop(token)
                self._book(packed & _SECONDS, -1)
                acted = packed >> _SECOND_BITS & _SECONDS
                if acted:
                    self._book(acted - 1, -_ACTED)

    def windows(self, now_s: int) -> list[tuple[int, int]]:
        """Return (users, active users) of each window, from the shortest to the longest: estimates."""
        self.expire(now_s - self.zero_s)
        total, n_users, out = 0, 0, []
        for zone in self.zones:
            total += sum(zone.values())
            n_users = _n_users(total)
            out.append((self._scaled(n_users), self._scaled((total - n_users) // _ACTED)))
        if len(self.people) > 2 * n_users + 32 or (n_users == 0 and self.below < TOKEN_SPACE):
            self._forget()
        if not self.people and self.below < TOKEN_SPACE:
            self.below = TOKEN_SPACE
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
        return bool(self.people) or self.session is not None

    def begin_session(self, begins_s: int) -> None:
        """A session counts its own users, those seen from `begins_s` on; rolling windows go on."""
        self.begins_s = begins_s if self.zero_s < 0 else max(0, begins_s - self.zero_s)
        self.n_session = self.n_session_active = 0
        self.session = self.session_active = None
        if self.below < TOKEN_SPACE:
            self.session, self.session_active = HyperLogLog(), HyperLogLog()


def _n_users(packed: int) -> int:
    low = packed & (_ACTED - 1)
    return low - _ACTED if low >= _ACTED >> 1 else low
