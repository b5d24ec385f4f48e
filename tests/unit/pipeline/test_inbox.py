"""Events that wait in their room are as if they had not: same messages, same state, whoever looks and whenever."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import Engine, Output
from pipeline.apply import KINDS
from pipeline.inbox import CAPACITY, LARGEST_BYTES, Inbox
from pipeline.room import RoomState
from schemas import topics
from schemas.decode import STRUCTS
from schemas.settings import CurrencySettings, Settings
from tests.scenario import RATES, scenario
from tests.strategies import START_MS

Log = list[tuple[int, int, bytes]]
Told = list[tuple[str, str, bytes]]
ROOM = "room-1"


class BrokenError(Exception):
    """Stands for any error of the program."""


def engine() -> Engine:
    return Engine(Settings(trust_log=True, currency=CurrencySettings(rates=RATES)))


def shown(outputs: list[Output]) -> Told:
    return [(output.topic, output.key, output.json()) for output in outputs]


def long_log(seed: int, n_records: int = 1_500) -> Log:
    return [(line.offset, line.timestamp, line.value) for line in scenario(seed, n_records)]


def enters(n: int, *, step_ms: int = 1, **fields: Any) -> Log:
    """Return viewers who come one after the other."""
    log = []
    for place in range(n):
        event = {"type": "view", "action": "enter", "event_id": f"e-{place}", "room_id": ROOM, "session_id": "s"}
        ts = START_MS + place * step_ms
        log.append((place, ts, json.dumps(event | {"ts": ts, "user_id": f"u-{place}"} | fields).encode()))
    return log


def most_waiting(subject: Engine, log: Log) -> int:
    """Process a log record by record; return how many events waited in one room at most."""
    most = 0
    for record in log:
        subject.process([record])
        most = max(most, *(len(inbox.waiting) // 4 for inbox in subject._inboxes.values()), 0)
    return most


@pytest.fixture
def break_on_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the program fail on one viewer."""

    def make(user_id: str) -> None:
        struct = STRUCTS["view"]
        known = KINDS[struct]

        def handler(room: RoomState, event: Any, now_ms: int, ctx: Any) -> None:
            if event.user_id == user_id:
                raise BrokenError
            assert known.handler is not None
            known.handler(room, event, now_ms, ctx)

        monkeypatch.setitem(KINDS, struct, known._replace(handler=handler))

    return make


