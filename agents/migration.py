"""From so many partitions to more: every room to its new partition, with all it knows, in steps that can be repeated.

Topics grow in place: outputs, trails and answers stay where they were, readers keep their offsets, and the group goes
on with the same commits. A new generation of topics would make every producer and reader change at once, for nothing,
since a room's log before the change is never read again: its state is in the changelog.

    1. note    the group's commits say "from 4 to 6": no worker starts any more, and while one runs nothing is noted
    2. drain   what is left of the old partitions is applied, sent and saved as a worker does it, and committed
    3. copy    each room that moves is written to its new partition of the changelog, then each partition's own state
    4. note    "copied": from here on a room is where it belongs among the new partitions
    5. clear   what is left over of rooms that moved is removed; the topics grow, `room.events` last
    6. commit  every new partition, with the new number

A step that was cut short is done again from the beginning: what it reads is what is durable, and what it writes is the
same. Everything is written in a reign of its own, so that a worker that slept through it all writes in vain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from typing import Any, Final, NamedTuple, Self

import orjson
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewPartitions
from kafka.errors import CommitFailedError, InvalidPartitionsError, KafkaError, UnknownMemberIdError
from kafka.structs import OffsetAndMetadata

from agents import layout as layouts
from agents.config import control_key_of, privacy_key_of
from agents.errors import ProgramError, UsageError
from agents.kafka import (
    MAX_SNAPSHOT_BYTES,
    REQUEST_TIMEOUT_S,
    Cluster,
    bootstrap,
    changelog_of,
    connect,
    inspect,
    partition_of,
    partition_of_key,
)
from agents.layout import Layout
from agents.sender import cloud_event
from agents.snapshots import Snapshots, pack, tombstone_headers
from pipeline import Engine
from pipeline.rekey import RekeyError, rekey
from pipeline.snapshot import SnapshotError
from schemas.base import EVERY_ROOM
from schemas.settings import Settings
from schemas.topics import OPS_KILL, ROOM_EVENTS

POLL_MS: Final = 200
STALL_S: Final = 20.0
"""Reading that brings nothing for so long, although there is more, has failed."""
SEGMENT_MARK: Final = "\0"
"""Ends the room's id in keys of what is kept beside its state."""

Tell = Callable[[str], None]


class Plan(NamedTuple):
    """What there is to do."""

    layout: Layout
    to: int
    counts: Mapping[str, int]
    n_left: int
    """Records of the old partitions that no worker has committed."""

    @property
    def is_done(self) -> bool:
        """There is nothing to do."""
        is_there = all(count == self.to for count in self.counts.values())
        return is_there and self.layout == Layout(self.to)


class Result(NamedTuple):
    """What was done."""

    n_before: int
    n_partitions: int
    n_drained: int
    n_rooms: int
    n_moved: int
    """Rooms that have another partition now."""


