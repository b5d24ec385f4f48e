"""Invalid traffic: shares and their intervals, the score, what was seen lately, how surprising a count is."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.counters import Counts, pack, unpack
from pipeline.quality import ivt_interval, ivt_ratio, quality
from pipeline.quality.seen import MAX_KEYS, MAX_USERS_PER_KEY, Generations
from pipeline.quality.surprise import chi_squared_nats, divergence, shortfall, surplus
from schemas.settings import QualitySettings
from tests.strategies import START_MS

SETTINGS = QualitySettings()


def counts(**named: int) -> Counts:
    return unpack(pack(named))


@given(st.integers(0, 9), st.integers(0, 9))
def test_more_invalid_events_are_never_a_smaller_share(fewer: int, more: int) -> None:
    low, high = sorted((fewer, fewer + more))
    ratios = [ivt_ratio(counts(n_judged=40, n_suspect=n), SETTINGS) for n in (low, high)]
    assert ratios[0] is not None
    assert ratios[1] is not None
    assert ratios[0] <= ratios[1]


@pytest.mark.parametrize("n_judged", [0, 1, SETTINGS.min_judged - 1])
def test_few_judged_events_say_nothing(n_judged: int) -> None:
    assert ivt_ratio(counts(n_judged=n_judged, n_suspect=n_judged), SETTINGS) is None
    assert ivt_ratio(counts(n_judged=SETTINGS.min_judged), SETTINGS) is not None


def test_the_share_is_shrunk_to_what_is_usual() -> None:
    # (15 + 0.02 x 2) / (30 + 2)
    assert ivt_ratio(counts(n_judged=30, n_suspect=15), SETTINGS) == 0.47
    assert ivt_ratio(counts(n_judged=10**6, n_suspect=5 * 10**5), SETTINGS) == pytest.approx(0.5, abs=1e-3)


@given(st.integers(30, 5_000), st.floats(0, 1), st.integers(0, 2_000))
def test_the_interval_holds_the_observed_share_and_narrows_with_more_visits(
    n: int, share: float, n_leaves: int
) -> None:
    made = counts(n_judged=n, n_suspect=int(n * share), n_leaves=min(n, n_leaves))
    interval = ivt_interval(made, SETTINGS)
    assert interval is not None
    low, high = interval
    assert 0 <= low <= int(n * share) / n <= high <= 1
    more = ivt_interval(counts(n_judged=9 * n, n_suspect=9 * int(n * share), n_leaves=9 * min(n, n_leaves)), SETTINGS)
    assert more is not None
    assert more[1] - more[0] <= high - low


@given(
    st.integers(30, 10_000),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.integers(0, 200_000),
    st.none() | st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_score_lies_between_0_and_100_and_invalid_traffic_only_lowers_it(
    n: int, shares: tuple[float, float], dwell: int, interaction: float | None, bounces: float
) -> None:
    made = counts(n_judged=n, n_leaves=n, dwell_ms=n * dwell, n_bounces=int(n * bounces))
    low, high = sorted(shares)
    (worse, _), (better, _) = (quality(made, share, interaction, SETTINGS) for share in (high, low))
    assert 0 <= worse <= better <= 100


@pytest.mark.parametrize(
    ("named", "invalid", "interaction", "score", "reasons"),
    [
        # Nothing known but the share: it alone counts.
        ({}, 0.0, None, 100.0, []),
        ({}, 0.099, None, 90.1, []),
        ({}, 0.1, None, 90.0, ["invalid_traffic"]),
        # Half the stay that counts as full: 0.5 + 0.5 x 0.5.
        ({"n_leaves": 100, "dwell_ms": 100 * round(SETTINGS.full_dwell_s * 500)}, 0.0, None, 75.0, []),
        ({"n_leaves": 29, "n_bounces": 29}, 0.0, None, 100.0, []),
        ({"n_leaves": 100, "n_bounces": 50}, 0.0, None, 50.0, ["short_dwell", "bounces"]),
        ({}, 0.0, 0.0, 50.0, ["little_interaction"]),
        ({}, 0.0, SETTINGS.full_interaction_ratio, 100.0, []),
        ({"n_comments": 100, "n_repeats": 20}, 0.0, None, 100.0, ["repeated_texts"]),
        ({"n_comments": 100, "n_repeats": 19}, 0.0, None, 100.0, []),
        ({"n_leaves": 100, "dwell_ms": 10**7, "n_shared_device": 10}, 0.0, None, 100.0, ["shared_devices"]),
        ({"n_leaves": 100, "dwell_ms": 10**7, "n_shared_device": 9}, 0.0, None, 100.0, []),
    ],
)
def test_a_score_says_what_lowered_it(
    named: dict[str, int], invalid: float, interaction: float | None, score: float, reasons: list[str]
) -> None:
    assert quality(counts(n_judged=100, **named), invalid, interaction, SETTINGS) == (score, reasons)


class PlainGenerations:
    """What `Generations` should answer, kept in the plainest way: counts by key and user, in two generations."""

    def __init__(self, keep_ms: int) -> None:
        self.keep_ms, self.turned_ms = keep_ms, 0
        self.recent: dict[int, Counter[int]] = {}
        self.former: dict[int, Counter[int]] = {}

    def sight(self, key: int, user: int, now_ms: int) -> Counter[int]:
        if now_ms - self.turned_ms >= self.keep_ms:
            self.former = self.recent if now_ms - self.turned_ms < 2 * self.keep_ms else {}
            self.recent, self.turned_ms = {}, now_ms
        users = self.recent.setdefault(key, Counter(self.former.get(key, {})))
        if user in users or len(users) < MAX_USERS_PER_KEY:
            users[user] += 1
        return users


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.sampled_from((0, 0, 0, 20_000, 70_000))), max_size=80),
    st.lists(st.integers(0, 80), max_size=3),
)
def test_users_and_repeats_of_a_key_are_those_of_two_generations(
    sights: list[tuple[int, int, int]], cuts: list[int]
) -> None:
    """A key's first sight is kept short; no answer shows it, after a snapshot neither."""
    noting, meeting, plain = Generations(60_000), Generations(60_000), PlainGenerations(60_000)
    now_ms = START_MS
    for place, (key, user, later_ms) in enumerate(sights):
        now_ms += later_ms
        if place in cuts:
            noting = msgspec.msgpack.decode(msgspec.msgpack.encode(noting), type=Generations)
            meeting = msgspec.msgpack.decode(msgspec.msgpack.encode(meeting), type=Generations)
        expected = plain.sight(key, user, now_ms)
        assert noting.note(key, user, now_ms) == (len(expected), expected[user])
        assert meeting.meet(key, user, now_ms) == len(expected)


