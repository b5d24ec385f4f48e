"""Bytes of a record to events, as fast as typed structs allow, by the pydantic models' own verdict.

The structs are derived from `schemas.events` by program, so there is one definition. What is plainly a good event
passes after a few searches of its bytes; anything else is judged again, rule by rule. A record that the parser refuses
is read again by pydantic, which words the reason; what only the parser refuses is refused too.
"""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import product
from operator import attrgetter
from string import ascii_uppercase
from types import UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, NoReturn, Union, cast, get_args, get_origin

import msgspec
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from schemas.base import EVERY_ROOM, MAX_AHEAD_MS, MAX_EVENT_BYTES, MAX_NESTING, Identifier
from schemas.deadletters import RejectReason
from schemas.events import EVENT_MODELS, Event, RoomSettings

_CONSTRAINTS: Final = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt", MinLen: "min_length", MaxLen: "max_length"}
_PRINTABLE: Final = get_args(Identifier)[-1]
"""The marker that pydantic's models carry on every id."""


class Reject(NamedTuple):
    """An element that changes nothing: why, in words, its place in an array, its bytes."""

    reason: RejectReason
    error: str
    place: int | None
    payload: bytes


def _meta(constraints: list[Any]) -> msgspec.Meta | None:
    known: dict[str, Any] = {}
    for constraint in constraints:
        if isinstance(constraint, FieldInfo):
            nested = _meta(constraint.metadata)
            if nested is not None:
                known |= {name: value for name in _META_FIELDS if (value := getattr(nested, name)) is not None}
        elif type(constraint) in _CONSTRAINTS:
            name = _CONSTRAINTS[type(constraint)]
            known[name] = getattr(constraint, name)
        elif (pattern := getattr(constraint, "pattern", None)) is not None:
            known["pattern"] = pattern
    return msgspec.Meta(**known) if known else None


@cache
def _capitals(length: int) -> Any:
    """Return the type of any `length` capital letters, as a list of them all.

    A currency is in most events about money. Looking one up in seventeen thousand takes the parser a tenth of what it
    needs for the pattern, and every event gets the same object.
    """
    return Literal[tuple(map("".join, product(ascii_uppercase, repeat=length)))]


_CAPITALS: Final = re.compile(r"\^\[A-Z\]\{([1-3])\}\$")
_META_FIELDS: Final = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")


def _convert(annotation: Any) -> Any:
    """Return the msgspec annotation that means what the pydantic `annotation` means."""
    if get_origin(annotation) is Annotated:
        base, *constraints = get_args(annotation)
        meta = _meta(constraints)
        if meta is not None and base is str and (capitals := _CAPITALS.fullmatch(meta.pattern or "")):
            length = int(capitals[1])
            if {meta.min_length, meta.max_length} <= {None, length}:
                return _capitals(length)
        return _convert(base) if meta is None else Annotated[_convert(base), meta]
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(_convert(part) for part in get_args(annotation))]  # noqa: UP007 - built from a tuple
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return derive(annotation)
    return annotation


def derive(model: type[BaseModel]) -> type[msgspec.Struct]:
    """Return a struct with the fields, types and limits of `model`; `type` becomes its tag."""
    fields: list[Any] = []
    tag: str | None = None
    for name, info in model.model_fields.items():
        if name == "type":
            (tag,) = get_args(info.annotation)
            continue
        annotation = _convert(Annotated[info.annotation, info] if info.metadata else info.annotation)
        if info.is_required():
            fields.append((name, annotation))
        elif info.default_factory is not None:
            fields.append((name, annotation, msgspec.field(default_factory=cast("Any", info.default_factory))))
        else:
            fields.append((name, annotation, info.default))
    fields.sort(key=len)  # required ones first, otherwise in the model's order
    return msgspec.defstruct(
        model.__name__, fields, tag_field="type" if tag else None, tag=tag, gc=False, module=__name__
    )


