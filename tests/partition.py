"""A partition's log written down second by second, and what came of it."""

from __future__ import annotations

import json
from typing import Any, Final

from pipeline import Engine, Output
from schemas import topics
from schemas.settings import Settings
from tests.strategies import START_MS

Message = dict[str, Any]
ROOM: Final = "room-1"


class Partition:
    """Write events with `at`, read messages by topic; every record has a stamp, unsigned controls count."""

    def __init__(self, **sections: Any) -> None:
        self.engine = Engine(Settings(trust_log=True, **sections))
        self.n_records = 0
        self.outputs: list[Output] = []
        self.log: list[tuple[int, int, bytes]] = []

    def at(self, second: float, kind: str, *, late_s: float = 0, **fields: Any) -> Partition:
        """Write one event at the clock's `second`, that happened `late_s` before."""
        self.n_records += 1
        stamp = START_MS + round(second * 1_000)
        event = {"type": kind, "event_id": f"e-{self.n_records}", "room_id": ROOM, "ts": stamp - round(late_s * 1_000)}
        if kind == "control":
            event |= {"control_id": f"c-{self.n_records}", "actor": "operator"}
        record = (self.n_records, stamp, json.dumps(event | fields, ensure_ascii=False).encode())
        self.log.append(record)
        self.outputs += self.engine.process([record])
        return self

    def tick(self, second: float) -> Partition:
        return self.at(second, "tick", room_id="*")

    def ticks(self, begin: float, end: float, step: float = 0.5) -> Partition:
        """Let time go on from `begin` (exclusive) to `end` (inclusive)."""
        for n in range(1, int((end - begin) / step + 1e-9) + 1):
            self.tick(begin + n * step)
        return self

    def control(self, second: float, action: str, *, room_id: str = ROOM, **args: Any) -> Partition:
        return self.at(second, "control", room_id=room_id, action=action, args=args)

    def enter(self, second: float, **fields: Any) -> Partition:
        return self.at(second, "view", action="enter", session_id="s", **fields)

    def messages(self, topic: str) -> list[Message]:
        return [json.loads(output.json()) for output in self.outputs if output.topic == topic]

    def signals(self) -> list[Message]:
        return self.messages(topics.ROOM_SIGNALS)

    def anomalies(self) -> list[Message]:
        return self.messages(topics.ROOM_ANOMALIES)

    def heartbeats(self) -> list[Message]:
        return [command for command in self.messages(topics.BID_COMMANDS) if command["action"] == "heartbeat"]

    def commands(self) -> list[Message]:
        return [command for command in self.messages(topics.BID_COMMANDS) if command["action"] != "heartbeat"]

    def steps(self) -> list[Message]:
        """Return the commands that move a knob."""
        return [command for command in self.commands() if command["action"] != "hold"]

    def trail(self) -> list[Message]:
        return self.messages(topics.AUDIT_LOG)

    def session(self) -> Message:
        told: Message = self.engine.summary()["rooms"][ROOM]["session"]
        return told


def second_of(ts: int) -> float:
    """Return a moment as seconds of the log."""
    return (ts - START_MS) / 1_000
