"""A made-up ad platform with its controller: it follows the contract's rule, and its ledger on disk is what happened.

    python -m tests.chaos.platform CONFIG.json

A knob is turned by appending one line to the ledger, nothing else; what the ledger holds is done, whatever became of
the answer. Answers are lost, sent twice, or cut off by the process' own end right after a line was written: all by a
seed. It shows its plans in the rooms' logs as platforms do, and plays the operator who approves what waits for it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from agents.kafka import partition_of
from examples.bid_controller import KNOBS, may_act
from schemas.control import sign
from schemas.topics import BID_ACKS, BID_COMMANDS, OPS_CONTROL, OPS_KILL, ROOM_EVENTS
from tests.chaos.load import OPERATOR, Plan, plan_shown

KID: Final = "controller:chaos"
LOST_RATIO, TWICE_RATIO, DIES_RATIO = 0.15, 0.15, 0.03
SHOW_EVERY_S: Final = 3.0
DIED_IN_ACT: Final = 9
"""Exit code of an end between the act and its answer."""


class Config(NamedTuple):
    """What the process is told, as JSON."""

    bootstrap: str
    n_partitions: int
    ledger: str
    seed: int
    control_key: str
    plans: list[Plan]
    is_mute: bool = False
    """Act, but write to no topic: the run is over, and only what is still open has to be settled."""

    @classmethod
    def read(cls, file: Path) -> Config:
        """Return what `write` wrote."""
        told = orjson.loads(file.read_bytes())
        return cls(**told | {"plans": [Plan(*plan) for plan in told["plans"]]})

    def write(self, file: Path) -> None:
        """Write it where the process will read it."""
        file.write_bytes(orjson.dumps(self._asdict() | {"plans": [list(plan) for plan in self.plans]}))


class Ledger:
    """One line an act or refusal, on disk before anything else is done; a line cut short by a crash never was."""

    def __init__(self, file: Path) -> None:
        self.lines = read_ledger(file)
        whole = b"".join(orjson.dumps(line) + b"\n" for line in self.lines)
        file.write_bytes(whole)
        self._file = file.open("ab")

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; once this returns, it is done."""
        self._file.write(orjson.dumps(line) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.lines.append(line)


def read_ledger(file: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a ledger, none where there is no file."""
    content = file.read_bytes() if file.exists() else b""
    return [orjson.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


class Platform:
    """What the ledger and the topics say, and what is done about it."""

    def __init__(self, config: Config) -> None:
        self.config, self.key = config, config.control_key.encode()
        self.ledger = Ledger(Path(config.ledger))
        self.random = Random(f"platform-{config.seed}-{len(self.ledger.lines)}")
        self.done, self.last_seq = set[str](), dict[str, int]()
        self.values = {plan.plan_id: plan.value for plan in config.plans}
        self.killed, self.beats = dict[str, bool](), dict[int, int]()
        self.pending: dict[str, tuple[int, dict[str, Any]]] = {}
        self.judged = set[str]()
        for line in self.ledger.lines:
            self._settled(line)
        self.producer = Producer({"bootstrap.servers": config.bootstrap, "linger.ms": 5, "acks": "all"})
        self.topics = Consumer(
            {"bootstrap.servers": config.bootstrap, "group.id": "chaos-platform", "enable.auto.commit": False}
        )
        places = [(topic, number) for topic in (OPS_KILL, BID_COMMANDS) for number in range(config.n_partitions)]
        self.topics.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in places])

    def _settled(self, line: dict[str, Any]) -> None:
        self.done.add(line["command_id"])
        if line["what"] == "applied":
            self.last_seq[line["knob"]] = line["seq"]
            self.values[line["plan_id"]] = line["value"]

    def run(self) -> None:
        """Work until killed."""
        for line in [line for line in self.ledger.lines if line["what"] == "applied"][-3:]:
            self._answer(line)  # it may have died before: an answer more does no harm
        shown_s = 0.0
        while True:
            for message in self.topics.consume(500, 0.05):
                if message.error() is None:
                    self._read(message)
            self._act()
            if time.monotonic() - shown_s > SHOW_EVERY_S:
                shown_s = time.monotonic()
                self._show()
            self.producer.poll(0)

    def _read(self, message: Any) -> None:
        value, partition = orjson.loads(message.value() or b"{}"), message.partition()
        if message.topic() == OPS_KILL:
            self.killed[message.key().decode()] = value.get("on", False)
        elif value["action"] == "heartbeat":
            self.beats[partition] = max(self.beats.get(partition, 0), min(value["ts"], now_ms()))
        elif value["action"] in KNOBS and value["command_id"] not in self.done:
            if value["status"] == "pending_approval":
                self._judge(value)
            elif value["status"] == "approved" or (value["mode"], value["status"]) == ("auto", "issued"):
                self.pending[value["command_id"]] = (partition, value)

    def _act(self) -> None:
        for command_id, (partition, command) in list(self.pending.items()):
            now, room = now_ms(), command["room_id"]
            knob = f"{room}/{command['plan_id']}/{KNOBS[command['action']]}"
            last_seq, is_killed = self.last_seq.get(knob, 0), self.killed.get("*", self.killed.get(room, False))
            line = {name: command[name] for name in ("command_id", "room_id", "plan_id", "seq", "value")} | {
                "knob": knob,
                "ts": now,
            }
            beat_ms, is_done = self.beats.get(partition, 0), command_id in self.done
            if may_act(command, now, beat_ms=beat_ms, last_seq=last_seq, is_done=is_done, is_killed=is_killed):
                self.ledger.write(line | {"what": "applied"})  # this is the act
                if self.random.random() < DIES_RATIO:
                    os._exit(DIED_IN_ACT)
            elif command["seq"] <= last_seq:
                self.ledger.write(line | {"what": "refused", "why": "seq", "last_seq": last_seq})
            elif now >= command["expires_ts"]:
                self.ledger.write(line | {"what": "refused", "why": "expired"})
            else:
                continue  # the kill switch is on or no heartbeat came: until it expires that can change
            del self.pending[command_id]
            self._settled(self.ledger.lines[-1])
            if self.ledger.lines[-1]["what"] == "applied" and self.random.random() >= LOST_RATIO:
                for _ in range(2 if self.random.random() < TWICE_RATIO else 1):
                    self._answer(self.ledger.lines[-1])

    def _answer(self, line: dict[str, Any]) -> None:
        ack = {name: line[name] for name in ("command_id", "room_id", "ts")} | {"status": "applied"}
        self._send(BID_ACKS, line["room_id"], sign(ack, self.key, KID))

    def _judge(self, command: dict[str, Any]) -> None:
        """Approve most of what waits, reject some, forget some; always the same answer to one command."""
        if command["command_id"] in self.judged or now_ms() >= command["expires_ts"]:
            return
        self.judged.add(command["command_id"])
        dice = Random(command["command_id"]).random()
        if dice < 0.9:
            action = "approve" if dice < 0.7 else "reject"
            request = {
                "control_id": f"{action}-{command['command_id']}"[:128], "room_id": command["room_id"], "ts": now_ms(),
                "actor": "chaos", "action": action, "args": {"command_id": command["command_id"]},
            }  # fmt: skip
            self._send(OPS_CONTROL, command["room_id"], sign(request, self.key, OPERATOR))

    def _show(self) -> None:
        """Write every plan as it stands into its room's log."""
        ts = now_ms()
        for plan in self.config.plans:
            about = {"event_id": f"shown-{plan.plan_id}-{ts}", "room_id": plan.room_id, "ts": ts}
            self._send(ROOM_EVENTS, plan.room_id, about | plan_shown(plan, self.values[plan.plan_id]))

    def _send(self, topic: str, room: str, message: dict[str, Any]) -> None:
        if self.config.is_mute:
            return
        partition = partition_of(room, self.config.n_partitions)
        self.producer.produce(topic, orjson.dumps(message), room.encode(), partition)


def now_ms() -> int:
    """Return the wall clock's time: commands expire by it."""
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    Platform(Config.read(Path(sys.argv[1]))).run()
