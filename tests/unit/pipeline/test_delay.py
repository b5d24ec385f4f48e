"""The delay curve against what a batch computes from the raw delays, and against the law that drew them."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.orders import Ledger, Order
from pipeline.roi import ROOM, ReturnState, curve_of, refresh
from pipeline.roi import delay as module
from pipeline.roi.delay import EDGES_S, HORIZON_S, MILLION, N_BINS, Curve, Delays, learn, learn_within, prior_curve
from pipeline.roi.learn import MIN_CHANNEL_ORDERS, MOST_ORDERS, dispersion_ppm, mean_delay_s
from schemas.settings import RoiSettings
from tests.strategies import START_MS

SETTINGS = RoiSettings()
Sample = list[tuple[int, int]]
"""Orders as (delay, age of the touch), in ms."""

samples = st.lists(
    st.tuples(st.integers(0, 30_000_000), st.integers(0, 30_000_000)).map(lambda pair: (min(pair), max(pair))),
    max_size=60,
)


def seen(sample: Sample) -> Delays:
    delays = Delays()
    for delay_ms, age_ms in sample:
        delays.add(delay_ms, age_ms)
    return delays


def bin_of(delay_ms: int) -> int:
    """Return the bin by its definition: above the lower edge, up to the upper one; nothing is below the first."""
    return next((place for place in range(1, N_BINS + 1) if delay_ms <= EDGES_S[place] * 1_000), N_BINS + 1)


def truncated(random: Random, n: int, mean_s: float, watched_s: float) -> Sample:
    """Draw touches over the time watched and exponential delays; only what is paid by the end is seen."""
    found: Sample = []
    while len(found) < n:
        age_s, delay_s = random.uniform(0, watched_s), random.expovariate(1 / mean_s)
        if delay_s < age_s:
            found.append((int(delay_s * 1_000), int(age_s * 1_000)))
    return found


@given(samples)
def test_an_order_is_at_risk_in_every_bin_between_its_own_and_its_age(sample: Sample) -> None:
    """The two counts that are kept say what all pairs would."""
    told = seen(sample).at_risk()
    ages = [(bin_of(delay_ms), bisect_right(EDGES_S, age_ms / 1_000) - 1) for delay_ms, age_ms in sample]
    for place in range(1, N_BINS + 1):
        assert told[place] == sum(bin_ <= place <= age for bin_, age in ages)


def batch(sample: Sample) -> list[float]:
    """Return F at the edges by maximum likelihood of the truncated sample, found by self-consistency (Turnbull 1976).

    Each order seen stands for 1 / F(age) orders of its age, of which the unseen ones lie in later bins.
    """
    orders = [(bin_of(d), bisect_right(EDGES_S, a / 1_000) - 1) for d, a in sample]
    orders = [(bin_, min(age, N_BINS)) for bin_, age in orders if bin_ <= age]
    mass = [0.0] + [1.0 / N_BINS] * N_BINS
    for _ in range(20_000):
        known = [sum(mass[: place + 1]) for place in range(N_BINS + 1)]
        expected = [0.0] * (N_BINS + 1)
        for bin_, age in orders:
            expected[bin_] += 1.0
            for place in range(age + 1, N_BINS + 1):
                expected[place] += mass[place] / known[age]
        whole = sum(expected)
        fresh = [each / whole for each in expected]
        if max(abs(a - b) for a, b in zip(fresh, mass, strict=True)) < 1e-12:
            break
        mass = fresh
    return [sum(mass[: place + 1]) for place in range(N_BINS + 1)]


@pytest.mark.parametrize("seed", range(6))
def test_without_a_prior_the_curve_is_the_batch_maximum_likelihood_of_the_truncated_sample(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(seed)
    sample = truncated(random, 150, random.choice([40.0, 200.0]), HORIZON_S * 1.4)
    monkeypatch.setattr(module, "BIN_WEIGHT", 1e-9)
    curve, expected = learn(seen(sample), 300), batch(sample)
    for place in range(1, N_BINS):
        assert curve.share_ppm[place] / MILLION == pytest.approx(expected[place], abs=2e-4)


def test_orders_not_yet_due_do_not_make_the_curve_too_fast() -> None:
    """Twenty minutes into a show whose orders take ten: the mean of the delays seen is half of the true one."""
    errors, naive = [], []
    for seed in range(40):
        sample = truncated(Random(seed), 400, 600.0, 1_200.0)
        curve = learn(seen(sample), 300)
        # Within what was watched the shape is the sample's own: F(10 min) / F(20 min).
        told = curve.at(600_000)[0] / curve.at(1_200_000)[0]
        true = (1 - math.exp(-1)) / (1 - math.exp(-2))
        errors.append(told - true)
        naive.append(sum(delay_ms <= 600_000 for delay_ms, _ in sample) / len(sample) - true)
    assert abs(sum(errors) / len(errors)) < 0.03
    assert sum(naive) / len(naive) > 0.08


@given(samples, st.sampled_from([1, 30, 300, 3_600, 86_400]))
def test_a_curve_is_whole_millionths_never_falls_and_ends_at_one(sample: Sample, mean_s: int) -> None:
    curve = learn(seen(sample), mean_s)
    channel = learn_within(seen(sample[::2]), curve)
    for found in (curve, channel):
        assert found.share_ppm[0] == 0
        assert found.share_ppm[-1] == MILLION
        assert all(a <= b for a, b in pairwise(found.share_ppm))
        assert all(type(n) is int and n >= 0 for n in (*found.share_ppm, *found.error_ppm))
        assert found.error_ppm[0] == found.error_ppm[-1] == 0
    assert learn(seen(list(reversed(sample))), mean_s) == curve


@given(st.integers(-(10**6), 3 * 10**7), st.integers(0, 10**6))
def test_the_share_due_grows_with_age(age_ms: int, more_ms: int) -> None:
    curve = prior_curve(300)
    assert 0 <= curve.at(age_ms)[0] <= curve.at(age_ms + more_ms)[0] <= MILLION


def test_the_prior_lies_around_the_configured_mean_and_says_how_little_it_knows() -> None:
    for mean_s in (60, 300, 1_200):
        curve = prior_curve(mean_s)
        for age_s in (mean_s // 2, mean_s, 2 * mean_s):
            share, error = curve.at(age_s * 1_000)
            quick, slow = (1 - math.exp(-age_s / (mean_s * factor)) for factor in (0.25, 2.0))
            assert slow < share / MILLION < quick
            assert error > 100_000


def test_the_error_of_the_curve_falls_as_orders_come_in() -> None:
    sample = truncated(Random(3), 2_000, 300.0, 7_200.0)
    errors = [learn(seen(sample[:n]), 300).at(300_000)[1] for n in (0, 20, 200, 2_000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 4 * errors[-1]


def test_the_error_of_the_curve_is_as_large_as_its_misses() -> None:
    misses = []
    for seed in range(120):
        curve = learn(seen(truncated(Random(seed), 80, 300.0, 3_600.0)), 300)
        share, error = curve.at(300_000)
        misses.append((share - MILLION * (1 - math.exp(-1))) / error)
    spread = math.sqrt(sum(each * each for each in misses) / len(misses))
    assert 0.5 < spread < 1.4


# -- what the ledger teaches ------------------------------------------------------------------------------------


def ledger_of(sample: Sample, now_ms: int, channel: str = "feed_ads") -> Ledger:
    ledger = Ledger()
    for number, (delay_ms, age_ms) in enumerate(sample):
        touch_ts = now_ms - age_ms
        ledger.orders[number.to_bytes(16)] = Order(
            0, paid_ts=touch_ts + delay_ms, paid_minor=5_000, channel=channel, is_attributed=True, touch_ts=touch_ts
        )
    return ledger


def learned(ledger: Ledger, now_ms: int = START_MS, **settings: object) -> ReturnState:
    state = ReturnState(n_news=len(ledger.orders))
    assert refresh(state, ledger, RoiSettings.model_validate(settings), "acquisition", now_ms)
    return state


def test_a_channel_has_a_curve_of_its_own_once_it_has_enough_orders_with_a_touch() -> None:
    quick, slow = truncated(Random(1), 100, 20.0, 7_200.0), truncated(Random(2), 100, 900.0, 7_200.0)
    ledger = ledger_of(quick, START_MS, "feed_ads")
    few = slow[: MIN_CHANNEL_ORDERS - 1]
    for number, order in ledger_of(few, START_MS, "search_ads").orders.items():
        ledger.orders[b"s" + number] = order
    state = learned(ledger)
    assert sorted(state.curves) == [ROOM, "feed_ads"]
    for number, order in ledger_of(slow, START_MS, "search_ads").orders.items():
        ledger.orders[b"s" + number] = order
    state = learned(ledger)
    shares = [
        curve_of(state, SETTINGS, "acquisition", name).at(120_000)[0] for name in ("feed_ads", ROOM, "search_ads")
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.8 * MILLION
    assert shares[2] < 0.35 * MILLION


def test_a_kind_of_room_has_the_prior_that_the_settings_give_it() -> None:
    settings = RoiSettings(conversion_delays_s={"promotion": 60, "*/search_ads": 900, "promotion/search_ads": 30})
    told = {
        (stage, channel): mean_delay_s(settings, stage, channel)
        for stage in ("promotion", "retention")
        for channel in (None, "feed_ads", "search_ads")
    }
    assert told == {
        ("promotion", None): 60,
        ("promotion", "feed_ads"): 60,
        ("promotion", "search_ads"): 30,
        ("retention", None): 300,
        ("retention", "feed_ads"): 300,
        ("retention", "search_ads"): 900,
    }
    state = ReturnState()
    assert curve_of(state, settings, "retention", "search_ads") == prior_curve(900)
    assert curve_of(state, settings, "retention", "feed_ads") == prior_curve(300)


def test_curves_are_learned_again_when_the_orders_have_grown_by_a_fifth() -> None:
    ledger = ledger_of(truncated(Random(4), 100, 60.0, 3_600.0), START_MS)
    state = ReturnState()
    times = 0
    for place in range(100):
        state.n_news += 1
        times += refresh(state, ledger, SETTINGS, "acquisition", START_MS + 30_000 * place)
    assert times == 5  # after the first five, then every twenty
    state.n_news = 50
    assert not refresh(state, ledger, SETTINGS, "acquisition", state.learned_ms + 29_999)
    assert refresh(state, ledger, SETTINGS, "acquisition", state.learned_ms + 30_000)


def test_of_a_large_ledger_a_part_is_read_that_says_the_same() -> None:
    sample = truncated(Random(5), 3 * MOST_ORDERS, 200.0, 40_000.0)
    whole, part = learn(seen(sample), 300), learned(ledger_of(sample, START_MS)).curves[ROOM]
    assert part != whole
    for age_s in (60, 200, 600):
        assert part.at(age_s * 1_000)[0] == pytest.approx(whole.at(age_s * 1_000)[0], abs=0.03 * MILLION)


def test_what_is_not_paid_not_attributed_not_valid_or_without_a_touch_teaches_no_delay() -> None:
    made = truncated(Random(6), 30, 60.0, 3_600.0)
    ledger = ledger_of(made, START_MS)
    for field, value in (("paid_ts", -1), ("is_attributed", False), ("is_valid", False), ("touch_ts", -1)):
        for number, order in ledger_of(made, START_MS).orders.items():
            setattr(order, field, value)
            ledger.orders[field.encode() + number] = order
    assert learned(ledger).curves[ROOM] == learn(seen(made), 300)


def test_orders_in_bursts_scatter_more_than_orders_one_by_one() -> None:
    def dispersion(orders_of: list[int]) -> int:
        state = ReturnState()
        for block, n_orders in enumerate(orders_of):
            at_ms = START_MS - 3_600_000 + 300_000 * block
            state.spend(at_ms, "feed_ads", 10_000, START_MS, is_past=False)
            for _ in range(n_orders):
                sold = (1_000, 1_000)
                state.order(at_ms, "feed_ads", (0, 0), sold, START_MS, is_past=False, has_touch=True)
        return dispersion_ppm(state, Curve([0, *[MILLION] * N_BINS], [0] * (N_BINS + 1)), START_MS)

    assert dispersion([10] * 10) == MILLION
    assert dispersion([2, 18] * 5) > 3 * MILLION
