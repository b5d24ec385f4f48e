"""The generated files are current, and the JSON Schemas say what the models say."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.protocols import Validator
from pydantic import BaseModel, ValidationError

from schemas import export
from schemas.anomalies import Anomaly
from schemas.audit import AuditRecord
from schemas.commands import BidCommand
from schemas.control import Ack, ControlRequest, KillState
from schemas.deadletters import DeadLetter
from schemas.events import EVENT_MODELS, Event
from schemas.settings import Policy, Settings
from schemas.signals import RoomSignals
from schemas.topics import TOPICS
from tests.effort import effort
from tests.messages import MESSAGES, nodes, resolve, written
from tests.strategies import EXAMPLES, KINDS, PRODUCER_KINDS, events, json_values

ROOT = Path(__file__).parents[3]
TOPIC_NAMES = [topic.name for topic in TOPICS]
EVENTS = {export.event_type(model): model for model in EVENT_MODELS}
CASES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    *((EVENTS[kind], EXAMPLES[kind]) for kind in KINDS),
    *MESSAGES.items(),
]


def topic_of(model: type[BaseModel]) -> str:
    (topic,) = [topic for topic, models in export.MESSAGES.items() if model in models]
    return topic


@functools.cache
def message_validator(topic: str) -> Validator:
    """What judges one message value of a topic."""
    return Draft202012Validator(written(f"{topic}.json"))


@functools.cache
def model_validator(model: type[BaseModel]) -> Validator:
    """What judges one model: the topic's file, or of `room.events` the definition of that type."""
    document = written(f"{topic_of(model)}.json")
    if issubclass(model, Event):
        document = {"$ref": f"#/$defs/{model.__name__}", "$defs": document["$defs"]}
    return Draft202012Validator(document)


@functools.cache
def asyncapi_validator(model: type[BaseModel]) -> Validator:
    """The same by the AsyncAPI document, whose schemas are of JSON Schema's draft 7."""
    document = written("asyncapi.json")
    payload = document["components"]["messages"][model.__name__]["payload"]
    return Draft7Validator({"allOf": [payload], "components": document["components"]})


def by_model(model: type[BaseModel], message: object) -> bool:
    try:
        model.model_validate(message)
    except ValidationError:
        return False
    return True


def by_files(model: type[BaseModel], message: Any) -> bool:
    """Return the verdict of the JSON Schema; the AsyncAPI document must agree."""
    verdict = model_validator(model).is_valid(message)
    assert asyncapi_validator(model).is_valid(message) is verdict
    return verdict


# --- the files ---


def test_the_files_are_current() -> None:
    assert export.stale() == [], "run python -m schemas.export"


def test_there_is_one_file_a_topic_and_three_more() -> None:
    others = ["asyncapi.json", "policy.json", "settings.json"]
    assert sorted(export.documents()) == sorted([*(f"{name}.json" for name in TOPIC_NAMES), *others])


@pytest.mark.parametrize("name", sorted(export.documents()))
def test_a_file_is_sorted_indented_text_that_ends_in_a_newline(name: str) -> None:
    text = (export.GENERATED / name).read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def test_the_bytes_are_the_same_under_every_hash_seed() -> None:
    code = (
        "import hashlib; from schemas import export;"
        "made = b''.join(export.render(document) for _, document in sorted(export.documents().items()));"
        "print(hashlib.sha256(made).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("0", "1", "2026")
    }
    here = b"".join(export.render(document) for _, document in sorted(export.documents().items()))
    assert printed == {hashlib.sha256(here).hexdigest()}


def test_check_names_what_is_stale_and_writing_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    assert export.main(["--check"], made) == 1
    assert not made.exists()
    assert export.main([], made) == 0
    capsys.readouterr()
    assert export.main(["--check"], made) == 0
    assert capsys.readouterr() == ("", "")

    (made / "settings.json").write_text("{}\n")
    (made / "ops.kill.json").unlink()
    (made / "of.a.topic.long.gone.json").write_text("{}\n")
    (made / "notes.txt").write_text("not ours\n")
    names = ["of.a.topic.long.gone.json", "ops.kill.json", "settings.json"]
    assert export.main(["--check"], made) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error == f"{made}: must match the models, got stale {', '.join(names)}: run python -m schemas.export\n"
    assert (made / "settings.json").read_text() == "{}\n"

    assert export.write(made) == names
    assert export.stale(made) == []
    assert export.write(made) == []
    assert (made / "notes.txt").exists()


