"""The command line: one file a command; only the one that is called is imported."""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import click
import typer

from agents.errors import ProgramError

COMMANDS = (
    "demo",
    "worker",
    "replay",
    "simulate",
    "sentiment",
    "tail",
    "dump",
    "control",
    "provision",
    "migrate",
    "schema",
    "bench",
)

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What writing to a disk that is full, over its quota or broken ends with."""


def build(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """Return the application with the commands named; each module's `run` is its command."""
    app = typer.Typer(
        name="roompulse",
        help="Watches livestream rooms as they happen: signals, anomalies and guarded bid commands.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(_options)
    for name in names:
        app.command(name)(importlib.import_module(f"agents.cli.{name}").run)
    return app


def version() -> str:
    """Return the version of the installed distribution."""
    try:
        return importlib.metadata.version("roompulse")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"


def _options(
    *, show_version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False
) -> None:
    if show_version:
        sys.stdout.write(f"roompulse {version()}\n")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit 0 done, 1 it failed, 2 wrong usage or settings."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    names = [given[0]] if given and given[0] in COMMANDS else COMMANDS
    try:
        build(names)(args=given, prog_name="roompulse", standalone_mode=False)
        sys.stdout.flush()
    except (click.exceptions.Exit, typer.Exit) as stop:  # newer typers carry a click of their own
        sys.exit(stop.exit_code)
    except (click.ClickException, typer.exceptions.TyperException) as error:
        click.echo(f"roompulse: {error.format_message()} (see roompulse --help)", err=True)
        sys.exit(2)
    except ProgramError as error:
        click.echo(f"roompulse: {error}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, typer.Abort, KeyboardInterrupt):
        sys.exit(1)
    except BrokenPipeError:  # `roompulse tail | head`: the reader has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        click.echo(f"roompulse: standard output must have room for the results, got {error.strerror}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        sys.exit(1)
