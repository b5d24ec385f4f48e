"""Quix Streams with its state store (RocksDB beside a changelog topic), committed every save interval.

Count: JSON by the framework's own deserializer, a counter a key in its state. Engine: `pipeline.Engine` a partition,
record by record as the framework hands them on; a room's snapshot goes into its state when one of its records comes
and the last one is old enough: state is reachable only for the key of the record at hand.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from quixstreams import Application, State, message_context
from quixstreams.models import Topic
from quixstreams.models.serializers import Serializer

from benchmarks.rivals.engines import make_engine, restored, save
from benchmarks.rivals.meter import Meter, Task, read_task


class OutputSerializer(Serializer):
    """The engine's messages as bytes."""

    def __call__(self, value: Any, ctx: Any) -> bytes:  # noqa: ARG002 - the framework's signature
        """Return the message's JSON."""
        encoded: bytes = value.json()
        return encoded


def make_app(task: Task) -> Application:
    """Return an application that commits every save interval."""
    return Application(
        broker_address=task.broker,
        consumer_group=task.group,
        auto_offset_reset="earliest",
        commit_interval=task.save_interval_s,
        state_dir=task.folder,
        consumer_extra_config=task.consumer(),
        producer_extra_config=task.producer(),
        loglevel=logging.ERROR,
    )


def input_topic(app: Application, task: Task, **how: Any) -> Topic:
    """Return the topic of the load, which exists."""
    return app.topic(task.topic, key_deserializer="str", **how)


def count(app: Application, task: Task, meter: Meter) -> dict[str, int]:
    """Count a room's events in the framework's state; returns the counts as they will be."""
    counts: dict[str, int] = {}

    def increment(value: dict[str, Any], state: State) -> None:
        is_last = meter.take()
        room_id = value["room_id"]
        n = state.get("n", 0) + 1
        state.set("n", n)
        counts[room_id] = n
        if is_last:
            app.stop()

    app.dataframe(input_topic(app, task, value_deserializer="json")).update(increment, stateful=True)
    return counts


def engine(app: Application, task: Task, meter: Meter) -> dict[int, Any]:
    """Run this project's engine; returns the engines of the partitions as they will be."""
    engines: dict[int, Any] = {}
    saved_s: dict[str, float] = {}

    def apply(value: bytes, key: str, timestamp: int, _headers: Any, state: State) -> list[Any]:
        is_last = meter.take()
        context = message_context()
        guest = engines.get(context.partition)
        if guest is None:
            guest = engines[context.partition] = make_engine(context.partition)
        now_s = time.monotonic()
        last_s = saved_s.get(key)
        if last_s is None:
            last_s = saved_s[key] = now_s
            restored(guest, {key: state.get_bytes("room")})
        outputs = guest.process([(context.offset, timestamp, value, key.encode())])
        if now_s - last_s >= task.save_interval_s:
            saved_s[key] = now_s
            state.set_bytes("room", save(guest, key))
        meter.n_outputs += len(outputs)
        if is_last:
            app.stop()
        return outputs

    out = app.topic(task.out_topic, key_serializer="str", value_serializer=OutputSerializer())
    frame = app.dataframe(input_topic(app, task, value_deserializer="bytes"))
    frame = frame.apply(apply, stateful=True, metadata=True, expand=True)
    frame.to_topic(out, key=lambda output: output.key)
    return engines


def main() -> None:
    """Run until the load is done; leaving `run` commits the state, its changelog and the offsets."""
    task = read_task()
    meter = Meter(task.n_records)
    app = make_app(task)
    if task.job == "count":
        counts = count(app, task, meter)
        app.run()
        n_counted = sum(counts.values())
    else:
        engines = engine(app, task, meter)
        app.run()
        n_counted = sum(each.counters.n_records for each in engines.values())
    meter.done(n_counted, "quixstreams", "confluent-kafka")


if __name__ == "__main__":
    main()
