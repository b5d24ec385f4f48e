"""`roompulse simulate`: rooms with known truth, into a file or into Kafka."""

from __future__ import annotations

import contextlib
import gzip
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, NamedTuple

import orjson
import typer

from agents.config import load_settings
from agents.errors import ProgramError, UsageError
from agents.words import pick
from pipeline.simulate import (
    DEFAULT_START_TS,
    SCENARIOS,
    WORLDS,
    Arrival,
    ParameterError,
    Parameters,
    UnknownScenarioError,
    UnknownWorldError,
    World,
    parameters_of,
    play,
    with_values,
)
from schemas.base import MAX_INTEGER, Lang
from schemas.topics import ROOM_EVENTS

STDOUT: Final = "-"
MINUTE_MS: Final = 60_000
LATEST_START_TS: Final = 253_370_764_800_000
"""The year 9999: `stat_date` has four digits for it."""
CONNECT_MS: Final = 10_000
FLUSH_S: Final = 60
PROGRESS_EVERY_S: Final = 0.5
LABELS_EVERY: Final = 4_096
"""Events between two writings of labels: what has been sent is known, what is held in memory bounded."""


class Sent(NamedTuple):
    """What left the program."""

    n_events: int
    n_bytes: int


def run(
    *,
    scenario: Annotated[str, typer.Option(help="Which troubles happen; see --list.")] = "mixed",
    world: Annotated[
        str, typer.Option(metavar="NAME", help=f"Other rooms than the usual: {', '.join(WORLDS)}; see --list.")
    ] = "as-is",
    rooms: Annotated[int, typer.Option(min=1, max=10_000, help="How many rooms.")] = 10,
    minutes: Annotated[float, typer.Option(min=0.1, max=10_080, help="How long they are watched.")] = 20.0,
    seed: Annotated[int, typer.Option(min=0, max=MAX_INTEGER, help="The same seed gives the same bytes.")] = 1,
    out: Annotated[str, typer.Option(help="File of JSON lines (.gz packs it); - is standard output.")] = STDOUT,
    broker: Annotated[str | None, typer.Option(help="kafka://host:port[,host:port]: send to room.events.")] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="With --broker: events a second at most; without it each event is sent in its own time."),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="File for what was injected, one JSON object a line.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="File for what single events are: invalid, or what a comment means.")
    ] = None,
    returns: Annotated[
        Path | None,
        typer.Option(help="File for every order and every minute's spend, with what comes of it in the end."),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another parameter, e.g. bots.task_s=45.")
    ] = None,
    start_ts: Annotated[
        int | None,
        typer.Option(min=0, max=LATEST_START_TS, help="First moment, ms; default a constant, with --broker now."),
    ] = None,
    trouble_at_s: Annotated[float, typer.Option(min=0, max=604_800, help="When troubles begin.")] = 600.0,
    trouble_s: Annotated[float, typer.Option(min=1, max=604_800, help="How long they last.")] = 300.0,
    size: Annotated[float, typer.Option(min=0.1, max=1_000, help="Traffic of a room; 1 is 3 events/s.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Summary on standard output as JSON.")] = False,
    list_them: Annotated[bool, typer.Option("--list", help="Print the scenarios and the worlds, and stop.")] = False,
) -> None:
    """Simulate rooms with known truth: what was injected, when, where, how much."""
    lang = load_settings().lang
    if list_them:
        _list(lang)
        return
    _check(out, broker, rate, as_json=as_json)
    if start_ts is None:
        start_ts = DEFAULT_START_TS if broker is None else _now_ms()
        if rate is not None:
            # Ahead of the broker's clock they would be refused: what is sent faster than life has already happened.
            start_ts -= round(minutes * MINUTE_MS)
    try:
        rooms_of = World(
            scenario,
            rooms,
            seed,
            start_ts,
            trouble_at_ms=start_ts + round(trouble_at_s * 1_000),
            trouble_for_ms=round(trouble_s * 1_000),
            parameters=with_values(parameters_of(world, Parameters(size=size)), _changes(changes or [])),
            is_labelled=labels is not None,
        )
    except (UnknownScenarioError, UnknownWorldError, ParameterError) as error:
        raise UsageError(str(error)) from None
    arrivals = _watched(play(rooms_of, minutes), start_ts, round(minutes * MINUTE_MS), lang)
    if labels is not None:
        arrivals = _labelled(arrivals, rooms_of, labels)
    sent = _write(arrivals, out) if broker is None else _send(arrivals, broker, rate)
    if truth is not None:
        rooms_told = ({"type": "room", **books.as_dict()} for books in rooms_of.books().values())
        _write_lines("--truth", truth, [*(trouble.as_dict() for trouble in rooms_of.truth()), *rooms_told])
    summary = {
        "scenario": scenario,
        "world": world,
        "seed": seed,
        "start_ts": start_ts,
        "minutes": minutes,
        "n_rooms": rooms,
        **sent._asdict(),
        "n_troubles": len(rooms_of.truth()),
        "rooms": {room_id: books.as_dict() for room_id, books in rooms_of.books().items()},
    }
    if returns is not None:
        rooms_of.settle()  # the world ends here: nothing else is read of it
        cohorts = (cohort.as_dict() for cohort in rooms_of.cohorts())
        _write_lines("--returns", returns, chain(cohorts, (order.as_dict() for order in rooms_of.orders())))
    if as_json:
        typer.echo(orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode())
    elif broker is not None or out != STDOUT:
        typer.echo(_words(summary, lang))


