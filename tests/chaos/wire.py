"""Clients of a run: the load's producer in real time, a reader of every output, and how far the group has come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from schemas.topics import (
    AUDIENCE_FEEDBACK,
    AUDIT_LOG,
    BID_ACKS,
    BID_COMMANDS,
    OPS_CONTROL,
    ROOM_ANOMALIES,
    ROOM_EVENTS,
    ROOM_EVENTS_DLQ,
)
from schemas.topics import ROOM_SIGNALS as SIGNALS
from tests.chaos.load import Record
from tests.chaos.processes import APP_ID

OUTPUTS: Final = (SIGNALS, ROOM_ANOMALIES, BID_COMMANDS, AUDIT_LOG, ROOM_EVENTS_DLQ, AUDIENCE_FEEDBACK)
SOURCES: Final = (ROOM_EVENTS, OPS_CONTROL, BID_ACKS)
"""What workers consume as a group."""
ANSWER_S: Final = 20.0
SLICE_S: Final = 0.02


class Sending(threading.Thread):
    """Send records when they are due; `late_s` is how far it fell behind at worst."""

    def __init__(self, bootstrap: str, records: list[Record]) -> None:
        super().__init__(name="load", daemon=True)
        self._records = records
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 20, "compression.type": "gzip",
                "compression.level": 1, "queue.buffering.max.messages": 1_000_000, "enable.idempotence": True,
                "delivery.timeout.ms": 120_000, "log_level": 0,
            }
        )  # fmt: skip
        self.late_s = self.seconds = 0.0
        self.n_failed = 0

    def run(self) -> None:
        """Send everything, then wait until the broker has it."""
        began_s = time.monotonic()
        for record in self._records:
            due_s = began_s + record.due_ms / 1_000
            ahead_s = due_s - time.monotonic()
            if ahead_s > SLICE_S:
                self._producer.poll(0)
                time.sleep(ahead_s)
            self.late_s = max(self.late_s, -ahead_s)
            while True:
                try:
                    self._producer.produce(
                        record.topic, record.value, record.key, record.partition, on_delivery=self._delivered
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
        self.n_failed += self._producer.flush(120)
        self.seconds = time.monotonic() - began_s

    def _delivered(self, error: Any, _: Any) -> None:
        self.n_failed += error is not None


class Message(NamedTuple):
    """What was sent, without where it came to lie: a repeat after a crash is the same."""

    topic: str
    partition: int
    key: bytes
    value: bytes


class Collector(threading.Thread):
    """Read every output from its beginning, as it comes: an embedded broker forgets what is old."""

    def __init__(self, bootstrap: str, n_partitions: int) -> None:
        super().__init__(name="collector", daemon=True)
        self._places = [TopicPartition(t, number, OFFSET_BEGINNING) for t in OUTPUTS for number in range(n_partitions)]
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "chaos-reader", "enable.auto.commit": False, "log_level": 0}
        )
        self._consumer.assign(self._places)
        self._stopping = threading.Event()
        self._positions: dict[tuple[str, int], int] = {}
        self._guard = threading.Lock()
        self.messages: dict[Message, int] = {}
        """Each message -> how often it was read."""
        self.holes: list[str] = []
        self._signals: dict[str, tuple[int, dict[str, Any]]] = {}

    def run(self) -> None:
        """Read until stopped."""
        while not self._stopping.is_set():
            for found in self._consumer.consume(1_000, 0.1):
                if found.error() is None:
                    self._take(found)

    def _take(self, found: Any) -> None:
        message = Message(found.topic(), found.partition(), found.key() or b"", found.value() or b"")
        place = (message.topic, message.partition)
        if found.offset() != self._positions.get(place, 0):
            self.holes.append(f"{message.topic} {message.partition}: {self._positions.get(place, 0)}..{found.offset()}")
        with self._guard:
            self._positions[place] = found.offset() + 1
            self.messages[message] = self.messages.get(message, 0) + 1
        if message.topic == SIGNALS:
            signals = orjson.loads(message.value)
            if signals["revision"] >= self._signals.get(signals["room_id"], (-1, {}))[0]:
                self._signals[signals["room_id"]] = (signals["revision"], signals["windows"]["session"])

    def sessions(self) -> dict[str, dict[str, Any]]:
        """Return each room's session as told last."""
        return {room: session for room, (_, session) in list(self._signals.items())}

    def read_to_end(self, group: Group) -> None:
        """Return once all that the outputs hold by now was read."""
        ends = group.ends(OUTPUTS)
        deadline_s = time.monotonic() + ANSWER_S
        while any(self._positions.get(place, 0) < end for place, end in ends.items()):
            if time.monotonic() > deadline_s:
                msg = f"outputs must be readable up to {ends}, got {self._positions}"
                raise TimeoutError(msg)
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self.join(ANSWER_S)
        self._consumer.close()


class Group:
    """How far the workers' group has come, and where topics begin and end."""

    def __init__(self, bootstrap: str, n_partitions: int) -> None:
        self._numbers = range(n_partitions)
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": APP_ID, "enable.auto.commit": False, "log_level": 0}
        )

    def committed(self, topics: Iterable[str] = SOURCES) -> dict[tuple[str, int], int]:
        """Return the offset each partition would be read on from, 0 where nothing was committed."""
        places = [TopicPartition(topic, number) for topic in topics for number in self._numbers]
        found = self._consumer.committed(places, timeout=ANSWER_S)
        return {(place.topic, place.partition): max(0, place.offset) for place in found}

    def ends(self, topics: Iterable[str] = SOURCES) -> dict[tuple[str, int], int]:
        """Return the offset after each partition's last record."""
        return {place: high for place, (_, high) in self._marks(topics).items()}

    def begins(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """Return the offset of each partition's first record that is still there."""
        return {place: low for place, (low, _) in self._marks(topics).items()}

    def _marks(self, topics: Iterable[str]) -> dict[tuple[str, int], tuple[int, int]]:
        return {
            (topic, number): self._consumer.get_watermark_offsets(TopicPartition(topic, number), ANSWER_S)
            for topic in topics
            for number in self._numbers
        }

    def lag(self, topics: Iterable[str] = SOURCES) -> dict[str, int]:
        """Return how many records are left, of partitions that have some left."""
        topics = tuple(topics)
        done = self.committed(topics)
        return {f"{t} {n}": end - done[t, n] for (t, n), end in self.ends(topics).items() if end != done[t, n]}

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()
