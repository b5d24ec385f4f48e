"""The worker of the demo: the stock command in a process of its own, with throw-away settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson

STOP_TIMEOUT_S: Final = 12.0
"""What a worker may need for its last snapshots and its farewell."""
KILL_TIMEOUT_S: Final = 5.0
_ROOT: Final = Path(__file__).resolve().parents[2]


class WorkerChild:
    """`roompulse worker`, alive between `start` and `stop` and never longer than this process.

    Parameters
    ----------
    settings : environment variables beside this process's own.
    folder : where its log goes; must exist, and be of no other use: it goes when this process is killed.
    """

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment = {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(paths)}
        self._log = folder / "worker.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is ready some seconds later."""
        # -P: a folder named `agents` where the user happens to be must not be taken for ours. A process group of its
        # own: Ctrl-C is the demo's to hear, which stops things in their order.
        command = [sys.executable, "-P", "-m", "agents.demo.guard", str(self._log.parent), "worker"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  (our own module and interpreter)
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment, process_group=0
            )

    @property
    def pid(self) -> int | None:
        """Its process id; None before `start`."""
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def last_words(self) -> str:
        """Return the last line it said, for a person."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        line = next((line.strip() for line in reversed(lines) if line.strip()), "")
        try:
            said = orjson.loads(line)
        except orjson.JSONDecodeError:
            return line.removeprefix("roompulse: ")
        return str(said.get("error") or said.get("message") or line) if isinstance(said, dict) else line

    def stop(self) -> int | None:
        """End it, gently at first; return how it ended, None if it never ran."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        if process.stdin is not None:
            process.stdin.close()
        return process.wait(KILL_TIMEOUT_S)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(KILL_TIMEOUT_S)
