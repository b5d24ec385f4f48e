"""A Kafka broker without Kafka, for the demo and for tests: librdkafka's mock cluster in a process of its own.

The mock cluster comes inside the `confluent-kafka` wheel. It speaks the real protocol over TCP, consumer groups and
committed offsets included, but it is a protocol stand-in by its authors' own words ("experimental", "a reasonable
subset of Kafka protocol operations"). Keys, values, headers, order, compressed batches and the producer's time stamps
(CreateTime, any year) come out as they went in. The rest, measured with librdkafka 2.16; no setting changes it:

- **Memory only, the last 5 MiB a partition.** That is bytes as sent, so compressed batches hold more: of 120,000 JSON
  events of 187 bytes, gzip kept all and plain batches the last 25,800. At most 100,000 batches. Older records vanish
  without a word, from changelogs too. A batch so big that no other may stay is acknowledged and can never be read.
- **No topic creation.** The first metadata request makes a topic, always with 4 partitions. Nothing is ever deleted,
  compacted, stamped by the broker (an acknowledgement's time stamp is always 1234) or found by time stamp; groups
  cannot be listed; there is no access control.
- **One batch a partition and fetch.** 3,200 batches a second can be read, whether they hold one record or thousands:
  let producers linger.
- **A fetch that finds nothing is answered when its wait is over**, even if a record arrives meanwhile. Latency is half
  the consumer's `fetch_max_wait_ms` in the median and all of it at worst: set 20 to 50.
- **Groups need a session timeout above 3 s, the same in every member** (4 to 6 s is good): the first join takes 3 s
  and throws out whoever has a shorter one. Each later change takes the session timeout less 1 s.
- **A follower that syncs after its leader is refused** (`INVALID_REQUEST`), which aiokafka takes for fatal. The leader
  must be slow to assign: 0.25 s sufficed for followers busy for 0.1 s at a time, with 0 s nearly every join failed.
- **All members must name the same assignor first**, or the broker aborts.
- **`acks=0` loses every record**: the mock answers where no answer is expected.

For anything that must last, and for numbers that should mean something, use a real Kafka (`docker compose up`).
"""

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from agents.errors import ProgramError
from agents.words import pick
from schemas.base import Lang

DEFAULT_PARTITIONS = 4
"""How many partitions every topic of the embedded broker has."""

MAX_PARTITION_BYTES = 5 * 1024 * 1024
"""How many bytes of batches (as sent, compressed or not) a partition keeps; the oldest go first."""

CLIENT_API_VERSION = (2, 3)
"""What to tell kafka-python (`api_version=`) about this broker, and about no other.

Left to find out, it logs an error at every connection (the answer is not one it can decode), and from 2.4 on it says
goodbye in a way the broker misreads: closed members of a group linger until their session ends.
"""

START_TIMEOUT_S = 20.0
"""How long the child may take to come up. It needs 0.1 s; a cold disk on a busy machine needs seconds."""

STOP_TIMEOUT_S = 5.0
"""How long the child may take to go by itself before it is killed."""

_CHILD = Path(__file__).resolve().with_name("embedded.py")

Cause = Literal["missing", "failed", "timeout"]


class BrokerUnavailableError(ProgramError, RuntimeError):
    """The embedded broker could not be started; its words say why and what to do instead.

    Parameters
    ----------
    cause
        `missing`: confluent-kafka has no build for this platform; `failed`: the child ended or reported an error;
        `timeout`: it did not come up in time.
    detail
        What was found instead, or the time allowed.
    lang
        The language of `str(error)`.
    """

    def __init__(self, cause: Cause, detail: str, lang: Lang = "en") -> None:
        super().__init__(cause, detail, lang)
        self.cause: Cause = cause
        self.detail = detail
        self.lang: Lang = lang

    def __str__(self) -> str:
        return self.message(self.lang)

    def message(self, lang: Lang) -> str:
        """Return the one line for a person: what is wrong, and the way without an embedded broker."""
        match self.cause:
            case "missing":
                en = f"the embedded broker must find confluent-kafka, got {self.detail}"
                zh = f"内置消息服务需要 confluent-kafka，实际：{self.detail}"
            case "failed":
                en = f"the embedded broker must start, got {self.detail}"
                zh = f"内置消息服务未能启动：{self.detail}"
            case "timeout":
                en = f"the embedded broker must answer within {self.detail}, got nothing"
                zh = f"内置消息服务须在 {self.detail} 内就绪，实际没有应答"
        return pick(
            lang,
            f"{en}; start a real Kafka with `docker compose up -d` and set ROOMPULSE_BROKER=kafka://host:port",
            f"{zh}；请用 `docker compose up -d` 启动真正的 Kafka，并设置 ROOMPULSE_BROKER=kafka://host:port",
        )


