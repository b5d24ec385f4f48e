"""Invalid traffic: two families must agree, a crowd is innocent, scripts are found."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.counters import N_JUDGED, N_SHARED_DEVICE, Counts, digit, pack, unpack
from pipeline.quality import Evidence, Verdict, ivt_ratio, quality
from pipeline.quality.evidence import DEVICE_MEMORY_MS, MAX_KEYS, MAX_USERS_PER_KEY, Generations
from schemas.settings import QualitySettings
from tests.partition import Partition
from tests.strategies import START_MS

SETTINGS = QualitySettings()


def counts(**named: int) -> Counts:
    return unpack(pack(named))


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict(), False),
        (Verdict(rate=True), False),
        (Verdict(identity=True), False),
        (Verdict(content=True), False),
        (Verdict(rate=True, identity=True), True),
        (Verdict(rate=True, content=True), True),
        (Verdict(identity=True, content=True), True),
        (Verdict(rate=True, identity=True, content=True), True),
    ],
)
def test_two_families_must_agree(verdict: Verdict, *, expected: bool) -> None:
    assert verdict.is_suspect == expected


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
    # (15 + 0.02 x 50) / (30 + 50)
    assert ivt_ratio(counts(n_judged=30, n_suspect=15), SETTINGS) == 0.2
    assert ivt_ratio(counts(n_judged=10**6, n_suspect=5 * 10**5), SETTINGS) == pytest.approx(0.5, abs=1e-3)


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
        ({"n_shared_device": 10}, 0.0, None, 100.0, ["shared_devices"]),
        ({"n_shared_device": 9}, 0.0, None, 100.0, []),
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


def test_the_address_blocks_suspects_came_from_are_ranked() -> None:
    evidence = Evidence()
    for block, n in ((7, 3), (8, 1)):
        for user in range(n):
            evidence.condemn(user, block, START_MS)
    assert evidence.worst_blocks(1) == [(7, 0.75)]
    assert evidence.is_suspect_user(2)
    assert not evidence.is_suspect_user(99)
    assert not evidence.is_suspect_user(None)


# -- in a room --------------------------------------------------------------------------------------------------


def visit(log: Partition, second: float, dwell_ms: int, **who: Any) -> None:
    log.at(second, "view", action="leave", session_id="s", dwell_ms=dwell_ms, **who)


def suspects(log: Partition) -> float:
    """Return the invalid events behind the session's ratio."""
    ratio: float = log.session()["ivt_ratio"]
    n_judged = digit(log.engine._rooms["room-1"].windows.session, N_JUDGED)
    return round(ratio * (n_judged + SETTINGS.prior_weight) - SETTINGS.prior_ratio * SETTINGS.prior_weight, 3)


def settle(log: Partition) -> Partition:
    return log.ticks(1_000, 1_010)


def test_an_address_that_everybody_shares_condemns_nobody() -> None:
    """A campus, an office, a mobile carrier: one address, short stays."""
    log = Partition()
    for n in range(200):
        visit(log, n, 1_000, user_id=f"u{n}", device_id=f"d{n}", ip="203.0.113.7")
    assert suspects(settle(log)) == 0


def test_a_device_that_many_share_condemns_nobody_by_itself() -> None:
    """A shop's tablet: many users, who stay."""
    log = Partition()
    for n in range(200):
        visit(log, n, 60_000, user_id=f"u{n}", device_id="tablet", ip="203.0.113.7")
    assert suspects(settle(log)) == 0


def test_short_visits_condemn_nobody_by_themselves() -> None:
    log = Partition()
    for n in range(200):
        visit(log, n, 500, user_id=f"u{n}", device_id=f"d{n}")
    assert suspects(settle(log)) == 0
    assert log.session()["bounce_ratio"] == 1.0


@pytest.mark.parametrize("text", ["扣1", "666", "1", "来了", "好看", "哈哈哈哈哈", "👍👍👍", "要要要"])
def test_a_crowd_that_echoes_is_innocent(text: str) -> None:
    """The host asks for a 1 in the chat and everybody sends one, more than once."""
    log = Partition()
    for n in range(400):
        log.at(n / 10, "comment", text=text, user_id=f"u{n % 120}", device_id=f"d{n % 120}", ip=f"10.0.{n % 9}.1")
    assert suspects(settle(log)) == 0


