"""What a room's log accepts: one table of each rule of the contract, and the rules it gives to every field."""

from __future__ import annotations

import json
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from pydantic import BaseModel, ValidationError

from schemas.base import WireModel
from schemas.events import EVENT_MODELS, Event, RoomSettings
from tests.strategies import EXAMPLES, KINDS, MAX_INTEGER, MAX_MONEY, PRODUCER_KINDS, Record, events, logs, room_ids

MODELS: dict[str, type[Event]] = {get_args(model.model_fields["type"].annotation)[0]: model for model in EVENT_MODELS}
SIGNED = ("impressions", "clicks", "cost_minor")


def errors(event: dict[str, Any]) -> list[str]:
    """Return `field: words` of each error; the dict and its JSON text must be judged alike."""
    model = MODELS[event["type"]]

    def judged(text: bool) -> list[str]:
        try:
            _ = model.model_validate_json(json.dumps(event)) if text else model.model_validate(event)
        except ValidationError as error:
            return [f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}" for found in error.errors()]
        return []

    of_dict, of_text = judged(text=False), judged(text=True)
    assert [words.partition(":")[0] for words in of_dict] == [words.partition(":")[0] for words in of_text]
    return of_dict


def refused(event: dict[str, Any]) -> list[str]:
    """Return the fields that errors are about."""
    return sorted({words.partition(":")[0] for words in errors(event)})


def with_fields(kind: str, **fields: Any) -> dict[str, Any]:
    return EXAMPLES[kind] | fields


def taken(kind: str, field: str, *wrong: object) -> list[object]:
    """Return which of the values, all wrong for that field, were taken all the same, or refused for another field."""
    return [
        value
        for value in wrong
        if {name.partition(".")[0] for name in refused(with_fields(kind, **{field: value}))} != {field}
    ]


def required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


def scalars(annotation: Any) -> set[Any]:
    """Return the plain types that an annotation is made of: {int, NoneType} for `TimestampMs | None`."""
    if get_origin(annotation) in (Union, UnionType):
        return {plain for part in get_args(annotation) for plain in scalars(part)}
    if hasattr(annotation, "__metadata__"):
        return scalars(get_args(annotation)[0])
    return {Literal} if get_origin(annotation) is Literal else {get_origin(annotation) or annotation}


def fields_of(plain: Any) -> list[tuple[str, str]]:
    """Return (type, field) of every event field that holds `plain`."""
    return [
        (kind, name)
        for kind, model in MODELS.items()
        for name, field in model.model_fields.items()
        if name != "type" and plain in scalars(field.annotation)
    ]


INTEGERS = fields_of(int)
STRINGS = [
    (kind, name) for kind, name in fields_of(str) if int not in scalars(MODELS[kind].model_fields[name].annotation)
]
BOOLEANS = fields_of(bool)
ENUMS = fields_of(Literal)
FREE_TEXT = {"text", "detail", "sig"}
PATTERNS = {"currency", "stat_date", "roi_goal"}
IDS = [(kind, name) for kind, name in STRINGS if name not in FREE_TEXT | PATTERNS]


def test_every_type_of_the_contract_has_one_model() -> None:
    assert sorted(MODELS) == sorted(KINDS)
    assert len(EVENT_MODELS) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_full_example_of_a_type_is_taken_and_names_every_field(kind: str) -> None:
    assert errors(EXAMPLES[kind]) == []
    assert set(EXAMPLES[kind]) == set(MODELS[kind].model_fields)
    model = MODELS[kind].model_validate(EXAMPLES[kind])
    assert model.model_dump(mode="json", exclude_unset=True) == EXAMPLES[kind]


def test_the_example_of_a_room_names_every_setting() -> None:
    assert set(EXAMPLES["room"]["settings"]) == set(RoomSettings.model_fields)


