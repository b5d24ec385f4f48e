"""The embedded broker: its life as a process, and what it keeps of what it is given."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.partitioner.default import DefaultPartitioner
from kafka.structs import OffsetAndMetadata

from agents.broker import (
    CLIENT_API_VERSION,
    DEFAULT_PARTITIONS,
    MAX_PARTITION_BYTES,
    BrokerUnavailableError,
    EmbeddedBroker,
)
from tests.integration.deployment import DEADLINE_S, await_true, is_alive

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
SESSION_TIMEOUT_MS = 4_000  # must be above the mock's first join of 3 s
TS_2019_MS = 1_546_300_800_123


# ------------------------------------------------------------------------------------------------------------- helpers


@contextmanager
def consumer(bootstrap: str, *topics: str, **settings: Any) -> Iterator[Any]:
    """A kafka-python consumer that does not wait long on empty fetches, nor for its goodbye."""
    defaults = {
        "api_version": CLIENT_API_VERSION,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "fetch_max_wait_ms": 20,
    }
    client = KafkaConsumer(*topics, bootstrap_servers=bootstrap, **(defaults | settings))
    try:
        yield client
    finally:
        client.close(autocommit=False, timeout_ms=500)


@contextmanager
def producer(bootstrap: str, **settings: Any) -> Iterator[Any]:
    client = KafkaProducer(bootstrap_servers=bootstrap, api_version=CLIENT_API_VERSION, **settings)
    try:
        yield client
    finally:
        client.close(timeout=5)


def read_to_the_end(bootstrap: str, topic: str) -> list[Any]:
    """Every record the topic still holds, partition by partition, in order of offset."""
    partitions = [TopicPartition(topic, number) for number in range(DEFAULT_PARTITIONS)]
    records: list[Any] = []
    with consumer(bootstrap) as client:
        client.assign(partitions)
        starts, ends = client.beginning_offsets(partitions), client.end_offsets(partitions)
        for partition in partitions:
            client.seek(partition, starts[partition])
        n_expected = sum(ends[partition] - starts[partition] for partition in partitions)

        def poll() -> bool:
            for batch in client.poll(100).values():
                records.extend(batch)
            return len(records) >= int(n_expected)

        await_true(poll, f"the end of {topic}")
    return sorted(records, key=lambda record: (record.partition, record.offset))


def run_parent(code: str, cwd: Path) -> "subprocess.Popen[str]":
    """A process of its own that uses the broker, started somewhere else than in the repository."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import os, signal; from agents.broker import EmbeddedBroker\n{code}"],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def reported_pids(parent: "subprocess.Popen[str]") -> list[int]:
    assert parent.stdout is not None
    return [int(word) for word in parent.stdout.readline().split()]


