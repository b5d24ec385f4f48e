"""What a migration reads and writes in Kafka: ranges of logs, the group's commits, topics that grow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from typing import Any, Final, Self

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewPartitions
from kafka.errors import CommitFailedError, InvalidPartitionsError, KafkaError, UnknownMemberIdError
from kafka.structs import OffsetAndMetadata

from agents import layout as layouts
from agents.errors import ProgramError
from agents.kafka import MAX_SNAPSHOT_BYTES, REQUEST_TIMEOUT_S, bootstrap, connect
from agents.layout import Layout
from schemas.settings import Settings
from schemas.topics import ROOM_EVENTS

POLL_MS: Final = 200
STALL_S: Final = 20.0
"""Reading that brings nothing for so long, although there is more, has failed."""


class Client(AbstractContextManager["Client"]):
    """Connections to one deployment's broker, as its group, open between enter and exit."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._group, self._servers = settings, settings.kafka.app_id, bootstrap(settings)
        self._stack = ExitStack()
        self._sent: list[Any] = []
        """Records on their way."""

    def __enter__(self) -> Self:
        with self._stack:
            self._consumer = self._open(KafkaConsumer, group_id=self._group, enable_auto_commit=False)
            self._reader = self._open(KafkaConsumer, max_partition_fetch_bytes=MAX_SNAPSHOT_BYTES)
            self._producer = self._open(
                KafkaProducer, acks="all", enable_idempotence=True, max_request_size=MAX_SNAPSHOT_BYTES, linger_ms=5
            )
            self._admin = self._open(KafkaAdminClient, request_timeout_ms=int(REQUEST_TIMEOUT_S * 1_000))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, make: Callable[..., Any], **kwargs: Any) -> Any:
        return self._stack.enter_context(closing(connect(make, self._servers, **kwargs)))

    # -- the group --------------------------------------------------------------------------------------------

    def refuse_members(self) -> None:
        """Raise ProgramError while a worker is a member of the group."""
        found = self._admin.describe_consumer_groups([self._group])
        n_members = len(found[0].members) if found else 0
        if n_members:
            msg = f"all workers of group {self._group} must be stopped, got {n_members} at work: stop them, then again"
            raise ProgramError(msg)

    def commit(self, offsets: Mapping[int, int], layout: Layout) -> None:
        """Commit partitions of `room.events` in one request, with the layout as their note."""
        note = layout.note()
        commits = {
            TopicPartition(ROOM_EVENTS, number): OffsetAndMetadata(offset, note, -1)
            for number, offset in offsets.items()
        }
        try:
            self._consumer.commit(commits)
        except (CommitFailedError, UnknownMemberIdError) as error:
            name = type(error).__name__
            msg = f"all workers of group {self._group} must be stopped, got {name} of a commit: stop them, then again"
            raise ProgramError(msg) from None

    def next_offsets(self, n_partitions: int) -> dict[int, int]:
        """Return where each old partition stands; its oldest record where nothing was committed yet."""
        _, committed = layouts.read(self._settings, n_partitions)
        begins = self.begins(ROOM_EVENTS, n_partitions)
        return {number: committed.get(number, begin) for number, begin in begins.items()}

    # -- topics -----------------------------------------------------------------------------------------------

    def grow(self, topic: str, n_partitions: int) -> None:
        """Add partitions to a topic and return once they can be read."""
        with suppress(InvalidPartitionsError):  # a run that was cut short asked for it
            self._admin.create_partitions({topic: NewPartitions(n_partitions)})
        deadline_s = time.monotonic() + STALL_S
        while True:
            try:
                with closing(connect(KafkaConsumer, self._servers)) as looking:
                    looking.topics()
                    if len(looking.partitions_for_topic(topic) or ()) >= n_partitions:
                        _ends_of(looking, topic, n_partitions)
                        return
            except KafkaError as error:
                if not error.retriable:
                    raise
            if time.monotonic() > deadline_s:
                msg = (
                    f"topic {topic} must grow within {STALL_S:g} s, got no {n_partitions} partitions: "
                    "look at the broker"
                )
                raise ProgramError(msg)
            time.sleep(0.1)

    # -- records ----------------------------------------------------------------------------------------------

    def ends(self, topic: str, n_partitions: int) -> dict[int, int]:
        """Return the offset after the last record of each partition."""
        return _ends_of(self._consumer, topic, n_partitions)

    def begins(self, topic: str, n_partitions: int) -> dict[int, int]:
        """Return the oldest offset that is kept of each partition."""
        places = [TopicPartition(topic, number) for number in range(n_partitions)]
        return {place.partition: begin for place, begin in self._consumer.beginning_offsets(places).items()}

    def read(self, topic: str, number: int, begin: int, end: int) -> Iterator[list[Any]]:
        """Yield a partition's records from `begin` to `end`."""
        place, consumer = TopicPartition(topic, number), self._reader
        consumer.assign([place])
        consumer.seek(place, max(begin, consumer.beginning_offsets([place])[place]))
        heard_s = time.monotonic()
        while consumer.position(place) < end:
            batch = [record for record in consumer.poll(POLL_MS).get(place, ()) if record.offset < end]
            if batch:
                heard_s = time.monotonic()
                yield batch
            elif time.monotonic() - heard_s > STALL_S:
                msg = f"{topic} {number} must be readable up to {end}, got no more after {STALL_S:g} s"
                raise ProgramError(msg)

    def send(
        self, topic: str, key: bytes, value: bytes | None, number: int, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        """Queue a record; `flush` waits for it."""
        self._sent.append(self._producer.send(topic, value, key, headers, number))

    def flush(self) -> None:
        """Return once everything sent is in Kafka; raise ProgramError when some of it is not."""
        sent, self._sent = self._sent, []
        self._producer.flush()
        try:
            for future in sent:
                future.get(REQUEST_TIMEOUT_S)
        except KafkaError as error:
            msg = f"the broker must take what is written, got {type(error).__name__}: see to it, then run this again"
            raise ProgramError(msg) from None


def _ends_of(consumer: Any, topic: str, n_partitions: int) -> dict[int, int]:
    places = [TopicPartition(topic, number) for number in range(n_partitions)]
    return {place.partition: end for place, end in consumer.end_offsets(places).items()}
