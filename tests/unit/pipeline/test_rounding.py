"""`millionths` is `round` to six places, bit for bit, wherever it takes the short way."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.rounding import millionths


def same(x: float) -> bool:
    ours, pythons = millionths(x), round(x, 6)
    return type(ours) is type(pythons) and ours.hex() == pythons.hex()


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_ratios_of_counts_round_as_python_rounds_them(part: int, whole: int) -> None:
    assert same(part / whole)
    assert same(-part / whole)


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(0.0)
@example(-0.0)
@example(5e-324)
@example(999.9999995)
@example(1_000.0)
@example(4_503_599_627.370_4965)
def test_any_number_rounds_as_python_rounds_it(x: float) -> None:
    assert same(x)


@given(st.integers(0, 10**9), st.integers(-3, 3))
def test_a_number_beside_the_middle_of_two_millionths_goes_to_its_own_side(n: int, n_steps: int) -> None:
    x = (2 * n + 1) / 2e6
    for _ in range(abs(n_steps)):
        x = math.nextafter(x, math.inf if n_steps > 0 else -math.inf)
    assert same(x)
    if Fraction(x) != Fraction(2 * n + 1, 2_000_000):
        assert Fraction(millionths(x)).limit_denominator(10**6) == Fraction(
            n + (Fraction(x) > Fraction(2 * n + 1, 2_000_000)), 10**6
        )