@given(events())
def test_whatever_the_contract_allows_is_taken_unchanged(event: dict[str, Any]) -> None:
    assert errors(event) == []
    assert MODELS[event["type"]].model_validate(event).model_dump(mode="json", exclude_unset=True) == event


@pytest.mark.parametrize(("kind", "field"), [(kind, name) for kind in KINDS for name in required(MODELS[kind])])
def test_a_required_field_that_is_missing_or_null_is_refused_by_name(kind: str, field: str) -> None:
    event = dict(EXAMPLES[kind])
    model = MODELS[kind]
    del event[field]
    with pytest.raises(ValidationError) as missing:
        model.model_validate(event)
    assert [(found["loc"], found["type"]) for found in missing.value.errors()] == [((field,), "missing")]
    with pytest.raises(ValidationError) as null:
        model.model_validate(event | {field: None})
    assert [found["loc"] for found in null.value.errors()] == [(field,)]


@pytest.mark.parametrize("kind", KINDS)
def test_optional_fields_may_be_absent_or_null(kind: str) -> None:
    model = MODELS[kind]
    needed = {"dwell_ms", "stat_date", "report_ts"}  # by the example's `leave` and `cumulative`
    bare = {name: value for name, value in EXAMPLES[kind].items() if name in needed.union(required(model))}
    assert errors(bare) == []
    nulls = {name: None for name in model.model_fields if name not in bare and name != "args"}
    assert errors(bare | nulls) == []


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_extra_fields_are_ignored(kind: str) -> None:
    model = MODELS[kind].model_validate(with_fields(kind, colour="red", n_future=[1]))
    assert "colour" not in model.model_dump()


@pytest.mark.parametrize(("kind", "field"), INTEGERS)
def test_an_integer_is_an_integer_and_nothing_like_it(kind: str, field: str) -> None:
    text = "one" if field == "observed_value" else "1"  # a goal read back is a decimal as text
    assert taken(kind, field, text, 1.0, 1.5, True, False, [1], {}) == []


@pytest.mark.parametrize(("kind", "field"), [pair for pair in STRINGS if pair[1] != "roi_goal"])
def test_a_text_is_a_text(kind: str, field: str) -> None:
    assert taken(kind, field, 1, 1.0, True, ["a"], {}) == []


@pytest.mark.parametrize(("kind", "field"), BOOLEANS)
def test_a_truth_value_is_true_or_false(kind: str, field: str) -> None:
    assert taken(kind, field, 0, 1, 1.0, "true", "yes", []) == []


