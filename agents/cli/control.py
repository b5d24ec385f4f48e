"""`roompulse control`: an operator's action, signed and sent."""

from __future__ import annotations

import re
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import orjson
import typer
from kafka import KafkaProducer
from kafka.errors import KafkaError
from pydantic import ValidationError

from agents import kafka
from agents.bridge import Refusal, judge_control
from agents.clock import now_ms
from agents.config import broker_of, control_key_of, load_settings
from agents.errors import ProgramError, UsageError
from agents.words import pick
from schemas.base import EVERY_ROOM
from schemas.control import ARGUMENTS, FOR_EVERY_ROOM, ControlRequest, sign
from schemas.events import ControlAction
from schemas.topics import OPS_CONTROL

ACTIONS: Final[tuple[str, ...]] = get_args(ControlAction)
SEND_TIMEOUT_S: Final = 20.0
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,15})")


def parse_arguments(action: str, pairs: list[str]) -> dict[str, Any]:
    """Return `key=value` pairs as the action's arguments; raise UsageError when they do not fit it.

    A value is read as the field's type: `on=true`, `until_ts=1700000000000`, `value=1.25`, `settings={"stage": ...}`.
    """
    fields = ARGUMENTS[action].model_fields
    args: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in fields:
            msg = f"--arg must be one of {', '.join(f'{field}=…' for field in fields)} for {action}, got {pair!r}"
            raise UsageError(msg)
        args[name] = _value(name, text, fields[name].annotation)
    try:
        ARGUMENTS[action].model_validate(args)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        msg = f"--arg {field} of {action} {_rule(first['msg'])}"
        raise UsageError(msg) from None
    return args


def _rule(message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should ", "must ").replace("Field ", "is ")
    return f"{text[:1].lower()}{text[1:]}"


def _value(name: str, text: str, annotation: Any) -> Any:
    kinds = (annotation, *get_args(annotation))
    if bool in kinds and text in ("true", "false"):
        return text == "true"
    if int in kinds or any(int in get_args(kind) for kind in kinds):
        return int(text) if _INTEGER.fullmatch(text) else text
    if text[:1] in "{[" and text:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            msg = f"--arg {name} must be JSON: {error}"
            raise UsageError(msg) from None
    return text


def run(
    action: Annotated[str, typer.Argument(help=f"One of {', '.join(ACTIONS)}.")],
    *,
    actor: Annotated[str, typer.Option(help="Who acts; kept in the trail.")],
    room: Annotated[str | None, typer.Option(help="The room.")] = None,
    every_room: Annotated[bool, typer.Option("--all", help="Every room instead.")] = False,
    arg: Annotated[list[str] | None, typer.Option(help="An argument of the action: key=value. Repeatable.")] = None,
    control_id: Annotated[str | None, typer.Option(help="Counts once, for ever; made up if not given.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the message as sent.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings (else ROOMPULSE_CONFIG).")] = None,
) -> None:
    """Send an operator's action: set_mode, kill_switch, approve, … It is signed with ROOMPULSE_CONTROL_KEY."""
    if action not in ACTIONS:
        msg = f"ACTION must be one of {', '.join(ACTIONS)}, got {action!r}"
        raise UsageError(msg)
    if (room is None) == (not every_room):
        msg = "one of --room ROOM and --all must be given, got " + ("neither" if room is None else "both")
        raise UsageError(msg)
    if every_room and action not in FOR_EVERY_ROOM:
        msg = f"--all must go with one of {', '.join(FOR_EVERY_ROOM)}, got {action}: name the room with --room"
        raise UsageError(msg)
    settings = load_settings(config)
    broker_of(settings)
    key = control_key_of(settings)
    message = {
        "control_id": control_id or f"ctl-{uuid.uuid4().hex}",
        "room_id": EVERY_ROOM if room is None else room,
        "ts": now_ms(),
        "actor": actor,
        "action": action,
        "args": parse_arguments(action, arg or []),
    }
    try:
        ControlRequest.model_validate(message)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        msg = f"--{str(first['loc'][0]).removesuffix('_id')} {_rule(first['msg'])}"
        raise UsageError(msg) from None
    value = orjson.dumps(sign(message, key))
    verdict = judge_control(value, key)  # what the bridge would refuse is told here and now
    if isinstance(verdict, Refusal):
        raise UsageError(verdict.error)
    _send(kafka.bootstrap(settings), str(message["room_id"]), value)
    if json_:
        sys.stdout.write(f"{value.decode()}\n")
    else:
        shown = message["control_id"]
        sys.stdout.write(f"{pick(settings.lang, f'sent {action} as {shown}', f'已发送 {action}，编号 {shown}')}\n")


def _send(servers: list[str], room_id: str, value: bytes) -> None:
    with closing(
        kafka.connect(KafkaProducer, servers, acks="all", max_block_ms=int(SEND_TIMEOUT_S * 1000))
    ) as producer:
        try:
            producer.send(OPS_CONTROL, key=room_id.encode(), value=value).get(SEND_TIMEOUT_S)
        except KafkaError as error:
            msg = f"{OPS_CONTROL} must take the message within {SEND_TIMEOUT_S:g} s, got {type(error).__name__}"
            raise ProgramError(msg) from None
