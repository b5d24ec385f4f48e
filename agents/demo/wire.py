"""Kafka as the demo uses it: records into the rooms' log, never more than the broker keeps, and what comes out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from agents import kafka
from agents.broker import CLIENT_API_VERSION, MAX_PARTITION_BYTES
from agents.clock import tick
from agents.demo.source import Due
from agents.errors import ProgramError
from schemas.base import EVERY_ROOM
from schemas.topics import (
    BID_ACKS,
    BID_COMMANDS,
    OPS_CONTROL,
    OPS_KILL,
    ROOM_ANOMALIES,
    ROOM_EVENTS,
    ROOM_EVENTS_DLQ,
    ROOM_SIGNALS,
)

MAX_AHEAD_BYTES: Final = MAX_PARTITION_BYTES * 3 // 4
"""Of one partition, written and not yet worked off; beyond a third more the embedded broker drops the oldest."""
LEAST_AHEAD_BYTES: Final = 256 * 1024
AHEAD_S: Final = 6.0
"""Where the pace is ours to choose: how much of the worker's own work may wait, beside the least."""
RECORD_BYTES: Final = 48
"""What a record costs beside its value, at most."""
PROGRESS_EVERY_S: Final = 0.5
FETCH_WAIT_MS: Final = 40
"""The embedded broker answers an empty fetch only when its wait is over."""
BLOCK_MS: Final = 5_000
CONNECT_S: Final = 5.0
ASK_MS: Final = 3_000
"""For an answer about offsets. Left to itself the client would ask a dead broker for ever."""
CLOSE_S: Final = 1.0
WATCHED: Final = (ROOM_SIGNALS, ROOM_ANOMALIES, BID_COMMANDS, ROOM_EVENTS_DLQ, OPS_KILL)


class Heard(NamedTuple):
    """One message of a topic that the pipeline writes."""

    topic: str
    partition: int
    key: str
    message: dict[str, Any] | None


