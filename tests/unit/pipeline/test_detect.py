"""Deviation from a room's own past: golden indices over seeded series, and what must never alarm."""

from __future__ import annotations

from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.counters import NAMES, Counts, pack, unpack
from pipeline.detect import WATCHED, Judgement, RobustDeviation, Sample, Watched
from pipeline.detect.robust import MAD_TO_SIGMA
from schemas.settings import DetectSettings, Policy
from tests.strategies import START_MS

SETTINGS = DetectSettings()
STEP_MS = SETTINGS.sample_interval_ms
BY_NAME = {watched.metric: watched for watched in WATCHED}
NEGATIVE, CPC = BY_NAME["negative_ratio"], BY_NAME["cpc_minor"]


def judge(
    values: list[float], watched: Watched = NEGATIVE, *, n: int = 100, step_ms: int = STEP_MS
) -> list[Judgement | None]:
    """Return the judgement of each value of a series, one a sample interval."""
    detector = RobustDeviation()
    return [
        detector.update(Sample(value, n), START_MS + place * step_ms, watched, SETTINGS)
        for place, value in enumerate(values)
    ]


def strange(values: list[float], watched: Watched = NEGATIVE, *, n: int = 100) -> list[int]:
    """Return the places of a series at which the value is strange."""
    judgements = judge(values, watched, n=n)
    return [place for place, told in enumerate(judgements) if told is not None and abs(told.z) >= SETTINGS.open_z]


def series(seed: int, n: int = 120) -> list[float]:
    random = Random(seed)
    return [min(1.0, max(0.0, random.gauss(0.15, 0.03))) for _ in range(n)]


def test_a_seeded_series_with_two_bursts_is_strange_exactly_there() -> None:
    values = series(7)
    for place in (60, 61, 62, 63, 100):
        values[place] += 0.5
    assert strange(values) == [60, 61, 62, 63, 100]


@pytest.mark.parametrize("seed", range(20))
def test_a_calm_series_is_never_strange(seed: int) -> None:
    assert strange(series(seed)) == []


@pytest.mark.parametrize("watched", WATCHED, ids=lambda watched: watched.metric)
def test_a_constant_series_expects_itself(watched: Watched) -> None:
    told = judge([0.2] * 60, watched, n=5_000)
    assert all(one is None or (one.observed, one.expected, one.z, one.tail) == (0.2, 0.2, 0.0, 0.5) for one in told)
    assert sum(one is not None for one in told) >= 30


def test_after_a_constant_past_only_what_matters_is_strange() -> None:
    """No spread does not make the first small change a catastrophe."""
    assert strange([0.0] * 60 + [0.05]) == []
    assert strange([0.0] * 60 + [0.35]) == [60]
    # A level of 100 with no spread at all: 5 % up is nothing, double is.
    assert strange([100.0] * 60 + [105.0], CPC) == []
    assert strange([100.0] * 60 + [200.0], CPC) == [60]


def test_few_events_say_nothing_however_strange() -> None:
    values = [0.1] * 60 + [1.0] * 5
    assert judge(values, n=NEGATIVE.min_n - 1) == [None] * 65
    assert strange(values, n=NEGATIVE.min_n)[:3] == [60, 61, 62]


def test_few_events_do_not_join_the_past() -> None:
    detector = RobustDeviation()
    for place in range(60):
        detector.update(Sample(0.5, NEGATIVE.min_past_n - 1), START_MS + place * STEP_MS, NEGATIVE, SETTINGS)
    assert (detector.past, detector.waiting) == ([], [])


def test_counting_noise_is_no_news() -> None:
    """The same share of few events scatters more, so it must be further off to be strange."""
    values = [0.2] * 60 + [0.55]
    assert strange(values, n=20) == []
    assert strange(values, n=2_000) == [60]


def test_the_first_judgement_comes_after_the_least_number_of_samples_and_the_lag() -> None:
    told = judge([0.1] * 60)
    first = next(place for place, one in enumerate(told) if one is not None)
    assert first == SETTINGS.min_samples - 1 + SETTINGS.lag_ms // STEP_MS


