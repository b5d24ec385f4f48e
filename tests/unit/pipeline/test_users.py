"""Distinct users against sets: exact while few, within the contract's error beyond, in bounded memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from random import Random
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.users import CAPACITY, HOUR_S, TAG_BITS, TOKEN_SPACE, ZONES, DistinctUsers, HyperLogLog
from tests.partition import Partition
from tests.strategies import START_MS

NOW_S = START_MS // 1_000 + 4 * HOUR_S + 17
Pairs = list[tuple[int, int]]


class Sight(NamedTuple):
    """One user seen at a second of event time, when the clock stood at another."""

    token: int
    second: int
    is_active: bool = False
    in_session: bool = True


def token(number: int) -> int:
    """Return a user's token: uniform, as a keyed hash is."""
    return int.from_bytes(hashlib.blake2b(b"%d" % number, digest_size=8).digest(), "big") >> 1


def true_windows(sights: Iterable[Sight], now_s: int, zero_s: int) -> Pairs:
    """Return (users, active users) of each window: whoever has a sight in it, each once.

    The old edge is rounded down to a whole bucket, counted from the room's own zero.
    """
    sights = list(sights)
    told = []
    for reach, width in ZONES:
        #  T-W-width  T-W            T
        #  [ - - - - -[--------------]
        edge = now_s - reach - (now_s - reach - zero_s) % width
        inside = [sight for sight in sights if sight.second >= edge]
        told.append((len({s.token for s in inside}), len({s.token for s in inside if s.is_active})))
    return told


def true_session(sights: Iterable[Sight]) -> tuple[int, int]:
    sights = [sight for sight in sights if sight.in_session]
    return len({s.token for s in sights}), len({s.token for s in sights if s.is_active})


def seen(users: DistinctUsers, sights: Iterable[Sight]) -> DistinctUsers:
    for sight in sights:
        users.see(sight.token, sight.second, 0, active=sight.is_active, in_session=sight.in_session)
    return users