@pytest.mark.parametrize(("kind", "field"), ENUMS)
def test_an_enumeration_takes_its_own_words_only(kind: str, field: str) -> None:
    word = str(EXAMPLES[kind][field])
    assert taken(kind, field, "", "nonsense", word.upper(), f"{word} ", 1, True, [word]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_type_is_only_its_own(kind: str) -> None:
    other = "tick" if kind != "tick" else "view"
    with pytest.raises(ValidationError, match="type"):
        MODELS[kind].model_validate(with_fields(kind, type=other))


@pytest.mark.parametrize(("kind", "field"), INTEGERS)
def test_integers_end_where_a_float_would_round_them_and_money_at_a_trillion(kind: str, field: str) -> None:
    limit = MAX_MONEY if field.endswith("_minor") else MAX_INTEGER
    assert errors(with_fields(kind, **{field: limit})) == []
    assert taken(kind, field, limit + 1, 2**53, 2**63, 2**64, 10**40) == []


@pytest.mark.parametrize(("kind", "field"), INTEGERS)
def test_counts_amounts_and_times_are_not_negative(kind: str, field: str) -> None:
    assert errors(with_fields(kind, **{field: 0})) == []
    assert errors(with_fields(kind, **{field: -1})) != []
    if field not in SIGNED:  # a rule across fields: its words name them, see below
        assert taken(kind, field, -1, -MAX_INTEGER, -(2**63)) == []


@pytest.mark.parametrize("field", SIGNED)
@pytest.mark.parametrize("reporting", ["increment", "cumulative", None])
def test_only_an_adjustment_of_spend_may_be_negative(field: str, reporting: str | None) -> None:
    event = with_fields("spend", **{field: -1, "reporting": reporting})
    assert errors(event) == [f": Value error, {field} must be >= 0 unless reporting is 'adjust'"]
    assert errors(event | {"reporting": "adjust"}) == []


@pytest.mark.parametrize("field", SIGNED)
def test_an_adjustment_too_has_its_limits(field: str) -> None:
    limit = MAX_MONEY if field.endswith("_minor") else MAX_INTEGER
    assert errors(with_fields("spend", reporting="adjust", **{field: -limit})) == []
    assert errors(with_fields("spend", reporting="adjust", **{field: -limit - 1})) != []


@pytest.mark.parametrize(("kind", "field"), IDS)
def test_an_id_is_1_to_128_printable_characters(kind: str, field: str) -> None:
    invisible = ("a\nb", "a\n", "a\tb", "\x00", "\x7f", "a\u200bb", "a\u00a0b", "\u202eab", "a\u3000b", "\ue000")
    assert taken(kind, field, "", "x" * 129, "🛒" * 129, *invisible) == []
    for right in ("x", " ", "x" * 128, "直播间-1", "🛒" * 128, "a b", "*" if field != "room_id" else "**"):
        assert errors(with_fields(kind, **{field: right})) == []


@pytest.mark.parametrize("wrong", ["cny", "CN", "CNYY", "C1Y", "ＣＮＹ", "", "CN\n", "CNY\n", "人民币"], ids=ascii)
@pytest.mark.parametrize("kind", ["order", "gift", "spend"])
def test_a_currency_is_three_capital_latin_letters(kind: str, wrong: str) -> None:
    assert refused(with_fields(kind, currency=wrong)) == ["currency"]


@pytest.mark.parametrize(
    "wrong", ["2026-1-1", "20260101", "2026/01/01", "2026-01-01\n", "２０２６-01-01", ""], ids=ascii
)
def test_a_day_is_written_out(wrong: str) -> None:
    assert refused(with_fields("spend", stat_date=wrong)) == ["stat_date"]


@pytest.mark.parametrize(
    ("text", "is_taken"), [("", True), ("货" * 2_000, True), ("🛒" * 2_001, False), ("a\n\tb", True)]
)
def test_a_comment_has_at_most_2000_characters_of_any_kind(text: str, is_taken: bool) -> None:
    assert (errors(with_fields("comment", text=text)) == []) is is_taken


@pytest.mark.parametrize("goal", [1, 0.01, 1_000_000, "2", "2.5", "0.000001", "999999999.999999"])
def test_a_goal_is_a_number_or_a_decimal_as_text(goal: object) -> None:
    assert errors(with_fields("plan", roi_goal=goal)) == []
    assert errors(with_fields("room", settings={"target_roas": goal})) == []


@pytest.mark.parametrize(
    "goal", [0, -1, 1_000_001, "", "-1", "1.", ".5", "1e3", "1,5", "1.0000001", "NaN", "2\n", True, [1]], ids=repr
)
def test_a_goal_is_positive_finite_and_has_at_most_six_places(goal: object) -> None:
    assert errors(with_fields("plan", roi_goal=goal)) != []
    assert errors(with_fields("room", settings={"target_roas": goal})) != []


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_goal_that_is_no_finite_number_is_refused(text: str) -> None:
    event = json.dumps(with_fields("plan", roi_goal="?")).replace('"?"', text)
    with pytest.raises(ValidationError, match="roi_goal"):
        MODELS["plan"].model_validate_json(event)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("stage", "spring"),
        ("currency", "cny"),
        ("budget_minor", -1),
        ("budget_minor", MAX_MONEY + 1),
        ("bid_cap_minor", "5"),
        ("planned_end_ts", 1.0),
        ("mode", "on"),
        ("account_id", ""),
    ],
)
def test_a_rooms_settings_are_as_strict_as_its_events(field: str, wrong: object) -> None:
    assert refused(with_fields("room", settings={field: wrong})) == [f"settings.{field}"]


