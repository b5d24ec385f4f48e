"""Who was seen with what: users of a key, in a memory that turns over by age and stops growing at its limit."""

from __future__ import annotations

from typing import Final

import msgspec

MAX_KEYS: Final = 4_096
MAX_USERS_PER_KEY: Final = 16


class Generations(msgspec.Struct, gc=False):
    """Users a key was seen with, in two generations that turn over by age.

    A key with one user, seen once, is by far the most usual: it is kept as that user alone.
    """

    keep_ms: int
    turned_ms: int = 0
    n_turns: int = 0
    recent: dict[int, int | dict[int, int]] = msgspec.field(default_factory=dict)
    former: dict[int, int | dict[int, int]] = msgspec.field(default_factory=dict)

    def turn(self, now_ms: int) -> None:
        """Let go of what was seen longer ago than `keep_ms` before the last turn."""
        self.former = self.recent if now_ms - self.turned_ms < 2 * self.keep_ms else {}
        self.recent, self.turned_ms = {}, now_ms
        self.n_turns += 1

    def note(self, key: int, user: int, now_ms: int) -> tuple[int, int]:
        """Count one more sight; return (users seen with the key, sights of this user), at most `MAX_USERS_PER_KEY`."""
        users = self._of(key, user, now_ms)
        if users is None:
            return (1, 1) if key in self.recent else (0, 0)
        if isinstance(users, int):
            users = self.recent[key] = {users: 1}
        if user in users or len(users) < MAX_USERS_PER_KEY:
            users[user] = users.get(user, 0) + 1
        return len(users), users.get(user, 0)

    def meet(self, key: int, user: int, now_ms: int) -> int:
        """Note a sight without counting repeats; return how many users the key was seen with."""
        users = self._of(key, user, now_ms)
        if users is None:
            return 1 if key in self.recent else 0
        if isinstance(users, int):
            if users == user:
                return 1
            users = self.recent[key] = {users: 1}
        if user not in users and len(users) < MAX_USERS_PER_KEY:
            users[user] = 1
        return len(users)

    def _of(self, key: int, user: int, now_ms: int) -> int | dict[int, int] | None:
        """Return who was seen with the key before; None for a new one, which is noted unless memory is full."""
        if now_ms - self.turned_ms >= self.keep_ms:
            self.turn(now_ms)
        users = self.recent.get(key)
        if users is None and len(self.recent) < MAX_KEYS:
            # What the former generation knew goes on counting.
            users = self.former.get(key)
            if users is None:
                self.recent[key] = user
                return None
            users = self.recent[key] = users if isinstance(users, int) else dict(users)
        return users