def _list(lang: Lang) -> None:
    """Print what `--scenario` and `--world` take; a world with the parameters that it sets."""
    typer.echo(pick(lang, "scenarios (--scenario)", "场景（--scenario）"))
    for one in SCENARIOS.values():
        typer.echo(f"  {one.name:19} {pick(lang, one.en, one.zh)}")
    typer.echo(pick(lang, "worlds (--world)", "世界（--world）"))
    for other in WORLDS.values():
        typer.echo(f"  {other.name:19} {pick(lang, other.en, other.zh)}")
        for name, value in other.values.items():
            typer.echo(f"  {'':19}   {name}={value}")


def _check(out: str, broker: str | None, rate: float | None, *, as_json: bool) -> None:
    """Refuse what contradicts itself."""
    if broker is not None and out != STDOUT:
        msg = f"--out and --broker must not both be given, got --out {out} and --broker {broker}"
        raise UsageError(msg)
    if rate is not None and broker is None:
        msg = f"--rate must come with --broker, got --rate {rate:g} alone"
        raise UsageError(msg)
    if rate is not None and not rate > 0:
        msg = f"--rate must be above 0 events a second, got {rate:g}"
        raise UsageError(msg)
    if as_json and broker is None and out == STDOUT:
        msg = "--json must come with --out FILE or --broker URL, got events on standard output too"
        raise UsageError(msg)


def _write(arrivals: Iterable[Arrival], out: str) -> Sent:
    """Write one message value a line."""
    n_events = n_bytes = 0
    try:
        with _opened(out) as file:
            for _, _, event in arrivals:
                n_events += 1
                n_bytes += file.write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))
    except BrokenPipeError:
        raise
    except OSError as error:
        msg = f"--out must be a file that can be written, got {out}: {error.strerror or error}"
        raise ProgramError(msg) from None
    return Sent(n_events, n_bytes)


@contextlib.contextmanager
def _opened(out: str) -> Iterator[BinaryIO]:
    """Open the output; a packed file carries neither name nor time, so that the same seed gives the same bytes."""
    if out == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with Path(out).open("wb") as file:
        if not out.endswith(".gz"):
            yield file
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            yield packed  # type: ignore[misc]  # a GzipFile writes bytes; it is no BinaryIO by name


def _changes(texts: list[str]) -> dict[str, str]:
    """Return what `--set` names, the last of a name."""
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign):
            msg = f"--set must be NAME=VALUE, got {text!r}"
            raise UsageError(msg)
        found[name] = value
    return found


def _labelled(arrivals: Iterator[Arrival], world: World, path: Path) -> Iterator[Arrival]:
    """Pass everything on; write the labels of what was sent meanwhile."""
    try:
        file = path.open("wb")
    except OSError as error:
        msg = f"--labels must be a file that can be written, got {path}: {error.strerror or error}"
        raise ProgramError(msg) from None
    with file:
        for number, arrival in enumerate(arrivals, start=1):
            yield arrival
            if number % LABELS_EVERY == 0:
                _write_labels(world, file)
        _write_labels(world, file)


