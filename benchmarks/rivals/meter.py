"""What every contender is told and what it tells: one task as an argument, two lines of JSON on standard output.

Runs inside each contender's own process and environment, so it needs the standard library alone. The clock is the
system-wide monotonic one; processor time is the process's own, all its threads included.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

Job = Literal["count", "engine"]


class Task(NamedTuple):
    """One run of one contender."""

    job: Job
    broker: str
    """host:port[,host:port]"""
    topic: str
    """Holds the load and nothing else, but for the worker's own, which goes on where the load ends."""
    group: str
    """Consumer group and prefix of the topics that are this run's own."""
    out_topic: str
    n_records: int
    ends: list[int]
    """Where the load ends in each partition."""
    save_interval_s: float
    """How much work may be repeated after a crash: the same for every contender."""
    folder: str
    """For local state; gone after the run."""
    embedded: bool
    """The broker is the embedded one, which makes topics by itself and answers an empty fetch late."""

    def consumer(self) -> dict[str, Any]:
        """Return what a librdkafka consumer needs to be told beyond its defaults."""
        return {"fetch.wait.max.ms": 40} if self.embedded else {}

    def producer(self) -> dict[str, Any]:
        """Return settings of a librdkafka producer that sends in large batches, each confirmed by every broker."""
        return {"linger.ms": 50, "acks": "all", "message.max.bytes": 8 * 1024 * 1024}


def peak_bytes() -> int | None:
    """Return the most memory this process had; None where the system does not say.

    Not `getrusage`: a process that was forked from a larger one begins with the larger one's peak.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def read_task() -> Task:
    """Return the task this process was started for."""
    return Task(**json.loads(sys.argv[1]))


class Meter:
    """Counts records, and tells when the first was taken and when the last was applied and everything durable."""

    def __init__(self, n_records: int) -> None:
        self.n_records = n_records
        self.n_taken = 0
        self.n_outputs = 0
        self._out = sys.stdout
        self._begun = False

    def take(self, n: int = 1) -> bool:
        """Note records just before they are applied; True with the last of the load."""
        if not self._begun:
            self._begun = True
            self._tell("first")
        self.n_taken += n
        return self.n_taken >= self.n_records

    def done(self, n_counted: int, *packages: str) -> None:
        """Tell that the load is applied and durable; `n_counted` is what the contender's own state says of it."""
        self._tell(
            "done",
            n_counted=n_counted,
            n_outputs=self.n_outputs,
            peak_bytes=peak_bytes(),
            versions={name: metadata.version(name) for name in packages},
        )

    def _tell(self, what: str, **more: Any) -> None:
        line = {"what": what, "monotonic_s": time.monotonic(), "cpu_s": time.process_time(), **more}
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()
