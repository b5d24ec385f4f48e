"""The example controller on a broker: what it acts on, what it leaves alone, what it answers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from agents.broker import EmbeddedBroker
from examples.bid_controller import Controller
from schemas import topics
from schemas.commands import BidCommand
from schemas.control import Ack, KillState, is_signed, sign

pytestmark = pytest.mark.integration

KEY = b"a control key of 32 characters ..."
MINUTE_MS = 60_000
TOPICS = (topics.BID_COMMANDS, topics.BID_ACKS, topics.OPS_KILL)


class Bench:
    """A broker with nothing on it, a pipeline played by the test, and controllers that note what they turned."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.bootstrap = broker.bootstrap
        self.producer = KafkaProducer(bootstrap_servers=self.bootstrap)
        self.turned: list[str] = []
        self._number = itertools.count(1)

    def controller(self, name: str = "one", turn: Any = None) -> Controller:
        """Start a controller, for the first time or again."""

        def note(command: dict[str, Any]) -> str:
            self.turned.append(command["command_id"])
            return "applied"

        return Controller(self.bootstrap, name, KEY, turn or note)

    def write(self, topic: str, key: str, value: bytes | None, partition: int) -> None:
        """Write one record and wait until the broker has it."""
        self.producer.send(topic, value, key.encode(), partition=partition).get(timeout=10)

    def beat(self, partition: int = 0, age_ms: int = 0) -> None:
        """Write a heartbeat that is `age_ms` old."""
        self.command(partition, action="heartbeat", room_id="*", plan_id=None, age_ms=age_ms, seq=1)

    def kill(self, key: str, on: bool | None, partition: int = 0) -> None:
        """Turn the kill switch of a room or of all (`*`); None is a tombstone."""
        state = None if on is None else KillState(on=on, actor="anna", ts=now_ms()).model_dump_json().encode()
        self.write(topics.OPS_KILL, key, state, partition)

    def command(self, partition: int = 0, *, age_ms: int = 0, **change: Any) -> str:
        """Write a command that nothing but `change` and its age speaks against; return its id."""
        ts = now_ms() - age_ms
        command_id = f"cmd-{next(self._number)}"
        command: dict[str, Any] = {
            "command_id": command_id, "seq": 1, "room_id": "room-1", "plan_id": "plan-1", "ts": ts,
            "expires_ts": ts + MINUTE_MS, "action": "set_bid", "direction": "less_spend", "prev_value": 3_000,
            "value": 2_700, "unit": "minor:CNY", "mode": "auto", "status": "issued",
            "reason": {"code": "return_below_target"}, "policy_version": "0123456789ab",
        } | change  # fmt: skip
        value = BidCommand.model_validate(command).model_dump_json(exclude_none=True).encode()
        self.write(topics.BID_COMMANDS, command["room_id"], value, partition)
        return str(command["command_id"])

    def answers(self) -> list[dict[str, Any]]:
        """Return every answer there is, oldest first."""
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        partitions = [TopicPartition(topics.BID_ACKS, number) for number in range(4)]
        consumer.assign(partitions)
        found: list[dict[str, Any]] = []
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            found += [orjson.loads(r.value) for records in consumer.poll(100).values() for r in records]
        consumer.close(autocommit=False, timeout_ms=500)
        return sorted(found, key=lambda ack: int(ack["ts"]))

    def statuses(self, command_id: str) -> list[str]:
        """Return what was answered to one command."""
        return [ack["status"] for ack in self.answers() if ack["command_id"] == command_id]


