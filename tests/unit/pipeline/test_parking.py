"""A room that breaks the program stands aside, is told of, and disturbs nobody; an operator lets it begin anew."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import Engine, Output
from pipeline.apply import KINDS
from pipeline.visits import Visits
from schemas import topics
from schemas.decode import STRUCTS
from schemas.settings import CurrencySettings, Settings
from tests.partition import ROOM, Partition
from tests.scenario import RATES, ROOMS, scenario
from tests.strategies import START_MS

Message = dict[str, Any]
Log = list[tuple[int, int, bytes]]
Told = tuple[str, str, bytes]
VICTIM = ROOMS[1]
SECRET = "what a viewer wrote"


class BrokenError(Exception):
    """Stands for any error of the program."""


@pytest.fixture
def break_on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the program fail on some events of a type in one room."""

    def make(kind: str, room_id: str, when: Callable[[Any], bool], error: type[Exception] = BrokenError) -> None:
        struct = STRUCTS[kind]
        known = KINDS[struct]

        def handler(room: Any, event: Any, now_ms: int, ctx: Any) -> None:
            if room.room_id == room_id and when(event):
                raise error(SECRET)
            assert known.handler is not None
            known.handler(room, event, now_ms, ctx)

        monkeypatch.setitem(KINDS, struct, known._replace(handler=handler))

    return make


