"""What is sent arrives whole and in order, whatever happens to connections; what is fetched never fills the memory."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka.consumer.fetcher import Fetcher
from faust.types import TP
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from agents import producer as producer_module
from agents import transport as transport_module
from agents.application import make_app
from agents.broker import CLIENT_API_VERSION, DEFAULT_PARTITIONS, EmbeddedBroker
from agents.fetch import fetched
from agents.kafka import Cluster, TopicState
from agents.producer import BATCH_BYTES, Batch, BatchProducer
from agents.sender import Confirmation, Message
from schemas.settings import Settings

pytestmark = pytest.mark.integration
DEADLINE_S = 60.0
HEADERS = [("ce_id", b"1"), ("ce_type", b"test")]


def application(bootstrap: str, app_id: str) -> Any:
    settings = Settings.model_validate(
        {
            "broker": f"kafka://{bootstrap}",
            "kafka": {"app_id": app_id, "session_timeout_s": 6, "rebalance_timeout_s": 3, "heartbeat_interval_s": 1},
        }
    )
    return make_app(settings, Cluster(True, (TopicState("any", "present", DEFAULT_PARTITIONS),)))


@asynccontextmanager
async def producing(bootstrap: str) -> AsyncIterator[BatchProducer]:
    producer = cast(BatchProducer, application(bootstrap, "wire-test").producer)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def read(broker: EmbeddedBroker, topic: str, partition: int) -> list[Any]:
    """Return a partition's records."""
    with closing(
        KafkaConsumer(
            bootstrap_servers=broker.bootstrap,
            api_version=CLIENT_API_VERSION,
            fetch_max_wait_ms=20,
            max_partition_fetch_bytes=8 << 20,
        )
    ) as consumer:
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        end = consumer.end_offsets([place])[place]
        found: list[Any] = []
        while consumer.position(place) < end:
            for batch in consumer.poll(1_000).values():
                found += batch
        return found


async def confirm(confirmations: list[Confirmation]) -> None:
    for confirmation in confirmations:
        await asyncio.wait_for(_wait(confirmation), DEADLINE_S)


async def _wait(confirmation: Confirmation) -> None:
    await confirmation


# -- whole and in order -------------------------------------------------------------------------------------------


