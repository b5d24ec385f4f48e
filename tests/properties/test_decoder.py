"""The fast decoder and the models it is derived from judge every input alike, whatever a producer writes."""

from __future__ import annotations

import json
from typing import Any, NoReturn, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.base import MAX_AHEAD_MS, MAX_EVENT_BYTES, MAX_NESTING
from schemas.decode import STRUCTS, Reject, decode, decode_one, is_array
from schemas.events import EVENT_MODELS, Event
from tests.effort import effort
from tests.strategies import EXAMPLES, KINDS, MAX_INTEGER, MAX_MONEY, START_MS, events, json_values

MODELS: dict[str, type[Event]] = {get_args(model.model_fields["type"].annotation)[0]: model for model in EVENT_MODELS}
ADAPTERS: dict[str, TypeAdapter[Any]] = {kind: TypeAdapter(model) for kind, model in MODELS.items()}


class _TwiceError(Exception):
    """A key comes twice: which one counts is nowhere written."""


def _infinite(name: str) -> NoReturn:
    raise ValueError(name)


def _whole(digits: str) -> int:
    return int(digits[:400])  # beyond every limit all the same; the standard library reads 4,300 at most


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise _TwiceError
    return dict(pairs)


def _depth(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def parsed(raw: bytes, *, once: bool = True) -> Any:
    """Return what the standard library reads in a value that obeys the rules above fields; raise ValueError else."""
    if len(raw) > MAX_EVENT_BYTES:
        raise ValueError
    pairs = _once if once else dict
    value = json.loads(raw.decode(), parse_constant=_infinite, parse_int=_whole, object_pairs_hook=pairs)
    if _depth(value) > MAX_NESTING:
        raise ValueError
    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return value


def judged(raw: bytes, *, once: bool = True) -> Event | None:
    """Return the model's verdict over the standard library's reading: the event, None for a reject."""
    try:
        value = parsed(raw, once=once)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str) or value["type"] not in MODELS:
        return None
    try:
        event: Event = ADAPTERS[value["type"]].validate_python(value)
    except ValidationError:
        return None
    return event


def compare(raw: bytes) -> bool:
    """Assert that both decoders agree on a value; tell whether it is an event."""
    (fast,) = decode(raw)
    assert decode_one(raw) == fast
    try:
        slow = judged(raw)
    except _TwiceError:
        # The fast one checks each of them, so it may refuse more; what it takes is what the model takes.
        slow = judged(raw, once=False) if type(fast) is not Reject else None
        assert (slow is None) == (type(fast) is Reject)
    if slow is None:
        assert type(fast) is Reject
        assert fast.payload == raw
        assert fast.error
        return False
    assert type(fast) is STRUCTS[type(slow).model_fields["type"].annotation.__args__[0]], fast  # type: ignore[union-attr]
    assert msgspec.to_builtins(fast) == slow.model_dump()
    return True


def text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def compare_all_spellings(value: Any) -> None:
    """Assert that both agree on a value however a producer's library writes it, and that it makes no difference."""
    escaped = json.dumps(value).encode()
    verdicts = {
        compare(spelt)
        for spelt in (
            text(value),
            escaped,
            json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
            json.dumps(value, ensure_ascii=False, indent=1).encode(),
            b" \r\n" + escaped.replace(b'"type"', b'"\\u0074ype"'),
        )
    }
    assert len(verdicts) == 1


@given(events())
@settings(max_examples=effort(150))
def test_valid_events_are_events_to_both(event: dict[str, Any]) -> None:
    assert compare(text(event))


HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 1.0, -0.0, 0.5, 1e15, "", "1", "true", "1.0", "x" * 128, "x" * 129, "好" * 2_001,
    MAX_INTEGER, MAX_INTEGER + 1, -MAX_INTEGER - 1, MAX_MONEY, MAX_MONEY + 1, 2**63, 2**64, -(2**64), 10**40, START_MS,
    [], {}, [1], {"a": 1}, "a\nb", "a\0b", "\x7f", "a\u200bb", "\u2028", " ", "\ufeff", "𐀀", "CNY", "cny", "CNY\n",
    "ＣＮＹ",
    "paid", "PAID", "leave", "adjust", "cumulative", "2026-01-01", "2026-13-01", "2026-02-31", "0.0", "0", "00.5",
    "1.1234567", "999999999", "1e3", "-1", "+1", "１", "0.000001", "*", {"mode": "auto"}, {"target_roas": "0.00"},
    {"target_roas": 0}, {"target_roas": True}, {"target_roas": 1_000_001}, {"platform": "a\tb"}, {"budget_minor": 1.0},
]  # fmt: skip
NAMES = sorted({name for example in EXAMPLES.values() for name in example} | {"surplus"})


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_with_every_hostile_value(kind: str) -> None:
    example = EXAMPLES[kind]
    verdicts = {compare(text({**example, name: value})) for name in [*example, "surplus"] for value in HOSTILE}
    assert verdicts == {True, False}
    for name in example:
        compare(text({key: value for key, value in example.items() if key != name}))


