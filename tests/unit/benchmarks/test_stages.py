"""The benchmarks' load is what it says, and the stages are measured on the engine that is there."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest

from benchmarks.bench_stages import STAGES, Meter, measure, table
from benchmarks.workloads import Workload
from pipeline import Engine

N = 20_000


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    """Some events of the load."""
    return [orjson.loads(record[2]) for record in Workload(50, seed=3).take(N)]


def test_the_mixture_is_the_one_that_was_decided(events: list[dict[str, Any]]) -> None:
    kinds = Counter(event["type"] for event in events)
    assert {kind: round(n / N, 2) for kind, n in kinds.items() if kind in ("view", "interaction", "comment")} == {
        "view": 0.60,
        "interaction": 0.15,
        "comment": 0.15,
    }
    assert round((kinds["order"] + kinds["spend"] + kinds["plan"]) / N, 2) == 0.10


def test_comments_have_5_to_40_characters_and_viewers_come_with_user_device_and_address(
    events: list[dict[str, Any]],
) -> None:
    assert all(5 <= len(event["text"]) <= 40 for event in events if event["type"] == "comment")
    assert all(
        {"user_id", "device_id", "ip"} <= event.keys() for event in events if event["type"] not in ("spend", "plan")
    )
    mean_bytes = sum(len(record[2]) for record in Workload(50, seed=3).take(N)) / N
    assert 240 <= mean_bytes <= 260


def test_a_seed_gives_the_same_bytes_however_it_is_taken_and_another_gives_others() -> None:
    whole, parts, other = Workload(7, seed=1), Workload(7, seed=1), Workload(7, seed=2)
    assert whole.opening() + whole.take(500) == parts.opening() + parts.take(123) + parts.take(377)
    assert other.opening() + other.take(500) != Workload(7, seed=1).opening() + Workload(7, seed=1).take(500)


def test_an_engine_accepts_the_whole_load_once() -> None:
    load, engine = Workload(5, seed=1), Engine()
    engine.process([*load.opening(), *load.take(2_000)])
    counters = engine.counters
    assert (counters.rejects, counters.n_duplicates) == ({}, 0)
    assert counters.n_events == counters.n_records == 2_000 + 5 * 5


def test_every_stage_is_seen_and_the_engine_is_as_it_was_afterwards() -> None:
    before = [getattr(owner, name) for _, owner, names in STAGES for name in names]
    found = measure(5, 3_000, seed=1, runs=1, rate=300, warm_up_s=1)
    assert [getattr(owner, name) for _, owner, names in STAGES for name in names] == before
    assert list(found["stages_us"]) == list(dict.fromkeys(stage for stage, _, _ in STAGES))
    assert min(found["calls_per_event"].values()) > 0
    assert found["snapshot_bytes_per_event"] > 0
    assert "| **whole engine, unwatched** |" in table(found)


def test_a_moment_belongs_to_the_innermost_stage_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0

    def spend(ns: int) -> None:
        nonlocal now_ns
        now_ns += ns

    monkeypatch.setattr("benchmarks.bench_stages.time.perf_counter_ns", lambda: now_ns)
    meter = Meter()
    inner = meter.wrap("inner", lambda: spend(7))

    def work() -> None:
        for _ in range(3):
            spend(10)
            inner()

    meter.wrap("outer", work)()
    assert meter.ns == {"inner": 21, "outer": 30}
    assert meter.calls == {"inner": 3, "outer": 1}
    assert meter.made == {"inner": 0, "outer": 3}
    assert meter.own_ns(inside_ns=2, around_ns=1) == {"inner": 15, "outer": 25}
