"""JSON Schema and AsyncAPI files of everything on the wire, made from the models: `python -m schemas.export [--check]`.

A topic's file describes one message value of it. JSON Schema cannot say everything the models say: it takes 1.0 for an
integer, and knows the common unprintable characters only. Where it differs it is the more lenient one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from schemas import base
from schemas.anomalies import Anomaly
from schemas.audit import AuditRecord
from schemas.commands import BidCommand
from schemas.control import Ack, ControlRequest, KillState
from schemas.deadletters import DeadLetter
from schemas.events import EVENT_MODELS, AckEvent, ControlEvent, Event, SpendEvent, TickEvent, ViewEvent
from schemas.feedback import AudienceFeedback
from schemas.settings import KafkaSettings, Policy, Settings
from schemas.signals import RoomSignals
from schemas.topics import (
    AUDIENCE_FEEDBACK,
    AUDIT_LOG,
    BID_ACKS,
    BID_COMMANDS,
    OPS_CONTROL,
    OPS_KILL,
    ROOM_ANOMALIES,
    ROOM_EVENTS,
    ROOM_EVENTS_DLQ,
    ROOM_SIGNALS,
    TOPICS,
    Topic,
)

Schema = dict[str, Any]

GENERATED: Final = Path(__file__).parent / "generated"
CONTRACT_VERSION: Final = "1.0.0"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
KAFKA_BINDING: Final = "0.5.0"

ASYNCAPI_REF: Final = "#/components/schemas/{model}"
LOCAL_REF: Final = "#/$defs/{model}"

MESSAGES: Final[Mapping[str, tuple[type[BaseModel], ...]]] = {
    ROOM_EVENTS: EVENT_MODELS,
    ROOM_EVENTS_DLQ: (DeadLetter,),
    ROOM_SIGNALS: (RoomSignals,),
    ROOM_ANOMALIES: (Anomaly,),
    BID_COMMANDS: (BidCommand,),
    BID_ACKS: (Ack,),
    OPS_CONTROL: (ControlRequest,),
    OPS_KILL: (KillState,),
    AUDIT_LOG: (AuditRecord,),
    AUDIENCE_FEEDBACK: (AudienceFeedback,),
}
"""What each topic's messages are; `room.events` also takes an array of its producers' events."""

OWN_EVENTS: Final[tuple[type[Event], ...]] = (TickEvent, ControlEvent, AckEvent)
"""Events that only the pipeline writes, and never inside an array."""
PRODUCER_EVENTS: Final = tuple(model for model in EVENT_MODELS if model not in OWN_EVENTS)
ANY_EVENT: Final = "AnyEvent"
BATCH: Final = "EventBatch"

# Ranges of characters whose `str.isprintable()` is False in every Unicode version. No surrogates: a validator without
# Unicode regular expressions would then refuse half of an emoji.
_UNPRINTABLE: Final = (
    r"[\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ue000-\uf8ff\ufeff]"
)


def _when(field: str, value: str) -> Schema:
    return {"if": {"properties": {field: {"const": value}}, "required": [field]}}


def _present(*fields: str) -> Schema:
    return {"properties": {field: {"not": {"type": "null"}} for field in fields}, "required": sorted(fields)}


RULES_ACROSS_FIELDS: Final[Mapping[type[Event], list[Schema]]] = {
    ViewEvent: [_when("action", "leave") | {"then": _present("dwell_ms")}],
    SpendEvent: [
        _when("reporting", "cumulative") | {"then": _present("stat_date", "report_ts")},
        _when("reporting", "adjust")
        | {"else": {"properties": {field: {"minimum": 0} for field in ("impressions", "clicks", "cost_minor")}}},
    ],
    AckEvent: [{"properties": {"room_id": {"not": {"const": base.EVERY_ROOM}}}}],
}
"""`Event.problem` of each model that has one, in the words of JSON Schema: a test holds the two together."""

_SCALARS: Final[Mapping[str, Any]] = {
    "Identifier": base.Identifier,
    "TimestampMs": base.TimestampMs,
    "MoneyMinor": base.MoneyMinor,
    "SignedMoneyMinor": base.SignedMoneyMinor,
    "Count": base.Count,
    "SignedCount": base.SignedCount,
    "Currency": base.Currency,
    "CalendarDate": base.CalendarDate,
    "Decimal6": base.Decimal6,
}


class _Generator(GenerateJsonSchema):
    """pydantic's generator, told of the rules that are Python functions."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the name says what the title would
        return False

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> JsonSchemaValue:
        made = super().function_after_schema(schema)
        if schema["function"]["function"] is base.printable:
            made |= {"description": "printable characters only", "not": {"pattern": _UNPRINTABLE}}
        return made

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        rules = RULES_ACROSS_FIELDS.get(schema["cls"])
        return {**made, "allOf": rules} if rules else made

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        # A section's own fields tell their defaults: no need to repeat the tree where it hangs.
        if isinstance(schema.get("default"), BaseModel):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


_SCALAR_SCHEMAS: Final[Mapping[str, Schema]] = {
    name: TypeAdapter(scalar).json_schema(schema_generator=_Generator) for name, scalar in _SCALARS.items()
}