def test_a_folder_that_cannot_be_written_is_one_line_and_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert export.main([], in_the_way / "made") == 1
    error = capsys.readouterr().err
    assert error.startswith("schemas.export: ")
    assert error.count("\n") == 1


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "schemas.export", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    stale = export.stale()
    assert done.returncode == (1 if stale else 0)
    assert done.stdout == ""
    assert all(name in done.stderr for name in stale)
    done = subprocess.run(
        [sys.executable, "-m", "schemas.export", "--chekc"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--chekc" in done.stderr


# --- JSON Schema ---


@pytest.mark.parametrize("name", sorted(set(export.documents()) - {"asyncapi.json"}))
def test_a_file_is_a_json_schema_of_draft_2020_12(name: str) -> None:
    schema = written(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", sorted(export.documents()))
def test_every_reference_resolves_inside_its_own_file(name: str) -> None:
    document = written(name)
    refs = [node["$ref"] for node in nodes(document) if isinstance(node.get("$ref"), str)]
    assert refs
    for ref in refs:
        assert isinstance(resolve(document, ref), dict)


@pytest.mark.parametrize("name", sorted(set(export.documents()) - {"asyncapi.json"}))
def test_every_definition_is_used(name: str) -> None:
    document = written(name)
    used = {node["$ref"] for node in nodes(document) if "$ref" in node}
    assert {f"#/$defs/{defined}" for defined in document["$defs"]} == used


@pytest.mark.parametrize(("model", "message"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_a_valid_message_is_valid_to_the_model_and_to_the_files(model: type[BaseModel], message: Any) -> None:
    assert set(message) == set(model.model_fields), "an example should name every field"
    assert by_model(model, message)
    assert by_files(model, message)
    assert message_validator(topic_of(model)).is_valid(message)


@pytest.mark.parametrize(("model", "message"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_a_broken_message_is_valid_to_neither(model: type[BaseModel], message: dict[str, Any]) -> None:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    broken = [{name: value for name, value in message.items() if name != missing} for missing in required]
    broken += [message | {name: [None]} for name in model.model_fields if name != "contributors"]
    for wrong in broken:
        assert not by_model(model, wrong)
        assert not by_files(model, wrong)
        assert not message_validator(topic_of(model)).is_valid(wrong)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (RoomSignals, {"windows": {"60": {"n_enters": "12"}}}),
        (RoomSignals, {"windows": {"60": {"feed_state": {"order": "silent"}}}}),
        (RoomSignals, {"stage": "spring"}),
        (Anomaly, {"score": 1.5}),
        (Anomaly, {"severity": "S5"}),
        (Anomaly, {"contributors": [{"dimension": "plan_id", "value": "plan-1"}]}),
        (BidCommand, {"value": 2.58}),
        (BidCommand, {"value": "2,58"}),
        (BidCommand, {"guardrails": [{"name": "step", "effect": "ignored"}]}),
        (BidCommand, {"plan_id": ""}),
        (Ack, {"status": "done"}),
        (Ack, {"observed_value": -1}),
        (Ack, {"sig": "0" * 129}),
        (ControlRequest, {"action": "explode"}),
        (ControlRequest, {"actor": "line\nbreak"}),
        (KillState, {"on": "yes"}),
        (DeadLetter, {"reason": "it_was_monday"}),
        (AuditRecord, {"kind": "rumour"}),
    ],
    ids=lambda case: getattr(case, "__name__", None) or json.dumps(case),
)
def test_a_message_with_one_wrong_value_is_valid_to_neither(model: type[BaseModel], changes: dict[str, Any]) -> None:
    wrong = MESSAGES[model] | changes
    assert not by_model(model, wrong)
    assert not by_files(model, wrong)


def test_every_rule_across_fields_is_in_the_files_too() -> None:
    ruled = {model for model in EVENT_MODELS if model.problem is not Event.problem}
    assert set(export.RULES_ACROSS_FIELDS) == ruled


ABSENT = object()
RULED_VALUES: dict[str, tuple[object, ...]] = {
    "action": ("enter", "leave"),
    "dwell_ms": (ABSENT, None, 0, 5),
    "reporting": (ABSENT, None, "increment", "cumulative", "adjust"),
    "stat_date": (ABSENT, None, "2026-01-01"),
    "report_ts": (ABSENT, None, 0),
    "impressions": (-1, 0, 1),
    "clicks": (-1, 0, 1),
    "cost_minor": (-1, 0, 1),
    "room_id": ("*", "room-1"),
}


@pytest.mark.parametrize("model", export.RULES_ACROSS_FIELDS, ids=lambda model: model.__name__)
def test_the_files_and_the_models_agree_on_every_rule_across_fields(model: type[Event]) -> None:
    kind = export.event_type(model)
    fields = [name for name in RULED_VALUES if name in model.model_fields and name in EXAMPLES[kind]]
    judged = []
    for values in itertools.product(*(RULED_VALUES[name] for name in fields)):
        event = EXAMPLES[kind] | dict(zip(fields, values, strict=True))
        event = {name: value for name, value in event.items() if value is not ABSENT}
        judged.append(by_model(model, event))
        assert by_files(model, event) is judged[-1], event
    assert {True, False} == set(judged)


@given(events())
def test_whatever_the_contract_allows_is_valid_to_the_files(event: dict[str, Any]) -> None:
    assert by_files(EVENTS[event["type"]], event)


def has_another_spelling_of_an_integer(value: Any) -> bool:
    """Tell whether 1.0 is in there: an integer to JSON Schema, none to the models."""
    if isinstance(value, float):
        return value.is_integer()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(has_another_spelling_of_an_integer(part) for part in parts)


def ends_in_a_newline(value: Any) -> bool:
    """Tell whether Python's `$`, which jsonschema uses, would match before the end: other languages' does not."""
    return isinstance(value, str) and value.endswith("\n")


def has_rare_unprintable(value: Any) -> bool:
    """Tell whether a text holds a character the files need not know to be unprintable: neither ASCII nor Latin-1."""
    return isinstance(value, str) and not all(c.isprintable() or ord(c) < 256 for c in value)


@given(events(), st.data())
@settings(max_examples=effort(400))
def test_the_files_and_the_models_agree_on_a_changed_event(event: dict[str, Any], data: st.DataObject) -> None:
    model = EVENTS[event["type"]]
    field = data.draw(st.sampled_from(sorted(set(model.model_fields) - {"type"})))
    values = json_values() | st.integers(-2, 2) | st.sampled_from(("", "adjust", "leave", "*", "1.5", "\u00a0", "a\nb"))
    value = data.draw(values)
    assume(not (has_another_spelling_of_an_integer(value) or ends_in_a_newline(value) or has_rare_unprintable(value)))
    changed = event | {field: value}
    assert by_files(model, changed) is by_model(model, changed)
    without = {name: value for name, value in event.items() if name != field}
    assert by_files(model, without) is by_model(model, without)


@given(st.text(min_size=1, max_size=128))
@example("🛒" * 128)
@example("\u200b")
@example("\u2060")
def test_an_id_that_the_models_take_is_never_refused_by_the_files(name: str) -> None:
    message = MESSAGES[KillState] | {"actor": name}
    if by_model(KillState, message):
        assert by_files(KillState, message)
    if any(ord(c) < 256 and not c.isprintable() for c in name):
        assert not by_files(KillState, message)


def test_the_discriminator_maps_every_type_to_its_definition() -> None:
    document = written("room.events.json")
    any_event = document["$defs"]["AnyEvent"]
    assert any_event["discriminator"]["propertyName"] == "type"
    mapping = any_event["discriminator"]["mapping"]
    assert sorted(mapping) == sorted(KINDS)
    assert sorted(mapping.values()) == sorted(choice["$ref"] for choice in any_event["oneOf"])
    for kind, ref in mapping.items():
        assert resolve(document, ref)["properties"]["type"]["const"] == kind


def test_an_array_holds_at_least_one_producers_event_and_nothing_else() -> None:
    judge = message_validator("room.events")
    assert judge.is_valid([EXAMPLES[kind] for kind in PRODUCER_KINDS])
    assert not judge.is_valid([])
    assert not judge.is_valid([[EXAMPLES["view"]]])
    assert not judge.is_valid([EXAMPLES["view"], {"type": "view"}])
    assert not judge.is_valid("view")
    for kind in set(KINDS) - set(PRODUCER_KINDS):
        assert judge.is_valid(EXAMPLES[kind])
        assert not judge.is_valid([EXAMPLES["view"], EXAMPLES[kind]])


def test_an_event_of_an_unknown_type_is_refused() -> None:
    judge = message_validator("room.events")
    assert not judge.is_valid(EXAMPLES["tick"] | {"type": "tock"})
    assert not judge.is_valid({name: value for name, value in EXAMPLES["tick"].items() if name != "type"})


@pytest.mark.parametrize(("name", "model"), [("settings.json", Settings), ("policy.json", Policy)])
def test_the_settings_files_take_the_defaults_and_refuse_a_misspelt_name(name: str, model: type[BaseModel]) -> None:
    judge = Draft202012Validator(written(name))
    defaults = model().model_dump(mode="json")
    assert judge.is_valid(defaults)
    assert judge.is_valid({})
    assert not judge.is_valid({"colour": 1})
    assert not judge.is_valid({"bidding": {"cap": 1}})
    assert not judge.is_valid({"bidding": {"cap_minor": -1}})


def test_the_settings_file_tells_every_default_and_marks_secrets() -> None:
    document = written("settings.json")
    sections = {name: field["$ref"] for name, field in document["properties"].items() if "$ref" in field}
    assert {"engine", "bidding", "kafka", "worker"} <= sections.keys()
    for section, ref in sections.items():
        fields = resolve(document, ref)["properties"]
        default = getattr(Settings(), section).model_dump(mode="json")
        told = {name: field["default"] for name, field in fields.items() if "default" in field}
        assert told == {name: value for name, value in default.items() if name != "rates"}  # made anew each time
    for secret in ("privacy_key", "control_key"):
        (shape, _null) = document["properties"][secret]["anyOf"]
        assert shape["writeOnly"] is True
        assert shape["format"] == "password"