def executable(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def listening_addresses(port: int) -> set[str]:
    """The kernel's own list: on which IPv4 addresses (hexadecimal) a port is listened on."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


# ---------------------------------------------------------------------------------------------------------- its life


def test_it_starts_on_a_loopback_port_and_is_gone_after_stop() -> None:
    broker = EmbeddedBroker()
    broker.start()
    host, port = broker.bootstrap.split(":")
    assert (host, broker.url) == ("127.0.0.1", f"kafka://127.0.0.1:{port}")
    assert broker.is_running
    assert listening_addresses(int(port)) == {"0100007F"}

    broker.stop()
    broker.stop()

    assert not broker.is_running
    assert not is_alive(broker.pid)
    assert listening_addresses(int(port)) == set()


def test_a_second_start_keeps_the_running_one_and_a_start_after_stop_makes_a_new_one() -> None:
    with EmbeddedBroker() as broker:
        first = broker.pid
        broker.start()
        assert broker.pid == first
        broker.stop()
        broker.start()
        assert broker.pid != first
        assert broker.is_running


def test_it_is_started_from_any_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "select.py").write_text("raise RuntimeError('a stranger in the working directory was imported')\n")
    monkeypatch.chdir(tmp_path)
    with EmbeddedBroker() as broker:
        assert broker.is_running


def test_two_brokers_are_two_addresses_that_serve_one_topic() -> None:
    with EmbeddedBroker(n_brokers=2, topics=["shared"]) as broker:
        addresses = broker.bootstrap.split(",")
        assert len(set(addresses)) == 2
        for address in addresses:
            with consumer(address) as client:
                assert client.partitions_for_topic("shared") == set(range(DEFAULT_PARTITIONS))


def test_fewer_than_one_broker_is_refused() -> None:
    with pytest.raises(ValueError, match="n_brokers must be at least 1, got 0"):
        EmbeddedBroker(n_brokers=0)


def test_it_has_no_address_before_it_is_started() -> None:
    with pytest.raises(RuntimeError, match="must be started"):
        _ = EmbeddedBroker().url


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "kill"])
def test_it_ends_with_a_killed_parent(tmp_path: Path, number: signal.Signals) -> None:
    parent = run_parent("b = EmbeddedBroker(); b.start(); print(b.pid, flush=True); input()", tmp_path)
    try:
        [pid] = reported_pids(parent)
        assert is_alive(pid)
        parent.send_signal(number)
        await_true(lambda: not is_alive(pid), "the broker's end after its parent's")
    finally:
        parent.kill()
        parent.communicate()


def test_it_ends_with_a_parent_that_returns_without_stopping_it(tmp_path: Path) -> None:
    parent = run_parent("b = EmbeddedBroker(); b.start(); print(b.pid)", tmp_path)
    [pid] = reported_pids(parent)
    parent.communicate()
    await_true(lambda: not is_alive(pid), "the broker's end after its parent's")


def test_it_ends_with_its_parent_though_a_forked_sibling_holds_the_pipe(tmp_path: Path) -> None:
    code = (
        "b = EmbeddedBroker(); b.start(); sibling = os.fork() or (signal.alarm(60), signal.pause())\n"
        "print(b.pid, sibling, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = run_parent(code, tmp_path)
    pid, sibling = reported_pids(parent)
    try:
        await_true(lambda: not is_alive(pid), "the broker's end after its parent's")
        assert is_alive(sibling)
    finally:
        os.kill(sibling, signal.SIGKILL)
        parent.communicate()


def ignores_ctrl_c(pid: int) -> bool:
    """Whether the kernel throws this process's SIGINT away (a bit mask, signal 1 first)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigIgn"], 16) >> (signal.SIGINT - 1) & 1)


def test_it_survives_a_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # or the child might inherit our own deafness
    try:
        with EmbeddedBroker() as broker:
            assert ignores_ctrl_c(broker.pid)
            assert not ignores_ctrl_c(os.getpid())
            os.kill(broker.pid, signal.SIGINT)
            with consumer(broker.bootstrap) as client:
                assert client.topics() == set()
            assert broker.is_running
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_outlives_the_thread_that_started_it() -> None:
    broker = EmbeddedBroker()
    starter = threading.Thread(target=broker.start)
    starter.start()
    starter.join()
    try:
        with consumer(broker.bootstrap) as client:
            assert client.topics() == set()
        assert broker.is_running
    finally:
        broker.stop()


def test_it_does_not_inherit_our_other_descriptors(tmp_path: Path) -> None:
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        with EmbeddedBroker() as broker:
            held = set()
            for entry in Path(f"/proc/{broker.pid}/fd").iterdir():
                with suppress(FileNotFoundError):  # the broker closes connections of its own meanwhile
                    held.add(str(entry.readlink()))
    assert str(tmp_path / "ours") not in held


# ------------------------------------------------------------------------------------------------ when it cannot start


def test_a_python_without_confluent_kafka_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    bare = executable(tmp_path / "python", f'exec "{sys.executable}" -S "$@"')  # -S: the standard library alone
    monkeypatch.setattr(sys, "executable", bare)
    with pytest.raises(BrokerUnavailableError) as raised:
        EmbeddedBroker().start()
    assert raised.value.cause == "missing"
    assert str(raised.value) == (
        "the embedded broker must find confluent-kafka, got No module named 'confluent_kafka'; "
        "start a real Kafka with `docker compose up -d` and set ROOMPULSE_BROKER=kafka://host:port"
    )


def test_a_child_that_never_answers_is_given_up_and_ended(tmp_path: Path) -> None:
    mute = executable(tmp_path / "python", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    with pytest.raises(BrokerUnavailableError, match=r"must answer within 0\.5 s, got nothing"):
        EmbeddedBroker(python=mute, start_timeout_s=0.5).start()
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_child_that_dies_is_reported_by_its_last_words(tmp_path: Path) -> None:
    broken = executable(tmp_path / "python", "echo one >&2; echo 'out of everything' >&2; exit 3")
    with pytest.raises(BrokerUnavailableError, match="must start, got out of everything"):
        EmbeddedBroker(python=broken).start()


def test_an_interpreter_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    broker = EmbeddedBroker(python=str(tmp_path / "none"))
    with pytest.raises(BrokerUnavailableError, match="No such file"):
        broker.start()
    assert not broker.is_running


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("cause", ["missing", "failed", "timeout"])
def test_every_error_says_in_both_languages_what_to_do_next(lang: Any, cause: Any) -> None:
    words = str(BrokerUnavailableError(cause, "XYZ", lang))
    assert "XYZ" in words
    assert "docker compose up" in words
    assert "ROOMPULSE_BROKER" in words
    assert "\n" not in words
    assert words.isascii() == (lang == "en")


# ----------------------------------------------------------------------------------------------------- what it keeps


def test_a_record_comes_back_with_key_time_stamp_and_headers(broker: EmbeddedBroker, unique_prefix: str) -> None:
    headers = [("ce_id", b"1"), ("ce_type", b"\x00\xff"), ("ce_id", b"again"), ("empty", b"")]
    with producer(broker.bootstrap) as client:
        client.send(unique_prefix, key=b"room-1", value=b"{}", timestamp_ms=TS_2019_MS, headers=headers).get(10)
        client.send(unique_prefix, key=b"room-1", value=None, timestamp_ms=TS_2019_MS - 1).get(10)
    first, tombstone = read_to_the_end(broker.bootstrap, unique_prefix)
    assert (first.key, first.value, first.timestamp, first.headers) == (b"room-1", b"{}", TS_2019_MS, headers)
    assert first.timestamp_type == 0  # CreateTime
    assert (tombstone.value, tombstone.timestamp) == (None, TS_2019_MS - 1)
    assert (first.offset, tombstone.offset) == (0, 1)


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "snappy", "zstd"])
def test_batches_come_back_whatever_their_compression(
    broker: EmbeddedBroker, unique_prefix: str, compression: str
) -> None:
    values = [b"%06d" % number for number in range(500)]
    client = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "compression.type": compression})
    for value in values:
        client.produce(unique_prefix, value, partition=0)
    assert client.flush(10) == 0
    if compression in {"lz4", "snappy", "zstd"}:  # kafka-python needs further libraries for these
        reader = confluent_kafka.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": unique_prefix})
        reader.assign([confluent_kafka.TopicPartition(unique_prefix, 0, 0)])
        assert [message.value() for message in reader.consume(len(values), timeout=DEADLINE_S)] == values
        reader.close()
    else:
        assert [record.value for record in read_to_the_end(broker.bootstrap, unique_prefix)] == values


