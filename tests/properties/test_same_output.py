"""The same log gives the same output: whatever the chunks, and whenever the process was killed and came back."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Engine, Output
from pipeline import Record as AnyRecord
from schemas import topics
from schemas.base import Dimension
from schemas.settings import CurrencySettings, EngineSettings, Policy, Settings, SignalsSettings
from tests.effort import effort
from tests.scenario import RATES, scenario
from tests.strategies import Record, logs

STAR = "*"
QUOTA_PER_S = 4
"""Two events a tick: small enough for rooms to be over it now and then."""
SLICED: tuple[tuple[Dimension, ...], ...] = (
    ("segment", "region", "creative_id", "product_id", "host_id", "partner_id"),
    (),
    ("product_id", "segment"),
)
"""Dimensions that policies of a log turn on and off; the first ones from its beginning, with three slices each."""
Told = tuple[str, str, bytes]


def sliced(number: int) -> SignalsSettings:
    """Return settings that differ from one number to the next."""
    return SignalsSettings(dimensions=SLICED[number % 3], max_slices=3, feedback_interval_s=60)


def trusting() -> Engine:
    """An engine for which unsigned controls count, as in replayed files."""
    quota = EngineSettings(room_events_per_s=QUOTA_PER_S)
    return Engine(Settings(trust_log=True, currency=CurrencySettings(rates=RATES), engine=quota, signals=sliced(0)))


def shown(outputs: list[Output]) -> list[Told]:
    """Return outputs in a form that can be compared."""
    return [(output.topic, output.key, output.json()) for output in outputs]


def run(engine: Engine, records: list[Any], chunk: int) -> list[Told]:
    """Return all that an engine gives for a log."""
    outputs: list[Output] = []
    for begin in range(0, len(records), chunk):
        outputs += engine.process(records[begin : begin + chunk])
    return shown(outputs + engine.flush())


def long_log(*, stamped: bool, seed: int = 4, n_records: int = 3_000) -> list[AnyRecord]:
    """Return a log in which everything happens, with controls for every room of the partition now and then."""
    log: list[AnyRecord] = []
    for line in scenario(seed, n_records):
        stamp = line.timestamp if stamped else None
        log.append((2 * line.offset, stamp, line.value))
        if line.offset % 60 == 30:
            log.append((2 * line.offset + 1, stamp, for_every_room(line.offset // 60, line.timestamp)))
    return log


def for_every_room(number: int, now_ms: int) -> bytes:
    """Return one of the controls that belong to no room: the kill switch, a silence, another policy."""
    engine = EngineSettings(
        emit_interval_ms=(1_000, 5_000, 2_000)[number % 3], room_events_per_s=(QUOTA_PER_S, 5_000, 2)[number % 3]
    )
    policy = Policy(engine=engine, currency=CurrencySettings(rates=RATES), signals=sliced(number // 4))
    action, args = (
        ("kill_switch", {"on": True}),
        ("silence", {"until_ts": now_ms + 90_000}),
        ("update_settings", {"policy": policy.model_dump(mode="json")}),
        ("kill_switch", {"on": False}),
    )[number % 4]
    event = {"type": "control", "event_id": f"star-{number}", "control_id": f"star-{number}", "room_id": STAR}
    return json.dumps({**event, "ts": now_ms, "actor": "operator", "action": action, "args": args}).encode()


class Store:
    """Where an engine is saved, room by room: the changelog, as it would be read back."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.offset = -1
        """Where the saved partition stands: what a successor reads on from."""

    def save(self, engine: Engine, room_id: str) -> None:
        saved = engine.save(room_id)
        assert saved.parts[-1][0] == room_id  # the part that refers to the others comes last
        self.kept.update(saved.parts)
        for key in saved.retired:
            del self.kept[key]

    def commit(self, star: bytes, offset: int) -> None:
        self.kept[STAR], self.offset = star, offset

    def checkpoint(self, engine: Engine) -> None:
        """Save everything at one moment."""
        point = engine.checkpoint()
        for room_id in point.rooms:
            self.save(engine, room_id)
        self.commit(point.star, point.offset)

    def restored(self) -> Engine:
        engine = trusting()
        engine.restore(self.kept)
        return engine


@pytest.mark.long
@pytest.mark.parametrize("stamped", [True, False])
def test_chunks_of_any_size_give_the_same_output(*, stamped: bool) -> None:
    log = long_log(stamped=stamped, n_records=effort(3_000))
    whole = run(one := trusting(), log, 10_000)
    assert len(whole) > 500
    assert one.counters.n_shed > 20
    assert sum(b'"dimensions":' in message for _, _, message in whole) > 10
    assert sum(topic == topics.AUDIENCE_FEEDBACK for topic, _, _ in whole) > 10
    for chunk in (1, 7):
        assert run(engine := trusting(), log, chunk) == whole
        assert engine.summary() == one.summary()


@pytest.mark.long
@pytest.mark.parametrize("stamped", [True, False])
def test_a_process_that_dies_after_every_record_tells_the_same(*, stamped: bool) -> None:
    log = long_log(stamped=stamped, n_records=effort(3_000))
    whole = trusting()
    expected = run(whole, log, 10_000)
    store = Store()
    outputs: list[Output] = []
    engine = trusting()
    for record in log:
        outputs += engine.process([record])
        # What changed goes to the store; the next process knows nothing but the store.
        store.checkpoint(engine)
        assert engine.checkpoint().rooms == ()
        engine = store.restored()
    assert shown(outputs + engine.flush()) == expected
    assert engine.summary() == whole.summary()
    assert engine.snapshot().keys() == whole.snapshot().keys()


