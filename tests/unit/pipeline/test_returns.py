"""Return and its corrections against sums made by hand."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Engine
from pipeline.buckets import BASE_MS, ROOM_ZONES, Windows
from pipeline.counters import SPEND, Counts, digit, pack, unpack
from pipeline.roi import delay_curve_ppm, matured_spend, returns, roas
from pipeline.roi.delay import MILLION, Matured
from pipeline.sketches import log_bin
from schemas.settings import CurrencySettings, RoiSettings, Settings
from tests.partition import Partition
from tests.scenario import RATES, scenario
from tests.strategies import START_MS, Record, logs

SETTINGS = RoiSettings()
MEAN_S = SETTINGS.conversion_delay_s


def counts(**named: int) -> Counts:
    return unpack(pack(named))


def spent(pieces: list[tuple[int, int]], now_ms: int) -> Windows:
    """Return windows that hold spend as (seconds ago, minor units)."""
    windows = Windows(ROOM_ZONES)
    for ago_s, cost in pieces:
        start_ms = now_ms - ago_s * 1_000
        windows.put(start_ms - start_ms % BASE_MS, cost, now_ms)
    return windows


@given(st.lists(st.tuples(st.integers(1, 3_590), st.integers(1, 10**6)), min_size=1, max_size=30))
def test_maturity_is_the_spend_weighted_by_how_much_of_its_return_is_due(pieces: list[tuple[int, int]]) -> None:
    now_ms = START_MS
    matured = matured_spend(spent(pieces, now_ms), now_ms, MEAN_S)
    assert len(matured) == len(ROOM_ZONES)
    for (reach_ms, bucket_ms), told in zip(ROOM_ZONES, matured, strict=True):
        inside = [(ago_s, cost) for ago_s, cost in pieces if ago_s * 1_000 <= reach_ms]
        edge = [p for p in pieces if reach_ms < p[0] * 1_000 < reach_ms + bucket_ms]
        if edge:
            continue  # what lies on the rounded edge may be in or out
        total = sum(cost for _, cost in inside)
        assert told.spend_minor == total
        if not inside:
            assert (told.due_ppm, told.maturity) == (0, None)
            continue
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
    now_ms = START_MS + 3 * 3_600_000
    windows = Windows(ROOM_ZONES)
    windows.put(START_MS, 500, START_MS + 1_000)
    windows.put(now_ms - 10_000, 40, now_ms)
    windows.expire(now_ms)
    hour = matured_spend(windows, now_ms, MEAN_S)[-1]
    assert hour.spend_minor == 40
    assert hour.with_rest(540) == Matured(540, hour.due_ppm + 500 * MILLION)
    assert Matured(0, 0).with_rest(500) == Matured(500, 500 * MILLION)


@given(st.integers(-(10**9), 10**9), st.integers(0, MILLION), st.integers(-(10**9), 10**9))
def test_maturity_is_a_share_whatever_was_corrected(spend: int, ppm: int, total: int) -> None:
    """Adjustments take spend away, sometimes more than the window holds."""
    for matured in (Matured(spend, spend * ppm), Matured(spend, spend * ppm).with_rest(total)):
        assert matured.maturity is None or 0 <= matured.maturity <= 1
        assert (matured.maturity is None) == (matured.spend_minor <= 0)


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
    told = returns(counts(gmv_minor=9, spend_minor=spend), {}, Matured(spend, 0), SETTINGS)
    assert set(told) == {None}


def sales(n_orders: int, amount: int, spend: int, **more: int) -> tuple[Counts, dict[int, int]]:
    """Return the counters of equal attributed orders, and their amounts by bin."""
    gmv = n_orders * amount
    sold = {"gmv_minor": gmv, "gmv_attributed": gmv, "gmv_valid": gmv, "n_paid_attributed": n_orders}
    return counts(spend_minor=spend, **sold, **more), {log_bin(amount): n_orders}


@pytest.mark.parametrize(("n_orders", "has_band"), [(1, False), (4, False), (5, True), (50, True)])
def test_a_band_needs_five_orders(n_orders: int, *, has_band: bool) -> None:
    told = returns(*sales(n_orders, 10_000, 10_000), Matured(10_000, 10_000 * 800_000), SETTINGS)
    assert told.mature == n_orders / 0.8
    assert ((told.low, told.high) != (None, None)) == has_band
    if told.low is not None and told.high is not None:
        assert told.low < told.mature < told.high
        # Equal orders: the relative error of a Poisson count.
        assert math.log(told.high / told.mature) == pytest.approx(1.6449 / math.sqrt(n_orders), rel=1e-3)


@pytest.mark.parametrize(("maturity_ppm", "told_at_all"), [(299_999, False), (300_000, True), (1_000_000, True)])
def test_too_young_a_return_is_not_told(maturity_ppm: int, *, told_at_all: bool) -> None:
    told = returns(*sales(9, 10_000, 10_000), Matured(10_000, 10_000 * maturity_ppm), SETTINGS)
    assert (told.mature is not None) == told_at_all
    assert told.valid == 9.0
    assert told.maturity == maturity_ppm / 1_000_000


def test_a_return_below_zero_has_no_band() -> None:
    told = returns(*sales(9, 10_000, 10_000, refund_valid=200_000), Matured(10_000, 10**10), SETTINGS)
    assert told.mature == -11.0
    assert (told.low, told.high) == (None, None)


def test_the_four_readings_take_out_more_and_more() -> None:
    made = counts(
        spend_minor=100,
        gmv_minor=1_000,
        refund_minor=100,
        gmv_attributed=700,
        refund_attributed=70,
        gmv_valid=500,
        refund_valid=50,
    )
    told = returns(made, {}, Matured(100, 100 * 900_000), SETTINGS)
    assert (told.whole, told.attributed, told.valid, told.mature) == (9.0, 6.3, 4.5, 5.0)


def test_the_band_holds_the_truth_in_most_of_many_seeded_sessions() -> None:
    random, held = Random(5), 0
    n_sessions, spend, mean_orders, mean_amount = 400, 1_000_000, 30, 20_000
    for _ in range(n_sessions):
        # Poisson by exponential gaps; amounts log-normal with the mean wanted.
        left, n_orders = random.expovariate(1.0), 0
        while left < mean_orders:
            n_orders, left = n_orders + 1, left + random.expovariate(1.0)
        amounts = [round(random.lognormvariate(math.log(mean_amount) - 0.125, 0.5)) for _ in range(n_orders)]
        made = counts(spend_minor=spend, gmv_valid=sum(amounts), n_paid_attributed=n_orders)
        bins = Counter(log_bin(amount) for amount in amounts)
        told = returns(made, bins, Matured(spend, spend * 1_000_000), SETTINGS)
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


def spends_agree(engine: Engine) -> None:
    """Compare the spend that matures with the spend that is told, zone by zone."""
    for room in engine._rooms.values():
        told = [digit(zone.total, SPEND) for zone in room.windows.zones]
        assert [zone.total for zone in room.spent.zones] == told


@given(logs(max_records=40, max_rooms=2, kinds=("spend", "spend", "comment", "room", "view", "order")))
def test_the_spend_that_matures_is_the_spend_that_is_told(log: list[Record]) -> None:
    engine = Engine(Settings(trust_log=True, currency=CurrencySettings(rates=RATES)))
    for record in log:
        engine.process([record])
        spends_agree(engine)


def test_the_spend_that_matures_is_the_spend_that_is_told_in_a_long_log() -> None:
    engine = Engine(Settings(trust_log=True, currency=CurrencySettings(rates=RATES)))
    n_spent = 0
    for line in scenario(2, 1_500):
        engine.process([(line.offset, line.timestamp, line.value)])
        spends_agree(engine)
        n_spent += any(zone.total for room in engine._rooms.values() for zone in room.spent.zones)
    assert n_spent > 500


@pytest.mark.parametrize("impressions", [0, 10, -10])
@pytest.mark.parametrize("cost_minor", [1, -1, 2, -2])
def test_the_least_spend_matures_whatever_is_counted_beside_it(cost_minor: int, impressions: int) -> None:
    """A correction downwards, a lukewarm comment: other counters may be negative in the same half second."""
    log = Partition()
    spend: Any = {"plan_id": "p", "clicks": 0, "currency": "CNY", "reporting": "adjust"}
    log.at(0, "spend", impressions=impressions, cost_minor=cost_minor, **spend).at(0, "room", action="update")
    log.ticks(0, 10)
    spends_agree(log.engine)
    room = log.engine._rooms["room-1"]
    assert room.spent.totals() == [cost_minor] * 4
    matured = matured_spend(room.spent, START_MS + 600_000, MEAN_S)[0]
    assert matured.spend_minor == cost_minor
    assert Fraction(matured.due_ppm, MILLION * cost_minor) == pytest.approx(1 - math.exp(-600 / MEAN_S), abs=0.01)


def test_a_room_without_spend_has_no_return() -> None:
    log = Partition()
    sale(log, 1, "o", attribution="direct")
    assert [name for name in log.session() if name.startswith("roas")] == []
