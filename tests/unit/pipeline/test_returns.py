"""Return and its corrections against sums made by hand."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Engine
from pipeline.buckets import BASE_MS, Windows
from pipeline.counters import CLICKS, GMV_VALID, NAMES, PLACE, REFUND_VALID, SPEND, Counts, pack, unpack
from pipeline.roi import Learned, returns, roas
from pipeline.roi.cohorts import LOOSE, NET, ORDERS, RISK, ROOM_COHORTS, SQUARES, Cohort, Due, due
from pipeline.roi.cohorts import unpack as cohort_of
from pipeline.roi.delay import HORIZON_S, MILLION, prior_curve
from pipeline.roi.refunds import RefundCurve
from pipeline.roi.returns import Z_90, matured
from pipeline.roi.shift import shift
from pipeline.room import RoomState
from schemas.settings import CurrencySettings, RoiSettings, Settings
from tests.partition import Partition
from tests.scenario import RATES, scenario
from tests.strategies import START_MS, Record, logs

SETTINGS = RoiSettings()
CURVE = prior_curve(SETTINGS.conversion_delay_s)
NO_REFUNDS = RefundCurve()
LEARNED = Learned()


def counts(**named: int) -> Counts:
    return unpack(pack(named))


def spent(pieces: list[tuple[int, int]], now_ms: int) -> Windows:
    """Return cohorts that hold spend as (seconds ago, minor units)."""
    windows = Windows(ROOM_COHORTS)
    for ago_s, cost in pieces:
        start_ms = now_ms - ago_s * 1_000
        windows.put(start_ms - start_ms % BASE_MS, cost, now_ms)
        windows.session += cost
    return windows


def aged(maturity_ppm: int, cohort: Cohort, *, error_ppm: int = 0, refunds_ppm: int = 0) -> Due:
    """Return a window of cohorts of one age."""
    whole = cohort.spend * maturity_ppm
    error = cohort.spend * error_ppm
    return Due(cohort, whole, error, whole, error, refunds_ppm)


def equal_orders(n_orders: int, amount: int, spend: int) -> Cohort:
    net = n_orders * amount
    return Cohort(spend, net, 0, net, n_orders, n_orders * amount**2)


def sold(n_orders: int, amount: int, spend: int) -> Counts:
    gmv = n_orders * amount
    return counts(spend_minor=spend, gmv_minor=gmv, gmv_attributed=gmv, gmv_valid=gmv, n_paid_attributed=n_orders)


# -- cohorts ----------------------------------------------------------------------------------------------------

PARTS = st.tuples(*[st.integers(-(10**12), 10**12)] * 5, st.integers(-(10**24), 10**24))


@given(st.lists(PARTS, min_size=1, max_size=5))
def test_a_sum_of_cohorts_is_the_sum_of_every_part(parts: list[tuple[int, ...]]) -> None:
    packed = sum(
        spend + net * NET + loose * LOOSE + risk * RISK + n * ORDERS + squares * SQUARES
        for spend, net, loose, risk, n, squares in parts
    )
    assert cohort_of(packed) == tuple(map(sum, zip(*parts, strict=True)))


@given(st.lists(st.tuples(st.integers(1, 3_590), st.integers(1, 10**6)), min_size=1, max_size=30))
def test_maturity_is_the_spend_weighted_by_how_much_of_its_return_is_due(pieces: list[tuple[int, int]]) -> None:
    now_ms = START_MS
    told = due(spent(pieces, now_ms), now_ms, CURVE, NO_REFUNDS, -1)
    assert len(told) == len(ROOM_COHORTS) + 1
    for (reach_ms, bucket_ms), window in zip(ROOM_COHORTS, told, strict=False):
        inside = [(ago_s, cost) for ago_s, cost in pieces if ago_s * 1_000 <= reach_ms]
        if any(reach_ms < ago_s * 1_000 < reach_ms + bucket_ms for ago_s, _ in pieces):
            continue  # what lies on the rounded edge may be in or out
        total = sum(cost for _, cost in inside)
        assert window.cohort.spend == total
        if not inside:
            assert (window.due_ppm, window.maturity) == (0, None)
            continue
        # Each piece's age is known to half a bucket of the zone it lies in, at most half a minute in the hour.
        slack_ms = min(bucket_ms, 60_000) + 1_000
        low, high = (
            sum(cost * CURVE.at(max(0, ago_s * 1_000 + slack))[0] for ago_s, cost in inside)
            for slack in (-slack_ms, slack_ms)
        )
        assert low <= window.due_ppm <= high


def test_maturity_grows_with_age_to_one() -> None:
    windows = spent([(1, 100)], START_MS)
    ages = [due(windows, START_MS + s * 1_000, CURVE, NO_REFUNDS, -1)[-1].maturity for s in range(0, HORIZON_S, 300)]
    known = [age for age in ages if age is not None]
    assert len(known) == len(ages)
    assert known == sorted(known)
    assert known[0] < 0.02
    assert known[-1] > 0.999


def test_what_was_spent_before_the_horizon_is_due_and_another_session_s_spend_is_none_of_this_one_s() -> None:
    now_ms = START_MS + 8 * 3_600_000
    windows = spent([(10, 40), (20_000, 60)], now_ms)
    windows.session = 540  # 440 of it is older than any bucket
    whole = due(windows, now_ms, CURVE, NO_REFUNDS, START_MS)[-1]
    young, old = CURVE.at(9_500)[0], CURVE.at(20_000_000)[0]
    assert whole.cohort.spend == 540
    assert whole.due_ppm == pytest.approx(40 * young + 60 * old + 440 * MILLION, abs=500)
    windows.session = 40
    fresh = due(windows, now_ms, CURVE, NO_REFUNDS, now_ms - 3_600_000)[-1]
    assert fresh.due_ppm == pytest.approx(40 * young, abs=500)


@given(st.integers(-(10**9), 10**9), st.integers(0, MILLION))
def test_maturity_is_a_share_whatever_was_corrected(spend: int, ppm: int) -> None:
    """Adjustments take spend away, sometimes more than the window holds."""
    told = aged(ppm, Cohort(spend, 0, 0, 0, 0, 0)).maturity
    assert (told is None) == (spend <= 0)
    assert told is None or 0 <= told <= 1


def test_orders_without_a_touch_are_held_against_the_spend_whose_orders_fall_into_the_window() -> None:
    """Steady spend, steady sales: a window holds what its spend brings, since older spend's orders come in too."""
    now_ms = START_MS
    windows = Windows(ROOM_COHORTS)
    for ago_s in range(10, 7_200, 10):
        start_ms = now_ms - ago_s * 1_000
        windows.put(start_ms, 1_000 + 2_000 * LOOSE + ORDERS, now_ms)
    quarter = due(windows, now_ms, CURVE, NO_REFUNDS, -1)[2]
    assert quarter.maturity is not None
    assert quarter.maturity < 0.75
    assert matured(quarter) == pytest.approx(2.0, rel=0.02)


