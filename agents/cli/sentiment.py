"""`roompulse sentiment`: what viewers' comments say, one a line."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from agents.errors import UsageError
from pipeline.sentiment import SentimentModel, default_model


def answer(line: bytes, model: SentimentModel) -> str:
    """Return `score<TAB>confidence` of one comment, which may hold any bytes; a blank one says nothing.

    >>> answer("质量不错，下次还会来".encode(), default_model())
    '0.785\\t0.785'
    >>> answer(b"  ", default_model())
    '0\\t0'
    """
    score_milli, confidence_milli = model.score(line.removesuffix(b"\n").decode(errors="replace"))
    return f"{_decimal(score_milli)}\t{_decimal(confidence_milli)}"


def _decimal(milli: int) -> str:
    return f"{milli / 1000:.3f}".rstrip("0").rstrip(".") if milli else "0"


def run(
    file: Annotated[Path | None, typer.Argument(help="Comments, one a line; standard input without it.")] = None,
) -> None:
    """Score comments (-1 against .. 1 for) with a confidence (0 .. 1); below 0.5 the program has no opinion."""
    model = default_model()
    with _opened(file) as source:
        for line in source:  # binary: lines end at \n alone
            sys.stdout.write(f"{answer(line, model)}\n")
        sys.stdout.flush()


def _opened(file: Path | None) -> nullcontext[BinaryIO] | BinaryIO:
    if file is None:
        return nullcontext(sys.stdin.buffer)
    try:
        return file.open("rb")
    except OSError as error:
        msg = f"FILE must be readable, got {file}: {error.strerror or error}"
        raise UsageError(msg) from None
