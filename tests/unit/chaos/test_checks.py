"""The chaos harness' judgement: what it must not let pass, and that a seed always does the same harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas.topics import AUDIT_LOG, BID_COMMANDS, ROOM_ANOMALIES, ROOM_EVENTS_DLQ, ROOM_SIGNALS
from tests.chaos import checks
from tests.chaos.platform import Ledger, read_ledger
from tests.chaos.schedule import schedule
from tests.chaos.wire import Message

COMMAND: dict[str, Any] = {
    "command_id": "cmd-1", "revision": 1, "seq": 1, "room_id": "room-1", "plan_id": "plan-1", "action": "set_bid",
    "mode": "auto", "status": "issued", "value": 100,
}  # fmt: skip
APPLIED: dict[str, Any] = {"what": "applied", "command_id": "cmd-1", "knob": "room-1/plan-1/bid", "seq": 1}


class Replayed(checks.Replay):
    """A replay that gave these commands."""

    def __init__(self, *commands: dict[str, Any]) -> None:
        self.problems = []
        self.summaries = {}
        nothing: dict[str, set[bytes]] = {ROOM_SIGNALS: set(), ROOM_ANOMALIES: set(), AUDIT_LOG: set()}
        self.messages = {0: nothing | {ROOM_EVENTS_DLQ: set(), BID_COMMANDS: {orjson.dumps(c) for c in commands}}}


def sent(*commands: dict[str, Any]) -> list[Message]:
    return [Message(BID_COMMANDS, 0, b"room-1", orjson.dumps(command)) for command in commands]


def test_a_command_that_was_sent_twice_and_acted_on_once_is_right() -> None:
    assert checks.commands(sent(COMMAND, COMMAND), Replayed(COMMAND), [APPLIED]) == []
    assert checks.live_is_replay(sent(COMMAND, COMMAND), Replayed(COMMAND)) == []


@pytest.mark.parametrize(
    ("live", "replayed", "ledger", "words"),
    [
        ([COMMAND], [COMMAND], [APPLIED, APPLIED], "must be settled once"),
        ([COMMAND], [COMMAND], [], "got neither"),
        ([COMMAND], [], [APPLIED], "must follow from the log"),
        ([COMMAND, COMMAND | {"value": 101}], [COMMAND], [APPLIED], "must have one content"),
        ([COMMAND, COMMAND | {"command_id": "cmd-2"}], [COMMAND], [APPLIED], "must name one command"),
        ([COMMAND], [COMMAND], [APPLIED | {"what": "refused", "why": "seq"}], "for age alone"),
        ([COMMAND | {"mode": "shadow"}], [COMMAND], [APPLIED], "must hold commands that were meant"),
    ],
)
def test_an_effect_that_is_missing_doubled_or_of_nothing_is_told(
    live: list[dict[str, Any]], replayed: list[dict[str, Any]], ledger: list[dict[str, Any]], words: str
) -> None:
    assert any(words in problem for problem in checks.commands(sent(*live), Replayed(*replayed), ledger))


def test_a_message_that_only_one_side_has_is_told() -> None:
    (missing,) = checks.live_is_replay([], Replayed(COMMAND))
    assert "1 missing" in missing
    (extra,) = checks.live_is_replay(sent(COMMAND), Replayed())
    assert "1 extra" in extra


def test_a_ledger_line_cut_short_by_a_crash_never_was(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    Ledger(file).write(APPLIED)
    with file.open("ab") as cut:
        cut.write(b'{"what":"appl')
    assert read_ledger(file) == [APPLIED]
    Ledger(file).write(APPLIED | {"seq": 2})
    assert [line["seq"] for line in read_ledger(file)] == [1, 2]


@pytest.mark.parametrize("seed", range(50))
def test_a_seed_always_does_the_same_harm_and_leaves_somebody_to_go_on(seed: int) -> None:
    n_workers, acts = schedule(seed, 30.0, n_brokers_restartable=1)
    assert (n_workers, acts) == schedule(seed, 30.0, n_brokers_restartable=1)
    assert acts == sorted(acts)
    ended = [act for act in acts if act.deed in ("broker_kill", "broker_halt")]
    assert len(ended) == sum(act.deed == "broker_back" for act in acts)
