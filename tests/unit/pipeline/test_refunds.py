"""What is expected back, against the rate that sent it back."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.roi.refunds import EDGES_S, MAX_PRODUCTS, MILLION, RefundCurve, Returned, learn_refunds
from pipeline.roi.state import ReturnState

DAY_MS = 86_400_000


def orders(random: Random, n: int, ratio: float, mean_s: float, watched_s: float) -> Returned:
    """Draw orders over the time watched; some come back in full, when that falls into it."""
    returned = Returned()
    for _ in range(n):
        age_ms = int(random.uniform(0, watched_s) * 1_000)
        back_ms = int(random.expovariate(1 / mean_s) * 1_000)
        is_back = random.random() < ratio and back_ms < age_ms
        returned.add(1, 5_000, age_ms, [(back_ms, 5_000)] if is_back else [])
    return returned


def test_nothing_is_expected_back_where_nobody_said_so_and_nothing_came() -> None:
    curve = learn_refunds(orders(Random(1), 50, 0.0, 60.0, 3_600.0), 0.0, 86_400)
    assert curve == RefundCurve()
    assert curve.remaining(0) == 0
    assert curve.factor(3) == MILLION


def test_before_any_order_the_configured_share_is_expected_back_and_less_of_older_orders() -> None:
    curve = learn_refunds(Returned(), 0.2, 86_400)
    # What would come after the last edge, 68 h, is not waited for.
    assert curve.remaining(0) == pytest.approx(200_000 * (1 - math.exp(-EDGES_S[-1] / 86_400)), abs=5)
    assert curve.remaining(DAY_MS) == pytest.approx(200_000 * (math.exp(-1) - math.exp(-EDGES_S[-1] / 86_400)), rel=0.1)
    ages = [curve.remaining(hour * 3_600_000) for hour in range(80)]
    assert ages == sorted(ages, reverse=True)
    assert ages[-1] == 0


def test_young_orders_that_have_not_come_back_yet_do_not_make_refunds_rare() -> None:
    """A third comes back after an hour, and the show is an hour and a half old."""
    told = [
        learn_refunds(orders(Random(seed), 2_000, 0.33, 3_600.0, 5_400.0), 0.33, 3_600).remaining(0)
        for seed in range(20)
    ]
    assert sum(told) / len(told) / MILLION == pytest.approx(0.33, abs=0.03)


def test_what_the_room_has_seen_replaces_the_prior() -> None:
    for prior in (0.0, 0.5):
        seen = orders(Random(3), 3_000, 0.2, 300.0, 7_200.0)
        curve = learn_refunds(seen, prior, 300)
        assert curve.remaining(0) / MILLION == pytest.approx(0.2, abs=0.03)
        assert curve.n_refunds == seen.n_refunds


def test_a_product_that_comes_back_often_is_told_from_the_others_once_it_has_been_seen() -> None:
    random, returned = Random(4), Returned()
    for product, ratio, n in ((1, 0.05, 400), (2, 0.5, 400), (3, 1.0, 1)):
        for _ in range(n):
            age_ms = random.randint(3_600_000, 7_200_000)
            is_back = random.random() < ratio
            returned.add(product, 5_000, age_ms, [(60_000, 5_000)] if is_back else [])
    curve = learn_refunds(returned, 0.0, 86_400)
    assert curve.factor(1) < 0.4 * MILLION
    assert curve.factor(2) > 1.6 * MILLION
    assert MILLION < curve.factor(3) < 1.4 * MILLION  # one refund of one order says little
    assert curve.factor(0) == MILLION


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, 10**9)), max_size=40
    ),
    st.floats(0, 1),
)
def test_expected_refunds_are_a_share_that_falls_with_age(made: list[tuple[int, int, int, int]], prior: float) -> None:
    returned = Returned()
    for product, paid_minor, age_ms, back_ms in made:
        returned.add(product, paid_minor, age_ms, [(back_ms, paid_minor)] if back_ms < age_ms else [])
    curve = learn_refunds(returned, prior, 3_600)
    if curve.remaining_ppm:
        assert curve.remaining_ppm == sorted(curve.remaining_ppm, reverse=True)
        assert all(0 <= ppm <= MILLION for ppm in curve.remaining_ppm)
        assert curve.remaining_ppm[-1] == 0
    assert all(factor > 0 for factor in curve.products.values())


def test_a_room_tells_so_many_products_apart_and_no_more() -> None:
    state = ReturnState()
    numbers = [state.product(f"p{place}") for place in range(MAX_PRODUCTS + 5)]
    assert numbers == [*range(1, MAX_PRODUCTS + 1), 0, 0, 0, 0, 0]
    assert state.product("p0") == 1
    assert state.product(None) == 0