def test_more_than_a_batch_to_several_places_keeps_each_places_order(
    broker: EmbeddedBroker, unique_prefix: str
) -> None:
    topics = [f"{unique_prefix}-{name}" for name in "ab"]
    n, calls, value = 40, 60, b"x" * 500
    assert n * calls * len(value) > 2 * BATCH_BYTES

    async def run() -> None:
        async with producing(broker.bootstrap) as producer:
            sent: list[Confirmation] = []
            for call in range(calls):
                for partition in (0, 2):
                    messages: list[Message] = [
                        (topic, b"%d" % (call * n + place), value, HEADERS) for place in range(n) for topic in topics
                    ]
                    sent += await producer.send_many(messages, partition, timestamp_ms=1_000 + call)
                await asyncio.sleep(0)
            assert len(sent) < calls * n, "a confirmation a batch, not a message"
            await confirm(sent)
            assert producer.n_queued_bytes == 0

    asyncio.run(run())
    for topic in topics:
        for partition in (0, 2):
            found = read(broker, topic, partition)
            assert [int(record.key) for record in found] == list(range(n * calls))
            assert [record.timestamp for record in found] == [1_000 + place // n for place in range(n * calls)]
            assert {tuple(record.headers) for record in found} == {tuple(HEADERS)}
            assert {record.value for record in found} == {value}
        assert not read(broker, topic, 1)


def test_a_record_larger_than_a_batch_goes_out_in_its_place(broker: EmbeddedBroker, unique_prefix: str) -> None:
    large = b"y" * (3 << 20)
    values: list[bytes | None] = [b"before", large, b"after", None]
    assert len(large) > BATCH_BYTES

    async def run() -> None:
        async with producing(broker.bootstrap) as producer:
            await confirm(await producer.send_many([(unique_prefix, b"k", value, ()) for value in values], 1))

    asyncio.run(run())
    assert [record.value for record in read(broker, unique_prefix, 1)] == values


# -- a broker that goes away --------------------------------------------------------------------------------------


class Cutter:
    """Passes bytes between clients and a broker, and cuts the connection at every `every`-th request to produce.

    By turns before the request is passed on and after the broker has it: the first loses it, the second its answer.
    The broker's answers tell clients its address; this one's is put in its place, since both have the same length.
    """

    PRODUCE = 0

    def __init__(self, host: str, port: int, every: int) -> None:
        self._broker, self._every = (host, port), every
        self.n_cuts = self._n_produced = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        name = struct.pack(">h", len(host)) + host.encode()
        self._theirs, self._ours = name + struct.pack(">i", port), name + struct.pack(">i", self.port)
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for connection in self._open:
            _close(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            broker = socket.create_connection(self._broker)
            self._open += [client, broker]
            threading.Thread(target=self._pass_requests, args=(client, broker), daemon=True).start()
            threading.Thread(target=self._pass_answers, args=(broker, client), daemon=True).start()

    def _pass_requests(self, client: socket.socket, broker: socket.socket) -> None:
        with suppress(OSError):
            while (frame := _frame(client)) is not None:
                cut = self._cut(frame)
                if cut == "before":
                    break
                if cut == "after":
                    _close(client)  # its answer finds nobody
                broker.sendall(frame)
                if cut == "after":
                    break
        _close(client)
        with suppress(OSError):
            broker.shutdown(socket.SHUT_WR)  # what it has it may still work off

    def _cut(self, frame: bytes) -> str | None:
        if struct.unpack_from(">h", frame, 4)[0] != self.PRODUCE:
            return None
        with self._lock:
            self._n_produced += 1
            if self._n_produced % self._every:
                return None
            self.n_cuts += 1
            return "before" if self.n_cuts % 2 else "after"

    def _pass_answers(self, broker: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while (frame := _frame(broker)) is not None:
                with suppress(OSError):
                    client.sendall(frame.replace(self._theirs, self._ours))
        _close(client)
        _close(broker)


def _frame(source: socket.socket) -> bytes | None:
    head = _exactly(source, 4)
    if head is None:
        return None
    body = _exactly(source, struct.unpack(">i", head)[0])
    return None if body is None else head + body


def _exactly(source: socket.socket, n: int) -> bytes | None:
    received = bytearray()
    while len(received) < n:
        part = source.recv(n - len(received))
        if not part:
            return None
        received += part
    return bytes(received)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def cutting(broker: EmbeddedBroker, every: int) -> Iterator[Cutter]:
    host, _, port = broker.bootstrap.partition(":")
    cutter = Cutter(host, int(port), every)
    try:
        yield cutter
    finally:
        cutter.close()


def test_connections_cut_before_and_after_the_broker_has_a_batch_lose_nothing_and_move_nothing(
    broker: EmbeddedBroker, unique_prefix: str
) -> None:
    n, calls = 20, 60

    async def run(bootstrap: str) -> None:
        async with producing(bootstrap) as producer:
            sent: list[Confirmation] = []
            for call in range(calls):
                messages: list[Message] = [
                    (unique_prefix, b"%d" % (call * n + place), b"x" * 2_000, HEADERS) for place in range(n)
                ]
                sent += await producer.send_many(messages, 0)
                if call % 2:
                    await confirm(sent[-1:])
            await confirm(sent)

    with cutting(broker, every=3) as cutter:
        asyncio.run(run(f"127.0.0.1:{cutter.port}"))
        assert cutter.n_cuts >= 6
    keys = [int(record.key) for record in read(broker, unique_prefix, 0)]
    # The embedded broker writes a batch again whose answer was lost; a real one does not. Either way none overtakes.
    assert list(dict.fromkeys(keys)) == list(range(n * calls))
    assert list(dict.fromkeys(reversed(keys))) == list(reversed(range(n * calls)))


def test_a_broker_that_does_not_answer_is_waited_for(
    unique_prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(producer_module, "ANSWER_TIMEOUT_S", 0.3)
    n = 5

    async def run(broker: EmbeddedBroker) -> None:
        async with producing(broker.bootstrap) as producer:
            await confirm(await producer.send_many([(unique_prefix, b"0", b"", ())], 0))
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                sent: list[Confirmation] = []
                async with asyncio.timeout(DEADLINE_S):
                    number = 1
                    while not any("batch waits" in line.message for line in caplog.records):
                        if number < n:
                            sent += await producer.send_many([(unique_prefix, b"%d" % number, b"", ())], 0)
                            number += 1
                        await asyncio.sleep(0.02)
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            await confirm(sent)

    with EmbeddedBroker() as broker:
        asyncio.run(run(broker))
        keys = [int(record.key) for record in read(broker, unique_prefix, 0)]
    assert list(dict.fromkeys(keys)) == list(range(n))


def test_a_broker_that_is_gone_does_not_keep_a_producer_from_stopping(
    unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer_module, "STOP_TIMEOUT_S", 0.5)

    async def run(broker: EmbeddedBroker) -> None:
        async with asyncio.timeout(DEADLINE_S):
            async with producing(broker.bootstrap) as producer:
                await confirm(await producer.send_many([(unique_prefix, b"k", b"", ())], 0))
                broker.stop()
                (lost,) = await producer.send_many([(unique_prefix, b"k", b"lost", ())], 0)
            with pytest.raises(ConnectionError):
                await lost

    with EmbeddedBroker() as broker:
        asyncio.run(run(broker))


def test_a_waiter_that_gives_up_takes_the_confirmation_from_nobody() -> None:
    async def run() -> None:
        batch = Batch(None)
        hasty, patient = asyncio.ensure_future(_wait(batch)), asyncio.ensure_future(_wait(batch))
        await asyncio.sleep(0)
        hasty.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hasty
        batch.end(None)
        await patient
        await batch

    asyncio.run(run())


def test_too_much_unconfirmed_makes_senders_wait(
    broker: EmbeddedBroker, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, value = 1_000_000, b"z" * 100_000
    monkeypatch.setattr(producer_module, "MAX_QUEUED_BYTES", limit)

    async def run() -> None:
        most = 0
        async with producing(broker.bootstrap) as producer:
            sent: list[Confirmation] = []
            for _ in range(40):
                sent += await producer.send_many([(unique_prefix, b"k", value, ())], 0)
                most = max(most, producer.n_queued_bytes)
            await confirm(sent)
        assert limit < most <= limit + len(value) + 1

    asyncio.run(run())
    assert len(read(broker, unique_prefix, 0)) == 40


def test_a_consumer_whose_fetches_fail_stops_all_the_same(unique_prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run(broker: EmbeddedBroker) -> None:
        app = application(broker.bootstrap, f"{unique_prefix}-app")

        async def nothing(stream: Any) -> None:
            async for _ in stream.noack().events():
                pass

        app.agent(app.topic(unique_prefix, key_type=bytes, value_type=bytes, partitions=DEFAULT_PARTITIONS))(nothing)
        async with asyncio.timeout(DEADLINE_S / 2) as limit:
            await app.start()
            while await _position(app, unique_prefix) is None or not app.consumer.assignment():
                await asyncio.sleep(0.05)
            broker.stop()
            while not any("Failed fetch" in line.message for line in caplog.records):
                await asyncio.sleep(0.05)
            await app.stop()
        assert not limit.expired(), "a stop swallows the timeout's cancellation"
        assert not any("Error while stopping" in line.message for line in caplog.records)

    with EmbeddedBroker() as broker:
        asyncio.run(run(broker))


def test_no_fetch_leaves_out_a_partition_because_its_last_answer_was_not_taken_yet(
    broker: EmbeddedBroker, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One fetch at a time is under way to a broker: one of idle partitions alone is held for its whole wait.
    n_wanted, busy_s = 8, 0.25
    asked: list[set[int]] = []

    async def run() -> None:
        app = application(broker.bootstrap, f"{unique_prefix}-app")
        n_taken = 0

        async def take(stream: Any) -> None:
            nonlocal n_taken
            async for _ in stream.noack().events():
                n_taken += 1

        async def busy(*args: Any) -> Any:
            await asyncio.sleep(busy_s)
            return await fetched(*args)

        async def noted(fetcher: Fetcher, assignment: Any, node_id: int, request: Any) -> Any:
            asked.append({place[0] for _, places in request._topics for place in places})
            return await proceed(fetcher, assignment, node_id, request)

        proceed = Fetcher._proc_fetch_request
        app.agent(app.topic(unique_prefix, key_type=bytes, value_type=bytes, partitions=DEFAULT_PARTITIONS))(take)
        async with asyncio.timeout(DEADLINE_S):
            await app.start()
            while await _position(app, unique_prefix) is None or not app.consumer.assignment():
                await asyncio.sleep(0.05)
            monkeypatch.setattr(transport_module, "fetched", busy)
            monkeypatch.setattr(Fetcher, "_proc_fetch_request", noted)
            while n_taken < n_wanted:
                await confirm(await app.producer.send_many([(unique_prefix, b"k", b"", ())], 0))
                await asyncio.sleep(0.01)
            await app.stop()

    asyncio.run(run())
    assert len(asked) >= n_wanted
    assert all(0 in partitions for partitions in asked), asked


def test_a_partition_that_is_held_keeps_no_other_waiting_and_is_read_from_where_it_is_sought_once_released(
    broker: EmbeddedBroker, unique_prefix: str
) -> None:
    held, other, n_records = TP(unique_prefix, 1), TP(unique_prefix, 0), 40
    taken: dict[int, list[int]] = {0: [], 1: []}

    async def run() -> None:
        app = application(broker.bootstrap, f"{unique_prefix}-app")

        async def take(stream: Any) -> None:
            async for event in stream.noack().events():
                taken[event.message.partition] += [record[0] for record in event.message.records]

        async def send(tp: TP) -> None:
            await confirm(await app.producer.send_many([(tp.topic, b"k", b"", ())], tp.partition))

        app.agent(app.topic(unique_prefix, key_type=bytes, value_type=bytes, partitions=DEFAULT_PARTITIONS))(take)
        async with asyncio.timeout(DEADLINE_S):
            await app.start()
            while await _position(app, unique_prefix) is None or not app.consumer.assignment():
                await asyncio.sleep(0.05)
            # An answer that nobody takes would keep its broker from being asked for longer than this test may take.
            app.consumer._thread._ensure_consumer()._fetcher._prefetch_backoff = 2 * DEADLINE_S
            await send(held)
            await app.consumer.hold({held})
            app.consumer.resume_partitions({held, other})  # as Faust does with all of them
            for _ in range(n_records):
                await send(held)
                await send(other)
            while len(taken[0]) < n_records:
                await asyncio.sleep(0.01)
            n_before = len(taken[1])
            assert n_before <= 1  # what came before it was held
            taken[1].clear()
            await app.consumer.seek_wait({held: 5})
            await app.consumer.release({held})
            while len(taken[1]) < n_records + 1 - 5:
                await asyncio.sleep(0.01)
            await app.stop()

    asyncio.run(run())
    assert taken == {0: list(range(n_records)), 1: list(range(5, n_records + 1))}


# -- memory -------------------------------------------------------------------------------------------------------


def test_a_worker_slower_than_its_topic_reads_all_of_it_and_holds_little_at_a_time(
    broker: EmbeddedBroker, unique_prefix: str
) -> None:
    topic, n_records, value = f"{unique_prefix}-events", 25_000, b"v" * 4_000
    with closing(
        KafkaProducer(
            bootstrap_servers=broker.bootstrap,
            api_version=CLIENT_API_VERSION,
            compression_type="gzip",  # or the embedded broker would forget most of it
            linger_ms=1_000,
            batch_size=800_000,
        )
    ) as filler:
        for number in range(n_records):
            filler.send(topic, value=b"%d" % number + value, partition=number % DEFAULT_PARTITIONS)
        filler.flush()
    n_bytes = n_records * len(value)

    async def run() -> None:
        app = application(broker.bootstrap, f"{unique_prefix}-app")
        source = app.topic(topic, key_type=bytes, value_type=bytes, partitions=DEFAULT_PARTITIONS)
        may_go_on, over = asyncio.Event(), asyncio.Event()
        taken: dict[int, list[int]] = {partition: [] for partition in range(DEFAULT_PARTITIONS)}
        resident: list[int] = []

        async def slow(stream: Any) -> None:
            async for event in stream.noack().events():
                await may_go_on.wait()
                chunk = event.message
                resident.append(_resident_bytes())
                taken[chunk.partition] += [int(content[: -len(value)]) for _, _, content, _ in chunk.records]
                if sum(map(len, taken.values())) == n_records:
                    over.set()

        app.agent(source)(slow)
        before = _resident_bytes()
        async with asyncio.timeout(DEADLINE_S):
            await app.start()
            try:
                # Until it reads no further, though there is more: then everything that can be full is.
                held, before_that = 0, -1
                while not held or held != before_that:
                    await asyncio.sleep(0.5)
                    held, before_that = await _position(app, topic), held
                assert held < n_records
                resident.append(_resident_bytes())
                may_go_on.set()
                await over.wait()
            finally:
                await app.stop()
        assert taken == {place: list(range(place, n_records, DEFAULT_PARTITIONS)) for place in taken}
        assert max(resident) - before < n_bytes * 0.4

    asyncio.run(run())


async def _position(app: Any, topic: str) -> int:
    """Return how many records the consumer has read."""
    places = [tp for tp in app.consumer.assignment() if tp.topic == topic]
    return sum([await app.consumer.position(tp) or 0 for tp in places])


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
