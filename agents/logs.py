"""Log lines: JSON for machines, short text for a person at a terminal. Never a payload, a text or a secret.

What is said beside the message goes into `extra=facts(...)`: codes, counts, offsets.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson

from schemas.settings import WorkerSettings

_FACTS: Final = "facts"
_OURS: Final = ("agents", "pipeline", "schemas", "roompulse")


def facts(**values: Any) -> dict[str, Any]:
    """Return the `extra` of a log call: plain JSON values by name."""
    return {_FACTS: values}


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _error(record: logging.LogRecord) -> str | None:
    """Return the exception in one line; where it was raised is shown at debug level alone."""
    if record.exc_info is None or record.exc_info[1] is None:
        return None
    error = record.exc_info[1]
    return f"{type(error).__name__}: {error}"


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: when, how grave, who, what, and the facts."""
        line: dict[str, Any] = {
            "ts": _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FACTS, {}),
        }
        if (error := _error(record)) is not None:
            line["error"] = error
            if logging.getLogger("agents").isEnabledFor(logging.DEBUG):
                line["traceback"] = self.formatException(record.exc_info)  # type: ignore[arg-type]  # _error: not None
        return orjson.dumps(line, default=str).decode()


class Text(logging.Formatter):
    """One short line for a person."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time of day, level if it is not plain information, message, facts."""
        grade = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        told = " ".join(f"{name}={value}" for name, value in getattr(record, _FACTS, {}).items())
        parts = [f"{_moment(record):%H:%M:%S} {grade}{record.getMessage()}", told, _error(record)]
        return " ".join(part for part in parts if part).replace("\n", " ")


def configure(settings: WorkerSettings, stream: TextIO | None = None) -> None:
    """Send this process's log lines to `stream` (standard error by default), libraries' only when they warn."""
    stream = sys.stderr if stream is None else stream
    text = settings.log_format == "text" or (settings.log_format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Text() if text else JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    level = getattr(logging, settings.log_level.upper())
    root.setLevel(max(level, logging.WARNING))
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    # Faust prints whole messages when sending one fails; ours are sent past that, and what fails is told by us.
    logging.getLogger("faust.topics").setLevel(logging.CRITICAL)
    # Faust's services there tell each start and stop; every join of a group is a warning. We tell what matters of both.
    for name in ("agents.transport", "agents.tables", "agents.producer"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    for name in ("aiokafka.consumer.group_coordinator", "faust.tables.recovery"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
