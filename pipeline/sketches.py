"""Small summaries of much: distinct users over rolling windows, quantiles of durations and amounts."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Final

import msgspec

TOKEN_SPACE: Final = 1 << 63


def _edges(smallest: int, largest: int, growth: float) -> tuple[int, ...]:
    edges, edge = [smallest], float(smallest)
    while edges[-1] < largest:
        edge = max(edge * growth, edges[-1] + 1)
        edges.append(round(edge))
    return tuple(edges)


LOG_EDGES: Final = _edges(100, 10**12, 1.1)
"""Upper edges of the bins that durations (ms) and amounts (minor units) are counted in: each within 5 %."""


def log_bin(value: int) -> int:
    """Return the bin of a value >= 0.

    >>> log_bin(0), log_bin(100), log_bin(101)
    (0, 0, 1)
    """
    return bisect_left(LOG_EDGES, value)


def bin_value(number: int) -> int:
    """Return the value that stands for a bin: the middle of its edges on a log scale."""
    if number == 0:
        return LOG_EDGES[0] // 2
    return math.isqrt(LOG_EDGES[number - 1] * LOG_EDGES[min(number, len(LOG_EDGES) - 1)])


def quantile(bins: dict[int, int], share: float) -> int | None:
    """Return the value below which `share` of a binned sample lies, within 5 %; None for an empty one."""
    total = sum(bins.values())
    if total <= 0:
        return None
    wanted, below = share * total, 0
    for number in sorted(bins):
        below += bins[number]
        if below >= wanted:
            return bin_value(number)
    return None


class Seen(msgspec.Struct, array_like=True):
    """When a user was last seen and last took part (starts of base buckets), and in which session."""

    seen_ms: int
    session: int
    active_ms: int = -1
    active_session: int = -1


class DistinctUsers(msgspec.Struct):
    """Distinct users over every window at once, exact up to `capacity` users and sampled by token beyond.

    Each user's token is uniform; only tokens below a threshold are kept, and the threshold halves when the sample
    outgrows its capacity (distinct sampling, Gibbons 2001). Because a kept user has *one* last-seen bucket, moving
    it is a +1 there and a -1 at its former place: window sums of these are distinct counts, and the error of an
    estimate is 1/sqrt(users of the window in the sample). Two thresholds nest: a wide one for windows up to 900 s,
    whose users are forgotten after that, and a narrow one for the hour and the session.
    """

    capacity: int = 16_384
    wide: int = TOKEN_SPACE
    narrow: int = TOKEN_SPACE
    users: dict[int, Seen] = msgspec.field(default_factory=dict)
    session: int = 0
    n_session: int = 0
    n_session_active: int = 0

    def update(
        self, token: int, bucket_ms: int, *, active: bool, in_session: bool = True
    ) -> list[tuple[int, str, int]]:
        """Note a user; return the counters to change as (bucket, name, by).

        Names: `users`/`active` over the wide sample, `hour_users`/`hour_active` over the narrow one. `in_session`
        is False for what belongs to a session before this one.
        """
        if token >= self.wide:
            return []
        moves: list[tuple[int, str, int]] = []
        is_narrow = token < self.narrow
        user = self.users.get(token)
        if user is None:
            user = self.users[token] = Seen(bucket_ms, -1)
            _move(moves, "users", -1, bucket_ms, is_narrow)
        elif bucket_ms > user.seen_ms:
            _move(moves, "users", user.seen_ms, bucket_ms, is_narrow)
            user.seen_ms = bucket_ms
        if in_session and user.session != self.session:
            user.session = self.session
            self.n_session += is_narrow
        if active:
            if bucket_ms > user.active_ms:
                _move(moves, "active", user.active_ms, bucket_ms, is_narrow)
                user.active_ms = bucket_ms
            if in_session and user.active_session != self.session:
                user.active_session = self.session
                self.n_session_active += is_narrow
        if len(self.users) > self.capacity:
            self._shrink(bucket_ms, moves)
        return moves

    def _shrink(self, now_ms: int, moves: list[tuple[int, str, int]]) -> None:
        """Forget users beyond the windows they serve; halve a threshold while that is not enough."""
        while True:
            for token in [t for t, u in self.users.items() if t >= self.narrow and u.seen_ms < now_ms - 960_000]:
                del self.users[token]
            if len(self.users) <= self.capacity:
                return
            if 2 * sum(token < self.narrow for token in self.users) > self.capacity:
                self.narrow //= 2
                for token, user in self.users.items():
                    if self.narrow <= token < 2 * self.narrow:
                        _leave(moves, user, "hour_")
                        self.n_session -= user.session == self.session
                        self.n_session_active -= user.active_session == self.session
            else:
                self.wide //= 2
                for token in [t for t in self.users if t >= self.wide]:
                    _leave(moves, self.users.pop(token), "")

    def scaled(self, count: int, *, narrow: bool) -> int:
        """Return the estimate that a count over the sample stands for."""
        threshold = self.narrow if narrow else self.wide
        return count if threshold == TOKEN_SPACE else round(count * (TOKEN_SPACE / threshold))

    def begin_session(self) -> None:
        """A session counts its own users; rolling windows go on."""
        self.session += 1
        self.n_session = self.n_session_active = 0


def _leave(moves: list[tuple[int, str, int]], user: Seen, prefix: str) -> None:
    moves.append((user.seen_ms, f"{prefix}users", -1))
    if user.active_ms >= 0:
        moves.append((user.active_ms, f"{prefix}active", -1))


def _move(moves: list[tuple[int, str, int]], name: str, from_ms: int, to_ms: int, is_narrow: bool) -> None:
    for prefix in ("", "hour_") if is_narrow else ("",):
        if from_ms >= 0:
            moves.append((from_ms, f"{prefix}{name}", -1))
        moves.append((to_ms, f"{prefix}{name}", 1))
