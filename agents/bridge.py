"""The one way into a room's log from outside: signed controls and answers are checked, then written there signed.

Operators write to `ops.control`, controllers to `bid.acks`; neither may write `room.events`, where only what this
bridge signed with the control key counts. What is refused goes to the dead letters with the reason.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import orjson
from pydantic import ValidationError

from agents.kafka import partition_of
from agents.logs import facts
from agents.sender import Confirmation, Send
from pipeline import control
from pipeline.ids import derived
from schemas.base import EVERY_ROOM, MAX_AHEAD_MS, MAX_EVENT_BYTES
from schemas.control import DEFAULT_KID, Ack, ControlRequest, KillState, is_signed, sign
from schemas.deadletters import DeadLetter, RejectReason
from schemas.settings import Policy
from schemas.topics import BID_ACKS, OPS_CONTROL, OPS_KILL, ROOM_EVENTS, ROOM_EVENTS_DLQ

log = logging.getLogger(__name__)

_OPERATORS: Final = "operator:"
_CONTROLLERS: Final = "controller:"


class Accepted(NamedTuple):
    """A record for the log of `room_id` (`*`: of every partition), and the kill switch's state if it is one."""

    room_id: str
    record: bytes
    kill: KillState | None = None


class Refusal(NamedTuple):
    """Why a message was not taken, as a code and in words for who sent it."""

    reason: RejectReason
    error: str
    room_id: str | None = None


class _RefusedError(Exception):
    def __init__(self, reason: RejectReason, error: str) -> None:
        super().__init__(error)
        self.reason: RejectReason = reason


def judge_control(raw: bytes, control_key: bytes, timestamp_ms: int | None = None) -> Accepted | Refusal:
    """Return the log record of a message of `ops.control`, or why there is none."""
    message: dict[str, Any] = {}
    try:
        message = _signed(raw, control_key, _OPERATORS)
        request = ControlRequest.model_validate(message)
        _check_ahead(request.ts, timestamp_ms)
        _check_arguments(request)
    except (ValidationError, _RefusedError) as error:
        return _refusal(error, message)
    record = {
        "type": "control",
        "event_id": request.control_id,
        "room_id": request.room_id,
        "ts": request.ts,
        "control_id": request.control_id,
        "actor": request.actor,
        "action": request.action,
        "args": request.args,
    }
    kill = None
    if request.action == "kill_switch":
        kill = KillState(on=request.args["on"], actor=request.actor, ts=request.ts)
    return Accepted(request.room_id, seal(record, control_key), kill)


def judge_ack(raw: bytes, control_key: bytes, timestamp_ms: int | None = None) -> Accepted | Refusal:
    """Return the log record of a message of `bid.acks`, or why there is none."""
    message: dict[str, Any] = {}
    try:
        message = _signed(raw, control_key, _CONTROLLERS)
        ack = Ack.model_validate(message)
        _check_ahead(ack.ts, timestamp_ms)
        if ack.room_id == EVERY_ROOM:
            raise _RefusedError("bad_value", "room_id must be one room, got '*'")
    except (ValidationError, _RefusedError) as error:
        return _refusal(error, message)
    content = ack.model_dump(mode="json", exclude_none=True, exclude={"kid", "sig"})
    # An answer sent twice is one answer: its id follows from all it says.
    event_id = derived("ack", orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode())
    return Accepted(ack.room_id, seal({"type": "ack", "event_id": event_id, **content}, control_key))


def policy_record(
    policy: Policy, versions: dict[str, object], partition: int, *, key: bytes, start_ts: int, ts: int
) -> bytes:
    """Return the control by which a process's policy takes effect at an offset; `start_ts` makes it one of its kind."""
    control_id = f"policy-{policy.version()}-{partition}-{start_ts}"
    record = {
        "type": "control",
        "event_id": control_id,
        "room_id": EVERY_ROOM,
        "ts": ts,
        "control_id": control_id,
        "actor": "worker",
        "action": "update_settings",
        "args": {"policy": policy.model_dump(mode="json"), "versions": versions},
    }
    return seal(record, key)


def seal(record: dict[str, Any], control_key: bytes) -> bytes:
    """Return the bytes of a log record that only a holder of the control key can have written."""
    return orjson.dumps(sign(record, control_key))


