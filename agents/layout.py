"""How many partitions a deployment's rooms are spread over, noted where every worker looks and nobody else writes.

The number is the note of the group's own commits of `room.events` (Kafka keeps some text with each): it is as durable
as the commits, only a member of the group or, while there is none, `roompulse migrate` can write it, and reading it
costs one look. So topics that grew behind the workers' back are noticed, and so is a migration that was not finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Final, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from kafka import KafkaConsumer, TopicPartition

from agents.errors import ProgramError
from agents.kafka import bootstrap, connect
from schemas.settings import Settings
from schemas.topics import ROOM_EVENTS

COPIED: Final = "copied"


class Layout(NamedTuple):
    """Over how many partitions rooms are spread, and to how many they are on their way.

    `is_copied`: every room is where it belongs among the new ones; what is elsewhere is left over.

    >>> Layout.read(Layout(4, 6, is_copied=True).note())
    Layout(n_partitions=4, to=6, is_copied=True)
    >>> Layout.read("somebody else's")
    """

    n_partitions: int
    to: int | None = None
    is_copied: bool = False

    def note(self) -> str:
        """Return the note of a commit."""
        words = [f"partitions={self.n_partitions}"]
        if self.to is not None:
            words += [f"to={self.to}", *([COPIED] if self.is_copied else [])]
        return " ".join(words)

    @classmethod
    def read(cls, note: str | None) -> Layout | None:
        """Return what a commit's note says; None for one of an earlier version or of another program."""
        words = (note or "").split()
        numbers = {name: number for name, _, number in (word.partition("=") for word in words) if number.isdecimal()}
        if "partitions" not in numbers:
            return None
        to = numbers.get("to")
        return cls(int(numbers["partitions"]), None if to is None else int(to), COPIED in words)


class LayoutError(ProgramError):
    """The topics have other partitions than the rooms are spread over: nothing may be read before they are moved."""


def newest(notes: Iterable[str | None]) -> Layout | None:
    """Return what a group's commits say together: a migration under way before anything else; None without a word."""
    found = [layout for note in notes if (layout := Layout.read(note)) is not None]
    moving = [layout for layout in found if layout.to is not None]
    return min(moving or found, default=None)


def check(layout: Layout | None, counts: Mapping[str, int]) -> None:
    """Raise LayoutError unless a worker may go on with topics of so many partitions."""
    if layout is not None and layout.to is not None:
        msg = (
            f"rooms must be in their partitions, got a migration from {layout.n_partitions} to {layout.to} partitions "
            f"that was not finished: run roompulse migrate --to {layout.to}"
        )
        raise LayoutError(msg)
    n_partitions = layout.n_partitions if layout is not None else min(counts.values())
    odd = {topic: count for topic, count in counts.items() if count != n_partitions}
    if odd:
        got = ", ".join(f"{topic} {count}" for topic, count in odd.items())
        fewest = f"run roompulse migrate --to {max(odd.values())} with all workers stopped"
        if max(odd.values()) < n_partitions:
            fewest = "the topics were made anew; set another ROOMPULSE_KAFKA__APP_ID"
        msg = f"topics must have the {n_partitions} partitions that the rooms are spread over, got {got}: {fewest}"
        raise LayoutError(msg)


def read(settings: Settings, n_partitions: int) -> tuple[Layout | None, dict[int, int]]:
    """Return what the group's commits say, and the offset each partition of `room.events` would be read on from."""
    group = settings.kafka.app_id
    with closing(connect(KafkaConsumer, bootstrap(settings), group_id=group, enable_auto_commit=False)) as consumer:
        found = {
            number: consumer.committed(TopicPartition(ROOM_EVENTS, number), metadata=True)
            for number in range(n_partitions)
        }
    commits = {number: commit for number, commit in found.items() if commit is not None and commit.offset >= 0}
    return (
        newest(commit.metadata for commit in commits.values()),
        {number: commit.offset for number, commit in commits.items()},
    )


async def partition_counts(servers: Iterable[str], topics: Iterable[str]) -> dict[str, int]:
    """Return how many partitions topics have now; one that is not there has none and is left out."""
    admin = AIOKafkaAdminClient(bootstrap_servers=list(servers), client_id="roompulse-layout")
    await admin.start()
    try:
        described = await admin.describe_topics(list(topics))
    finally:
        await admin.close()
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["partitions"]}
