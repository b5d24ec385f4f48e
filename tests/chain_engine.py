"""A small engine with everything that saving can do: segments, merged ones, rooms that go and come back.

A record's value is ``room amount``. A room keeps all its amounts, in segments of the changelog and a rest in its hot
state, and tells their sum after each record. A room without news for `IDLE` offsets is gone and begins anew with its
next record. What it leaves is a state that says so, which readers of the log from before need; its very key may go
after them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, NamedTuple

from agents.shard import Records
from schemas.base import EVERY_ROOM

IDLE = 15
SEGMENT = 3
CHAIN = 3


class Output(NamedTuple):
    """One message."""

    topic: str
    key: str
    text: str

    def json(self) -> bytes:
        return self.text.encode()


class Checkpoint(NamedTuple):
    """As `pipeline.snapshot.Checkpoint`."""

    offset: int
    star: bytes
    rooms: tuple[str, ...]


class Saved(NamedTuple):
    """As `pipeline.snapshot.Saved`."""

    parts: tuple[tuple[str, bytes], ...]
    retired: tuple[str, ...]


class Room:
    """One room: amounts by offset, sealed in segments (key -> amounts) or still open."""

    def __init__(self) -> None:
        self.offset = -1
        self.is_gone = False
        self.chain: dict[str, dict[int, int]] = {}
        self.open: dict[int, int] = {}

    @property
    def total(self) -> int:
        return sum(sum(amounts.values()) for amounts in (*self.chain.values(), self.open))


def _dump(amounts: Mapping[int, int]) -> bytes:
    return json.dumps(sorted(amounts.items())).encode()


def _load(data: bytes) -> dict[int, int]:
    return dict(json.loads(data))


class ChainEngine:
    """A pure function of the records, as `pipeline.Engine` is."""

    def __init__(self) -> None:
        self.offset, self.n_records = -1, 0
        self.rooms: dict[str, Room] = {}
        self.retired: dict[str, tuple[str, ...]] = {}
        self.dirty: set[str] = set()

    def process(self, records: Iterable[Any]) -> list[Output]:
        out: list[Output] = []
        for offset, _, value, _ in records:
            is_new = offset > self.offset
            self.n_records += is_new
            self._drop_idle(max(offset, self.offset))
            name, amount = value.decode().split()
            room = self.rooms.get(name)
            if room is None or offset > room.offset:
                if room is None or room.is_gone:
                    room = self.rooms[name] = Room()
                room.offset = offset
                room.open[offset] = int(amount)
                self.dirty.add(name)
                out.append(Output("sums", name, f"{name} {offset} {room.total}"))
            if is_new:
                self.offset = offset
                if self.n_records % 5 == 0:
                    out.append(Output("beats", EVERY_ROOM, f"{offset} {self.n_records}"))
        return out

    def _drop_idle(self, offset: int) -> None:
        for name, room in self.rooms.items():
            if not room.is_gone and room.offset + IDLE < offset:
                self.retired[name] = (*self.retired.get(name, ()), *room.chain)
                room.is_gone, room.chain, room.open, room.offset = True, {}, {}, offset - 1
                self.dirty.add(name)

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.offset, json.dumps([self.offset, self.n_records]).encode(), tuple(sorted(self.dirty)))

    def save(self, name: str) -> Saved:
        room = self.rooms[name]
        retired = self.retired.pop(name, ())
        if room.is_gone:
            if self.offset <= room.offset:  # it came back ahead of the log, and still has to say so: ask again
                return Saved(((name, self._hot(room)),), retired)
            self.dirty.discard(name)
            del self.rooms[name]
            return Saved(((name, self._hot(room)),), (name, *retired))
        self.dirty.discard(name)
        parts: list[tuple[str, bytes]] = []
        if len(room.open) >= SEGMENT:
            amounts, room.open = room.open, {}
            if len(room.chain) >= CHAIN:
                retired = (*retired, *room.chain)
                amounts = {offset: amount for one in (*room.chain.values(), amounts) for offset, amount in one.items()}
                room.chain = {}
            key = f"{name}\0{min(amounts)}-{max(amounts)}"
            room.chain[key] = amounts
            parts.append((key, _dump(amounts)))
        return Saved((*parts, (name, self._hot(room))), retired)

    def settle(self, offset: int) -> None:
        """What is durable changes nothing here."""

    @staticmethod
    def _hot(room: Room) -> bytes:
        return json.dumps([room.offset, list(room.chain), sorted(room.open.items()), room.total, room.is_gone]).encode()

    @property
    def ticked_ts(self) -> int | None:
        """It takes no notice of ticks."""
        return None

    def restore(self, states: Mapping[str, bytes]) -> None:
        """Take states back; a key that is named and missing, or amounts that do not add up, are an error."""
        named: set[str] = set()
        for name, data in states.items():
            if name == EVERY_ROOM:
                self.offset, self.n_records = json.loads(data)
            elif "\0" not in name:
                room = self.rooms[name] = Room()
                room.offset, chain, opened, total, room.is_gone = json.loads(data)
                room.chain = {key: _load(states[key]) for key in chain}
                room.open = dict(opened)
                if room.is_gone:
                    self.dirty.add(name)
                named.update(chain)
                assert room.total == total, f"{name}: segments must add up to {total}, got {room.total}"


def records(n_records: int, seed: int) -> Records:
    """Return a seeded log of rooms of which some pause for long."""
    random = Random(seed)
    names = [f"room-{number}" for number in range(5)]
    found: Records = []
    for offset in range(n_records):
        # Each stretch of the log has its own two or three rooms.
        awake = names[(offset // 20) % 5 :][:2] + names[:1]
        found.append((offset, offset, f"{random.choice(awake)} {random.randrange(1, 100)}".encode(), None))
    return found