def again(users: DistinctUsers) -> DistinctUsers:
    """Return users as they come back from a snapshot."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(users), type=DistinctUsers)


def rms(errors: Iterable[float]) -> float:
    errors = list(errors)
    return math.sqrt(sum(error**2 for error in errors) / len(errors))


def few_sights(oldest_s: int = NOW_S - HOUR_S + 60) -> st.SearchStrategy[list[Sight]]:
    """Up to twelve users who come again and again, in any order."""
    one = st.builds(Sight, st.integers(1, 12).map(token), st.integers(oldest_s, NOW_S), st.booleans(), st.just(True))
    return st.lists(one, max_size=60)


# -- exact while few --------------------------------------------------------------------------------------------


@given(few_sights())
def test_a_user_counts_once_in_every_window_in_whatever_order_the_sights_come(sights: list[Sight]) -> None:
    users, so_far = DistinctUsers(), list[Sight]()
    for sight in sights:
        so_far.append(sight)
        seen(users, [sight])
        assert users.windows(NOW_S) == true_windows(so_far, NOW_S, users.zero_s)
        assert users.session_counts() == true_session(so_far)


@given(few_sights(), st.data())
def test_any_order_of_arrival_gives_the_same_counts(sights: list[Sight], data: st.DataObject) -> None:
    for order in (sights, data.draw(st.permutations(sights))):
        users = seen(DistinctUsers(), order)
        assert users.windows(NOW_S) == true_windows(sights, NOW_S, users.zero_s)
        assert users.session_counts() == true_session(sights)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 12).map(token),
            st.sampled_from((0, 0, 1, 30, 61, 400, 1_000, 3_601)),
            st.sampled_from((0, 0, 0, 1, 59, 60, 61, 299, 305, 900, 3_599, 3_600, 3_661, 9_000)),
            st.booleans(),
            st.booleans(),
        ),
        max_size=50,
    )
)
def test_windows_are_exact_at_every_evaluation_however_late_the_sights(
    steps: list[tuple[int, int, int, bool, bool]],
) -> None:
    """Time goes on between the sights; some come hours late, some evaluations are left out."""
    users, so_far, now_s = DistinctUsers(), list[Sight](), NOW_S
    for who, later_s, late_s, is_active, is_looked_at in steps:
        now_s += later_s
        so_far.append(Sight(who, now_s - late_s, is_active))
        seen(users, so_far[-1:])
        if is_looked_at:
            assert users.windows(now_s) == true_windows(so_far, now_s, users.zero_s)
    assert users.windows(now_s) == true_windows(so_far, now_s, users.zero_s)
    assert [n for n, _ in users.windows(now_s + HOUR_S + 61)] == [0, 0, 0, 0]


def crowd(seed: int, n_users: int, hours: int = 2, begin_s: int = NOW_S - 2 * HOUR_S) -> list[Sight]:
    """Users who come over some hours, most of them two or three times; some sights arrive late."""
    random = Random(seed)
    made = []
    for _ in range(n_users):
        who, at_s = random.randrange(TOKEN_SPACE), random.randrange(begin_s, begin_s + hours * HOUR_S)
        for _ in range(random.choice((1, 1, 2))):
            made.append((at_s, Sight(who, at_s + random.choice((0, 0, -90, -600)), random.random() < 0.2)))
            at_s = min(begin_s + hours * HOUR_S, at_s + random.randrange(400))
    return [sight for _, sight in sorted(made)]


@pytest.mark.parametrize("seed", [1, 2])
def test_users_are_exact_up_to_the_capacity(seed: int) -> None:
    # The users of one hour and its late sights: as many as there is room for.
    sights = crowd(seed, CAPACITY, hours=1, begin_s=NOW_S - HOUR_S + 600)
    users = seen(DistinctUsers(), sights)
    assert users.windows(NOW_S) == true_windows(sights, NOW_S, users.zero_s)
    assert users.session_counts() == true_session(sights)


# -- sampled beyond ---------------------------------------------------------------------------------------------


def test_beyond_the_capacity_the_hour_and_the_session_stay_within_two_per_cent_and_the_rest_within_ten() -> None:
    hours, sessions, shorter = [], [], []
    for seed, n_users in enumerate((17_000, 24_000, 30_000, 36_000, 50_000, 70_000)):
        sights = crowd(seed, n_users)
        users = seen(DistinctUsers(), sights)
        assert len(users.people) <= CAPACITY
        assert users.below < TOKEN_SPACE
        expected = true_windows(sights, NOW_S, users.zero_s)
        errors = [told / exact - 1 for (told, _), (exact, _) in zip(users.windows(NOW_S), expected, strict=True)]
        hours.append(errors[-1])
        shorter += errors[:-1]
        sessions.append(users.session_counts()[0] / true_session(sights)[0] - 1)
    # An estimate's error is told as its standard error.
    assert rms(hours) <= 0.02
    assert rms(sessions) <= 0.02
    assert rms(shorter) <= 0.10
    assert max(map(abs, hours + sessions)) <= 3 * 0.02


def steady(seed: int, n_hour: int, ratio: int) -> list[Sight]:
    """An hour of users seen once, `ratio` times as many as in its last minute."""
    random, n_minute = Random(seed), n_hour // ratio
    seconds = [random.randrange(NOW_S - HOUR_S + 60, NOW_S - 60) for _ in range(n_hour - n_minute)]
    seconds += [random.randrange(NOW_S - 60, NOW_S) for _ in range(n_minute)]
    return [Sight(random.randrange(TOKEN_SPACE), second, random.random() < 0.5) for second in sorted(seconds)]


@pytest.mark.parametrize(
    ("ratio", "limit"),
    [
        (10, 0.07),
        # The worst mix of a steady flow: nobody stays, nobody comes again.
        (60, 0.10),
    ],
)
def test_the_minute_is_within_ten_per_cent_however_many_come_and_go(ratio: int, limit: float) -> None:
    errors = []
    for seed, n_hour in enumerate((8_500, 10_000, 12_000, 14_000, 17_000, 20_000, 24_000, 30_000) * 2):
        sights = steady(seed, n_hour, ratio)
        users = seen(DistinctUsers(), sights)
        errors.append(users.windows(NOW_S)[0][0] / true_windows(sights, NOW_S, users.zero_s)[0][0] - 1)
    assert rms(errors) <= limit


def test_active_users_of_a_crowd_are_sampled_with_it() -> None:
    errors = []
    for seed, n_hour in enumerate((9_000, 14_000, 30_000, 44_000)):
        sights = steady(seed, n_hour, 10)
        users = seen(DistinctUsers(), sights)
        (_, told), (_, exact) = users.windows(NOW_S)[-1], true_windows(sights, NOW_S, users.zero_s)[-1]
        errors.append(told / exact - 1)
    assert rms(errors) <= 0.03  # half as many of them


@pytest.mark.parametrize("n_users", [1, 10, 100, 1_000, 4_000, 8_000, 10_000, 10_500, 11_000, 13_000, 40_000])
def test_a_sketched_session_is_within_two_per_cent_at_any_size(n_users: int) -> None:
    errors = []
    for seed in range(30):
        random, sketch = Random(seed * n_users), HyperLogLog()
        for _ in range(n_users):
            sketch.add(random.randrange(TOKEN_SPACE))
        errors.append(sketch.estimate() / n_users - 1)
    assert rms(errors) <= 0.02
    assert len(sketch.registers) == 4_096


def test_a_repeat_changes_no_sketch() -> None:
    sketch = HyperLogLog()
    for _ in range(3):
        for number in range(1_000):
            sketch.add(token(number))
        told = sketch.estimate()
        assert abs(told - 1_000) <= 20
    assert HyperLogLog().estimate() == 0


# -- sessions ---------------------------------------------------------------------------------------------------


def test_a_session_counts_its_own_users_and_the_windows_go_on() -> None:
    users = seen(DistinctUsers(), [Sight(token(n), NOW_S - 30, is_active=True) for n in range(10)])
    users.begin_session(NOW_S - 20)
    assert users.session_counts() == (0, 0)
    seen(users, [Sight(token(n), NOW_S - 10) for n in range(5, 8)])
    assert users.session_counts() == (3, 0)
    assert users.windows(NOW_S)[0] == (10, 10)
    seen(users, [Sight(token(5), NOW_S - 5, is_active=True)])
    assert users.session_counts() == (3, 1)


@given(few_sights(), st.integers(NOW_S - HOUR_S, NOW_S))
def test_what_comes_late_for_a_session_before_counts_in_the_windows_alone(sights: list[Sight], begins_s: int) -> None:
    users, told = DistinctUsers(), list[Sight]()
    users.begin_session(begins_s)
    for sight in sights:
        told.append(sight._replace(in_session=sight.second >= begins_s))
        seen(users, told[-1:])
        assert users.session_counts() == true_session(told)
    assert users.windows(NOW_S) == true_windows(told, NOW_S, users.zero_s)


@pytest.mark.parametrize("n_former", [500, 30_000])
def test_a_session_after_a_crowd_counts_its_own_users(n_former: int) -> None:
    users = seen(DistinctUsers(), crowd(3, n_former))
    users.begin_session(NOW_S + 10)
    assert users.session_counts() == (0, 0)
    late = [Sight(token(n), NOW_S, in_session=False) for n in range(2_000, 2_500)]
    own = [Sight(token(n), NOW_S + 20 + n % 60, is_active=n % 4 == 0) for n in range(2_000)]
    seen(users, late + own + own)
    n_users, n_active = users.session_counts()
    assert abs(n_users - 2_000) <= 0.03 * 2_000
    assert abs(n_active - 500) <= 0.06 * 500


@pytest.mark.parametrize("n_users", [40, 2_000, 20_000])
def test_users_forgotten_after_an_hour_leave_the_sessions_estimate_within_two_per_cent(n_users: int) -> None:
    """Nothing but the newest hour is kept user by user; the session goes on from a sketch of all of them."""
    errors = []
    for seed in range(4):
        users, random = DistinctUsers(), Random(seed)
        who = [random.randrange(TOKEN_SPACE) for _ in range(n_users)]
        for hour in range(3):  # the first third, then the second, the last; each comes back in the next hour too
            here = who[max(0, hour - 1) * n_users // 3 : (hour + 1) * n_users // 3]
            seen(users, [Sight(one, NOW_S + hour * HOUR_S + place % 600) for place, one in enumerate(here)])
            users.windows(NOW_S + hour * HOUR_S + 600)
        users.windows(NOW_S + 4 * HOUR_S + 1_000)
        assert len(users.people) <= 32
        errors.append(users.session_counts()[0] / n_users - 1)
        seen(users, [Sight(one, NOW_S + 5 * HOUR_S) for one in who])  # all of them again: nobody new
        errors.append(users.session_counts()[0] / n_users - 1)
    assert rms(errors) <= 0.02


def test_when_the_crowd_has_gone_few_users_are_told_as_they_are() -> None:
    """What was sampled is forgotten an hour later: a peak must not blur the rest of the day."""
    users = seen(DistinctUsers(), steady(1, 60_000, 10))
    later_s = NOW_S + 3 * HOUR_S
    users.windows(later_s)
    few = [Sight(token(n), later_s + n, is_active=n % 3 == 0) for n in range(300)]
    seen(users, few)
    told, expected = users.windows(later_s + 300)[-1], true_windows(few, later_s + 300, users.zero_s)[-1]
    assert abs(told[0] / expected[0] - 1) <= 0.02


def test_one_event_ahead_of_its_time_does_not_empty_the_windows() -> None:
    """A producer's clock may be five minutes ahead: its events wait for their time, the others go on counting."""
    sights = steady(2, CAPACITY, 10)
    users = seen(DistinctUsers(), sights)
    users.windows(NOW_S)
    seen(users, [Sight(token(n), NOW_S + 299) for n in range(1, 12)])  # one of them is one too many to keep
    now = [Sight(token(n), NOW_S + n % 5) for n in range(100, 1_100)]
    seen(users, now)
    exact = true_windows(sights + now, NOW_S + 5, users.zero_s)[0][0]
    assert abs(users.windows(NOW_S + 5)[0][0] / exact - 1) <= 0.2  # twice the error of so small a sample


