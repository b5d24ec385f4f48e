"""Rolling windows are sums over half-open intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.buckets import BASE_MS, CHANNEL_ZONES, ROOM_ZONES, Windows
from pipeline.counters import pack, unpack

MINUTE_MS = 60_000
NOW_MS = 100 * MINUTE_MS
REACHES_MS = tuple(reach_ms for reach_ms, _ in ROOM_ZONES)


def windows_of(*starts_ms: int, now_ms: int = NOW_MS, put_ms: int | None = None) -> Windows:
    """Return windows with one event in each base bucket, put at one evaluation and looked at in another."""
    windows = Windows(ROOM_ZONES)
    for start_ms in starts_ms:
        windows.put(start_ms, 1, now_ms if put_ms is None else put_ms)
    windows.expire(now_ms)
    return windows


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
        (61_000, [0, 1, 1, 1]),
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
        assert windows_of(start_ms, put_ms=put_ms).totals() == expected


@pytest.mark.parametrize(
    ("now_ms", "ago_ms", "expected"),
    [
        #                  T-61s      T-60s             T, a whole second
        #                  [ - - I - -[-----------------)    out: its second ends with the edge
        (NOW_MS, 60_500, 0),
        #             T-60.5s    T-59.5s                T, half a second later
        #                  [I - - - - [-----------------)    in: its second reaches into the minute
        (NOW_MS + 500, 60_500, 1),
        #              [ I - - - [----------------------)    out: never more than a second
        (NOW_MS + 500, 61_000, 0),
    ],
)
def test_the_old_edge_of_the_minute_is_rounded_down_to_a_second(now_ms: int, ago_ms: int, expected: int) -> None:
    assert windows_of(now_ms - ago_ms, now_ms=now_ms).totals()[0] == expected


@given(
    st.lists(st.tuples(st.integers(0, 8_000), st.integers(0, 8_000), st.integers(-3, 9)), max_size=30),
    st.integers(NOW_MS // BASE_MS, NOW_MS // BASE_MS + 200),
)
def test_windows_are_sums_whenever_the_events_arrive(events: list[tuple[int, int, int]], now: int) -> None:
    """Events happen some steps ago and arrive some steps later; every arrival is an evaluation."""
    windows, now_ms = Windows(ROOM_ZONES), now * BASE_MS
    happened = [(now_ms - (ago + 1) * BASE_MS, n) for ago, _, n in events]
    arrives = sorted(
        (min(now_ms, start + (late + 1) * BASE_MS), start, n)
        for (start, n), (_, late, _) in zip(happened, events, strict=True)
    )
    for put_ms, start_ms, n in arrives:
        windows.expire(put_ms)
        windows.put(start_ms, n, put_ms)
        windows.session += n
    windows.expire(now_ms)
    for (reach_ms, bucket_ms), told in zip(ROOM_ZONES, windows.totals(), strict=True):
        #  T-W-bucket  T-W             T
        #  [ - - - - - [---------------)    whole buckets, so it depends on T alone which they are
        inside = [(start, n) for start, n in happened if start - start % bucket_ms + bucket_ms > now_ms - reach_ms]
        assert told == sum(n for _, n in inside)
        assert all(start > now_ms - reach_ms - bucket_ms for start, _ in inside)
        assert {(start, n) for start, n in happened if start >= now_ms - reach_ms} <= set(inside)
        assert bucket_ms <= reach_ms / 60
    assert windows.session == sum(n for _, n in happened)
    for zone in windows.zones:
        assert sum(zone.values) == zone.total
        assert zone.starts == sorted(set(zone.starts))
        assert len(zone.starts) == len(zone.values)


@given(
    st.lists(
        st.tuples(st.integers(0, 7_300), st.dictionaries(st.sampled_from(("n_enters", "clicks")), st.integers(-9, 9))),
        max_size=12,
    )
)
def test_packed_counters_roll_as_each_of_them_alone(events: list[tuple[int, dict[str, int]]]) -> None:
    together = Windows(ROOM_ZONES)
    alone = {name: Windows(ROOM_ZONES) for name in ("n_enters", "clicks")}
    for ago, counts in events:
        start_ms = NOW_MS - (ago + 1) * BASE_MS
        together.put(start_ms, pack(counts), NOW_MS)
        for name, windows in alone.items():
            windows.put(start_ms, counts.get(name, 0), NOW_MS)
    for now_ms in range(NOW_MS, NOW_MS + 70 * MINUTE_MS, 7 * MINUTE_MS + BASE_MS):
        for windows in (together, *alone.values()):
            windows.expire(now_ms)
        singles = zip(*(windows.totals() for windows in alone.values()), strict=True)
        expected = [unpack(pack(dict(zip(alone, ns, strict=True)))) for ns in singles]
        assert [unpack(total) for total in together.totals()] == expected


def test_buckets_are_few_however_long_it_goes_on() -> None:
    windows = Windows(ROOM_ZONES)
    for step in range(3 * 3_600 * 2):
        start_ms = step * BASE_MS
        windows.expire(start_ms + BASE_MS)
        windows.put(start_ms, 1, start_ms + BASE_MS)
    assert sum(len(zone.starts) for zone in windows.zones) <= sum(
        (reach - before) // bucket + 2 for (reach, bucket), before in zip(ROOM_ZONES, (0, *REACHES_MS), strict=False)
    )
    assert windows.totals() == [120, 600, 1_800, 7_200]


@given(st.lists(st.integers(0, 8_000), min_size=1, max_size=8))
def test_the_next_expiry_is_the_first_moment_that_changes_a_window(agos: list[int]) -> None:
    windows = windows_of(*(NOW_MS - (ago + 1) * BASE_MS for ago in agos))
    while (expiry_ms := windows.next_expiry_ms()) is not None:
        before = windows.totals()
        assert not windows.expire(expiry_ms - 1)
        assert windows.totals() == before
        assert windows.expire(expiry_ms)
        assert windows.totals() != before
    assert windows.totals() == [0, 0, 0, 0]


def test_nothing_left_expires_never() -> None:
    windows = windows_of(NOW_MS - 10_000)
    for minute in range(1, 70):
        windows.expire(NOW_MS + minute * MINUTE_MS)
    assert windows.next_expiry_ms() is None
    assert [(zone.starts, zone.values, zone.total) for zone in windows.zones] == [([], [], 0)] * 4


def test_after_a_long_silence_buckets_go_to_the_zone_that_reaches_them_or_nowhere() -> None:
    #  put ...................... twenty minutes, or two hours, without an evaluation
    windows = windows_of(NOW_MS - 10_000)
    windows.expire(NOW_MS + 20 * MINUTE_MS)
    assert windows.totals() == [0, 0, 0, 1]
    windows = windows_of(NOW_MS - 10_000)
    windows.expire(NOW_MS + 120 * MINUTE_MS)
    assert windows.totals() == [0, 0, 0, 0]


def test_a_channel_keeps_its_five_minutes_alone() -> None:
    windows = Windows(CHANNEL_ZONES)
    windows.put(NOW_MS - 299_500, 1, NOW_MS)
    windows.put(NOW_MS - 400_000, 1, NOW_MS)
    assert windows.totals() == [1]
    windows.expire(NOW_MS + 10_000)
    assert (windows.totals(), windows.next_expiry_ms()) == ([0], None)


def test_what_came_too_late_for_every_window_is_in_none() -> None:
    windows = windows_of(NOW_MS - 2 * 3_600_000)
    assert windows.totals() == [0, 0, 0, 0]
    assert windows.next_expiry_ms() is None
