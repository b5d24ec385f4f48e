"""A cursor over a transport that drops, repeats and delays: every record once, in order, none left out."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agents.intake import RETRY_S, Cursor

FETCH_S = 0.1


def fetch(log: list[int], position: int, size: int) -> list[int]:
    """Return up to `size` offsets that the log has from `position` on."""
    return [offset for offset in log if offset >= position][:size]


@given(data=st.data())
def test_every_record_is_taken_once_in_order_though_each_may_be_lost_once(data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.sampled_from((1, 1, 1, 2, 7)), min_size=1, max_size=40), label="gaps of the log")
    log = [100]
    for step in steps:
        log.append(log[-1] + step)
    cursor = Cursor(data.draw(st.sampled_from((0, 100, 103)), label="committed"))
    begin, position, now_s = cursor.next, cursor.next, 0.0
    taken: list[int] = []
    lost: set[int] = set()
    on_its_way: list[tuple[float, list[int]]] = []
    end, n_rounds = log[-1], 0
    while cursor.next <= end:
        n_rounds += 1
        assert n_rounds < 1_000, "the cursor does not get on"
        fetched_s, now_s = now_s, now_s + FETCH_S
        chunk = fetch(log, position, data.draw(st.integers(1, 9)) if n_rounds < 100 else 9)
        if not chunk:  # what was lost at the end shows with the next record: a tick comes every half second
            log.append(log[-1] + 1)
            continue
        position = chunk[-1] + 1
        fault = "none"
        if n_rounds < 100 and not lost & set(chunk):
            fault = data.draw(st.sampled_from(("none", "none", "lost", "twice", "late")))
        if fault == "lost":
            lost.update(chunk)
            continue
        on_its_way += [(fetched_s, chunk)] * (2 if fault == "twice" else 1)
        if fault == "late":
            continue
        for began_s, arrived in on_its_way:
            wanted = cursor.next
            verdict = cursor.judge(arrived[0], arrived[-1], fetched_s=began_s, now_s=now_s)
            if verdict == "take":
                taken += [offset for offset in arrived if offset >= wanted]
            elif verdict == "read_again":
                position = wanted
                now_s += FETCH_S
                cursor.asked(now_s)
        on_its_way.clear()
        now_s += FETCH_S
    assert taken == [offset for offset in log if begin <= offset < cursor.next]
    assert all(one < other for one, other in pairwise(taken))


def test_a_hole_that_is_missing_again_is_missing_in_the_log() -> None:
    # wanted 10; the log goes on at 15 (retention, or a transaction's markers)
    cursor = Cursor(10)
    assert cursor.judge(15, 20, fetched_s=0.0, now_s=0.0) == "read_again"
    cursor.asked(0.1)
    assert cursor.judge(15, 20, fetched_s=0.2, now_s=0.3) == "take"
    assert cursor.next == 21


def test_records_on_their_way_when_the_hole_was_seen_do_not_hide_it() -> None:
    cursor = Cursor(10)
    assert cursor.judge(20, 29, fetched_s=0.0, now_s=0.0) == "read_again"
    cursor.asked(0.1)
    assert cursor.judge(20, 29, fetched_s=0.0, now_s=0.2) == "wait"  # the same ones delivered twice
    assert cursor.judge(30, 39, fetched_s=0.05, now_s=0.2) == "wait"
    assert cursor.judge(10, 19, fetched_s=0.2, now_s=0.3) == "take"
    assert cursor.judge(20, 29, fetched_s=0.2, now_s=0.3) == "take"


def test_a_reading_that_does_not_come_is_asked_for_again() -> None:
    cursor = Cursor(10)
    assert cursor.judge(20, 29, fetched_s=0.0, now_s=0.0) == "read_again"
    cursor.asked(0.1)
    assert cursor.judge(30, 39, fetched_s=0.0, now_s=RETRY_S / 2) == "wait"
    assert cursor.judge(40, 49, fetched_s=0.0, now_s=0.1 + RETRY_S) == "read_again"
