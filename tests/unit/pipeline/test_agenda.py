"""Rooms are visited when they are due: once, in order of time, then of name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.agenda import Agenda
from pipeline.room import RoomState
from pipeline.session import RoomConfig

NAMES = ("room-1", "room-2", "room-3", "直播间")


def rooms() -> dict[str, RoomState]:
    return {name: RoomState(name, RoomConfig("shadow")) for name in NAMES}


def passed(agenda: Agenda, now_ms: int) -> list[tuple[int, str]]:
    return [(at_ms, room.room_id) for at_ms, room in agenda.pass_to(now_ms)]


@given(
    st.lists(
        st.tuples(st.just("call"), st.sampled_from(NAMES), st.integers(0, 12))
        | st.tuples(st.just("pass"), st.just(""), st.integers(0, 12)),
        max_size=60,
    )
)
def test_a_room_is_visited_once_at_the_earliest_moment_it_was_called_for(steps: list[tuple[str, str, int]]) -> None:
    agenda, held, due = Agenda(), rooms(), dict[str, int]()
    now_ms = 0
    for action, name, ms in steps:
        if action == "call":
            at_ms = now_ms + ms
            agenda.call(held[name], at_ms)
            due[name] = min(due.get(name, at_ms), at_ms)
        else:
            now_ms += ms
            expected = sorted((at_ms, name) for name, at_ms in due.items() if at_ms <= now_ms)
            assert passed(agenda, now_ms) == expected
            due = {name: at_ms for name, at_ms in due.items() if at_ms > now_ms}
        assert {name: room.due_ms for name, room in held.items() if room.due_ms >= 0} == due


@given(st.permutations(NAMES))
def test_rooms_of_one_moment_come_by_name_however_they_were_called(order: list[str]) -> None:
    agenda, held = Agenda(), rooms()
    for name in order:
        agenda.call(held[name], 500)
    assert passed(agenda, 500) == [(500, name) for name in sorted(NAMES)]
    assert passed(agenda, 10_000) == []


def test_a_visit_may_call_the_room_and_others_again() -> None:
    """On the way to now: what is called for a moment that is passed too comes in its turn."""
    agenda, held = Agenda(), rooms()
    agenda.call(held["room-1"], 500)
    agenda.call(held["room-3"], 1_500)
    seen = []
    for at_ms, room in agenda.pass_to(2_000):
        seen.append((at_ms, room.room_id))
        if at_ms == 500:
            agenda.call(held["room-2"], 1_500)
            agenda.call(room, 1_000)
        elif at_ms == 1_000:
            agenda.call(room, 2_500)
    assert seen == [(500, "room-1"), (1_000, "room-1"), (1_500, "room-2"), (1_500, "room-3")]
    assert passed(agenda, 2_499) == []
    assert passed(agenda, 2_500) == [(2_500, "room-1")]


def test_a_room_that_came_back_from_a_snapshot_is_due_when_it_was() -> None:
    agenda, held = Agenda(), rooms()
    held["room-1"].due_ms = 500
    agenda.put(held["room-1"])
    agenda.call(held["room-1"], 700)  # it is due before
    assert passed(agenda, 1_000) == [(500, "room-1")]
    agenda.call(held["room-1"], 1_700)
    assert passed(agenda, 2_000) == [(1_700, "room-1")]


@pytest.mark.parametrize("earlier_ms", [100, 400])
def test_a_room_called_for_earlier_is_not_visited_at_the_later_moment(earlier_ms: int) -> None:
    agenda, held = Agenda(), rooms()
    agenda.call(held["room-1"], 500)
    agenda.call(held["room-1"], earlier_ms)
    assert passed(agenda, 450) == [(earlier_ms, "room-1")]
    assert passed(agenda, 600) == []
    # It stays on the list of the later moment until then: a new call for that moment is still one visit.
    agenda.call(held["room-2"], 700)
    agenda.call(held["room-2"], 650)
    assert passed(agenda, 660) == [(650, "room-2")]
    agenda.call(held["room-2"], 700)
    assert passed(agenda, 800) == [(700, "room-2")]
