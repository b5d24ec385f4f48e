"""What Kafka costs an event: fetching, decoding, sending and recovering as a worker does it, without its engine.

Every measurement is a process of its own with a real Faust application and this project's transport; the broker is
another process. All times are such a process's own processor time, both of its threads, so waiting for the broker
costs nothing. The rivals of the same run are aiokafka's own ways over the same bytes: `getmany`, and one `send` a
message.

The embedded broker keeps the last 5 MB a partition, so the log is filled once and read again and again. A real broker
(`--broker`) must have the topics, with four partitions each, or make them by being asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import Any, Final, cast

import aiokafka
import orjson
from faust.types import TP
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from agents.application import make_app
from agents.broker import CLIENT_API_VERSION, DEFAULT_PARTITIONS, EmbeddedBroker
from agents.changelog import Changelog
from agents.fetch import LogRecord
from agents.kafka import Cluster, TopicState
from agents.producer import BatchProducer
from agents.sender import Confirmation, cloud_event
from agents.snapshots import pack
from agents.transport import EMBEDDED_FETCH_WAIT_MS, FETCH_WAIT_MS
from benchmarks.bench_stages import machine
from benchmarks.workloads import Workload
from schemas.decode import decode
from schemas.settings import Settings

LOG: Final = "bench-wire-events"
OUT: Final = "bench-wire-signals"
APP_ID: Final = "bench-wire"
CHANGELOG: Final = f"{APP_ID}-rooms-changelog"
N_ROOMS: Final = 500
N_LOG: Final = 60_000
"""Events in the log: what the embedded broker keeps of it, and a little less."""
SIGNAL_BYTES: Final = 1_300
OUTPUTS_A_CHUNK: Final = 200
MAX_UNCONFIRMED: Final = 5_000
SNAPSHOT_BYTES: Final = 20_000
SETTINGS: Final = {"kafka": {"app_id": APP_ID, "session_timeout_s": 6, "rebalance_timeout_s": 3}}
PLACES: Final = [TP(LOG, partition) for partition in range(DEFAULT_PARTITIONS)]

Found = dict[str, float]


# -- what is there to read ----------------------------------------------------------------------------------------


def fill(broker: str, embedded: bool, n_snapshots: int, seed: int) -> None:
    """Write the log and the changelog that the measurements read."""
    options = {"api_version": CLIENT_API_VERSION} if embedded else {}
    with closing(
        KafkaProducer(
            bootstrap_servers=broker, linger_ms=2_000, batch_size=800_000, max_request_size=2_000_000, **options
        )
    ) as producer:
        for number, record in enumerate(Workload(N_ROOMS, seed).take(N_LOG)):
            _, _, value, *key = record
            # Stamped by now: a real broker soon forgets what is as old as the load's own time.
            producer.send(LOG, key=key[0], value=value, partition=number % DEFAULT_PARTITIONS)
        producer.flush()
    # Compressed, or the embedded broker would keep a thousand of them.
    with closing(
        KafkaProducer(
            bootstrap_servers=broker,
            linger_ms=2_000,
            batch_size=800_000,
            max_request_size=2_000_000,
            compression_type="gzip",
            **options,
        )
    ) as producer:
        for number in range(n_snapshots):
            value = pack(1, number, _snapshot(number))
            partition = number % DEFAULT_PARTITIONS
            producer.send(CHANGELOG, key=f"room-{number:06d}".encode(), value=value, partition=partition)
        producer.flush()


def _snapshot(number: int) -> bytes:
    text = f'{{"room":{number},"buckets":[' + "17672256000,12,0,4,"[: 12 + number % 7] * 2_000
    return text.encode()[:SNAPSHOT_BYTES]


# -- as a worker does it ------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(
    broker: str,
    embedded: bool,
    agent: Callable[[Any], Awaitable[None]],
) -> AsyncIterator[Any]:
    """Run a Faust application as a worker has it, with one agent that is handed chunks."""
    settings = Settings.model_validate({**SETTINGS, "broker": f"kafka://{broker}"})
    app = make_app(settings, Cluster(embedded, (TopicState(LOG, "present", DEFAULT_PARTITIONS),)))
    recovered = asyncio.Event()
    app.on_rebalance_complete.connect(_setter(recovered), weak=False)

    async def each(stream: Any) -> None:
        async for event in stream.noack().events():
            await agent(event.message)

    app.agent(app.topic(LOG, key_type=bytes, value_type=bytes, partitions=DEFAULT_PARTITIONS))(each)
    await app.start()
    try:
        await asyncio.wait_for(recovered.wait(), 120)
        yield app
    finally:
        await app.stop()


def _setter(event: asyncio.Event) -> Callable[..., Awaitable[None]]:
    async def handler(*_: Any, **__: Any) -> None:
        event.set()

    return handler


async def fetch(broker: str, embedded: bool, n: int, look: Callable[[list[LogRecord]], object]) -> Found:
    """Return the cost of reading `n` records, each chunk of them given to `look`."""
    ends = _ends(broker, embedded)
    arrived = asyncio.Event()
    left: set[TP] = set()
    n_seen = n_chunks = 0

    async def take(chunk: Any) -> None:
        nonlocal n_seen, n_chunks
        look(chunk.records)
        n_seen += len(chunk.records)
        n_chunks += 1
        if chunk.offset >= ends[chunk.tp][1] - 1:
            left.discard(chunk.tp)
            if not left:
                arrived.set()

    async with running(broker, embedded, take) as app:
        costs: list[float] = []
        rates: list[float] = []
        while n_seen < n or not costs:
            left.update(PLACES)
            arrived.clear()
            before, begin, begin_s = n_seen, time.process_time_ns(), time.monotonic()
            await app.consumer.seek_wait({tp: ends[tp][0] for tp in PLACES})
            await asyncio.wait_for(arrived.wait(), 60)
            costs.append((time.process_time_ns() - begin) / (n_seen - before) / 1_000)
            rates.append((n_seen - before) / (time.monotonic() - begin_s))
    found = {"us": statistics.median(costs[1:] or costs), "records_a_chunk": n_seen / n_chunks}
    return found | {"records_per_s": statistics.median(rates)}


async def fetch_plainly(broker: str, embedded: bool, n: int) -> Found:
    """Return the cost of reading `n` records with aiokafka alone, in the main thread, as tuples for an engine."""
    ends = _ends(broker, embedded)
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=broker, enable_auto_commit=False, fetch_max_wait_ms=40, max_partition_fetch_bytes=1 << 20
    )
    await consumer.start()
    try:
        consumer.assign([aiokafka.TopicPartition(*tp) for tp in PLACES])
        costs: list[float] = []
        n_seen = 0
        while n_seen < n or not costs:
            before, begin, left = n_seen, time.process_time_ns(), set(PLACES)
            for tp in PLACES:
                consumer.seek(aiokafka.TopicPartition(*tp), ends[tp][0])
            while left:
                for tp, batch in (await consumer.getmany(timeout_ms=1_000)).items():
                    for at in range(0, len(batch), 2_000):
                        part = batch[at : at + 2_000]
                        records = [(r.offset, r.timestamp, r.value or b"", r.key) for r in part]
                        n_seen += len(records)
                    if batch[-1].offset >= ends[TP(*tp)][1] - 1:
                        left.discard(TP(*tp))
            costs.append((time.process_time_ns() - begin) / (n_seen - before) / 1_000)
    finally:
        await consumer.stop()
    return {"us": statistics.median(costs[1:] or costs)}


def _ends(broker: str, embedded: bool) -> dict[TP, tuple[int, int]]:
    options = {"api_version": CLIENT_API_VERSION} if embedded else {}
    with closing(KafkaConsumer(bootstrap_servers=broker, **options)) as consumer:
        places = [TopicPartition(*tp) for tp in PLACES]
        begins, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
        return {TP(*place): (begins[place], ends[place]) for place in places}


async def send(broker: str, embedded: bool, n: int, seed: int, *, in_batches: bool) -> Found:
    """Return the cost of sending `n` outputs with their headers, by the worker's way or by one `send` each."""
    settings = Settings.model_validate({**SETTINGS, "broker": f"kafka://{broker}"})
    app = make_app(settings, Cluster(embedded, (TopicState(LOG, "present", DEFAULT_PARTITIONS),)))
    producer = cast(BatchProducer, app.producer)
    outputs = _signals(seed)
    await producer.start()
    try:
        await _send(producer, outputs, MAX_UNCONFIRMED, in_batches=in_batches)  # metadata, connections
        costs = []
        for _ in range(5):
            begin = time.process_time_ns()
            await _send(producer, outputs, n // 5, in_batches=in_batches)
            costs.append((time.process_time_ns() - begin) / (n // 5) / 1_000)
    finally:
        await producer.stop()
    return {"us": statistics.median(costs)}


def _signals(seed: int) -> list[tuple[bytes, bytes]]:
    """Return a message of each room, as long and as varied as a room's signals are."""
    random = Random(seed)
    found = []
    for number in range(N_ROOMS):
        room, names = f"room-{number:06d}", ("n_enters", "n_comments", "gmv_minor", "spend_minor", "ctr", "ivt_ratio")
        windows: dict[str, Any] = {}
        while len(value := orjson.dumps({"room_id": room, "windows": windows})) < SIGNAL_BYTES:
            windows[str(60 * (len(windows) + 1))] = {name: random.randrange(10**6) for name in names}
        found.append((room.encode(), value))
    return found


async def _send(producer: BatchProducer, signals: Sequence[tuple[bytes, bytes]], n: int, *, in_batches: bool) -> None:
    unconfirmed: list[Confirmation] = []
    n_since = 0
    for at in range(0, n, OUTPUTS_A_CHUNK):
        partition = at // OUTPUTS_A_CHUNK % DEFAULT_PARTITIONS
        outputs = [signals[(at + place) % N_ROOMS] for place in range(OUTPUTS_A_CHUNK)]
        if in_batches:
            messages = [(OUT, key, value, cloud_event(OUT, partition, value)) for key, value in outputs]
            unconfirmed += await producer.send_many(messages, partition)
        else:
            for key, value in outputs:
                headers = list(cloud_event(OUT, partition, value))
                unconfirmed.append(await producer.send(OUT, key, value, partition, None, headers))
        n_since += OUTPUTS_A_CHUNK
        if n_since > MAX_UNCONFIRMED:
            n_since = 0
            await _confirm(unconfirmed)
            unconfirmed = []
        await asyncio.sleep(0)  # as between two chunks
    await _confirm(unconfirmed)


async def _confirm(confirmations: Iterable[Confirmation]) -> None:
    for confirmation in confirmations:
        await confirmation


async def recover(broker: str, embedded: bool, n: int) -> Found:
    """Return the cost of having `n` snapshots in memory again, as a worker reads them before its partitions begin."""
    begin, begin_s = time.process_time(), time.monotonic()
    changelog = Changelog([broker], CHANGELOG, fetch_wait_ms=EMBEDDED_FETCH_WAIT_MS if embedded else FETCH_WAIT_MS)
    try:
        read = await changelog.load(range(DEFAULT_PARTITIONS))
        contents = [content for snapshots in read.values() for content in snapshots.contents().values()]
        found = {
            "s": time.monotonic() - begin_s,
            "cpu_s": time.process_time() - begin,
            "snapshots": float(len(contents)),
            "megabytes": sum(map(len, contents)) / 1e6,
        }
    finally:
        await changelog.stop()
    if found["snapshots"] != n:
        msg = f"changelog must bring back {n} snapshots, got {found['snapshots']:.0f}: the broker kept no more"
        raise SystemExit(msg)
    return found


def _decode_all(records: list[LogRecord]) -> None:
    for _, timestamp, value, _ in records:
        decode(value, timestamp_ms=timestamp)


MEASUREMENTS: Final[dict[str, Callable[[argparse.Namespace], Any]]] = {
    "fetch": lambda given: fetch(given.broker, given.embedded, given.events, len),
    "fetch, decode": lambda given: fetch(given.broker, given.embedded, given.events, _decode_all),
    "fetch by aiokafka": lambda given: fetch_plainly(given.broker, given.embedded, given.events),
    "send": lambda given: send(given.broker, given.embedded, given.outputs, given.seed, in_batches=True),
    "send by aiokafka": lambda given: send(given.broker, given.embedded, given.outputs, given.seed, in_batches=False),
    "recover": lambda given: recover(given.broker, given.embedded, given.snapshots),
}


def measure(given: argparse.Namespace) -> dict[str, Found]:
    """Return what each measurement found, each in a process of its own."""
    found = {}
    for name in given.only or MEASUREMENTS:
        command = [sys.executable, "-m", "benchmarks.bench_wire", "--child", name, "--broker", given.broker]
        sizes = ("events", "outputs", "snapshots", "seed")
        command += [part for size in sizes for part in (f"--{size}", str(getattr(given, size)))]
        if given.embedded:
            command.append("--embedded")
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600).stdout
        found[name] = orjson.loads(answer)
    return found


def table(found: dict[str, Found]) -> str:
    """Return the result for people: a table of Markdown."""
    lines = ["| what | µs of processor time each | besides |", "|---|---:|---|"]
    for name, values in found.items():
        rest = ", ".join(f"{key} {value:,.1f}" for key, value in values.items() if key != "us")
        us = f"{values['us']:.2f}" if "us" in values else ""
        lines.append(f"| {name} | {us} | {rest} |")
    return "\n".join(lines)


def _peak_mib() -> float:
    """Return what this process held at most; `getrusage` would tell of its parent's before it was started."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) / 1_024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> None:
    """Read the arguments, fill a broker, measure, print."""
    parser = argparse.ArgumentParser(description="What Kafka costs an event.")
    parser.add_argument("--events", type=int, default=500_000, help="records to fetch")
    parser.add_argument("--outputs", type=int, default=50_000, help="messages to send")
    parser.add_argument("--snapshots", type=int, default=20_000, help=f"of {SNAPSHOT_BYTES} bytes, to recover")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", help="host:port of a real one; without it an embedded one is started")
    parser.add_argument("--only", action="append", choices=list(MEASUREMENTS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=list(MEASUREMENTS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if min(given.events, given.outputs, given.snapshots) < 1:
        parser.error("--events, --outputs and --snapshots must be at least 1")
    if given.child:
        found = asyncio.run(MEASUREMENTS[given.child](given))
        found["peak_mib"] = _peak_mib()
        sys.stdout.write(orjson.dumps(found).decode())
        return
    if given.broker:
        fill(given.broker, False, given.snapshots, given.seed)
        result = measure(given)
    else:
        with EmbeddedBroker() as broker:
            given.broker, given.embedded = broker.bootstrap, True
            fill(given.broker, True, given.snapshots, given.seed)
            result = measure(given)
    if given.json:
        sys.stdout.write(orjson.dumps({"found": result, "machine": machine()}).decode() + "\n")
    else:
        sys.stdout.write(table(result) + "\n")


if __name__ == "__main__":
    main()
