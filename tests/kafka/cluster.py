"""Apache Kafka itself, in KRaft mode on loopback: one broker or several, that can be killed and brought back.

Every broker is its own Java process with a small heap; each is a controller too, so that the cluster survives the loss
of a minority. A guardian process (`keeper.py`) ends a broker with the process that started it, `kill -9` included.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, OffsetSpec, TopicMetadata

from tests.kafka.jars import KafkaUnavailableError, classpath, java

HOST: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 45.0
POLL_S: Final = 0.1
HEAP_MB: Final = 320
_CLUSTER_ID: Final = "cm9vbXB1bHNlLXRlc3RzIQ"
_JAVA_OPTIONS: Final = (
    f"-Xmx{HEAP_MB}m",
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # short lives: less time for the compiler, more for the start
    "-XX:+ExitOnOutOfMemoryError",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)


class Broker:
    """One broker: where it listens, where its data lies, and its process while it has one."""

    def __init__(self, number: int, folder: Path, port: int, controller_port: int) -> None:
        self.number, self.folder, self.port, self.controller_port = number, folder, port, controller_port
        self.pid: int | None = None
        self.keeper: subprocess.Popen[bytes] | None = None
        self.is_frozen = False

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return f"{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        """What it warns of."""
        return self.folder / "broker.log"

    @property
    def properties(self) -> Path:
        """Its settings."""
        return self.folder / "server.properties"

    @property
    def is_running(self) -> bool:
        """Whether its process is alive now."""
        return self.keeper is not None and self.keeper.poll() is None


class KafkaCluster:
    """A Kafka of `n_brokers` on loopback, alive between `start` and `stop` and never longer than this process.

    Parameters
    ----------
    n_brokers : every internal topic has as many copies, at most 3.
    data : a folder that is kept, and used again where it exists; None takes a temporary one.
    port : the first broker's; None takes a free one, as the others do.
    """

    n_partitions = 4
    """What tests set `kafka.partitions` to, so that the same rooms spread as on the embedded broker."""

    def __init__(self, n_brokers: int = 1, *, data: Path | None = None, port: int | None = None) -> None:
        if n_brokers < 1:
            msg = f"n_brokers must be at least 1, got {n_brokers}"
            raise ValueError(msg)
        self._n_brokers, self._data, self._port = n_brokers, data, port
        self._root: Path | None = None
        self.brokers: list[Broker] = []

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:port`, with more than one broker a comma-separated list; those that hang are left out."""
        return ",".join(broker.address for broker in self.brokers if not broker.is_frozen)

    @property
    def url(self) -> str:
        """The address as `ROOMPULSE_BROKER` takes it."""
        return f"kafka://{self.bootstrap}"

    @property
    def client(self) -> dict[str, Any]:
        """Return what a kafka-python client is told about this broker: nothing but its address."""
        return {"bootstrap_servers": self.bootstrap.split(",")}

    @property
    def settings(self) -> dict[str, str]:
        """Return the environment that fits the program to this cluster."""
        copies = min(3, self._n_brokers)
        return {
            "ROOMPULSE_BROKER": self.url,
            "ROOMPULSE_KAFKA__PARTITIONS": str(self.n_partitions),
            "ROOMPULSE_KAFKA__REPLICATION_FACTOR": str(copies),
            "ROOMPULSE_KAFKA__MIN_INSYNC_REPLICAS": str(max(1, copies - 1)),
        }

    def start(self) -> None:
        """Start every broker and return once each knows all of them.

        Raises
        ------
        KafkaUnavailableError
            Java or Maven are missing, or a broker ended; no process is left behind.
        """
        command = [java(), *_JAVA_OPTIONS, "-cp", classpath()]
        if self._data is None:
            self._root = Path(tempfile.mkdtemp(prefix="roompulse-kafka-"))
        else:
            self._root = self._data.resolve()
            self._root.mkdir(parents=True, exist_ok=True)
        ports = free_ports(2 * self._n_brokers)
        self.brokers = [
            Broker(number, self._root / str(number), ports.pop(), ports.pop())
            for number in range(1, self._n_brokers + 1)
        ]
        if self._port is not None:
            self.brokers[0].port = self._port
        try:
            self._format(command)
            for broker in self.brokers:
                self._run(broker, command)
            self.await_whole()
        except BaseException:  # a KeyboardInterrupt in the middle must not leave a process either
            self.stop()
            raise

    def stop(self) -> None:
        """End every broker and remove its data, unless the caller named the folder."""
        running = [broker.keeper for broker in self.brokers if broker.is_running and broker.keeper]
        for keeper in running:
            assert keeper.stdin is not None
            keeper.stdin.close()
        for keeper in running:
            keeper.wait(STOP_TIMEOUT_S)
        for broker in self.brokers:
            _let_go(broker)
        if self._root is not None and self._data is None:
            shutil.rmtree(self._root, ignore_errors=True)
        self._root = None

    def kill(self, broker: Broker) -> None:
        """End one broker with `kill -9`; its data stays."""
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        _let_go(broker)

    def freeze(self, broker: Broker) -> None:
        """Let one broker hang: its connections stay open and nothing answers."""
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        broker.is_frozen = True

    def thaw(self, broker: Broker) -> None:
        """Let a broker go on that hung, and return once it has caught up."""
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGCONT)
        broker.is_frozen = False
        self.await_whole()
        self.await_in_sync()

    def halt(self, broker: Broker) -> None:
        """End one broker as an operator does, with SIGTERM; its data stays."""
        assert broker.keeper is not None
        assert broker.keeper.stdin is not None
        broker.keeper.stdin.write(b"stop\n")
        broker.keeper.stdin.flush()
        _let_go(broker)

    def bring_back(self, broker: Broker) -> None:
        """Start a broker that was ended, with the data it left and on its old ports."""
        self._run(broker, [java(), *_JAVA_OPTIONS, "-cp", classpath()])
        self.await_whole()
        self.await_in_sync()

    def await_whole(self) -> None:
        """Return once every broker answers and knows all the others."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        for broker in self.brokers:
            while not self._knows_all(broker):
                if not broker.is_running:
                    msg = f"Kafka must start, got an end: {_last_line(broker.log_file)}"
                    raise KafkaUnavailableError(msg)
                if time.monotonic() > deadline_s:
                    last = _last_line(broker.log_file)
                    msg = f"Kafka must answer within {START_TIMEOUT_S:g} s, got nothing: {last}"
                    raise KafkaUnavailableError(msg)
                time.sleep(POLL_S)

    def await_in_sync(self) -> None:
        """Return once every copy of every partition has all there is, so that any one broker can be lost."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while lagging := [
            f"{topic.topic} {partition.id}"
            for topic in self.describe()
            for partition in topic.partitions.values()
            if len(partition.isrs) < len(partition.replicas)
        ]:
            if time.monotonic() > deadline_s:
                msg = f"copies must catch up within {START_TIMEOUT_S:g} s, got {lagging[:5]} behind"
                raise KafkaUnavailableError(msg)
            time.sleep(POLL_S)

    def describe(self) -> list[TopicMetadata]:
        """Return every topic with its partitions, their leaders and copies."""
        return list(_admin(self.bootstrap).list_topics(timeout=STOP_TIMEOUT_S).topics.values())

    def coordinator(self, group: str) -> int:
        """Return the number of the broker that keeps a consumer group."""
        admin = _admin(self.bootstrap)
        return int(admin.describe_consumer_groups([group])[group].result(STOP_TIMEOUT_S).coordinator.id)

    def beginning(self, topic: str, partition: int) -> int:
        """Return the oldest offset that is still kept."""
        place = TopicPartition(topic, partition)
        admin = _admin(self.bootstrap)
        asked = admin.list_offsets({place: OffsetSpec.earliest()})  # type: ignore[no-untyped-call]  # not ours
        return int(asked[place].result(STOP_TIMEOUT_S).offset)

    def configure(self, topics: Iterable[str], settings: dict[str, str]) -> None:
        """Change settings of topics and leave their others, as an operator does with Kafka's tools."""
        changes = [
            ConfigResource(
                ConfigResource.Type.TOPIC,
                topic,
                incremental_configs=[
                    ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                    for name, value in settings.items()
                ],
            )
            for topic in topics
        ]
        admin = _admin(self.bootstrap)  # let go too early, it would forget what it was asked
        for change in admin.incremental_alter_configs(changes).values():
            change.result(STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _format(self, command: list[str]) -> None:
        """Write each broker's settings, and its storage where it has none yet."""
        making = []
        for broker in self.brokers:
            broker.folder.mkdir(exist_ok=True)
            broker.properties.write_text(self._properties(broker), encoding="utf-8")
            if not (broker.folder / "data" / "meta.properties").exists():
                arguments = ["format", "--cluster-id", _CLUSTER_ID, "--config", str(broker.properties)]
                with broker.log_file.open("ab") as log:
                    tool = [*command, "kafka.tools.StorageTool", *arguments]
                    making.append((broker, subprocess.Popen(tool, stdin=subprocess.DEVNULL, stdout=log, stderr=log)))
        codes = [process.wait() for _, process in making]  # all of them, before the first complaint
        for (broker, _), code in zip(making, codes, strict=True):
            if code:
                msg = f"Kafka's storage must be made in {broker.folder}, got {_last_line(broker.log_file)}"
                raise KafkaUnavailableError(msg)

    def _properties(self, broker: Broker) -> str:
        voters = ",".join(f"{other.number}@{HOST}:{other.controller_port}" for other in self.brokers)
        copies = min(3, self._n_brokers)
        settings = {
            "process.roles": "broker,controller",
            "node.id": broker.number,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{broker.address},CONTROLLER://{HOST}:{broker.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{broker.address}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": broker.folder / "data",
            # As in production: `roompulse provision` makes topics, nobody else.
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": max(1, copies - 1),
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": max(1, copies - 1),
            "min.insync.replicas": max(1, copies - 1),
            "group.initial.rebalance.delay.ms": 0,
            # A lost broker is noticed in seconds, so that tests need not wait long.
            "broker.heartbeat.interval.ms": 500,
            "broker.session.timeout.ms": 3_000,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "background.threads": 2,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            # So that a test sees retention and compaction at work.
            "log.retention.check.interval.ms": 1_000,
            "log.cleaner.backoff.ms": 500,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def _run(self, broker: Broker, command: list[str]) -> None:
        keeper = [sys.executable, "-P", str(Path(__file__).with_name("keeper.py")), str(broker.log_file)]
        removed = "" if self._data else str(broker.folder)
        broker.keeper = subprocess.Popen(
            [*keeper, removed, *command, "kafka.Kafka", str(broker.properties)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert broker.keeper.stdout is not None
        word, _, pid = broker.keeper.stdout.readline().decode().partition(" ")
        if word != "running":
            msg = f"Kafka's guardian must run, got {word!r}"
            raise KafkaUnavailableError(msg)
        broker.pid = int(pid)

    def _knows_all(self, broker: Broker) -> bool:
        try:
            return len(_admin(broker.address).list_topics(timeout=5.0).brokers) == self._n_brokers
        except KafkaException:
            return False


def _admin(bootstrap: str) -> AdminClient:
    # Silent: a broker that is still down is no news here.
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


def _let_go(broker: Broker) -> None:
    """Wait for a guardian that is about to end, and forget it."""
    keeper, broker.keeper, broker.pid = broker.keeper, None, None
    if keeper is None:
        return
    try:
        keeper.wait(STOP_TIMEOUT_S)
    finally:
        if keeper.poll() is None:
            keeper.kill()
            keeper.wait()
        for stream in (keeper.stdin, keeper.stdout):
            if stream is not None:
                stream.close()


def free_ports(n_ports: int) -> list[int]:
    """Return ports that are free and lie below those which the kernel gives to outgoing connections.

    A client that asks again and again for a killed broker's port could otherwise be given that very port.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    first = max(1_024, lowest - 15_000)
    found: list[int] = []
    for port in random.SystemRandom().sample(range(first, lowest), lowest - first):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == n_ports:
            return found
    msg = f"{n_ports} ports must be free between {first} and {lowest}, got {len(found)}"
    raise KafkaUnavailableError(msg)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    told = [line for line in lines if "ERROR" in line or "Exception" in line] or lines
    return told[-1][:300] if told else "no word"