@given(
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(HOSTILE) | json_values(), max_size=4),
)
@settings(max_examples=effort(300))
def test_events_with_several_things_wrong(kind: str, changes: dict[str, Any]) -> None:
    compare(text({**EXAMPLES[kind], **changes}))


IDS = ("room_id", "region", "user_id", "source", "product_id", "text", "detail", "actor", "session_id", "surplus")
WORDS = st.text(st.sampled_from('aé浙江!😀\\"[]{}\x7f\u200b\u2028\xad\ue000\U000e0001\n\0 '), max_size=4)


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(IDS), WORDS | st.none(), max_size=5), st.booleans())
@settings(max_examples=effort(600))
def test_ids_in_any_script_however_they_are_written(kind: str, changes: dict[str, Any], is_short: bool) -> None:
    example = EXAMPLES[kind]
    if is_short:  # what is required alone, so that Chinese stands in few places or in one
        model = MODELS[kind].model_fields
        example = {name: value for name, value in example.items() if name == "type" or model[name].is_required()}
    compare_all_spellings({**example, **changes})


@given(st.sampled_from(("order", "gift", "spend", "room")), st.text("ABCXYZabcÀＡ\n ", max_size=4))
def test_currencies_are_what_the_pattern_says(kind: str, currency: str) -> None:
    change = {"settings": {"currency": currency}} if kind == "room" else {"currency": currency}
    compare_all_spellings({**EXAMPLES[kind], **change})


@pytest.mark.parametrize("filler", ["x", "好", "[", "{"])
def test_the_largest_event_is_one_and_a_byte_more_is_not(filler: str) -> None:
    room = MAX_EVENT_BYTES - len(text({**EXAMPLES["view"], "surplus": ""}))
    n, rest = divmod(room, len(filler.encode()))
    event = {**EXAMPLES["view"], "surplus": filler * n + "x" * rest}
    assert len(text(event)) == MAX_EVENT_BYTES
    assert compare(text(event))
    assert not compare(text({**event, "surplus": event["surplus"] + "x"}))


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_may_run_ahead_of_its_record_by_so_much_and_no_more(kind: str) -> None:
    raw = text(EXAMPLES[kind])
    assert type(decode_one(raw, START_MS - MAX_AHEAD_MS)) is STRUCTS[kind]
    late = decode_one(raw, START_MS - MAX_AHEAD_MS - 1)
    assert (late.reason, late.payload, late.place) == ("ts_ahead", raw, None)
    assert decode(raw, timestamp_ms=START_MS - MAX_AHEAD_MS - 1) == [late]


@given(
    json_values() | st.lists(json_values(), max_size=3), st.sampled_from((b"", b" ", b"\r\n\t", b"\xef\xbb\xbf", b"\0"))
)
def test_nothing_but_an_array_is_left_to_the_decoder_of_arrays(value: Any, before: bytes) -> None:
    raw = before + text(value)
    assert (decode_one(raw) is None) == is_array(raw)


@given(st.sampled_from(KINDS), st.sampled_from(KINDS))
@settings(max_examples=effort(60))
def test_an_event_under_another_type(kind: str, other: str) -> None:
    compare(text({**EXAMPLES[kind], "type": other}))


@given(json_values())
def test_anything_that_is_json(value: Any) -> None:
    compare(text(value)) if not isinstance(value, list) else decode(text(value))


