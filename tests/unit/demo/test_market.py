"""The ad platform acts by the contract's rule: never when it must not, always when it may."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agents.demo.market import HEARTBEAT_MS, AdPlatform
from pipeline.simulate.market import Applied, Value
from schemas.control import Ack

NOW = 1_780_000_000_000


class Knobs:
    """Writes down each turn of a knob."""

    def __init__(self, answer: Applied | None = None) -> None:
        self.turned: list[tuple[str, str, str, Value]] = []
        self._answer = answer or Applied("applied", 2_880)

    def __call__(self, room_id: str, plan_id: str, action: str, value: Value) -> Applied:
        self.turned.append((room_id, plan_id, action, value))
        return self._answer


def command(**changes: Any) -> dict[str, Any]:
    return {
        "command_id": "cmd-1",
        "revision": 1,
        "seq": 1,
        "room_id": "room-001",
        "plan_id": "room-001-cpa",
        "ts": NOW,
        "expires_ts": NOW + 60_000,
        "action": "set_bid",
        "value": 2_880,
        "mode": "auto",
        "status": "issued",
        **changes,
    }


def beat(ts: int = NOW) -> dict[str, Any]:
    return {"action": "heartbeat", "ts": ts, "command_id": f"beat-{ts}"}


def platform(knobs: Knobs, beats_ms: int | None = NOW) -> AdPlatform:
    made = AdPlatform(knobs)
    if beats_ms is not None:
        made.hear(beat(beats_ms), 0)
    return made


def test_an_automatic_command_turns_the_knob_once_and_is_answered_with_what_the_platform_shows() -> None:
    knobs = Knobs()
    controller = platform(knobs)
    controller.hear(command(), 0)
    (ack,) = controller.step(NOW)
    assert knobs.turned == [("room-001", "room-001-cpa", "set_bid", 2_880)]
    assert Ack.model_validate(ack).status == "applied"
    assert ack["observed_value"] == 2_880
    controller.hear(command(), 0)  # the same again, as at-least-once delivery does
    assert controller.step(NOW + 1) == []
    assert len(knobs.turned) == 1


def test_what_is_in_shadow_or_suppressed_is_neither_done_nor_answered() -> None:
    knobs = Knobs()
    controller = platform(knobs)
    controller.hear(command(mode="shadow"), 0)
    controller.hear(command(command_id="cmd-2", status="suppressed"), 0)
    controller.hear(command(command_id="cmd-3", action="hold"), 0)
    assert controller.step(NOW) == []
    assert knobs.turned == []


def test_a_command_waits_for_its_approval_and_is_dropped_without_a_word_when_none_comes() -> None:
    knobs = Knobs()
    controller = platform(knobs)
    controller.hear(command(mode="approve", status="pending_approval"), 0)
    controller.hear(command(command_id="cmd-2", mode="approve", status="pending_approval", plan_id="other"), 0)
    assert controller.step(NOW) == []
    controller.hear(command(mode="approve", status="approved", revision=2), 0)
    assert [ack["command_id"] for ack in controller.step(NOW + 1)] == ["cmd-1"]
    assert controller.step(NOW + 60_000) == []
    assert len(knobs.turned) == 1


def test_an_expired_command_is_answered_as_expired() -> None:
    knobs = Knobs()
    controller = platform(knobs)
    controller.hear(command(), 0)
    (ack,) = controller.step(NOW + 60_000)
    assert (ack["status"], knobs.turned) == ("expired", [])


def test_an_older_command_of_a_knob_is_refused_after_a_newer_one() -> None:
    knobs = Knobs()
    controller = platform(knobs)
    controller.hear(command(seq=2), 0)
    assert controller.step(NOW)[0]["status"] == "applied"
    controller.hear(command(command_id="cmd-2", seq=2), 0)
    controller.hear(command(command_id="cmd-3", seq=2, plan_id="another"), 0)
    assert [ack["status"] for ack in controller.step(NOW)] == ["rejected", "applied"]


def test_the_kill_switch_holds_commands_back_until_it_is_off_again() -> None:
    knobs = Knobs()
    controller = platform(knobs)
    for room_id in ("*", "room-001"):
        controller.kill(room_id, {"on": True, "actor": "op", "ts": NOW})
    controller.hear(command(), 0)
    assert controller.step(NOW) == []
    controller.kill("*", {"on": False, "actor": "op", "ts": NOW})
    assert controller.step(NOW) == []
    controller.kill("room-001", None)  # a tombstone
    assert len(controller.step(NOW)) == 1


def test_a_heartbeat_of_another_partition_or_of_long_ago_does_not_count() -> None:
    knobs = Knobs()
    controller = platform(knobs, None)
    controller.hear(beat(), 1)
    controller.hear(beat(NOW - HEARTBEAT_MS - 1), 0)
    controller.hear(command(), 0)
    assert controller.step(NOW) == []
    controller.hear(beat(NOW - HEARTBEAT_MS), 0)
    assert len(controller.step(NOW)) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("shadow", "approve", "auto")),
            st.sampled_from(("issued", "pending_approval", "approved", "suppressed")),
            st.integers(1, 4),
            st.integers(-2_000, 2_000),
            st.sampled_from(("plan-a", "plan-b")),
        ),
        max_size=12,
    ),
    st.booleans(),
    st.booleans(),
)
def test_it_acts_exactly_when_the_rule_says_so(
    commands: list[tuple[Any, ...]], is_killed: bool, is_beating: bool
) -> None:
    knobs = Knobs()
    controller = platform(knobs, NOW if is_beating else None)
    controller.kill("*", {"on": is_killed})
    expected, last = [], dict[str, int]()
    for number, (mode, status, seq, left_ms, plan_id) in enumerate(commands):
        controller.hear(
            command(
                command_id=f"cmd-{number}", mode=mode, status=status, seq=seq, expires_ts=NOW + left_ms,
                plan_id=plan_id, value=number,
            ), 0,
        )  # fmt: skip
        is_meant = status == "approved" or (mode == "auto" and status == "issued")
        if is_meant and left_ms > 0 and seq > last.get(plan_id, 0) and is_beating and not is_killed:
            last[plan_id] = seq
            expected.append(number)
    controller.step(NOW)
    assert [value for _, _, _, value in knobs.turned] == expected