def _is_identifier(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _PRINTABLE in get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return any(_is_identifier(part) for part in get_args(annotation))
    return False


def _identifiers(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(
        name
        for name, info in model.model_fields.items()
        if _PRINTABLE in info.metadata or _is_identifier(info.annotation)
    )


STRUCTS: Final[dict[str, type[msgspec.Struct]]] = {}
"""Derived struct of each `type`."""
_RULES: Final[dict[type[Any], Any]] = {}
_IDENTIFIERS: Final[dict[type[Any], tuple[str, ...]]] = {}
_SETTINGS_IDENTIFIERS: Final = tuple(f"settings.{name}" for name in _identifiers(RoomSettings))
for _model in EVENT_MODELS:
    _struct = derive(_model)
    STRUCTS[get_args(_model.model_fields["type"].annotation)[0]] = _struct
    _IDENTIFIERS[_struct] = _identifiers(_model)
    if _model.problem is not Event.problem:
        _RULES[_struct] = _model.problem

_IDENTIFIERS_OF: Final = {struct: attrgetter(*names) for struct, names in _IDENTIFIERS.items()}
_COMMENT, _ROOM = STRUCTS["comment"], STRUCTS["room"]

_decode_event: Final = msgspec.json.Decoder(Union[tuple(STRUCTS.values())]).decode  # noqa: UP007 - from a tuple
_decode_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_explainer: Final[TypeAdapter[Any]] = TypeAdapter(
    Annotated[Union[EVENT_MODELS], Field(discriminator="type")]  # type: ignore[arg-type]  # noqa: UP007 - from a tuple
)
NOT_IN_ARRAYS: Final = (STRUCTS["tick"], STRUCTS["control"], STRUCTS["ack"])
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{\]},]', re.DOTALL)


def _nesting(raw: bytes) -> int:
    """Return how deep arrays and objects nest, brackets inside strings not counted."""
    depth = deepest = 0
    for token in _TOKENS.finditer(raw):
        mark = raw[token.start()]
        if mark in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in b"]}":
            depth -= 1
    return deepest


def _split(raw: bytes) -> list[bytes]:
    """Return the elements of an array that nests too deep for the parser."""
    depth, begin, elements = 0, 0, []
    for token in _TOKENS.finditer(raw):
        mark = raw[token.start()]
        if mark in b"[{":
            depth += 1
            if depth == 1:
                begin = token.end()
        elif mark in b"]}":
            depth -= 1
            if depth == 0:
                elements.append(raw[begin : token.start()])
        elif mark == ord(",") and depth == 1:
            elements.append(raw[begin : token.start()])
            begin = token.end()
    if depth != 0:
        msg = f"array must be closed, got {depth} brackets that are not"
        raise msgspec.DecodeError(msg)
    return elements


def _refuse_constant(name: str) -> NoReturn:
    msg = f"numbers must be finite, got {name}"
    raise ArithmeticError(msg)


_REASONS: Final[dict[str, RejectReason]] = {
    "missing": "missing_field",
    "union_tag_not_found": "missing_field",
    "union_tag_invalid": "unknown_type",
    "literal_error": "unknown_value",
    "greater_than_equal": "negative",
    "less_than_equal": "over_limit",
    "string_too_long": "over_limit",
    "finite_number": "not_finite",
    "value_error": "bad_value",
    "greater_than": "bad_value",
    "string_pattern_mismatch": "bad_value",
    "string_too_short": "bad_value",
}


def _reason(error: Any) -> RejectReason:
    field = str(error["loc"][-1]) if error["loc"] else ""
    kind: str = error["type"]
    if field == "ts" and kind == "greater_than_equal":
        return "ts_negative"
    if field == "currency" and kind.startswith("string_") and kind != "string_type":
        return "bad_currency"
    if kind == "value_error" and " must be >= 0 " in error["msg"]:
        return "negative"
    if kind == "value_error" and " is required " in error["msg"]:
        return "missing_field"
    is_id = (field.endswith("_id") or field in ("channel", "source")) and kind != "string_type"
    if is_id and (kind.startswith("string_") or kind == "value_error"):
        return "bad_id"
    return _REASONS.get(kind, "bad_type")


