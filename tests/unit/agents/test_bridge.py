"""What may enter a room's log from outside, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any, NamedTuple

import orjson
import pytest
from aiokafka.partitioner import DefaultPartitioner as AioPartitioner
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner import DefaultPartitioner

from agents.bridge import Accepted, Bridge, Refusal, judge_ack, judge_control, policy_record
from agents.kafka import partition_of
from agents.sender import Confirmation
from pipeline import Engine
from schemas.base import MAX_AHEAD_MS
from schemas.control import KillState, is_signed, sign
from schemas.settings import Policy, Settings
from schemas.topics import BID_ACKS, OPS_CONTROL, OPS_KILL, ROOM_EVENTS, ROOM_EVENTS_DLQ
from tests.strategies import room_ids

KEY = b"the control key of this deployment, 32+"
OTHER = b"somebody else's control key, as long as that"
TS = 1_700_000_000_000


def control(**changes: Any) -> dict[str, Any]:
    message = {
        "control_id": "ctl-1",
        "room_id": "room-1",
        "ts": TS,
        "actor": "operator",
        "action": "set_mode",
        "args": {"mode": "approve"},
    }
    return {name: value for name, value in (message | changes).items() if value is not ...}


def ack(**changes: Any) -> dict[str, Any]:
    message = {"command_id": "cmd-1", "room_id": "room-1", "ts": TS, "status": "applied", "observed_value": 1_200}
    return {name: value for name, value in (message | changes).items() if value is not ...}


def signed(message: dict[str, Any], kid: str = "control", key: bytes = KEY) -> bytes:
    return orjson.dumps(sign(message, key, kid))


def reason(verdict: Accepted | Refusal) -> str:
    assert isinstance(verdict, Refusal), verdict
    return verdict.reason


def record(verdict: Accepted | Refusal) -> dict[str, Any]:
    assert isinstance(verdict, Accepted), verdict
    loaded = orjson.loads(verdict.record)
    assert isinstance(loaded, dict)
    return loaded


# ------------------------------------------------------------------------------------------------- what is let in


@pytest.mark.parametrize("kid", ["control", "operator:li"])
def test_a_signed_control_becomes_a_record_signed_by_the_bridge(kid: str) -> None:
    made = record(judge_control(signed(control(), kid), KEY, TS))
    assert made["kid"] == "control"
    assert is_signed(made, KEY)
    assert {name: made[name] for name in ("type", "event_id", "control_id", "room_id", "ts", "actor")} == {
        "type": "control",
        "event_id": "ctl-1",
        "control_id": "ctl-1",
        "room_id": "room-1",
        "ts": TS,
        "actor": "operator",
    }
    assert made["args"] == {"mode": "approve"}


@pytest.mark.parametrize("kid", ["control", "controller:bids-1"])
def test_a_signed_answer_becomes_a_record_signed_by_the_bridge(kid: str) -> None:
    made = record(judge_ack(signed(ack(), kid), KEY, TS))
    assert is_signed(made, KEY)
    assert made["kid"] == "control"
    assert (made["type"], made["status"], made["observed_value"]) == ("ack", "applied", 1_200)


def test_an_answer_sent_twice_has_one_id_and_another_answer_another() -> None:
    first, again = (record(judge_ack(signed(ack(), kid), KEY))["event_id"] for kid in ("control", "controller:x"))
    assert first == again
    assert first != record(judge_ack(signed(ack(status="failed")), KEY))["event_id"]
    assert first != record(judge_ack(signed(ack(ts=TS + 1)), KEY))["event_id"]


def test_what_the_bridge_and_the_worker_write_is_what_the_engine_believes() -> None:
    settings = Settings.model_validate({"control_key": KEY.decode(), "privacy_key": "p" * 32})
    engine = Engine(settings)
    policy = Policy().model_copy(update={"default_stage": "promotion"})
    enter = {"type": "view", "event_id": "e", "room_id": "room-1", "ts": TS, "action": "enter", "session_id": "s"}
    written = [
        policy_record(policy, {"engine": 1}, 0, key=KEY, start_ts=TS, ts=TS),
        orjson.dumps(enter),
        orjson.dumps(record(judge_control(signed(control()), KEY))),
        orjson.dumps(record(judge_ack(signed(ack()), KEY))),
    ]
    engine.process([(offset, TS + offset, value) for offset, value in enumerate(written)])
    assert engine.counters.n_events == len(written)
    assert engine.counters.rejects == {}
    assert engine.policy_version == policy.version()


def test_the_kill_switch_has_a_state_of_its_own() -> None:
    verdict = judge_control(signed(control(room_id="*", action="kill_switch", args={"on": True})), KEY)
    assert isinstance(verdict, Accepted)
    assert verdict.room_id == "*"
    assert verdict.kill == KillState(on=True, actor="operator", ts=TS)


# ------------------------------------------------------------------------------------------------- what is not


@pytest.mark.parametrize("judge", [judge_control, judge_ack])
@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\xff", "not_json"),
        (b"{", "not_json"),
        (b"[]", "not_object"),
        (b"7", "not_object"),
        (b'{"a": NaN}', "not_json"),
        (b"{}", "unsigned"),
        (b'{"pad":"' + b"x" * 65_536 + b'"}', "too_large"),
    ],
)
def test_what_is_no_message_is_refused(judge: Any, raw: bytes, code: str) -> None:
    assert reason(judge(raw, KEY, TS)) == code


def test_unsigned_and_wrongly_signed_controls_are_refused() -> None:
    assert reason(judge_control(orjson.dumps(control()), KEY)) == "unsigned"
    assert reason(judge_control(orjson.dumps(control(kid="control")), KEY)) == "unsigned"
    assert reason(judge_control(signed(control(), key=OTHER), KEY)) == "bad_signature"
    changed = {**sign(control(), KEY), "room_id": "room-2"}
    assert reason(judge_control(orjson.dumps(changed), KEY)) == "bad_signature"
    assert reason(judge_control(orjson.dumps({**control(), "kid": "control", "sig": "é"}), KEY)) == "bad_signature"
    assert reason(judge_control(orjson.dumps({**control(), "kid": 7, "sig": "00"}), KEY)) == "bad_signature"


def test_a_controllers_key_signs_no_control_and_an_operators_no_answer() -> None:
    assert reason(judge_control(signed(control(), "controller:bids-1"), KEY)) == "bad_signature"
    assert reason(judge_ack(signed(ack(), "operator:li"), KEY)) == "bad_signature"
    assert reason(judge_control(orjson.dumps({**control(), "kid": "operators", "sig": "00"}), KEY)) == "bad_signature"


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (control(action="explode"), "unknown_value", "action"),
        (control(room_id=...), "missing_field", "room_id"),
        (control(ts="now"), "bad_type", "ts"),
        (control(ts=-1), "negative", "ts"),
        (control(args={}), "bad_value", "args.mode"),
        (control(args={"mode": "loud"}), "bad_value", "args.mode"),
        (control(action="kill_switch", args={"on": "yes"}), "bad_value", "args.on"),
        (control(room_id="*"), "bad_value", "must be one room"),
        (control(ts=TS + MAX_AHEAD_MS + 1), "ts_ahead", "ahead"),
        (
            control(room_id="*", action="update_settings", args={"policy": {"bidding": {"step_ratio": 2}}}),
            "bad_value",
            "args.policy.bidding.step_ratio",
        ),
    ],
)
def test_a_signed_control_that_makes_no_sense_is_refused_with_words(
    message: dict[str, Any], code: str, words: str
) -> None:
    verdict = judge_control(signed(message), KEY, TS)
    assert reason(verdict) == code
    assert isinstance(verdict, Refusal)
    assert words in verdict.error


def test_an_answer_for_every_room_is_refused() -> None:
    assert reason(judge_ack(signed(ack(room_id="*")), KEY)) == "bad_value"
    assert reason(judge_ack(signed(ack(status="maybe")), KEY)) == "unknown_value"


@given(
    raw=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
        lambda inner: st.dictionaries(st.sampled_from((*control(), "kid", "sig", "x")), inner, max_size=8),
    ).map(orjson.dumps)
)
def test_nothing_unsigned_gets_in_and_nothing_breaks_the_bridge(raw: bytes) -> None:
    assert isinstance(judge_control(raw, KEY, TS), Refusal)
    assert isinstance(judge_ack(raw, KEY, TS), Refusal)


# ------------------------------------------------------------------------------------------------- where it goes


@given(room_id=room_ids(), n_partitions=st.integers(1, 300))
def test_a_room_is_where_every_clients_partitioner_puts_it(room_id: str, n_partitions: int) -> None:
    everywhere = list(range(n_partitions))
    key = room_id.encode()
    expected = DefaultPartitioner()(key, everywhere, everywhere)
    assert partition_of(room_id, n_partitions) == expected
    assert AioPartitioner()(key, everywhere, everywhere) == expected


class Sent(NamedTuple):
    topic: str
    key: bytes | None
    value: bytes | None
    partition: int


class Arrived(NamedTuple):
    offset: int
    value: bytes
    key: bytes | None = b"room-1"
    timestamp: int = TS


def carried(topic: str, *values: bytes) -> list[Sent]:
    """Return what the bridge sends for these messages, in a deployment of 4 partitions."""
    sent: list[Sent] = []

    async def send(topic: str, key: bytes | None, value: bytes | None, partition: int, **_: Any) -> Confirmation:
        sent.append(Sent(topic, key, value, partition))
        return asyncio.sleep(0)

    bridge = Bridge(send, KEY, 4)
    asyncio.run(bridge.carry(topic, 2, [Arrived(10 + place, value) for place, value in enumerate(values)]))
    return sent


def test_a_control_goes_to_its_rooms_partition() -> None:
    (one,) = carried(OPS_CONTROL, signed(control(room_id="room-7")))
    assert (one.topic, one.key, one.partition) == (ROOM_EVENTS, b"room-7", partition_of("room-7", 4))


def test_a_control_for_every_room_goes_to_every_partition_and_the_kill_switch_to_its_topic() -> None:
    sent = carried(OPS_CONTROL, signed(control(room_id="*", action="kill_switch", args={"on": True})))
    log = [one for one in sent if one.topic == ROOM_EVENTS]
    assert [one.partition for one in log] == [0, 1, 2, 3]
    assert len({one.value for one in log}) == 1
    (kill,) = [one for one in sent if one.topic == OPS_KILL]
    assert (kill.key, kill.partition) == (b"*", partition_of("*", 4))
    assert orjson.loads(kill.value or b"") == {"on": True, "actor": "operator", "ts": TS}


def test_a_refused_message_is_a_dead_letter_and_a_log_line_without_it(caplog: pytest.LogCaptureFixture) -> None:
    raw = orjson.dumps(ack(detail="a very private remark"))
    with caplog.at_level(logging.DEBUG, logger="agents"):
        (letter,) = carried(BID_ACKS, raw)
    assert (letter.topic, letter.key, letter.partition) == (ROOM_EVENTS_DLQ, b"room-1", 2)
    told = orjson.loads(letter.value or b"")
    assert (told["reason"], told["topic"], told["partition"], told["offset"]) == ("unsigned", BID_ACKS, 2, 10)
    assert base64.b64decode(told["payload_b64"]) == raw
    assert [line.message for line in caplog.records if line.name.startswith("agents")] == ["message refused"]
    assert "private" not in caplog.text + str([line.__dict__ for line in caplog.records])


def test_one_bad_message_does_not_stop_the_next() -> None:
    sent = carried(OPS_CONTROL, b"nonsense", signed(control()))
    assert [one.topic for one in sent] == [ROOM_EVENTS_DLQ, ROOM_EVENTS]
