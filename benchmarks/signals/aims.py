"""What the signals ought to reach, beside what they do: each figure of the requirement with its aim.

A figure that was not measured here (its data is not on this machine) has neither met nor missed its aim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from benchmarks.signals import quality, sentiment


class Row(NamedTuple):
    """A figure and the aim it has, both ends included."""

    what: str
    figure: float | None
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Tell whether the figure lies where it ought to; None where there is none."""
        if self.figure is None:
            return None
        return (self.least is None or self.figure >= self.least) and (self.most is None or self.figure <= self.most)

    @property
    def aim(self) -> str:
        """Return the aim in signs."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g}..{self.most:g}"
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {"what": self.what, "figure": self.figure, "aim": self.aim, "is_met": self.is_met}


LEAST_F1: Final = {"scripted": 0.95, "randomised": 0.85, "held_out_scripted": 0.95, "held_out_randomised": 0.85}
BAND: Final = (0.88, 0.92)
LEAST_MATURITY: Final = 0.3
_WHOLE: Final = {
    "all_simulated": "the simulator's rooms",
    "all_worlds": "all laws",
    "all_misspecified": "the simulator's misspecified worlds",
}


def rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Yield every figure of the requirement out of those that `benchmarks.signals.every` returns."""
    yield from _quality(found)
    yield from _sentiment(found)
    yield from _returns(found)


def _quality(found: Mapping[str, Any]) -> Iterator[Row]:
    for group, least in LEAST_F1.items():
        for kind in quality.GROUPS[group]:
            of = ("quality", group, kind)
            yield Row(f"traffic, {group}: F1 of {kind}", _at(found, *of, "f1"), least)
        for kind in quality.GROUPS[group]:
            of = ("quality", group, kind)
            error = _at(found, *of, "attacked_error_mean")
            yield Row(f"traffic, {group}: error of the share where {kind} is on, mean", error, most=quality.POINTS)
    for kind in quality.LOOK_ALIKES:
        wrong = _at(found, "quality", "look_alikes", kind, "wrong_ratio")
        yield Row(f"traffic, look-alikes: marked of {kind}", wrong, most=0.01)
    for name, words in (("roas", "families of calibration"), ("roas_held_out", "families held out")):
        ratio = _at(found, "quality", name, "ratio")
        yield Row(f"traffic: error of roas_valid against that of roas_attributed, {words}", ratio, most=0.5)
    yield Row("traffic, recorded scripts: found", _at(found, "quality", "script_bots", "found_ratio"), 0.95)
    crowd = _at(found, "quality", "script_bots", "wrong_ratio")
    yield Row("traffic, recorded scripts: crowds marked", crowd, most=0.02)


def _sentiment(found: Mapping[str, Any]) -> Iterator[Row]:
    for name, (path, bound, is_least) in sentiment.AIMS.items():
        figure = _at(found, "sentiment", *path.split("."))
        least, most = (float(bound), None) if is_least else (None, float(bound))
        yield Row(f"comments: {name.replace('_', ' ')}", figure, least, most)
    yield Row("comments: macro F1 of the hand-written", _at(found, "sentiment", "hand_written", "macro_f1"), 0.9)


def _returns(found: Mapping[str, Any]) -> Iterator[Row]:
    for group in ("worlds", "simulated", "misspecified"):
        told = [_at(row, "least_maturity_told") for row in found.get("returns", {}).get(group, {}).values()]
        least = min((one for one in told if one is not None), default=None)
        yield Row(f"return, {group}: least maturity at which a ratio was told", least, LEAST_MATURITY)
    for group, words in _WHOLE.items():
        yield Row(f"return: band holds the rate, {words}", _at(found, "returns", group, "coverage_rate"), *BAND)
    for group in ("simulated", "worlds", "misspecified"):
        for name, row in found.get("returns", {}).get(group, {}).items():
            yield Row(f"return, {group}: band holds the rate in {name}", _at(row, "coverage_rate"), *BAND)


def _at(found: Any, *path: str) -> float | None:
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int | float) else None
