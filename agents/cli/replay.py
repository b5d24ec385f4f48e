"""`roompulse replay`: the worker's own logic over recorded logs, offline."""

from __future__ import annotations

import gc
import gzip
import io
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO, Final, cast

import msgspec
import orjson
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from agents.cli import version
from agents.config import load_policy, load_settings
from agents.errors import ProgramError, UsageError
from agents.words import pick
from pipeline import Engine, Output, Record
from schemas import topics
from schemas.base import MAX_INTEGER
from schemas.settings import Policy, Settings

FILES: Final = {
    topics.ROOM_SIGNALS: "signals.jsonl",
    topics.ROOM_ANOMALIES: "anomalies.jsonl",
    topics.BID_COMMANDS: "commands.jsonl",
    topics.AUDIT_LOG: "audit.jsonl",
    topics.AUDIENCE_FEEDBACK: "feedback.jsonl",
    topics.ROOM_EVENTS_DLQ: "dlq.jsonl",
}
SUMMARY: Final = "summary.json"
LINE_LIMIT: Final = 64 * 1024 * 1024
"""Longest line read, in bytes: far above any message a broker takes, far below the machine's memory."""


class DumpLine(msgspec.Struct):
    """A line that `roompulse dump` wrote: the record with its offset and stamp."""

    offset: int
    timestamp: int
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    value_b64: bytes | None = None
    key: str | None = None
    partition: int | None = None


class _PlainDumpLine(msgspec.Struct):
    """The usual dump line, read at one go: a record whose value is JSON."""

    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    value: msgspec.Raw
    type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    value_b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    key: str | None = None
    partition: int | None = None


class _NotADump(msgspec.Struct):
    type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    offset: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    timestamp: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_peek: Final = msgspec.json.Decoder(_NotADump).decode
_plain_dump_line: Final = msgspec.json.Decoder(_PlainDumpLine).decode
_dump_line: Final = msgspec.json.Decoder(DumpLine).decode
_text: Final = msgspec.json.Decoder(str).decode


def read_record(line: bytes, number: int) -> tuple[Record, int | None]:
    """Return the record a line stands for, and its partition where the line says so.

    A line is a message's value, or a dump line: an object with `offset` and `timestamp` and without `type`.
    """
    if b'"offset"' in line and b'"timestamp"' in line:
        if line[:1] == b"{" and line.endswith(b"}"):
            try:
                plain = _plain_dump_line(line)
            except msgspec.DecodeError:  # the slow way has the words
                pass
            else:
                value = bytes(plain.value)
                if plain.type is msgspec.UNSET and plain.value_b64 is msgspec.UNSET and value[:1] != b'"':
                    key = None if plain.key is None else plain.key.encode()
                    return (plain.offset, plain.timestamp, value, key), plain.partition
        try:
            head = _peek(line)
        except msgspec.DecodeError:
            return (number, None, line), None
        if head.type is msgspec.UNSET and head.offset is not msgspec.UNSET and head.timestamp is not msgspec.UNSET:
            try:
                dumped = _dump_line(line)
            except msgspec.DecodeError as error:
                msg = f"line {number} looks like a dump line but is none: {error}"
                raise ProgramError(msg) from None
            if not (0 <= dumped.timestamp <= MAX_INTEGER and 0 <= dumped.offset <= MAX_INTEGER):
                msg = f"line {number}: offset and timestamp must be 0..2^53, got {dumped.offset}, {dumped.timestamp}"
                raise ProgramError(msg)
            value = _value(dumped, number)
            key = None if dumped.key is None else dumped.key.encode()
            return (dumped.offset, dumped.timestamp, value, key), dumped.partition
    return (number, None, line), None


def _value(dumped: DumpLine, number: int) -> bytes:
    if dumped.value_b64 is not None:
        return dumped.value_b64
    if dumped.value is msgspec.UNSET:
        msg = f"line {number}: a dump line must have value or value_b64, got neither"
        raise ProgramError(msg)
    value = bytes(dumped.value)
    return _text(value).encode() if value[:1] == b'"' else value