def _share_scalars(node: Any, ref: str, used: set[str]) -> Any:
    """Return `node` with every sub-schema that is one of the named scalars replaced by a reference to it."""
    if isinstance(node, list):
        return [_share_scalars(item, ref, used) for item in node]
    if not isinstance(node, dict):
        return node
    for name, schema in _SCALAR_SCHEMAS.items():
        if node == schema:
            used.add(name)
            return {"$ref": ref.format(model=name)}
    return {key: _share_scalars(value, ref, used) for key, value in node.items()}


def definitions(models: Iterable[type[BaseModel]], ref: str) -> dict[str, Schema]:
    """Return the schema of each model, and of all they are built from, by name; references follow `ref`."""
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in models]
    _, made = models_json_schema(wanted, ref_template=ref, schema_generator=_Generator)
    used: set[str] = set()
    shared = {name: _share_scalars(schema, ref, used) for name, schema in made["$defs"].items()}
    return shared | {name: _SCALAR_SCHEMAS[name] for name in used}


def _one_of(models: Iterable[type[Event]], ref: str) -> Schema:
    return {"oneOf": [{"$ref": ref.format(model=model.__name__)} for model in models]}


def _batch(ref: str) -> Schema:
    return {
        "description": "Events of one room, that of the message's key; each is judged on its own.",
        "items": _one_of(PRODUCER_EVENTS, ref),
        "minItems": 1,
        "title": BATCH,
        "type": "array",
    }


def event_type(model: type[BaseModel]) -> str:
    """Return the value of `type` that an event model answers to."""
    (value,) = get_args(model.model_fields["type"].annotation)
    return str(value)


def _events_schema(purpose: str) -> Schema:
    mapping = {event_type(model): LOCAL_REF.format(model=model.__name__) for model in EVENT_MODELS}
    any_event = {
        "description": "One record; `type` says which.",
        "discriminator": {"mapping": mapping, "propertyName": "type"},
        "title": ANY_EVENT,
        **_one_of(EVENT_MODELS, LOCAL_REF),
    }
    return {
        "$defs": definitions(EVENT_MODELS, LOCAL_REF) | {ANY_EVENT: any_event, BATCH: _batch(LOCAL_REF)},
        "$schema": DIALECT,
        "description": f"A message of `{ROOM_EVENTS}`: {purpose}.",
        "oneOf": [{"$ref": LOCAL_REF.format(model=name)} for name in (ANY_EVENT, BATCH)],
        "title": ROOM_EVENTS,
    }


def _model_schema(model: type[BaseModel]) -> Schema:
    shared = definitions([model], LOCAL_REF)
    root = shared.pop(model.__name__)
    return {"$schema": DIALECT, **root} | ({"$defs": shared} if shared else {})


def _title(model: type[BaseModel]) -> str:
    return event_type(model) if issubclass(model, Event) else model.__name__


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").partition("\n")[0]


_HEADERS: Final[Schema] = {
    "description": "CloudEvents attributes",
    "properties": {
        "ce_id": {"description": "the same for a repeated or replayed message", "type": "string"},
        "ce_source": {"type": "string"},
        "ce_specversion": {"const": "1.0", "type": "string"},
        "ce_type": {"type": "string"},
    },
    "type": "object",
}
_SENT: Final = (ROOM_SIGNALS, ROOM_ANOMALIES, BID_COMMANDS, ROOM_EVENTS_DLQ, AUDIT_LOG, AUDIENCE_FEEDBACK)


def _message(name: str, title: str, summary: str, *, headers: bool = False) -> Schema:
    made: Schema = {
        "bindings": {"$ref": "#/components/messageBindings/keyed"},
        "contentType": "application/json",
        "name": name,
        "payload": {"$ref": ASYNCAPI_REF.format(model=name)},
        "summary": summary,
        "title": title,
    }
    return made | ({"headers": {"$ref": "#/components/schemas/Headers"}} if headers else {})


def _channel_messages(topic: str) -> list[str]:
    names = [model.__name__ for model in MESSAGES[topic]]
    return [*names, BATCH] if topic == ROOM_EVENTS else names


def _channel(topic: Topic) -> Schema:
    kafka = KafkaSettings()
    partitions = (
        "As many partitions as every other topic of rooms (setting `kafka.partitions`), so that a room lives in the "
        "same one everywhere. Keys are partitioned by murmur2."
        if topic.by_room
        else "Its number of partitions is its own."
    )
    return {
        "address": topic.name,
        "bindings": {
            "kafka": {
                "bindingVersion": KAFKA_BINDING,
                "partitions": kafka.partitions,
                "replicas": kafka.replication_factor,
                "topic": topic.name,
                "topicConfiguration": {
                    "cleanup.policy": [topic.cleanup],
                    "message.timestamp.type": topic.timestamp_type,
                    "retention.ms": topic.retention_ms,
                },
            }
        },
        "description": partitions,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _channel_messages(topic.name)},
        "summary": topic.purpose,
    }


