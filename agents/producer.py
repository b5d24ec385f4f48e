"""Sending in batches: a record is written into its partition's batch at once, and a batch is what goes out.

aiokafka's own `send` makes a future, a queue's entry and a chain of calls of every record. Here a batch has one of
each: it goes out when the event loop comes to it, so after all that is sent in one go, or once it is full.

Order and loss: a partition's batches go out one at a time, in the order in which their records came, and the producer
is idempotent. So a batch that is sent again after a lost answer overtakes none, and is in the log once (an embedded
broker does not look for repeats). After an error that ends a batch for good, brokers take none behind it: its sequence
is missing. A broker that is away is waited for, however long that takes.

Nothing is compressed here: aiokafka's codecs take 5 to 40 us a message. A topic's `compression.type` lets the broker
do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from typing import Any, Final

from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError
from faust.transport.drivers import aiokafka as driver

from agents.logs import facts
from agents.sender import Confirmation, Headers, Message

log = logging.getLogger(__name__)

BATCH_BYTES: Final = 512 * 1024
"""A batch is full here, unless its one record is larger: half of what a broker takes by default."""
MAX_QUEUED_BYTES: Final = 32 * 1024 * 1024
"""Keys and values not yet confirmed before whoever sends has to wait."""
LEADER_TIMEOUT_S: Final = 6.0
"""How long the leader may wait for its followers before it says so."""
ANSWER_TIMEOUT_S: Final = 8.0
"""How long a broker may be silent before the leader is asked for again, and the request sent again."""
STOP_TIMEOUT_S: Final = 10.0
"""How long a stop waits for a broker that does not answer; what it did not confirm was never acknowledged."""

_STOPPED: Final = "stopped before the broker confirmed"


class Batch:
    """Records on their way to one partition; awaiting it is their confirmation.

    Many may wait for it, and one that is cancelled takes it from nobody.
    """

    __slots__ = ("_done", "builder", "n_bytes")

    def __init__(self, builder: Any) -> None:
        self.builder, self.n_bytes = builder, 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, None]:
        if not self._done.done():
            yield from asyncio.shield(self._done).__await__()
        self._done.result()

    def end(self, error: BaseException | None) -> None:
        """Tell those who wait; whoever asks later needs the answer alone, not what was sent."""
        self.builder = None
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)
            self._done.exception()  # that nobody may have waited for it is no error of its own


class BatchProducer(driver.Producer):
    """Faust's producer, with `send_many` beside `send`; both keep their own order, not each other's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._outboxes: dict[tuple[str, int], _Outbox] = {}
        self.n_queued_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    def _settings_default(self) -> Mapping[str, Any]:
        return {
            **super()._settings_default(),
            "acks": "all",
            "enable_idempotence": True,
            "max_batch_size": BATCH_BYTES,
            "request_timeout_ms": int(ANSWER_TIMEOUT_S * 1_000),
        }

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        producer = super()._new_producer(transactional_id)
        producer._sender._request_timeout_ms = int(min(LEADER_TIMEOUT_S, ANSWER_TIMEOUT_S) * 1_000)
        return producer

    async def send_many(
        self, messages: Iterable[Message], partition: int, *, timestamp_ms: int | None = None
    ) -> list[Confirmation]:
        """Queue records for one partition of their topics and return what to wait for, each batch once.

        It waits itself only while too much is unconfirmed. Records of a topic keep their order, also between calls.
        """
        if not self._has_room.is_set():
            await self._has_room.wait()
        outboxes = self._outboxes
        batches: dict[Batch, None] = {}
        for topic, key, value, headers in messages:
            outbox = outboxes.get((topic, partition))
            if outbox is None:
                outbox = outboxes[topic, partition] = _Outbox(self, topic, partition)
            batches[outbox.add(key, value, headers, timestamp_ms)] = None
        if self.n_queued_bytes > MAX_QUEUED_BYTES:
            self._has_room.clear()
        return list(batches)

    async def flush(self) -> None:
        """Return once all that was queued is confirmed or failed."""
        await asyncio.gather(*(outbox.flush() for outbox in self._outboxes.values()))
        await super().flush()

    async def on_stop(self) -> None:
        """Wait for what is on its way, but not for ever."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.flush()
        except TimeoutError:
            log.warning("stopped with messages unconfirmed", extra=facts(n_bytes=self.n_queued_bytes))
            for outbox in self._outboxes.values():
                outbox.cancel()
            if self._producer is not None:
                await self._give_up(self._producer)
        await super().on_stop()

    async def _give_up(self, producer: Any) -> None:
        """Let go of what aiokafka would wait for without an end: first what sends it, then the batches."""
        producer._sender.sender_task.cancel()
        await asyncio.wait([producer._sender.sender_task])
        producer._message_accumulator.fail_all(ConnectionError(_STOPPED))

    def confirmed(self, n_bytes: int) -> None:
        """Note that so much less is on its way."""
        self.n_queued_bytes -= n_bytes
        if self.n_queued_bytes <= MAX_QUEUED_BYTES:
            self._has_room.set()


class _Outbox:
    """Batches for one partition, oldest first; records join the last one until it goes out."""

    __slots__ = ("_open", "_partition", "_producer", "_pump", "_topic", "_unconfirmed", "_waiting")

    def __init__(self, producer: BatchProducer, topic: str, partition: int) -> None:
        self._producer, self._topic, self._partition = producer, topic, partition
        self._waiting: deque[Batch] = deque()
        self._unconfirmed: set[Batch] = set()
        self._open: Batch | None = None
        self._pump: asyncio.Task[None] | None = None

    def add(self, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int | None) -> Batch:
        """Write a record into the open batch, or a new one when it is full."""
        batch = self._open
        fields = headers if isinstance(headers, list) else list(headers)
        if batch is None or not batch.builder.append(timestamp=timestamp_ms, key=key, value=value, headers=fields):
            batch = self._open = Batch(self._producer._ensure_producer().create_batch())
            batch.builder.append(timestamp=timestamp_ms, key=key, value=value, headers=fields)
            self._waiting.append(batch)
            self._unconfirmed.add(batch)
            if self._pump is None:
                self._pump = asyncio.get_running_loop().create_task(self._send_all())
        n_bytes = len(key or b"") + len(value or b"")
        batch.n_bytes += n_bytes
        self._producer.n_queued_bytes += n_bytes
        return batch

    async def flush(self) -> None:
        """Return once what is on its way now has arrived; what is sent meanwhile is not waited for."""
        for batch in list(self._unconfirmed):
            with contextlib.suppress(Exception):  # told to those who wait for that batch
                await batch

    def cancel(self) -> None:
        """Give up what is not confirmed."""
        self._open = None
        if self._pump is not None:
            self._pump.cancel()
        for batch in list(self._unconfirmed):
            self._end(batch, ConnectionError(_STOPPED))

    async def _send_all(self) -> None:
        """Hand over one batch after the other, each as soon as the one before it has left."""
        try:
            while self._waiting:
                batch = self._waiting[0]
                future = await self._hand_over(batch)
                self._waiting.popleft()
                if self._open is batch:  # still open until here: the longer the wait, the fuller the batch
                    self._open = None
                future.add_done_callback(partial(self._end_as, batch))
        except Exception as error:  # what is queued behind must not go out without what could not
            self._open = None
            while self._waiting:
                self._end(self._waiting.popleft(), error)
        finally:
            self._pump = None

    async def _hand_over(self, batch: Batch) -> asyncio.Future[Any]:
        while True:
            try:
                future: asyncio.Future[Any] = await self._producer._ensure_producer().send_batch(
                    batch.builder, self._topic, partition=self._partition
                )
            except (KafkaTimeoutError, UnknownTopicOrPartitionError) as error:  # nothing of it was handed over yet
                why = type(error).__name__
                log.warning("batch waits", extra=facts(topic=self._topic, partition=self._partition, error=why))
            else:
                return future

    def _end_as(self, batch: Batch, future: asyncio.Future[Any]) -> None:
        self._end(batch, ConnectionError(_STOPPED) if future.cancelled() else future.exception())

    def _end(self, batch: Batch, error: BaseException | None) -> None:
        if batch in self._unconfirmed:
            self._unconfirmed.remove(batch)
            self._producer.confirmed(batch.n_bytes)
            batch.end(error)
