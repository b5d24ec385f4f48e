"""A worker starts itself again with huge pages, once, with its arguments, and loses no signal over it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from agents.pages import ALLOCATOR, HUGE, TUNABLES, is_possible

PROGRAM = """
import os, signal, sys
from agents.pages import restart_with_huge_pages, take_signals
print("start", os.environ.get("PYTHONMALLOC"), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
restart_with_huge_pages()
signal.signal(signal.SIGTERM, lambda *_: print("stopped", flush=True))
take_signals()
print("goes on", flush=True)
"""
HALTED = PROGRAM.replace("restart_with_huge_pages()\n", "os.kill(os.getpid(), signal.SIGTERM)\n").replace(
    "print(", "signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,)); print(", 1
)


def run(program: str, **environment: str) -> list[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in (ALLOCATOR, TUNABLES)}
    command = [sys.executable, "-c", program, "some", "arguments"]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


@pytest.mark.skipif(not is_possible(), reason="this system hands out no huge pages")
def test_it_starts_again_once_with_the_same_arguments() -> None:
    first, second, last = run(PROGRAM)
    assert first == "start None None ['some', 'arguments']"
    assert second == f"start malloc {HUGE} ['some', 'arguments']"
    assert last == "goes on"


@pytest.mark.skipif(not is_possible(), reason="this system hands out no huge pages")
def test_other_tunables_stay() -> None:
    assert run(PROGRAM, GLIBC_TUNABLES="glibc.malloc.arena_max=4")[1].split()[2] == f"glibc.malloc.arena_max=4:{HUGE}"


@pytest.mark.parametrize("choice", [{ALLOCATOR: "pymalloc"}, {TUNABLES: HUGE}])
def test_what_somebody_chose_otherwise_stands(choice: dict[str, str]) -> None:
    assert len(run(PROGRAM, **choice)) == 2


def test_a_signal_that_came_meanwhile_is_taken() -> None:
    assert run(HALTED)[1:] == ["stopped", "goes on"]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
