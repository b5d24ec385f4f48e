"""Event ids already seen: until the session after theirs where money hangs on it, a minute or two elsewhere."""

from __future__ import annotations

import msgspec


class SeenIds(msgspec.Struct, gc=False):
    """Remember ids, by fingerprint, in two generations that turn over: each for `keep_ms` to twice that.

    Ids of money are kept apart and longer, by `remember_money`. An id is one id, whatever its event was about.
    """

    turned_ms: int = 0
    recent: set[bytes] = msgspec.field(default_factory=set)
    former: set[bytes] = msgspec.field(default_factory=set)
    money: dict[bytes, int] = msgspec.field(default_factory=dict)

    def turn(self, now_ms: int, keep_ms: int) -> None:
        """Let go of what was seen more than `keep_ms` before the last turn."""
        if now_ms - self.turned_ms >= keep_ms:
            self.former = self.recent if now_ms - self.turned_ms < 2 * keep_ms else set()
            self.recent = set()
            self.turned_ms = now_ms

    def has(self, fingerprint: bytes) -> bool:
        """Tell whether an id was seen."""
        return fingerprint in self.recent or fingerprint in self.former or fingerprint in self.money

    def remember(self, fingerprint: bytes) -> None:
        """Note an id that carries no money."""
        self.recent.add(fingerprint)

    def remember_money(self, fingerprint: bytes, now_ms: int) -> None:
        """Note an id that carries money, and when, so that it can be let go one day."""
        self.money[fingerprint] = now_ms

    def forget_money(self, before_ms: int) -> None:
        """Let go of money's ids seen before a moment."""
        for fingerprint in [f for f, seen_ms in self.money.items() if seen_ms < before_ms]:
            del self.money[fingerprint]