def _operation(action: str, topic: str, summary: str, messages: Iterable[str] | None = None) -> Schema:
    names = _channel_messages(topic) if messages is None else messages
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic}"},
        "messages": [{"$ref": f"#/channels/{topic}/messages/{name}"} for name in names],
        "summary": summary,
    }


def _operations() -> dict[str, Schema]:
    own = [model.__name__ for model in OWN_EVENTS]
    producers = [*(model.__name__ for model in PRODUCER_EVENTS), BATCH]
    return {
        "receiveAcks": _operation("receive", BID_ACKS, "Take controllers' signed answers."),
        "receiveControls": _operation("receive", OPS_CONTROL, "Take operators' signed actions."),
        "receiveEvents": _operation("receive", ROOM_EVENTS, "Take what producers tell of their rooms.", producers),
        "sendAnomalies": _operation("send", ROOM_ANOMALIES, "Tell each step in an anomaly's life."),
        "sendAudit": _operation("send", AUDIT_LOG, "Write the trail."),
        "sendCommands": _operation("send", BID_COMMANDS, "Tell bid controllers what they may do."),
        "sendControls": _operation("send", OPS_CONTROL, "Hand on what an operator asked for here."),
        "sendDeadLetters": _operation("send", ROOM_EVENTS_DLQ, "Give back what was refused, and why."),
        "sendFeedback": _operation("send", AUDIENCE_FEEDBACK, "Tell what each segment came to in a session."),
        "sendKillState": _operation("send", OPS_KILL, "Turn the kill switch."),
        "sendOwnEvents": _operation("send", ROOM_EVENTS, "Write time, controls and answers into the log.", own),
        "sendSignals": _operation("send", ROOM_SIGNALS, "Tell how each room is doing."),
    }


def asyncapi() -> Schema:
    """Return the AsyncAPI 3.0 document; operations are the product's own: what it sends and what it receives."""
    messages = {
        model.__name__: _message(model.__name__, _title(model), _summary(model), headers=topic in _SENT)
        for topic, models in MESSAGES.items()
        for model in models
    }
    messages[BATCH] = _message(BATCH, "array of events", "Several events of one room in one message.")
    every_model = [model for models in MESSAGES.values() for model in models]
    own_schemas = {BATCH: _batch(ASYNCAPI_REF), "Headers": _HEADERS}
    return {
        "asyncapi": "3.0.0",
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "components": {
            "messageBindings": {
                "keyed": {
                    "kafka": {
                        "bindingVersion": KAFKA_BINDING,
                        "key": {"description": "the room's id, or `*` for every room", "type": "string"},
                    }
                }
            },
            "messages": messages,
            "schemas": definitions(every_model, ASYNCAPI_REF) | own_schemas,
        },
        "defaultContentType": "application/json",
        "info": {
            "description": "Livestream rooms as they happen: events in; signals, anomalies, guarded bid commands out.",
            "license": {"name": "Apache-2.0"},
            "title": "roompulse",
            "version": CONTRACT_VERSION,
        },
        "operations": _operations(),
        "servers": {
            "kafka": {
                "description": "the brokers that ROOMPULSE_BROKER names",
                "host": "{broker}",
                "protocol": "kafka",
                "variables": {"broker": {"default": "127.0.0.1:9092", "description": "host:port of any one broker"}},
            }
        },
    }


def documents() -> dict[str, Schema]:
    """Return every document by its file name."""
    single = {f"{topic}.json": _model_schema(models[0]) for topic, models in MESSAGES.items() if topic != ROOM_EVENTS}
    (purpose,) = [topic.purpose for topic in TOPICS if topic.name == ROOM_EVENTS]
    return {
        f"{ROOM_EVENTS}.json": _events_schema(purpose),
        **single,
        "policy.json": _model_schema(Policy),
        "settings.json": _model_schema(Settings),
        "asyncapi.json": asyncapi(),
    }


def render(document: Schema) -> bytes:
    """Return the bytes of a document's file: the same on every machine."""
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def stale(directory: Path = GENERATED) -> list[str]:
    """Return the names of files in `directory` that are missing, differ, or belong to nothing any more."""
    wanted = {name: render(document) for name, document in documents().items()}
    present = {path.name: path.read_bytes() for path in directory.glob("*.json")}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def write(directory: Path = GENERATED) -> list[str]:
    """Bring `directory` up to date, and return the names of files that changed."""
    changed = stale(directory)
    wanted = documents()
    directory.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in wanted:
            (directory / name).write_bytes(render(wanted[name]))
        else:
            (directory / name).unlink()
    return changed


def main(arguments: Sequence[str] | None = None, directory: Path = GENERATED) -> int:
    """Write the files, or with `--check` only tell which are stale; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.export", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is not current")
    try:
        if not parser.parse_args(arguments).check:
            write(directory)
            return 0
        names = stale(directory)
    except OSError as error:
        sys.stderr.write(f"schemas.export: {error.filename} must be readable and writable, got {error.strerror}\n")
        return 1
    if names:
        sys.stderr.write(f"{directory}: must match the models, got stale {', '.join(names)}: run {parser.prog}\n")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