VIEW = text({"type": "view", "event_id": "e", "room_id": "r", "ts": START_MS, "action": "enter", "session_id": "s"})
RAW: dict[str, bytes] = {
    "a key twice, the last one good": VIEW.replace(b'"event_id": "e"', b'"event_id": 5, "event_id": "e"'),
    "a key twice, the last one bad": VIEW.replace(b'"event_id": "e"', b'"event_id": "e", "event_id": 5'),
    "the type twice, the last one good": VIEW.replace(b'"type": "view"', b'"type": "gift", "type": "view"'),
    "the type twice, the last one another": VIEW.replace(b'"type": "view"', b'"type": "view", "type": "gift"'),
    "a key twice, once escaped": VIEW.replace(b'"ts"', b'"t\\u0073": "x", "ts"'),
    "a key escaped": VIEW.replace(b'"ts"', b'"t\\u0073"'),
    "a surplus key twice": VIEW[:-1] + b', "x": 1, "x": 2}',
    "1e400 in a surplus field": VIEW[:-1] + b', "x": 1e400}',
    "-1e400 deep in a surplus field": VIEW[:-1] + b', "x": [{"y": -1e400}]}',
    "1e308 in a surplus field": VIEW[:-1] + b', "x": 1e308}',
    "1e-400 in a surplus field": VIEW[:-1] + b', "x": 1e-400}',
    "an exponent for an integer": VIEW.replace(str(START_MS).encode(), b"1e3"),
    "an integer with a point": VIEW.replace(str(START_MS).encode(), b"1000.0"),
    "minus zero": VIEW.replace(str(START_MS).encode(), b"-0"),
    "a leading zero": VIEW.replace(str(START_MS).encode(), b"01"),
    "a plus sign": VIEW.replace(str(START_MS).encode(), b"+1"),
    "a hundred digits": VIEW[:-1] + b', "x": ' + b"9" * 100 + b"}",
    "five thousand digits": VIEW[:-1] + b', "x": ' + b"9" * 5_000 + b"}",
    "five thousand digits after the point": VIEW[:-1] + b', "x": 0.' + b"9" * 5_000 + b"}",
    "NaN": VIEW[:-1] + b', "x": NaN}',
    "-Infinity": VIEW[:-1] + b', "x": -Infinity}',
    "half a surrogate pair in an id": VIEW.replace(b'"e"', b'"\\ud800"'),
    "half a surrogate pair in a surplus field": VIEW[:-1] + b', "x": "\\udc00"}',
    "half a surrogate pair in a surplus key": VIEW[:-1] + b', "\\ud800": 1}',
    "a whole pair": VIEW.replace(b'"e"', b'"\\ud83d\\uded2"'),
    "a raw control character in a string": VIEW.replace(b'"e"', b'"a\x01"'),
    "a raw tab in a surplus string": VIEW[:-1] + b', "x": "\t"}',
    "a bad escape": VIEW.replace(b'"e"', b'"\\x41"'),
    "a bad escape in a surplus field": VIEW[:-1] + b', "x": "\\u12"}',
    "nesting of 32": VIEW[:-1] + b', "x": ' + b"[" * 31 + b"]" * 31 + b"}",
    "nesting of 33": VIEW[:-1] + b', "x": ' + b"[" * 32 + b"]" * 32 + b"}",
    "nesting of 33 objects": VIEW[:-1] + b', "x": ' + b'{"a":' * 32 + b"1" + b"}" * 33,
    "nesting of 20,000": VIEW[:-1] + b', "x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "brackets in a string": VIEW[:-1] + b', "x": "' + b"[" * 500 + b'"}',
    "brackets after an escaped quote": VIEW[:-1] + b', "x": "\\"' + b"[" * 500 + b'"}',
    "a comma at the end": VIEW[:-1] + b",}",
    "a comment": VIEW[:-1] + b"/* x */}",
    "no quotes": b"{type: view}",
    "something after it": VIEW + b" x",
    "a NUL after it": VIEW + b"\0",
    "blanks around": b" \r\n\t" + VIEW + b"\n ",
    "other blanks around": b"\x0b" + VIEW,
    "a no-break space around": b"\xc2\xa0" + VIEW,
    "nothing but a brace": b"{",
    "an empty object": b"{}",
    "an empty key": VIEW[:-1] + b', "": 1}',
    "a wrong literal": VIEW[:-1] + b', "x": True}',
    "an unfinished literal": VIEW[:-1] + b', "x": tru}',
}


@pytest.mark.parametrize("name", RAW)
def test_text_that_json_readers_differ_about(name: str) -> None:
    compare(RAW[name])


@given(st.data())
@settings(max_examples=effort(300))
def test_damaged_text(data: st.DataObject) -> None:
    raw = bytearray(text(EXAMPLES[data.draw(st.sampled_from(KINDS))]))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        piece = data.draw(
            st.sampled_from((b"", b'"', b"\\", b"{", b"]", b",", b"0", b"1e400", b"\xff", b"\xed\xa0\x80", b"\0", b"t"))
        )
        raw[place : place + data.draw(st.integers(0, 2))] = piece
    value = bytes(raw)
    if value.strip(b" \t\r\n")[:1] != b"[":
        compare(value)


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), st.data())
def test_an_array_gives_each_element_the_verdict_it_has_alone(kinds: list[str], data: st.DataObject) -> None:
    elements = []
    for kind in kinds:
        name, value = data.draw(st.sampled_from(NAMES)), data.draw(st.sampled_from(HOSTILE))
        elements.append(text({**EXAMPLES[kind], name: value} if data.draw(st.booleans()) else EXAMPLES[kind]))
    decoded = decode(b"[" + b" ,".join(elements) + b"]")
    room = None
    for place, (raw, element) in enumerate(zip(elements, decoded, strict=True)):
        slow = judged(raw)
        is_producers = slow is not None and type(slow).__name__ not in ("TickEvent", "ControlEvent", "AckEvent")
        if slow is not None and is_producers and room is None:
            room = slow.room_id
        is_good = slow is not None and is_producers and slow.room_id == room
        assert (type(element) is not Reject) == is_good
        assert is_good or (element.place, element.payload) == (place, raw)