@given(logs(max_records=25), st.booleans(), st.data())
@settings(max_examples=effort(60))
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


# -- saved room by room -----------------------------------------------------------------------------------------
#
#            checkpoint        room-2        room-1     star      killed
#  log  ----------S--------------o-------------o---------|-----------x
#                 |===============================================================>  read again by the successor
#                                                        star stands for S and is written last
#
# A room saved later than S is ahead of the partition: it skips what it knows, and what it told is told again or not.
# That takes a log with timestamps, as every log in Kafka is: without them the clock rests on what was accepted, and a
# room that is ahead cannot tell any more which of its events that were.


def same(got: list[Told], expected: list[Told]) -> None:
    """Nothing is missing, nothing else was ever told; what was repeated was repeated to the letter."""
    assert set(got) == set(expected)
    for topic, key in {(topic, key) for topic, key, _ in expected}:
        # Without repeats, everything of a room comes in the order of the uninterrupted run.
        of_room = [told for told in got if told[:2] == (topic, key)]
        assert list(dict.fromkeys(of_room)) == list(
            dict.fromkeys(told for told in expected if told[:2] == (topic, key))
        )


def staggered(log: list[Any], random: Random, *, crashes: float, pace: float) -> tuple[list[Told], Engine]:
    """Process a log record by record with a save of some room now and then, and crashes at any moment.

    Checkpoints overlap nothing: one begins when the former one's star was written.
    """
    store, engine = Store(), trusting()
    outputs: list[Output] = []
    point: Any = None
    left: list[str] = []
    place = 0
    while place < len(log):
        outputs += engine.process([log[place]])
        place += 1
        if point is None and random.random() < pace:
            point = engine.checkpoint()
            left = list(point.rooms)
            random.shuffle(left)
        while point is not None and left and random.random() < pace:
            store.save(engine, left.pop())
        if point is not None and not left and random.random() < pace:
            store.commit(point.star, point.offset)
            point = None
        if random.random() < crashes:
            # Whatever was written stays, a half-done round of rooms too; all else is lost.
            engine, point, left = store.restored(), None, []
            place = next((n for n, record in enumerate(log) if record[0] > store.offset), len(log))
            crashes /= 1.5  # or it would never come to an end
    return shown(outputs + engine.flush()), engine


@given(logs(max_records=30), st.integers(0, 2**32), st.sampled_from((0.1, 0.4, 0.8)))
@settings(max_examples=effort(150))
def test_rooms_saved_each_at_its_own_moment_give_the_same_output(log: list[Record], seed: int, pace: float) -> None:
    whole = trusting()
    expected = run(whole, log, 10_000)
    got, engine = staggered(log, Random(seed), crashes=0.3, pace=pace)
    same(got, expected)
    assert engine.summary() == whole.summary()


@pytest.mark.parametrize("seed", range(6))
def test_a_long_log_with_rooms_saved_each_at_its_own_moment_gives_the_same_output(seed: int) -> None:
    log = long_log(stamped=True, seed=20 + seed, n_records=1_000)
    whole = trusting()
    expected = run(whole, log, 10_000)
    got, engine = staggered(log, Random(seed), crashes=0.02, pace=(0.02, 0.1, 0.5)[seed % 3])
    assert len(got) > len(expected)  # it did crash, and did tell some things twice
    same(got, expected)
    assert engine.summary() == whole.summary()


@given(logs(max_records=30), st.data())
@settings(max_examples=effort(150))
def test_rooms_ahead_of_the_partition_skip_what_they_know(log: list[Record], data: Any) -> None:
    """One checkpoint, each room at a moment of its own after it, one crash: as small as it can be told."""
    begun = data.draw(st.integers(0, len(log)), label="checkpoint after")
    first = trusting()
    outputs = first.process(log[:begun])
    store, point = Store(), first.checkpoint()
    moments = {room_id: data.draw(st.integers(begun, len(log)), label=room_id) for room_id in point.rooms}
    done = begun
    for room_id, moment in sorted(moments.items(), key=lambda item: item[1]):
        outputs += first.process(log[done:moment])
        done = moment
        store.save(first, room_id)
    # What a room tells up to its own moment is sent before it counts as saved.
    store.commit(point.star, point.offset)
    second = store.restored()
    outputs += second.process([record for record in log if record[0] > store.offset]) + second.flush()
    whole = trusting()
    expected = run(whole, log, 10_000)
    same(shown(outputs), expected)
    assert second.summary() == whole.summary()


def test_a_checkpoint_names_every_room_that_changed_since_it_was_saved() -> None:
    log = long_log(stamped=True, n_records=600)
    engine, kept = trusting(), dict[str, bytes]()
    for record in log:
        engine.process([record])
        point = engine.checkpoint()
        states = engine.snapshot()
        assert point.star == states.pop(STAR)
        assert point.offset == record[0]
        assert {room_id for room_id, state in states.items() if kept.get(room_id) != state} <= set(point.rooms)
        if record[0] % 7 == 0:
            for room_id in point.rooms:
                assert engine.save(room_id).parts[-1][0] == room_id
                kept[room_id] = states[room_id]
