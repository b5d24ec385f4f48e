"""Distinct users against sets, quantiles against sorted samples."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sketches import TOKEN_SPACE, DistinctUsers, quantile
from pipeline.sketches import log_bin as bin_of

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
BUCKET_MS = 500
NOW_MS = 4 * HOUR_MS
WIDE_MS = (MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS)


class Crowd:
    """A sketch beside the sets it stands for; window sums are made of the moves alone, as the engine makes them."""

    def __init__(self, capacity: int) -> None:
        self.sketch = DistinctUsers(capacity=capacity)
        self.moves: Counter[tuple[str, int]] = Counter()
        self.sights: list[tuple[int, int, bool]] = []

    def see(self, token: int, at_ms: int, *, active: bool = False) -> None:
        bucket_ms = at_ms - at_ms % BUCKET_MS
        self.sights.append((token, bucket_ms, active))
        for moved_ms, name, by in self.sketch.update(token, bucket_ms, active=active):
            self.moves[name, moved_ms] += by

    def told(self, name: str, reach_ms: int) -> int:
        """Return the estimate over NOW - reach <= bucket < NOW."""
        is_hour = reach_ms >= HOUR_MS
        name = f"hour_{name}" if is_hour else name
        total = sum(n for (key, at_ms), n in self.moves.items() if key == name and NOW_MS - reach_ms <= at_ms < NOW_MS)
        return self.sketch.scaled(total, narrow=is_hour)

    def true(self, reach_ms: int, *, active: bool = False) -> int:
        return len({t for t, at_ms, acts in self.sights if NOW_MS - reach_ms <= at_ms and acts >= active})


def crowd(seed: int, n_users: int, *, capacity: int, begin_ms: int = NOW_MS - 2 * HOUR_MS) -> Crowd:
    """Users who come over two hours, most of them two or three times; some sights arrive late."""
    random = Random(seed)
    tokens = [random.randrange(TOKEN_SPACE) for _ in range(n_users)]
    sights = []
    for token in tokens:
        at_ms = random.randrange(begin_ms, NOW_MS)
        for _ in range(random.choice((1, 1, 2))):
            sights.append((at_ms + random.choice((0, 0, -90_000, -600_000)), token, at_ms, random.random() < 0.2))
            at_ms = min(NOW_MS - 1, at_ms + random.randrange(400_000))
    made = Crowd(capacity)
    for _, token, at_ms, active in sorted(sights):
        made.see(token, at_ms, active=active)
    return made


@pytest.mark.parametrize("seed", [1, 2])
def test_distinct_users_are_exact_up_to_the_capacity(seed: int) -> None:
    made = crowd(seed, 2_000, capacity=2_000)
    for reach_ms in (*WIDE_MS, HOUR_MS):
        assert made.told("users", reach_ms) == made.true(reach_ms)
        assert made.told("active", reach_ms) == made.true(reach_ms, active=True)
    assert made.sketch.scaled(made.sketch.n_session, narrow=True) == made.true(NOW_MS)
    assert made.sketch.scaled(made.sketch.n_session_active, narrow=True) == made.true(NOW_MS, active=True)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(NOW_MS - HOUR_MS, NOW_MS - 1), st.booleans()), max_size=40),
)
def test_a_user_counts_once_in_every_window_in_whatever_order_the_sights_come(
    sights: list[tuple[int, int, bool]],
) -> None:
    made = Crowd(100)
    for token, at_ms, active in sights:
        made.see(token, at_ms, active=active)
        for reach_ms in (*WIDE_MS, HOUR_MS):
            assert made.told("users", reach_ms) == made.true(reach_ms)


def test_beyond_the_capacity_the_hour_and_the_session_stay_within_two_per_cent_and_the_rest_within_ten() -> None:
    narrow, wide = [], []
    for seed in range(3):
        made = crowd(seed, 40_000, capacity=16_384)
        assert len(made.sketch.users) <= 16_384
        assert made.sketch.narrow < TOKEN_SPACE
        narrow.append(made.told("users", HOUR_MS) / made.true(HOUR_MS) - 1)
        narrow.append(made.sketch.scaled(made.sketch.n_session, narrow=True) / made.true(NOW_MS) - 1)
        wide += [made.told("users", reach_ms) / made.true(reach_ms) - 1 for reach_ms in WIDE_MS]
    # An estimate's error is told as its standard error.
    assert math.sqrt(sum(error**2 for error in narrow) / len(narrow)) <= 0.02
    assert math.sqrt(sum(error**2 for error in wide) / len(wide)) <= 0.10
    assert max(map(abs, narrow)) <= 3 * 0.02


def test_a_session_counts_its_own_users_and_the_windows_go_on() -> None:
    made = Crowd(100)
    for token in range(10):
        made.see(token, NOW_MS - 30_000, active=True)
    made.sketch.begin_session()
    assert (made.sketch.n_session, made.sketch.n_session_active) == (0, 0)
    for token in range(5, 8):
        made.see(token, NOW_MS - 10_000)
    assert (made.sketch.n_session, made.sketch.n_session_active) == (3, 0)
    assert made.told("users", MINUTE_MS) == 10


@given(st.lists(st.integers(101, 10**9), min_size=1, max_size=60), st.sampled_from((0.1, 0.5, 0.9, 1.0)))
def test_a_quantile_is_within_five_per_cent_of_the_sorted_samples(values: list[int], share: float) -> None:
    bins = Counter(bin_of(value) for value in values)
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    told = quantile(dict(bins), share)
    assert told is not None
    assert abs(told - exact) <= 0.05 * exact + 1  # and a whole unit for rounding


def test_an_empty_sample_has_no_quantile() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({3: 0}, 0.5) is None


def test_bins_never_fall_back() -> None:
    values = sorted({*range(300), *(round(1.03**n) for n in range(900)), 10**12})
    bins = [bin_of(value) for value in values]
    assert bins == sorted(bins)
