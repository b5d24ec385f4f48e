"""Return and its corrections against sums made by hand."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.buckets import BASE_MS, ROOM_ZONES, Windows
from pipeline.roi import delay_curve_ppm, matured_spend, net_attributed_minor, returns, roas
from pipeline.roi.delay import Matured
from pipeline.sketches import log_bin
from schemas.settings import RoiSettings
from tests.partition import Partition
from tests.strategies import START_MS

SETTINGS = RoiSettings()
MEAN_S = SETTINGS.conversion_delay_s


def spent(pieces: list[tuple[int, int]], now_ms: int) -> Windows:
    """Return windows that hold spend as (seconds ago, minor units)."""
    windows = Windows.over(ROOM_ZONES)
    for ago_s, cost in pieces:
        start_ms = now_ms - ago_s * 1_000
        windows.put(start_ms - start_ms % BASE_MS, {"spend_minor": cost}, now_ms)
    return windows


@given(st.lists(st.tuples(st.integers(1, 3_590), st.integers(1, 10**6)), min_size=1, max_size=30))
def test_maturity_is_the_spend_weighted_by_how_much_of_its_return_is_due(pieces: list[tuple[int, int]]) -> None:
    now_ms = START_MS
    matured = matured_spend(spent(pieces, now_ms), now_ms, MEAN_S)
    for (reach_ms, bucket_ms), told in zip(ROOM_ZONES, matured, strict=False):
        inside = [(ago_s, cost) for ago_s, cost in pieces if ago_s * 1_000 <= reach_ms]
        edge = [p for p in pieces if reach_ms < p[0] * 1_000 < reach_ms + bucket_ms]
        if edge or not inside:
            continue  # what lies on the rounded edge may be in or out
        total = sum(cost for _, cost in inside)
        assert told.spend_minor == total
        # Each piece's age is known to half a bucket of the zone it lies in, at most half a minute.
        low, high = (
            sum(cost * -math.expm1(-max(0, ago_s + slack) / MEAN_S) for ago_s, cost in inside) / total
            for slack in (-bucket_ms / 1_000 - 1, bucket_ms / 1_000 + 1)
        )
        assert told.maturity is not None
        assert low - 1e-5 <= told.maturity <= high + 1e-5


def test_maturity_grows_with_age_to_one() -> None:
    windows = spent([(1, 100)], START_MS)
    ages = [matured_spend(windows, START_MS + age_s * 1_000, MEAN_S)[-1].maturity for age_s in range(0, 7_200, 60)]
    assert ages == sorted(ages)  # type: ignore[type-var]  # spend is there, so none is None
    assert ages[0] is not None
    assert ages[0] < 0.01
    assert ages[-1] == pytest.approx(1.0, abs=1e-6)


def test_what_was_spent_before_the_hour_is_due() -> None:
    windows = Windows.over(ROOM_ZONES)
    windows.put(START_MS, {"spend_minor": 500}, START_MS + 1_000)
    windows.expire(START_MS + 3 * 3_600_000)
    assert matured_spend(windows, START_MS + 3 * 3_600_000, MEAN_S)[-1] == Matured(500, 500 * 1_000_000)


def test_the_delay_curve_is_whole_millionths_and_never_falls() -> None:
    curve = delay_curve_ppm(MEAN_S)
    assert curve[0] == 0
    assert list(curve) == sorted(curve)
    assert curve[MEAN_S] == round(1_000_000 * (1 - math.exp(-1)))
    assert all(isinstance(ppm, int) for ppm in curve)


@pytest.mark.parametrize(("net", "spend", "expected"), [(12_500, 5_000, 2.5), (-500, 1_000, -0.5), (0, 10, 0.0)])
def test_return_is_net_value_over_spend(net: int, spend: int, expected: float) -> None:
    assert roas(net, spend) == expected


@pytest.mark.parametrize("spend", [0, -5])
def test_without_spend_there_is_no_return(spend: int) -> None:
    assert roas(1_000, spend) is None
    told = returns({"gmv_minor": 9, "spend_minor": spend}, {}, Matured(spend, 0), SETTINGS)
    assert set(told) == {None}


def tally(n_orders: int, amount: int, spend: int, **more: int) -> tuple[dict[str, int], dict[str, int]]:
    counts = {
        "spend_minor": spend,
        "gmv_minor": n_orders * amount,
        "gmv_attributed": n_orders * amount,
        "gmv_valid": n_orders * amount,
        "n_paid_attributed": n_orders,
    }
    return counts | more, {f"amount:{log_bin(amount)}": n_orders}


@pytest.mark.parametrize(("n_orders", "has_band"), [(1, False), (4, False), (5, True), (50, True)])
def test_a_band_needs_five_orders(n_orders: int, *, has_band: bool) -> None:
    told = returns(*tally(n_orders, 10_000, 10_000), Matured(10_000, 10_000 * 800_000), SETTINGS)
    assert told.mature == n_orders / 0.8
    assert ((told.low, told.high) != (None, None)) == has_band
    if told.low is not None and told.high is not None:
        assert told.low < told.mature < told.high
        # Equal orders: the relative error of a Poisson count.
        assert math.log(told.high / told.mature) == pytest.approx(1.6449 / math.sqrt(n_orders), rel=1e-3)


@pytest.mark.parametrize(("maturity_ppm", "told_at_all"), [(299_999, False), (300_000, True), (1_000_000, True)])
def test_too_young_a_return_is_not_told(maturity_ppm: int, *, told_at_all: bool) -> None:
    told = returns(*tally(9, 10_000, 10_000), Matured(10_000, 10_000 * maturity_ppm), SETTINGS)
    assert (told.mature is not None) == told_at_all
    assert told.valid == 9.0
    assert told.maturity == maturity_ppm / 1_000_000


def test_a_return_below_zero_has_no_band() -> None:
    counts, amounts = tally(9, 10_000, 10_000, refund_valid=200_000)
    told = returns(counts, amounts, Matured(10_000, 10**10), SETTINGS)
    assert told.mature == -11.0
    assert (told.low, told.high) == (None, None)


def test_the_four_readings_take_out_more_and_more() -> None:
    counts = {
        "spend_minor": 100,
        "gmv_minor": 1_000,
        "refund_minor": 100,
        "gmv_attributed": 700,
        "refund_attributed": 70,
        "gmv_valid": 500,
        "refund_valid": 50,
    }
    told = returns(counts, {}, Matured(100, 100 * 900_000), SETTINGS)
    assert (told.whole, told.attributed, told.valid, told.mature) == (9.0, 6.3, 4.5, 5.0)
    assert net_attributed_minor(counts, valid=False) == 630


def test_the_band_holds_the_truth_in_most_of_many_seeded_sessions() -> None:
    random, held = Random(5), 0
    n_sessions, spend, mean_orders, mean_amount = 400, 1_000_000, 30, 20_000
    for _ in range(n_sessions):
        # Poisson by exponential gaps; amounts log-normal with the mean wanted.
        left, n_orders = random.expovariate(1.0), 0
        while left < mean_orders:
            n_orders, left = n_orders + 1, left + random.expovariate(1.0)
        amounts = [round(random.lognormvariate(math.log(mean_amount) - 0.125, 0.5)) for _ in range(n_orders)]
        counts = {"spend_minor": spend, "gmv_valid": sum(amounts), "n_paid_attributed": n_orders}
        bins: dict[str, int] = {}
        for amount in amounts:
            bins[f"amount:{log_bin(amount)}"] = bins.get(f"amount:{log_bin(amount)}", 0) + 1
        told = returns(counts, bins, Matured(spend, spend * 1_000_000), SETTINGS)
        assert told.low is not None
        assert told.high is not None
        held += told.low <= mean_orders * mean_amount / spend <= told.high
    assert 0.86 <= held / n_sessions <= 0.95


# -- in a room --------------------------------------------------------------------------------------------------


def sale(log: Partition, second: float, order_id: str, **fields: Any) -> None:
    order = {"order_id": order_id, "status": "paid", "amount_minor": 10_000, "currency": "CNY", **fields}
    log.at(second, "order", **order)


def test_only_attributed_orders_count_for_paid_return() -> None:
    log = Partition()
    log.at(0, "spend", plan_id="p", impressions=10, clicks=5, cost_minor=20_000, currency="CNY")
    for place, attribution in enumerate(("direct", "indirect", "organic", "unknown", None)):
        sale(log, 1 + place, f"o{place}", **({"attribution": attribution} if attribution else {}))
    told = log.session()
    assert (told["roas"], told["roas_attributed"], told["roas_valid"]) == (2.5, 1.0, 1.0)
    assert told["cvr"] == 0.4


def test_a_refund_is_taken_from_the_reading_its_order_is_in() -> None:
    log = Partition()
    log.at(0, "spend", plan_id="p", impressions=10, clicks=5, cost_minor=10_000, currency="CNY")
    sale(log, 1, "paid", attribution="direct")
    sale(log, 2, "organic", attribution="organic")
    sale(log, 3, "paid", status="refunded", amount_minor=4_000)
    sale(log, 4, "organic", status="refunded", amount_minor=1_000)
    told = log.session()
    assert (told["roas"], told["roas_attributed"], told["roas_valid"]) == (1.5, 0.6, 0.6)


def test_a_room_without_spend_has_no_return() -> None:
    log = Partition()
    sale(log, 1, "o", attribution="direct")
    assert [name for name in log.session() if name.startswith("roas")] == []