def _signed(raw: bytes, control_key: bytes, prefix: str) -> dict[str, Any]:
    """Return the message if it is signed by one who may: under the control key or a key named `prefix`..."""
    if len(raw) > MAX_EVENT_BYTES:
        raise _RefusedError("too_large", f"a message must be at most {MAX_EVENT_BYTES} bytes, got {len(raw)}")
    try:
        message = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _RefusedError("not_json", f"value must be UTF-8 JSON: {error}") from None
    if not isinstance(message, dict):
        raise _RefusedError("not_object", f"value must be an object, got {type(message).__name__}")
    kid = message.get("kid")
    if kid is None or message.get("sig") is None:
        raise _RefusedError("unsigned", "kid and sig are required: sign with the control key or one derived from it")
    if not isinstance(kid, str) or not (kid == DEFAULT_KID or kid.startswith(prefix)):
        raise _RefusedError("bad_signature", f"kid must be {DEFAULT_KID!r} or begin with {prefix!r}, got {kid!r:.60}")
    if not is_signed(message, control_key):
        raise _RefusedError("bad_signature", f"sig must be the HMAC-SHA256 of the message under the key of kid {kid!r}")
    return message


def _check_ahead(ts: int, timestamp_ms: int | None) -> None:
    if timestamp_ms is not None and ts > timestamp_ms + MAX_AHEAD_MS:
        ahead = ts - timestamp_ms
        raise _RefusedError("ts_ahead", f"ts must be at most {MAX_AHEAD_MS} ms ahead of the broker, got {ahead} ms")


def _check_arguments(request: ControlRequest) -> None:
    try:
        control.read(request)
    except control.Refused as refused:
        raise _RefusedError("bad_value", str(refused)) from None


_REASONS: Final[dict[str, RejectReason]] = {
    "missing": "missing_field",
    "literal_error": "unknown_value",
    "greater_than_equal": "negative",
    "less_than_equal": "over_limit",
    "string_too_long": "over_limit",
}


def _refusal(error: ValidationError | _RefusedError, message: dict[str, Any]) -> Refusal:
    room = message.get("room_id")
    room_id = room if isinstance(room, str) and room else None
    if isinstance(error, _RefusedError):
        return Refusal(error.reason, str(error), room_id)
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    kind = first["type"]
    reason = _REASONS.get(kind) or ("bad_type" if kind.endswith(("_type", "_parsing")) else "bad_value")
    text = first["msg"].removeprefix("Value error, ")
    return Refusal(reason, f"{path}: {text[:1].lower()}{text[1:]}", room_id)


JUDGES: Final[dict[str, Callable[[bytes, bytes, int | None], Accepted | Refusal]]] = {
    OPS_CONTROL: judge_control,
    BID_ACKS: judge_ack,
}
"""What is bridged, and by which rule."""


class Bridge:
    """Carry what is signed into the rooms' logs; `n_partitions` is what all room topics have."""

    def __init__(self, send: Send, control_key: bytes, n_partitions: int) -> None:
        self._send, self._key, self._n_partitions = send, control_key, n_partitions

    async def carry(self, topic: str, partition: int, records: Sequence[Any]) -> None:
        """Judge records of one partition of `topic` and return once all that follows from them is in Kafka."""
        sent: list[Confirmation] = []
        for record in records:
            raw = record.value or b""
            verdict = JUDGES[topic](raw, self._key, record.timestamp)
            if isinstance(verdict, Accepted):
                sent += await self._write(verdict)
                continue
            log.warning(
                "message refused",
                extra=facts(topic=topic, partition=partition, offset=record.offset, reason=verdict.reason),
            )
            letter = DeadLetter(
                reason=verdict.reason,
                error=verdict.error,
                topic=topic,
                partition=partition,
                offset=record.offset,
                ts=record.timestamp,
                payload_b64=base64.b64encode(raw).decode(),
            )
            key = verdict.room_id.encode() if verdict.room_id else record.key
            value = letter.model_dump_json(exclude_none=True).encode()
            sent.append(await self._send(ROOM_EVENTS_DLQ, key, value, partition))
        for confirmation in sent:
            await confirmation

    async def _write(self, accepted: Accepted) -> list[Confirmation]:
        every = accepted.room_id == EVERY_ROOM
        home = partition_of(accepted.room_id, self._n_partitions)
        key = accepted.room_id.encode()
        partitions = range(self._n_partitions) if every else [home]
        sent = [await self._send(ROOM_EVENTS, key, accepted.record, partition) for partition in partitions]
        if accepted.kill is not None:
            sent.append(await self._send(OPS_KILL, key, accepted.kill.model_dump_json().encode(), home))
        return sent
