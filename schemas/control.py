"""From outside: operators' actions, controllers' answers, the kill switch; and how they are signed."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import orjson
from pydantic import Field, ValidationError

from schemas.base import Count, Decimal6, Identifier, Mode, TimestampMs, WireModel
from schemas.events import AckStatus, ControlAction, RoomSettings

DEFAULT_KID = "control"
"""Key id of `ROOMPULSE_CONTROL_KEY` itself; `controller:NAME` is the key derived from it for one controller."""


class SetMode(WireModel):
    """`set_mode`."""

    mode: Mode


class KillSwitch(WireModel):
    """`kill_switch`."""

    on: bool


class OfCommand(WireModel):
    """`approve`, `reject`."""

    command_id: Identifier


class OfAnomaly(WireModel):
    """`ack_anomaly`, `resolve_anomaly`."""

    anomaly_id: Identifier


class Silence(WireModel):
    """`silence`: nothing new is told until then, of one metric or of all."""

    until_ts: TimestampMs
    metric: Identifier | None = None


class OverrideBid(WireModel):
    """`override_bid`: minor units, or a goal as decimal text."""

    plan_id: Identifier
    value: Count | Decimal6


class ExcludeWindow(WireModel):
    """`exclude_window`: no bid rests on this time."""

    from_ts: TimestampMs
    to_ts: TimestampMs


class Feedback(WireModel):
    """`feedback`: was it a true alarm?"""

    anomaly_id: Identifier
    verdict: Literal["true", "false"]


class UpdateSettings(WireModel):
    """`update_settings`: a policy for every room (`policy`, `versions`), or one room's settings."""

    policy: dict[str, Any] | None = None
    versions: dict[str, Any] | None = None
    settings: RoomSettings | None = None


ARGUMENTS: Final[dict[str, type[WireModel]]] = {
    "set_mode": SetMode,
    "kill_switch": KillSwitch,
    "approve": OfCommand,
    "reject": OfCommand,
    "ack_anomaly": OfAnomaly,
    "resolve_anomaly": OfAnomaly,
    "silence": Silence,
    "override_bid": OverrideBid,
    "exclude_window": ExcludeWindow,
    "feedback": Feedback,
    "update_settings": UpdateSettings,
}
"""What each action needs in `args`."""
FOR_EVERY_ROOM: Final = ("kill_switch", "silence", "update_settings")
"""Actions that mean something without one room."""


def arguments(action: str, args: Mapping[str, Any]) -> Any:
    """Return the action's arguments as their model.

    Raises
    ------
    ValueError
        `args` does not fit the action; the message names the field.
    """
    try:
        return ARGUMENTS[action].model_validate(args)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(["args", *(str(part) for part in first["loc"])])
        msg = f"{path}: {first['msg'][:1].lower()}{first['msg'][1:]} (action {action!r})"
        raise ValueError(msg) from None


class ControlRequest(WireModel):
    """`ops.control`: one action of one operator; `control_id` counts once, for ever."""

    control_id: Identifier
    room_id: Identifier
    ts: TimestampMs
    actor: Identifier
    action: ControlAction
    args: dict[str, Any] = Field(default_factory=dict)
    kid: Identifier | None = None
    sig: str | None = Field(default=None, max_length=128)


class Ack(WireModel):
    """`bid.acks`: what became of a command; `unknown` is written-but-not-confirmed: read back, never retry."""

    command_id: Identifier
    room_id: Identifier
    ts: TimestampMs
    status: AckStatus
    observed_value: Count | Decimal6 | None = None
    detail: str | None = Field(default=None, max_length=1_000)
    kid: Identifier | None = None
    sig: str | None = Field(default=None, max_length=128)


class KillState(WireModel):
    """`ops.kill`: the switch of one room, or of every room under the key `*`."""

    on: bool
    actor: Identifier
    ts: TimestampMs


_DERIVED_KID: Final = re.compile(r"(controller|operator):[A-Za-z0-9._-]{1,64}")


def key_of(kid: str, control_key: bytes) -> bytes:
    """Return the signing key that `kid` names: the control key, or the one derived for a controller or operator.

    Raises
    ------
    ValueError
        `kid` is neither `control`, `controller:NAME` nor `operator:NAME`: a key for any text somebody chooses
        would let a published signature pass as a key.
    """
    if kid == DEFAULT_KID:
        return control_key
    if not _DERIVED_KID.fullmatch(kid):
        msg = f"kid must be 'control', 'controller:NAME' or 'operator:NAME', got {kid!r}"
        raise ValueError(msg)
    return hmac.digest(control_key, b"roompulse key of " + kid.encode(), "sha256")


def signature(message: Mapping[str, Any], key: bytes) -> str:
    """Return the hex HMAC-SHA256 of `message` without `sig`, as JSON with sorted keys and no spaces.

    Fields that are None are left out first, so that absent and null sign alike.
    """
    signed = {name: value for name, value in message.items() if name != "sig" and value is not None}
    return hmac.new(key, orjson.dumps(signed, option=orjson.OPT_SORT_KEYS), hashlib.sha256).hexdigest()


def sign(message: Mapping[str, Any], control_key: bytes, kid: str = DEFAULT_KID) -> dict[str, Any]:
    """Return `message` with `kid` and `sig` set."""
    unsigned = {**message, "kid": kid}
    return {**unsigned, "sig": signature(unsigned, key_of(kid, control_key))}


def is_signed(message: Mapping[str, Any], control_key: bytes) -> bool:
    """Tell whether `message` carries the signature its `kid` promises."""
    kid, sig = message.get("kid"), message.get("sig")
    if not isinstance(kid, str) or not isinstance(sig, str):
        return False
    try:
        expected = signature(message, key_of(kid, control_key))
    except (TypeError, ValueError):  # no such key, or numbers and characters that no signer could have encoded
        return False
    return hmac.compare_digest(expected.encode(), sig.encode(errors="replace"))
