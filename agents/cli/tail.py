"""`roompulse tail`: follow a topic."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from kafka import KafkaConsumer, TopicPartition

from agents import kafka
from agents.config import load_settings
from agents.errors import ProgramError
from schemas.topics import TOPICS

POLL_MS: Final = 500
FETCH_WAIT_MS: Final = 100
"""An embedded broker answers an empty fetch only after this; a real one at once."""


def run(
    topic: Annotated[str, typer.Argument(help=f"One of {', '.join(topic.name for topic in TOPICS)}.")],
    room: Annotated[str | None, typer.Option(help="Only this room's messages.")] = None,
    *,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Not only what comes from now on.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many messages.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a line, with key, partition, offset.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings (else ROOMPULSE_CONFIG).")] = None,
) -> None:
    """Print a topic's messages as they come, until Ctrl-C."""
    kafka.check_topic(topic, "TOPIC")
    servers = kafka.bootstrap(load_settings(config))
    key = None if room is None else room.encode()
    n_left = limit
    with (
        closing(kafka.connect(KafkaConsumer, servers, fetch_max_wait_ms=FETCH_WAIT_MS)) as consumer,
        suppress(
            KeyboardInterrupt  # the usual way to end it
        ),
    ):
        for record in _follow(consumer, topic, room, from_beginning=from_beginning):
            if key is not None and record.key != key:
                continue
            sys.stdout.write(f"{_as_json(record) if json_ else _as_text(record)}\n")
            sys.stdout.flush()
            if n_left is not None and (n_left := n_left - 1) == 0:
                return


def _follow(consumer: Any, topic: str, room: str | None, *, from_beginning: bool) -> Iterator[Any]:
    partitions = sorted(consumer.partitions_for_topic(topic) or ())
    if not partitions:
        msg = f"topic {topic} must exist, got none: run roompulse provision"
        raise ProgramError(msg)
    if room is not None:
        partitions = [kafka.partition_of(room, len(partitions))]
    assigned = [TopicPartition(topic, partition) for partition in partitions]
    consumer.assign(assigned)
    if from_beginning:
        consumer.seek_to_beginning(*assigned)
    else:
        consumer.seek_to_end(*assigned)
    while True:
        for batch in consumer.poll(POLL_MS).values():
            yield from batch


def _text(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode(errors="replace")


def _as_json(record: Any) -> str:
    line: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": _text(record.key),
    }
    try:
        line["value"] = None if record.value is None else orjson.loads(record.value)
    except orjson.JSONDecodeError:
        line["raw"] = _text(record.value)
    return orjson.dumps(line).decode()


def _as_text(record: Any) -> str:
    moment = datetime.fromtimestamp(record.timestamp / 1_000, UTC)
    place = f"{record.partition}@{record.offset}"
    return f"{moment:%H:%M:%S}.{record.timestamp % 1_000:03d}Z {place:<12} {_text(record.key)} {_text(record.value)}"
