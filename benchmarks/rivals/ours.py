"""`roompulse worker` as it is, told when the load begins and ends by the engines it runs.

For the job "count" its engine is the counting one; transport, snapshots, commits and clock are the worker's own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import agents.app
from agents import kafka, logs
from agents.cli.worker import serve
from agents.config import load_settings
from benchmarks.rivals.engines import CountingEngine
from benchmarks.rivals.meter import Meter, Task, read_task
from pipeline import Engine


def watched(base: type[Any], task: Task, meter: Meter, is_done: asyncio.Event) -> type[Any]:
    """Return the engine class with the meter around `process`; records after the load are not counted."""

    class Watched(base):  # either engine
        made: list[Any] = []  # noqa: RUF012 - every engine of this process

        def __init__(self, *args: Any, partition: int = 0, **kwargs: Any) -> None:
            super().__init__(*args, partition=partition, **kwargs)
            self.made.append(self)
            self.end = task.ends[partition]

        def process(self, records: Any) -> Any:
            """Apply records."""
            records = list(records)
            n = len(records) if records[-1][0] < self.end else sum(record[0] < self.end for record in records)
            is_last = meter.take(n)
            outputs = super().process(records)
            meter.n_outputs += len(outputs)
            if is_last:
                is_done.set()
            return outputs

    return Watched


def n_counted(engines: list[Any], task: Task) -> int:
    """Return how many records of the load the engines' own state knows."""
    if task.job == "count":
        return sum(n for engine in engines for n in engine.counts.values())
    return min(task.n_records, sum(int(engine.counters.n_records) for engine in engines))


def main() -> None:
    """Run the worker until the load is applied, its outputs are confirmed, its snapshots written and committed."""
    task = read_task()
    sys.argv[1:] = []
    settings = load_settings()
    logs.configure(settings.worker)
    cluster = kafka.ready(settings)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    meter, is_done = Meter(task.n_records), asyncio.Event()
    engine = watched(CountingEngine if task.job == "count" else Engine, task, meter, is_done)
    if not hasattr(agents.app, "Engine"):
        msg = "the worker must make its engines by the name agents.app.Engine, got none: correct this module"
        raise RuntimeError(msg)
    vars(agents.app)["Engine"] = engine
    worker = agents.app.Worker(settings, cluster)

    async def finish() -> None:
        await is_done.wait()
        await worker.rooms.save_all()
        await worker.app.consumer.commit()
        meter.done(n_counted(engine.made, task), "faust-streaming", "aiokafka")
        os._exit(0)

    worker.app.task(finish)
    serve(worker.app, loop)


if __name__ == "__main__":
    main()