class Migration(AbstractContextManager["Migration"]):
    """One run of `roompulse migrate`; `tell` is told each step in words."""

    def __init__(self, settings: Settings, to: int, tell: Tell) -> None:
        self._settings, self._to, self._tell = settings, to, tell
        control_key_of(settings)
        privacy_key_of(settings)  # with another key everybody in what is left would be a stranger
        # As a worker does: the log alone says what policy decides.
        self._own = Settings(privacy_key=settings.privacy_key, control_key=settings.control_key)
        self._group, self._changelog = settings.kafka.app_id, changelog_of(settings)
        self._servers = bootstrap(settings)
        self._stack = ExitStack()
        self._sent: list[Any] = []
        """Records on their way."""

    def __enter__(self) -> Self:
        with self._stack:
            cluster = inspect(self._settings)
            self._counts = self._checked(cluster)
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

    def _checked(self, cluster: Cluster) -> dict[str, int]:
        missing = [topic.name for topic in cluster.topics if topic.status == "missing"]
        if missing:
            msg = f"topics must exist, got none of {', '.join(missing)}: run roompulse provision"
            raise ProgramError(msg)
        if cluster.embedded:
            msg = f"--to needs a broker whose topics can grow, got an embedded one with {cluster.n_partitions} for ever"
            raise UsageError(msg)
        counts = {topic.name: topic.n_partitions for topic in cluster.topics}
        most = max(counts.values())
        if self._to < most:
            topic = max(counts, key=lambda name: counts[name])
            msg = f"--to must be at least {most}, the partitions of {topic} (Kafka can only add some), got {self._to}"
            raise UsageError(msg)
        return counts

    # -- what there is to do ----------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Return what there is to do; raise ProgramError when it must not be done."""
        noted, committed = layouts.read(self._settings, self._counts[ROOM_EVENTS])
        layout = noted or Layout(min(self._counts[ROOM_EVENTS], self._counts[self._changelog]))
        if layout.to is not None and layout.to != self._to:
            msg = f"--to must be {layout.to} until the migration that was begun is finished, got {self._to}"
            raise UsageError(msg)
        ends = self._ends(ROOM_EVENTS, layout.n_partitions)
        begins = self._begins(ROOM_EVENTS, layout.n_partitions)
        n_left = sum(max(0, end - max(committed.get(n, 0), begins[n])) for n, end in ends.items())
        return Plan(layout, self._to, self._counts, n_left)

    def run(self, plan: Plan) -> Result:
        """Do all of it; what a former run did counts."""
        n_before = plan.layout.n_partitions
        self._refuse_members()
        begun = Layout(n_before, self._to, plan.layout.is_copied)
        self._commit(self._next_offsets(n_before), begun)
        self._refuse_members()  # one that joined before the note; one that joins after it reads it and stops
        self._grow([self._changelog])
        states = self._read_changelog()
        n_drained = 0
        if not begun.is_copied:
            self._refuse_strangers(states, n_before, is_repeated=plan.layout.to is not None)
            n_drained = self._drain(states, n_before)
            states = self._read_changelog()
            ends = self._copy(states, n_before)
            n_late = sum(self._ends(ROOM_EVENTS, n_before).values()) - sum(ends.values())
            if n_late:
                msg = (
                    f"producers must be stopped, got {n_late} records written meanwhile: stop them, then run this again"
                )
                raise ProgramError(msg)
            self._commit(self._next_offsets(n_before), begun._replace(is_copied=True))
            states = self._read_changelog()
        self._clear(states)
        self._carry_switches()
        self._grow([topic for topic in self._counts if topic != ROOM_EVENTS])
        self._grow([ROOM_EVENTS])
        rooms = {number: _room_ids(snapshots) for number, snapshots in states.items()}
        at_home = [room for number, ids in rooms.items() for room in ids if self._home(room) == number]
        n_moved = sum(partition_of(room, n_before) != self._home(room) for room in at_home)
        nexts = {number: snapshots.star.offset + 1 for number, snapshots in states.items()}
        self._commit(nexts, Layout(self._to))
        return Result(n_before, self._to, n_drained, len(at_home), n_moved)

    # -- the group --------------------------------------------------------------------------------------------

    def _refuse_members(self) -> None:
        found = self._admin.describe_consumer_groups([self._group])
        n_members = len(found[0].members) if found else 0
        if n_members:
            msg = f"all workers of group {self._group} must be stopped, got {n_members} at work: stop them, then again"
            raise ProgramError(msg)

    def _commit(self, offsets: Mapping[int, int], layout: Layout) -> None:
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

    def _next_offsets(self, n_partitions: int) -> dict[int, int]:
        """Return where each old partition stands; its oldest record where nothing was committed yet."""
        _, committed = layouts.read(self._settings, n_partitions)
        begins = self._begins(ROOM_EVENTS, n_partitions)
        return {number: committed.get(number, begin) for number, begin in begins.items()}

    def _grow(self, topics: Sequence[str]) -> None:
        for topic in topics:
            if self._counts[topic] >= self._to:
                continue
            self._tell(f"{topic}: {self._counts[topic]} -> {self._to} partitions")
            with suppress(InvalidPartitionsError):  # a run that was cut short asked for it
                self._admin.create_partitions({topic: NewPartitions(self._to)})
            self._await_grown(topic)
            self._counts[topic] = self._to

    def _await_grown(self, topic: str) -> None:
        deadline_s = time.monotonic() + STALL_S
        while True:
            try:
                with closing(connect(KafkaConsumer, self._servers)) as looking:
                    looking.topics()
                    if len(looking.partitions_for_topic(topic) or ()) >= self._to:
                        self._ends_of(looking, topic, self._to)
                        return
            except KafkaError as error:
                if not error.retriable:
                    raise
            if time.monotonic() > deadline_s:
                msg = f"topic {topic} must grow within {STALL_S:g} s, got no {self._to} partitions: look at the broker"
                raise ProgramError(msg)
            time.sleep(0.1)

    # -- the steps --------------------------------------------------------------------------------------------

    def _refuse_strangers(self, states: Mapping[int, Snapshots], n_before: int, *, is_repeated: bool) -> None:
        """Refuse rooms that lie where their producer, by the contract, could not have put them."""
        for number, snapshots in states.items():
            for room in _room_ids(snapshots):
                belongs = partition_of(room, n_before)
                if belongs != number and not (is_repeated and self._home(room) == number):
                    msg = (
                        f"room {room!r} must be in partition {belongs} of {n_before} (murmur2 of its id), got it in "
                        f"{number}: set its producer's partitioner right, and another ROOMPULSE_KAFKA__APP_ID"
                    )
                    raise ProgramError(msg)

    def _engine(self, number: int, snapshots: Snapshots, n_before: int) -> Engine:
        """Return a partition's engine with the rooms that were its own before."""
        engine = Engine(self._own, partition=number)
        contents = snapshots.contents()
        own = {key: content for key, content in contents.items() if _is_star(key) or _home(key, n_before) == number}
        try:
            engine.restore(own)
        except SnapshotError as error:
            raise ProgramError(str(error)) from None
        return engine

    def _drain(self, states: Mapping[int, Snapshots], n_before: int) -> int:
        """Apply what is left of the old partitions, and make it durable before anything else is read."""
        n_drained = 0
        for number in range(n_before):
            snapshots = states[number]
            begin, end = self._next_offsets(n_before)[number], self._ends(ROOM_EVENTS, n_before)[number]
            needed = max(begin, snapshots.newest() + 1)
            if needed > end:
                msg = (
                    f"{ROOM_EVENTS} partition {number} must reach offset {needed}, got {end}: "
                    "the topic was made anew; set another ROOMPULSE_KAFKA__APP_ID"
                )
                raise ProgramError(msg)
            engine, n_records = self._engine(number, snapshots, n_before), 0
            known = snapshots.star.offset
            first_early = end
            for batch in self._read(ROOM_EVENTS, number, begin, end):
                early = [r.offset for r in batch if self._is_early(r, n_before)]
                first_early = min([first_early, *early])
                known_or_early = {*early, *(r.offset for r in batch if r.offset <= known)}
                records = [r for r in batch if r.offset not in known_or_early]
                self._apply(engine, records)
                n_records += len(records)
            self._flush()
            if n_records:
                self._tell(f"{ROOM_EVENTS} {number}: {n_records} records read to the end")
                self._save(number, snapshots, engine)
            n_drained += n_records
            self._commit({number: first_early}, Layout(n_before, self._to))
        return n_drained

    def _is_early(self, record: Any, n_before: int) -> bool:
        """Say whether a record lies where its room will be, not where it was: the topic had grown already."""
        key = record.key
        if not key or _is_star(key.decode(errors="replace")):
            return False
        before = partition_of_key(key, n_before)
        if record.partition in (before, partition_of_key(key, self._to)):
            return bool(record.partition != before)
        msg = (
            f"record {record.offset} of {ROOM_EVENTS} {record.partition} must be in partition {before} (murmur2 of its "
            "key), got it elsewhere: set its producer's partitioner right, and another ROOMPULSE_KAFKA__APP_ID"
        )
        raise ProgramError(msg)

    def _apply(self, engine: Engine, records: Sequence[Any]) -> None:
        """Apply records and send what follows from them."""
        self._tell_all(engine, engine.process((r.offset, r.timestamp, r.value or b"", r.key) for r in records))

    def _tell_all(self, engine: Engine, outputs: Iterable[Any]) -> None:
        number = engine.partition
        for output in outputs:
            value = output.json()
            headers = list(cloud_event(output.topic, number, value))
            self._send(output.topic, output.key.encode(), value, number, headers)

    def _save(self, number: int, snapshots: Snapshots, engine: Engine) -> None:
        """Write what changed, in a worker's order: rooms, then the partition's own state."""
        reign, checkpoint = self._claim(number, snapshots), engine.checkpoint()
        retired: list[str] = []
        for room in checkpoint.rooms:
            saved = engine.save(room)
            self._tell_all(engine, saved.told)
            retired += saved.retired
            for key, content in saved.parts:
                self._write(number, key, content, reign=reign, offset=checkpoint.offset)
        self._flush()
        self._write(number, EVERY_ROOM, checkpoint.star, reign=reign, offset=checkpoint.offset)
        self._flush()
        # Nobody can go on from less than this: no worker starts before the end.
        for key in retired:
            self._write(number, key, None, reign=reign)
        self._flush()

    def _copy(self, states: Mapping[int, Snapshots], n_before: int) -> dict[int, int]:
        """Write rooms to where they belong, each partition's own state last; return up to where the log was read.

        Records that lie where their room will be, since the topic had grown already, are applied when it is there.
        """
        whole = {number: self._engine(number, states[number], n_before).snapshot() for number in range(n_before)}
        ends = self._ends(ROOM_EVENTS, n_before)
        begins = self._begins(ROOM_EVENTS, min(self._counts[ROOM_EVENTS], self._to))
        nexts = [ends[n] if n < n_before else begins.get(n, 0) for n in range(self._to)]
        firsts = self._next_offsets(n_before)
        try:
            found = rekey(whole, [firsts.get(n, nexts[n]) for n in range(self._to)], self._home)
            for number, first in firsts.items():
                engine = Engine(self._own, partition=number)
                engine.restore(found[number])
                for batch in self._read(ROOM_EVENTS, number, first, ends[number]):
                    self._apply(engine, [record for record in batch if self._is_early(record, n_before)])
                self._tell_all(engine, engine.settle())
                self._flush()
                found[number] = engine.snapshot()
            found = rekey(dict(enumerate(found)), nexts, self._home)
        except RekeyError as error:
            raise ProgramError(str(error)) from None
        for number, parts in enumerate(found):
            arrivals = [room for room in parts if not _is_star(room) and room not in whole.get(number, {})]
            reign, offset = self._claim(number, states[number]), nexts[number] - 1
            engine = Engine(self._own, partition=number)
            engine.restore({room: parts[room] for room in arrivals})
            for room in arrivals:
                for key, content in engine.save(room).parts:
                    self._write(number, key, content, reign=reign, offset=offset)
            self._flush()
            self._write(number, EVERY_ROOM, parts[EVERY_ROOM], reign=reign, offset=offset)
            self._flush()
            self._tell(f"partition {number}: {len(arrivals)} rooms copied there")
        return ends

    def _clear(self, states: Mapping[int, Snapshots]) -> None:
        """Remove what is left over of rooms where they do not belong."""
        for number, snapshots in states.items():
            strange = [key for key in snapshots.contents() if not _is_star(key) and _home(key, self._to) != number]
            if strange:
                reign = self._claim(number, snapshots)
                for key in strange:
                    self._write(number, key, None, reign=reign)
                self._flush()

    def _claim(self, number: int, snapshots: Snapshots) -> int:
        """Begin a reign: what a former owner still writes is dead; what such a record stands after is written again."""
        reign = snapshots.next_reign(0)
        star = snapshots.star
        self._write(number, EVERY_ROOM, star.content, reign=reign, offset=star.offset)
        for key, state in snapshots.overtaken().items():
            if state is None:
                self._write(number, key, None, reign=reign)
            elif not _is_star(key):
                self._write(number, key, state.content, reign=reign, offset=state.offset)
        self._flush()
        return reign

    def _carry_switches(self) -> None:
        """Write each room's kill switch where its next change will stand.

        One that is on is left in its old partition too, so that no reader, in whatever order it reads, ever takes it
        for off; one that is off is removed there.
        """
        newest: dict[bytes, tuple[int, int, bytes]] = {}
        places: dict[bytes, dict[int, bytes]] = {}
        for number, end in self._ends(OPS_KILL, self._counts[OPS_KILL]).items():
            for batch in self._read(OPS_KILL, number, self._begins(OPS_KILL, self._counts[OPS_KILL])[number], end):
                for record in batch:
                    places.setdefault(record.key, {})[number] = record.value or b""
        for key, values in places.items():
            said = [(orjson.loads(value)["ts"], number, value) for number, value in values.items() if value]
            if said:
                newest[key] = max(said)
        self._grow([OPS_KILL])
        for key, (_, _, value) in newest.items():
            home = self._home(key.decode())
            if places[key].get(home) != value:
                self._send(OPS_KILL, key, value, home)
            self._flush()
            if not orjson.loads(value)["on"]:
                for number, old in places[key].items():
                    if number != home and old:
                        self._send(OPS_KILL, key, None, number)
        self._flush()

    # -- reading and writing ----------------------------------------------------------------------------------

    def _home(self, room: str) -> int:
        return partition_of(room, self._to)

    def _read_changelog(self) -> dict[int, Snapshots]:
        """Return what every partition of the changelog says."""
        found = {number: Snapshots() for number in range(self._to)}
        begins = self._begins(self._changelog, self._to)
        for number, end in self._ends(self._changelog, self._to).items():
            for batch in self._read(self._changelog, number, begins[number], end):
                found[number].take(batch)
        return found

    def _read(self, topic: str, number: int, begin: int, end: int) -> Iterator[list[Any]]:
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

    def _ends(self, topic: str, n_partitions: int) -> dict[int, int]:
        return self._ends_of(self._consumer, topic, n_partitions)

    @staticmethod
    def _ends_of(consumer: Any, topic: str, n_partitions: int) -> dict[int, int]:
        places = [TopicPartition(topic, number) for number in range(n_partitions)]
        return {place.partition: end for place, end in consumer.end_offsets(places).items()}

    def _begins(self, topic: str, n_partitions: int) -> dict[int, int]:
        places = [TopicPartition(topic, number) for number in range(n_partitions)]
        return {place.partition: begin for place, begin in self._consumer.beginning_offsets(places).items()}

    def _write(self, number: int, key: str, content: bytes | None, *, reign: int, offset: int = -1) -> None:
        """Write the state of a key to the changelog; None removes the key."""
        if content is None:
            self._send(self._changelog, key.encode(), None, number, tombstone_headers(reign))
        else:
            self._send(self._changelog, key.encode(), pack(reign, offset, content), number)

    def _send(
        self, topic: str, key: bytes, value: bytes | None, number: int, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        self._sent.append(self._producer.send(topic, value, key, headers, number))

    def _flush(self) -> None:
        """Return once everything sent is in Kafka; raise ProgramError when some of it is not."""
        sent, self._sent = self._sent, []
        self._producer.flush()
        try:
            for future in sent:
                future.get(REQUEST_TIMEOUT_S)
        except KafkaError as error:
            msg = f"the broker must take what is written, got {type(error).__name__}: see to it, then run this again"
            raise ProgramError(msg) from None


def _is_star(key: str) -> bool:
    return key == EVERY_ROOM


def _home(key: str, n_partitions: int) -> int:
    return partition_of(key.partition(SEGMENT_MARK)[0], n_partitions)


def _room_ids(snapshots: Snapshots) -> list[str]:
    return [key for key in snapshots.contents() if not _is_star(key) and SEGMENT_MARK not in key]
