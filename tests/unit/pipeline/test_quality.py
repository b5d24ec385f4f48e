"""Invalid traffic: two families must agree, a crowd is innocent, scripts are found."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality import Evidence, Verdict, ivt_ratio, quality
from pipeline.quality.evidence import MAX_KEYS, MAX_USERS_PER_KEY, Generations
from schemas.settings import QualitySettings
from tests.partition import Partition
from tests.strategies import START_MS

SETTINGS = QualitySettings()


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
    ratios = [ivt_ratio({"n_judged": 40, "n_suspect": n}, SETTINGS) for n in (low, high)]
    assert ratios[0] is not None
    assert ratios[1] is not None
    assert ratios[0] <= ratios[1]


@pytest.mark.parametrize("n_judged", [0, 1, SETTINGS.min_judged - 1])
def test_few_judged_events_say_nothing(n_judged: int) -> None:
    assert ivt_ratio({"n_judged": n_judged, "n_suspect": n_judged}, SETTINGS) is None
    assert quality({"n_judged": n_judged}, None, SETTINGS) is None


def test_the_share_is_shrunk_to_what_is_usual() -> None:
    # (15 + 0.02 x 50) / (30 + 50)
    assert ivt_ratio({"n_judged": 30, "n_suspect": 15}, SETTINGS) == 0.2
    assert ivt_ratio({"n_judged": 10**6, "n_suspect": 5 * 10**5}, SETTINGS) == pytest.approx(0.5, abs=1e-3)


@given(st.integers(30, 10_000), st.floats(0, 1), st.integers(0, 200_000), st.none() | st.floats(0, 1), st.floats(0, 1))
def test_a_score_lies_between_0_and_100(
    n: int, share: float, dwell: int, interaction: float | None, bounces: float
) -> None:
    tally = {
        "n_judged": n,
        "n_suspect": int(n * share),
        "n_leaves": n,
        "dwell_ms": n * dwell,
        "n_bounces": int(n * bounces),
    }
    told = quality(tally, interaction, SETTINGS)
    assert told is not None
    assert 0 <= told[0] <= 100


def test_memory_is_bounded_in_keys_and_in_users_of_a_key() -> None:
    seen = Generations(60_000)
    for key in range(MAX_KEYS + 50):
        seen.note(key, 1, START_MS)
    assert len(seen.recent) == MAX_KEYS
    for user in range(100):
        n_users, _ = seen.note(1, user, START_MS)
    assert n_users == MAX_USERS_PER_KEY


def test_what_was_seen_is_forgotten_after_two_turns() -> None:
    seen = Generations(60_000)
    seen.note(1, 1, START_MS)
    assert seen.note(1, 2, START_MS + 59_999) == (2, 1)
    assert seen.note(1, 3, START_MS + 60_000) == (3, 1)
    assert seen.note(1, 4, START_MS + 300_000) == (1, 1)


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
    n_judged = log.engine._rooms["room-1"].windows.session["n_judged"]
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
