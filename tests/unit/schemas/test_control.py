"""Signatures: what was signed is taken, anything else is not, whatever it looks like."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
from typing import Any

import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from schemas.control import DEFAULT_KID, Ack, ControlRequest, is_signed, key_of, sign, signature
from tests.strategies import EXAMPLES, events, identifiers, json_values

KEY = b"k" * 32
OTHER_KEY = b"o" * 32
CONTROL = {name: value for name, value in EXAMPLES["control"].items() if name not in {"kid", "sig"}}


def unsigned_messages() -> SearchStrategy[dict[str, Any]]:
    """Valid controls and acks, as operators and controllers write them and as the bridge does."""

    def strip(event: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in event.items() if name not in {"kid", "sig"}}

    integers = st.integers(-(2**53) + 1, 2**53 - 1)
    args = st.dictionaries(st.text("abc_", max_size=5), integers | st.none() | st.text("xyz中", max_size=5), max_size=3)
    return events("ack").map(strip) | events("control", args=args).map(strip)


def controllers() -> SearchStrategy[str]:
    return st.from_regex(r"(controller|operator):[A-Za-z0-9._-]{1,64}", fullmatch=True)


@given(unsigned_messages(), st.just(DEFAULT_KID) | controllers())
def test_what_was_signed_is_taken(message: dict[str, Any], kid: str) -> None:
    signed = sign(message, KEY, kid)
    assert is_signed(signed, KEY)
    assert signed["kid"] == kid
    assert {name: signed[name] for name in message} == message


@given(unsigned_messages())
def test_a_signature_outlives_the_journey_as_json(message: dict[str, Any]) -> None:
    signed = sign(message, KEY)
    assert is_signed(orjson.loads(orjson.dumps(signed)), KEY)
    reordered = dict(sorted(signed.items(), reverse=True))
    assert is_signed(json.loads(json.dumps(reordered)), KEY)


def test_the_signature_is_the_hex_hmac_of_sorted_json_without_spaces() -> None:
    message = {"ts": 1, "actor": "张三", "args": {"b": 2, "a": None}, "room_id": None}
    text = '{"actor":"张三","args":{"a":null,"b":2},"kid":"control","ts":1}'
    expected = hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()
    assert sign(message, KEY) == {**message, "kid": "control", "sig": expected}


def test_the_signature_itself_and_its_old_value_are_not_signed() -> None:
    signed = sign(CONTROL, KEY)
    assert sign(signed, KEY) == signed


@given(unsigned_messages(), st.data())
def test_any_changed_field_breaks_it(message: dict[str, Any], data: st.DataObject) -> None:
    signed = sign(message, KEY)
    field = data.draw(st.sampled_from(sorted(signed)))
    value: object = data.draw(st.integers(-(2**53), 2**53) | st.text("ab01", max_size=64) | st.booleans())
    assume(json.dumps(value) != json.dumps(signed[field]))
    assert not is_signed(signed | {field: value}, KEY)


@given(unsigned_messages(), st.data())
def test_any_field_taken_away_or_added_breaks_it(message: dict[str, Any], data: st.DataObject) -> None:
    signed = sign(message, KEY)
    field = data.draw(st.sampled_from(sorted(name for name in signed if signed[name] is not None)))
    assert not is_signed({name: value for name, value in signed.items() if name != field}, KEY)
    added = data.draw(identifiers().filter(lambda name: name not in signed))
    assert not is_signed(signed | {added: 1}, KEY)


def test_a_change_deep_inside_breaks_it() -> None:
    signed = sign({**CONTROL, "args": {"policy": {"bidding": {"cap_minor": 100}}, "rooms": ["a", "b"]}}, KEY)
    for change in (
        {"policy": {"bidding": {"cap_minor": 101}}, "rooms": ["a", "b"]},
        {"policy": {"bidding": {"cap_minor": 100.0}}, "rooms": ["a", "b"]},
        {"policy": {"bidding": {"cap_minor": 100, "floor_minor": None}}, "rooms": ["a", "b"]},
        {"policy": {"bidding": {"cap_minor": 100}}, "rooms": ["b", "a"]},
    ):
        assert not is_signed(signed | {"args": change}, KEY)


@given(unsigned_messages())
def test_none_equals_absent(message: dict[str, Any]) -> None:
    with_nones = message | {
        name: None for name in ("detail_of_nothing", "segment", "observed_value") if name not in message
    }
    without = {name: value for name, value in message.items() if value is not None}
    assert sign(with_nones, KEY)["sig"] == sign(without, KEY)["sig"]
    assert is_signed(sign(without, KEY) | {"nothing": None}, KEY)


def test_the_models_sign_what_they_dump() -> None:
    request = ControlRequest(control_id="c-1", room_id="*", ts=1, actor="op", action="kill_switch", args={"on": True})
    ack = Ack(command_id="c-1", room_id="r", ts=1, status="applied", observed_value="2.5")
    for model in (request, ack):
        signed = sign(model.model_dump(mode="json"), KEY)
        assert is_signed(type(model).model_validate(signed).model_dump(mode="json"), KEY)
        assert is_signed(type(model).model_validate(signed).model_dump(mode="json", exclude_none=True), KEY)


@given(unsigned_messages(), st.just(DEFAULT_KID) | controllers())
def test_another_key_is_no_key(message: dict[str, Any], kid: str) -> None:
    assert not is_signed(sign(message, OTHER_KEY, kid), KEY)


@given(unsigned_messages(), controllers(), controllers())
def test_a_controllers_key_signs_for_no_other_and_never_for_operators(
    message: dict[str, Any], own: str, other: str
) -> None:
    assume(own != other)
    derived = key_of(own, KEY)  # all that this controller was given
    for claimed in (other, DEFAULT_KID):
        forged = {**message, "kid": claimed}
        assert not is_signed(forged | {"sig": signature(forged, derived)}, KEY)
        assert not is_signed(sign(message, derived, claimed), KEY)
        assert not is_signed(sign(message, KEY, own) | {"kid": claimed}, KEY)


@given(unsigned_messages())
def test_a_signature_that_anyone_can_read_is_no_key(message: dict[str, Any]) -> None:
    seen = sign({"command_id": "c", "room_id": "r", "ts": 1, "status": "noop"}, KEY)
    text = orjson.dumps({k: v for k, v in seen.items() if k != "sig"}, option=orjson.OPT_SORT_KEYS).decode()
    forged = {**message, "kid": text}
    assert not is_signed(forged | {"sig": signature(forged, bytes.fromhex(seen["sig"]))}, KEY)


@pytest.mark.parametrize("kid", ["", "Control", "control ", "controller", "controller:", "admin", "{}"])
def test_a_key_id_is_the_control_key_or_a_named_controllers(kid: str) -> None:
    forged = {**CONTROL, "kid": kid}
    honest_way = hmac.digest(KEY, kid.encode(), "sha256")
    assert not is_signed(forged | {"sig": signature(forged, honest_way)}, KEY)


@pytest.mark.parametrize("missing", ["kid", "sig"])
@pytest.mark.parametrize("wrong", [None, "", 1, True, ["control"], b"control"], ids=repr)
def test_without_a_key_id_or_a_signature_it_is_not_signed(missing: str, wrong: object) -> None:
    signed = sign(CONTROL, KEY)
    assert not is_signed(signed | {missing: wrong}, KEY)
    assert not is_signed({name: value for name, value in signed.items() if name != missing}, KEY)
    assert not is_signed({}, KEY)


@pytest.mark.parametrize("change", [str.upper, lambda sig: sig[:-1], lambda sig: f"{sig}0", lambda sig: f" {sig}"])
def test_a_signature_is_spelt_one_way(change: Any) -> None:
    signed = sign(CONTROL, KEY)
    assert not is_signed(signed | {"sig": change(signed["sig"])}, KEY)


anything: SearchStrategy[Any] = st.recursive(
    json_values() | st.floats() | st.text() | st.sampled_from(("\ud800", "a\udfff")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(), anything, max_size=4), st.text() | anything, st.text() | anything)
@example({}, "control", "é")
@example({}, "control", "\ud800")
@example({}, "\ud800", "0" * 64)
@example({"args": {"n": 2**64}}, "control", "0" * 64)
@example({"\ud800": 1}, "control", "0" * 64)
@example({"text": "\ud800"}, "control", "0" * 64)
@example({"n": float("nan")}, "control", "0" * 64)
def test_it_never_raises_whatever_the_message(message: dict[str, Any], kid: object, sig: object) -> None:
    before = copy.deepcopy({**message, "kid": kid, "sig": sig})
    assert not is_signed({**message, "kid": kid, "sig": sig}, KEY)
    assert repr({**message, "kid": kid, "sig": sig}) == repr(before)


@pytest.mark.parametrize("depth", [100, 300, 5_000])
def test_it_does_not_raise_on_deep_nesting(depth: int) -> None:
    nested: Any = 1
    for _ in range(depth):
        nested = [nested]
    assert not is_signed({"args": nested, "kid": DEFAULT_KID, "sig": "0" * 64}, KEY)