# -- readings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("net", "spend", "expected"), [(12_500, 5_000, 2.5), (-500, 1_000, -0.5), (0, 10, 0.0)])
def test_return_is_net_value_over_spend(net: int, spend: int, expected: float) -> None:
    assert roas(net, spend) == expected


@pytest.mark.parametrize("spend", [0, -5])
def test_without_spend_there_is_no_return(spend: int) -> None:
    assert roas(1_000, spend) is None
    told = returns(counts(gmv_minor=9, spend_minor=spend), aged(0, Cohort(spend, 9, 0, 9, 1, 81)), LEARNED, SETTINGS)
    assert set(told) == {None}


@pytest.mark.parametrize(("n_orders", "has_band"), [(1, False), (4, False), (5, True), (50, True)])
def test_a_band_needs_five_orders(n_orders: int, *, has_band: bool) -> None:
    cohort = equal_orders(n_orders, 10_000, 10_000)
    told = returns(sold(n_orders, 10_000, 10_000), aged(800_000, cohort), LEARNED, SETTINGS)
    assert told.mature == n_orders / 0.8
    assert ((told.low, told.high) != (None, None)) == has_band
    if told.low is not None and told.high is not None:
        assert told.low < told.mature < told.high
        # Equal orders: the relative error of a Poisson count.
        assert math.log(told.high / told.mature) == pytest.approx(Z_90 / math.sqrt(n_orders), rel=1e-3)


def test_the_band_holds_the_curve_s_own_error_and_the_room_s_dispersion() -> None:
    cohort, many = equal_orders(100, 10_000, 10_000), sold(100, 10_000, 10_000)

    def half_width(error_ppm: int, dispersion_ppm: int) -> float:
        told = returns(many, aged(500_000, cohort, error_ppm=error_ppm), Learned(dispersion_ppm), SETTINGS)
        assert told.high is not None
        assert told.mature is not None
        return math.log(told.high / told.mature) / Z_90

    assert half_width(0, MILLION) == pytest.approx(0.1, rel=1e-3)
    assert half_width(0, 4 * MILLION) == pytest.approx(0.2, rel=1e-3)
    assert half_width(100_000, MILLION) == pytest.approx(math.hypot(0.1, 0.2), rel=1e-3)


