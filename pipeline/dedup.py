"""Event ids already seen: for ever within a session where money hangs on it, a minute or two elsewhere."""

from __future__ import annotations

import msgspec


class SeenIds(msgspec.Struct):
    """Remember ids in two generations that turn over, so that each is known for `keep_ms` to twice that.

    Exact while remembered (63-bit keyed tokens; a million ids collide once in 10^7 rooms). Ids of money are kept
    apart and exactly (128 bits) by `remember_money`, until the session after theirs is over.
    """

    turned_ms: int = 0
    recent: set[int] = msgspec.field(default_factory=set)
    former: set[int] = msgspec.field(default_factory=set)
    money: dict[bytes, int] = msgspec.field(default_factory=dict)

    def turn(self, now_ms: int, keep_ms: int) -> None:
        """Let go of what was seen more than `keep_ms` before the last turn."""
        if now_ms - self.turned_ms >= keep_ms:
            self.former = self.recent if now_ms - self.turned_ms < 2 * keep_ms else set()
            self.recent = set()
            self.turned_ms = now_ms

    def has(self, token: int) -> bool:
        """Tell whether an id that carries no money was seen."""
        return token in self.recent or token in self.former

    def remember(self, token: int) -> None:
        """Note an id that carries no money."""
        self.recent.add(token)

    def remember_money(self, fingerprint: bytes, now_ms: int) -> None:
        """Note an id that carries money, and when, so that it can be let go one day."""
        self.money[fingerprint] = now_ms

    def forget_money(self, before_ms: int) -> None:
        """Let go of money's ids seen before a moment."""
        for fingerprint in [f for f, seen_ms in self.money.items() if seen_ms < before_ms]:
            del self.money[fingerprint]
