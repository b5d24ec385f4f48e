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

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Self

from agents import layout as layouts
from agents.config import control_key_of, privacy_key_of
from agents.errors import ProgramError, UsageError
from agents.kafka import Cluster, changelog_of, inspect, partition_of
from agents.layout import Layout
from agents.migration.client import Client
from agents.migration.rooms import RoomStates, Tell, room_ids
from agents.migration.switches import carry_switches
from schemas.settings import Settings
from schemas.topics import OPS_KILL, ROOM_EVENTS


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
        self._client = Client(settings)
        self._rooms = RoomStates(self._client, settings, to, tell)

    def __enter__(self) -> Self:
        self._counts = self._checked(inspect(self._settings))
        self._client.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.__exit__(*_)

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

    def plan(self) -> Plan:
        """Return what there is to do; raise ProgramError when it must not be done."""
        client = self._client
        noted, committed = layouts.read(self._settings, self._counts[ROOM_EVENTS])
        layout = noted or Layout(min(self._counts[ROOM_EVENTS], self._counts[changelog_of(self._settings)]))
        if layout.to is not None and layout.to != self._to:
            msg = f"--to must be {layout.to} until the migration that was begun is finished, got {self._to}"
            raise UsageError(msg)
        ends = client.ends(ROOM_EVENTS, layout.n_partitions)
        begins = client.begins(ROOM_EVENTS, layout.n_partitions)
        n_left = sum(max(0, end - max(committed.get(n, 0), begins[n])) for n, end in ends.items())
        return Plan(layout, self._to, self._counts, n_left)

    def run(self, plan: Plan) -> Result:
        """Do all of it; what a former run did counts."""
        client, n_before = self._client, plan.layout.n_partitions
        client.refuse_members()
        begun = Layout(n_before, self._to, plan.layout.is_copied)
        client.commit(client.next_offsets(n_before), begun)
        client.refuse_members()  # one that joined before the note; one that joins after it reads it and stops
        self._grow([changelog_of(self._settings)])
        states = self._rooms.read()
        n_drained = 0
        if not begun.is_copied:
            self._rooms.refuse_strangers(states, n_before, is_repeated=plan.layout.to is not None)
            n_drained = self._rooms.drain(states, n_before)
            states = self._rooms.read()
            ends = self._rooms.copy(states, n_before, self._counts[ROOM_EVENTS])
            n_late = sum(client.ends(ROOM_EVENTS, n_before).values()) - sum(ends.values())
            if n_late:
                msg = (
                    f"producers must be stopped, got {n_late} records written meanwhile: stop them, then run this again"
                )
                raise ProgramError(msg)
            client.commit(client.next_offsets(n_before), begun._replace(is_copied=True))
            states = self._rooms.read()
        self._rooms.clear(states)
        carry_switches(client, self._counts[OPS_KILL], self._to, lambda: self._grow([OPS_KILL]))
        self._grow([topic for topic in self._counts if topic != ROOM_EVENTS])
        self._grow([ROOM_EVENTS])
        rooms = {number: room_ids(snapshots) for number, snapshots in states.items()}
        at_home = [room for number, ids in rooms.items() for room in ids if partition_of(room, self._to) == number]
        n_moved = sum(partition_of(room, n_before) != partition_of(room, self._to) for room in at_home)
        nexts = {number: snapshots.star.offset + 1 for number, snapshots in states.items()}
        client.commit(nexts, Layout(self._to))
        return Result(n_before, self._to, n_drained, len(at_home), n_moved)

    def _grow(self, topics: Sequence[str]) -> None:
        for topic in topics:
            if self._counts[topic] < self._to:
                self._tell(f"{topic}: {self._counts[topic]} -> {self._to} partitions")
                self._client.grow(topic, self._to)
                self._counts[topic] = self._to