def _open(name: str) -> BinaryIO:
    if name == "-":
        return sys.stdin.buffer
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - the caller reads it line by line and closes it
    except OSError as error:
        msg = f"{name} must be a file that can be read: {error.strerror}"
        raise UsageError(msg) from None
    return file


def _unzipped(file: BinaryIO, name: str) -> BinaryIO:
    """Return the file, decompressed when its first bytes say gzip, whatever its name."""
    buffered = io.BufferedReader(file) if isinstance(file, io.RawIOBase) else file
    head = buffered.peek(2)[:2] if isinstance(buffered, io.BufferedReader) else b""
    if head == b"\x1f\x8b" or (not head and name.endswith(".gz")):
        return gzip.GzipFile(fileobj=buffered)  # type: ignore[return-value]  # it reads lines like any binary file
    return buffered


def lines_of(names: list[str]) -> Iterator[tuple[int, bytes]]:
    """Return (number from 1, line) over the files as one partition, blank lines counted but left out.

    Raises
    ------
    UsageError
        A file cannot be opened.
    ProgramError
        A file is damaged, or a line longer than any broker would take.
    """
    number = 0
    for name in names:
        with _open(name) as file:
            source = _unzipped(file, name)
            while True:
                try:
                    line = source.readline(LINE_LIMIT)
                except (OSError, EOFError, zlib.error) as error:
                    msg = f"{name} must be whole, got an error after line {number}: {error}"
                    raise ProgramError(msg) from None
                if not line:
                    break
                if len(line) >= LINE_LIMIT:
                    msg = f"{name}: line {number + 1} must be shorter than {LINE_LIMIT} bytes"
                    raise ProgramError(msg)
                number += 1
                if line.strip():
                    yield number, line.rstrip(b"\r\n")


class Files:
    """The output folder: one JSON-lines file a topic, and the summary."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / SUMMARY).unlink(missing_ok=True)  # of a former run: it must not outlive this one's failure
            self._files = {topic: (folder / name).open("wb") for topic, name in FILES.items()}
        except OSError as error:
            msg = f"--out must be a folder that can be written: {error.strerror}: {folder}"
            raise UsageError(msg) from None
        self._folder = folder

    def write(self, outputs: list[Output]) -> None:
        """Append each message to its topic's file."""
        with self._room_for_it():
            for output in outputs:
                self._files[output.topic].write(output.json() + b"\n")

    def close(self, summary: dict[str, object]) -> None:
        """Finish: the summary is written last, so a folder with one is whole."""
        with self._room_for_it():
            for file in self._files.values():
                file.close()
            text = orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
            unfinished = self._folder / f".{SUMMARY}"
            unfinished.write_bytes(text)
            unfinished.replace(self._folder / SUMMARY)

    @contextmanager
    def _room_for_it(self) -> Iterator[None]:
        """Say in words that the disk is full, or gone."""
        try:
            yield
        except OSError as error:
            for file in self._files.values():
                with suppress(OSError):  # closing writes what is left, and fails for the same reason
                    file.close()
            msg = f"--out must have room for the results, got {error.strerror}: {self._folder} holds a part of them"
            raise ProgramError(msg) from None


