"""`roompulse schema`: the JSON Schema of what a topic carries."""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import Annotated, Final

import typer

from agents.errors import UsageError
from schemas.topics import TOPICS

OTHERS: Final = ("asyncapi", "policy", "settings")


def run(
    name: Annotated[str, typer.Argument(help="A topic, or asyncapi, policy, settings.")],
) -> None:
    """Print the JSON Schema of a topic's messages, of the settings, or the AsyncAPI document of everything."""
    names = (*(topic.name for topic in TOPICS), *OTHERS)
    if name not in names:
        msg = f"NAME must be one of {', '.join(names)}, got {name!r}"
        raise UsageError(msg)
    sys.stdout.write(files("schemas").joinpath("generated", f"{name}.json").read_text(encoding="utf-8"))
