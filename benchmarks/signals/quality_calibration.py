"""What the constants of traffic quality rest on: `python -m benchmarks.signals.quality_calibration`.

Each constant that matters is moved alone, on the calibration seeds; of the settings that mark at most `WRONG_MOST` of
every look-alike's events, the one with the best mean F1 over the calibration families is chosen, the present one in a
tie (`TIE`). Families held out (`benchmarks.signals.quality.HELD_OUT`) are not played at all.

The same table answers for each calibration family what would have been chosen without it, and what it then scores:
were a constant fitted to one family, leaving that family out would choose another.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from benchmarks.signals import quality
from pipeline.quality import evidence, inquest
from schemas.settings import QualitySettings, Settings

WRONG_MOST: Final = 0.005
"""Half of the 1 % that is allowed: seeds differ."""
TIE: Final = 0.002
"""A mean F1 better by less is none: two rooms a seed scatter more."""


class Constant(NamedTuple):
    """A setting of `QualitySettings`, or a constant of a module, and what else it might be."""

    name: str
    others: tuple[float, ...]
    module: Any = None


CONSTANTS: Final = (
    Constant("evidence_nats", (4.0, 8.0, 10.0)),
    Constant("least_difference", (0.15, 0.35)),
    Constant("SPIKE_RATIO", (2.0, 4.5), inquest),
    Constant("CONTRARY", (-3.0, -0.75), inquest),
    Constant("AROUND_MS", (15_000, 60_000), inquest),
    Constant("ODD_SHARE", (3, 8), evidence),
)


def present(constant: Constant) -> float:
    """Return the value in force."""
    found: float = getattr(QualitySettings() if constant.module is None else constant.module, constant.name)
    return found


@contextmanager
def moved(constant: Constant | None, value: float) -> Iterator[Settings]:
    """Give the settings with one constant moved; put a module's back afterwards."""
    if constant is None or constant.module is None:
        changes = {} if constant is None else {constant.name: value}
        yield Settings(trust_log=True, quality=QualitySettings(**changes))
        return
    before = present(constant)
    setattr(constant.module, constant.name, value)
    try:
        yield Settings(trust_log=True)
    finally:
        setattr(constant.module, constant.name, before)


def row(settings: Settings, n_rooms: int) -> dict[str, float]:
    """Return each calibration family's F1, and each look-alike's share of marked events, negative."""
    found: dict[str, float] = {}
    for kind in (*quality.CALIBRATED, *quality.LOOK_ALIKES):
        score = quality.Score()
        for seed in quality.CALIBRATION_SEEDS:
            quality.run(kind, n_rooms, seed, 1.0, score, settings=settings)
        told = score.as_dict()
        found[kind] = -told["wrong_ratio"] if kind in quality.LOOK_ALIKES else told["f1"]
    return found


def chosen(rows: Mapping[str, Mapping[str, float]], now: str, without: str = "") -> str:
    """Return the value that is chosen of a constant's rows, with one family left out of the choice."""
    kinds = [kind for kind in quality.CALIBRATED if kind != without]
    best, best_mean = now, sum(rows[now][kind] for kind in kinds) / len(kinds)
    for value, of in rows.items():
        is_fair = all(-of[kind] <= WRONG_MOST for kind in quality.LOOK_ALIKES)
        mean = sum(of[kind] for kind in kinds) / len(kinds)
        if is_fair and mean > best_mean + TIE:
            best, best_mean = value, mean
    return best


def table(n_rooms: int) -> dict[str, Any]:
    """Return, for every constant, the scores by value, the choice, and the choices without each family."""
    with moved(None, 0.0) as settings:
        base = row(settings, n_rooms)
    found: dict[str, Any] = {}
    for constant in CONSTANTS:
        now = str(present(constant))
        rows = {now: base}
        for value in constant.others:
            sys.stderr.write(f"calibration: {constant.name} = {value}\n")
            with moved(constant, value) as settings:
                rows[str(value)] = row(settings, n_rooms)
        found[constant.name] = {
            "present": now,
            "chosen": chosen(rows, now),
            "without": {kind: chosen(rows, now, kind) for kind in quality.CALIBRATED},
            "mean_f1": {v: round(sum(of[k] for k in quality.CALIBRATED) / len(quality.CALIBRATED), 4)
                        for v, of in rows.items()},
            "worst_look_alike": {v: round(max(-of[k] for k in quality.LOOK_ALIKES), 4) for v, of in rows.items()},
            "rows": rows,
        }  # fmt: skip
    return found


def main() -> None:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=2, help="of each kind and seed")
    print(json.dumps(table(parser.parse_args().rooms), indent=1))


if __name__ == "__main__":
    main()
