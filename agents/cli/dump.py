"""`roompulse dump`: one partition as a file that `replay` reads."""

from __future__ import annotations

import base64
import gzip
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, cast

import orjson
import typer
from kafka import KafkaConsumer, TopicPartition

from agents import kafka
from agents.config import load_settings
from agents.errors import ProgramError, UsageError
from schemas.topics import ROOM_EVENTS

STALL_S: Final = 30.0
"""Without a record for so long the broker is taken for gone."""
FETCH_WAIT_MS: Final = 100


def line(record: Any) -> bytes:
    """Return the line of a record: its value as text, or as base64 where it is not UTF-8."""
    head: dict[str, Any] = {"offset": record.offset, "timestamp": record.timestamp, "partition": record.partition}
    head["key"] = None if record.key is None else record.key.decode(errors="replace")
    raw = record.value or b""
    try:
        head["value"] = raw.decode()
    except UnicodeDecodeError:
        head["value_b64"] = base64.b64encode(raw).decode()
    return orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE)


def run(
    *,
    partition: Annotated[int, typer.Option(min=0, help="Its number.")],
    topic: Annotated[str, typer.Option(help="The topic.")] = ROOM_EVENTS,
    from_offset: Annotated[int, typer.Option(min=0, help="First offset wanted.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File to write, .gz to compress; standard output without.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings (else ROOMPULSE_CONFIG).")] = None,
) -> None:
    """Write a partition's records up to its end now, one JSON object a line, ready for `roompulse replay`."""
    kafka.check_topic(topic, "--topic")
    servers = kafka.bootstrap(load_settings(config))
    with closing(kafka.connect(KafkaConsumer, servers, fetch_max_wait_ms=FETCH_WAIT_MS)) as consumer:
        n_partitions = len(consumer.partitions_for_topic(topic) or ())
        if partition >= n_partitions:
            msg = f"--partition must be below {n_partitions}, the partitions of {topic}, got {partition}"
            raise UsageError(msg)
        records = _records(consumer, TopicPartition(topic, partition), from_offset)
        with _opened(out) as sink:
            for record in records:
                sink.write(line(record))


def _records(consumer: Any, place: TopicPartition, from_offset: int) -> Iterator[Any]:
    consumer.assign([place])
    begin, end = consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]
    if from_offset > end:
        msg = f"--from-offset must be at most {end}, the end of {place.topic} {place.partition}, got {from_offset}"
        raise UsageError(msg)
    consumer.seek(place, max(begin, from_offset))
    heard_s = time.monotonic()
    while consumer.position(place) < end:
        batch = consumer.poll(FETCH_WAIT_MS).get(place, [])
        if batch:
            heard_s = time.monotonic()
        elif time.monotonic() - heard_s > STALL_S:
            msg = f"{place.topic} {place.partition} must be readable up to {end}, got no more after {STALL_S:g} s"
            raise ProgramError(msg)
        yield from (record for record in batch if record.offset < end)


@contextmanager
def _opened(out: Path | None) -> Iterator[BinaryIO]:
    """Yield where to write; a file appears under its name only when it is whole."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("wb") as file:
            if out.suffix == ".gz":
                with gzip.GzipFile(fileobj=file, mode="wb") as zipped:
                    yield cast("BinaryIO", zipped)
            else:
                yield file
        part.replace(out)
    except OSError as error:
        msg = f"--out must be a file that can be written, got {out}: {error.strerror or error}"
        raise ProgramError(msg) from None
    finally:
        part.unlink(missing_ok=True)
