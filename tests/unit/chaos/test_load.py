"""The chaos harness' load: the same seed makes the same bytes, and an engine without any fault meets its truth."""

from __future__ import annotations

import orjson
import pytest

from pipeline import Engine
from schemas.settings import Settings
from schemas.topics import ROOM_EVENTS, ROOM_EVENTS_DLQ
from tests.chaos.load import Load, LoadMaker
from tests.chaos.truth import COMPARED

BEGIN_MS = 1_767_225_600_000
KEY = "c" * 40


def load(seed: int) -> Load:
    maker = LoadMaker(seed, begin_ms=BEGIN_MS, n_rooms=6, n_partitions=1, control_key=KEY.encode())
    return maker.make(rate=1_000, seconds=8)


@pytest.mark.parametrize("seed", range(3))
def test_an_engine_that_nothing_disturbs_comes_to_the_truth(seed: int) -> None:
    made = load(seed)
    engine = Engine(Settings.model_validate({"control_key": KEY, "privacy_key": "p" * 40}))
    records = [record for record in made.records if record.topic == ROOM_EVENTS]
    outputs = engine.process(
        (offset, BEGIN_MS + record.due_ms, record.value, record.key) for offset, record in enumerate(records)
    )
    rooms = engine.summary()["rooms"]
    told = {name: {count: rooms[name]["session"].get(count, 0) for count in COMPARED} for name in made.truth}
    assert told == made.truth
    letters = [orjson.loads(output.json()) for output in outputs if output.topic == ROOM_EVENTS_DLQ]
    assert len(letters) == made.n_rejects
    assert engine.counters.n_duplicates == made.n_repeats
    assert all(sum(room[count] for room in made.truth.values()) for count in COMPARED)


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others() -> None:
    assert load(1) == load(1)
    assert load(1).records != load(2).records
