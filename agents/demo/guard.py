"""Run a `roompulse` command that ends with the process that started it, however that ends.

    python -m agents.demo.guard FOLDER worker

Its standard input is the rope: the parent holds the other end and never writes. The end of the input means that the
parent is gone, `kill -9` included; nothing is worth saving then, and FOLDER, the parent's throw-away one, goes too.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import sys
import threading


def _watch(folder: str) -> None:
    while os.read(0, 4096):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_watch, args=(sys.argv[1],), daemon=True).start()
    sys.argv = ["roompulse", *sys.argv[2:]]
    runpy.run_module("agents", run_name="__main__")
