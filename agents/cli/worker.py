"""`roompulse worker`: one Faust worker against the broker of the settings."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents import garbage, logs
from agents.config import broker_of, control_key_of, load_settings, privacy_key_of
from agents.errors import ProgramError
from agents.pages import restart_with_huge_pages, take_signals

if TYPE_CHECKING:
    import faust


def run(
    config: Annotated[Path | None, typer.Option(help="TOML file of settings (else ROOMPULSE_CONFIG).")] = None,
) -> None:
    """Run one worker: signals, anomalies and bid commands of its share of the rooms, until it is told to stop."""
    settings = load_settings(config)
    broker_of(settings)
    control_key_of(settings)
    privacy_key_of(settings)
    if settings.worker.huge_pages:
        restart_with_huge_pages()
    logs.configure(settings.worker)
    for number in (signal.SIGTERM, signal.SIGINT):  # until Faust's own handlers are there: nothing is to be saved yet
        signal.signal(number, _stop)
    take_signals()
    # Imported here: a mistake in the settings is told before Faust is loaded.
    from agents import kafka, layout  # noqa: PLC0415
    from agents.app import Worker  # noqa: PLC0415

    cluster = kafka.ready(settings)
    noted, _ = layout.read(settings, cluster.n_partitions)
    layout.check(noted, {topic.name: topic.n_partitions for topic in cluster.topics})
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    serve(Worker(settings, cluster).app, loop)


def _stop(_number: int, _frame: object) -> None:
    os._exit(0)  # an exception here may be raised, and lost, in the middle of anything


def serve(app: faust.App, loop: asyncio.AbstractEventLoop) -> None:
    """Run until SIGTERM, Ctrl-C or an error; raise ProgramError for the last."""
    from faust.worker import Worker as FaustWorker  # noqa: PLC0415

    runner = FaustWorker(app, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False)
    runner.spinner = None  # it writes escape sequences, on a terminal or not
    garbage.bound_pauses()
    try:
        runner.execute_from_commandline()
    except SystemExit as stop:
        if isinstance(app.crash_reason, ProgramError):
            raise app.crash_reason from None
        if stop.code:
            msg = f"worker must run until it is stopped, got {app.crash_reason!r}"
            raise ProgramError(msg) from None
