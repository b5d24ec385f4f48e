"""Rooms put where they belong once a log has another number of partitions.

A room's state holds the offset of the last record it knows, and offsets mean nothing in another partition. So a room
that moves is given the offset just before the first record its new partition has still to read: it skips nothing that
is new, and takes nothing twice, provided that everything written before is applied already.

What belongs to a partition and no room is merged so that nothing forbidden becomes allowed: a kill switch, a silence or
a control that counted anywhere holds everywhere. Time never goes back: each partition's clock stands where the one
furthest on stood. Counts and the trail of a partition stay with it, so totals over all partitions do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from pipeline.audit import Trail
from pipeline.context import Star
from pipeline.dedup import SeenIds
from pipeline.room import RoomState
from pipeline.snapshot import dump, load_room, load_star
from schemas.base import EVERY_ROOM


class RekeyError(ValueError):
    """The rooms cannot be told apart: nothing was moved."""


def rekey(
    snapshots: Mapping[int, Mapping[str, bytes]], next_offsets: Sequence[int], home: Callable[[str], int]
) -> list[dict[str, bytes]]:
    """Return what each new partition begins from: its rooms, and its own state under `*`.

    Parameters
    ----------
    snapshots : what `Engine.snapshot` gave for each old partition, every record below its end applied.
    next_offsets : for each new partition, in order, the first offset it has still to read.
    home : the new partition of a room, 0 to `len(next_offsets) - 1`.

    Raises
    ------
    RekeyError
        One room has a state in two partitions.
    SnapshotError
        Bytes that this version cannot read.
    """
    stars = {
        number: load_star(states[EVERY_ROOM]) if EVERY_ROOM in states else Star()
        for number, states in sorted(snapshots.items())
    }
    merged = [dump(_star(number, next_offset - 1, stars)) for number, next_offset in enumerate(next_offsets)]
    found = [{EVERY_ROOM: star} for star in merged]
    seen: dict[str, int] = {}
    for number, states in sorted(snapshots.items()):
        for room_id, state in states.items():
            if room_id == EVERY_ROOM:
                continue
            if room_id in seen:
                msg = f"room {room_id!r} must be in one partition, got {seen[room_id]} and {number}"
                raise RekeyError(msg)
            seen[room_id] = number
            new = home(room_id)
            found[new][room_id] = state if new == number else dump(_moved(load_room(state), next_offsets[new] - 1))
    return found


def _moved(room: RoomState, offset: int) -> RoomState:
    room.offset, room.first_offset, room.farewells = offset, -1, []
    for order in room.ledger.orders.values():
        order.touched = offset  # in the new partition's log, where its next segment begins
    return room


def _star(number: int, offset: int, stars: Mapping[int, Star]) -> Star:
    """Return a partition's own state: what was its own where it was there before, and what holds for all."""
    every = stars.values()
    star = msgspec.structs.replace(stars.get(number) or Star(trail=Trail()))
    if number not in stars:  # nobody attended it yet; the log that moves here was attended until then
        star.attended_until_ms = max((other.attended_until_ms for other in every), default=-1)
    star.offset = offset
    star.clock_ms = max((other.clock_ms for other in every), default=-1)
    star.evaluated_ms = max((other.evaluated_ms for other in every), default=-1)
    star.heartbeat_ms = max((other.heartbeat_ms for other in every), default=-1)
    star.largest_ts = max((other.largest_ts for other in every), default=-1)
    star.is_stamped = all(other.is_stamped for other in every)
    star.is_killed = any(other.is_killed for other in every)
    star.silences = sorted({silence for other in every for silence in other.silences})
    star.controls_since_ts = max((other.controls_since_ts for other in every), default=-1)
    star.control_ids = _latest(other.control_ids for other in every)
    star.seen = _seen([other.seen for other in every])
    if not star.policy:
        # One is as good as another: the first worker writes its own before anything else happens.
        star.policy = max(every, key=lambda other: (bool(other.policy), other.clock_ms), default=star).policy
    return star


def _latest(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    latest: dict[str, int] = {}
    for part in parts:
        for name, at_ms in part.items():
            latest[name] = max(at_ms, latest.get(name, at_ms))
    return dict(sorted(latest.items(), key=lambda item: (item[1], item[0])))


def _seen(parts: Sequence[SeenIds]) -> SeenIds:
    """Return all ids, each as many turns old as it was, so that none is forgotten earlier."""
    merged = SeenIds(
        turned_ms=max((part.turned_ms for part in parts), default=0), turn=max((part.turn for part in parts), default=0)
    )
    for part in parts:
        for fingerprint, turn in part.recent.items():
            now = merged.turn - (part.turn - turn)
            merged.recent[fingerprint] = max(now, merged.recent.get(fingerprint, now))
        for fingerprint, seen_ms in part.money.items():
            merged.money[fingerprint] = max(seen_ms, merged.money.get(fingerprint, seen_ms))
    return merged
