"""This worker as a member of the consumer group: what it may commit, what was committed, whether it still belongs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from faust.types import TP

from agents.transport import ChunkConsumer
from schemas.topics import ROOM_EVENTS


class Membership:
    """The group as `agents.rooms` and `agents.assignment` ask it, through the consumer of Faust's application."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._generation = -1

    @property
    def consumer(self) -> ChunkConsumer:
        """The application's consumer, which it makes when it starts."""
        consumer = self._app.consumer
        if not isinstance(consumer, ChunkConsumer):
            msg = f"transport must be ours, got {type(consumer).__name__}"
            raise TypeError(msg)
        return consumer

    @property
    def generation(self) -> int:
        """The group's generation that this worker is a member of."""
        return self._generation

    def joined(self, generation: int) -> None:
        """Note the group's new generation: no commit of a former one says anything from now on."""
        self._generation = generation
        self.consumer.confirmed_commits.clear()

    def acknowledge(self, partition: int, offset: int) -> None:
        """Let the next commit of a room partition stand after `offset`."""
        self.consumer.acknowledge(TP(ROOM_EVENTS, partition), offset)

    def committed(self, partition: int) -> int:
        """Return the last offset covered by a commit of this generation; -1 without one."""
        return self.consumer.confirmed_commits.get(TP(ROOM_EVENTS, partition), 0) - 1

    async def still_here(self) -> bool:
        """Ask the group whether this worker is a member of its current generation."""
        return await self.consumer.still_here()

    def assigned(self, topics: Iterable[str]) -> list[TP]:
        """Return what this worker was assigned of these topics."""
        return [tp for tp in self._app.consumer.assignment() if tp.topic in topics]

    async def commit(self) -> None:
        """Commit all that was acknowledged by now."""
        if not await self._app.consumer.commit():  # it waited for one under way, which knew less
            await self._app.consumer.commit()
