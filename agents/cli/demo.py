"""`roompulse demo`: the whole product on this machine, with made-up rooms or a recorded log."""

from __future__ import annotations

import sys
from typing import Annotated

import orjson
import typer

from agents.config import load_settings
from agents.errors import UsageError
from pipeline.simulate import SCENARIOS
from schemas.base import MAX_INTEGER


def run(
    *,
    seconds: Annotated[float | None, typer.Option(min=1, help="End after so long; else with Ctrl-C.")] = None,
    rooms: Annotated[
        int | None, typer.Option(min=1, max=500, help="How many simulated rooms; 20 if not given.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help=f"Which troubles happen: {', '.join(SCENARIOS)}; mixed if not given.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=MAX_INTEGER, help="Of the rooms; 1 if not given.")] = None,
    file: Annotated[
        str | None, typer.Option("--from", help="Play a recorded log (JSON lines, .gz accepted) instead of rooms.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(help="Of the recorded log against the wall clock; 1 if not given.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Run the whole product here: embedded broker, worker, rooms with troubles (or a recording), and a view of it."""
    made_up = {"--rooms": rooms, "--scenario": scenario, "--seed": seed}
    if file is not None and (given := [name for name, value in made_up.items() if value is not None]):
        msg = f"--from must not come with {given[0]}, got both: a recording has its own rooms"
        raise UsageError(msg)
    if file is None and speed is not None:
        msg = f"--speed must come with --from FILE, got --speed {speed:g} alone: simulated rooms live in real time"
        raise UsageError(msg)
    if speed is not None and not 0 < speed <= 1e6:
        msg = f"--speed must be above 0 and at most 1000000, got {speed:g}"
        raise UsageError(msg)
    if scenario is not None and scenario not in SCENARIOS:
        msg = f"--scenario must be one of {', '.join(SCENARIOS)}, got {scenario!r}"
        raise UsageError(msg)
    settings = load_settings()
    # Imported here: a mistake in the call is told before Kafka's clients are loaded.
    from agents.demo import summary  # noqa: PLC0415
    from agents.demo.session import Demo, Options  # noqa: PLC0415
    from agents.demo.view import LiveView, PlainView  # noqa: PLC0415

    options = Options(
        scenario="mixed" if scenario is None else scenario,
        n_rooms=20 if rooms is None else rooms,
        seed=1 if seed is None else seed,
        seconds=seconds,
        file=file,
        speed=1.0 if speed is None else speed,
    )
    with LiveView(settings.lang) if sys.stdout.isatty() else PlainView(settings.lang) as view:
        demo = Demo(options, settings, view)
        demo.run()
    sys.stdout.write(summary.words(demo, settings.lang))
    if json_:
        sys.stdout.write(orjson.dumps(summary.numbers(demo)).decode() + "\n")
    sys.stdout.flush()