# -- memory and snapshots ---------------------------------------------------------------------------------------


def test_memory_is_bounded_however_many_come() -> None:
    users, random = DistinctUsers(capacity=500), Random(1)
    largest = 0
    for second in range(3 * HOUR_S):
        for _ in range(4):
            seen(users, [Sight(random.randrange(TOKEN_SPACE), NOW_S + second, random.random() < 0.3)])
        if second % 5 == 0:
            users.windows(NOW_S + second)
        assert len(users.people) <= 500
        largest = max(largest, sum(len(zone) for zone in users.zones))
    assert largest <= 65 + 50 + 42 + 47 + 8
    assert len(msgspec.msgpack.encode(users)) < 2 * 500 * 15 + 2 * 4_200 + 250 * 15


def test_a_room_that_lies_still_keeps_nobody() -> None:
    users = seen(DistinctUsers(), steady(5, 5_000, 10))
    assert len(users.people) == 5_000
    for minute in range(0, 130, 10):
        users.windows(NOW_S + minute * 60)
    assert len(users.people) <= 32
    assert len(msgspec.msgpack.encode(users)) <= 10_000


@given(
    st.integers(0, 10**6),
    st.sampled_from((5, 60, 10_000)),
    st.lists(st.integers(0, 400), max_size=4),
    st.integers(0, 400),
)
def test_users_that_come_back_from_a_snapshot_in_mid_stream_give_the_same_answers(
    seed: int, capacity: int, cuts: list[int], session_at: int
) -> None:
    random = Random(seed)
    whole, cut, now_s = DistinctUsers(capacity=capacity), DistinctUsers(capacity=capacity), NOW_S
    for place in range(400):
        now_s += random.choice((0, 1, 20, 20, 300))
        late_s = random.choice((0, 0, 5, 200, 4_000))
        sight = Sight(token(random.randrange(200)), now_s - late_s, random.random() < 0.3, random.random() < 0.9)
        if place in cuts:
            cut = again(cut)
        for users in (whole, cut):
            seen(users, [sight])
            if place == session_at:
                users.begin_session(now_s)
        if place % 20 == 0:
            assert cut.windows(now_s) == whole.windows(now_s)
        assert cut.session_counts() == whole.session_counts()
    assert cut.windows(now_s) == whole.windows(now_s)
    assert again(cut) == whole


