"""The ledger in segments: whatever is saved when, what is loaded is the ledger as it was at the last save."""

from __future__ import annotations

from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import segments
from pipeline.orders import Ledger
from pipeline.room import RoomState
from pipeline.segments import SEGMENT_ORDERS, BrokenChainError
from pipeline.session import RoomConfig
from pipeline.snapshot import dump_hot, load_room, whole

Store = dict[str, bytes]


class Saved:
    """A room with its changelog: hot state and segments by key, as a worker keeps them."""

    def __init__(self) -> None:
        self.room = RoomState("room-1", RoomConfig("off"))
        self.store: Store = {}
        self.hot = dump_hot(self.room)
        self.n_written = 0

    def pay(self, number: int) -> None:
        room = self.room
        room.offset += 1
        fingerprint = number.to_bytes(16, "big")
        order = room.ledger.get(fingerprint, 0, 1_000 + room.offset, room.offset)
        Ledger.pay(order, 1_000 + number, number)
        Ledger.refund(order, 2_000 + room.offset, 1)
        room.seen.remember_money(room.offset.to_bytes(16, "big"), 1_000 + room.offset)

    def save(self) -> list[str]:
        parts, retired = segments.extend(self.room)
        assert not set(retired) & {key for key, _ in parts}
        self.store |= dict(parts)
        self.n_written += sum(len(data) for _, data in parts)
        self.hot = dump_hot(self.room)
        for key in retired:
            del self.store[key]
        return retired

    def load(self) -> RoomState:
        room = load_room(self.hot)
        assert segments.load(room, self.store) == []
        return room


def same(one: RoomState, other: RoomState) -> bool:
    orders = [list(room.ledger.orders.items()) for room in (one, other)]
    money = [list(room.seen.money.items()) for room in (one, other)]
    return orders[0] == orders[1] and money[0] == money[1]


@given(st.lists(st.one_of(st.integers(0, 12), st.sampled_from(("save", "crash", "convert"))), max_size=80))
def test_what_is_loaded_is_what_was_saved(steps: list[Any]) -> None:
    saved = Saved()
    at_save = load_room(whole(saved.room))
    for step in steps:
        if step == "save":
            saved.save()
            at_save = load_room(whole(saved.room))
        elif step == "crash":
            saved.room = saved.load()
            assert same(saved.room, at_save)
        elif step == "convert":
            saved.room.offset += 1
            saved.room.ledger.convert(Fraction(7, 2), saved.room.offset)
        else:
            saved.pay(step)
    assert same(saved.load(), at_save)


def test_a_save_after_nothing_new_writes_nothing() -> None:
    saved = Saved()
    saved.pay(1)
    saved.save()
    before = saved.n_written
    assert saved.save() == []
    assert saved.n_written == before


def test_segments_stay_few_and_each_order_is_written_a_few_times() -> None:
    saved = Saved()
    for n in range(40_000):
        saved.pay(n)
        if n % 50 == 0:
            saved.save()
    saved.save()
    assert same(saved.load(), saved.room)
    assert len(saved.room.chain) <= 20
    whole_bytes = sum(map(len, saved.store.values()))
    assert saved.n_written <= 12 * whole_bytes
    assert max(map(len, saved.store.values())) < 8 * 1024 * 1024


def test_a_segments_bytes_follow_from_the_log_and_its_key_alone() -> None:
    """Two workers that save at other moments write the same bytes wherever they write the same key."""
    random = Random(5)
    written: Store = {}
    for _ in range(30):
        saved = Saved()
        for n in range(60):
            saved.pay(n % 17)
            if random.random() < 0.2:
                parts, _ = segments.extend(saved.room)
                for key, data in parts:
                    assert written.setdefault(key, data) == data


def test_a_segment_that_is_not_there_is_an_error_that_names_it() -> None:
    saved = Saved()
    saved.pay(1)
    saved.save()
    saved.store.clear()
    with pytest.raises(BrokenChainError, match=r"room 'room-1' must have its segment -2-0/0, got none"):
        saved.load()


def test_segments_that_no_room_names_are_told() -> None:
    saved = Saved()
    saved.pay(1)
    saved.save()
    room = load_room(saved.hot)
    assert segments.load(room, saved.store | {"room-1\0-1-99/0": b""}) == ["room-1\0-1-99/0"]


def test_what_was_forgotten_does_not_come_back_from_old_segments() -> None:
    saved = Saved()
    saved.pay(1)
    saved.save()
    saved.room.session.number = 1
    saved.room.ledger.forget(1, 10**9)
    saved.room.seen.forget_money(10**9)
    saved.save()
    room = saved.load()
    assert (room.ledger.orders, room.seen.money) == ({}, {})


def test_an_increment_larger_than_a_message_is_split() -> None:
    saved = Saved()
    for n in range(2 * SEGMENT_ORDERS + 5):
        saved.pay(n)
    saved.save()
    assert len(saved.room.chain) == 3
    assert same(saved.load(), saved.room)


def test_orders_of_a_room_that_moved_into_an_empty_partition_are_saved() -> None:
    saved = Saved()
    for n in range(3):
        saved.pay(n)
    saved.room = load_room(whole(saved.room))
    saved.room.offset = -1
    for order in saved.room.ledger.orders.values():
        order.touched = -1
    saved.save()
    assert same(saved.load(), saved.room)
    assert len(saved.room.ledger.orders) == 3
