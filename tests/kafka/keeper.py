"""One broker's guardian: it runs a command that never outlives the process which started the guardian.

    python keeper.py LOG FOLDER COMMAND...

It writes `running PID` to standard output. The word `stop` on standard input ends the command gently. When standard
input just ends, its parent is gone, `kill -9` included: then the command is killed and FOLDER removed; with an empty
FOLDER the data is to be kept, and the end is gentle. It ends when the command does, with the command's exit code.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

STOP_TIMEOUT_S = 30.0
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Run the command until it ends, or is to end."""
    # Ctrl-C and a closed terminal reach every process of the group. The parent decides; java inherits the deafness.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log, folder, *command = arguments
    libc = ctypes.CDLL(None)
    with Path(log).open("ab") as file:
        # The kernel kills the command if even this process is killed.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509  (one thread)
        )
    gently = False
    try:
        sys.stdout.write(f"running {process.pid}\n")
        sys.stdout.flush()
        gently = _wait(process) or not folder
    finally:
        _end(process, gently)
    if folder and not gently:
        shutil.rmtree(folder, ignore_errors=True)
    return abs(int(process.returncode))


def _wait(process: subprocess.Popen[bytes]) -> bool:
    """Return once the command ended or was to be stopped (True), or once standard input ended (False)."""
    ended = os.pidfd_open(process.pid)
    readable, _, _ = select.select([sys.stdin.fileno(), ended], [], [])
    return ended in readable or os.read(sys.stdin.fileno(), 64).startswith(b"stop")


def _end(process: subprocess.Popen[bytes], gently: bool) -> None:
    if gently:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        else:
            return
    process.kill()
    process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
