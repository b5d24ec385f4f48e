"""Every figure of the three signal families in one, with its aim: what `roompulse bench signals` prints.

The full form plays 10 rooms of each kind of traffic (5 seeds of two), 40 sessions of each law of return and 10 rooms of
each simulated world, in as many processes as there are cores, four at most: some eleven minutes of processor time, so
six by the clock on two cores that are free, 22 where nine others wanted them. `--quick` plays one room, two sessions
and one room.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from benchmarks.signals import aims, quality, returns, sentiment
from benchmarks.signals.spread import spread

ROOMS: Final = 2
"""Of each kind of traffic and seed."""
SESSIONS: Final = 40
"""Of each law of return."""
SIMULATED: Final = 10
"""Rooms of each simulated world of return."""
MOST_PROCESSES: Final = 4


def figures(*, is_quick: bool, tell: Callable[[str], None]) -> dict[str, Any]:
    """Return the figures by family; a quick look takes fewer rooms and sessions, on the same test seeds."""
    tell("comments: the hand-written ones, the held-out ones, recorded chatter")  # alone: its speed is measured
    found: dict[str, Any] = {"is_quick": is_quick, "sentiment": sentiment.figures()}
    seeds = quality.TEST_SEEDS[: 1 if is_quick else None]
    tell(f"traffic: constants were chosen by {', '.join(quality.CALIBRATED)}; held out: {', '.join(quality.HELD_OUT)}")
    with spread(min(MOST_PROCESSES, os.cpu_count() or 1), tell) as each:
        found["quality"] = quality.figures(seeds, n_rooms=1 if is_quick else ROOMS, each=each)
        n_sessions, n_rooms = (2, 1) if is_quick else (SESSIONS, SIMULATED)
        found["returns"] = returns.figures(n_sessions, n_rooms=n_rooms, each=each)
    found["aims"] = [row.as_dict() for row in aims.rows(found)]
    return found


def table(found: Mapping[str, Any]) -> str:
    """Return each figure of the requirement with its aim, then all figures one a line, each under its path."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    lines = [
        f"{words[row['is_met']]:12}  {_shown(row['figure']):>8}  {row['aim']:>11}  {row['what']}"
        for row in found["aims"]
    ]
    calibrated, held_out = (", ".join(found["quality"][name]) for name in ("calibrated_on", "held_out"))
    lines += ["", f"constants of traffic quality chosen by: {calibrated}", f"held out: {held_out}", ""]
    rest = {name: value for name, value in found.items() if name != "aims"}
    return "\n".join([*lines, *(f"{path}  {value}" for path, value in _leaves(rest, ""))])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _leaves(found: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        here = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
        elif value is not None:
            yield here, f"{value:.4g}" if isinstance(value, float) else value