def test_a_curve_that_is_too_slow_says_at_most_that_all_was_due_already() -> None:
    cohort = equal_orders(10**6, 10_000, 10**9)  # so many orders that only the curve is uncertain
    told = returns(sold(10**6, 10_000, 10**9), aged(800_000, cohort, error_ppm=400_000), LEARNED, SETTINGS)
    assert told.valid is not None
    assert told.low == pytest.approx(told.valid, rel=0.01)
    assert told.high is not None
    assert told.high > 2 * told.valid


@pytest.mark.parametrize(("maturity_ppm", "told_at_all"), [(299_999, False), (300_000, True), (1_000_000, True)])
def test_too_young_a_return_is_not_told(maturity_ppm: int, *, told_at_all: bool) -> None:
    told = returns(sold(9, 10_000, 10_000), aged(maturity_ppm, equal_orders(9, 10_000, 10_000)), LEARNED, SETTINGS)
    assert (told.mature is not None) == told_at_all
    assert (told.low is not None) == told_at_all
    assert told.valid == 9.0
    assert told.maturity == maturity_ppm / 1_000_000


def test_a_return_below_zero_has_no_band() -> None:
    cohort = Cohort(10_000, -110_000, 0, 0, 9, 9 * 10_000**2)
    told = returns(counts(spend_minor=10_000), aged(MILLION, cohort), LEARNED, SETTINGS)
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
    told = returns(made, aged(900_000, Cohort(100, 450, 0, 450, 1, 450**2)), LEARNED, SETTINGS)
    assert (told.whole, told.attributed, told.valid, told.mature) == (9.0, 6.3, 4.5, 5.0)


def test_what_is_expected_back_is_taken_off_and_widens_the_band() -> None:
    cohort, many = equal_orders(100, 10_000, 10_000), sold(100, 10_000, 10_000)
    sure = returns(many, aged(MILLION, cohort), LEARNED, SETTINGS)
    doubtful = returns(many, aged(MILLION, cohort, refunds_ppm=250_000 * 10**6), LEARNED, SETTINGS)
    assert (sure.mature, doubtful.mature) == (100.0, 75.0)
    assert sure.high is not None
    assert doubtful.high is not None
    assert doubtful.high / 75.0 > sure.high / 100.0


# -- which of the two moved -------------------------------------------------------------------------------------


def orders_and_clicks(organic: int, paid: int, clicks: int) -> Counts:
    return counts(n_orders_paid=organic + paid, n_paid_attributed=paid, clicks=clicks)


@pytest.mark.parametrize(
    ("near", "far", "expected"),
    [
        ((10, 10, 100), (40, 40, 400), None),
        ((35, 10, 100), (65, 40, 400), "organic_surge"),
        ((10, 5, 400), (40, 65, 1_000), "paid_decline"),
        ((40, 5, 400), (70, 65, 1_000), "masked_decline"),
        ((10, 0, 0), (40, 40, 400), None),  # nothing was bought: no decline
        ((5, 0, 4), (8, 3, 16), None),  # too few orders of a kind
    ],
)
def test_an_organic_surge_is_told_from_a_paid_decline(
    near: tuple[int, int, int], far: tuple[int, int, int], expected: str | None
) -> None:
    assert shift(orders_and_clicks(*near), orders_and_clicks(*far), 3_600) == expected
    assert shift(orders_and_clicks(*near), orders_and_clicks(*far), 1_799) is None


# -- in a room --------------------------------------------------------------------------------------------------


def sale(log: Partition, second: float, order_id: str, **fields: Any) -> None:
    order = {"order_id": order_id, "status": "paid", "amount_minor": 10_000, "currency": "CNY", **fields}
    log.at(second, "order", **order)


def spend(log: Partition, second: float, cost_minor: int, *, clicks: int = 50) -> None:
    log.at(second, "spend", plan_id="p", impressions=1_000, clicks=clicks, cost_minor=cost_minor, currency="CNY")


def test_only_attributed_orders_count_for_paid_return() -> None:
    log = Partition()
    spend(log, 0, 20_000)
    for place, attribution in enumerate(("direct", "indirect", "organic", "unknown", None)):
        sale(log, 1 + place, f"o{place}", **({"attribution": attribution} if attribution else {}))
    told = log.session()
    assert (told["roas"], told["roas_attributed"], told["roas_valid"]) == (2.5, 1.0, 1.0)
    assert told["cvr"] == 0.04