# -- what is noted about a user ---------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.integers(1, 6).map(token), st.sampled_from((0, 1, 5, 2**TAG_BITS - 1)), st.booleans(), st.booleans()
        ),
        max_size=40,
    )
)
def test_a_user_is_known_under_the_newest_tag_alone_and_tags_count_nowhere(
    steps: list[tuple[int, int, bool, bool]],
) -> None:
    users, plain, tags = DistinctUsers(), DistinctUsers(), dict[int, int]()
    for place, (who, tag, is_noted, is_active) in enumerate(steps):
        assert users.see(who, NOW_S + place, tag, active=is_active) == (tags.get(who) == tag)
        plain.see(who, NOW_S + place, 0, active=is_active)
        tags.setdefault(who, 0)
        if is_noted:
            users.tag(who, tag)
            tags[who] = tag
        users.tag(token(99), tag)  # nobody was seen under this one
    users = again(users)
    for who, tag in tags.items():
        assert users.see(who, NOW_S, tag, active=False)
    assert users.windows(NOW_S + 50) == plain.windows(NOW_S + 50)
    assert users.session_counts() == plain.session_counts()


@pytest.mark.parametrize("gap_s", [13 * HOUR_S, 400 * 24 * HOUR_S, 10_000 * 24 * HOUR_S])
def test_a_room_that_wakes_after_however_long_counts_anew(gap_s: int) -> None:
    """Seconds are kept short, from a zero of the room's own that moves on."""
    users = seen(DistinctUsers(), [Sight(token(n), NOW_S + n) for n in range(20)])
    later_s = NOW_S + gap_s
    fresh = [Sight(token(n), later_s + n % 7, is_active=n % 2 == 0) for n in range(15, 40)]
    seen(users, fresh)
    assert users.windows(later_s + 10) == true_windows(fresh, later_s + 10, users.zero_s)
    assert abs(users.session_counts()[0] - 40) <= 1  # 5 of them were there before
    users.begin_session(later_s + 20)
    seen(users, [Sight(token(n), later_s + 20 + n) for n in range(3)])
    assert users.session_counts() == (3, 0)
    seen(users, [Sight(token(1), 5)])  # as late as can be: in no window
    assert users.windows(later_s + 30)[-1] == (28, 12)