def test_a_crowd_that_repeats_a_slogan_is_innocent_on_devices_of_its_own() -> None:
    log = Partition()
    for n in range(200):
        log.at(n / 10, "comment", text="今天全场五折买一送一", user_id=f"u{n}", device_id=f"d{n}")
    assert suspects(settle(log)) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from((0, 0, 0, 1)), st.sampled_from((0, 0, 0, 1, 60, 350, 650, 1_300))),
        max_size=60,
    )
)
# Alone for three turns of ten minutes, in company in the fourth.
@example([(0, 0, 650), (0, 0, 650), (0, 0, 650), (1, 0, 650), (2, 0, 0), (3, 0, 0), (4, 0, 0), (5, 0, 0)])
@example([(0, 0, 650), (0, 0, 650), (1, 0, 650), (2, 0, 0), (3, 0, 0), (4, 0, 0), (0, 0, 0), (0, 0, 0)])
def test_a_device_is_shared_by_whoever_was_seen_with_it(visits: list[tuple[int, int, int]]) -> None:
    """A user known to be alone on a device is not noted again; no count shows it."""
    log, plain, second, n_shared = Partition(), PlainGenerations(DEVICE_MEMORY_MS), 0, 0
    for user, device, later_s in visits:
        second += later_s
        visit(log, second, 60_000, user_id=f"u{user}", device_id=f"d{device}")
        n_shared += len(plain.sight(device, user, START_MS + second * 1_000)) > SETTINGS.device_users
    log.ticks(second, second + 10, 5)
    room = log.engine._rooms.get("room-1")
    told = 0 if room is None else digit(room.windows.session, N_SHARED_DEVICE)
    assert told == n_shared


def test_scripts_on_shared_devices_are_found() -> None:
    """A farm: thirty users a phone, gone within two seconds, beside people who stay."""
    random, log = Random(3), Partition()
    n_bots = 0
    for n in range(600):
        if n % 2:
            visit(
                log, n / 2, random.randrange(20_000, 90_000), user_id=f"u{n}", device_id=f"d{n}", ip=f"10.1.{n % 99}.7"
            )
        else:
            n_bots += 1
            visit(
                log, n / 2, random.randrange(800, 2_500), user_id=f"b{n}", device_id=f"farm{n % 10}", ip="198.51.100.9"
            )
    found = suspects(settle(log))
    # The first few users of a device look like a household.
    assert n_bots - 10 * SETTINGS.device_users <= found <= n_bots
    told = log.session()
    assert told["ivt_ratio"] > 0.35
    assert {"invalid_traffic", "shared_devices"} <= set(told["quality_reasons"])
    assert told["quality_score"] < 65


def test_a_script_that_posts_one_text_from_a_farm_is_found_and_moves_no_mood() -> None:
    log = Partition()
    for n in range(100):
        log.at(n / 10, "comment", text="这个主播是骗子大家快跑", user_id=f"b{n}", device_id=f"farm{n % 5}")
    assert suspects(settle(log)) >= 100 - 5 * SETTINGS.device_users - SETTINGS.repeat_users
    assert log.session().get("n_scored", 0) <= SETTINGS.repeat_users


def test_one_who_repeats_a_sentence_is_condemned_by_nothing_else() -> None:
    """One fact, one user's repeats, is evidence of one family: it takes a second one."""
    log = Partition()
    for n in range(40):
        log.at(n, "comment", text="主播今天真的太好看了", user_id="fan", device_id="d1")
    assert suspects(settle(log)) == 0


def test_one_who_repeats_a_sentence_from_a_farm_is_found() -> None:
    log = Partition()
    for n in range(5):
        visit(log, n, 60_000, user_id=f"b{n}", device_id="farm")
    for n in range(40):
        log.at(10 + n, "comment", text="加微信领取优惠券啦", user_id="b0", device_id="farm")
    assert suspects(settle(log)) >= 40 - SETTINGS.repeat_own


def test_orders_of_suspects_are_left_out_of_valid_return() -> None:
    log = Partition()
    for n in range(40):
        visit(log, n / 10, 1_000, user_id=f"b{n}", device_id="farm", ip="198.51.100.9")
    log.at(5, "spend", plan_id="p", impressions=10, clicks=5, cost_minor=10_000, currency="CNY")
    for place, user in enumerate(("b30", "honest")):
        order: Any = {"order_id": f"o{place}", "status": "paid", "amount_minor": 10_000, "currency": "CNY"}
        log.at(6 + place, "order", user_id=user, attribution="direct", **order)
    told = settle(log).session()
    assert (told["roas_attributed"], told["roas_valid"]) == (2.0, 1.0)


def test_without_consent_nobody_is_told_apart() -> None:
    log = Partition()
    for n in range(100):
        visit(log, n / 10, 1_000, user_id="same", device_id="same", ip="198.51.100.9", consent=False)
    assert suspects(settle(log)) == 0
    assert "n_users" not in log.session()
