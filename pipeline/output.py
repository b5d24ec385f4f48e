"""What the engine wants sent."""

from __future__ import annotations

from typing import Any, Final

import orjson

from schemas import topics
from schemas.anomalies import Anomaly
from schemas.audit import AuditRecord
from schemas.base import WireModel
from schemas.commands import BidCommand
from schemas.deadletters import DeadLetter
from schemas.feedback import AudienceFeedback
from schemas.signals import RoomSignals

MODEL_OF: Final[dict[str, type[WireModel]]] = {
    topics.ROOM_SIGNALS: RoomSignals,
    topics.ROOM_ANOMALIES: Anomaly,
    topics.BID_COMMANDS: BidCommand,
    topics.ROOM_EVENTS_DLQ: DeadLetter,
    topics.AUDIT_LOG: AuditRecord,
    topics.AUDIENCE_FEEDBACK: AudienceFeedback,
}


class Output:
    """One message: its topic, its key (the room), its value as a schema model.

    Signals are by far the most: they are kept as plain fields, which are a tenth of a model's cost to make and to
    encode, and become a model (checked on the way) only when somebody asks for `value`.
    """

    __slots__ = ("_fields", "_value", "key", "topic")

    def __init__(self, topic: str, key: str, value: WireModel | dict[str, Any]) -> None:
        self.topic, self.key = topic, key
        self._value: WireModel | None = None if isinstance(value, dict) else value
        self._fields: dict[str, Any] | None = value if isinstance(value, dict) else None

    @property
    def value(self) -> WireModel:
        """The message as its model."""
        if self._value is None:
            self._value = MODEL_OF[self.topic].model_validate(self._fields)
        return self._value

    def json(self) -> bytes:
        """Return the message's bytes; unknown fields are left out."""
        if self._fields is not None:
            return orjson.dumps(self._fields)
        return self.value.model_dump_json(exclude_none=True).encode()

    def __repr__(self) -> str:
        """Show what goes where."""
        return f"Output({self.topic!r}, {self.key!r}, {self.json().decode()})"
