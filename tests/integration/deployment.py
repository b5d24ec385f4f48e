"""A broker, its clients and real worker processes, for the tests that need them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from agents.broker import CLIENT_API_VERSION, DEFAULT_PARTITIONS, EmbeddedBroker
from schemas import topics

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
POLL_S = 0.05
PRIVACY_KEY, CONTROL_KEY = "p" * 40, "c" * 40
APP_ID = "worker-test"
SETTINGS = {
    "ROOMPULSE_PRIVACY_KEY": PRIVACY_KEY,
    "ROOMPULSE_CONTROL_KEY": CONTROL_KEY,
    "ROOMPULSE_KAFKA__APP_ID": APP_ID,
    "ROOMPULSE_KAFKA__SESSION_TIMEOUT_S": "6",
    "ROOMPULSE_KAFKA__REBALANCE_TIMEOUT_S": "3",
    "ROOMPULSE_KAFKA__HEARTBEAT_INTERVAL_S": "1",
    "ROOMPULSE_ENGINE__EMIT_INTERVAL_MS": "1000",
    "ROOMPULSE_ENGINE__CHANNELS_INTERVAL_MS": "1000",
    "ROOMPULSE_WORKER__SNAPSHOT_INTERVAL_S": "1",
    "ROOMPULSE_WORKER__SNAPSHOT_MAX_INTERVAL_S": "2",
}
OUTPUTS = (topics.ROOM_SIGNALS, topics.ROOM_ANOMALIES, topics.BID_COMMANDS, topics.AUDIT_LOG, topics.ROOM_EVENTS_DLQ)


class Cluster(Protocol):
    """A Kafka to deploy on, whichever it is; its room topics have `DEFAULT_PARTITIONS` partitions."""

    @property
    def url(self) -> str:
        """The address as `ROOMPULSE_BROKER` takes it."""

    @property
    def client(self) -> dict[str, Any]:
        """What a kafka-python client is told."""

    @property
    def settings(self) -> dict[str, str]:
        """The environment that fits the program to it."""


class Embedded:
    """The embedded broker, as one of the things to deploy on."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.url = broker.url
        self.client = {"bootstrap_servers": broker.bootstrap, "api_version": CLIENT_API_VERSION}
        self.settings = {"ROOMPULSE_BROKER": broker.url}


def await_true(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"gave up waiting: {what}"
        time.sleep(POLL_S)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a dead one whose parent has not asked for its end yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def environment(broker: Cluster) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROOMPULSE_")}
    return inherited | SETTINGS | broker.settings


class WorkerProcess:
    """`roompulse worker`, with its log lines."""

    def __init__(self, broker: Cluster, folder: Path, extra: dict[str, str]) -> None:
        folder.mkdir()
        self.log_file = folder / "log.jsonl"
        settings = environment(broker) | {"ROOMPULSE_WORKER__DATA_DIR": str(folder / "data"), **extra}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agents", "worker"], cwd=REPOSITORY, env=settings, stdout=log, stderr=log
            )

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.log_file.read_bytes().splitlines():
            assert line.startswith(b"{"), f"must be a JSON line: {line!r}"
            found.append(orjson.loads(line))
        return found

    def partitions(self) -> set[int]:
        """Return what the newest "ready" line says, nothing before the first."""
        ready = [line for line in self.lines() if line["message"] == "ready"]
        return set(ready[-1]["partitions"]) if ready else set()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


class Deployment:
    """A broker, its clients and the workers of one test."""

    def __init__(self, broker: Cluster, folder: Path) -> None:
        self.broker, self.folder = broker, folder
        self.workers: list[WorkerProcess] = []
        self.connect()

    def connect(self) -> None:
        """Make the test's own producer, anew where a broker hangs that the former one talks to."""
        self.producer = KafkaProducer(**self.broker.client, acks="all", linger_ms=50, compression_type="gzip")

    def start_worker(self, extra: dict[str, str] | None = None) -> WorkerProcess:
        worker = WorkerProcess(self.broker, self.folder / f"worker-{len(self.workers)}", extra or {})
        self.workers.append(worker)
        return worker

    def send(self, topic: str, key: str, message: dict[str, Any]) -> Any:
        """Queue a message; return kafka-python's future."""
        return self.producer.send(topic, key=key.encode(), value=orjson.dumps(message))

    def read(self, topic: str) -> list[Any]:
        """Return every record of a topic up to its end now."""
        with closing(KafkaConsumer(**self.broker.client, fetch_max_wait_ms=20)) as consumer:
            places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            if not places:
                return []
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            ends = consumer.end_offsets(places)
            found: list[Any] = []
            deadline_s = time.monotonic() + DEADLINE_S
            while any(consumer.position(place) < ends[place] for place in places):
                assert time.monotonic() < deadline_s, f"gave up reading {topic}"
                for batch in consumer.poll(100).values():
                    found += batch
            return found

    def values(self, topic: str, room: str | None = None) -> list[dict[str, Any]]:
        return [orjson.loads(r.value) for r in self.read(topic) if room is None or r.key == room.encode()]

    def sessions(self) -> dict[str, dict[str, Any]]:
        """Return the newest session metrics of each room, in whichever partition they were told."""
        newest: dict[str, dict[str, Any]] = {}
        for message in self.values(topics.ROOM_SIGNALS):
            if message["revision"] >= newest.get(message["room_id"], message)["revision"]:
                newest[message["room_id"]] = message
        return {room: message["windows"]["session"] for room, message in newest.items()}


@contextmanager
def deployment(folder: Path, cluster: Cluster | None = None) -> Iterator[Deployment]:
    """Give a deployment on `cluster`, on an embedded broker of its own without; no worker outlives it."""
    if cluster is None:
        with EmbeddedBroker() as broker, deployment(folder, Embedded(broker)) as made:
            yield made
        return
    made = Deployment(cluster, folder)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.end(signal.SIGKILL)
        made.producer.close()


def roompulse(*arguments: str, settings: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "agents", *arguments],
        cwd=REPOSITORY,
        env=settings,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )


def await_ready(*workers: WorkerProcess, n_partitions: int = DEFAULT_PARTITIONS) -> None:
    """Return once these workers have all partitions among them, and none of them has nothing."""

    def are_ready() -> bool:
        shares = [worker.partitions() for worker in workers]
        return all(shares) and sum(map(len, shares)) == n_partitions

    await_true(are_ready, f"{len(workers)} workers have {n_partitions} partitions")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def committed(broker: Cluster) -> dict[int, int]:
    with closing(KafkaConsumer(**broker.client, group_id=APP_ID, enable_auto_commit=False)) as consumer:
        places = [TopicPartition(topics.ROOM_EVENTS, partition) for partition in range(DEFAULT_PARTITIONS)]
        return {place.partition: consumer.committed(place) or 0 for place in places}


def undone(made: Deployment) -> list[str]:
    """Return the types of records that no worker has committed yet, but for ticks: they never end."""
    done = committed(made.broker)
    left = [record for record in made.read(topics.ROOM_EVENTS) if record.offset >= done[record.partition]]
    return [kind for record in left if (kind := orjson.loads(record.value)["type"]) != "tick"]