def now_ms() -> int:
    """Return the wall clock's time: commands expire by it."""
    return time.time_ns() // 1_000_000


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench on a broker of its own: the topics have fixed names."""
    with EmbeddedBroker(topics=TOPICS) as broker:
        bench = Bench(broker)
        yield bench
        bench.producer.close(timeout=1)


def test_a_command_is_acted_on_once_and_answered_with_signatures_that_verify(bench: Bench) -> None:
    bench.beat()
    command_id = bench.command()
    controller = bench.controller()
    controller.step()
    bench.command(command_id=command_id)  # a worker that came back after a crash sends it again
    controller.step()

    assert bench.turned == [command_id]
    assert bench.statuses(command_id) == ["accepted", "applied"]
    for answer in bench.answers():
        Ack.model_validate(answer)
        assert answer["kid"] == "controller:one"
        assert is_signed(answer, KEY)
        assert not is_signed(answer, KEY[::-1])


def test_what_was_done_is_known_after_a_restart(bench: Bench) -> None:
    bench.beat()
    acted = bench.command(seq=7)
    bench.controller().step()
    bench.command(seq=7, command_id=acted)
    lower = bench.command(seq=6)
    restarted = bench.controller()
    restarted.step()
    assert bench.turned == [acted]

    higher = bench.command(seq=8)
    restarted.step()
    assert bench.turned == [acted, higher]
    assert bench.statuses(lower) == []


def test_an_expired_command_is_left_alone(bench: Bench) -> None:
    controller = bench.controller()
    bench.beat()
    bench.command(age_ms=MINUTE_MS)
    fresh = bench.command(age_ms=MINUTE_MS - 20_000, seq=2)
    controller.step()
    assert bench.turned == [fresh]


def test_seq_counts_for_each_knob_by_itself(bench: Bench) -> None:
    controller = bench.controller()
    bench.beat()
    first = bench.command(seq=5)
    bench.command(seq=5)
    bench.command(seq=4)
    other_room = bench.command(seq=1, room_id="room-2")
    other_plan = bench.command(seq=1, plan_id="plan-2")
    other_knob = bench.command(seq=1, action="set_budget", value=10_000)
    newer = bench.command(seq=6)
    controller.step()
    assert bench.turned == [first, other_room, other_plan, other_knob, newer]


@pytest.mark.parametrize("key", ["room-1", "*"])
def test_nothing_is_done_while_the_kill_switch_is_on(bench: Bench, key: str) -> None:
    bench.kill(key, on=False, partition=1)
    bench.kill(key, on=True, partition=1)  # long before the controller starts
    controller = bench.controller()
    bench.beat()
    stopped = bench.command()
    controller.step()
    assert bench.turned == []
    assert bench.answers() == []

    bench.kill(key, on=False, partition=1)
    controller.step()
    bench.command(command_id=stopped)  # it was neither acted on nor refused: sent again, it is read again
    controller.step()
    assert bench.turned == [stopped]


def test_the_kill_switch_of_one_room_stops_that_room_only_and_a_tombstone_lifts_it(bench: Bench) -> None:
    controller = bench.controller()
    bench.beat()
    bench.kill("room-1", on=True)
    bench.command()
    other = bench.command(room_id="room-2")
    controller.step()
    assert bench.turned == [other]

    bench.kill("room-1", on=None)
    later = bench.command()
    controller.step()
    assert bench.turned == [other, later]


def test_a_kill_switch_that_is_turned_between_two_commands_stops_the_second(bench: Bench) -> None:
    def turn(command: dict[str, Any]) -> str:
        bench.turned.append(command["command_id"])
        bench.kill("*", on=True)
        return "applied"

    controller = bench.controller(turn=turn)
    bench.beat()
    first = bench.command()
    bench.command(room_id="room-2")
    controller.step()
    assert bench.turned == [first]


def test_without_a_heartbeat_of_its_own_partition_a_command_is_left_alone(bench: Bench) -> None:
    controller = bench.controller()
    bench.beat(partition=1)
    bench.command(partition=0)
    alive = bench.command(partition=1, room_id="room-2")
    controller.step()
    assert bench.turned == [alive]


def test_a_heartbeat_older_than_half_a_minute_is_none_and_a_fresh_one_lets_work_go_on(bench: Bench) -> None:
    controller = bench.controller()
    bench.beat(age_ms=31_000)
    bench.command()
    controller.step()
    assert bench.turned == []

    bench.beat()
    later = bench.command()
    controller.step()
    assert bench.turned == [later]


def test_an_approved_revision_is_acted_on_though_the_pending_one_was_read(bench: Bench) -> None:
    controller = bench.controller()
    bench.beat()
    pending = bench.command(mode="approve", status="pending_approval")
    controller.step()
    assert bench.turned == []

    bench.command(command_id=pending, revision=2, mode="approve", status="approved")
    controller.step()
    bench.command(command_id=pending, revision=3, mode="approve", status="approved")
    controller.step()
    assert bench.turned == [pending]


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "shadow"},
        {"mode": "approve"},
        {"status": "suppressed"},
        {"action": "hold", "direction": "none", "value": None},
    ],
)
def test_what_is_not_meant_for_it_is_left_alone(bench: Bench, change: dict[str, Any]) -> None:
    controller = bench.controller()
    bench.beat()
    bench.command(**change)
    meant = bench.command(seq=2)
    controller.step()
    assert bench.turned == [meant]


def test_a_controller_that_died_while_turning_a_knob_says_so_and_does_not_try_again(bench: Bench) -> None:
    def die(_: dict[str, Any]) -> str:
        raise RuntimeError

    bench.beat()
    command_id = bench.command()
    with pytest.raises(RuntimeError):
        bench.controller(turn=die).step()
    restarted = bench.controller()
    restarted.step()
    bench.command(command_id=command_id)
    restarted.step()

    assert bench.turned == []
    assert bench.statuses(command_id) == ["accepted", "unknown"]


def test_answers_of_others_count_for_nothing(bench: Bench) -> None:
    bench.beat()
    command_id = bench.command()
    forged = {"command_id": command_id, "room_id": "room-1", "ts": now_ms(), "status": "applied"}
    bench.write(topics.BID_ACKS, "room-1", orjson.dumps(sign(forged, KEY[::-1], "controller:one")), 0)
    bench.write(topics.BID_ACKS, "room-1", orjson.dumps(sign(forged, KEY, "controller:two")), 0)
    bench.write(topics.BID_ACKS, "room-1", orjson.dumps(forged), 0)
    bench.controller().step()
    assert bench.turned == [command_id]
