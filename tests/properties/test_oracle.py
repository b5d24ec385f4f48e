"""Counts and money equal a batch computation that knows nothing of buckets, windows or ledgers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Engine
from schemas import topics
from schemas.settings import CurrencySettings, Settings
from tests.effort import effort
from tests.oracle import COUNTED, Oracle
from tests.scenario import RATES, Line, scenario
from tests.strategies import Record, logs

WINDOWS_MS = (60_000, 300_000, 900_000, 3_600_000)


def trusting() -> Settings:
    """Settings under which unsigned controls count, as in replayed files."""
    return Settings(trust_log=True, currency=CurrencySettings(rates=RATES))


def fed(lines: list[Line], *, stamped: bool) -> tuple[Oracle, list[Record]]:
    """Return the oracle after a log, and the records that have one right answer only."""
    oracle = Oracle({pair: Fraction(rate) for pair, rate in RATES.items()})
    records: list[Record] = []
    for line in lines:
        stamp = line.timestamp if stamped else None
        if oracle.feed(stamp, line.value, line.bad):
            records.append((line.offset, stamp, line.value, None))
    return oracle, records


def agree(oracle: Oracle, summary: dict[str, Any]) -> None:
    """Compare a summary with the oracle, number by number."""
    for name in ("n_records", "n_events", "n_duplicates", "n_rejects", "n_late"):
        assert (name, summary[name]) == (name, getattr(oracle, name))
    assert sorted(summary["rooms"]) == sorted(oracle.rooms)
    for room_id in oracle.rooms:
        told = summary["rooms"][room_id]["session"]
        expected = oracle.session(room_id)
        assert {name: told.get(name, 0) for name in expected} == expected


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_long_log_with_everything_in_it_adds_up(seed: int, *, stamped: bool) -> None:
    oracle, records = fed(scenario(seed), stamped=stamped)
    engine = Engine(trusting())
    engine.process(records)
    engine.flush()
    agree(oracle, engine.summary())


@given(logs(max_records=40), st.booleans())
@settings(max_examples=effort(150))
def test_any_log_adds_up(log: list[Record], stamped: bool) -> None:
    oracle, engine = Oracle(), Engine()
    for offset, stamp, value, key in log:
        if oracle.feed(stamp if stamped else None, value):
            engine.process([(offset, stamp if stamped else None, value, key)])
    engine.flush()
    agree(oracle, engine.summary())


def windows_agree(oracle: Oracle, n_effects: int, room_id: str, ts: int, windows: dict[str, dict[str, Any]]) -> None:
    """Compare an emission at `ts` with the first `n_effects` effects, counted one by one."""
    known = [effect for effect in oracle.effects[:n_effects] if effect.room == room_id]
    for reach in WINDOWS_MS:
        #  T-W-W/60  T-W          T
        #  [ - - - - [------------)  the old edge lies somewhere in the first piece
        oldest, exact = ts - reach - reach // 60, ts - reach
        edges = {exact, *(e.ts + past for e in known for past in (0, 1) if oldest <= e.ts + past <= exact), oldest}
        possible = [oracle.window(room_id, edge, ts, known) for edge in sorted(edges)]
        told = {name: windows[str(reach // 1_000)].get(name, 0) for name in COUNTED}
        assert told in possible


def agrees(oracle: Oracle, n_effects: int, room_id: str, told: dict[str, Any]) -> bool:
    """Tell whether an emission counts the first `n_effects` effects.

    Before a new session the old one is told in the middle of a record: what came before it in the array counts.
    """
    try:
        windows_agree(oracle, n_effects, room_id, told["ts"], told["windows"])
    except AssertionError:
        return False
    return True


def watch(log: list[tuple[Record, tuple[int | None, ...]]], engine: Engine, oracle: Oracle) -> int:
    """Process record by record and check every emission against what had been applied before it; count them."""
    n_emissions = 0
    revisions: dict[str, int] = {}
    for record, bad in log:
        n_effects = len(oracle.effects)
        if not oracle.feed(record[1], record[2], bad):
            continue
        for output in engine.process([record]):
            if output.topic != topics.ROOM_SIGNALS:
                continue
            told: Any = output.value.model_dump(exclude_none=True)
            assert told["revision"] == revisions.get(output.key, 0) + 1
            revisions[output.key] = told["revision"]
            known = range(n_effects, len(oracle.effects) + 1 if b'"start"' in record[2] else n_effects + 1)
            assert any(agrees(oracle, n, output.key, told) for n in known)
            n_emissions += 1
    return n_emissions


@given(logs(max_records=40, max_rooms=2))
@settings(max_examples=effort(30))
def test_every_emitted_window_counts_what_happened_in_it(log: list[Record]) -> None:
    watch([(record, ()) for record in log], Engine(), Oracle())


def test_windows_of_a_long_log_count_what_happened_in_them() -> None:
    oracle, _ = fed([], stamped=True)
    lines = scenario(3, 1_200)
    log: list[tuple[Record, tuple[int | None, ...]]] = [
        ((line.offset, line.timestamp, line.value, None), line.bad) for line in lines
    ]
    assert watch(log, Engine(trusting()), oracle) > 300