class Wire:
    """The demo's clients.

    Parameters
    ----------
    bootstrap, n_partitions : of the broker.
    group : the worker's consumer group, whose commits tell how far it is.
    is_paced : do not run further ahead of the worker than some seconds of its work.

    Raises
    ------
    ProgramError
        The broker does not answer, or does not take what is written.
    """

    def __init__(self, bootstrap: str, group: str, n_partitions: int, *, is_paced: bool) -> None:
        self._n_partitions, self._is_paced = n_partitions, is_paced
        servers = bootstrap.split(",")
        self._producer: Any = kafka.connect(
            KafkaProducer,
            servers,
            CONNECT_S,
            api_version=CLIENT_API_VERSION,
            acks="all",
            linger_ms=10,
            batch_size=64 * 1024,
            max_block_ms=BLOCK_MS,
        )
        self._outputs: Any = self._consumer(servers)
        self._outputs.assign([TopicPartition(topic, p) for topic in WATCHED for p in range(n_partitions)])
        self._progress: Any = self._consumer(
            servers, group_id=group, request_timeout_ms=ASK_MS, session_timeout_ms=ASK_MS - 1_000,
            heartbeat_interval_ms=ASK_MS // 6,
        )  # fmt: skip
        self._logs = [TopicPartition(ROOM_EVENTS, p) for p in range(n_partitions)]
        self._sizes: list[deque[int]] = [deque() for _ in self._logs]
        self._ahead = [0] * n_partitions
        self._committed = [0] * n_partitions
        self._max_ahead = LEAST_AHEAD_BYTES if is_paced else MAX_AHEAD_BYTES
        self._n_written = [0] * n_partitions
        self.is_policy_told = False
        """Whether somebody else has written into every partition: the worker its policy, so it reads them all."""
        self._worked_off: deque[tuple[float, int]] = deque()
        self._progress_due_s = 0.0
        self._failure: BaseException | None = None

    @staticmethod
    def _consumer(servers: list[str], **settings: Any) -> Any:
        return kafka.connect(
            KafkaConsumer,
            servers,
            CONNECT_S,
            api_version=CLIENT_API_VERSION,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            **settings,
        )

    # -- into the log -----------------------------------------------------------------------------------------

    def write(self, records: Iterable[Due]) -> None:
        """Write records in order, each with its own stamp."""
        for record in records:
            for partition in self._partitions(record.room_id):
                self._log(partition, record.room_id, record.value, record.stamp_ms)

    def tick(self, stamp_ms: int) -> None:
        """Let the log's time go on in every partition."""
        for partition in self._partitions(EVERY_ROOM):
            self._log(partition, EVERY_ROOM, tick(partition, stamp_ms), stamp_ms)

    def _log(self, partition: int, room_id: str, value: bytes, stamp_ms: int) -> None:
        self._send(ROOM_EVENTS, room_id.encode(), value, partition, stamp_ms)
        self._n_written[partition] += 1
        self._sizes[partition].append(len(value) + RECORD_BYTES)
        self._ahead[partition] += len(value) + RECORD_BYTES

    def control(self, message: dict[str, Any]) -> None:
        """Send an operator's signed action."""
        self._send_message(OPS_CONTROL, message)

    def ack(self, message: dict[str, Any]) -> None:
        """Send a controller's signed answer."""
        self._send_message(BID_ACKS, message)

    def _send_message(self, topic: str, message: dict[str, Any]) -> None:
        room_id = message["room_id"]
        partition = kafka.partition_of(room_id, self._n_partitions)
        self._send(topic, room_id.encode(), orjson.dumps(message), partition, message["ts"])

    def _partitions(self, room_id: str) -> Iterable[int]:
        if room_id == EVERY_ROOM:
            return range(self._n_partitions)
        return (kafka.partition_of(room_id, self._n_partitions),)

    def _send(self, topic: str, key: bytes, value: bytes, partition: int, stamp_ms: int) -> None:
        self.check()
        try:
            sent = self._producer.send(topic, value=value, key=key, partition=partition, timestamp_ms=stamp_ms)
        except KafkaError as error:
            self._failed(error)
            self.check()
        sent.add_errback(self._failed)

    def _failed(self, error: BaseException) -> None:
        self._failure = self._failure or error

    def check(self) -> None:
        """Raise ProgramError when something could not be written."""
        if self._failure is not None:
            msg = f"the embedded broker must take every record, got {self._failure}: start the demo again"
            raise ProgramError(msg)

    # -- how far the worker is --------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether more may be written without the broker dropping what is not yet worked off."""
        return max(self._ahead) < self._max_ahead

    def look(self) -> None:
        """Ask how far the worker's commits are, at most twice a second; without an answer, ask again later."""
        now_s = time.monotonic()
        if now_s < self._progress_due_s:
            return
        self._progress_due_s = now_s + PROGRESS_EVERY_S
        try:
            if not self.is_policy_told:
                ends = self._progress.end_offsets(self._logs)
                self.is_policy_told = all(ends[log] > self._n_written[log.partition] for log in self._logs)
            committed = self._commits()
        except KafkaError:
            return
        before = sum(self._ahead)
        for partition, offset in enumerate(committed):
            # What others wrote (the worker's policy, controls) counts as ours: a few records too hopeful at most.
            for _ in range(min(offset - self._committed[partition], len(self._sizes[partition]))):
                self._ahead[partition] -= self._sizes[partition].popleft()
        self._committed = committed
        self._worked_off.append((now_s, before - sum(self._ahead)))
        while self._worked_off[0][0] < now_s - AHEAD_S:
            self._worked_off.popleft()
        if self._is_paced:
            lately = sum(n_bytes for _, n_bytes in self._worked_off)
            self._max_ahead = min(MAX_AHEAD_BYTES, max(LEAST_AHEAD_BYTES, lately))

    def n_behind(self) -> int | None:
        """Return how many records of the log the worker has not worked off for good; None without an answer."""
        try:
            ends = self._progress.end_offsets(self._logs)
            return int(sum(ends[log] - offset for log, offset in zip(self._logs, self._commits(), strict=True)))
        except KafkaError:
            return None

    def _commits(self) -> list[int]:
        return [self._progress.committed(log, timeout_ms=ASK_MS) or 0 for log in self._logs]

    # -- what comes out ---------------------------------------------------------------------------------------

    def hear(self, timeout_s: float) -> Iterator[Heard]:
        """Yield what the pipeline wrote, waiting for it at most so long."""
        for partition, records in self._outputs.poll(max(0, round(timeout_s * 1_000))).items():
            for record in records:
                message = None if record.value is None else orjson.loads(record.value)
                yield Heard(partition.topic, partition.partition, (record.key or b"").decode(errors="replace"), message)

    def flush(self) -> None:
        """Return once everything written is in the log."""
        try:
            self._producer.flush(timeout=BLOCK_MS / 1_000)
        except KafkaError as error:
            self._failed(error)
        self.check()

    def close(self) -> None:
        """Let go of the broker; says nothing of errors, for it may be gone already."""
        self._producer.close(timeout=CLOSE_S)
        for consumer in (self._outputs, self._progress):
            consumer.close(autocommit=False, timeout_ms=round(CLOSE_S * 1_000))
