"""A bid controller: ROOMPULSE_BROKER=kafka://... ROOMPULSE_CONTROL_KEY=... python -m examples.bid_controller NAME

It acts by the contract's rule and keeps nothing itself: what it did before a restart is read from the topics.
"""

import os
import sys
import time
from typing import Any

import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from schemas.control import is_signed, sign
from schemas.topics import BID_ACKS, BID_COMMANDS, OPS_KILL

# What this controller can turn; a pause and a resume count on one knob, since the later one holds.
KNOBS = {"set_bid": "bid", "set_roi_goal": "goal", "set_budget": "budget", "pause": "delivery", "resume": "delivery"}


def apply(command: Any) -> str:
    """Turn the knob (your platform's API goes here) and return an ack's status."""
    print(command["room_id"], command["plan_id"], command["action"], command.get("value"), flush=True)
    return "applied"


def may_act(command: Any, now: int, *, beat_ms: int, last_seq: int, is_done: bool, is_killed: bool) -> bool:
    """Decide; `beat_ms` is the last heartbeat of the command's partition, `last_seq` the last acted on for its knob."""
    is_meant = command["status"] == "approved" or (command["mode"], command["status"]) == ("auto", "issued")
    is_new = not is_done and command["seq"] > last_seq and now < command["expires_ts"]
    return is_meant and is_new and not is_killed and now - beat_ms <= 30_000


def now_ms() -> int:
    """Return the wall clock's time."""
    return time.time_ns() // 1_000_000


class Controller:
    """What the topics say, and what is done about it; `turn` is what turns a knob."""

    def __init__(self, broker: str, name: str, key: bytes, turn: Any = apply) -> None:
        self.kid, self.key, self.turn = f"controller:{name}", key, turn
        self.killed, self.beats, self.done = dict[str, tuple[int, bool]](), dict[int, int](), dict[str, Any]()
        self.known, self.queue = list[Any](), list[Any]()
        self.producer = KafkaProducer(bootstrap_servers=broker, acks="all")
        self.topics = KafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest", enable_auto_commit=False)
        names = (OPS_KILL, BID_ACKS, BID_COMMANDS)
        self.topics.assign([TopicPartition(t, number) for t in names for number in self.topics.partitions_for_topic(t)])
        self.read()
        for ack in [ack for ack in self.done.values() if ack["status"] == "accepted"]:
            self.answer(ack, "unknown")  # we died while turning it: never again, the platform shows what became of it

    def read(self) -> None:
        """Take in all that the topics hold by now."""
        ends = self.topics.end_offsets(self.topics.assignment())
        while any(self.topics.position(partition) < end for partition, end in ends.items()):
            for record in (record for records in self.topics.poll(100).values() for record in records):
                message = orjson.loads(record.value or b"{}")
                if record.topic == OPS_KILL and not record.value:
                    self.killed.pop(record.key.decode(), None)  # a tombstone lifts it
                elif record.topic == OPS_KILL:
                    # Two partitions may speak of a room whose topic has grown: what was said last holds.
                    said = (message.get("ts", -1), message.get("on", False))
                    self.killed[record.key.decode()] = max(said, self.killed.get(record.key.decode(), said))
                elif record.topic == BID_ACKS and message.get("kid") == self.kid and is_signed(message, self.key):
                    self.done[message["command_id"]] = message
                elif message.get("action") == "heartbeat":
                    self.beats[record.partition] = min(message["ts"], now_ms())
                elif message.get("action") in KNOBS:
                    knob = (message["room_id"], message["plan_id"], KNOBS[message["action"]])
                    self.known.append((knob, message["seq"], message["command_id"]))
                    self.queue.append((record.partition, knob, message))

    def answer(self, command: Any, status: str) -> None:
        """Write a signed answer, and wait until it is written."""
        ack = {"command_id": command["command_id"], "room_id": command["room_id"], "ts": now_ms(), "status": status}
        self.done[command["command_id"]] = sign(ack, self.key, self.kid)
        value = orjson.dumps(self.done[command["command_id"]])
        self.producer.send(BID_ACKS, value, command["room_id"].encode()).get(timeout=10)

    def step(self) -> None:
        """Act on what is new; the kill switch is read again before each act."""
        self.read()
        while self.queue:
            partition, knob, command = self.queue.pop(0)
            if now_ms() < command["expires_ts"]:
                self.read()
                last_seq = max((seq for k, seq, name in self.known if k == knob and name in self.done), default=0)
                killed = any(self.killed.get(key, (-1, False))[1] for key in ("*", command["room_id"]))
                done, beat_ms = command["command_id"] in self.done, self.beats.get(partition, 0)
                if may_act(command, now_ms(), beat_ms=beat_ms, last_seq=last_seq, is_done=done, is_killed=killed):
                    self.answer(command, "accepted")  # written before the knob turns
                    self.answer(command, self.turn(command))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not {"ROOMPULSE_BROKER", "ROOMPULSE_CONTROL_KEY"} <= os.environ.keys():
        sys.exit("usage: ROOMPULSE_BROKER=... ROOMPULSE_CONTROL_KEY=... python -m examples.bid_controller NAME")
    url, secret = os.environ["ROOMPULSE_BROKER"], os.environ["ROOMPULSE_CONTROL_KEY"]
    controller = Controller(url.removeprefix("kafka://"), sys.argv[1], secret.encode())
    while True:
        controller.step()
        time.sleep(0.1)