def test_memory_is_bounded_in_keys_and_in_users_of_a_key() -> None:
    noted, met = Generations(60_000), Generations(60_000)
    for key in range(MAX_KEYS + 50):
        noted.note(key, 1, START_MS)
        met.meet(key, 1, START_MS)
    assert len(noted.recent) == len(met.recent) == MAX_KEYS
    # A key there was no room for is nobody's; those there were room for go on.
    assert noted.note(MAX_KEYS + 1, 5, START_MS) == (0, 0)
    assert met.meet(MAX_KEYS + 1, 5, START_MS) == 0
    for user in range(100):
        n_users, _ = noted.note(1, user, START_MS)
        assert met.meet(1, user, START_MS) == n_users
    assert n_users == MAX_USERS_PER_KEY
    assert noted.note(1, 99, START_MS) == (MAX_USERS_PER_KEY, 0)


def test_what_was_seen_is_forgotten_after_two_turns() -> None:
    for sight in ("note", "meet"):
        seen = Generations(60_000)
        tell = getattr(seen, sight)
        n_users = [tell(1, user, START_MS + ms) for user, ms in ((1, 0), (2, 59_999), (3, 60_000), (4, 300_000))]
        assert n_users == ([(1, 1), (2, 1), (3, 1), (1, 1)] if sight == "note" else [1, 2, 3, 1])


def test_a_turn_leaves_the_former_generation_as_it_was() -> None:
    """What goes on counting in the newer generation must not be written into the older one."""
    seen = Generations(60_000)
    for user in (1, 2):
        seen.note(7, user, START_MS)
    seen.note(7, 3, START_MS + 60_000)
    assert (set(seen.former[7]), set(seen.recent[7])) == ({1, 2}, {1, 2, 3})  # type: ignore[arg-type]


# -- how surprising something is ----------------------------------------------------------------------------------


@given(st.integers(1, 60), st.floats(0.5, 40))
def test_chernoff_never_says_more_than_the_exact_tail(n: int, expected: float) -> None:
    terms = [math.exp(-expected + k * math.log(expected) - math.lgamma(k + 1)) for k in range(200)]
    assert surplus(n, expected) <= -math.log(max(math.fsum(terms[n:]), 1e-300)) + 1e-9
    assert shortfall(n, expected) <= -math.log(max(math.fsum(terms[: n + 1]), 1e-300)) + 1e-9


def test_a_divergence_of_counts_from_their_own_shares_is_none() -> None:
    assert divergence([10, 20, 30], [1 / 6, 2 / 6, 3 / 6], 1_000) == (0.0, 0.0)


def test_chi_squared_is_within_a_tenth_of_the_simulated_tail() -> None:
    draws = np.random.default_rng(1).chisquare(5, 400_000)
    for x in (9.0, 12.0, 16.0):
        assert chi_squared_nats(x, 5) == pytest.approx(-math.log(np.mean(draws > x)), rel=0.1)
