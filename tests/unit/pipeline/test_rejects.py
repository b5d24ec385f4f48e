"""Each kind of reject of the contract: a dead letter with its reason, words and place, and nothing else changed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pipeline import Engine
from schemas import topics
from schemas.base import MAX_EVENT_BYTES
from schemas.settings import CurrencySettings, Settings
from tests.strategies import EXAMPLES, MAX_INTEGER, MAX_MONEY, PRODUCER_KINDS, START_MS

Event = dict[str, Any]
FIVE_MINUTES_MS = 300_000


def event(kind: str = "view", **fields: Any) -> Event:
    """Return a valid event under an id of its own, changed as told; `...` takes a field away."""
    made = {**EXAMPLES[kind], "event_id": "bad", **fields}
    return {name: value for name, value in made.items() if value is not ...}


def text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def deep(levels: int) -> bytes:
    """Return an event that nests `levels` deep, its own braces counted."""
    return text(event())[:-1] + b', "extra": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def sized(n_bytes: int) -> bytes:
    """Return an event of exactly `n_bytes`."""
    frame = text(event("comment", extra=""))
    return text(event("comment", extra="x" * (n_bytes - len(frame))))


HUGE_TARGET = text(event("room", settings={"target_roas": 7})).replace(b": 7}", b": 1e400}")
REJECTS: dict[str, tuple[bytes, str]] = {
    "a byte that is not UTF-8": (b"\xff" + text(event()), "not_utf8"),
    "a surrogate half in UTF-8": (text(event("comment", text="A")).replace(b'"A"', b'"\xed\xa0\x80"'), "not_utf8"),
    "an array with a byte that is not UTF-8": (b"[" + text(event()).replace(b"app", b"\xe9") + b"]", "not_utf8"),
    "no JSON": (b"hello", "not_json"),
    "an object cut short": (text(event())[:-1], "not_json"),
    "an array cut short": (b"[" + text(event()), "not_json"),
    "two objects in one value": (text(event()) * 2, "not_json"),
    "an array with a trailing comma": (b"[" + text(event()) + b",]", "not_json"),
    "a byte order mark": (b"\xef\xbb\xbf" + text(event()), "not_json"),
    "UTF-16": (json.dumps(event()).encode("utf-16-le"), "not_json"),
    "single quotes": (text(event()).replace(b'"', b"'"), "not_json"),
    "endless opening brackets": (b"[" * 100_000, "not_json"),
    "a number": (b"17", "not_object"),
    "a string": (b'"view"', "not_object"),
    "null": (b"null", "not_object"),
    "an empty array": (b"[]", "empty_array"),
    "an empty array with blanks": (b" [ \t] ", "empty_array"),
    "an unknown type": (text(event(type="tock")), "unknown_type"),
    "no type": (text(event(type=...)), "missing_field"),
    "a type that is a number": (text(event(type=7)), "unknown_type"),
    "an unknown action": (text(event(action="teleport")), "unknown_value"),
    "an unknown status": (text(event("order", status="lost")), "unknown_value"),
    "an unknown stage in the settings": (text(event("room", settings={"stage": "party"})), "unknown_value"),
    "no event_id": (text(event(event_id=...)), "missing_field"),
    "no room_id": (text(event(room_id=...)), "missing_field"),
    "no ts": (text(event(ts=...)), "missing_field"),
    "no session_id": (text(event(session_id=...)), "missing_field"),
    "null where a value must be": (text(event(room_id=None)), "bad_type"),
    "a leave without dwell_ms": (text(event(action="leave", dwell_ms=...)), "missing_field"),
    "totals without their day": (text(event("spend", stat_date=...)), "missing_field"),
    "ts as text": (text(event(ts=str(START_MS))), "bad_type"),
    "ts as a float": (text(event(ts=float(START_MS))), "bad_type"),
    "ts with an exponent": (text(event()).replace(str(START_MS).encode(), b"1e3"), "bad_type"),
    "true for an integer": (text(event("presence", n_online=True)), "bad_type"),
    "1.0 for a count": (text(event("counts", n_enters=1.0)), "bad_type"),
    '"1" for money': (text(event("gift", amount_minor="1")), "bad_type"),
    "1 for a boolean": (text(event(consent=1)), "bad_type"),
    "a number for an id": (text(event(user_id=5)), "bad_type"),
    "a list for a text": (text(event("comment", text=["a"])), "bad_type"),
    "settings that are a list": (text(event("room", settings=[])), "bad_type"),
    "an empty id": (text(event(room_id="")), "bad_id"),
    "an id of 129 characters": (text(event(user_id="x" * 129)), "bad_id"),
    "a line break in an id": (text(event(event_id="a\nb")), "bad_id"),
    "a zero-width space in an id": (text(event(channel="a\u200bb")), "bad_id"),
    "DEL in an id": (text(event(ip="10.0.0.1\x7f")), "bad_id"),
    "an escaped NUL in a setting's id": (text(event("room", settings={"platform": "a\0"})), "bad_id"),
    "a negative count": (text(event("presence", n_online=-1)), "negative"),
    "a negative amount": (text(event("order", amount_minor=-1)), "negative"),
    "negative spend": (text(event("spend", cost_minor=-1)), "negative"),
    "negative clicks in an increment": (text(event("spend", reporting="increment", clicks=-1)), "negative"),
    "money over its limit": (text(event("gift", amount_minor=MAX_MONEY + 1)), "over_limit"),
    "an adjustment over its limit": (text(event("spend", reporting="adjust", cost_minor=-MAX_MONEY - 1)), "negative"),
    "a count over 2^53": (text(event("counts", n_enters=MAX_INTEGER + 1)), "over_limit"),
    "a count of a hundred digits": (text(event("counts", n_enters=10**100)), "over_limit"),
    "a text of 2,001 characters": (text(event("comment", text="好" * 2_001)), "over_limit"),
    "a ts below zero": (text(event(ts=-1)), "ts_negative"),
    "a currency in small letters": (text(event("gift", currency="cny")), "bad_currency"),
    "a currency of four letters": (text(event("gift", currency="CNYX")), "bad_currency"),
    "a currency with a line break": (text(event("gift", currency="CNY\n")), "bad_currency"),
    "a currency in other capitals": (text(event("gift", currency="ＣＮＹ")), "bad_currency"),
    "an event over 64 KiB": (sized(MAX_EVENT_BYTES + 1), "too_large"),
    "nesting of 33": (deep(33), "too_deep"),
    "NaN": (text(event("room", settings={"target_roas": float("nan")})), "not_finite"),
    "Infinity in a field nobody reads": (text(event(extra=float("inf"))), "not_finite"),
    "-Infinity": (text(event(extra=[float("-inf")])), "not_finite"),
    "a number too large for a float": (HUGE_TARGET, "not_finite"),
    "an unsigned control": (text(event("control", sig=..., kid=...)), "unsigned"),
    "a control signed by somebody else": (text(event("control")), "bad_signature"),
    "an unsigned ack": (text(event("ack", sig=...)), "unsigned"),
    "a viewer of every room": (text(event(room_id="*")), "bad_value"),
    "a currency without a rate": (text(event("order", order_id="x", currency="JPY")), "currency_unknown"),
}  # fmt: skip
"""What is wrong, the value, the reason it must be given."""

GOOD: list[bytes] = [
    text(event("room", event_id="g1")),
    text(event("order", event_id="g2")),
    text(event(event_id="g3", ts=START_MS + 700)),
    text(event("spend", event_id="g4", ts=START_MS + 1_400)),
    text(event("comment", event_id="g5", ts=START_MS + 6_000)),
]
BEFORE = 2


def everything(values: list[bytes], *, stamped: bool) -> tuple[list[Any], list[tuple[str, str, bytes]], dict[str, Any]]:
    """Return a log's dead letters, its other outputs, and its summary."""
    engine = Engine(Settings(currency=CurrencySettings(rates={"USD:CNY": "7"})), partition=3)
    # A stamp a record, the same for the one that is put in as for the one before it.
    stamp_of = {value: START_MS + 1_500 * place for place, value in enumerate(GOOD)}
    stamp, records = START_MS, []
    for place, value in enumerate(values):
        stamp = stamp_of.get(value, stamp)
        records.append((10 + place, stamp if stamped else None, value))
    outputs = engine.process(records) + engine.flush()
    letters = [output.value for output in outputs if output.topic == topics.ROOM_EVENTS_DLQ]
    rest = [(output.topic, output.key, output.json()) for output in outputs if output.topic != topics.ROOM_EVENTS_DLQ]
    return letters, rest, engine.summary()


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("name", REJECTS)
def test_a_bad_record_becomes_a_dead_letter_and_changes_nothing(name: str, *, stamped: bool) -> None:
    bad, reason = REJECTS[name]
    letters, rest, summary = everything([*GOOD[:BEFORE], bad, *GOOD[BEFORE:]], stamped=stamped)
    none, expected_rest, expected = everything(GOOD, stamped=stamped)
    assert none == []
    (letter,) = letters
    assert (letter.reason, letter.topic, letter.partition) == (reason, "room.events", 3)
    assert (letter.offset, letter.index) == (10 + BEFORE, None)
    assert base64.b64decode(letter.payload_b64) == bad
    assert len(letter.error) >= 10
    assert letter.ts == START_MS + 1_500 * (stamped and BEFORE - 1)
    assert rest == expected_rest
    assert summary.pop("rejects") == {reason: 1}
    expected.pop("rejects")
    assert summary == {**expected, "n_records": expected["n_records"] + 1, "n_rejects": 1}


