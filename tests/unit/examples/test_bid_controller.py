"""The contract's rule for acting, as the example controller decides it."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest

from examples.bid_controller import KNOBS, may_act
from schemas.base import Mode
from schemas.commands import BidCommand, CommandAction, CommandStatus

NOW = 1_767_225_600_000
COMMAND = {
    "command_id": "cmd-1",
    "revision": 1,
    "seq": 5,
    "room_id": "room-1",
    "plan_id": "plan-1",
    "ts": NOW - 1_000,
    "expires_ts": NOW + 59_000,
    "action": "set_bid",
    "direction": "more_spend",
    "value": 3_300,
    "unit": "minor:CNY",
    "mode": "auto",
    "status": "issued",
    "reason": {"code": "return_above_target"},
    "policy_version": "0123456789ab",
}
CALM: dict[str, Any] = {"beat_ms": NOW - 5_000, "last_seq": 4, "is_done": False, "is_killed": False}


def test_the_command_of_these_tests_is_one_of_the_contract() -> None:
    BidCommand.model_validate(COMMAND)


def test_nothing_in_the_way_means_act() -> None:
    assert may_act(COMMAND, NOW, **CALM)


@pytest.mark.parametrize(
    ("change", "acts"),
    [
        ({"expires_ts": NOW + 1}, True),
        ({"expires_ts": NOW}, False),
        ({"expires_ts": NOW - 1}, False),
        ({"seq": 4}, False),
        ({"seq": 3}, False),
        ({"seq": 900}, True),
        ({"revision": 2}, True),
        ({"emergency": True, "seq": 4}, False),
    ],
)
def test_a_command_must_not_be_expired_and_must_be_newer_than_the_last_acted_on(
    change: dict[str, Any], acts: bool
) -> None:
    assert may_act(COMMAND | change, NOW, **CALM) is acts


@pytest.mark.parametrize(("mode", "status"), [*product(get_args(Mode), get_args(CommandStatus))])
def test_only_what_is_issued_in_auto_or_approved_is_acted_on(mode: str, status: str) -> None:
    expected = status == "approved" or (mode == "auto" and status == "issued")
    assert may_act(COMMAND | {"mode": mode, "status": status}, NOW, **CALM) is expected


@pytest.mark.parametrize(
    ("change", "acts"),
    [
        ({"is_killed": True}, False),
        ({"is_done": True}, False),
        ({"beat_ms": NOW}, True),
        ({"beat_ms": NOW - 30_000}, True),
        ({"beat_ms": NOW - 30_001}, False),
        ({"beat_ms": 0}, False),
    ],
)
def test_a_kill_switch_a_silent_pipeline_or_an_id_that_is_done_stops_it(change: dict[str, Any], acts: bool) -> None:
    assert may_act(COMMAND, NOW, **CALM | change) is acts


@pytest.mark.parametrize("status", ["issued", "approved"])
@pytest.mark.parametrize(
    "stop", [{"is_killed": True}, {"is_done": True}, {"beat_ms": NOW - 30_001}, {"last_seq": 5}, {"last_seq": 6}]
)
def test_an_approval_overrules_none_of_the_stops(status: str, stop: dict[str, Any]) -> None:
    assert not may_act(COMMAND | {"status": status}, NOW, **CALM | stop)


def test_what_turns_a_knob_is_told_from_what_only_tells_something() -> None:
    assert KNOBS["pause"] == KNOBS["resume"], "they count on one knob"
    assert not {"hold", "heartbeat"} & set(KNOBS)
    assert set(KNOBS) < set(get_args(CommandAction))
