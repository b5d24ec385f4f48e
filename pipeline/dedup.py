"""Event ids already seen: until the session after theirs where money hangs on it, a minute or two elsewhere."""

from __future__ import annotations

import msgspec


class SeenIds(msgspec.Struct, gc=False):
    """Remember ids, by fingerprint, by the turn in which each was seen: for `keep_ms` to twice that.

    One dictionary, because looking in it touches memory once; what was seen before the last turn is let go at the next
    one. Ids of money are kept beside it and longer: a repeat of money is found over the whole session.
    """

    turned_ms: int = 0
    turn: int = 0
    recent: dict[bytes, int] = msgspec.field(default_factory=dict)
    money: dict[bytes, int] = msgspec.field(default_factory=dict)
    n_money: int = 0
    """Money ids ever seen: the newest ones are the last of `money`."""
    money_since_ms: int = 0
    """Older ones were let go."""

    def go_on(self, now_ms: int, keep_ms: int) -> None:
        """Begin another turn when the last one is `keep_ms` old, and let go of what is older than that."""
        since_ms = now_ms - self.turned_ms
        if since_ms < keep_ms:
            return
        last = self.turn if since_ms < 2 * keep_ms else self.turn + 1
        self.recent = {fingerprint: turn for fingerprint, turn in self.recent.items() if turn >= last}
        self.turn, self.turned_ms = self.turn + 1, now_ms

    def has(self, fingerprint: bytes) -> bool:
        """Tell whether an id was seen."""
        return fingerprint in self.recent or fingerprint in self.money

    def remember(self, fingerprint: bytes) -> None:
        """Note an id."""
        self.recent[fingerprint] = self.turn

    def remember_money(self, fingerprint: bytes, now_ms: int) -> None:
        """Note an id that carries money, and when, so that it can be let go one day."""
        self.recent[fingerprint] = self.turn
        self.money[fingerprint] = now_ms
        self.n_money += 1

    def forget_money(self, before_ms: int) -> None:
        """Let go of money's ids seen before a moment."""
        self.money_since_ms = before_ms
        for fingerprint in [f for f, seen_ms in self.money.items() if seen_ms < before_ms]:
            del self.money[fingerprint]

    def forget_again(self) -> None:
        """Let go of what came back from old segments."""
        self.forget_money(self.money_since_ms)
