"""Play rooms in several processes at once: what comes out does not depend on how many there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Each(Protocol):
    """Something that applies a function of a module to every task and returns the results in the tasks' order."""

    def __call__(self, what: str, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """Tell of `what` as it goes on."""


def one_by_one(what: str, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """Apply in this process, silently."""
    del what
    return [function(task) for task in tasks]


@contextmanager
def spread(n_processes: int, tell: Callable[[str], None]) -> Iterator[Each]:
    """Give what applies a function in `n_processes` processes, and tells how far it is."""
    began_s = time.monotonic()
    # Spawned, not forked: a process that inherits threads of libraries may hang.
    with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:

        def each(what: str, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
            futures = [pool.submit(function, task) for task in tasks]
            found: list[Result] = []
            for number, future in enumerate(futures, start=1):
                found.append(future.result())
                tell(f"{what}: {number} of {len(tasks)}, {time.monotonic() - began_s:.0f} s since the start")
            return found

        yield each