def test_a_viewer_who_leaves_tells_how_long_it_was() -> None:
    nothing: dict[str, None] = {}
    for absent in (nothing, {"dwell_ms": None}):
        event = {name: value for name, value in EXAMPLES["view"].items() if name != "dwell_ms"} | absent
        assert errors(event) == [": Value error, dwell_ms is required when action is 'leave'"]
        assert errors(event | {"action": "enter"}) == []
        assert errors(event | {"action": "heartbeat"}) == []
    assert errors(with_fields("view", dwell_ms=0)) == []


@pytest.mark.parametrize("field", ["stat_date", "report_ts"])
def test_totals_name_their_day_and_their_moment(field: str) -> None:
    nothing: dict[str, None] = {}
    for absent in (nothing, {field: None}):
        event = {name: value for name, value in EXAMPLES["spend"].items() if name != field} | absent
        assert errors(event) == [f": Value error, {field} is required when reporting is 'cumulative'"]
        assert errors(event | {"reporting": "increment"}) == []
        assert errors(event | {"reporting": None}) == []


def test_an_ack_is_of_one_room() -> None:
    assert errors(with_fields("ack", room_id="*")) == [": Value error, room_id must be one room, got '*'"]
    assert errors(with_fields("control", room_id="*")) == []
    assert errors(with_fields("tick", room_id="*")) == []


@pytest.mark.parametrize("value", [0, 3_000, MAX_INTEGER, "2.35", "0"], ids=repr)
def test_what_a_controller_saw_is_an_integer_or_a_decimal_as_text(value: object) -> None:
    assert errors(with_fields("ack", observed_value=value)) == []


@pytest.mark.parametrize("value", [2.35, -1, "-1", "", "1e3", True], ids=repr)
def test_what_a_controller_saw_is_no_float(value: object) -> None:
    assert errors(with_fields("ack", observed_value=value)) != []


def test_control_arguments_are_an_object() -> None:
    assert taken("control", "args", [], "mode", 1, None) == []


@settings(max_examples=50)
@given(room_ids())
def test_printable_ids_of_every_script_are_room_ids(room: str) -> None:
    assert errors(with_fields("presence", room_id=room)) == []


@settings(max_examples=50)
@given(logs())
def test_the_logs_that_tests_are_made_of_hold_valid_records_in_offset_order(log: list[Record]) -> None:
    offsets = [offset for offset, _, _, _ in log]
    assert offsets == sorted(set(offsets))
    for _, timestamp_ms, value, key in log:
        record = json.loads(value)
        elements = record if isinstance(record, list) else [record]
        for event in elements:
            assert errors(event) == []
            assert key == event["room_id"].encode()
            assert timestamp_ms is not None
            assert event["ts"] <= timestamp_ms + 300_000
        if isinstance(record, list):
            assert {event["type"] for event in elements} <= set(PRODUCER_KINDS)


@settings(max_examples=20)
@given(logs(max_rooms=1, min_records=3, timestamps=False, kinds=("order",)))
def test_a_log_can_be_of_one_room_one_type_and_without_timestamps(log: list[Record]) -> None:
    assert len(log) >= 3
    assert {key for _, _, _, key in log} <= {b"room-1", b"*"}
    assert {timestamp_ms for _, timestamp_ms, _, _ in log} == {None}
    assert {word for _, _, value, _ in log for word in KINDS if f'"type": "{word}"'.encode() in value} <= {
        "order",
        "tick",
    }


def test_every_event_is_a_wire_model_with_strict_types() -> None:
    for model in EVENT_MODELS:
        assert issubclass(model, WireModel)
        assert model.model_config["strict"] is True
        assert model.model_config["extra"] == "ignore"
