"""Invalid traffic in the log of visits and comments: two families of evidence must agree, look-alikes are innocent."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.identity import shown
from pipeline.quality import Evidence
from pipeline.quality import evidence as evidence_module
from pipeline.quality.blame import blame
from pipeline.quality.evidence import Watch
from pipeline.quality.inquest import Guilt, inquest, shared
from pipeline.quality.reference import Past, reference, tabulate
from pipeline.quality.seen import MAX_KEYS
from pipeline.quality.visits import (
    CLICKED,
    COMMENT,
    LIKED,
    MARKED,
    N_OUTCOMES,
    N_STAYS,
    VISIT,
    Comment,
    Visit,
    fine_stay,
    read_visits,
    stay_of,
)
from pipeline.quality.writers import is_echo, lockstep, monologues, neighbours
from schemas.settings import QualitySettings
from tests.strategies import START_MS

SETTINGS = QualitySettings()


# -- visits -------------------------------------------------------------------------------------------------------


def visit_of(user: int, *, device: int = 0, block: int = 0, left_s: float = 0, dwell_s: float = 30, flags: int = 0,
             channel: int = 1) -> Visit:  # fmt: skip
    return Visit(user, device, block, START_MS + round(left_s * 1_000), round(dwell_s * 1_000), channel, flags, 1, 0)


def honest(random: Random, n: int, *, first: int = 1, block: int = 0, factor: float = 1.0) -> list[Visit]:
    """Return visits of people: log-normal stays, some of which come to something."""
    made = []
    for user in range(first, first + n):
        dwell_s = max(1.0, random.lognormvariate(math.log(30 * factor), 1.0))
        flags = 0
        if dwell_s > 5:
            flags = (
                CLICKED if random.random() < 0.2 else 2 if random.random() < 0.2 else LIKED * (random.random() < 0.2)
            )
        made.append(visit_of(user, device=10**6 + user, block=block or 10**7 + user, left_s=random.uniform(0, 500),
                             dwell_s=dwell_s, flags=flags))  # fmt: skip
    return made


@given(st.integers(0, 10**7))
def test_a_longer_stay_is_never_in_an_earlier_bin(dwell_ms: int) -> None:
    assert stay_of(dwell_ms) <= stay_of(dwell_ms + 1) < N_STAYS
    assert fine_stay(dwell_ms) <= fine_stay(dwell_ms + 1) <= fine_stay(dwell_ms) + 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=40))
def test_a_source_is_shared_if_and_only_if_two_users_were_seen_with_it(seen: list[tuple[int, int]]) -> None:
    log = [visit_of(user, device=device) for user, device in seen]
    expected = {
        place
        for place, (_, device) in enumerate(seen)
        if device and len({user for user, other in seen if other == device}) >= 2
    }
    assert shared(log, lambda visit: visit.device) == expected


@given(st.integers(0, 400_000), st.lists(st.integers(0, 300), min_size=48, max_size=48))
def test_what_is_expected_of_a_visit_is_a_distribution_whatever_is_known(age_ms: int, cells: list[int]) -> None:
    expected = reference(cells, [2 * n for n in cells], Past())
    for shares in (expected.stay, expected.stays_by(age_ms), *expected.outcome):
        assert math.fsum(shares) == pytest.approx(1.0)
        assert min(shares) >= 0
    assert (len(expected.stay), len(expected.outcome[0])) == (N_STAYS, N_OUTCOMES)
    assert expected.stays_by(age_ms)[stay_of(age_ms)] > 0


def test_the_reference_of_many_visits_is_their_own_table() -> None:
    visits = honest(Random(5), 900)
    cells = tabulate(visits)
    expected = reference(cells, cells, Past())
    for stay in range(N_STAYS):
        own = sum(visit.stay == stay for visit in visits) / len(visits)
        assert expected.stay[stay] == pytest.approx(own, abs=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_people_behind_one_address_are_innocent(seed: int) -> None:
    random = Random(seed)
    log = honest(random, 150) + honest(random, 120, first=1_000, block=7)
    assert inquest(log, {}, START_MS + 900_000, SETTINGS) == {}


@pytest.mark.parametrize("seed", range(6))
def test_a_crowd_that_has_just_come_is_not_judged_by_the_short_visits_alone_that_are_over(seed: int) -> None:
    """Sixty people of one campus come within half a minute: half a minute later only those who left early are known."""
    random = Random(seed)
    crowd = [
        visit._replace(left_ms=START_MS + 500_000 + random.randrange(30_000) + visit.dwell_ms)
        for visit in honest(random, 160, first=1_000, block=7)
    ]
    now_ms = START_MS + 530_000
    log = honest(random, 150) + [visit for visit in crowd if visit.left_ms < now_ms]
    assert sum(visit.block == 7 for visit in log) > 20
    assert inquest(log, {}, now_ms, SETTINGS) == {}


def bots_of(trait: str, random: Random, n: int) -> list[Visit]:
    """Return invalid visits of one make."""
    made = []
    for number in range(n):
        user, device, block = 5_000 + number, 6_000 + number, 7_000 + number
        left_s, dwell_s = random.uniform(0, 500), random.lognormvariate(math.log(22), 0.7)
        if trait == "device":
            device = 6_000 + number % 8
        elif trait == "block":
            block = 7_000 + number % 25
        elif trait == "clock":
            user, device, block = 5_000 + number % 6, 6_000 + number % 6, 7_000 + number % 6
            left_s, dwell_s = number // 6 * 20 + number % 6 + random.uniform(-0.1, 0.1), 12.0
        else:
            dwell_s = 30 + random.expovariate(0.5)
        flags = (LIKED if random.random() < 0.6 else 0) | (2 if random.random() < 0.5 else 0) if trait == "stay" else 0
        made.append(visit_of(user, device=device, block=block, left_s=left_s, dwell_s=dwell_s, flags=flags))
    return made


@pytest.mark.parametrize("trait", ["device", "block", "clock", "stay"])
@pytest.mark.parametrize("seed", range(3))
def test_bots_of_each_make_are_found_among_people(trait: str, seed: int) -> None:
    random = Random(seed)
    people = honest(random, 200)
    bots = bots_of(trait, random, 120)
    log = people + bots
    found = inquest(log, {}, START_MS + 900_000, SETTINGS)
    n_found = sum(place >= len(people) for place in found)
    assert n_found >= 0.8 * len(bots)
    assert len(found) - n_found <= 0.16 * len(people)  # who happens to stay as long as a task asks cannot be told
    assert all(guilt.families.bit_count() >= 2 for guilt in found.values())


@given(st.integers(0, 1_000), st.randoms(use_true_random=False))
def test_the_order_of_the_log_condemns_nobody_else(seed: int, random: Any) -> None:
    log = honest(Random(seed), 80) + bots_of("device", Random(seed), 60)
    shuffled = log[:]
    random.shuffle(shuffled)
    now_ms = START_MS + 900_000
    users = [{made[place].user for place in inquest(made, {}, now_ms, SETTINGS)} for made in (log, shuffled)]
    assert users[0] == users[1]


# -- comments -----------------------------------------------------------------------------------------------------


def said(
    user: int, text: int, at_s: float, *, block: int = 0, device: int = 0, n_characters: int = 12, flags: int = 0
) -> Comment:
    return Comment(user, text, device, block, START_MS + round(at_s * 1_000), n_characters, 1, flags)


def test_a_crowd_that_answers_at_once_is_an_echo_and_a_script_is_not() -> None:
    assert is_echo([0, 500, 900, 60_000])
    assert not is_echo([0, 10_000, 20_000, 30_000])


def test_the_same_hands_under_several_texts_are_in_lockstep() -> None:
    bots = [said(bot, 100 + (bot + turn) % 3, 20 * turn + bot) for turn in range(4) for bot in range(10)]
    people = [said(1_000 + n, 1_000 + n, n) for n in range(80)]
    assert set(lockstep(bots + people, SETTINGS)) == set(range(10))


def test_a_crowd_under_one_text_is_not_in_lockstep() -> None:
    log = [said(user, 100, user + 40 * turn) for turn in range(5) for user in range(40)]
    assert lockstep(log, SETTINGS) == {}


def test_bursts_of_many_texts_by_the_same_fans_are_not_in_lockstep() -> None:
    log = [said(user, text, 20 * text + user / 20) for text in range(1, 20) for user in range(30)]
    assert lockstep(log, SETTINGS) == {}


def test_who_says_one_text_again_and_again_without_a_visit_is_a_script_and_a_visitor_is_not() -> None:
    log = [said(user, 100, user + 40 * turn) for turn in range(4) for user in range(20)]
    came = dict.fromkeys(range(10), 32)
    assert set(monologues(log, {}, SETTINGS)) == set(range(20))
    assert set(monologues(log, came, SETTINGS)) == set(range(10, 20))
    assert monologues(log, dict.fromkeys(range(20), 32), SETTINGS) == {}


def test_writers_of_few_blocks_who_do_nothing_else_are_found_and_neighbours_who_do_are_not() -> None:
    people = [said(user, 0, 3 * user, block=10_000 + user) for user in range(60)]
    acts = {user: CLICKED * (user % 2) for user in range(60)}
    crowd = [said(1_000 + n, 0, 5 * n, block=3) for n in range(30)]
    bots = [said(2_000 + n, 0, 5 * n + 90 * turn, block=1 + n % 2) for n in range(30) for turn in range(3)]
    assert set(neighbours(people + bots, acts, Past(), SETTINGS)) == set(range(2_000, 2_030))
    acts |= {1_000 + n: CLICKED * (n % 2) for n in range(30)}
    assert neighbours(people + crowd, acts, Past(), SETTINGS) == {}


@pytest.mark.parametrize("n_neighbours", [0, 8])
def test_honest_neighbours_behind_carriers_do_not_hide_the_blocks_a_script_writes_from(n_neighbours: int) -> None:
    people = [said(user, 0, 3 * user, block=10_000 + user) for user in range(60)]
    acts = {user: CLICKED * (user % 3 == 0) for user in range(60)}
    # Eight people in two of a carrier's blocks, who click like anybody; thirty quiet accounts in three blocks.
    people += [said(500 + n, 0, 7 * n, block=20_000 + n % 2) for n in range(n_neighbours)]
    acts |= {500 + n: CLICKED * (n % 2) for n in range(n_neighbours)}
    bots = [said(2_000 + n, 0, 5 * n, block=1 + n % 3) for n in range(30)]
    assert set(neighbours(people + bots, acts, Past(), SETTINGS)) == set(range(2_000, 2_030))


@pytest.mark.parametrize("seed", range(3))
def test_who_stayed_as_long_as_a_task_asks_long_before_the_attack_is_no_part_of_it(seed: int) -> None:
    #  0 s          honest stays of 31 s          400 s   attack   500 s
    random = Random(seed)
    people = honest(random, 200)
    early = [visit_of(800 + n, left_s=20.0 + 60 * n, dwell_s=31.0, flags=LIKED * (n % 2)) for n in range(6)]
    attack = [
        visit_of(5_000 + n, left_s=400 + n, dwell_s=30 + random.expovariate(2.0), flags=LIKED | 2) for n in range(100)
    ]
    log = people + early + attack
    found = inquest(log, {}, START_MS + 900_000, SETTINGS)
    users = {log[place].user for place in found}
    assert len(users & set(range(5_000, 5_100))) >= 90
    assert len(users & set(range(800, 820))) <= 1  # of six


def test_an_attack_that_was_found_is_not_tried_anew_and_one_that_was_not_is() -> None:
    random = Random(2)
    people = honest(random, 200)
    # They stay alike and come to the same as people do: one family alone speaks against them.
    alike = [visit._replace(user=9_000 + n, dwell_ms=31_000) for n, visit in enumerate(honest(random, 60, first=9_000))]
    log, now_ms = people + alike, START_MS + 900_000
    assert inquest(log, {}, now_ms, SETTINGS) == {}
    marks = {9_000 + n: 9 for n in range(40)}
    found = {log[place].user for place in inquest(log, {}, now_ms, SETTINGS, marks)}
    assert found & set(range(9_040, 9_060))
    assert inquest(log, {}, now_ms, SETTINGS, dict(list(marks.items())[:20])) == {}


def test_a_look_that_found_the_known_again_is_repeated_sooner_than_one_that_found_nobody() -> None:
    watch = Watch()
    waits = []
    for n_fresh, n_found in ((3, 9), (0, 9), (0, 0)):
        watch.look(START_MS, 320, n_fresh=n_fresh, n_found=n_found)
        waits.append(watch.wait)
    assert waits == [0, 20, 80]


# -- when it happened ---------------------------------------------------------------------------------------------


@given(st.integers(0, 30), st.integers(1, 600_000))
def test_a_visits_events_are_counted_within_its_stay_and_all_of_them(n_acts: int, dwell_ms: int) -> None:
    evidence = Evidence()
    evidence.enter(7)
    for _ in range(n_acts):
        evidence.act(7, LIKED)
    left_ms = START_MS + dwell_ms
    evidence.leave(7, 1, 2, left_ms, (left_ms, dwell_ms, evidence.channel("feed_ads"), 0))
    credits = list(evidence._credit(evidence._mark({7: Guilt(3, "block")}), left_ms + 10))
    assert sum(credit.n for credit in credits) == n_acts + 1
    assert all(START_MS <= credit.ts <= left_ms and credit.n > 0 for credit in credits)
    assert (credits[0].ts, credits[0].n) == (left_ms, 1)
    assert {credit.channel for credit in credits} == {"feed_ads"}
    assert list(evidence._credit({7}, left_ms + 20)) == []


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=20), st.integers(0, 5))
def test_comments_of_a_visit_that_goes_on_are_counted_when_they_were_written(moments: list[int], n_likes: int) -> None:
    evidence = Evidence()
    channel = evidence.channel("recommend")
    evidence.enter(7)
    for n, at_ms in enumerate(moments):
        evidence.comment(7, (n, 1, 2, START_MS + at_ms, 12, channel), START_MS + at_ms, SETTINGS)
    for _ in range(n_likes):
        evidence.act(7, LIKED)
    credits = list(evidence._credit(evidence._mark({7: Guilt(3, "block")}), START_MS + 200_000))
    assert [credit.ts - START_MS for credit in credits if credit.n][: len(moments)] == moments
    assert sum(credit.n for credit in credits) == len(moments) + n_likes
    assert list(evidence._credit({7}, START_MS + 200_000)) == []


# -- what is remembered -------------------------------------------------------------------------------------------


def test_memory_is_bounded_whatever_comes() -> None:
    evidence = Evidence()
    for n in range(12_000):
        now_ms = START_MS + n * 3
        evidence.enter(3 * n)
        evidence.act(3 * n + 1, LIKED)
        evidence.comment(3 * n + 1, (n, n, n, now_ms, 12, 0), now_ms, SETTINGS)
        evidence.leave(
            3 * n + 2, n, n, now_ms, (now_ms, n % 90_000, evidence.channel(f"c{n}"), evidence.segment(f"s{n}"))
        )
        evidence.bought(n.to_bytes(16), n)
        evidence.marks[n] = 3
        evidence.sources[n] = (now_ms, 3)
        if n % 500 == 0:
            evidence.review(now_ms, SETTINGS)
    limits = {
        "visits": evidence_module.MAX_VISITS * VISIT.size,
        "comments": evidence_module.MAX_COMMENTS * COMMENT.size,
        "doing": evidence_module.MAX_DOING,
        "buyers": evidence_module.MAX_BUYERS,
        "channels": evidence_module.MAX_PLACES,
        "segments": evidence_module.MAX_PLACES,
        "by_segment": evidence_module.MAX_PLACES,
        "pasts": evidence_module.MAX_PLACES,
        "stays": 512,
    }
    for name, limit in limits.items():
        assert 0 < len(getattr(evidence, name)) <= limit, name
    for seen in (evidence.devices, evidence.addresses, evidence.texts):
        assert len(seen.recent) <= MAX_KEYS
        assert len(seen.former) <= MAX_KEYS


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(("enter", "act", "leave"))), max_size=60))
def test_a_visit_s_record_counts_what_its_user_did_since_the_one_before(steps: list[tuple[int, str]]) -> None:
    evidence, plain, expected = Evidence(), Counter[int](), []
    for n, (user, step) in enumerate(steps):
        now_ms = START_MS + n * 1_000
        if step == "enter":
            evidence.enter(user)
        elif step == "act":
            evidence.act(user, LIKED)
            plain[user] += 1
        else:
            evidence.leave(user, 0, 0, now_ms, (now_ms, 5_000, 0, 0))
            expected.append((user, plain.pop(user, 0) + 1))
    assert [(visit.user, visit.n) for visit in read_visits(evidence.visits)] == expected
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(evidence), type=Evidence)
    assert again == evidence


def test_the_blame_goes_from_channel_to_block_to_device_with_shares() -> None:
    log = [visit_of(n, device=n % 2 + 1, block=9, flags=MARKED) for n in range(6)]
    log += [visit_of(n, device=3, block=8, flags=MARKED, channel=2) for n in range(2)]
    log += [visit_of(n, device=4, block=8, channel=2) for n in range(2)]
    worst, other = blame(log, ["", "ads", "free"])
    assert (worst["channel"], worst["share"], worst["invalid"]) == ("ads", 0.75, 1.0)
    assert [(row["block"], row["share"]) for row in worst["blocks"]] == [(shown(9), 0.75)]
    assert [(row["device"], row["share"]) for row in worst["blocks"][0]["devices"]] == [
        (shown(1), 0.375), (shown(2), 0.375),
    ]  # fmt: skip
    assert (other["channel"], other["invalid"]) == ("free", 0.5)
