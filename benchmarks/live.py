"""A deployment as operators have it, watched from outside: topics, workers, a paced load, what comes out when."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import orjson
from confluent_kafka import Consumer, KafkaError, TopicPartition

from agents import kafka
from agents.errors import ProgramError
from benchmarks.field import PARTITIONS, Field
from benchmarks.pacing import Load
from benchmarks.rivals.engines import CONTROL_KEY, PRIVACY_KEY
from schemas.settings import Settings
from schemas.topics import BID_COMMANDS, ROOM_ANOMALIES, ROOM_EVENTS_DLQ, ROOM_SIGNALS

ROOT: Final = Path(__file__).resolve().parents[1]
START_S: Final = 90.0
"""How long a worker may take to be ready, and the load's rooms to be open."""
STOP_S: Final = 60.0
POLL_S: Final = 0.05
WATCHED: Final = (ROOM_SIGNALS, ROOM_ANOMALIES, BID_COMMANDS, ROOM_EVENTS_DLQ)


class TimeRunFailedError(ProgramError):
    """A worker, the load or the broker did not do its part: there is no number."""


def await_true(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Return once `condition` holds; raise TimeRunFailedError when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            msg = f"{what} must come within {timeout_s:g} s, got nothing"
            raise TimeRunFailedError(msg)
        time.sleep(POLL_S)


class Seen(NamedTuple):
    """A message as it was read: its own `ts`, when the broker had it and when it was here, in ms of the wall clock."""

    topic: str
    partition: int
    ts: int
    written_ms: int
    read_ms: float
    message: dict[str, Any]


class Watcher:
    """Reads what workers write from where the topics end now, in a thread of its own.

    Parameters
    ----------
    keep : what to keep of a message; None leaves it out.
    """

    def __init__(self, bootstrap: str, keep: Callable[[Seen], Any], *, embedded: bool = False) -> None:
        wait = {"fetch.wait.max.ms": 40} if embedded else {"fetch.wait.max.ms": 500}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "roompulse-benchmark",
                "enable.auto.commit": False,
                "fetch.min.bytes": 1,
                "fetch.queue.backoff.ms": 5,
                "log_level": 0,
                **wait,
            }
        )
        places = [TopicPartition(topic, partition) for topic in WATCHED for partition in range(PARTITIONS)]
        for place in places:
            place.offset = self._consumer.get_watermark_offsets(place, timeout=STOP_S)[1]
        self._consumer.assign(places)
        self._keep, self.seen = keep, list[Any]()
        self._is_over = threading.Event()
        self._failed: str | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._is_over.is_set():
            for found in self._consumer.consume(1_000, 0.05):
                error = found.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF and error.fatal():
                        self._failed = error.str()
                        return
                    continue
                read_ms = time.time_ns() / 1e6
                message = orjson.loads(found.value() or b"null")
                seen = Seen(
                    str(found.topic()), found.partition() or 0, message.get("ts") or 0, found.timestamp()[1], read_ms,
                    message,
                )  # fmt: skip
                kept = self._keep(seen)
                if kept is not None:
                    self.seen.append(kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(STOP_S)
        self._consumer.close()
        if self._failed is not None:
            msg = f"outputs must be readable, got {self._failed}"
            raise TimeRunFailedError(msg)


class Had(NamedTuple):
    """Seconds that a process's threads had a processor, and seconds they could have used one and waited for it."""

    run_s: float
    wait_s: float

    @classmethod
    def of(cls, pid: int) -> Had | None:
        """Return what a process had so far; None where the system does not say (Linux does)."""
        try:
            found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        except OSError:
            return None
        return cls(sum(int(one[0]) for one in found) / 1e9, sum(int(one[1]) for one in found) / 1e9) if found else None


def shares(before: Had | None, after: Had | None, seconds: float) -> dict[str, float] | None:
    """Return processors had and waited for on average, between two moments; None where unknown.

    >>> shares(Had(1.0, 0.5), Had(3.0, 0.5), 4.0)
    {'processors': 0.5, 'waited_for': 0.0}
    """
    if before is None or after is None:
        return None
    run_s, wait_s = after.run_s - before.run_s, after.wait_s - before.wait_s
    return {"processors": round(run_s / seconds, 2), "waited_for": round(wait_s / seconds, 2)}


class Worker:
    """`roompulse worker` as a process, with its log."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, str]) -> None:
        self.log_file = folder / f"{name}.log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROOMPULSE_")}
        env = inherited | {"PYTHONPATH": str(ROOT), "ROOMPULSE_WORKER__DATA_DIR": str(folder / name)} | dict(settings)
        self.started_ms = time.time_ns() / 1e6
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agents", "worker"], cwd=folder, env=env, stdout=log, stderr=log
            )

    def lines(self) -> list[dict[str, Any]]:
        """Return the log's lines so far."""
        return [orjson.loads(line) for line in self.log_file.read_bytes().splitlines() if line.endswith(b"}")]

    def readies(self) -> list[dict[str, Any]]:
        """Return each line that said which partitions it has."""
        return [line for line in self.lines() if line.get("message") == "ready"]

    def partitions(self) -> set[int]:
        """Return what it has by its newest word."""
        readies = self.readies()
        return set(readies[-1]["partitions"]) if readies else set()

    def await_ready(self, n_before: int = 0) -> float:
        """Return when it said once more that it is at work, in ms of the wall clock."""

        def is_ready() -> bool:
            if self.process.poll() is not None:
                last = self.log_file.read_text(errors="replace").splitlines()[-1:]
                msg = f"worker must run, got an end: {last}"
                raise TimeRunFailedError(msg)
            return len(self.readies()) > n_before

        await_true(is_ready, START_S, "a worker's word that it is ready")
        return time.time_ns() / 1e6

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait; a stop in order must end with 0."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if number == signal.SIGTERM and code:
            msg = f"worker must stop with 0, got {code}: {self.log_file.read_text(errors='replace').splitlines()[-1:]}"
            raise TimeRunFailedError(msg)


class Pacing:
    """The load's process: opened rooms, then events at its pace until it is ended."""

    def __init__(self, load: Load) -> None:
        self.probes: list[tuple[str, float]] = []
        self._facts: dict[str, dict[str, Any]] = {}
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.pacing", orjson.dumps(load._asdict()).decode()],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            fact = orjson.loads(line)
            if fact["what"] == "probe":
                self.probes.append((fact["room"], fact["sent_ms"]))
            else:
                self._facts[fact["what"]] = fact

    def await_open(self, timeout_s: float = START_S) -> None:
        """Return once the rooms are open and the pace begins."""

        def is_open() -> bool:
            if self._process.poll() not in (None, 0):
                msg = f"the load's process must run, got an end with {self._process.poll()}"
                raise TimeRunFailedError(msg)
            return "open" in self._facts

        await_true(is_open, timeout_s, "the load's rooms")

    def end(self) -> dict[str, Any]:
        """End the load if it still runs and return how it went."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(STOP_S)
        self._thread.join(STOP_S)
        if "done" not in self._facts or self._facts["done"]["n_failed"]:
            msg = f"the load must reach the broker, got {self._facts.get('done', 'an end')}"
            raise TimeRunFailedError(msg)
        return {name: value for name, value in self._facts["done"].items() if name != "what"}

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()


class Deployment:
    """Topics on a broker for benchmarks alone, and the workers on it; everything is gone in the end."""

    def __init__(self, bootstrap: str, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.bootstrap, self.folder = bootstrap, folder
        self.field = Field(bootstrap)
        app_id = f"time-{os.getpid()}-{time.monotonic_ns() % 10**9}"
        self.settings = {
            "ROOMPULSE_BROKER": f"kafka://{bootstrap}",
            "ROOMPULSE_PRIVACY_KEY": PRIVACY_KEY,
            "ROOMPULSE_CONTROL_KEY": CONTROL_KEY,
            "ROOMPULSE_KAFKA__APP_ID": app_id,
            "ROOMPULSE_KAFKA__PARTITIONS": str(PARTITIONS),
            "ROOMPULSE_WORKER__LOG_FORMAT": "json",
            **(settings or {}),
        }
        self.workers: list[Worker] = []
        self.loads: list[Pacing] = []
        self._app_id = app_id

    def make_topics(self) -> None:
        """Make the topics as `roompulse provision` does; one that is there stays as it is."""
        deployment = {"app_id": self._app_id, "partitions": PARTITIONS, "replication_factor": 1}
        given = {"broker": f"kafka://{self.bootstrap}", "kafka": deployment}
        kafka.inspect(Settings.model_validate(given), create=True)

    def start_worker(self, **extra: str) -> Worker:
        """Start one more worker."""
        worker = Worker(f"worker-{len(self.workers)}", self.folder, self.settings | extra)
        self.workers.append(worker)
        return worker

    def pace(self, load: Load) -> Pacing:
        """Begin a load."""
        pacing = Pacing(load)
        self.loads.append(pacing)
        return pacing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
        for pacing in self.loads:
            pacing.kill()
        self.field.delete(self.field.topics())


def percentiles(values: list[float]) -> dict[str, float | int | None]:
    """Return count, p50, p95, p99 and the largest, each rounded to a whole number; None without any.

    >>> percentiles([float(n) for n in range(1, 101)])
    {'n': 100, 'p50': 50, 'p95': 95, 'p99': 99, 'max': 100}
    """
    ranked = sorted(values)
    found: dict[str, float | int | None] = {"n": len(ranked)}
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        place = max(0, math.ceil(len(ranked) * share) - 1)
        found[name] = round(ranked[place]) if ranked else None
    return found
