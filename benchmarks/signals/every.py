"""Every figure of the three signal families in one: what `roompulse bench signals` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.signals import quality, returns, sentiment


def figures(*, is_quick: bool, tell: Callable[[str], None]) -> dict[str, Any]:
    """Return the figures by family; a quick look takes fewer rooms and sessions, on the same test seeds."""
    tell("comments: the hand-written ones, the held-out ones, recorded chatter")
    found: dict[str, Any] = {"is_quick": is_quick, "sentiment": sentiment.figures()}
    tell("traffic: scripted and random bots, innocent crowds, recorded scripts")
    found["quality"] = quality.figures(quality.TEST_SEEDS[: 1 if is_quick else None], n_rooms=1 if is_quick else 4)
    tell("return: rooms with a law of their own, and the simulator's")
    found["returns"] = returns.figures(2 if is_quick else 60)
    return found


def table(found: Mapping[str, Any]) -> str:
    """Return the figures one a line, each under its path."""
    return "\n".join(f"{path}  {value}" for path, value in _leaves(found, ""))


def _leaves(found: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        here = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
        elif value is not None:
            yield here, f"{value:.4g}" if isinstance(value, float) else value
