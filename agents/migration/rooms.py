"""Rooms on their way: what is left of the old partitions is applied, then each room is written where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from agents.errors import ProgramError
from agents.kafka import changelog_of, partition_of, partition_of_key
from agents.layout import Layout
from agents.migration.client import Client
from agents.sender import cloud_event
from agents.snapshots import Snapshots, check_log, pack, tombstone_headers
from pipeline import Engine
from pipeline.rekey import RekeyError, rekey
from pipeline.snapshot import SnapshotError
from schemas.base import EVERY_ROOM
from schemas.settings import Settings
from schemas.topics import ROOM_EVENTS

SEGMENT_MARK: Final = "\0"
"""Ends the room's id in keys of what is kept beside its state."""

Tell = Callable[[str], None]


class RoomStates:
    """The rooms' states in the changelog, and the steps that change them; each can be repeated.

    Parameters
    ----------
    client : open while a step runs.
    to : the number of partitions afterwards.
    tell : is told what was done in words.
    """

    def __init__(self, client: Client, settings: Settings, to: int, tell: Tell) -> None:
        self._client, self._to, self._tell = client, to, tell
        self._changelog = changelog_of(settings)
        # As a worker does: the log alone says what policy decides.
        self._own = Settings(privacy_key=settings.privacy_key, control_key=settings.control_key)

    def read(self) -> dict[int, Snapshots]:
        """Return what every partition of the changelog says."""
        found = {number: Snapshots() for number in range(self._to)}
        begins = self._client.begins(self._changelog, self._to)
        for number, end in self._client.ends(self._changelog, self._to).items():
            for batch in self._client.read(self._changelog, number, begins[number], end):
                found[number].take(batch)
        return found

    def refuse_strangers(self, states: Mapping[int, Snapshots], n_before: int, *, is_repeated: bool) -> None:
        """Refuse rooms that lie where their producer, by the contract, could not have put them."""
        for number, snapshots in states.items():
            for room in room_ids(snapshots):
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

    def drain(self, states: Mapping[int, Snapshots], n_before: int) -> int:
        """Apply what is left of the old partitions, and make it durable before anything else is read."""
        n_drained = 0
        for number in range(n_before):
            snapshots = states[number]
            begin, end = self._client.next_offsets(n_before)[number], self._client.ends(ROOM_EVENTS, n_before)[number]
            check_log(number, snapshots, begin, end)
            engine, n_records = self._engine(number, snapshots, n_before), 0
            known = snapshots.star.offset
            first_early = end
            for batch in self._client.read(ROOM_EVENTS, number, begin, end):
                early = [r.offset for r in batch if self._is_early(r, n_before)]
                first_early = min([first_early, *early])
                known_or_early = {*early, *(r.offset for r in batch if r.offset <= known)}
                records = [r for r in batch if r.offset not in known_or_early]
                self._apply(engine, records)
                n_records += len(records)
            self._client.flush()
            if n_records:
                self._tell(f"{ROOM_EVENTS} {number}: {n_records} records read to the end")
                self._save(number, snapshots, engine)
            n_drained += n_records
            self._client.commit({number: first_early}, Layout(n_before, self._to))
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
        self._send_all(
            engine.partition, engine.process((r.offset, r.timestamp, r.value or b"", r.key) for r in records)
        )

    def _send_all(self, number: int, outputs: Iterable[Any]) -> None:
        for output in outputs:
            value = output.json()
            headers = list(cloud_event(output.topic, number, value))
            self._client.send(output.topic, output.key.encode(), value, number, headers)

    def _save(self, number: int, snapshots: Snapshots, engine: Engine) -> None:
        """Write what changed, in a worker's order: rooms, then the partition's own state."""
        reign, checkpoint = self._claim(number, snapshots), engine.checkpoint()
        retired: list[str] = []
        for room in checkpoint.rooms:
            saved = engine.save(room)
            self._send_all(number, saved.told)
            retired += saved.retired
            for key, content in saved.parts:
                self._write(number, key, content, reign=reign, offset=checkpoint.offset)
        self._client.flush()
        self._write(number, EVERY_ROOM, checkpoint.star, reign=reign, offset=checkpoint.offset)
        self._client.flush()
        # Nobody can go on from less than this: no worker starts before the end.
        for key in retired:
            self._write(number, key, None, reign=reign)
        self._client.flush()

    def copy(self, states: Mapping[int, Snapshots], n_before: int, n_there: int) -> dict[int, int]:
        """Write rooms to where they belong, each partition's own state last; return up to where the log was read.

        `n_there`: the partitions that `room.events` has now.

        Records that lie where their room will be, since the topic had grown already, are applied when it is there.
        """
        whole = {number: self._engine(number, states[number], n_before).snapshot() for number in range(n_before)}
        ends = self._client.ends(ROOM_EVENTS, n_before)
        begins = self._client.begins(ROOM_EVENTS, min(n_there, self._to))
        nexts = [ends[n] if n < n_before else begins.get(n, 0) for n in range(self._to)]
        firsts = self._client.next_offsets(n_before)
        try:
            found = rekey(whole, [firsts.get(n, nexts[n]) for n in range(self._to)], self._home)
            for number, first in firsts.items():
                engine = Engine(self._own, partition=number)
                engine.restore(found[number])
                for batch in self._client.read(ROOM_EVENTS, number, first, ends[number]):
                    self._apply(engine, [record for record in batch if self._is_early(record, n_before)])
                self._send_all(number, engine.catch_up())
                self._client.flush()
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
            self._client.flush()
            self._write(number, EVERY_ROOM, parts[EVERY_ROOM], reign=reign, offset=offset)
            self._client.flush()
            self._tell(f"partition {number}: {len(arrivals)} rooms copied there")
        return ends

    def clear(self, states: Mapping[int, Snapshots]) -> None:
        """Remove what is left over of rooms where they do not belong."""
        for number, snapshots in states.items():
            strange = [key for key in snapshots.contents() if not _is_star(key) and _home(key, self._to) != number]
            if strange:
                reign = self._claim(number, snapshots)
                for key in strange:
                    self._write(number, key, None, reign=reign)
                self._client.flush()

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
        self._client.flush()
        return reign

    def _home(self, room: str) -> int:
        return partition_of(room, self._to)

    def _write(self, number: int, key: str, content: bytes | None, *, reign: int, offset: int = -1) -> None:
        """Write the state of a key to the changelog; None removes the key."""
        if content is None:
            self._client.send(self._changelog, key.encode(), None, number, tombstone_headers(reign))
        else:
            self._client.send(self._changelog, key.encode(), pack(reign, offset, content), number)


def _home(key: str, n_partitions: int) -> int:
    """Return where a room's key, or a key of what is kept beside its state, belongs."""
    return partition_of(key.partition(SEGMENT_MARK)[0], n_partitions)


def room_ids(snapshots: Snapshots) -> list[str]:
    """Return the rooms that have a state."""
    return [key for key in snapshots.contents() if not _is_star(key) and SEGMENT_MARK not in key]


def _is_star(key: str) -> bool:
    return key == EVERY_ROOM
