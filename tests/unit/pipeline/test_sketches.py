"""Quantiles from bins against sorted samples."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sketches import LOG_EDGES, bin_value, quantile
from pipeline.sketches import log_bin as bin_of


@given(st.lists(st.integers(101, 10**9), min_size=1, max_size=60), st.sampled_from((0.1, 0.5, 0.9, 1.0)))
def test_a_quantile_is_within_five_per_cent_of_the_sorted_samples(values: list[int], share: float) -> None:
    bins = Counter(bin_of(value) for value in values)
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    told = quantile(dict(bins), share)
    assert told is not None
    assert abs(told - exact) <= 0.05 * exact + 1  # and a whole unit for rounding


@given(st.integers(101, 10**12))
def test_a_bin_stands_for_what_fell_into_it_within_five_per_cent(value: int) -> None:
    assert abs(bin_value(bin_of(value)) - value) <= 0.05 * value + 1


def test_an_empty_sample_has_no_quantile() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({3: 0}, 0.5) is None


def test_bins_never_fall_back() -> None:
    values = sorted({*range(300), *(round(1.03**n) for n in range(900)), 10**12})
    bins = [bin_of(value) for value in values]
    assert bins == sorted(bins)
    middles = [bin_value(number) for number in range(len(LOG_EDGES))]
    assert middles == sorted(middles)


@pytest.mark.parametrize("value", [0, 1, 100, 101, 10**12 - 1, 10**12])
def test_every_amount_that_the_wire_carries_has_a_bin_of_one_byte(value: int) -> None:
    """Samples are strings of bins: a bin that takes more than a byte would break the room that met it."""
    assert bin_of(value) in range(256)
    assert bytes((bin_of(value),))
