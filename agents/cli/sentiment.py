"""`roompulse sentiment`: what viewers' comments say, one a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Final, cast

import typer

from agents.errors import UsageError
from pipeline.sentiment import SentimentModel, default_model

CHUNK_BYTES: Final = 1 << 16
"""Read at once: some thousand comments, which cost less together than alone."""


def answer(line: bytes, model: SentimentModel) -> str:
    """Return `score<TAB>confidence` of one comment, which may hold any bytes; a blank one says nothing.

    >>> answer("质量不错，下次还会来".encode(), default_model())
    '0.785\\t0.785'
    >>> answer(b"  ", default_model())
    '0\\t0'
    """
    return answers([line.removesuffix(b"\n")], model)[0]


def answers(comments: Sequence[bytes], model: SentimentModel) -> list[str]:
    """Return what `answer` returns of each of many comments, which stand without their line's end."""
    said = model.scores([comment.decode(errors="replace") for comment in comments])
    return [f"{_decimal(score_milli)}\t{_decimal(confidence_milli)}" for score_milli, confidence_milli in said]


def _decimal(milli: int) -> str:
    return f"{milli / 1000:.3f}".rstrip("0").rstrip(".") if milli else "0"


def run(
    file: Annotated[Path | None, typer.Argument(help="Comments, one a line; standard input without it.")] = None,
) -> None:
    """Score comments (-1 against .. 1 for) with a confidence (0 .. 1); below 0.5 the program has no opinion."""
    model = default_model()
    with _opened(file) as source:
        for lines in chunks(source):
            sys.stdout.writelines(f"{answer}\n" for answer in answers(lines, model))
            sys.stdout.flush()


def chunks(source: BufferedReader) -> Iterator[list[bytes]]:
    """Yield the lines that have come so far, so that a slow writer waits for no full chunk; they end at \\n alone."""
    rest: list[bytes] = []  # of a line whose end has not come yet
    while data := source.read1(CHUNK_BYTES):
        *whole, last = data.split(b"\n")
        if whole:
            whole[0] = b"".join((*rest, whole[0]))
            rest = []
            yield whole
        if last:
            rest.append(last)
    if rest:
        yield [b"".join(rest)]


def _opened(file: Path | None) -> nullcontext[BufferedReader] | BufferedReader:
    if file is None:
        return nullcontext(cast("BufferedReader", sys.stdin.buffer))
    try:
        return file.open("rb")
    except OSError as error:
        msg = f"FILE must be readable, got {file}: {error.strerror or error}"
        raise UsageError(msg) from None
