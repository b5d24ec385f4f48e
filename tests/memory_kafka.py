"""Kafka in memory, one partition of everything, with what exactness rests on and every way to be interrupted.

Order: what one client queues for a topic arrives in that order, and a crash lets any beginning of it arrive.
Compaction: the last record of a key stays, wherever its state ranks. Fencing: a commit is taken from a member of the
group's current generation alone. Each thing a worker does is a step; at one of them it may crash, or stop there until
somebody lets it go on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator, Sequence
from random import Random
from typing import Any, NamedTuple

from agents.sender import Confirmation, Message
from agents.shard import Records
from agents.snapshots import Snapshots, pack, tombstone_headers


class CrashError(BaseException):
    """The worker process ends here: nothing of it may catch this."""


class Record(NamedTuple):
    """One record of the changelog."""

    offset: int
    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Broker:
    """What is durable."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.messages: list[tuple[str, bytes, bytes]] = []
        self.changelog: list[Record] = []
        self.changelog_end = 0
        self.committed = -1
        self.generation = 0

    def append(self, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> None:
        self.changelog.append(Record(self.changelog_end, key, value, headers))
        self.changelog_end += 1

    def compact(self) -> None:
        """Keep the last record of each key, as a cleaner does that has all the time it needs."""
        last = {record.key: record for record in self.changelog}
        self.changelog = sorted(record for record in last.values() if record.value is not None)

    def read(self) -> Snapshots:
        snapshots = Snapshots()
        snapshots.take(self.changelog)
        return snapshots

    def join(self) -> int:
        """Begin a new generation: whoever was a member before is none now."""
        self.generation += 1
        return self.generation


class _Queued:
    """What to wait for after sending; not waiting is no error."""

    def __init__(self, client: Client, topic: str, number: int) -> None:
        self._client, self._topic, self._number = client, topic, number

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._client.confirm(self._topic, self._number).__await__()


class Client:
    """One process's connection: `send`, `snapshots` and `group` of its `Rooms`."""

    def __init__(
        self, broker: Broker, random: Random, *, crash_at: int | None = None, stop_at: int | None = None
    ) -> None:
        self.broker, self.random = broker, random
        self.crash_at, self.stop_at = crash_at, stop_at
        self.stopped, self.may_go_on = asyncio.Event(), asyncio.Event()
        self.generation = broker.join()
        self.steps = Counter[str]()
        self._queues: dict[str, list[tuple[int, Any]]] = {}
        self._n_queued = 0
        self._acknowledged: int | None = None
        self._committed = -1
        self._expected_end = 0

    @property
    def n_steps(self) -> int:
        return self.steps.total()

    async def step(self, name: str) -> None:
        self._count(name)
        if self.stop_at is not None and self.n_steps >= self.stop_at and not self.stopped.is_set():
            self.stopped.set()
            await self.may_go_on.wait()

    def _count(self, name: str) -> None:
        self.steps[name] += 1
        if self.n_steps == self.crash_at:
            for topic in list(self._queues):
                self._arrive(topic, self.random.randrange(len(self._queues[topic]) + 1))
            raise CrashError(name)

    # -- sending ----------------------------------------------------------------------------------------------

    async def _queue(self, topic: str, record: Any) -> Confirmation:
        await self.step(f"send {topic}")
        number = self._n_queued
        self._n_queued += 1
        self._queues.setdefault(topic, []).append((number, record))
        if self.random.random() < 0.3:  # a producer sends when it likes
            self._arrive(topic, 1)
        return _Queued(self, topic, number)

    def _arrive(self, topic: str, n_records: int) -> None:
        queue = self._queues[topic]
        for _, record in queue[:n_records]:
            if topic == "changelog":
                self.broker.append(*record)
                self._expected_end += 1
            else:
                self.broker.messages.append((topic, *record))
        del queue[:n_records]

    async def confirm(self, topic: str, number: int) -> None:
        await self.step(f"confirm {topic}")
        queue = self._queues[topic]
        self._arrive(topic, sum(one <= number for one, _ in queue))

    async def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int, **_: Any) -> Confirmation:
        assert partition == 0
        return await self._queue(topic, (key or b"", value or b""))

    async def send_many(self, messages: Sequence[Message], partition: int) -> list[Confirmation]:
        return [await self.send(topic, key, value, partition) for topic, key, value, _ in messages]

    async def write(self, partition: int, key: str, snapshot: bytes | None, *, reign: int, offset: int) -> Confirmation:
        assert partition == 0
        if snapshot is None:
            return await self._queue("changelog", (key.encode(), None, tombstone_headers(reign)))
        return await self._queue("changelog", (key.encode(), pack(reign, offset, snapshot), ()))

    # -- the changelog and the group --------------------------------------------------------------------------

    async def load(self) -> Snapshots:
        await self.step("load")
        self._expected_end = self.broker.changelog_end
        return self.broker.read()

    async def is_ours(self, partition: int) -> bool:
        assert partition == 0
        await self.step("is ours")
        return self._expected_end == self.broker.changelog_end

    def acknowledge(self, partition: int, offset: int) -> None:
        assert partition == 0
        self._count("acknowledge")
        self._acknowledged = offset

    async def commit(self) -> None:
        await self.step("before commit")
        if self._acknowledged is None:
            return
        if self.generation == self.broker.generation:
            self.broker.committed = self._committed = self._acknowledged
        self._acknowledged = None
        await self.step("after commit")

    def forget_commits(self) -> None:
        """Begin a new generation knowing of no commit in it."""
        self._committed = -1

    def committed(self, partition: int) -> int:
        assert partition == 0
        return self._committed

    async def still_here(self) -> bool:
        return self.generation == self.broker.generation
