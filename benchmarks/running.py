"""One run: one contender's process on the load, from its topics to its numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from agents import kafka
from agents.errors import ProgramError
from benchmarks.field import PARTITIONS, Field, Load
from benchmarks.rivals.engines import CONTROL_KEY, PRIVACY_KEY
from benchmarks.rivals.meter import Job, Task
from schemas.settings import Settings

ROOT: Final = Path(__file__).resolve().parents[1]
OURS: Final = "roompulse"
RUN_TIMEOUT_S: Final = 600.0
TABLES: Final[dict[Job, str]] = {"count": "counts", "engine": "rooms"}


class Contender(NamedTuple):
    """How to start one contender, and what it can do."""

    module: str
    jobs: tuple[Job, ...]
    is_slow: bool = False
    """Gets the first of the records alone: all would take minutes to say the same."""
    is_foreign: bool = False
    """Lives in the rivals' environment."""
    needs_kafka: bool = False
    """Does not start on the embedded broker."""
    has_table: bool = False
    """A Faust table, whose changelog must be there."""
    words: tuple[str, ...] = ()


CONTENDERS: Final[dict[str, Contender]] = {
    OURS: Contender("ours", ("count", "engine")),
    "faust": Contender("stock_faust", ("count",), is_slow=True, has_table=True),
    "faust-take": Contender("stock_faust", ("count", "engine"), is_slow=True, has_table=True, words=("take",)),
    "quix": Contender("quix", ("count", "engine"), is_foreign=True, needs_kafka=True),
    "bytewax": Contender("bytewax_flow", ("count", "engine"), is_foreign=True),
}


class RunFailedError(ProgramError):
    """One contender's process ended without a result."""


class Run:
    """One contender, one job, once.

    Parameters
    ----------
    field : the broker, with the load.
    name, job, number : which contender does what, and for the how manieth time.
    load : what it reads.
    save_interval_s : how much work may be repeated after a crash.
    python : the interpreter it runs in.
    timeout_s : a run that takes longer has failed.
    """

    def __init__(
        self,
        field: Field,
        name: str,
        job: Job,
        number: int,
        load: Load,
        *,
        save_interval_s: float,
        python: Path | None = None,
        timeout_s: float = RUN_TIMEOUT_S,
    ) -> None:
        self._field, self.name, self.job, self._load = field, name, job, load
        self._contender = CONTENDERS[name]
        self._group = f"bench-{job}-{name}-{number}-{os.getpid()}"
        self._interval_s, self._timeout_s = save_interval_s, timeout_s
        self._python = python if python is not None and self._contender.is_foreign else Path(sys.executable)

    def measure(self) -> dict[str, Any]:
        """Return the run's numbers; its folder and topics are gone afterwards.

        Raises
        ------
        RunFailedError
            The process failed, took too long, or its state does not hold every record.
        """
        folder = tempfile.mkdtemp(prefix="roompulse-bench-")
        try:
            out_topic = f"{self._group}-out"
            self._make_topics(out_topic)
            before = self._field.standing()
            first, done = self._watch(self._task(folder, out_topic), folder)
            written = self._field.written_since(before)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self._field.clear()
        n_records = self._load.n_records
        if done["n_counted"] != n_records:
            msg = f"{self.name} must have applied {n_records} records, got {done['n_counted']}"
            raise RunFailedError(msg)
        wall_s, cpu_s = done["monotonic_s"] - first["monotonic_s"], done["cpu_s"] - first["cpu_s"]
        n_millions = n_records / 1e6
        return {
            "n_records": n_records,
            "n_outputs": done["n_outputs"],
            "wall_s": round(wall_s, 3),
            "cpu_s": round(cpu_s, 3),
            "events_per_s": round(n_records / max(wall_s, 1e-9)),
            "cpu_s_per_million": round(cpu_s / n_millions, 2),
            "mb_out_per_million": None if written.n_bytes is None else round(written.n_bytes / 1e6 / n_millions, 1),
            "records_out_per_million": round(written.n_records / n_millions),
            "peak_mib": None if done["peak_bytes"] is None else round(done["peak_bytes"] / 2**20),
            "versions": done["versions"],
        }

    def _task(self, folder: str, out_topic: str) -> Task:
        return Task(
            job=self.job,
            broker=self._field.bootstrap,
            topic=self._load.topic,
            group=self._group,
            out_topic=out_topic,
            n_records=self._load.n_records,
            ends=self._load.ends,
            save_interval_s=self._interval_s,
            folder=folder,
            embedded=self._field.embedded,
        )

    def _settings(self, folder: str) -> dict[str, str]:
        """Return the worker's settings as variables: the log is played in its own time, so it writes no ticks."""
        return {
            "ROOMPULSE_BROKER": f"kafka://{self._field.bootstrap}",
            "ROOMPULSE_PRIVACY_KEY": PRIVACY_KEY,
            "ROOMPULSE_CONTROL_KEY": CONTROL_KEY,
            "ROOMPULSE_KAFKA__APP_ID": self._group,
            "ROOMPULSE_WORKER__CLOCK": "false",
            "ROOMPULSE_WORKER__DATA_DIR": folder,
            "ROOMPULSE_WORKER__LOG_FORMAT": "json",
            "ROOMPULSE_WORKER__SNAPSHOT_INTERVAL_S": str(self._interval_s),
        }

    def _make_topics(self, out_topic: str) -> None:
        if self.name == OURS:
            deployment = {"app_id": self._group, "partitions": PARTITIONS, "replication_factor": 1}
            kafka.inspect(
                Settings.model_validate({"broker": f"kafka://{self._field.bootstrap}", "kafka": deployment}),
                create=True,
            )
        else:
            tables = [f"{self._group}-{TABLES[self.job]}-changelog"] if self._contender.has_table else []
            self._field.make([out_topic, *tables], {"max.message.bytes": str(kafka.MAX_SNAPSHOT_BYTES)})

    def _watch(self, task: Task, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run the process and return its two lines."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROOMPULSE_")}
        variables = inherited | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        if self.name == OURS:
            variables |= self._settings(folder)
        module = f"benchmarks.rivals.{self._contender.module}"
        command = [str(self._python), "-m", module, orjson.dumps(task._asdict()).decode(), *self._contender.words]
        lines: dict[str, dict[str, Any]] = {}
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=errors)
            # A thread: the process may hang without a word, and then no line ever comes.
            watchdog = threading.Timer(self._timeout_s, process.kill)
            watchdog.start()
            try:
                for line in process.stdout or ():
                    if line.startswith(b'{"what"'):
                        told = orjson.loads(line)
                        lines[told["what"]] = told
                    if "done" in lines:
                        break
            finally:
                watchdog.cancel()
                process.kill()  # what it does after its last line is no part of the job
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
            if "done" not in lines:
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                msg = f"{self.name} must finish {self.job}, got {last[0][:300] if last else 'an end without a word'}"
                raise RunFailedError(msg)
        return lines["first"], lines["done"]