@pytest.fixture
def break_visits(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Make the program fail when it looks at one room from a moment on, as late in the visit as can be."""

    def make(room_id: str, since_ms: int) -> None:
        kept = Visits.schedule

        def schedule(visits: Visits, room: Any, now_ms: int, *rest: Any) -> None:
            kept(visits, room, now_ms, *rest)
            if room.room_id == room_id and now_ms >= since_ms:
                raise BrokenError(SECRET)

        monkeypatch.setattr(Visits, "schedule", schedule)

    return make


def trusting() -> Engine:
    return Engine(Settings(trust_log=True, currency=CurrencySettings(rates=RATES)))


def shown(outputs: list[Output]) -> list[Told]:
    return [(output.topic, output.key, output.json()) for output in outputs]


def elements_of(value: bytes) -> list[Any]:
    """Return a value's elements; none for what is not JSON."""
    try:
        made = json.loads(value)
    except ValueError:
        return []
    return made if isinstance(made, list) else [made]


def room_of(value: bytes) -> str | None:
    """Return the room that a record is about; None for what no room can be told of."""
    for element in elements_of(value):
        if isinstance(element, dict) and isinstance(element.get("room_id"), str):
            return str(element["room_id"])
    return None


def long_log(n_records: int = 1_200) -> Log:
    return [(line.offset, line.timestamp, line.value) for line in scenario(5, n_records)]


def without(log: Log, room_id: str) -> Log:
    """Return a log in which a room's records are ticks: time goes on as it did."""
    tick = {"type": "tick", "room_id": "*", "ts": START_MS}
    return [
        (offset, stamp, value)
        if room_of(value) != room_id
        else (offset, stamp, json.dumps({**tick, "event_id": f"t-{offset}"}).encode())
        for offset, stamp, value in log
    ]


def about_others(outputs: list[Told]) -> list[Told]:
    """Return what was told of every other room and of the partition, but for dead letters."""
    return [told for told in outputs if told[1] != VICTIM and told[0] != topics.ROOM_EVENTS_DLQ]


def dead_letters(outputs: list[Told], reason: str = "engine_error") -> list[Message]:
    found = [json.loads(value) for topic, _, value in outputs if topic == topics.ROOM_EVENTS_DLQ]
    return [letter for letter in found if letter["reason"] == reason]


def anomalies(outputs: list[Told], room_id: str = VICTIM) -> list[Message]:
    return [json.loads(value) for topic, key, value in outputs if (topic, key) == (topics.ROOM_ANOMALIES, room_id)]


def chain_is_whole(outputs: list[Told], room_id: str) -> bool:
    """Tell whether every entry of a room's trail that was sent names the one sent before it."""
    trail = [json.loads(value) for topic, key, value in outputs if (topic, key) == (topics.AUDIT_LOG, room_id)]
    heads = ["", *(entry["hash"] for entry in trail)]
    return [entry["prev_hash"] for entry in trail] == heads[:-1]


def adds_up(engine: Engine, log: Log) -> None:
    """Compare what was counted with the elements there were."""
    counters = engine.counters
    n_whole = sum(1 for _, _, value in log if not elements_of(value))
    n_elements = n_whole + sum(len(elements_of(value)) for _, _, value in log)
    assert counters.n_records == len(log)
    assert counters.n_events + counters.n_duplicates + sum(counters.rejects.values()) == n_elements
    summary = engine.summary()
    assert [summary[name] for name in ("n_events", "n_duplicates")] == [counters.n_events, counters.n_duplicates]


BREAKS = [150, 151, 400, 1_000]
"""Records from which the room's next gift breaks it: before much was seen, in the middle, near the end."""


@pytest.mark.parametrize("since", BREAKS)
def test_a_room_that_breaks_while_an_event_is_applied_stands_aside_alone(
    since: int, break_on: Callable[..., None]
) -> None:
    log = long_log()
    expected = about_others(shown(trusting().process(without(log, VICTIM))))
    break_on("gift", VICTIM, lambda event: event.ts >= log[since][1])
    engine = trusting()
    outputs = shown(engine.process(log))
    letters = dead_letters(outputs)
    assert letters
    broke_at = letters[0]["offset"]
    assert about_others(outputs) == expected
    # From the record that broke it on, every element of its own is a dead letter, from which it can be written again.
    of_room = [(offset, value) for offset, _, value in log if room_of(value) == VICTIM and offset > broke_at]
    for offset, value in of_room:
        told = [letter for letter in letters if letter["offset"] == offset]
        bad = [letter for letter in dead_letters_of(outputs, offset) if letter["reason"] != "engine_error"]
        assert len(told) + len(bad) == max(1, len(elements_of(value)))
        for letter in told:
            place = letter.get("index")
            kept = json.loads(base64.b64decode(letter["payload_b64"]))
            assert kept == (json.loads(value) if place is None else elements_of(value)[place])
    # Nothing is told of it any more: no signal, no command, and one anomaly.
    after = [told for told in outputs[outputs.index(first_anomaly(outputs)) + 1 :] if told[1] == VICTIM]
    assert after == [told for told in after if told[0] == topics.ROOM_EVENTS_DLQ]
    assert chain_is_whole(outputs, VICTIM)
    adds_up(engine, log)


def dead_letters_of(outputs: list[Told], offset: int) -> list[Message]:
    found = [json.loads(value) for topic, _, value in outputs if topic == topics.ROOM_EVENTS_DLQ]
    return [letter for letter in found if letter["offset"] == offset]


def first_anomaly(outputs: list[Told]) -> Told:
    """Return the message that the room was parked."""
    return next(
        told for told in outputs if told[:2] == (topics.ROOM_ANOMALIES, VICTIM) and b'"engine_error"' in told[2]
    )


@pytest.mark.parametrize("since", BREAKS)
def test_a_room_that_breaks_while_it_is_looked_at_stands_aside_alone(
    since: int, break_visits: Callable[[str, int], None]
) -> None:
    log = long_log()
    expected = about_others(shown(trusting().process(without(log, VICTIM))))
    break_visits(VICTIM, log[since][1])
    engine = trusting()
    outputs = shown(engine.process(log))
    assert about_others(outputs) == expected
    place = outputs.index(first_anomaly(outputs))
    after = [told for told in outputs[place + 1 :] if told[1] == VICTIM]
    assert after == [told for told in after if told[0] == topics.ROOM_EVENTS_DLQ]
    assert len(dead_letters(outputs)) > 10
    # What the visit was about to tell when it broke is not told: entries of the trail neither.
    assert chain_is_whole(outputs, VICTIM)
    adds_up(engine, log)


def test_a_visit_that_breaks_leaves_no_count_of_what_was_not_told(break_visits: Callable[[str, int], None]) -> None:
    log = long_log()
    for since in range(100, 1_100, 100):
        with pytest.MonkeyPatch.context():
            break_visits(VICTIM, log[since][1])
            engine = trusting()
            outputs = shown(engine.process(log))
        room = engine.summary()["rooms"][VICTIM]
        told = {one["anomaly_id"]: one["severity"] for one in reversed(anomalies(outputs)) if one["status"] == "open"}
        counted = {grade: list(told.values()).count(grade) for grade in ("S1", "S2", "S3", "S4")}
        assert room["n_anomalies"] == counted


@pytest.mark.parametrize("way", ["apply", "visit"])
def test_a_parked_room_is_parked_after_a_snapshot_too(
    way: str, break_on: Callable[..., None], break_visits: Callable[[str, int], None]
) -> None:
    log = long_log(700)
    if way == "apply":
        break_on("gift", VICTIM, lambda event: event.ts >= log[200][1])
    else:
        break_visits(VICTIM, log[200][1])
    whole = trusting()
    expected = shown(whole.process(log))
    outputs: list[Output] = []
    engine = trusting()
    for record in log:
        outputs += engine.process([record])
        states = engine.snapshot()
        engine = trusting()
        engine.restore(states)
    assert shown(outputs) == expected
    assert engine.summary() == whole.summary()
    # And whoever comes back to an earlier record skips what the room knows already, its breaking too.
    assert [told for told in shown(engine.process(log)) if told[1] == VICTIM] == []
    assert engine.summary() == whole.summary()


def test_a_control_that_breaks_a_room_leaves_its_trail_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not sent must not be the link between what is."""
    made = Partition().enter(0).control(1, "set_mode", mode="shadow")
    with monkeypatch.context() as patched:

        def broken(*_: Any) -> None:
            raise BrokenError

        patched.setattr("pipeline.control.RoomControl.apply", broken)
        made.control(2, "set_mode", mode="off")
    made.control(3, "resolve_anomaly", anomaly_id=made.anomalies()[0]["anomaly_id"])
    made.control(4, "set_mode", mode="shadow")
    assert [entry["content"]["action"] for entry in made.trail()] == ["set_mode", "resolve_anomaly", "set_mode"]
    assert chain_is_whole(shown(made.outputs), ROOM)


# -- one room, step by step -------------------------------------------------------------------------------------


@pytest.fixture
def log(break_on: Callable[..., None]) -> Partition:
    """A room that breaks on every gift of seven."""
    break_on("gift", ROOM, lambda event: event.amount_minor == 7)
    made = Partition().enter(0, user_id="viewer").at(1, "comment", text="666").ticks(1, 6)
    return made.at(7, "gift", amount_minor=7, currency="CNY")


def rejects(log: Partition) -> list[Message]:
    return log.messages(topics.ROOM_EVENTS_DLQ)


def test_a_parked_room_is_an_anomaly_of_the_first_grade_for_the_engineers(log: Partition) -> None:
    (opened,) = log.anomalies()
    named = ("status", "severity", "owner", "code", "metric", "cause", "window_s", "ts", "room_id")
    told = [opened[name] for name in named]
    assert told == ["open", "S1", "tech", "engine_error", "engine", "unknown", 60, START_MS + 7_000, ROOM]
    assert opened["params"] == {"offset": log.n_records, "error": "BrokenError"}
    assert opened["runbook"].endswith("#engine_error")
    assert opened["ack_due_ts"] > opened["ts"]
    assert opened["resolve_due_ts"] > opened["ts"]
    assert log.engine.summary()["rooms"][ROOM]["n_anomalies"] == {"S1": 1, "S2": 0, "S3": 0, "S4": 0}


def test_the_dead_letter_says_what_to_do_and_never_what_a_viewer_wrote(log: Partition) -> None:
    (opened,) = log.anomalies()
    (letter,) = rejects(log)
    assert (letter["reason"], letter["offset"]) == ("engine_error", log.n_records)
    assert base64.b64decode(letter["payload_b64"]) == log.log[-1][2]
    for word in (opened["anomaly_id"], f"offset {log.n_records}", "BrokenError", "resolve"):
        assert word in letter["error"]
    assert SECRET not in json.dumps([opened, letter])
    assert SECRET.encode() not in b"".join(log.engine.snapshot().values())


def test_every_record_of_a_parked_room_is_a_dead_letter(log: Partition) -> None:
    n_before = log.engine.counters
    log.enter(8).at(9, "order", order_id="o", status="paid", amount_minor=5, currency="CNY")
    log.at(10, "room", action="start").control(11, "set_mode", mode="auto")
    log.at(12, "ack", command_id="c", status="applied").enter(8, event_id="e-1")  # a repeat of what it knew too
    assert [letter["reason"] for letter in rejects(log)] == ["engine_error"] * 7
    assert log.engine.counters.n_events == n_before.n_events
    assert log.ticks(12, 100, 5).signals() == [told for told in log.signals() if told["ts"] < START_MS + 7_000]
    assert len(log.anomalies()) == 1


def test_the_event_that_broke_it_counts_once_as_a_reject(log: Partition) -> None:
    counters = log.engine.counters
    n_ticks = 10
    assert (counters.n_events, counters.n_duplicates, counters.rejects) == (2 + n_ticks, 0, {"engine_error": 1})


def test_another_room_goes_on(log: Partition) -> None:
    log.enter(8, room_id="room-2", user_id="u").ticks(8, 20)
    assert [told["room_id"] for told in log.signals()][-1] == "room-2"
    assert log.engine.summary()["rooms"]["room-2"]["session"]["n_enters"] == 1


@pytest.mark.parametrize("args", [{"anomaly_id": "another"}, {}])
def test_only_its_own_anomaly_lets_a_room_begin_anew(log: Partition, args: Message) -> None:
    log.control(8, "resolve_anomaly", **args).control(9, "ack_anomaly", anomaly_id=log.anomalies()[0]["anomaly_id"])
    assert len(log.anomalies()) == 1
    assert [letter["reason"] for letter in rejects(log)][0::2] == ["engine_error", "engine_error"]
    assert len(rejects(log)) == 3
    assert log.engine.counters.n_events == 12


def test_resolving_the_anomaly_lets_the_room_begin_anew(log: Partition) -> None:
    opened = log.anomalies()[0]
    n_events = log.engine.counters.n_events
    log.control(8, "resolve_anomaly", anomaly_id=opened["anomaly_id"])
    resolved = log.anomalies()[-1]
    assert [resolved[name] for name in ("status", "anomaly_id", "code")] == [
        "resolved", opened["anomaly_id"], "engine_error",
    ]  # fmt: skip
    assert [entry["kind"] for entry in log.trail()] == ["control"]
    assert log.engine.counters.n_events == n_events + 1
    # Nothing of what it counted before is left, since nobody knows whether it was right.
    assert "n_enters" not in log.session()
    log.enter(9, user_id="viewer").enter(9, event_id="again").enter(9, event_id="again").ticks(9, 20)
    assert (log.session()["n_enters"], log.session()["n_users"]) == (2, 1)
    assert log.engine.counters.n_duplicates == 1
    assert log.signals()[-1]["windows"]["60"]["n_enters"] == 2
    revisions = [told["revision"] for told in log.signals()]
    assert revisions == list(range(1, len(revisions) + 1))


def test_what_was_refused_can_be_written_again(log: Partition) -> None:
    log.enter(8, user_id="viewer", event_id="refused")
    log.control(9, "resolve_anomaly", anomaly_id=log.anomalies()[0]["anomaly_id"])
    for letter in rejects(log):
        event = json.loads(base64.b64decode(letter["payload_b64"]))
        if event["type"] == "view":
            log.at(10, event.pop("type"), **event)
    log.ticks(10, 20)
    assert (log.session()["n_enters"], log.engine.counters.n_duplicates) == (1, 0)


def test_a_room_that_breaks_again_is_another_anomaly(log: Partition) -> None:
    log.control(8, "resolve_anomaly", anomaly_id=log.anomalies()[0]["anomaly_id"])
    log.at(9, "gift", amount_minor=7, currency="CNY")
    told = log.anomalies()
    assert [one["status"] for one in told] == ["open", "resolved", "open"]
    assert told[2]["anomaly_id"] != told[0]["anomaly_id"]
    # A control counts once: the first one's repeat resolves nothing.
    log.control(10, "resolve_anomaly", anomaly_id=told[0]["anomaly_id"], room_id=ROOM)
    assert len(log.anomalies()) == 3
    assert log.engine.summary()["rooms"][ROOM]["n_anomalies"]["S1"] == 2


def test_an_array_that_breaks_a_room_is_refused_from_that_element_on(break_on: Callable[..., None]) -> None:
    break_on("gift", ROOM, lambda event: event.amount_minor == 7)
    view = {"type": "view", "action": "enter", "session_id": "s", "room_id": ROOM, "ts": START_MS}
    gift = {"type": "gift", "amount_minor": 7, "currency": "CNY", "room_id": ROOM, "ts": START_MS}
    elements = [{**view, "event_id": "a"}, {**gift, "event_id": "b"}, {"bad": 1}, {**view, "event_id": "c"}]
    engine = Engine()
    outputs = shown(engine.process([(5, START_MS, json.dumps(elements).encode())]))
    letters = dead_letters_of(outputs, 5)
    assert sorted((letter["index"], letter["reason"]) for letter in letters if letter["index"] != 2) == [
        (1, "engine_error"), (3, "engine_error"),
    ]  # fmt: skip
    for letter in letters:
        assert json.loads(base64.b64decode(letter["payload_b64"])) == elements[letter["index"]]
    counters = engine.counters
    assert (counters.n_records, counters.n_events, sum(counters.rejects.values())) == (1, 1, 3)


def test_a_rooms_very_first_event_may_break_it(break_on: Callable[..., None]) -> None:
    break_on("gift", ROOM, lambda event: event.amount_minor == 7)
    made = Partition().at(0, "gift", amount_minor=7, currency="CNY").enter(1).ticks(1, 30)
    assert [one["severity"] for one in made.anomalies()] == ["S1"]
    assert len(rejects(made)) == 2
    assert made.signals() == []
    assert made.engine.counters.n_events == 58


def test_a_machine_without_memory_is_no_fault_of_a_room(break_on: Callable[..., None]) -> None:
    """The same record works on a machine that has some: the process ends and another one goes on."""
    break_on("gift", ROOM, lambda event: event.amount_minor == 7, MemoryError)
    made = Partition().enter(0)
    with pytest.raises(MemoryError):
        made.at(1, "gift", amount_minor=7, currency="CNY")
    assert made.anomalies() == []
    assert rejects(made) == []


def test_a_machine_without_memory_is_no_fault_of_a_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Partition().enter(0)

    def judge(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("pipeline.judge.Judge.run", judge)
    with pytest.raises(MemoryError):
        made.ticks(0, 10)
    assert made.anomalies() == []


def test_the_partition_itself_is_never_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kill switch and ticks for every room are no room's: what breaks there must not refuse the next ones."""
    made = Partition().enter(0)
    kept = "pipeline.control.apply_to_all"
    with monkeypatch.context() as patched:

        def broken(*_: Any) -> None:
            raise BrokenError

        patched.setattr(kept, broken)
        try:
            made.control(1, "kill_switch", room_id="*", on=True)
        except BrokenError:
            return  # the process ends, and everybody is told
    assert sorted(made.engine.summary()["rooms"]) == [ROOM]
    made.control(2, "kill_switch", room_id="*", on=True).tick(3)
    assert made.trail()[-1]["content"]["action"] == "kill_switch"
