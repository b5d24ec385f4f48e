"""The vocabulary every message is built from: strict scalars with their units and limits."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_INTEGER: Final = 2**53 - 1
"""Largest integer on the wire: beyond it a JavaScript reader silently rounds."""
MAX_MONEY_MINOR: Final = 10**12
MAX_TEXT_CHARACTERS: Final = 2_000
MAX_EVENT_BYTES: Final = 64 * 1024
MAX_NESTING: Final = 32
MAX_AHEAD_MS: Final = 5 * 60 * 1000
"""How far a producer's clock may run ahead of the broker's before its event is refused."""
MAX_COUNTED: Final = 10**12
"""One event counts at most this much of anything, as it does of money: sums then stay within 64 bits."""
EVERY_ROOM: Final = "*"
UNKNOWN: Final = "unknown"


def capped(ts: int) -> int:
    """Return a moment that may go over the wire: deadlines after the last one possible fall together with it."""
    return min(ts, MAX_INTEGER)


def printable(value: str) -> str:
    """Return `value` unchanged; raise ValueError when a character has no printed form."""
    if not value.isprintable():
        msg = "must hold printable characters only"
        raise ValueError(msg)
    return value


Identifier = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(printable)]
TimestampMs = Annotated[int, Field(ge=0, le=MAX_INTEGER, description="milliseconds since the epoch, UTC")]
MoneyMinor = Annotated[int, Field(ge=0, le=MAX_MONEY_MINOR, description="integer minor units of `currency`")]
SignedMoneyMinor = Annotated[int, Field(ge=-MAX_MONEY_MINOR, le=MAX_MONEY_MINOR)]
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
SignedCount = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Currency = Annotated[str, Field(min_length=3, max_length=3, pattern="^[A-Z]{3}$", description="ISO 4217 code")]
CalendarDate = Annotated[
    str, Field(min_length=10, max_length=10, pattern="^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")
]
Decimal6 = Annotated[str, Field(min_length=1, max_length=20, pattern="^[0-9]{1,9}([.][0-9]{1,6})?$")]
"""A non-negative decimal of at most six places, as text, so that no reader rounds it."""
_POSITIVE_PLACES: Final = "|".join(f"0{{{n}}}[1-9][0-9]{{0,{5 - n}}}" for n in range(6))
PositiveDecimal = Annotated[
    str,
    Field(
        min_length=1,
        max_length=20,
        pattern=f"^(0{{0,8}}[1-9][0-9]{{0,8}}([.][0-9]{{1,6}})?|[0-9]{{1,9}}[.]({_POSITIVE_PLACES}))$",
    ),
]
"""The same, above zero."""

Mode = Literal["off", "shadow", "approve", "auto"]
MODE_RANK: Final[dict[str, int]] = {"off": 0, "shadow": 1, "approve": 2, "auto": 3}
Stage = Literal["acquisition", "retention", "promotion"]
Severity = Literal["S1", "S2", "S3", "S4"]
FeedName = Literal["view", "comment", "order", "spend", "plan"]
FeedState = Literal["live", "quiet", "late", "dead"]
Dimension = Literal["segment", "region", "creative_id", "product_id", "host_id", "partner_id"]
"""What a room's signals can be told by beside the channel: fields that events may carry."""
Lang = Literal["en", "zh"]


class WireModel(BaseModel):
    """A message or a part of one: types are strict, unknown extra fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