class EmbeddedBroker:
    """A broker on free loopback ports, alive between `start` and `stop` and never longer than this process.

    It runs in a child process, so that workers can be killed without losing it, and it survives Ctrl-C, so that the
    caller decides who stops first. The child ends with its parent however that ends, `kill -9` included.

    Parameters
    ----------
    n_brokers
        How many brokers the cluster has; each gets a port of its own.
    topics
        Topics to make at once. Others come to be when a client first asks for them.
    python
        The interpreter to run the child with; this process's own by default.
    start_timeout_s
        How long `start` waits for the child.
    lang
        The language of its errors.
    """

    def __init__(
        self,
        *,
        n_brokers: int = 1,
        topics: Sequence[str] = (),
        python: str | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
        lang: Lang = "en",
    ) -> None:
        if n_brokers < 1:
            raise ValueError(f"n_brokers must be at least 1, got {n_brokers}")
        self._n_brokers = n_brokers
        self._topics = tuple(topics)
        self._python = python
        self._start_timeout_s = start_timeout_s
        self._lang: Lang = lang
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._bootstrap: str | None = None

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:port`, with more than one broker a comma-separated list. Known once started."""
        if self._bootstrap is None:
            raise RuntimeError("the embedded broker must be started before its address is known, got no start()")
        return self._bootstrap

    @property
    def url(self) -> str:
        """The address as `ROOMPULSE_BROKER` takes it: `kafka://` and `bootstrap`."""
        return f"kafka://{self.bootstrap}"

    @property
    def pid(self) -> int:
        """The child's process id. Known once started."""
        if self._pid is None:
            raise RuntimeError("the embedded broker must be started before it has a process id, got no start()")
        return self._pid

    @property
    def is_running(self) -> bool:
        """Whether the child is alive now."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the child and wait for its address; does nothing while it runs.

        Raises
        ------
        BrokerUnavailableError
            confluent-kafka is missing, or the child did not come up in time. No process is left behind.
        """
        if self.is_running:
            return
        self.stop()
        with tempfile.TemporaryFile() as errors:
            self._process = self._spawn(errors)
            self._pid = self._process.pid
            try:
                self._bootstrap = self._await_address(self._process, errors)
            except BaseException:  # a KeyboardInterrupt in the middle must not leave a process either
                self._process.kill()
                self.stop()
                raise

    def stop(self) -> None:
        """End the child and wait for it; does nothing when there is none."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()  # the child ends when its input does
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        # -P: the child's folder must not be an import path, its neighbours have common names. Popen gives it these
        # three descriptors only, and the write end of its input is close-on-exec, so no sibling keeps it alive.
        command = [self._python or sys.executable, "-P", str(_CHILD), str(self._n_brokers), *self._topics]
        try:
            return subprocess.Popen(  # noqa: S603  (our own file and interpreter; topics are arguments, not a shell's)
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        except OSError as error:
            raise BrokerUnavailableError("failed", str(error), self._lang) from error

    def _await_address(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
        assert process.stdout is not None  # noqa: S101  (tells mypy what stdout=PIPE means)
        line = _read_line(process.stdout.fileno(), self._start_timeout_s)
        if line is None:
            raise BrokerUnavailableError("timeout", f"{self._start_timeout_s:g} s", self._lang)
        word, _, text = line.partition(" ")
        if word == "ready":
            return text
        if word == "missing":
            raise BrokerUnavailableError("missing", text, self._lang)
        detail = text if word == "failed" else line or _last_line(errors) or "an end without a word"
        raise BrokerUnavailableError("failed", detail, self._lang)


def _read_line(descriptor: int, timeout_s: float) -> str | None:
    """Return the first line (without its end) or what came before the end of file; None when time ran out."""
    deadline_s = time.monotonic() + timeout_s
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    received = b""
    while b"\n" not in received:
        left_ms = (deadline_s - time.monotonic()) * 1000
        if left_ms <= 0 or not poller.poll(left_ms):
            return None
        chunk = os.read(descriptor, 4096)
        if not chunk:
            break
        received += chunk
    return received.partition(b"\n")[0].decode(errors="replace").strip()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
