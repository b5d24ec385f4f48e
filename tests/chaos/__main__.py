"""Run seeds: python -m tests.chaos --seeds 0:20 --rate 20000 --seconds 30 --brokers embedded."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import orjson

from tests.chaos.beside import CannotMixError, check
from tests.chaos.brokers import Brokers, Embedded, Kafka
from tests.chaos.run import Report, Run
from tests.chaos.side_by_side import run_apart


def brokers_of(name: str) -> Brokers:
    """Return fresh brokers of that kind."""
    return Embedded() if name == "embedded" else Kafka(3 if name == "kafka3" else 1)


def run_seed(
    seed: int, folder: Path, *, brokers: str, rate: int, seconds: float, n_rooms: int, beside: Path | None = None
) -> Report:
    """Run one seed on brokers of its own, with workers of another checkout among them where there is one."""
    folder.mkdir(parents=True)
    with brokers_of(brokers) as running:
        return Run(seed, running, folder, rate=rate, seconds=seconds, n_rooms=n_rooms, beside=beside)()


def told(report: Report) -> str:
    """Return a report in words: one line where all is well."""
    lines = [f"seed {report.seed}: {'ok' if report.is_ok else 'FAILED'} {report.stats}"]
    if not report.is_ok:
        lines += ["  schedule: " + ", ".join(report.schedule), "  happened:"]
        lines += [f"    {event}" for event in report.happened]
        lines += [f"  problem: {problem}" for problem in report.problems[:20]]
        for name, log in report.logs.items():
            lines += [f"  {name}: {line}" for line in log]
    return "\n".join(lines)


def main() -> int:
    """Run every seed; 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", default="0:1", help="FROM:TO, TO left out, or one number")
    parser.add_argument("--rate", type=int, default=1_000, help="events a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="of load")
    parser.add_argument("--rooms", type=int, default=16)
    parser.add_argument("--brokers", choices=("embedded", "kafka", "kafka3"), default="embedded")
    parser.add_argument("--beside", type=Path, help="another checkout: every second worker runs its code")
    parser.add_argument("--keep", type=Path, help="folder for everything that was left of failed seeds")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--json", action="store_true", help="one JSON object a seed")
    chosen = parser.parse_args()
    first, colon, last = chosen.seeds.partition(":")
    seeds = range(int(first), int(last) if colon else int(first) + 1)
    if chosen.beside is not None:
        chosen.beside = chosen.beside.resolve()
        try:
            check(chosen.beside)
        except CannotMixError as error:
            parser.error(f"--beside: {error}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that no process of a run is left behind
    if chosen.jobs > 1:
        return _side_by_side(chosen, seeds)
    n_failed = 0
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix=f"chaos-{seed}-") as made:
            folder = Path(made) / "run"
            report = run_seed(
                seed,
                folder,
                brokers=chosen.brokers,
                rate=chosen.rate,
                seconds=chosen.seconds,
                n_rooms=chosen.rooms,
                beside=chosen.beside,
            )
            n_failed += not report.is_ok
            sys.stdout.write((orjson.dumps(report.as_dict()).decode() if chosen.json else told(report)) + "\n")
            sys.stdout.flush()
            if chosen.keep is not None and not report.is_ok:
                shutil.copytree(folder, chosen.keep / f"seed-{seed}", dirs_exist_ok=True)
    return 1 if n_failed else 0


def _side_by_side(chosen: argparse.Namespace, seeds: range) -> int:
    options = ["--rate", chosen.rate, "--seconds", chosen.seconds, "--rooms", chosen.rooms, "--brokers", chosen.brokers]
    options += ["--json"] * chosen.json
    for name in ("beside", "keep"):
        if (folder := getattr(chosen, name)) is not None:
            options += [f"--{name}", folder]
    n_failed = 0
    for said, is_ok in run_apart(seeds, [str(option) for option in options], chosen.jobs):
        n_failed += not is_ok
        sys.stdout.write(said)
        sys.stdout.flush()
    sys.stderr.write(f"{len(seeds) - n_failed} of {len(seeds)} seeds are exact\n")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
