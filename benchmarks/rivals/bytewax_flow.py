"""Bytewax with its recovery store, one worker thread, an epoch each save interval, its own Kafka source and sink.

Count: a batch is decoded and counted at once, and each key's sum goes to a `stateful_map`. Engine: `pipeline.Engine` a
partition behind `stateful_batch`, keyed by partition; at an epoch's end the framework takes the whole engine's
snapshot. The source ends where the topic ends, which closes the last epoch and so makes everything durable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main

from benchmarks.rivals.engines import make_engine
from benchmarks.rivals.meter import Meter, Task, read_task

BATCH = 5_000


class Newest(DynamicSink[Any]):
    """A sink that keeps each key's newest value: what the framework's state is in the end."""

    def __init__(self, found: dict[str, int]) -> None:
        self._found = found

    def build(self, *_: Any) -> StatelessSinkPartition[Any]:
        """Return the one partition there is."""
        return NewestPartition(self._found)


class NewestPartition(StatelessSinkPartition[Any]):
    """One worker's part of the sink."""

    def __init__(self, found: dict[str, int]) -> None:
        self._found = found

    def write_batch(self, items: list[Any]) -> None:
        """Keep the newest of each key."""
        self._found.update(items)


class Guest(StatefulBatchLogic[Any, Any, Any]):
    """One partition's engine; the framework saves and restores it."""

    def __init__(self, snapshots: dict[str, bytes] | None, engines: list[Any]) -> None:
        self.engine = make_engine(0)
        if snapshots is not None:
            self.engine.restore(snapshots)
        engines.append(self.engine)

    def on_batch(self, values: list[Any]) -> tuple[Iterable[Any], bool]:
        """Apply one batch of messages of the partition."""
        self.engine.partition = values[0].partition
        return self.engine.process([(m.offset, m.timestamp[1], m.value, m.key) for m in values]), self.RETAIN

    def snapshot(self) -> dict[str, bytes]:
        """Return the whole state: which rooms changed since the last epoch is nothing the framework asks for."""
        return self.engine.snapshot()


def count(messages: Any, meter: Meter) -> dict[str, int]:
    """Count a room's events in keyed state; returns the counts as they will be."""
    counts: dict[str, int] = {}

    def decode(batch: list[Any]) -> Iterable[tuple[str, int]]:
        meter.take(len(batch))
        loads = orjson.loads
        return Counter(loads(message.value)["room_id"] for message in batch).items()

    def add(n: int | None, more: int) -> tuple[int, int]:
        total = (n or 0) + more
        return total, total

    totals = op.stateful_map("count", op.flat_map_batch("decode", messages, decode), add)
    op.output("newest", totals, Newest(counts))
    return counts


def engine(messages: Any, meter: Meter, task: Task) -> list[Any]:
    """Run this project's engine; returns the engines as they will be."""
    engines: list[Any] = []

    def by_partition(batch: list[Any]) -> Iterable[tuple[str, Any]]:
        meter.take(len(batch))
        return [(str(message.partition), message) for message in batch]

    def to_kafka(batch: list[Any]) -> Iterable[KafkaSinkMessage[bytes, bytes]]:
        meter.n_outputs += len(batch)
        return [KafkaSinkMessage(output.key.encode(), output.json()) for _, output in batch]

    keyed = op.flat_map_batch("by partition", messages, by_partition)
    outputs = op.stateful_batch("engine", keyed, lambda snapshots: Guest(snapshots, engines))
    op.output(
        "out", op.flat_map_batch("encode", outputs, to_kafka), KafkaSink([task.broker], task.out_topic, task.producer())
    )
    return engines


def main() -> None:
    """Run until the load is done."""
    task = read_task()
    meter = Meter(task.n_records)
    flow = Dataflow("rival")
    source = KafkaSource([task.broker], [task.topic], tail=False, batch_size=BATCH, add_config=task.consumer())
    messages = op.input("events", flow, source)
    counts: dict[str, int] = {}
    engines: list[Any] = []
    if task.job == "count":
        counts = count(messages, meter)
    else:
        engines = engine(messages, meter, task)
    init_db_dir(Path(task.folder), 1)
    run_main(
        flow,
        epoch_interval=timedelta(seconds=task.save_interval_s),
        recovery_config=RecoveryConfig(task.folder, backup_interval=timedelta(0)),
    )
    n_counted = sum(counts.values()) + sum(each.counters.n_records for each in engines)
    meter.done(n_counted, "bytewax", "confluent-kafka")


if __name__ == "__main__":
    main()
