"""The order ledger as increments: what a save adds is written beside the room's hot state, never the whole ledger.

A segment holds the orders that were touched, and the money ids that were seen, between two offsets of the log, as they
were at the second one. Its key names both offsets, so its content follows from the log and its key: two workers that
write the same key write the same bytes. The hot state names the segments it rests on, its chain, oldest first; later
ones win. Like a log-structured merge tree, a new segment takes up older ones that are not much larger, so that there
are few, and each order is written again only a few times (O'Neil et al. 1996).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from pipeline.orders import Order

SEGMENT_ORDERS: Final = 10_000
"""Orders of one segment at most: some 600 KB, well below the largest message that Kafka takes."""
BEFORE_ALL: Final = -2
"""Where a first segment begins: below -1, at which a room stands that moved into an empty partition."""
LARGEST_MERGED: Final = 1024 * 1024
"""Bytes beyond which segments are left as they are: a day of a busy room is a few dozen."""
GROWTH: Final = 2
"""A segment takes up the one before it when that is at most so many times as large."""


class Link(msgspec.Struct, array_like=True, gc=False):
    """One segment of a chain: the offsets it lies between, its part of them, its size, the money ids known by then."""

    begins: int
    ends: int
    part: int
    n_bytes: int
    n_money: int


class Segment(msgspec.Struct, array_like=True, gc=False):
    """What a segment holds, in the order in which it was touched."""

    orders: list[tuple[bytes, Order]]
    money: list[tuple[bytes, int]]


class BrokenChainError(ValueError):
    """A room names a segment that is not there."""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Segment).decode


def key_of(room_id: str, link: Link) -> str:
    """Return the key a segment is kept under; no room's id holds a zero character."""
    return f"{room_id}\0{link.begins}-{link.ends}/{link.part}"


def extend(room: Any) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Bring a room's chain up to its state; return new segments by key, and keys that the chain names no more."""
    ledger, seen, chain = room.ledger, room.seen, room.chain
    retired: list[Link] = []
    if ledger.is_rewritten:
        retired, chain, ledger.is_rewritten = chain, [], False
    begins, n_money = (chain[-1].ends, chain[-1].n_money) if chain else (BEFORE_ALL, 0)
    orders = ledger.since(begins)
    if not orders and n_money == seen.n_money:
        room.chain = chain
        return [], [key_of(room.room_id, link) for link in retired]
    n_bytes = 64 * len(orders) + 24 * (seen.n_money - n_money)
    while chain:
        first = next(place for place, link in enumerate(chain) if link.ends == chain[-1].ends)
        n_before = sum(link.n_bytes for link in chain[first:])  # all parts of one save go together
        if n_before > GROWTH * n_bytes or n_bytes + n_before > LARGEST_MERGED:
            break
        begins, n_bytes = chain[first].begins, n_bytes + n_before
        retired += chain[first:]
        chain = chain[:first]
        n_money = chain[-1].n_money if chain else 0
    if retired:
        orders = ledger.since(begins)
    money = list(islice(seen.money.items(), max(0, len(seen.money) - (seen.n_money - n_money)), None))
    parts = []
    for part, first in enumerate(range(0, max(len(orders), 1), SEGMENT_ORDERS)):
        data = _encode(Segment(orders[first : first + SEGMENT_ORDERS], [] if part else money))
        link = Link(begins, room.offset, part, len(data), seen.n_money)
        chain.append(link)
        parts.append((key_of(room.room_id, link), data))
    room.chain = chain
    written = {key for key, _ in parts}
    return parts, [key for link in retired if (key := key_of(room.room_id, link)) not in written]


def load(room: Any, segments: Mapping[str, bytes]) -> list[str]:
    """Fill a room's ledger from its chain; return keys of segments that it does not name.

    Raises
    ------
    BrokenChainError
        A segment that the chain names is not there.
    """
    names = named(room)
    fill(room, [required(room.room_id, key, segments) for key in names])
    return sorted(segments.keys() - set(names))


def named(room: Any) -> list[str]:
    """Return the keys of a room's chain, oldest first."""
    return [key_of(room.room_id, link) for link in room.chain]


def required(room_id: str, key: str, segments: Mapping[str, bytes]) -> bytes:
    """Return a segment; raise BrokenChainError when it is not there."""
    data = segments.get(key)
    if data is None:
        name = key.partition("\0")[2]
        msg = f"ledger of room {room_id!r} must have its segment {name}, got none: the changelog lost records"
        raise BrokenChainError(msg)
    return data


def fill(room: Any, parts: Iterable[bytes]) -> None:
    """Fill a room's ledger from segments, oldest first."""
    ledger, seen = room.ledger, room.seen
    for data in parts:
        segment = _decode(data)
        for fingerprint, order in segment.orders:
            ledger.orders.pop(fingerprint, None)
            ledger.orders[fingerprint] = order
        seen.money.update(segment.money)
    ledger.forget_again()
    seen.forget_again()


def ledger_of(room: Any) -> list[bytes]:
    """Return a room's whole ledger as `fill` takes it; nothing where there is none."""
    orders, money = list(room.ledger.orders.items()), list(room.seen.money.items())
    return [_encode(Segment(orders, money))] if orders or money else []