ACCEPTED: dict[str, bytes] = {
    "nesting of 32": deep(32),
    "exactly 64 KiB": sized(MAX_EVENT_BYTES),
    "brackets in a text do not nest": text(event("comment", text="[{" * 900)),
    "an id of 128 characters": text(event(user_id="x" * 128)),
    "an id of one character": text(event(event_id="é")),
    "an id of emoji": text(event(channel="🛒" * 128)),
    "a text of 2,000 characters": text(event("comment", text="😀" * 2_000)),
    "an empty text": text(event("comment", text="")),
    "a text with NUL and line breaks": text(event("comment", text="a\0\nb")),
    "ts zero": text(event(ts=0)),
    "money at its limit": text(event("gift", amount_minor=MAX_MONEY)),
    "an adjustment at its limit": text(event("spend", reporting="adjust", cost_minor=-MAX_MONEY)),
    "a count at its limit": text(event("counts", n_enters=MAX_INTEGER)),
    "null for what may be absent": text(event("order", user_id=None, quantity=None, attribution=None, channel=None)),
    "a field nobody knows": text(event(colour={"r": [1, 2.5, None]})),
    "a whole number for a ratio": text(event("room", settings={"target_roas": 3})),
    "blanks around": b" \t\r\n" + text(event()) + b"\r\n ",
    "an array of one": b"[" + text(event()) + b"]",
    "a kind in an array of every kind": text([event(kind, event_id=f"b-{kind}") for kind in PRODUCER_KINDS]),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_lies_within_the_rules_is_accepted(name: str) -> None:
    letters, _, summary = everything([*GOOD, ACCEPTED[name]], stamped=True)
    n_elements = len(PRODUCER_KINDS) if "every kind" in name else 1
    assert letters == []
    assert summary["n_events"] == len(GOOD) + n_elements


def test_an_event_may_be_five_minutes_ahead_of_its_own_timestamp_and_no_more() -> None:
    engine = Engine()
    at_limit = text(event(event_id="a", ts=START_MS + FIVE_MINUTES_MS))
    beyond = text(event(event_id="b", ts=START_MS + FIVE_MINUTES_MS + 1))
    outputs = engine.process([(0, START_MS, at_limit), (1, START_MS, beyond), (2, START_MS, b"[" + beyond + b"]")])
    letters = [output.value.model_dump() for output in outputs if output.topic == topics.ROOM_EVENTS_DLQ]
    assert [(letter["reason"], letter["offset"], letter["index"]) for letter in letters] == [
        ("ts_ahead", 1, None),
        ("ts_ahead", 2, 0),
    ]
    assert engine.counters.n_events == 1


def test_files_without_timestamps_have_nothing_to_be_ahead_of() -> None:
    engine = Engine()
    engine.process([(1, None, text(event(event_id="a", ts=0))), (2, None, text(event(event_id="b", ts=10**14)))])
    assert (engine.counters.n_events, engine.counters.rejects) == (2, {})


BAD_ELEMENTS: dict[str, tuple[bytes, str]] = {
    "a nested array": (b"[" + text(event()) + b"]", "nested_array"),
    "an empty nested array": (b"[]", "nested_array"),
    "an element of another room": (text(event(room_id="room-2")), "foreign_room"),
    "a tick": (text(event("tick")), "not_in_array"),
    "a control": (text(event("control")), "not_in_array"),
    "an ack": (text(event("ack")), "not_in_array"),
    "a number": (b"17", "not_object"),
    "null": (b"null", "not_object"),
    "an element that is ill-typed": (text(event(ts="now")), "bad_type"),
    "an element that nests too deep": (deep(33), "too_deep"),
    "an element that is too large": (sized(MAX_EVENT_BYTES + 1), "too_large"),
    "an element in an unknown currency": (text(event("gift", currency="JPY")), "currency_unknown"),
}


@pytest.mark.parametrize("key", [None, b"room-1"])
@pytest.mark.parametrize("name", BAD_ELEMENTS)
def test_a_bad_element_is_one_reject_and_the_others_count(name: str, key: bytes | None) -> None:
    bad, reason = BAD_ELEMENTS[name]
    engine = Engine()
    elements = [text(event("gift", event_id="a")), bad, text(event(event_id="c")), bad]
    outputs = engine.process([(7, START_MS, b"[" + b" , ".join(elements) + b"]", key)])
    letters = [output.value.model_dump() for output in outputs if output.topic == topics.ROOM_EVENTS_DLQ]
    told = [(x["reason"], x["offset"], x["index"], base64.b64decode(x["payload_b64"])) for x in letters]
    assert told == [(reason, 7, 1, bad), (reason, 7, 3, bad)]
    assert all(letter["error"] for letter in letters)
    assert (engine.counters.n_events, engine.n_rooms) == (2, 1)


def test_the_key_names_the_room_of_an_array_from_its_first_element() -> None:
    engine = Engine()
    value = text([event(room_id="room-2", event_id="a"), event(event_id="b")])
    (letter,) = engine.process([(0, START_MS, value, b"room-1")])
    assert letter.key == "room-1"
    assert letter.value.model_dump()["index"] == 0
    assert list(engine.summary()["rooms"]) == ["room-1"]


def test_a_refused_element_does_not_name_the_room_of_an_array_without_key() -> None:
    engine = Engine()
    engine.process([(0, None, text([event(room_id="*", event_id="a"), event(event_id="b")]))])
    assert list(engine.summary()["rooms"]) == ["room-1"]


def test_a_first_event_in_a_currency_without_a_rate_to_the_deployments_own_is_refused() -> None:
    engine = Engine(Settings(currency=CurrencySettings(default="CNY")))
    (letter,) = engine.process([(0, START_MS, text(event("order", currency="USD")))])
    assert letter.value.model_dump()["reason"] == "currency_unknown"
    assert engine.n_rooms == 0
