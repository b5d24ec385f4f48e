"""What is on its way from one partition: counted in messages, waited for batch by batch, the oldest first."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from types import SimpleNamespace
from typing import Any, cast

from agents.sender import Confirmation, Message
from agents.shard import MAX_UNCONFIRMED, EngineLike, Records, Shard

A_CHUNK = 100


class Batch:
    """A confirmation that says when it was waited for."""

    def __init__(self) -> None:
        self.is_awaited, self.is_done = False, asyncio.Event()

    def __await__(self) -> Generator[Any, None, None]:
        self.is_awaited = True
        yield from self.is_done.wait().__await__()


class Chatty:
    """Says one message a record."""

    def process(self, records: Records) -> list[Any]:
        return [SimpleNamespace(topic="room.signals", key="room", json=lambda: b"{}") for _ in records]


def test_calls_that_share_a_batch_wait_for_it_once_and_too_many_messages_for_the_oldest_batch_alone() -> None:
    async def story() -> None:
        shard = Shard(0, cast(EngineLike, Chatty()), 1.0)
        batches: list[Batch] = []
        n_calls = 0

        async def send_many(messages: Sequence[Message], partition: int) -> list[Confirmation]:
            nonlocal n_calls
            if n_calls % 10 == 0:  # a batch takes ten calls; the call that fills it goes on in the next one
                batches.append(Batch())
            n_calls += 1
            return list(batches[-2:] if n_calls % 10 == 1 else batches[-1:])

        def records(call: int) -> Records:
            return [(offset, None, b"", b"room") for offset in range(call * A_CHUNK, (call + 1) * A_CHUNK)]

        for call in range(MAX_UNCONFIRMED // A_CHUNK):
            await shard.apply(records(call), send_many)
        assert not any(batch.is_awaited for batch in batches)
        more = asyncio.create_task(shard.apply(records(n_calls), send_many))
        while not batches[0].is_awaited:
            await asyncio.sleep(0)
        assert not more.done()
        batches[0].is_done.set()
        await more
        assert not any(batch.is_awaited for batch in batches[1:])
        assert shard.take_unconfirmed() == batches[1:]
        assert shard.take_unconfirmed() == []

    asyncio.run(asyncio.wait_for(story(), 30))
