"""Many counters in one integer behave as many counters: however they are added, and whatever their signs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.counters import (
    FIRST_TOPIC,
    GIFT,
    MONEY,
    N_ENTERS,
    NAMES,
    PLACE,
    SPEND,
    TOPICS,
    UNIT,
    digit,
    only,
    pack,
    unpack,
)
from pipeline.metrics import COUNTS, PRIOR
from schemas.base import MAX_COUNTED

LOW, HIGH = -(1 << 63), (1 << 63) - 1
"""What one counter can hold."""

CellStrategy = st.SearchStrategy[dict[str, int]]


def cells(low: int, high: int) -> CellStrategy:
    """Counters by name; mostly small, sometimes at the limits, some of them missing."""
    edges = st.sampled_from((low, high, -1, 0, 1))
    usual = st.integers(max(low, -1_000), min(high, 1_000))
    return st.dictionaries(st.sampled_from(NAMES), usual | edges | st.integers(low, high))


def by_place(counts: dict[str, int]) -> tuple[int, ...]:
    return tuple(counts.get(name, 0) for name in NAMES)


@given(cells(LOW, HIGH))
def test_what_was_packed_comes_out_again(counts: dict[str, int]) -> None:
    packed = pack(counts)
    assert unpack(packed) == by_place(counts)
    assert [digit(packed, place) for place in range(len(NAMES))] == list(by_place(counts))


@given(st.lists(st.tuples(cells(-MAX_COUNTED, MAX_COUNTED), st.sampled_from((1, 1, 1, -1))), max_size=40))
def test_the_sum_of_many_sets_is_the_sum_of_each_counter(parts: list[tuple[dict[str, int], int]]) -> None:
    packed = 0
    sums = dict.fromkeys(NAMES, 0)
    for counts, sign in parts:
        packed += sign * pack(counts)
        for name, n in counts.items():
            sums[name] += sign * n
        # After every one: a digit that goes below zero borrows from its neighbours and must not change them.
        assert unpack(packed) == by_place(sums)


@given(cells(-MAX_COUNTED, MAX_COUNTED), st.lists(cells(-MAX_COUNTED, MAX_COUNTED), max_size=5))
def test_what_was_added_can_be_taken_out_again(one: dict[str, int], others: list[dict[str, int]]) -> None:
    total = pack(one) + sum(map(pack, others))
    assert total - sum(map(pack, others)) == pack(one)


@given(st.integers(0, len(NAMES) - 1), st.sampled_from((LOW, HIGH)), st.sampled_from((LOW, -1, 0, 1, HIGH)))
def test_a_counter_at_its_limit_does_not_touch_its_neighbours(place: int, n: int, around: int) -> None:
    expected = [around] * len(NAMES)
    expected[place] = n
    packed = pack(dict(zip(NAMES, expected, strict=True)))
    assert list(unpack(packed)) == expected
    assert digit(packed, place) == n


def test_eight_million_of_the_largest_events_fit() -> None:
    n_events = 8_000_000
    for sign in (1, -1):
        largest = pack(dict.fromkeys(NAMES, sign * MAX_COUNTED))
        assert set(unpack(n_events * largest)) == {sign * n_events * MAX_COUNTED}


@given(cells(LOW, HIGH), st.lists(st.integers(0, len(NAMES) - 1), unique=True, max_size=len(NAMES)))
def test_some_counters_alone_and_the_rest_make_the_whole(counts: dict[str, int], places: list[int]) -> None:
    packed = pack(counts)
    some = only(packed, tuple(places))
    rest = only(packed, tuple(place for place in range(len(NAMES)) if place not in places))
    assert some + rest == packed
    assert unpack(some) == tuple(n if place in places else 0 for place, n in enumerate(unpack(packed)))


@given(cells(LOW, HIGH))
def test_taking_the_money_out_leaves_every_other_counter(counts: dict[str, int]) -> None:
    left = pack(counts) - only(pack(counts), MONEY)
    assert unpack(left) == by_place({name: n for name, n in counts.items() if PLACE[name] not in MONEY})


def test_every_sum_of_money_is_known_as_money() -> None:
    amounts = [place for place, name in enumerate(NAMES) if name.startswith(("gmv", "refund")) or "_minor" in name]
    assert sorted(MONEY) == amounts


def test_a_name_a_place_a_unit() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(PLACE) == len(UNIT)
    assert (PLACE["n_enters"], PLACE["spend_minor"], PLACE["gift_minor"]) == (N_ENTERS, SPEND, GIFT)
    assert NAMES[FIRST_TOPIC : FIRST_TOPIC + len(TOPICS)] == tuple(f"topic:{topic}" for topic in TOPICS)
    for name in NAMES:
        assert unpack(UNIT[name]) == by_place({name: 1})
    assert {name for names in COUNTS.values() for name in names} | set(PRIOR) <= set(NAMES)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_quiet_bucket_is_a_short_number(sign: int) -> None:
    """What is counted most comes first: a few viewers take bytes, not the length of all counters."""
    assert (sign * pack({"n_enters": 3, "n_interactions": 12, "n_comments": 1})).bit_length() <= 3 * 64
    assert unpack(0) == (0,) * len(NAMES)