KEYS = [b"r", b"room-1", b"room-2", b"room-\xe4", "直播间-8".encode(), b"a" * 128, *(b"%d" % n for n in range(50))]


def placed_by_kafka_python(bootstrap: str, topic: str, keys: Iterable[bytes]) -> None:
    with producer(bootstrap) as client:
        for key in keys:
            client.send(topic, key=key, value=b"")
        client.flush(10)


def placed_by_librdkafka(bootstrap: str, topic: str, keys: Iterable[bytes]) -> None:
    client = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
    for key in keys:
        client.produce(topic, b"", key)
    assert client.flush(10) == 0


@pytest.mark.parametrize("place", [placed_by_kafka_python, placed_by_librdkafka])
def test_a_key_lands_in_the_partition_that_murmur2_names(
    broker: EmbeddedBroker, unique_prefix: str, place: Callable[[str, str, Iterable[bytes]], None]
) -> None:
    place(broker.bootstrap, unique_prefix, KEYS)
    landed = {record.key: record.partition for record in read_to_the_end(broker.bootstrap, unique_prefix)}
    partitions = list(range(DEFAULT_PARTITIONS))
    assert landed == {key: DefaultPartitioner()(key, partitions, partitions) for key in KEYS}
    assert set(landed.values()) == set(partitions)


