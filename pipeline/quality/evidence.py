"""Evidence against single events, from families that do not depend on each other.

Rate (gone within seconds, one user's repeats), identity (many users on one device), content (many users, one long
text). Two families must agree before an event is suspect; a shared address only ever supports, it never condemns.
Memory is bounded: each store turns over by age and stops growing at its limit.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from schemas.settings import QualitySettings

DEVICE_MEMORY_MS: Final = 600_000
TEXT_MEMORY_MS: Final = 60_000
MAX_KEYS: Final = 20_000
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


class Verdict(NamedTuple):
    """Which families speak against an event."""

    rate: bool = False
    identity: bool = False
    content: bool = False

    @property
    def is_suspect(self) -> bool:
        """Two independent families agree."""
        return self.rate + self.identity + self.content >= 2


class Evidence(msgspec.Struct, gc=False):
    """A room's memory of who shares a device and who repeats which text; tokens only."""

    devices: Generations = msgspec.field(default_factory=lambda: Generations(DEVICE_MEMORY_MS))
    texts: Generations = msgspec.field(default_factory=lambda: Generations(TEXT_MEMORY_MS))
    suspects: Generations = msgspec.field(default_factory=lambda: Generations(DEVICE_MEMORY_MS))
    blocks: dict[int, int] = msgspec.field(default_factory=dict)
    blocks_since_ms: int = 0

    def device(self, device: int | None, user: int | None, now_ms: int, settings: QualitySettings) -> bool:
        """Note a device with its user; tell whether more users share it than a household would."""
        if device is None or user is None:
            return False
        return self.devices.meet(device, user, now_ms) > settings.device_users

    def comment(
        self, text: int | None, user: int | None, *, is_shared_device: bool, now_ms: int, settings: QualitySettings
    ) -> Verdict:
        """Judge a comment; `text` is None for texts too short to tell a script from a crowd."""
        if text is None:
            return Verdict(identity=is_shared_device)
        n_users, n_own = self.texts.note(text, -1 if user is None else user, now_ms)
        return Verdict(
            rate=user is not None and n_own >= settings.repeat_own,
            identity=is_shared_device,
            content=n_users >= settings.repeat_users,
        )

    @staticmethod
    def leave(dwell_ms: int, *, is_shared_device: bool, settings: QualitySettings) -> Verdict:
        """Judge a visit by how long it lasted."""
        return Verdict(rate=dwell_ms <= settings.short_dwell_ms, identity=is_shared_device)

    def condemn(self, user: int | None, block: int | None, now_ms: int) -> None:
        """Remember who was suspect, and from which address block."""
        if user is not None:
            self.suspects.meet(user, 0, now_ms)
        if block is not None:
            if now_ms - self.blocks_since_ms >= DEVICE_MEMORY_MS:
                self.blocks, self.blocks_since_ms = {}, now_ms
            if block in self.blocks or len(self.blocks) < MAX_KEYS:
                self.blocks[block] = self.blocks.get(block, 0) + 1

    def is_suspect_user(self, user: int | None) -> bool:
        """Tell whether a user was suspect in the last ten to twenty minutes."""
        return user is not None and (user in self.suspects.recent or user in self.suspects.former)

    def worst_blocks(self, n: int) -> list[tuple[int, float]]:
        """Return the address blocks most suspects came from, with their share."""
        total = sum(self.blocks.values())
        ranked = sorted(self.blocks.items(), key=lambda item: (-item[1], item[0]))[:n]
        return [(block, round(count / total, 4)) for block, count in ranked]
