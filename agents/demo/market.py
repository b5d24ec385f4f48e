"""The ad platform of the demo: a bid controller that keeps the contract's rule for acting, and answers.

It acts on a command if and only if that is not expired, its `seq` is above the last acted on for the knob, and it is
issued in mode `auto` or approved; not while a kill switch is on, nor without a heartbeat of the last 30 s in the
command's own partition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.simulate.market import Applied, Value
from schemas.base import EVERY_ROOM

HEARTBEAT_MS: Final = 30_000
KNOBS: Final = {
    "set_bid": "bid",
    "set_roi_goal": "goal",
    "set_budget": "budget",
    "pause": "delivery",
    "resume": "delivery",
}
"""Which knob an action turns; actions that are not here turn none."""

Turn = Callable[[str, str, str, Value], Applied]


class AdPlatform:
    """What one controller knows; `turn(room_id, plan_id, action, value)` turns the knob."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._beats: dict[int, int] = {}
        self._killed: dict[str, bool] = {}
        self._open: dict[str, tuple[int, Mapping[str, Any]]] = {}
        self._done: set[str] = set()
        self._last_seq: dict[tuple[str, str, str], int] = {}
        self.n_applied = 0

    def kill(self, room_id: str, state: Mapping[str, Any] | None) -> None:
        """Take a state of `ops.kill`; None is a tombstone."""
        self._killed[room_id] = bool(state and state.get("on"))

    def hear(self, command: Mapping[str, Any], partition: int) -> None:
        """Take a message of `bid.commands`; a later revision takes the place of one not acted on."""
        if command["action"] == "heartbeat":
            self._beats[partition] = max(self._beats.get(partition, 0), command["ts"])
        elif command["action"] in KNOBS and command["command_id"] not in self._done:
            self._open[command["command_id"]] = (partition, command)

    def step(self, now_ms: int) -> list[dict[str, Any]]:
        """Act on what may be acted on now; return the answers, unsigned."""
        answers = []
        for command_id, (partition, command) in list(self._open.items()):
            answer = self._judge(command, partition, now_ms)
            if answer is None:
                continue
            del self._open[command_id]
            self._done.add(command_id)
            if answer.status != "noop":
                answers.append(_ack(command, answer, now_ms))
        return answers

    def _judge(self, command: Mapping[str, Any], partition: int, now_ms: int) -> Applied | None:
        """Return what became of a command, `noop` where it was not meant for us; None while it may still be."""
        status = command["status"]
        is_meant = status == "approved" or (command["mode"] == "auto" and status == "issued")
        if not is_meant and status != "pending_approval":
            return Applied("noop")
        if now_ms >= command["expires_ts"]:
            return Applied("expired") if is_meant else Applied("noop")
        is_killed = self._killed.get(EVERY_ROOM, False) or self._killed.get(command["room_id"], False)
        if not is_meant or is_killed or now_ms - self._beats.get(partition, 0) > HEARTBEAT_MS:
            return None
        knob = (command["room_id"], command["plan_id"], KNOBS[command["action"]])
        if command["seq"] <= self._last_seq.get(knob, 0):
            return Applied("rejected", None, f"seq must be above {self._last_seq[knob]}, got {command['seq']}")
        self._last_seq[knob] = command["seq"]
        answer = self._turn(command["room_id"], command["plan_id"], command["action"], command.get("value"))
        self.n_applied += answer.status == "applied"
        return answer


def _ack(command: Mapping[str, Any], answer: Applied, now_ms: int) -> dict[str, Any]:
    ack: dict[str, Any] = {
        "command_id": command["command_id"],
        "room_id": command["room_id"],
        "ts": now_ms,
        "status": answer.status,
    }
    if answer.observed_value is not None:
        ack["observed_value"] = answer.observed_value
    if answer.detail is not None:
        ack["detail"] = answer.detail
    return ack
