"""Binned samples roll as sums do, and their middle is the sorted sample's."""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.buckets import BASE_MS, ROOM_ZONES
from pipeline.samples import Samples, counted, middle

MINUTE_MS = 60_000
NOW_MS = 100 * MINUTE_MS


def sorted_middle(samples: bytes) -> int:
    return sorted(samples)[(len(samples) - 1) // 2]


@given(st.binary(min_size=1, max_size=199))
def test_the_middle_is_the_sorted_samples(samples: bytes) -> None:
    assert middle(samples) == sorted_middle(samples)


@given(st.integers(0, 10**6), st.integers(199, 1_200), st.integers(1, 255), st.booleans())
def test_the_middle_of_many_samples_is_the_sorted_samples_too(seed: int, n: int, spread: int, odd: bool) -> None:
    """Beyond some two hundred they are counted instead of sorted: odd, even, in one bin or in all of them."""
    random = Random(seed)
    low = random.randrange(256 - spread)
    samples = bytes(random.randint(low, low + spread) for _ in range(2 * n + odd))
    assert middle(samples) == sorted_middle(samples)
    assert middle(bytes((low,)) * n) == low
    assert middle(bytes((low,)) * n + bytes((255,)) * n) == low


def test_no_sample_has_no_middle() -> None:
    assert middle(b"") is None
    assert counted(b"") == {}


@given(st.binary(max_size=400))
def test_counted_samples_are_as_many_as_there_were(samples: bytes) -> None:
    assert counted(samples) == dict(Counter(samples))


@given(
    st.lists(
        st.tuples(st.integers(0, 8_000), st.integers(0, 8_000), st.binary(min_size=1, max_size=3)),
        max_size=30,
    ),
    st.integers(NOW_MS // BASE_MS, NOW_MS // BASE_MS + 200),
)
def test_windows_hold_what_happened_in_them_whenever_it_arrives(events: list[tuple[int, int, bytes]], now: int) -> None:
    samples, now_ms = Samples(), now * BASE_MS
    happened = [(now_ms - (ago + 1) * BASE_MS, made) for ago, _, made in events]
    arrives = sorted(
        (min(now_ms, start + (late + 1) * BASE_MS), start, made)
        for (start, made), (_, late, _) in zip(happened, events, strict=True)
    )
    for put_ms, start_ms, made in arrives:
        samples.expire(put_ms)
        samples.put(start_ms, made, put_ms)
        samples.count(made)
    samples.expire(now_ms)
    for (reach_ms, bucket_ms), told in zip(ROOM_ZONES, samples.windows(), strict=True):
        #  T-W-bucket  T-W             T
        #  [ - - - - - [---------------)
        inside = b"".join(made for start, made in happened if start - start % bucket_ms + bucket_ms > now_ms - reach_ms)
        assert Counter(told) == Counter(inside)
    assert samples.session == Counter(b"".join(made for _, made in happened))
    for zone in samples.zones:
        assert zone.starts == sorted(set(zone.starts))
        assert len(zone.starts) == len(zone.chunks)


@pytest.mark.parametrize("minutes", [60 + 2, 24 * 60])
def test_what_is_older_than_the_hour_is_forgotten_and_the_session_goes_on(minutes: int) -> None:
    samples = Samples()
    samples.put(NOW_MS - BASE_MS, b"\x07\x09", NOW_MS)
    samples.count(b"\x07\x09")
    samples.expire(NOW_MS + minutes * MINUTE_MS)
    assert samples.windows() == [b""] * 4
    assert samples.session == {7: 1, 9: 1}


def test_a_sample_costs_a_byte_beside_its_buckets() -> None:
    samples = Samples()
    n = 0
    for step in range(2 * 7_200):  # two hours, ten visits that end in each half second
        start_ms = step * BASE_MS
        samples.expire(start_ms + BASE_MS)
        samples.put(start_ms, bytes(range(10)), start_ms + BASE_MS)
        n = sum(len(chunk) for zone in samples.zones for chunk in zone.chunks)
    assert n <= 10 * 7_200 + 10 * 2 * 60
    assert sum(len(zone.starts) for zone in samples.zones) <= 60 + 48 + 40 + 45 + 8
    assert len(msgspec.msgpack.encode(samples)) <= n + 250 * 12


def test_clearing_forgets_the_windows_alone() -> None:
    samples = Samples()
    samples.put(NOW_MS - BASE_MS, b"\x01", NOW_MS)
    samples.count(b"\x01")
    samples.clear()
    assert (samples.windows(), samples.session) == ([b""] * 4, {1: 1})


@given(st.lists(st.tuples(st.integers(0, 8_000), st.binary(min_size=1, max_size=3)), max_size=20))
def test_samples_come_back_from_bytes_as_they_were(events: list[tuple[int, bytes]]) -> None:
    samples = Samples()
    for ago, made in events:
        samples.put(NOW_MS - (ago + 1) * BASE_MS, made, NOW_MS)
        samples.count(made)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(samples), type=Samples)
    assert again == samples
    again.put(NOW_MS, b"\x02", NOW_MS + BASE_MS)  # and it goes on
    assert again.windows()[0] == samples.windows()[0] + b"\x02"
