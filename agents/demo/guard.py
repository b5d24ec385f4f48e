"""Run a `roompulse` command that ends with the process that started it, however that ends.

    python -m agents.demo.guard worker

Its standard input is the rope: the parent holds the other end and never writes. The end of the input means that the
parent is gone, `kill -9` included; nothing here is worth saving then.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _watch() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    sys.argv = ["roompulse", *sys.argv[1:]]
    runpy.run_module("agents", run_name="__main__")
