"""Ticks and policies: what is written where, when, and with which stamp."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import orjson

from agents.clock import Clock, now_ms
from agents.sender import Confirmation
from pipeline import Engine
from schemas.control import is_signed
from schemas.settings import EngineSettings, Policy, Settings
from schemas.topics import ROOM_EVENTS

KEY = b"the control key of this deployment, 32+"
POLICY = Policy(engine=EngineSettings(tick_ms=1_000))
TS = 1_700_000_001_000


class Sent(NamedTuple):
    partition: int
    stamp_ms: int | None
    message: dict[str, Any]


class Log:
    """What a clock wrote into `room.events`."""

    def __init__(self, *, ticks: bool = True) -> None:
        self.sent: list[Sent] = []
        self.partitions: set[int] = set()
        self.n_failures = 0
        self.ticked_ts: int | None = TS
        self.clock = Clock(
            self.send,
            lambda: self.partitions,
            policy=POLICY,
            versions={"engine": 1},
            control_key=KEY,
            ticked_ts=lambda _: self.ticked_ts,
            ticks=ticks,
        )

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int, **stamp: Any
    ) -> Confirmation:
        assert (topic, key) == (ROOM_EVENTS, b"*")
        if self.n_failures:
            self.n_failures -= 1
            raise OSError
        self.sent.append(Sent(partition, stamp.get("timestamp_ms"), orjson.loads(value or b"")))
        return asyncio.sleep(0)

    def kinds(self, partition: int) -> list[str]:
        return [one.message["type"] for one in self.sent if one.partition == partition]


def test_a_new_partition_is_told_the_policy_before_its_first_tick_and_once() -> None:
    log = Log()
    log.partitions = {0, 1}
    for step in range(3):
        asyncio.run(log.clock.beat(TS + 1_000 * step))
    log.partitions = {1, 2}
    log.clock.assigned(log.partitions)
    asyncio.run(log.clock.beat(TS + 3_000))
    assert log.kinds(0) == ["control", "tick", "tick", "tick"]
    assert log.kinds(1) == ["control", "tick", "tick", "tick", "tick"]
    assert log.kinds(2) == ["control", "tick"]


def test_a_partition_that_comes_back_is_told_the_policy_again() -> None:
    log = Log()
    for step, partitions in enumerate(({0}, set[int](), {0})):
        log.partitions = partitions
        log.clock.assigned(partitions)
        asyncio.run(log.clock.beat(TS + step))
    assert log.kinds(0) == ["control", "tick", "control", "tick"]
    controls = [one.message["control_id"] for one in log.sent if one.message["type"] == "control"]
    assert len(set(controls)) == 2  # a control counts once, for ever


def test_records_carry_their_moment_as_ts_and_as_stamp_and_are_signed() -> None:
    log = Log()
    log.partitions = {3}
    asyncio.run(log.clock.beat(TS))
    control, tick = log.sent
    assert (control.stamp_ms, control.message["ts"]) == (TS, TS)
    assert (tick.stamp_ms, tick.message["ts"]) == (TS, TS)
    assert tick.message == {"type": "tick", "event_id": f"tick-3-{TS}", "room_id": "*", "ts": TS, "every_ms": 1_000}
    assert is_signed(control.message, KEY)
    assert control.message["control_id"] == f"policy-{POLICY.version()}-3-{TS}"


def test_where_a_log_is_played_in_its_own_time_only_the_policy_is_written_and_moves_no_clock() -> None:
    log = Log(ticks=False)
    log.partitions = {0}
    asyncio.run(log.clock.beat(TS))
    ((partition, stamp_ms, message),) = log.sent
    assert (partition, stamp_ms) == (0, 0)
    engine = Engine(Settings.model_validate({"control_key": KEY.decode()}))
    old = {"type": "tick", "event_id": "t", "room_id": "*", "ts": 1_000_000}
    engine.process([(0, stamp_ms, orjson.dumps(message)), (1, 1_000_000, orjson.dumps(old))])
    assert engine.policy_version == POLICY.version()
    assert engine.clock_ms == 1_000_000


def test_a_broker_that_does_not_answer_costs_ticks_and_nothing_else() -> None:
    log = Log()
    log.partitions = {0}
    log.n_failures = 2
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    asyncio.run(log.clock.run(lambda: len(slept) == 4, sleep))
    assert log.kinds(0) == ["control", "tick", "tick"]
    assert all(0 < seconds <= 1 for seconds in slept)


def test_the_wall_clock_is_in_milliseconds_of_this_century() -> None:
    assert 1_700_000_000_000 < now_ms() < 4_102_444_800_000


def test_a_tick_promises_the_next_one_once_the_worker_has_come_to_its_last_ones() -> None:
    log = Log()
    log.partitions = {0}
    promised = []
    for ticked_ts in (None, TS - 3_600_000, TS - 10_001, TS - 10_000, TS):
        log.ticked_ts = ticked_ts
        asyncio.run(log.clock.beat(TS))
        promised.append(log.sent[-1].message["every_ms"])
    assert promised == [0, 0, 0, 1_000, 1_000]
