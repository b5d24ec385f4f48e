"""A bid controller: acts on `bid.commands` by the contract's rule, answers on `bid.acks`. Put your platform into `apply`.

ROOMPULSE_BROKER=kafka://localhost:9092 ROOMPULSE_CONTROL_KEY=... python -m examples.bid_controller NAME
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from schemas.control import is_signed, sign
from schemas.topics import BID_ACKS, BID_COMMANDS, OPS_KILL

Message = dict[str, Any]
KNOBS = {"set_bid": "bid", "set_roi_goal": "goal", "set_budget": "budget", "pause": "delivery", "resume": "delivery"}
BACK = 10_000  # records a partition read again at start: the last minute's commands, and what we answered to them


def apply(command: Message) -> str:
    """Turn the knob; return an ack's status. If this dies, the next start answers `unknown` and does not try again."""
    print(command["room_id"], command["plan_id"], command["action"], command["value"], flush=True)
    return "applied"


def decide(command: Message, *, now_ms: int, beat_ms: int, last_seq: int, is_done: bool, is_killed: bool) -> str:
    """Return `act`, `refuse` (too late) or `leave`; `beat_ms` is the last heartbeat in the command's partition."""
    is_meant = command["status"] == "approved" or (command["mode"], command["status"]) == ("auto", "issued")
    if is_killed or now_ms - beat_ms > 30_000 or is_done or not is_meant or command["seq"] <= last_seq:
        return "leave"
    return "act" if now_ms < command["expires_ts"] else "refuse"


def held(consumer: Any) -> Iterator[tuple[Any, Message]]:
    """Yield what the topics hold by now and was not read before."""
    ends = consumer.end_offsets(consumer.assignment())
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        for records in consumer.poll(timeout_ms=100).values():
            yield from ((record, orjson.loads(record.value or b"{}")) for record in records)


def run(
    broker: str, name: str, key: bytes, turn: Callable[[Message], str] = apply, is_over: Any = lambda: False
) -> None:
    """Act until `is_over`; what was done before a restart is in the topics."""
    kid, queue, started_ms = f"controller:{name}", deque[tuple[int, Message]](), time.time_ns() // 10**6
    done, killed, beats, last = dict[str, str](), dict[str, bool](), dict[int, int](), dict[tuple[str, ...], int]()
    producer = KafkaProducer(bootstrap_servers=broker, acks="all")
    consumer = KafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, fetch_max_wait_ms=50)
    topics = {topic: consumer.partitions_for_topic(topic) or () for topic in (OPS_KILL, BID_ACKS, BID_COMMANDS)}
    consumer.assign([TopicPartition(topic, number) for topic, numbers in topics.items() for number in numbers])
    first = consumer.beginning_offsets(consumer.assignment())
    for at, end in consumer.end_offsets(consumer.assignment()).items():
        consumer.seek(at, first[at] if at.topic == OPS_KILL else max(first[at], end - BACK))

    def answer(command: Message, status: str) -> None:
        done[command["command_id"]] = status
        ack = {"command_id": command["command_id"], "room_id": command["room_id"], "ts": time.time_ns() // 10**6}
        value = orjson.dumps(sign({**ack, "status": status}, key, kid))
        producer.send(BID_ACKS, value, command["room_id"].encode()).get(timeout=10)

    while not is_over():
        for record, message in held(consumer):
            if record.topic == OPS_KILL:
                killed[record.key.decode()] = message.get("on", False)
            elif record.topic == BID_ACKS:
                if message.get("kid") == kid and is_signed(message, key):
                    done[message["command_id"]] = message["status"]
            elif message["action"] == "heartbeat":
                beats[record.partition] = min(message["ts"], time.time_ns() // 10**6)
            elif message["action"] in KNOBS:
                queue.append((record.partition, message))
        if not queue:
            time.sleep(0.05)
            continue
        partition, command = queue.popleft()  # one a turn: the kill switch is read before each
        knob = (command["room_id"], command["plan_id"], KNOBS[command["action"]])
        status = done.get(command["command_id"])
        if status == "accepted":
            answer(command, "unknown")
        if status not in (None, "expired"):
            last[knob] = max(last.get(knob, 0), command["seq"])
        verdict = decide(
            command, now_ms=time.time_ns() // 10**6, beat_ms=beats.get(partition, 0), last_seq=last.get(knob, 0),
            is_done=status is not None, is_killed=killed.get("*", False) or killed.get(command["room_id"], False),
        )  # fmt: skip
        if verdict == "act":
            last[knob] = command["seq"]
            answer(command, "accepted")  # written before the knob turns
            answer(command, turn(command))
        elif verdict == "refuse" and command["expires_ts"] > started_ms:
            answer(command, "expired")


if __name__ == "__main__":
    run(
        os.environ["ROOMPULSE_BROKER"].removeprefix("kafka://"),
        sys.argv[1],
        os.environ["ROOMPULSE_CONTROL_KEY"].encode(),
    )
