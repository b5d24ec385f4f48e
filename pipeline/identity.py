"""People, devices and addresses as keyed tokens: the only form in which the pipeline knows them."""

from __future__ import annotations

import hashlib
from typing import Final

UNKEYED: Final = "roompulse: no privacy key was given"
"""Stands in where no key is set, so that a file replays to the same tokens; such tokens hide nothing."""
_CACHE_LIMIT: Final = 200_000


class Tokens:
    """Tokens of one kind of id (user, device, block, text): `[raw]`, worked out once while it is remembered.

    Keyed BLAKE2b on a copied state costs 0.4 us where an HMAC costs 2 us; repeats come from a bounded cache that
    lives in memory only.
    """

    __slots__ = ("_cache", "_kind", "_state", "get")

    def __init__(self, kind: str, secret: bytes) -> None:
        self._kind = f"{kind}\0"
        self._state = hashlib.blake2b(key=secret, digest_size=8)
        self._cache: dict[str, int] = {}
        self.get = self._cache.get
        """The token of an id that is remembered, else None: the quick way for hot paths."""

    def __getitem__(self, raw: str) -> int:
        """Return the 63-bit token of `raw`; equal ids of one kind give equal tokens."""
        token = self._cache.get(raw)
        if token is None:
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            digest = self._state.copy()
            digest.update((self._kind + raw).encode())
            # 63 bits: a signed 64-bit integer in every encoding a snapshot may take.
            token = self._cache[raw] = int.from_bytes(digest.digest(), "big") >> 1
        return token


class Identities:
    """Turn raw ids into tokens and fingerprints under a secret key."""

    __slots__ = ("_wide_state", "blocks", "devices", "texts", "users")

    def __init__(self, key: str | None) -> None:
        secret = hashlib.blake2b((key or UNKEYED).encode(), digest_size=32).digest()
        self.users, self.devices = Tokens("user", secret), Tokens("device", secret)
        self.blocks, self.texts = Tokens("block", secret), Tokens("text", secret)
        self._wide_state = hashlib.blake2b(key=secret, digest_size=16)

    def fingerprint(self, raw: str) -> bytes:
        """Return 128 bits for things that must never collide: orders, and the ids of events."""
        digest = self._wide_state.copy()
        digest.update(raw.encode())
        return digest.digest()


def address_block(ip: str) -> str:
    """Return the /24 of an IPv4 address or the /48 of an IPv6 one, as text; anything else stands for itself.

    >>> address_block("10.1.2.3"), address_block("2001:db8:7:1::1")
    ('10.1.2', '2001:db8:7')
    """
    if ":" in ip:
        return ":".join(ip.split(":")[:3])
    return ip.rpartition(".")[0] or ip


def shown(token: int) -> str:
    """Return a token as topics carry it: 16 hex digits."""
    return f"{token:016x}"
