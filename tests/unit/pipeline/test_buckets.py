"""Rolling windows are sums over half-open intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.buckets import BASE_MS, CHANNEL_ZONES, ROOM_ZONES, Windows, add, subtract

MINUTE_MS = 60_000
NOW_MS = 100 * MINUTE_MS
REACHES_MS = tuple(reach_ms for reach_ms, _ in ROOM_ZONES)


def windows_of(*starts_ms: int, now_ms: int = NOW_MS, put_ms: int | None = None) -> Windows:
    """Return windows with one event in each base bucket, put at one evaluation and looked at in another."""
    windows = Windows.over(ROOM_ZONES)
    for start_ms in starts_ms:
        windows.put(start_ms, {"n": 1}, now_ms if put_ms is None else put_ms)
    windows.expire(now_ms)
    return windows


def seen(windows: Windows) -> list[int]:
    return [windows.get(reach_ms).get("n", 0) for reach_ms in REACHES_MS]


@pytest.mark.parametrize(
    ("ago_ms", "expected"),
    [
        #  T-3600s      T-900s     T-300s     T-60s        T
        #  [------------[----------[----------[------------)
        #                                                 I
        (500, [1, 1, 1, 1]),
        #                                     I
        (60_000, [1, 1, 1, 1]),
        #                                    I             left the minute
        (60_500, [0, 1, 1, 1]),
        #                          I
        (300_000, [0, 1, 1, 1]),
        #                         I                        left the five: by a bucket of 5 s
        (305_000, [0, 0, 1, 1]),
        #               I
        (900_000, [0, 0, 1, 1]),
        #              I
        (915_000, [0, 0, 0, 1]),
        #   I
        (3_600_000, [0, 0, 0, 1]),
        #  I                                               the session alone
        (3_660_000, [0, 0, 0, 0]),
    ],
)
def test_an_event_is_in_the_windows_that_reach_back_to_it(ago_ms: int, expected: list[int]) -> None:
    start_ms = NOW_MS - ago_ms
    # Put when it happened and grown old, or put late: the same.
    for put_ms in (start_ms + BASE_MS, NOW_MS):
        windows = windows_of(start_ms, put_ms=put_ms)
        assert seen(windows) == expected
        assert windows.session == {"n": 1}


@given(
    st.lists(st.tuples(st.integers(0, 8_000), st.integers(0, 8_000)), max_size=30),
    st.integers(NOW_MS // BASE_MS, NOW_MS // BASE_MS + 200),
)
def test_windows_are_sums_whenever_the_events_arrive(events: list[tuple[int, int]], now: int) -> None:
    """Events happen some steps ago and arrive some steps later; every step in between is an evaluation."""
    windows, now_ms = Windows.over(ROOM_ZONES), now * BASE_MS
    happened = [now_ms - (ago + 1) * BASE_MS for ago, _ in events]
    arrives = sorted(
        (min(now_ms, start + (late + 1) * BASE_MS), start) for start, (_, late) in zip(happened, events, strict=True)
    )
    for put_ms, start_ms in arrives:
        windows.expire(put_ms)
        windows.put(start_ms, {"n": 1}, put_ms)
    windows.expire(now_ms)
    for reach_ms, bucket_ms in ROOM_ZONES:
        #  T-W-W/60  T-W             T
        #  [ - - - - [---------------)
        exact = sum(now_ms - reach_ms <= start for start in happened)
        most = sum(now_ms - reach_ms - max(bucket_ms, reach_ms // 60) < start for start in happened)
        told = windows.get(reach_ms).get("n", 0)
        assert exact <= told <= most
        if reach_ms == MINUTE_MS:
            assert told == exact
    assert windows.session.get("n", 0) == len(events)
    for zone in windows.zones:
        assert sum(tally["n"] for tally in zone.buckets.values()) == zone.total.get("n", 0)
        assert zone.order == sorted(zone.buckets)


def test_buckets_are_few_however_long_it_goes_on() -> None:
    windows = Windows.over(ROOM_ZONES)
    for step in range(3 * 3_600 * 2):
        start_ms = step * BASE_MS
        windows.expire(start_ms + BASE_MS)
        windows.put(start_ms, {"n": 1}, start_ms + BASE_MS)
    assert sum(len(zone.buckets) for zone in windows.zones) <= sum(
        (reach - before) // bucket + 2 for (reach, bucket), before in zip(ROOM_ZONES, (0, *REACHES_MS), strict=False)
    )
    assert windows.session == {"n": 21_600}


def test_the_next_expiry_is_the_first_moment_that_changes_a_window() -> None:
    windows = windows_of(NOW_MS - 10_000)
    expiry_ms = windows.next_expiry_ms()
    assert expiry_ms == NOW_MS - 10_000 + BASE_MS + MINUTE_MS
    assert not windows.expire(expiry_ms - 1)
    assert windows.expire(expiry_ms)
    assert seen(windows) == [0, 1, 1, 1]


def test_nothing_left_expires_never() -> None:
    windows = windows_of(NOW_MS - 10_000)
    for minute in range(1, 70):
        windows.expire(NOW_MS + minute * MINUTE_MS)
    assert windows.next_expiry_ms() is None
    assert [zone.total for zone in windows.zones] == [{}, {}, {}, {}]


def test_a_window_that_is_not_kept_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"must be one of \[300000\], got 60000"):
        Windows.over(CHANNEL_ZONES).get(60_000)


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(-9, 9)),
)
def test_what_was_added_can_be_taken_out_again(one: dict[str, int], other: dict[str, int]) -> None:
    total = dict(one)
    add(total, other)
    subtract(total, other)
    assert {name: n for name, n in total.items() if n} == {name: n for name, n in one.items() if n}
