"""Event ids are remembered at least a minute and then let go; money's for the whole session."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Engine
from pipeline.dedup import SeenIds
from tests.strategies import START_MS

KEEP_MS = 60_000


def remember(seen: SeenIds, number: int, now_ms: int) -> bool:
    """Do what the engine does with an id; tell whether it was a repeat."""
    if seen.has(b"%d" % number):
        return True
    seen.go_on(now_ms, KEEP_MS)
    seen.remember(b"%d" % number)
    return False


@given(st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 5)), max_size=60))
def test_an_id_is_known_for_a_minute_after_it_was_first_seen(steps: list[tuple[int, int]]) -> None:
    seen, now_ms = SeenIds(), START_MS
    taken: dict[int, int] = {}
    for later_ms, token in steps:
        now_ms += later_ms
        repeated = remember(seen, token, now_ms)
        if token not in taken:
            assert not repeated
        elif now_ms - taken[token] < KEEP_MS:
            assert repeated
        if not repeated:
            taken[token] = now_ms


def test_memory_holds_two_minutes_of_ids_at_most() -> None:
    seen = SeenIds()
    most = 0
    for token in range(60_000):  # a hundred a second, for ten minutes
        assert not remember(seen, token, START_MS + token * 10)
        most = max(most, len(seen.recent))
    assert 6_000 <= most <= 12_001


def test_after_a_long_silence_everything_is_let_go_at_once() -> None:
    seen = SeenIds()
    remember(seen, 1, START_MS)
    remember(seen, 2, START_MS + 10 * KEEP_MS)
    assert not seen.has(b"1")
    assert set(seen.recent) == {b"2"}


def counts(kind: str, apart_ms: int, **fields: Any) -> tuple[int, int]:
    """Return (events, duplicates) of one id written twice, `apart_ms` apart, with other traffic all the time."""
    engine = Engine()
    event = {"type": kind, "event_id": "e", "room_id": "room-1", "ts": START_MS, **fields}
    other = {"type": "presence", "room_id": "room-1", "ts": START_MS, "n_online": 1}
    stamps = range(START_MS, START_MS + apart_ms, 7_000)
    records = [(START_MS, event), *((s, {**other, "event_id": f"o{s}"}) for s in stamps), (START_MS + apart_ms, event)]
    engine.process([(place, stamp, json.dumps(value).encode()) for place, (stamp, value) in enumerate(records)])
    return engine.counters.n_events - len(stamps), engine.counters.n_duplicates


ORDER = {"order_id": "o", "status": "paid", "amount_minor": 5, "currency": "CNY"}
GIFT = {"amount_minor": 5, "currency": "CNY"}
SPEND = {"plan_id": "p", "impressions": 1, "clicks": 1, "cost_minor": 1, "currency": "CNY"}


@pytest.mark.parametrize("apart_ms", [0, 1, 59_999])
def test_a_repeat_within_a_minute_counts_once(apart_ms: int) -> None:
    assert counts("comment", apart_ms, text="666") == (1, 1)


def test_a_repeat_after_ten_minutes_is_another_event() -> None:
    assert counts("comment", 600_000, text="666") == (2, 0)


@pytest.mark.parametrize(("kind", "fields"), [("order", ORDER), ("gift", GIFT), ("spend", SPEND)])
def test_money_counts_once_for_the_whole_session(kind: str, fields: dict[str, Any]) -> None:
    assert counts(kind, 6 * 3_600_000, **fields) == (1, 1)


def test_money_ids_are_let_go_by_age_alone() -> None:
    seen = SeenIds()
    seen.remember_money(b"old", START_MS)
    seen.remember_money(b"new", START_MS + 10)
    seen.forget_money(START_MS + 10)
    assert set(seen.money) == {b"new"}


def test_the_same_id_in_two_rooms_is_two_events() -> None:
    engine = Engine()
    events = [
        {"type": "presence", "event_id": "e", "room_id": f"room-{n}", "ts": START_MS, "n_online": 1} for n in (1, 2)
    ]
    engine.process([(n, START_MS, json.dumps(event).encode()) for n, event in enumerate(events)])
    assert (engine.counters.n_events, engine.counters.n_duplicates) == (2, 0)
