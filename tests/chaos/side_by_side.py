"""Several seeds at once, each in a process of its own: a seed mostly waits for sessions to end and groups to form."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager

STOP_S = 30.0
"""How long a seed may take to end its own processes."""


def run_apart(seeds: Iterable[int], options: Sequence[str], n_jobs: int) -> Iterator[tuple[str, bool]]:
    """Run each seed with the same options, `n_jobs` at a time; yield what each said and whether all was well.

    They come in the order in which they end. Whoever stops listening ends those that still run.
    """
    running: set[subprocess.Popen[str]] = set()

    def run(seed: int) -> tuple[str, bool]:
        command = [sys.executable, "-m", "tests.chaos", "--seeds", str(seed), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            running.add(process)
            said = process.communicate()[0]
            running.discard(process)
        return said, process.returncode == 0

    with ThreadPoolExecutor(n_jobs) as pool, _ended(running, pool):
        for done in as_completed([pool.submit(run, seed) for seed in seeds]):
            yield done.result()


@contextmanager
def _ended(running: set[subprocess.Popen[str]], pool: ThreadPoolExecutor) -> Iterator[None]:
    try:
        yield
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        left = list(running)
        for process in left:
            process.terminate()
        for process in left:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