@pytest.mark.parametrize("seed", range(1, 9))
def test_nobody_can_tell_whether_events_waited(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log = long_log(seed)
    waiting, at_once = engine(), engine()
    told = shown(waiting.process(log))
    with monkeypatch.context() as patched:
        patched.setattr(Inbox, "open", lambda *_: None)
        expected = shown(at_once.process(log))
    assert most_waiting(engine(), log) > 1
    assert told == expected
    assert waiting.snapshot() == at_once.snapshot()
    assert waiting.summary() == at_once.summary()


@pytest.mark.parametrize("look", ["counters", "summary", "snapshot", "checkpoint", "save", "catch_up"])
def test_looking_changes_nothing(look: str) -> None:
    log = long_log(5, 600)
    watched, alone = engine(), engine()
    told: list[Output] = []
    for record in log:
        told += watched.process([record])
        if look == "counters":
            assert watched.counters.n_records > 0
        elif look == "save":
            for room_id in watched.checkpoint().rooms:
                assert watched.save(room_id).told == ()
        else:
            getattr(watched, look)()
    assert shown(told) == shown(alone.process(log))
    assert watched.snapshot().keys() == alone.snapshot().keys()
    assert watched.summary() == alone.summary()


def test_what_waits_is_bounded_in_number_and_in_bytes() -> None:
    assert most_waiting(engine(), enters(10 * CAPACITY)) == CAPACITY - 1
    assert most_waiting(engine(), enters(10 * CAPACITY, ip="1" * 45, more="x" * LARGEST_BYTES)) == 0


def test_a_checkpoint_names_rooms_in_which_something_waits() -> None:
    subject = engine()
    subject.process(enters(1))
    subject.save(ROOM)  # with nothing waiting, so that more may wait at once
    assert subject.checkpoint().rooms == ()
    subject.process(enters(3)[1:])
    assert len(subject._inboxes[ROOM].waiting) // 4 == 2
    assert ROOM not in subject._dirty
    assert subject.checkpoint().rooms == (ROOM,)


@pytest.mark.parametrize("looks", [False, True])
def test_an_event_that_breaks_its_room_while_it_waits_is_told_as_of_its_own_moment(
    looks: bool,
    break_on_user: Callable[[str], None],
) -> None:
    log = enters(6)
    break_on_user("u-3")
    subject = engine()
    told = subject.process(log)
    assert told == []
    assert len(subject._inboxes[ROOM].waiting) // 4 == 5
    told += subject.save(ROOM).told if looks else subject.process([(6, START_MS + 1_000, log[0][2])])
    anomaly = next(json.loads(out.json()) for out in told if out.topic == topics.ROOM_ANOMALIES)
    assert (anomaly["code"], anomaly["params"], anomaly["ts"]) == (
        "engine_error", {"offset": 3, "error": "BrokenError"}, log[3][1],
    )  # fmt: skip
    letters = [json.loads(out.json()) for out in told if out.topic == topics.ROOM_EVENTS_DLQ]
    assert [(letter["offset"], letter["ts"]) for letter in letters[:3]] == [(n, log[n][1]) for n in (3, 4, 5)]
    counted = subject.counters
    assert (counted.n_events, counted.rejects["engine_error"]) == (3, len(letters))


def test_a_room_that_broke_while_nobody_could_be_told_is_told_with_the_next_records(
    break_on_user: Callable[[str], None],
) -> None:
    break_on_user("u-3")
    subject = engine()
    subject.process(enters(6))
    assert subject.counters.rejects == {"engine_error": 3}
    topics_told = [out.topic for out in subject.process([])]
    assert topics_told == [topics.ROOM_ANOMALIES, *[topics.ROOM_EVENTS_DLQ] * 3]


@pytest.mark.parametrize("n_behind", [0, 3])
@pytest.mark.parametrize("saves_between", [False, True])
def test_dead_letters_of_a_key_come_in_the_order_of_the_log(
    n_behind: int, *, saves_between: bool, break_on_user: Callable[[str], None]
) -> None:
    """Also where the room breaks on an event that waited while a record under its key was no event at all."""
    break_on_user("u-6")
    records = [(*record, ROOM.encode()) for record in enters(7 + n_behind)]
    bad = (7 + n_behind, START_MS + 20, b"{no json", ROOM.encode())
    log = [*records, bad, (bad[0] + 1, *records[0][1:])]
    subject = engine()
    outputs = subject.process(records)
    assert most_waiting(engine(), enters(7)) > 0
    if saves_between:
        outputs += subject.save(ROOM).told
    outputs += subject.process(log[len(records) :])
    outputs += subject.catch_up()
    letters = [json.loads(value) for topic, _, value in shown(outputs) if topic == topics.ROOM_EVENTS_DLQ]
    assert [letter["offset"] for letter in letters] == list(range(6, bad[0] + 2))
    assert [letter["reason"] for letter in letters].count("engine_error") == n_behind + 2


MARKED = {
    "user_id": "MARKED-user", "device_id": "MARKED-device", "ip": "203.0.113.77", "session_id": "MARKED-session",
    "nickname": "MARKED-name",
}  # fmt: skip


def test_what_viewers_are_called_and_wrote_is_in_no_state_no_message_and_no_log_line_while_it_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is in memory as long as it waits, and in dead letters, which hold the record itself (docs/how-it-works.md)."""
    caplog.set_level("DEBUG")
    subject, n_waiting, states, told = engine(), 0, list[bytes](), list[Output]()
    kinds: list[dict[str, Any]] = [
        {"type": "view", "action": "enter"},
        {"type": "comment", "text": "MARKED text 203.0.113.77"},
        {"type": "interaction", "action": "like"},
        {"type": "order", "order_id": "o", "status": "paid", "amount_minor": 5, "currency": "CNY"},
        {"type": "view", "action": "leave", "dwell_ms": 3_000},
    ]
    for place in range(400):
        event = {**kinds[place % 5], **MARKED, "event_id": f"e-{place}", "room_id": ROOM, "ts": START_MS + 40 * place}
        event["user_id"] += str(place % 20)
        told += subject.process([(place, START_MS + 40 * place, json.dumps(event).encode())])
        n_waiting += any(inbox.waiting for inbox in subject._inboxes.values())
        states.append(subject.checkpoint().star)
        if place % 7 == 0:
            saved = subject.save(ROOM)
            states += [data for _, data in saved.parts]
            told += saved.told
    assert n_waiting > 100
    states += subject.snapshot().values()
    topics_told = {output.topic for output in told}
    assert topics.ROOM_SIGNALS in topics_told
    assert topics.ROOM_EVENTS_DLQ not in topics_told
    shown_or_kept = b"".join([*states, *(output.json() for output in told), caplog.text.encode()])
    for raw in (b"MARKED", b"203.0.113"):
        assert raw not in shown_or_kept
