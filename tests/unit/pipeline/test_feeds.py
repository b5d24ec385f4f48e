"""Live, quiet, late, dead: a silent room is no fault, a silent producer is."""

from __future__ import annotations

import json

import pytest

from pipeline import Engine
from pipeline.feeds import BY_PEOPLE, FEED_OF, Feed
from schemas.settings import FeedSettings
from tests.strategies import START_MS

SETTINGS = FeedSettings(
    quiet_after_s=120, late_after_s=60, dead_after_s=180, gap_factor_late=5, gap_factor_dead=15, min_gaps=10
)
LATE_MS, DEAD_MS, QUIET_MS = 60_000, 180_000, 120_000


def with_gaps(gap_ms: int, n: int = 30) -> Feed:
    """Return a feed without heartbeats whose last event of `n` came at START_MS."""
    feed = Feed()
    for place in range(n):
        feed.event(START_MS - (n - 1 - place) * gap_ms)
    return feed


def with_heartbeat(*, last_event_ms: int, expected_lag_s: int | None = None) -> Feed:
    feed = Feed()
    feed.event(last_event_ms)
    feed.heartbeat(START_MS, expected_lag_s)
    return feed


@pytest.mark.parametrize("name", sorted(set(FEED_OF.values())))
def test_without_news_nothing_is_known(name: str) -> None:
    feed = Feed()
    assert feed.state(name, START_MS, SETTINGS) is None
    assert feed.freshness_ms(START_MS) is None
    assert feed.next_change_ms(START_MS, SETTINGS) is None


@pytest.mark.parametrize("name", ["view", "order"])
@pytest.mark.parametrize(
    ("after_ms", "expected"),
    #  complete through                 late after       dead after
    #  |------------ live --------------|------ late -----|---- dead
    [(0, "live"), (LATE_MS, "live"), (LATE_MS + 1, "late"), (DEAD_MS, "late"), (DEAD_MS + 1, "dead")],
)
def test_heartbeats_tell_a_feeds_state(name: str, after_ms: int, expected: str) -> None:
    feed = with_heartbeat(last_event_ms=START_MS)
    assert feed.state(name, START_MS + after_ms, SETTINGS) == expected
    assert feed.freshness_ms(START_MS + after_ms) == after_ms


@pytest.mark.parametrize("name", ["view", "order"])
def test_a_feed_that_is_complete_while_nothing_happens_is_quiet(name: str) -> None:
    feed = with_heartbeat(last_event_ms=START_MS - QUIET_MS)
    assert feed.state(name, START_MS, SETTINGS) == "live"
    assert feed.state(name, START_MS + 1, SETTINGS) == "quiet"
    assert feed.state(name, START_MS + DEAD_MS + 1, SETTINGS) == "dead"


def test_a_feed_may_say_how_late_it_usually_is() -> None:
    feed = with_heartbeat(last_event_ms=START_MS, expected_lag_s=300)
    assert feed.state("order", START_MS + 300_000 + LATE_MS, SETTINGS) != "late"
    assert feed.state("order", START_MS + 300_000 + LATE_MS + 1, SETTINGS) == "late"
    assert feed.state("order", START_MS + 300_000 + DEAD_MS + 1, SETTINGS) == "dead"


def test_without_heartbeats_a_feed_is_judged_after_enough_gaps() -> None:
    assert with_gaps(1_000, n=10).state("view", START_MS, SETTINGS) is None
    assert with_gaps(1_000, n=11).state("view", START_MS, SETTINGS) == "live"


def test_without_heartbeats_a_machines_feed_is_judged_by_its_usual_gap() -> None:
    slow = with_gaps(30_000)
    #  usual gap 30 s: late after 5 of them, dead after 15
    assert slow.state("spend", START_MS + 150_000, SETTINGS) in ("live", "quiet")
    assert slow.state("spend", START_MS + 150_001, SETTINGS) == "late"
    assert slow.state("spend", START_MS + 450_001, SETTINGS) == "dead"
    # A quick one is given the plain limits all the same.
    quick = with_gaps(100)
    assert quick.state("view", START_MS + LATE_MS, SETTINGS) == "live"
    assert quick.state("view", START_MS + DEAD_MS + 1, SETTINGS) == "dead"


@pytest.mark.parametrize("name", BY_PEOPLE)
def test_people_fall_silent_without_anything_being_broken(name: str) -> None:
    assert with_gaps(1_000).state(name, START_MS + 86_400_000, SETTINGS) == "late"


def test_late_events_do_not_make_a_feed_newer_or_slower() -> None:
    feed, same = with_gaps(1_000), with_gaps(1_000)
    feed.event(START_MS - 500_000)
    assert feed == same


def test_an_older_heartbeat_takes_nothing_back() -> None:
    feed = with_heartbeat(last_event_ms=START_MS)
    feed.heartbeat(START_MS - 100_000, None)
    assert feed.freshness_ms(START_MS) == 0


@pytest.mark.parametrize("feed", [with_gaps(1_000), with_heartbeat(last_event_ms=START_MS - 5_000), with_gaps(40_000)])
def test_the_next_change_is_the_moment_at_which_the_state_changes(feed: Feed) -> None:
    now_ms, n_changes = START_MS, 0
    while (next_ms := feed.next_change_ms(now_ms, SETTINGS)) is not None:
        assert next_ms > now_ms
        before = feed.state("view", now_ms, SETTINGS)
        for moment in range(now_ms, next_ms, max(1, (next_ms - now_ms) // 50)):
            assert feed.state("view", moment, SETTINGS) == before
        now_ms, n_changes = next_ms, n_changes + 1
    assert 2 <= n_changes <= 3
    assert feed.state("view", now_ms, SETTINGS) == "dead"


def test_the_state_goes_out_with_the_signals_when_time_alone_changes_it() -> None:
    engine = Engine()
    events = [
        {"type": "view", "action": "enter", "session_id": "s", "ts": START_MS},
        {"type": "feed", "feed": "view", "complete_through_ts": START_MS, "ts": START_MS},
        {"type": "tick", "ts": START_MS + 20_000},
        {"type": "tick", "ts": START_MS + 900_000},
    ]
    outputs = engine.process(
        (n, event["ts"], json.dumps({"event_id": f"e{n}", "room_id": "room-1", **event}).encode())  # type: ignore[misc]
        for n, event in enumerate(events)
    )
    told = [json.loads(output.json()) for output in outputs if output.topic == "room.signals"]
    states = [signals["windows"]["session"].get("feed_state", {}).get("view") for signals in told]
    seen = [state for place, state in enumerate(states) if place == 0 or state != states[place - 1]]
    assert [state for state in seen if state] == ["live", "late", "dead"]
