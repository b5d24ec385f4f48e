"""`roompulse bench`: the whole job end to end, this worker against rivals in the same run; and what takes how long."""

from __future__ import annotations

import enum
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from agents.broker import EmbeddedBroker
from agents.config import load_settings
from agents.errors import UsageError

ROOT: Final = Path(__file__).resolve().parents[2]
EVENTS: Final = 200_000
EVENTS_EMBEDDED: Final = 60_000
"""The embedded broker keeps 5 MiB a partition, compressed or not."""
EVENTS_QUICK: Final = 20_000
JOB_HELP: Final = "count, engine, replay; or latency, backlog, recovery; more than one by repeating"
RATE: Final = 60_000
"""Of the log's own time: what a worker has to keep up with that serves 20,000 rooms."""


class Subject(enum.StrEnum):
    """What is measured."""

    PIPELINE = "pipeline"
    SIGNALS = "signals"


def run(
    subject: Annotated[
        Subject, typer.Argument(help="pipeline: speed, time, bytes; signals: how right they are")
    ] = Subject.PIPELINE,
    *,
    job: Annotated[
        list[str] | None,
        typer.Option(help=JOB_HELP),
    ] = None,
    contenders: Annotated[str, typer.Option(help="comma-separated; all by default")] = "all",
    rooms: Annotated[int | None, typer.Option(min=1, help="500; each job of time has its own default")] = None,
    events: Annotated[int | None, typer.Option(min=1, help="of the log; 200,000, embedded 60,000")] = None,
    rate: Annotated[
        int | None,
        typer.Option(min=1, help="events a second of the log's own time; of jobs of time, live ones"),
    ] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="of each contender, by turns; 3")] = None,
    seed: Annotated[int, typer.Option(help="of the log")] = 1,
    save_interval_s: Annotated[float, typer.Option(min=0.1, help="how much work a crash may repeat")] = 5.0,
    broker: Annotated[
        str,
        typer.Option(help="auto (a Kafka of its own, else embedded), embedded, or kafka://host:port of an empty one"),
    ] = "auto",
    seconds: Annotated[
        int | None, typer.Option(min=1, help="latency: of each phase; backlog: of its log; recovery: before the kill")
    ] = None,
    hot: Annotated[bool, typer.Option("--hot", help="latency: then once more with half the load on one room")] = False,
    standbys: Annotated[int, typer.Option(min=0, max=5, help="recovery: worker.standby_replicas")] = 0,
    ended: Annotated[int | None, typer.Option(min=0, help="recovery: rooms that came and went before")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a look in a minute: few events, one run")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="print one JSON object; progress goes to standard error")
    ] = False,
) -> None:
    """Measure events a second, processor time and bytes to Kafka, of this worker and of other frameworks.

    `bench signals` instead measures traffic quality, sentiment and return against the simulator's truth and labelled
    data, on seeds that nothing was calibrated on; of the options only --quick and --json are its own.

    Job "count": decode each event and count it by room. Job "engine": this project's engine in each framework. Job
    "replay": the same log offline. Jobs of time, this worker alone: "latency" from an event to what it causes,
    "backlog" of a log nobody read, "recovery" from a worker's death.
    """
    if subject is Subject.SIGNALS:
        signals = _benchmarks("signals.every")
        figures = signals.figures(is_quick=quick, tell=_tell)
        sys.stdout.write((orjson.dumps(figures).decode() if json_ else signals.table(figures)) + "\n")
        return
    bench, time = _benchmarks("end_to_end"), _benchmarks("over_time")
    jobs = _chosen("--job", job or bench.JOBS, (*bench.JOBS, *time.TIME_JOBS))
    if set(jobs) & set(time.TIME_JOBS):
        timed = _chosen("--job", jobs, time.TIME_JOBS)  # the others compare contenders, these have none
        options = time.Options(rooms, rate, seconds, seed, quick, hot, standbys, ended)
        with _broker(broker, wanted=True) as (bootstrap, words):
            told = {name: time.measure(name, options, bootstrap, words, _tell) for name in timed}
        sys.stdout.write((orjson.dumps({"jobs": told}).decode() if json_ else time.table(told)) + "\n")
        return
    names = _chosen(
        "--contenders", bench.CONTENDERS if contenders == "all" else contenders.split(","), bench.CONTENDERS
    )
    live = [name for name in jobs if name != "replay"]
    with _broker(broker, wanted=bool(live)) as (bootstrap, words):
        plan = bench.Plan(
            jobs=jobs,
            contenders=names,
            n_rooms=rooms or 500,
            n_events=events or (EVENTS_QUICK if quick else EVENTS_EMBEDDED if words == "embedded" else EVENTS),
            rate=rate or RATE,
            n_runs=runs or (1 if quick else 3),
            seed=seed,
            save_interval_s=save_interval_s,
        )
        found = bench.measure(plan, bootstrap, words, _tell)
    sys.stdout.write(orjson.dumps(found).decode() + "\n" if json_ else bench.table(found) + "\n")


def _benchmarks(name: str) -> Any:
    """Return a module of the benchmarks, which live beside the program in a checkout and in no wheel."""
    if not (ROOT / "benchmarks" / "end_to_end.py").exists():
        msg = "bench must run from a checkout, got an installed program: clone the repository, then `make bench`"
        raise UsageError(msg)
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return importlib.import_module(f"benchmarks.{name}")


def _chosen(option: str, wanted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in known:
            msg = f"{option} must be one of {', '.join(known)}, got {name!r}"
            raise UsageError(msg)
    return tuple(name for name in known if name in wanted)


@contextmanager
def _broker(asked: str, *, wanted: bool) -> Iterator[tuple[str | None, str]]:
    """Yield a broker's address and what it is; it ends with the measurement if it was started for it."""
    if not wanted:
        yield None, "none"
    elif asked == "embedded":
        with EmbeddedBroker() as embedded:
            yield embedded.bootstrap, "embedded"
    elif asked == "auto":
        with _own_broker() as found:
            yield found
    elif asked.startswith("kafka://"):
        given = load_settings(overrides={"broker": asked}).broker or ""
        yield given.removeprefix("kafka://"), asked
    else:
        msg = f"--broker must be auto, embedded or kafka://host:port, got {asked!r}"
        raise UsageError(msg)


@contextmanager
def _own_broker() -> Iterator[tuple[str, str]]:
    cluster = importlib.import_module("tests.kafka.cluster")
    kafka = cluster.KafkaCluster()
    _tell("starting Apache Kafka on this machine")
    try:
        kafka.start()
    except cluster.KafkaUnavailableError as error:
        _tell(f"{error}; taking the embedded broker, whose numbers are no Kafka's")
        with EmbeddedBroker() as embedded:
            yield embedded.bootstrap, "embedded"
        return
    try:
        yield kafka.bootstrap, "Apache Kafka, one broker on this machine"
    finally:
        kafka.stop()


def _tell(line: str) -> None:
    sys.stderr.write(f"roompulse bench: {line}\n")
    sys.stderr.flush()
