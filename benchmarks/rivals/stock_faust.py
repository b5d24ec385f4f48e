"""Stock Faust, as its documentation shows it: a Record, a Table, an agent; `faust-take` reads by batches.

Count: one event at a time, one increment and so one changelog record each. With `take` (Faust's only way to batch) a
batch's increments of a key are one. Engine: `pipeline.Engine` a partition, fed by `take_events`; a room's snapshot goes
into the table when one of its records comes and the last one is old enough.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from typing import Any

import faust

from benchmarks.rivals.engines import make_engine, restored, save
from benchmarks.rivals.meter import Meter, Task, read_task

BATCH = 2_000
WITHIN_S = 1.0


class RoomEvent(faust.Record, serializer="json"):
    """The fields every event has; others are ignored."""

    type: str
    event_id: str
    room_id: str
    ts: int


def make_app(task: Task) -> faust.App:
    """Return an application for a broker whose topics exist."""
    return faust.App(
        task.group,
        broker=f"kafka://{task.broker}".replace(",", ";kafka://"),
        store="memory://",  # the changelog is the durable copy; RocksDB would cost more an event
        datadir=task.folder,
        autodiscover=False,
        topic_partitions=len(task.ends),
        topic_replication_factor=1,
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_commit_interval=task.save_interval_s,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=BATCH * 4,
        producer_linger=0.05,
        producer_max_request_size=8 * 1024 * 1024,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )


async def finish(app: faust.App, meter: Meter, n_counted: int) -> None:
    """Wait until everything is durable, tell it, and end at once: what follows is no part of the job."""
    await app.producer.flush()
    await app.consumer.commit()
    meter.done(n_counted, "faust-streaming", "aiokafka")
    os._exit(0)


def keep(table: Any, partition: int, key: str, value: Any) -> None:
    """Set a table's value in a batch: it has events of several partitions, and `table[key] = value` knows only one."""
    table.data[key] = value
    table.send_changelog(partition, key, value)


def count(app: faust.App, task: Task, meter: Meter, *, by_batches: bool) -> None:
    """Count a room's events in a table."""
    topic = app.topic(task.topic, key_type=str, value_type=RoomEvent, partitions=len(task.ends))
    counts = app.Table("counts", default=int, key_type=str, value_type=int, partitions=len(task.ends))

    async def one_by_one(stream: Any) -> None:
        async for event in stream:
            is_last = meter.take()
            counts[event.room_id] += 1
            if is_last:
                await finish(app, meter, sum(counts.values()))

    async def in_batches(stream: Any) -> None:
        async for events in stream.take_events(BATCH, within=WITHIN_S):
            is_last = meter.take(len(events))
            sums = Counter((event.message.partition, event.value.room_id) for event in events)
            for (partition, room_id), n in sums.items():
                keep(counts, partition, room_id, counts[room_id] + n)
            if is_last:
                await finish(app, meter, sum(counts.values()))

    app.agent(topic)(in_batches if by_batches else one_by_one)


def engine(app: faust.App, task: Task, meter: Meter) -> None:
    """Run this project's engine; the table holds its snapshots."""
    topic = app.topic(
        task.topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw",
        partitions=len(task.ends),
    )  # fmt: skip
    schema: Any = faust.Schema(key_type=str, value_type=bytes, value_serializer="raw")
    table = app.Table("rooms", key_type=str, value_type=bytes, schema=schema, partitions=len(task.ends))
    out = app.topic(task.out_topic, key_serializer="raw", value_serializer="raw", partitions=len(task.ends))
    engines: dict[int, Any] = {}
    saved_s: dict[str, float] = {}

    async def agent(stream: Any) -> None:
        async for events in stream.take_events(BATCH, within=WITHIN_S):
            is_last = meter.take(len(events))
            batches: dict[int, list[Any]] = {}
            for event in events:
                message = event.message
                batches.setdefault(message.partition, []).append(
                    (message.offset, round(message.timestamp * 1_000), message.value, message.key)
                )
            for partition, records in batches.items():
                if partition not in engines:
                    engines[partition] = make_engine(partition)
                rooms = dict.fromkeys(record[3].decode() for record in records)
                restored(engines[partition], {room: table.get(room) for room in rooms if room not in saved_s})
                for output in engines[partition].process(records):
                    meter.n_outputs += 1
                    await out.send(key=output.key.encode(), value=output.json())
                now_s = time.monotonic()
                for room in rooms:
                    if now_s - saved_s.setdefault(room, now_s) >= task.save_interval_s or is_last:
                        saved_s[room] = now_s
                        keep(table, partition, room, save(engines[partition], room))
            if is_last:
                await finish(app, meter, sum(each.counters.n_records for each in engines.values()))

    app.agent(topic)(agent)


def main() -> None:
    """Run until the load is done."""
    task = read_task()
    meter = Meter(task.n_records)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app = make_app(task)
    if task.job == "count":
        count(app, task, meter, by_batches=sys.argv[2:] == ["take"])
    else:
        engine(app, task, meter)
    from faust.worker import Worker  # noqa: PLC0415 - it reads the loop that was set above

    runner = Worker(app, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False)
    runner.spinner = None
    runner.execute_from_commandline()


if __name__ == "__main__":
    main()