def test_a_refund_is_taken_from_the_reading_its_order_is_in() -> None:
    log = Partition()
    spend(log, 0, 10_000)
    sale(log, 1, "paid", attribution="direct")
    sale(log, 2, "organic", attribution="organic")
    sale(log, 3, "paid", status="refunded", amount_minor=4_000)
    sale(log, 4, "organic", status="refunded", amount_minor=1_000)
    told = log.session()
    assert (told["roas"], told["roas_attributed"], told["roas_valid"]) == (1.5, 0.6, 0.6)


def test_an_order_counts_where_the_money_that_brought_it_was_spent() -> None:
    """What was spent an hour ago sells now: that says nothing about what is spent now."""
    log = Partition()
    log.at(0, "room", action="start")
    for place in range(10):
        spend(log, 1 + place, 1_000)
        log.ticks(1 + place, 1.5 + place)
    for minute in range(1, 121):
        log.tick(30.0 * minute)
    for place in range(6):
        spend(log, 3_601 + place, 1_000)
        late = START_MS + 2_000 + place
        sale(log, 3_602 + place, f"o{place}", attribution="direct", touch_ts=late)
    for step in range(1, 91):
        log.tick(3_610.0 + 10 * step)
    told = log.signals()[-1]["windows"]
    assert told["900"]["roas_valid"] == 10.0
    assert told["900"]["roas_mature"] == 0.0
    assert told["session"]["roas_mature"] > 3.0


@pytest.mark.parametrize(
    ("field", "below", "enough"),
    [("ctr", {"impressions": 199}, {"impressions": 200}), ("cvr", {"clicks": 29}, {"clicks": 30})],
)
def test_a_rate_without_its_least_sample_is_left_out(field: str, below: dict[str, int], enough: dict[str, int]) -> None:
    for sample, is_told in ((below, False), (enough, True)):
        log = Partition()
        fields: dict[str, Any] = {"impressions": 1_000, "clicks": 50, "cost_minor": 10, "currency": "CNY"}
        log.at(0, "spend", plan_id="p", **{**fields, **sample})
        assert (field in log.session()) == is_told


@pytest.mark.parametrize("n_orders", [9, 10])
def test_the_share_of_orders_paid_needs_ten_orders(n_orders: int) -> None:
    log = Partition()
    for place in range(n_orders):
        sale(log, 1 + place / 10, f"o{place}", status="created")
    sale(log, 3, "o0")
    assert log.session().get("pay_ratio") == (0.1 if n_orders == 10 else None)


def test_contribution_takes_an_order_s_own_costs_before_the_configured_margin() -> None:
    log = Partition(roi=RoiSettings(margin_ratio=0.5))
    spend(log, 0, 1_000)
    sale(log, 1, "named", goods_cost_minor=4_500, commission_minor=1_500)
    sale(log, 2, "unnamed")
    assert log.session()["contribution_minor"] == 10_000 - 6_000 + 5_000 - 1_000


def test_contribution_is_left_out_where_neither_order_nor_settings_know_the_costs() -> None:
    log = Partition()
    spend(log, 0, 1_000)
    sale(log, 1, "named", goods_cost_minor=4_500)
    assert log.session()["contribution_minor"] == 10_000 - 4_500 - 1_000
    sale(log, 2, "unnamed")
    log.ticks(2, 12)
    assert "contribution_minor" not in log.session()


