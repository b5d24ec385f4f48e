"""Snapshots of other versions: what is only more is read and passed over, what is of another shape is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline import Engine
from pipeline.buckets import ROOM_ZONES
from pipeline.context import Star
from pipeline.counters import GMV_VALID, REFUND_VALID, SPEND, unpack
from pipeline.roi.cohorts import unpack as cohort_of
from pipeline.room import RoomState
from pipeline.snapshot import FORMAT, SnapshotError, _encode, dump, load_room, load_star
from schemas import topics
from schemas.base import EVERY_ROOM
from schemas.settings import Settings
from tests.scenario import Line, scenario

EXTRA = "of_a_newer_version"


def records(lines: list[Line]) -> list[tuple[int, int, bytes]]:
    return [(line.offset, line.timestamp, line.value) for line in lines]


def engine() -> Engine:
    return Engine(Settings(trust_log=True))


def newer(value: Any) -> Any:
    """Return a state as a newer version has it: every struct in it has a field that this version does not know."""
    if isinstance(value, msgspec.Struct):
        kind = type(value)
        known = {name: newer(getattr(value, name)) for name in kind.__struct_fields__}
        more = msgspec.defstruct(
            kind.__name__, [(EXTRA, Any, msgspec.field(default=None))], bases=(kind,), kw_only=True, gc=False
        )
        return more(**known, **{EXTRA: {"deep": [1, {"a": b"b"}]}})
    if isinstance(value, dict):
        return {name: newer(item) for name, item in value.items()}
    return [newer(item) for item in value] if type(value) is list else value


def written_by_a_newer_version(states: dict[str, bytes]) -> dict[str, bytes]:
    found = {}
    for key, state in states.items():
        read: RoomState | Star = load_star(state) if key == EVERY_ROOM else load_room(state)
        found[key] = _encode((FORMAT, newer(read)))
        assert found[key].count(EXTRA.encode()) >= 3
    return found


def test_a_newer_version_s_fields_are_passed_over_forth_and_back_and_nothing_else_changes() -> None:
    log = records(scenario(3, 900))
    alone, shared = engine(), engine()
    expected = alone.process(log)
    told = shared.process(log[:300])
    for begin in (300, 600):  # a worker of the newer version has the partition for a moment, then this one again
        states = written_by_a_newer_version(shared.snapshot())
        shared = engine()
        shared.restore(states)
        assert not any(EXTRA.encode() in state for state in shared.snapshot().values())
        told += shared.process(log[begin : begin + 300])
    assert [out.json() for out in told] == [out.json() for out in expected]
    assert shared.snapshot() == alone.snapshot()


def test_a_field_that_an_older_version_did_not_write_has_its_default() -> None:
    live = engine()
    live.process(records(scenario(3, 300)))
    for key, state in live.snapshot().items():
        number, plain = msgspec.msgpack.decode(state)
        name = "n_duplicates"
        plain.pop(name)
        older = msgspec.msgpack.encode((number, plain))
        read: RoomState | Star = load_star(older) if key == EVERY_ROOM else load_room(older)
        assert getattr(read, name) == 0


def written_by_the_format_before(states: dict[str, bytes]) -> dict[str, bytes]:
    """Return states as format 2 had them: spend in windows of its own, orders of ten fields, no cohorts."""
    found = {}
    for key, state in states.items():
        _, plain = msgspec.msgpack.decode(state)
        if key != EVERY_ROOM:
            plain.pop("returns")
            plain["spent"] = [[([], []) for _ in ROOM_ZONES], b"\0", b"\0"]
            orders = plain["ledger"]["orders"]
            plain["ledger"]["orders"] = {fingerprint: order[:11] for fingerprint, order in orders.items()}
        found[key] = msgspec.msgpack.encode((FORMAT - 1, plain))
    return found


def test_the_format_before_is_read_and_what_its_money_came_to_is_still_told() -> None:
    log = records(scenario(3, 900))
    alone, later = engine(), engine()
    alone.process(log[:600])
    later.restore(written_by_the_format_before(alone.snapshot()))
    compared = 0
    for room_id, room in alone._rooms.items():
        read = later._rooms[room_id]
        old, new = (cohort_of(each.returns.room.session) for each in (room, read))
        assert new.net == 0
        told = unpack(read.windows.session)
        assert (new.spend, new.loose) == (told[SPEND], told[GMV_VALID] - told[REFUND_VALID])
        # Rolling windows begin anew: neither spend nor sales of before are in them.
        assert all(not zone.starts for zone in read.returns.room.zones)
        assert read.returns.since_ms == room.evaluated_ms
        compared += old.n_orders > 0
    assert compared
    letters = [
        [out.json() for out in read.process(log[600:]) if out.topic == topics.ROOM_EVENTS_DLQ]
        for read in (alone, later)
    ]
    assert letters[0] == letters[1]
    for state in later.snapshot().values():
        assert msgspec.msgpack.decode(state)[0] == FORMAT


def test_two_formats_back_are_refused() -> None:
    with pytest.raises(SnapshotError, match=rf"must have format {FORMAT}, got {FORMAT - 2}"):
        engine().restore({"room-1": msgspec.msgpack.encode((FORMAT - 2, {}))})


@pytest.mark.parametrize("number", [FORMAT + 1, FORMAT + 100])
def test_a_newer_format_is_refused_whatever_it_holds_and_nothing_is_taken(number: int) -> None:
    live = engine()
    live.process(records(scenario(3, 300)))
    states = live.snapshot()
    (room, *_) = [key for key in states if key != EVERY_ROOM]
    for key in (room, EVERY_ROOM):
        for content in ({"offset": 1}, "of another shape", [1, 2]):
            fresh = engine()
            with pytest.raises(SnapshotError, match=rf"must have format {FORMAT}, got {number}: run the version that"):
                fresh.restore(states | {key: msgspec.msgpack.encode((number, content))})
            assert (fresh.n_rooms, fresh.clock_ms) == (0, None)


def test_a_state_survives_being_written_again() -> None:
    live = engine()
    live.process(records(scenario(3, 300)))
    for key, state in live.snapshot().items():
        assert dump(load_star(state) if key == EVERY_ROOM else load_room(state)) == state


def test_a_snapshot_of_the_format_before_is_read_with_evidence_that_begins_anew() -> None:
    live = engine()
    live.process(records(scenario(3, 300)))
    states = live.snapshot()
    before = {}
    for key, state in states.items():
        _, plain = msgspec.msgpack.decode(state, strict=False)
        if key != EVERY_ROOM:
            generation = {"keep_ms": 600_000, "turned_ms": 5, "n_turns": 1, "recent": {1: 2, 3: {4: 1}}, "former": {}}
            plain["evidence"] = {
                "devices": generation, "texts": generation | {"keep_ms": 60_000}, "suspects": generation,
                "blocks": {7: 3}, "blocks_since_ms": 5,
            }  # fmt: skip
        before[key] = msgspec.msgpack.encode((FORMAT - 1, plain))
    fresh = engine()
    fresh.restore(before)
    assert fresh.counters == live.counters
    assert fresh.summary()["rooms"].keys() == live.summary()["rooms"].keys()
    for key, state in fresh.snapshot().items():
        assert msgspec.msgpack.decode(state, strict=False)[0] == FORMAT
        if key != EVERY_ROOM:
            assert load_room(state).evidence.marks == {}
            assert load_room(state).evidence.devices.recent == {1: 2, 3: {4: 1}}
