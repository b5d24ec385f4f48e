"""The broker of an end-to-end benchmark: its topics, the load in them, and what a run wrote.

The load is written once and read by every run. It lies in three topics: the worker's own (`room.events`, whose name is
fixed), one for rivals with the same records, and one with the first of them for contenders that need the time of all
for a tenth. Records carry the log's own time as their Kafka timestamp (CreateTime), so an engine evaluates as often an
event as it would live.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaAdminClient, KafkaConsumer
from kafka import TopicPartition as KafkaPlace
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import IncompatibleBrokerVersion

from agents.broker import CLIENT_API_VERSION
from agents.errors import ProgramError
from agents.kafka import connect, partition_of
from benchmarks.workloads import Workload
from pipeline import Record
from schemas.topics import ROOM_EVENTS

PARTITIONS: Final = 4
"""As many as a topic of the embedded broker has."""
MARKER: Final = "roompulse-benchmark"
"""A topic that says: this broker is a benchmark's, its topics may be deleted."""
RIVALS_EVENTS: Final = "benchmark.events"
FIRST_EVENTS: Final = "benchmark.events.first"
LOADS: Final = (ROOM_EVENTS, RIVALS_EVENTS, FIRST_EVENTS)
WAIT_S: Final = 30.0
CHUNK: Final = 50_000
FOR_EVER: Final = {"retention.ms": "-1", "message.timestamp.type": "CreateTime"}
"""The log's own time is long past: by it a broker would delete the load, or what a rival stamps with it, at once."""


class Load(NamedTuple):
    """One topic's records: how many, and where they end in each partition."""

    topic: str
    n_records: int
    ends: list[int]


