"""The same log gives the same output: whatever the chunks, and whenever the process was killed and came back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Engine, Output
from pipeline import Record as AnyRecord
from schemas.settings import CurrencySettings, Settings
from tests.scenario import RATES, scenario
from tests.strategies import Record, logs


def trusting() -> Settings:
    """Settings under which unsigned controls count, as in replayed files."""
    return Settings(trust_log=True, currency=CurrencySettings(rates=RATES))


def shown(outputs: list[Output]) -> list[tuple[str, str, bytes]]:
    """Return outputs in a form that can be compared."""
    return [(output.topic, output.key, output.json()) for output in outputs]


def run(engine: Engine, records: list[Any], chunk: int) -> list[tuple[str, str, bytes]]:
    """Return all that an engine gives for a log."""
    outputs: list[Output] = []
    for begin in range(0, len(records), chunk):
        outputs += engine.process(records[begin : begin + chunk])
    return shown(outputs + engine.flush())


def long_log(*, stamped: bool) -> list[AnyRecord]:
    return [(line.offset, line.timestamp if stamped else None, line.value) for line in scenario(4)]


@pytest.mark.parametrize("stamped", [True, False])
def test_chunks_of_any_size_give_the_same_output(*, stamped: bool) -> None:
    log = long_log(stamped=stamped)
    whole, engine = run(one := Engine(trusting()), log, 10_000), Engine(trusting())
    assert len(whole) > 500
    for chunk in (1, 7):
        assert run(engine := Engine(trusting()), log, chunk) == whole
        assert engine.summary() == one.summary()


@pytest.mark.parametrize("stamped", [True, False])
def test_a_process_that_dies_after_every_record_tells_the_same(*, stamped: bool) -> None:
    log = long_log(stamped=stamped)
    whole = Engine(trusting())
    expected = run(whole, log, 10_000)
    store: dict[str, bytes] = {}
    outputs: list[Output] = []
    engine = Engine(trusting())
    for record in log:
        outputs += engine.process([record])
        # What changed goes to the store; the next process knows nothing but the store.
        for room_id, state in engine.changed().items():
            if state is None:
                del store[room_id]
            else:
                store[room_id] = state
        engine = Engine(trusting())
        engine.restore(store)
    assert shown(outputs + engine.flush()) == expected
    assert engine.summary() == whole.summary()
    assert engine.snapshot().keys() == whole.snapshot().keys()


@given(logs(max_records=25), st.booleans(), st.data())
@settings(max_examples=60)
def test_a_restored_engine_skips_what_it_knows_and_goes_on(log: list[Record], stamped: bool, data: Any) -> None:
    if not stamped:
        log = [(offset, None, value, key) for offset, _, value, key in log]
    cut = data.draw(st.integers(0, len(log)))
    again = data.draw(st.integers(0, cut))
    first = Engine()
    before = first.process(log[:cut])
    second = Engine()
    second.restore(first.snapshot())
    repeated = second.process(log[again:cut])
    assert shown(repeated) == []
    after = second.process(log[cut:]) + second.flush()
    whole = Engine()
    expected = whole.process(log) + whole.flush()
    assert shown(before + after) == shown(expected)
    assert second.summary() == whole.summary()