# -- in a room --------------------------------------------------------------------------------------------------


def users_of(log: Partition) -> int:
    n_users: int = log.session()["n_users"]
    return n_users


def test_a_user_who_was_there_before_the_start_counts_in_the_session_too() -> None:
    """The room's first event is its `start`; a view from just before it comes late."""
    log = Partition().at(10, "room", action="start")
    log.enter(11, late_s=3, user_id="early").enter(20, user_id="early")
    assert users_of(log) == 1


def test_a_user_seen_in_the_second_of_the_start_counts_in_both_sessions() -> None:
    log = Partition().at(0, "room", action="start").at(5, "room", action="end")
    log.enter(1_000.1, user_id="viewer").at(1_000.5, "room", action="start")
    assert users_of(log) == 0
    assert users_of(log.enter(1_010, user_id="viewer").tick(1_020)) == 1


def test_a_users_second_look_in_the_second_of_the_start_is_no_second_user() -> None:
    log = Partition().at(0, "room", action="start").at(5, "room", action="end").at(1_000.5, "room", action="start")
    for second in (1_000.6, 1_000.9, 1_002):
        log.enter(second, user_id="viewer")
    assert users_of(log) == 1


def test_nobody_told_apart_is_unknown_and_not_zero() -> None:
    assert "n_users" not in Partition().enter(1).session()
    assert users_of(Partition().enter(1, user_id="viewer")) == 1