def run(
    files: Annotated[list[str], typer.Argument(help="JSON-lines logs, in order; - for standard input; .gz accepted")],
    *,
    out: Annotated[
        Path, typer.Option(help="folder for summary.json and one file a topic: signals, anomalies, commands, …")
    ],
    policy: Annotated[Path | None, typer.Option(help="TOML policy to use instead of the log's own")] = None,
    trust_log: Annotated[
        bool, typer.Option(help="take unsigned controls and acks, as files somebody vouches for")
    ] = True,
    chunk: Annotated[int, typer.Option(min=1, help="records at a time; never changes the output")] = 5_000,
    json_: Annotated[bool, typer.Option("--json", help="print the summary as one JSON object")] = False,
) -> None:
    """Run recorded logs through the worker's own logic, offline; several files are one partition."""
    settings = load_settings(overrides={"trust_log": trust_log})
    chosen = None if policy is None else load_policy(policy)
    engine: Engine | None = None
    for name in files:
        if name != "-":
            _open(name).close()  # a wrong name must not cost the results of the run before
    sink = Files(out)
    gc.disable()  # rooms hold no cycles, and the process ends when the files do: a tenth of the time
    started = time.perf_counter()
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        for records, partition in _chunks(files, chunk):
            if engine is None:
                engine = _engine(settings, chosen, is_recorded=partition is not None)
            engine.partition = partition or 0
            sink.write(engine.process(records))
            done = engine.n_records
            rate = done / max(time.perf_counter() - started, 1e-9)
            words = pick(settings.lang, f"{done:,} records, {rate:,.0f}/s", f"{done:,} 条记录，{rate:,.0f} 条/秒")
            progress.update(task, description=words)
    if engine is None:  # not reached: even no record at all makes one chunk
        return
    sink.write(engine.flush())
    summary = engine.summary()
    elapsed_s = time.perf_counter() - started
    summary["versions"]["roompulse"] = version()
    summary |= {"elapsed_s": round(elapsed_s, 3), "events_per_s": round(summary["n_events"] / max(elapsed_s, 1e-9))}
    sink.close(summary)
    if json_:
        sys.stdout.write(orjson.dumps(summary).decode() + "\n")
    else:
        sys.stdout.write(_words(summary, out, settings.lang))


def _engine(settings: Settings, chosen: Policy | None, *, is_recorded: bool) -> Engine:
    """Return the engine for a log.

    What `dump` wrote (its lines name their partition) brings the policies it was decided by, and begins under the
    defaults as the worker did; any other log is decided by this process's settings until it brings a policy. A
    policy that was asked for beats both.
    """
    if chosen is not None:
        return Engine(settings.model_copy(update=dict(chosen)), keep_policy=True, keep_outcomes=True)
    return Engine(settings.model_copy(update=dict(Policy())) if is_recorded else settings, keep_outcomes=True)


def _chunks(files: list[str], chunk: int) -> Iterator[tuple[list[Record], int | None]]:
    """Return records a chunk at a time, the last one maybe empty, with the partition that dump lines name."""
    records: list[Record] = []
    offset = -1
    partition: int | None = None
    for number, line in lines_of(files):
        # A plain line after dump lines comes after them, whatever its number.
        record, named = read_record(line, max(number, offset + 1))
        offset = record[0]
        if named is not None and named != partition:
            if records:
                yield records, partition
            records, partition = [], named
        records.append(record)
        if len(records) >= chunk:
            yield records, partition
            records = []
    yield records, partition


def _words(summary: dict[str, object], out: Path, lang: str) -> str:
    numbers = (summary["n_events"], len(summary["rooms"]), summary["n_duplicates"], summary["n_rejects"])  # type: ignore[arg-type]  # rooms is a dict
    n_events, n_rooms, n_duplicates, n_rejects = numbers
    rejects = cast("dict[str, int]", summary["rejects"])
    most = ", ".join(f"{reason} {n}" for reason, n in sorted(rejects.items(), key=lambda item: -item[1])[:3])
    why = f": {most}" if most else ""
    en = f"{n_events:,} events in {n_rooms} rooms ({n_duplicates} repeated, {n_rejects} rejected{why}) -> {out}\n"
    zh = f"{n_rooms} 个直播间，{n_events:,} 个事件（重复 {n_duplicates}，拒收 {n_rejects}{why}）-> {out}\n"
    return pick("zh" if lang == "zh" else "en", en, zh)