def _write_labels(world: World, file: BinaryIO) -> None:
    for label in world.labels():
        file.write(orjson.dumps(label.as_dict(), option=orjson.OPT_APPEND_NEWLINE))


def _write_lines(option: str, path: Path, lines: Iterable[dict[str, Any]]) -> None:
    try:
        with path.open("wb") as file:
            for line in lines:
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    except OSError as error:
        msg = f"{option} must be a file that can be written, got {path}: {error.strerror or error}"
        raise ProgramError(msg) from None


def _send(arrivals: Iterable[Arrival], broker: str, rate: float | None) -> Sent:
    """Send to `room.events`, stamped with the moment of arrival; the default partitioner is Kafka's murmur2."""
    from kafka import KafkaProducer  # noqa: PLC0415 - a third of a second that a file does not need
    from kafka.errors import KafkaError  # noqa: PLC0415

    hosts = load_settings(overrides={"broker": broker}).broker or ""
    failures: list[BaseException] = []
    n_events = n_bytes = 0
    pace = _pace(rate)
    try:
        producer = KafkaProducer(
            bootstrap_servers=hosts.removeprefix("kafka://").split(","),
            acks="all",
            linger_ms=20,
            max_block_ms=CONNECT_MS,
            api_version_auto_timeout_ms=CONNECT_MS,
        )
    except KafkaError as error:
        msg = f"--broker must answer within {CONNECT_MS // 1_000} s, got {error} from {broker}: is Kafka running there?"
        raise ProgramError(msg) from None
    try:
        for arrival_ts, room_id, event in arrivals:
            pace(n_events, arrival_ts)
            value = orjson.dumps(event)
            future = producer.send(ROOM_EVENTS, key=room_id.encode(), value=value, timestamp_ms=arrival_ts)
            future.add_errback(failures.append)
            n_events += 1
            n_bytes += len(value)
            if failures:
                break
        producer.flush(timeout=FLUSH_S)
    except KafkaError as error:
        failures.append(error)
    finally:
        producer.close(timeout=0)
    if failures:
        msg = f"--broker must take every event, got {failures[0]} from {broker} after about {n_events} events"
        raise ProgramError(msg)
    return Sent(n_events, n_bytes)


def _pace(rate: float | None) -> Callable[[int, int], None]:
    """Return what waits until it is time for event number n, which arrives at a moment of its own."""
    started_s = time.monotonic()

    def bounded(n_before: int, _: int) -> None:
        wait_s = started_s + n_before / (rate or 1.0) - time.monotonic()
        if wait_s > 0.005:  # shorter sleeps would cost more than they space out
            time.sleep(wait_s)

    def live(_: int, arrival_ts: int) -> None:
        wait_ms = arrival_ts - _now_ms()
        if wait_ms > 5:
            time.sleep(wait_ms / 1_000)

    return live if rate is None else bounded


def _watched(arrivals: Iterator[Arrival], start_ts: int, length_ms: int, lang: Lang) -> Iterator[Arrival]:
    """Pass everything on; tell a person at a terminal how far it is."""
    if not sys.stderr.isatty():
        yield from arrivals
        return
    told_s = time.monotonic()
    for number, arrival in enumerate(arrivals, start=1):
        yield arrival
        if number % 1_000 == 0 and time.monotonic() - told_s > PROGRESS_EVERY_S:
            told_s = time.monotonic()
            share = min(1.0, (arrival[0] - start_ts) / length_ms)
            line = pick(lang, f"{share:4.0%}, {number:,} events", f"{share:4.0%}，{number:,} 条事件")
            typer.echo(f"\r{line} ", nl=False, err=True)
    typer.echo("\r\033[K", nl=False, err=True)


def _words(summary: dict[str, Any], lang: Lang) -> str:
    n_events, n_rooms, n_troubles = summary["n_events"], summary["n_rooms"], summary["n_troubles"]
    return pick(
        lang,
        f"{n_events:,} events of {n_rooms} rooms in {summary['minutes']:g} minutes, {n_troubles} troubles",
        f"{n_rooms} 个直播间 {summary['minutes']:g} 分钟，共 {n_events:,} 条事件，{n_troubles} 起异常",
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
