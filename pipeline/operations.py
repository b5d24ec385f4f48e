"""What operators, controllers and the engine itself do to a room, and the trail that keeps it."""

from __future__ import annotations

from typing import Any, Literal

from pipeline import control
from pipeline.commands import Commander, situation
from pipeline.context import Context
from pipeline.emit import View
from pipeline.output import Output
from pipeline.room import Farewell, RoomState
from schemas import topics
from schemas.base import EVERY_ROOM


class Operations:
    """Carry out controls, send commands, and write both down: in the room's trail, or in the partition's own."""

    __slots__ = ("_ctx",)

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def control(self, room: RoomState, event: Any, out: list[Output]) -> None:
        """Do what an operator asks of a room."""
        now_ms = self._ctx.star.clock_ms
        self.audit(room, "control", event.actor, event, out)
        commander = Commander(room, now_ms, now_ms, self._ctx)
        action = control.RoomControl(room, commander, now_ms, self._ctx)
        action.apply(event, control.read(event), situation(View(room, now_ms, self._ctx)))
        out.extend(Output(topics.ROOM_ANOMALIES, room.room_id, anomaly) for anomaly in action.anomalies)
        self.commands(room, commander, out)
        room.is_changed = True
        room.must_tell |= bool(commander.messages)

    def commands(self, room: RoomState, commander: Commander, out: list[Output]) -> None:
        """Send what was decided for a room."""
        for command in commander.messages:
            out.append(Output(topics.BID_COMMANDS, room.room_id, command))
            record = room.trail.append(
                "command",
                room.room_id,
                commander.now_ms,
                actor="roompulse",
                content=command.model_dump(mode="json", exclude_none=True),
                policy_version=self._ctx.policy_version,
            )
            out.append(Output(topics.AUDIT_LOG, room.room_id, record))

    def audit(
        self, room: RoomState, kind: Literal["control", "ack"], actor: str, event: Any, out: list[Output]
    ) -> None:
        """Write down in a room's trail what somebody said."""
        record = room.trail.append(
            kind,
            room.room_id,
            self._ctx.star.clock_ms,
            actor=actor,
            content=_content(event),
            policy_version=self._ctx.policy_version,
        )
        out.append(Output(topics.AUDIT_LOG, room.room_id, record))

    def audit_all(self, kind: Literal["control", "ack"], event: Any, out: list[Output]) -> None:
        """Write down in the partition's trail what somebody said to all rooms, or of a room nobody has seen."""
        content = {**_content(event), "room_id": event.room_id}
        actor = event.actor if kind == "control" else "controller"
        self._append_all(kind, self._ctx.star.clock_ms, actor, content, out)

    def farewell(self, room_id: str, farewell: Farewell, out: list[Output]) -> None:
        """Write down in the partition's trail where that of a room that went ended."""
        if farewell.n_audited:
            content = {"room_id": room_id, "seq": farewell.n_audited, "hash": farewell.head}
            self._append_all("retired", farewell.at_ms, "roompulse", content, out)

    def _append_all(
        self,
        kind: Literal["control", "ack", "retired"],
        at_ms: int,
        actor: str,
        content: dict[str, Any],
        out: list[Output],
    ) -> None:
        record = self._ctx.star.trail.append(
            kind, EVERY_ROOM, at_ms, actor=actor, content=content, policy_version=self._ctx.policy_version
        )
        out.append(Output(topics.AUDIT_LOG, EVERY_ROOM, record))


def _content(event: Any) -> dict[str, Any]:
    """Return what the trail keeps of a control or ack: its own fields, without the signature."""
    names = ("control_id", "action", "args", "command_id", "status", "observed_value", "detail", "ts")
    return {name: value for name in names if (value := getattr(event, name, None)) is not None}