def test_a_topic_has_four_partitions_once_it_is_asked_for(broker: EmbeddedBroker, unique_prefix: str) -> None:
    with consumer(broker.bootstrap) as client:
        assert unique_prefix not in client.topics()
    with producer(broker.bootstrap) as client:
        assert client.partitions_for(unique_prefix) == set(range(DEFAULT_PARTITIONS))
    with EmbeddedBroker(topics=["made.at-once"]) as other, consumer(other.bootstrap) as client:
        assert client.topics() == {"made.at-once"}


def test_a_partition_keeps_its_last_five_mebibytes(broker: EmbeddedBroker, unique_prefix: str) -> None:
    record_bytes, n_records = 100_000, 80
    with producer(broker.bootstrap, batch_size=1) as client:
        for number in range(n_records):
            client.send(unique_prefix, value=b"%02d" % number + bytes(record_bytes - 2), partition=0).get(10)
    kept = read_to_the_end(broker.bootstrap, unique_prefix)
    assert [int(record.value[:2]) for record in kept] == list(range(n_records - len(kept), n_records))
    assert len(kept) * record_bytes <= MAX_PARTITION_BYTES < (len(kept) + 1) * (record_bytes + 100)
    assert kept[0].offset == n_records - len(kept)


def test_a_committed_offset_outlives_the_clients(broker: EmbeddedBroker, unique_prefix: str) -> None:
    partition = TopicPartition(unique_prefix, 0)
    with producer(broker.bootstrap) as client:
        for number in range(10):
            client.send(unique_prefix, value=b"%d" % number, partition=0)
        client.flush(10)
    with consumer(broker.bootstrap, group_id=unique_prefix) as client:
        client.assign([partition])
        client.commit({partition: OffsetAndMetadata(7, "note", -1)})
    with consumer(broker.bootstrap, group_id=unique_prefix) as client:
        client.assign([partition])
        assert client.committed(partition) == 7
        read: list[bytes] = []

        def poll() -> bool:
            for batch in client.poll(100).values():
                read.extend(record.value for record in batch)
            return len(read) >= 3

        await_true(poll, "the records after the committed offset")
    assert read == [b"7", b"8", b"9"]


class PatientAssignor(RangePartitionAssignor):  # type: ignore[misc]  # kafka-python has no types
    """A leader that lets its followers sync first: the broker refuses those who come after it."""

    @classmethod
    def assign(cls, cluster: Any, group_subscriptions: Any) -> Any:
        time.sleep(0.25)
        return super().assign(cluster, group_subscriptions)


class Member(threading.Thread):
    """A member of a group that polls on its own, as workers do."""

    def __init__(self, bootstrap: str, topic: str, group: str) -> None:
        super().__init__(daemon=True)
        self.where, self.topic, self.group = bootstrap, topic, group
        self.assigned: frozenset[int] = frozenset()
        self.seen: list[tuple[int, int]] = []
        self.leaving = threading.Event()

    def run(self) -> None:
        with consumer(
            self.where,
            self.topic,
            group_id=self.group,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            max_poll_interval_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=300,
            partition_assignment_strategy=(PatientAssignor,),
        ) as client:
            while not self.leaving.is_set():
                for batch in client.poll(50).values():
                    self.seen.extend((record.partition, record.offset) for record in batch)
                self.assigned = frozenset(part.partition for part in client.assignment())


def test_two_consumers_share_the_partitions_and_the_one_who_stays_takes_over(
    broker: EmbeddedBroker, unique_prefix: str
) -> None:
    n_records = 200
    with producer(broker.bootstrap) as client:
        for number in range(n_records):
            client.send(unique_prefix, key=b"%d" % number, value=b"")
        client.flush(10)
    one, two = (Member(broker.bootstrap, unique_prefix, unique_prefix) for _ in range(2))
    one.start()
    two.start()
    try:
        half = DEFAULT_PARTITIONS // 2
        await_true(lambda: len(one.assigned) == len(two.assigned) == half, "each to hold half of the partitions")
        assert one.assigned | two.assigned == set(range(DEFAULT_PARTITIONS))
        await_true(lambda: len(one.seen) + len(two.seen) >= n_records, "every record to be read")
        assert len(set(one.seen) | set(two.seen)) == n_records == len(one.seen) + len(two.seen)
        one.leaving.set()
        await_true(lambda: len(two.assigned) == DEFAULT_PARTITIONS, "the one who stays to hold all partitions")
    finally:
        for member in (one, two):
            member.leaving.set()
            member.join(DEADLINE_S)