class Place(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class Written(NamedTuple):
    """What a run wrote: outputs and changelogs. Bytes are keys, values and headers; None when some are gone again."""

    n_records: int
    n_bytes: int | None


def records_of(n_rooms: int, n_events: int, *, seed: int, rate: int) -> Iterator[Record]:
    """Yield the load: each room's opening, then the mixture."""
    work = Workload(n_rooms, seed, rate)
    yield from work.opening()
    while n_events > 0:
        yield from work.take(min(CHUNK, n_events))
        n_events -= CHUNK


class Field:
    """A broker that benchmarks may fill and empty.

    Parameters
    ----------
    bootstrap : host:port[,host:port]

    Raises
    ------
    ProgramError
        No broker answers, or it holds a deployment's topics: a benchmark would write into them.
    """

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._servers = bootstrap.split(",")
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        with closing(connect(KafkaConsumer, self._servers)) as consumer:
            there = set(consumer.topics())
        self.embedded = not self._can_describe()
        if ROOM_EVENTS in there and MARKER not in there:
            msg = (
                f"broker must be one for benchmarks alone, got one with {ROOM_EVENTS}: "
                "name an empty broker, or leave --broker out"
            )
            raise ProgramError(msg)
        self.delete(there)
        if MARKER not in there:
            self.make([MARKER])

    def _can_describe(self) -> bool:
        with closing(connect(KafkaAdminClient, self._servers)) as admin:
            try:
                admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, MARKER)])
            except IncompatibleBrokerVersion:  # the embedded broker does not know the request
                return False
            return True

    # -- topics -----------------------------------------------------------------------------------------------

    def topics(self) -> set[str]:
        """Return every topic but the broker's own."""
        found = self._admin.list_topics(timeout=WAIT_S).topics
        return {name for name in found if not name.startswith("__")}

    def make(self, names: Sequence[str], configs: dict[str, str] | None = None) -> None:
        """Make topics with the benchmark's number of partitions and return once they are there."""
        if self.embedded:
            for name in names:
                self._admin.list_topics(name, timeout=WAIT_S)  # asking makes it
            return
        new = [NewTopic(name, PARTITIONS, 1, config={**FOR_EVER, **(configs or {})}) for name in names]
        for name, future in self._admin.create_topics(new).items():
            try:
                future.result(WAIT_S)
            except KafkaException as error:
                msg = f"topic {name} must be made, got {error.args[0].str()}"
                raise ProgramError(msg) from None
        self._await(lambda there: set(names) <= there, "made")

    def delete(self, names: Iterable[str]) -> None:
        """Delete topics; an embedded broker keeps them until it ends."""
        mine = [name for name in names if not name.startswith("__") and name != MARKER]
        if self.embedded or not mine:
            return
        for future in self._admin.delete_topics(mine).values():
            with suppress(KafkaException):  # gone already
                future.result(WAIT_S)
        self._await(lambda there: not there & set(mine), "deleted")

    def clear(self) -> None:
        """Delete every topic but the loads."""
        self.delete(self.topics() - set(LOADS))

    def _await(self, is_so: Any, what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not is_so(self.topics()):
            if time.monotonic() > deadline_s:
                msg = f"topics must be {what} within {WAIT_S:g} s, got no change: look at the broker's log"
                raise ProgramError(msg)
            time.sleep(0.05)

    # -- the load ---------------------------------------------------------------------------------------------

    def fill(self, records: Iterable[Record], n_first: int) -> tuple[Load, Load, Load]:
        """Write the load into its topics; the last has the first `n_first` records alone."""
        self.make(LOADS)
        compression = "gzip" if self.embedded else "none"  # it keeps 5 MiB a partition, as sent
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "linger.ms": 100,
                "batch.num.messages": 10_000,
                "batch.size": 500_000,
                "queue.buffering.max.messages": 1_000_000,
                "compression.type": compression,
                "log_level": 0,
            }
        )
        failed: list[str] = []

        def told(error: Any, _message: Any) -> None:
            if error is not None:
                failed.append(str(error))

        def produce(topic: str, value: bytes, key: bytes | None, partition: int, ts: int) -> None:
            while True:
                try:
                    producer.produce(topic, value, key, partition, timestamp=ts, on_delivery=told)
                except BufferError:  # the queue is full: let some go
                    producer.poll(0.1)
                else:
                    producer.poll(0)
                    return

        n_records, n_whole, n_of_first = 0, [0] * PARTITIONS, [0] * PARTITIONS
        partitions: dict[bytes, int] = {}
        for record in records:
            ts, value, room = record[1] or 0, record[2], record[3] or b""  # type: ignore[misc]  # a workload gives keys
            partition = partitions.get(room)
            if partition is None:
                partition = partitions[room] = partition_of(room.decode(), PARTITIONS)
            n_whole[partition] += 1
            for topic in LOADS[:2]:
                produce(topic, value, room, partition, ts)
            if n_records < n_first:
                n_of_first[partition] += 1
                produce(FIRST_EVENTS, value, room, partition, ts)
            n_records += 1
        if producer.flush(WAIT_S * 4) or failed:
            msg = f"the load must reach the broker, got {failed[0] if failed else 'no answer'}"
            raise ProgramError(msg)
        self._check(n_whole)
        whole = [Load(topic, n_records, n_whole) for topic in LOADS[:2]]
        return whole[0], whole[1], Load(FIRST_EVENTS, min(n_first, n_records), n_of_first)

    def _check(self, n_by_partition: list[int]) -> None:
        begins, ends = self._offsets([RIVALS_EVENTS])
        kept = [ends[place] - begins[place] for place in sorted(ends)]
        if kept != n_by_partition:
            msg = (
                f"the broker must keep the whole load, got {sum(kept)} of {sum(n_by_partition)} records: the embedded "
                "one keeps 5 MiB a partition; take fewer --events, or a Kafka with --broker"
            )
            raise ProgramError(msg)

    # -- what was written -------------------------------------------------------------------------------------

    def _offsets(self, names: Iterable[str]) -> tuple[dict[Place, int], dict[Place, int]]:
        """Return the first offset kept and the next one to come of each partition."""
        version: dict[str, Any] = {"api_version": CLIENT_API_VERSION} if self.embedded else {}
        with closing(connect(KafkaConsumer, self._servers, **version)) as consumer:
            found = [KafkaPlace(name, n) for name in names for n in sorted(consumer.partitions_for_topic(name) or ())]
            begins, ends = consumer.beginning_offsets(found), consumer.end_offsets(found)
        return {Place(*place): n for place, n in begins.items()}, {Place(*place): n for place, n in ends.items()}

    def standing(self) -> dict[Place, int]:
        """Return where every topic but the loads ends now."""
        names = self.topics() - {*LOADS, MARKER}
        return self._offsets(names)[1] if names else {}

    def written_since(self, before: Mapping[Place, int]) -> Written:
        """Return what was written to any topic but the loads, by reading it."""
        names = self.topics() - {*LOADS, MARKER}
        begins, ends = self._offsets(names) if names else ({}, {})
        n_records = sum(end - before.get(place, 0) for place, end in ends.items())
        if any(begins[place] > before.get(place, 0) for place in ends):
            return Written(n_records, None)  # the embedded broker let some go
        places = [place for place, end in ends.items() if end > before.get(place, 0)]
        return Written(n_records, self._n_bytes(places, before, ends))

    def _n_bytes(self, places: list[Place], before: Mapping[Place, int], ends: Mapping[Place, int]) -> int:
        wait = {"fetch.wait.max.ms": 40} if self.embedded else {}
        config = {"bootstrap.servers": self.bootstrap, "group.id": "none", "enable.partition.eof": True, "log_level": 0}
        n_bytes, left = 0, {(place.topic, place.partition) for place in places}
        deadline_s = time.monotonic() + WAIT_S * 4
        with closing(Consumer({**config, "enable.auto.commit": False, **wait})) as consumer:
            consumer.assign([TopicPartition(place.topic, place.partition, before.get(place, 0)) for place in places])
            while left:
                if time.monotonic() > deadline_s:
                    msg = f"what was written must be read within {WAIT_S * 4:g} s, got none of {sorted(left)}"
                    raise ProgramError(msg)
                for message in consumer.consume(10_000, 0.1):
                    error = message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        msg = f"what was written must be readable, got {error.str()}"
                        raise ProgramError(msg)
                    place, offset = Place(str(message.topic()), message.partition() or 0), message.offset() or 0
                    if error is None and offset < ends[place]:
                        n_bytes += len(message.key() or b"") + len(message.value() or b"")
                        n_bytes += sum(len(name) + len(value or b"") for name, value in _headers(message))
                    if error is not None or offset >= ends[place] - 1:
                        left.discard(place)
        return n_bytes


def _headers(message: Any) -> list[tuple[str, bytes | None]]:
    return list(message.headers() or ())
