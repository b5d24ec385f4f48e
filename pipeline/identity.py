"""People, devices and addresses as keyed tokens: the only form in which the pipeline knows them."""

from __future__ import annotations

import hashlib
from typing import Final

UNKEYED: Final = "roompulse: no privacy key was given"
"""Stands in where no key is set, so that a file replays to the same tokens; such tokens hide nothing."""
_CACHE_LIMIT: Final = 200_000


class Identities:
    """Turn raw ids into 64-bit tokens under a secret key; equal ids of one kind give equal tokens.

    Keyed BLAKE2b on a copied state costs 0.33 us where an HMAC costs 2 us; repeats come from a bounded cache that
    lives in memory only.
    """

    def __init__(self, key: str | None) -> None:
        secret = hashlib.blake2b((key or UNKEYED).encode(), digest_size=32).digest()
        self._state = hashlib.blake2b(key=secret, digest_size=8)
        self._wide_state = hashlib.blake2b(key=secret, digest_size=16)
        self._cache: dict[str, int] = {}

    def token(self, kind: str, raw: str) -> int:
        """Return the token of `raw`, told apart by `kind` (user, device, ip, block, text)."""
        name = f"{kind}\0{raw}"
        token = self._cache.get(name)
        if token is None:
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            digest = self._state.copy()
            digest.update(name.encode())
            # 63 bits: a signed 64-bit integer in every encoding a snapshot may take.
            token = self._cache[name] = int.from_bytes(digest.digest(), "big") >> 1
        return token

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