def test_a_slow_look_and_a_quick_look_sample_the_past_alike() -> None:
    slow, quick = RobustDeviation(), RobustDeviation()
    for second in range(900):
        sample = Sample(0.1 + second % 7 / 100, 100)
        quick.update(sample, START_MS + second * 1_000, NEGATIVE, SETTINGS)
        if second % 10 == 0:
            slow.update(sample, START_MS + second * 1_000, NEGATIVE, SETTINGS)
    assert slow.past == quick.past[: len(slow.past)]
    assert len(quick.past) - len(slow.past) <= 1


@given(st.lists(st.floats(0, 1), min_size=40, max_size=130))
def test_online_equals_batch_after_every_update(values: list[float]) -> None:
    lag = SETTINGS.lag_ms // STEP_MS
    for place, told in enumerate(judge(values)):
        #  place - history - lag          place - lag       place
        #  [ --------- the past ---------- ] ... waiting ... |
        past = values[: max(0, place - lag + 1)][-SETTINGS.history :]
        if len(past) < SETTINGS.min_samples:
            assert told is None
            continue
        centre = median(past)
        spread = MAD_TO_SIGMA * median(abs(value - centre) for value in past)
        scale = max(spread, NEGATIVE.noise(centre, 100), NEGATIVE.floor, NEGATIVE.floor_ratio * centre)
        assert told is not None
        assert told.expected == round(centre, 6)
        assert told.z == pytest.approx((values[place] - centre) / scale, abs=1e-4)
        assert 0 <= told.tail <= 0.5


@given(st.lists(st.floats(0, 1), min_size=30, max_size=60), st.lists(st.floats(0, 1), max_size=5))
def test_no_judgement_looks_ahead(values: list[float], later: list[float]) -> None:
    assert judge(values + later)[: len(values)] == judge(values)


def test_trouble_that_was_noticed_does_not_become_normality() -> None:
    noticed, ignored = RobustDeviation(), RobustDeviation()
    for place in range(60 + 30):
        ts = START_MS + place * STEP_MS
        sample = Sample(0.1 if place < 60 else 0.6, 100)
        for detector in (noticed, ignored):
            detector.update(sample, ts, NEGATIVE, SETTINGS)
        noticed.exclude(START_MS + 60 * STEP_MS)
    assert max(noticed.past) == 0.1
    assert 0.6 in ignored.past


def counts(**named: int) -> Counts:
    return unpack(pack(named))


@pytest.mark.parametrize("watched", WATCHED, ids=lambda watched: watched.metric)
def test_nothing_counted_is_no_sample(watched: Watched) -> None:
    assert watched.sample(counts(), Policy()) is None
    assert watched.noise(0.0, 1) == 0.0


SAMPLES: dict[str, tuple[dict[str, int], Sample]] = {
    # (20 + 0.02 x 50) / (100 + 50)
    "ivt_ratio": ({"n_judged": 100, "n_suspect": 20}, Sample(0.196471, 100)),
    "negative_ratio": ({"n_scored": 40, "n_negative": 10}, Sample(0.25, 40)),
    "order_ratio": ({"n_product_clicks": 50, "n_orders_created": 5}, Sample(0.1, 50)),
    "ctr": ({"impressions": 4_000, "clicks": 100}, Sample(0.025, 4_000)),
    "cpc_minor": ({"clicks": 100, "spend_minor": 9_000}, Sample(90.0, 100)),
}


@pytest.mark.parametrize("watched", WATCHED, ids=lambda watched: watched.metric)
def test_a_sample_is_the_metric_of_its_counters_and_no_others(watched: Watched) -> None:
    named, expected = SAMPLES[watched.metric]
    assert watched.sample(counts(**named), Policy()) == expected
    others = {name: 7 for name in NAMES if name not in named}
    assert watched.sample(counts(**named, **others), Policy()) == expected
    # The quick look and the sample count the same events.
    assert counts(**named)[watched.whole] == expected.n


def test_a_trouble_that_lasts_does_not_become_normal() -> None:
    settings = DetectSettings()
    detector, watched = RobustDeviation(), next(w for w in WATCHED if w.metric == "negative_ratio")
    for second in range(600):
        detector.update(Sample(0.1, 50), second * 1_000, watched, settings)
    opened_ms = 600_000
    for second in range(600, 3_600):
        judgement = detector.update(Sample(0.7, 50), second * 1_000, watched, settings)
        detector.exclude(opened_ms - settings.lag_ms)
    assert judgement is not None
    assert judgement.expected == 0.1
    assert judgement.z > settings.open_z