def _explain(raw: bytes, cause: Exception) -> tuple[RejectReason, str]:
    """Return the reason code and words for an element that the fast path refused."""
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse_constant)  # text: bytes might be taken for UTF-16
    except ArithmeticError as error:
        return "not_finite", str(error)
    except (ValueError, RecursionError) as error:
        return "not_json", f"value must be JSON: {error}"
    if isinstance(value, list):
        return "nested_array", "an element must be an object, got an array"
    if not isinstance(value, dict):
        return "not_object", f"value must be an object or an array of them, got {type(value).__name__}"
    try:
        _explainer.validate_python(value)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"][1:])
        got = "" if first["type"] in ("missing", "value_error", "union_tag_not_found") else _shown(first["input"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "union_tag_not_found":
            message, path = "field required", "type"
        words = f"{message[:1].lower()}{message[1:]}{got}"
        return _reason(first), _one_line(f"{path}: {words}" if path else words)
    return "bad_value", str(cause)


def _one_line(words: str) -> str:
    """Return words with what cannot be printed written out: a value may hold line ends."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)


def _shown(value: Any) -> str:
    text = repr(value.get("type") if isinstance(value, dict) else value)
    return f", got {text if len(text) <= 60 else text[:57] + '...'}"


_BRACE, _BRACKET, _BACKSLASH, _DELETE = b"{", ord("["), ord("\\"), 0x7F  # numbers, where `in` finds those faster


def decode_one(value: bytes, timestamp_ms: int | None = None) -> Any:
    """Return the struct of a record that is one event, or why it is a `Reject`; None if it is an array, for `decode`.

    Only what is plainly good passes here, after as few searches of the bytes as show that; `_judge` words the rest.
    """
    if value.rfind(_BRACE) != 0 or _BRACKET in value:  # else one flat object, or no JSON
        if is_array(value):
            return None
        if value.count(_BRACE) + value.count(b"[") > MAX_NESTING:
            return _judge(value, None, timestamp_ms)
    if len(value) > MAX_EVENT_BYTES:
        return _judge(value, None, timestamp_ms)
    try:
        event = _decode_event(value)
        n_beyond_ascii = 0 if value.isascii() else len(value) - len(value.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _judge(value, None, timestamp_ms)
    is_escaped = _BACKSLASH in value or _DELETE in value
    # The parser takes no raw control character, so plain ASCII without escapes holds nothing unprintable.
    if (is_escaped or n_beyond_ascii) and not _has_plain_ids(event, -1 if is_escaped else n_beyond_ascii):
        return _judge(value, None, timestamp_ms)
    rule = _RULES.get(type(event))
    if rule is not None and rule(event) is not None:
        return _judge(value, None, timestamp_ms)
    if timestamp_ms is not None and event.ts > timestamp_ms + MAX_AHEAD_MS:
        return _judge(value, None, timestamp_ms)
    return event


def _has_plain_ids(event: Any, n_beyond_ascii: int) -> bool:
    """Tell whether all of an event's ids are surely printable; `n_beyond_ascii` bytes of it are not, -1 is unknown."""
    kind = type(event)
    if n_beyond_ascii > 0:
        # Chinese is usual in two places: if they account for it all, everything else is ASCII.
        if kind is _COMMENT:
            text: str = event.text  # may hold anything
            n_beyond_ascii -= len(text.encode()) - len(text)
        if n_beyond_ascii and (region := event.region) is not None and region.isprintable():
            n_beyond_ascii -= len(region.encode()) - len(region)
        if not n_beyond_ascii:
            return True
    if kind is _ROOM and event.settings is not None:
        return False  # ids in there too, seldom enough not to look
    return "".join(filter(None, _IDENTIFIERS_OF[kind](event))).isprintable()


def _judge(raw: bytes, index: int | None, timestamp_ms: int | None) -> Any:
    """Return the struct of one element, or the `Reject` that names the first rule it breaks."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return Reject("not_utf8", f"value must be UTF-8: {error.reason} at byte {error.start}", index, raw)
    if len(raw) > MAX_EVENT_BYTES:
        return Reject("too_large", f"an event must be at most {MAX_EVENT_BYTES} bytes, got {len(raw)}", index, raw)
    if raw.count(b"{") + raw.count(b"[") > MAX_NESTING and (nesting := _nesting(raw)) > MAX_NESTING:
        return Reject("too_deep", f"nesting must be at most {MAX_NESTING} levels, got {nesting}", index, raw)
    try:
        event = _decode_event(raw)
    except (msgspec.DecodeError, RecursionError) as error:  # ValidationError is a DecodeError
        return Reject(*_explain(raw, error), index, raw)
    settings = getattr(event, "settings", None)
    for name in (*_IDENTIFIERS[type(event)], *(_SETTINGS_IDENTIFIERS if settings is not None else ())):
        value = attrgetter(name)(event)
        if value is not None and not value.isprintable():
            return Reject("bad_id", f"{name}: must hold printable characters only, got {value!r}", index, raw)
    rule = _RULES.get(type(event))
    if rule is not None and (broken := rule(event)) is not None:
        return Reject(*_explain(raw, ValueError(" ".join(broken))), index, raw)
    if timestamp_ms is not None and event.ts > timestamp_ms + MAX_AHEAD_MS:
        ahead = event.ts - timestamp_ms
        words = f"ts: must be at most {MAX_AHEAD_MS} ms ahead of the record's own timestamp, got {ahead} ms"
        return Reject("ts_ahead", words, index, raw)
    return event


def is_array(value: bytes) -> bool:
    """Tell whether a record's value is an array of events."""
    return value.lstrip(b" \t\r\n")[:1] == b"["


def raw_elements(value: bytes) -> list[bytes]:
    """Return the bytes of each element of an array; raise msgspec.DecodeError when it is not one."""
    try:
        return [bytes(raw) for raw in _decode_elements(value)]
    except RecursionError:
        return _split(value)


def decode(value: bytes, *, timestamp_ms: int | None = None, key: str | None = None) -> list[Any]:
    """Return the elements of one record, in order: a derived struct for each event, a `Reject` for each other.

    Parameters
    ----------
    value : the record's bytes: one JSON object, or an array of them.
    timestamp_ms : the record's own Kafka timestamp; None leaves "too far ahead" unchecked.
    key : the record's key; elements of an array must be of that room. None takes the first event's room.
    """
    one = decode_one(value, timestamp_ms)
    if one is not None:
        return [one]
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return [Reject("not_utf8", f"value must be UTF-8: {error.reason} at byte {error.start}", None, value)]
    try:
        elements = raw_elements(value)
    except msgspec.DecodeError as error:
        reason, words = _explain(value, error)
        return [Reject("not_json" if reason == "nested_array" else reason, words, None, value)]
    if not elements:
        return [Reject("empty_array", "an array must hold at least one event", None, value)]
    room = key
    decoded: list[Any] = []
    for index, raw in enumerate(elements):
        element = decode_one(raw, timestamp_ms)
        if element is None:
            element = _judge(raw, index, timestamp_ms)  # an array of its own
        elif type(element) is Reject:
            element = element._replace(place=index)
        if type(element) is not Reject:
            if type(element) in NOT_IN_ARRAYS:
                element = Reject("not_in_array", "a tick, control or ack must be a record of its own", index, raw)
            elif room is None and element.room_id != EVERY_ROOM:
                room = element.room_id
            elif element.room_id != room:
                words = f"room_id: must be the message's room {room!r}, got {element.room_id!r}"
                element = Reject("foreign_room", words, index, raw)
        decoded.append(element)
    return decoded
