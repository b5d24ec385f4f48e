"""What `roompulse bench` makes of its runs, and the two guests every contender runs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.cli import main
from benchmarks.end_to_end import JOBS, ratios, summarise, table
from benchmarks.environment import REQUIREMENTS
from benchmarks.field import records_of
from benchmarks.rivals.engines import CountingEngine, make_engine, restored, save
from benchmarks.running import CONTENDERS, OURS
from benchmarks.workloads import START_MS, THROUGHPUT_RATE, Workload

LOG = list(records_of(5, 2_000, seed=1, rate=300))


def run(events_per_s: int, **more: Any) -> dict[str, Any]:
    """Return one run's numbers."""
    found = {"n_records": 100, "cpu_s_per_million": 2.0, "mb_out_per_million": 1.0, "records_out_per_million": 3}
    return {**found, "events_per_s": events_per_s, "peak_mib": 50, "versions": {"x": "1"}, **more}


def test_a_load_is_each_rooms_opening_and_then_the_mixture_stamped_with_the_logs_own_time() -> None:
    assert len(LOG) == 5 * 5 + 2_000
    assert [record[1] for record in LOG] == [orjson.loads(record[2])["ts"] for record in LOG]
    stamps = [record[1] for record in Workload(5, seed=1, rate=THROUGHPUT_RATE).take(THROUGHPUT_RATE + 1)]
    assert (stamps[0], stamps[-1]) == (START_MS + 1_000, START_MS + 2_000)


def test_a_summary_has_medians_and_says_how_far_the_runs_lie_apart() -> None:
    found = summarise([run(300), run(100, mb_out_per_million=None), run(200)])
    assert (found["slowest_events_per_s"], found["events_per_s"], found["fastest_events_per_s"]) == (100, 200, 300)
    assert found["mb_out_per_million"] == 1.0
    assert found["versions"] == {"x": "1"}
    assert len(found["runs"]) == 3


def test_what_no_run_could_tell_is_unknown_and_not_zero() -> None:
    assert summarise([run(1, mb_out_per_million=None)])["mb_out_per_million"] is None


def test_ratios_are_of_rivals_in_the_same_job_and_a_replays_rival_is_the_worker() -> None:
    jobs = {
        "count": {OURS: summarise([run(300)]), "faust": summarise([run(100, cpu_s_per_million=8.0)])},
        "engine": {OURS: summarise([run(50)])},
        "replay": {OURS: summarise([run(75)])},
    }
    assert ratios(jobs) == {
        "count": {"faust": {"events_per_s": 3.0, "cpu_s_per_million": 0.25}},
        "replay": {"worker": {"events_per_s": 1.5, "cpu_s_per_million": 1.0}},
    }


def test_a_table_has_a_row_a_contender_and_names_who_is_absent_and_why() -> None:
    names = ("n_rooms", "n_events", "rate", "n_runs", "seed", "save_interval_s", "n_partitions", "broker", "machine")
    jobs = {"count": {OURS: summarise([run(1_500)]), "faust": summarise([run(500, mb_out_per_million=None)])}}
    found = {"jobs": jobs, "ratios": ratios(jobs), "absent": {"count/quix": "no reason"}, **dict.fromkeys(names, 0)}
    text = table(found)
    assert "| roompulse | 1,500 | 1,500 to 1,500 | 2 | 1 | 50 |  |  |" in text
    assert "| faust | 500 | 500 to 500 | 2 |  | 50 | 3 x | 1 x |" in text
    assert "count/quix is absent: no reason" in text


def test_the_counting_engine_counts_every_record_once_also_when_it_goes_on_from_snapshots() -> None:
    expected = Counter(orjson.loads(record[2])["room_id"] for record in LOG)
    whole, before, after = CountingEngine(), CountingEngine(), CountingEngine()
    whole.process(LOG)
    before.process(LOG[:700])
    saved = {key: value for room in before.checkpoint().rooms for key, value in before.save(room).parts}
    after.restore(saved)
    after.process(LOG[300:])  # repeated after a crash
    assert whole.counts == after.counts == dict(expected)
    assert before.checkpoint().rooms == ()


def test_a_room_that_a_framework_kept_goes_on_in_another_engine_as_in_the_first() -> None:
    rooms = sorted({orjson.loads(record[2])["room_id"] for record in LOG})
    first, second = make_engine(0), make_engine(0)
    first.process(LOG[:1_000])
    restored(second, {room: save(first, room) for room in rooms} | {"unknown": None})
    found = []
    for engine in (first, second):
        engine.process(LOG[1_000:])
        sessions = {room: told["session"] for room, told in engine.summary()["rooms"].items()}
        names = ("n_enters", "n_comments", "n_orders_created", "gmv_minor", "spend_minor")
        found.append({room: [session[name] for name in names] for room, session in sessions.items()})
    assert list(found[0]) == rooms
    assert found[0] == found[1]


def test_every_contender_has_its_module_and_the_foreign_ones_exact_versions() -> None:
    folder = REQUIREMENTS.parent
    assert all((folder / f"{contender.module}.py").is_file() for contender in CONTENDERS.values())
    lines = [line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", line) for line in lines)
    assert {"quixstreams", "bytewax"} <= {line.partition("==")[0] for line in lines}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--job", "sing"], "--job must be one of count, engine, replay, latency, backlog, recovery, got 'sing'"),
        (["--job", "count", "--job", "latency"], "--job must be one of latency, backlog, recovery, got 'count'"),
        (["--contenders", "roompulse,spark"], "--contenders must be one of roompulse, faust, "),
        (["--broker", "127.0.0.1:9092"], "--broker must be auto, embedded or kafka://host:port"),
        (["--rooms", "0"], "--rooms"),
    ],
)
def test_wrong_usage_is_told_in_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in told
    assert told.count("\n") == 1


def test_an_installed_program_says_that_benchmarks_are_in_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agents.cli.bench.ROOT", tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["bench"])
    assert stop.value.code == 2
    assert "bench must run from a checkout" in capsys.readouterr().err


def test_a_replay_alone_needs_no_broker(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "--job", "replay", "--rooms", "5", "--events", "1000", "--runs", "1", "--json"])
    found = orjson.loads(capsys.readouterr().out)
    assert JOBS == ("count", "engine", "replay")
    assert list(found["jobs"]) == ["replay"]
    row = found["jobs"]["replay"][OURS]
    assert (found["broker"], row["n_records"], found["absent"]) == ("none", 1_025, {})
    assert row["events_per_s"] > 0