@given(
    cost=st.integers(0, 20_000),
    refunds=st.lists(st.integers(1, 6_000), max_size=5),
    cancelled=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_what_is_all_refunded_costs_nothing_whatever_comes_first(
    cost: int, refunds: list[int], *, cancelled: bool, random: Random
) -> None:
    events: list[dict[str, Any]] = [{"status": "paid", "goods_cost_minor": cost, "ts": START_MS}]
    events += [
        {"status": "refunded", "amount_minor": amount, "ts": START_MS + 1 + n} for n, amount in enumerate(refunds)
    ]
    events += [{"status": "cancelled", "ts": START_MS + 50}] if cancelled else []
    random.shuffle(events)
    log = Partition()
    spend(log, 0, 100)
    for event in events:
        sale(log, 1, "o", **event)
    log.ticks(1, 10)
    kept = 0 if cancelled else 10_000 - min(10_000, sum(refunds))
    told = log.session()
    if kept:
        back = cost * (10_000 - kept) // 10_000
        assert told["contribution_minor"] == kept - (cost - back) - 100
    else:
        assert told["contribution_minor"] == -100


def test_a_customer_s_weight_moves_the_return_that_bids_rest_on_and_no_money() -> None:
    def told(**settings: float) -> dict[str, Any]:
        log = Partition(roi=RoiSettings(conversion_delay_s=1, **settings))
        log.at(0, "room", action="start")
        spend(log, 1, 10_000)
        for place in range(4):
            sale(
                log, 2 + place, f"o{place}", attribution="direct", touch_ts=START_MS + 1_000, is_new_customer=place < 2
            )
        for second in range(10, 120, 5):
            log.tick(second)
        return log.session()

    plain, weighted = told(), told(new_customer_weight=2.0, returning_customer_weight=0.5)
    assert plain["roas_mature"] == pytest.approx(4.0, rel=0.02)
    assert weighted["roas_mature"] == pytest.approx(5.0, rel=0.02)
    assert {name: weighted[name] for name in ("gmv_minor", "roas", "roas_valid")} == {
        name: plain[name] for name in ("gmv_minor", "roas", "roas_valid")
    }


# -- money adds up ----------------------------------------------------------------------------------------------


def booked(room: RoomState) -> Counts:
    """Return the session's counters with what still waits for its evaluation."""
    waiting = sum(sum(pending.own.values()) for pending in room.pending.values())
    return unpack(room.windows.session + waiting)


def cohorts_agree(engine: Engine) -> None:
    """Compare what the cohorts hold with what is told, in all and by channel."""
    for room in engine._rooms.values():
        told, state = booked(room), room.returns
        held = cohort_of(state.room.session)
        assert held.spend == told[SPEND]
        assert held.net + held.loose == told[GMV_VALID] - told[REFUND_VALID]
        assert held.n_orders >= 0
        assert held.squares >= 0
        assert state.room.session == sum(windows.session for windows in state.channels.values())
        for zone in (*state.room.zones, *(zone for own in state.channels.values() for zone in own.zones)):
            assert zone.total == sum(zone.values)
        assert sum(zone.total for zone in state.room.zones) == sum(
            zone.total for own in state.channels.values() for zone in own.zones
        ) or any(len(own.zones[-1].starts) for own in state.channels.values())


@given(logs(max_records=40, max_rooms=2, kinds=("spend", "order", "order", "comment", "room", "view", "order")))
def test_the_cohorts_hold_to_the_last_minor_unit_what_is_told(log: list[Record]) -> None:
    engine = Engine(Settings(trust_log=True, currency=CurrencySettings(rates=RATES)))
    for record in log:
        engine.process([record])
        cohorts_agree(engine)


def test_the_cohorts_hold_what_is_told_in_a_long_log_with_everything_in_it() -> None:
    engine = Engine(Settings(trust_log=True, currency=CurrencySettings(rates=RATES)))
    n_sold = 0
    for line in scenario(2, 1_500):
        engine.process([(line.offset, line.timestamp, line.value)])
        cohorts_agree(engine)
        n_sold += any(cohort_of(room.returns.room.session).n_orders for room in engine._rooms.values())
    assert n_sold > 300


def test_the_order_of_arrival_within_a_tick_changes_no_return() -> None:
    def log(random: Random | None) -> Partition:
        written = Partition()
        written.at(0, "room", action="start")
        for block in range(120):
            second = 1 + 5 * block
            events: list[tuple[str, dict[str, Any]]] = [
                ("spend", {"plan_id": "p", "impressions": 90, "clicks": 9, "cost_minor": 700, "currency": "CNY"})
            ]
            for place in range(3):
                fields = {"order_id": f"o{block}-{place}", "amount_minor": 900 + 70 * place, "currency": "CNY"}
                touch_ts = START_MS + 1_000 * max(0, second - 40 * place)
                sold_ = {**fields, "attribution": "direct", "touch_ts": touch_ts, "product_id": f"p{place}"}
                events.append(("order", {**sold_, "status": "paid"}))
                if (block + place) % 4 == 0:
                    events.append(("order", {**fields, "status": "refunded"}))
            if random is not None:
                random.shuffle(events)
            for kind, event in events:
                written.at(second, kind, **event)
            written.ticks(second, second + 4.5)
        return written

    told = [[signal["windows"] for signal in log(random).signals()] for random in (None, Random(1), Random(2))]
    assert any("roas_low" in windows["session"] for windows in told[0])
    assert told[0] == told[1] == told[2]


def test_a_room_without_spend_has_no_return() -> None:
    log = Partition()
    sale(log, 1, "o", attribution="direct")
    assert [name for name in log.session() if name.startswith("roas")] == []


def test_counters_are_only_ever_appended() -> None:
    """Snapshots hold packed counters by place."""
    assert NAMES[-3:] == ("gmv_costed", "refund_costed", "cost_minor")
    assert PLACE["clicks"] == CLICKS
