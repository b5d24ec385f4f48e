"""Bid commands in a room: steps, approval, expiry, the kill switch, answers, and a trail to check."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from pipeline import Engine
from schemas import topics
from schemas.settings import BiddingSettings, Settings
from tests.partition import ROOM, Message, Partition, second_of
from tests.strategies import START_MS

SETTINGS = BiddingSettings()
READY_S = 600


def fresh(log: Partition, second: float) -> None:
    """Let both feeds that bids rest on say that they are complete."""
    for feed in ("spend", "order"):
        log.at(second, "feed", feed=feed, complete_through_ts=START_MS + round(second * 1_000))


def show(log: Partition, second: float, **fields: Any) -> None:
    shown = {"status": "delivering", "bid_kind": "cost_per_action", "bid_minor": 1_000, **fields}
    log.at(second, "plan", plan_id="plan-1", **shown)


def ready(mode: str = "auto", *, amount: int = 10_000, **plan: Any) -> Partition:
    """Return a room at second 600 in which the next look takes a step: return is twice its target (or `amount`'s)."""
    log = Partition(bidding=BiddingSettings(mode="shadow"))
    settings = {"currency": "CNY", "target_roas": 2, "budget_minor": 10**7}
    log.at(0, "room", action="start", settings=settings)
    if mode != "shadow":
        log.control(1, "set_mode", mode=mode)
    show(log, 2, **plan)
    log.at(3, "spend", plan_id="plan-1", impressions=9_000, clicks=300, cost_minor=50_000, currency="CNY")
    for n in range(20):
        log.at(
            4 + n, "order", order_id=f"o{n}", status="paid", amount_minor=amount, currency="CNY", attribution="direct"
        )
    return log.tick(READY_S - 1)


def go(log: Partition, until_s: float = READY_S + 8) -> Partition:
    """Let the feeds speak, and time go on until the room's plans were looked at."""
    fresh(log, READY_S)
    return log.ticks(READY_S, until_s)


def step_of(log: Partition) -> Message:
    (step,) = log.steps()
    return step


def holds(log: Partition) -> list[str]:
    return [command["reason"]["code"] for command in log.commands() if command["action"] == "hold"]


def test_a_step_says_what_why_and_until_when() -> None:
    step = step_of(go(ready()))
    assert (step["action"], step["direction"], step["mode"], step["status"]) == (
        "set_bid",
        "more_spend",
        "auto",
        "issued",
    )
    assert (step["prev_value"], step["value"], step["unit"]) == (1_000, 1_100, "minor:CNY")
    assert 0 < step["expires_ts"] - step["ts"] <= 60_000
    assert (step["room_id"], step["plan_id"], step["emergency"]) == (ROOM, "plan-1", False)
    assert step["reason"]["code"] == "return_above_target"
    assert step["reason"]["params"]["roas_low"] > 2
    assert step["evidence"]["n_orders"] == 20


@pytest.mark.parametrize(("amount", "direction", "goal"), [(10_000, "more_spend", -1), (1_000, "less_spend", 1)])
def test_a_goal_is_a_decimal_text_that_moves_against_the_spend(amount: int, direction: str, goal: int) -> None:
    plan: Any = {"bid_kind": "roi_goal", "bid_minor": None, "roi_goal": "2.5"}
    step = step_of(go(ready(amount=amount, **plan)))
    assert (step["action"], step["direction"], step["unit"]) == ("set_roi_goal", direction, "ratio")
    assert step["prev_value"] == "2.5"
    assert isinstance(step["value"], str)
    assert (float(step["value"]) > 2.5) == (goal > 0)


@pytest.mark.parametrize(
    ("mode", "status"), [("shadow", "issued"), ("approve", "pending_approval"), ("auto", "issued")]
)
def test_the_mode_says_what_becomes_of_a_step(mode: str, status: str) -> None:
    step = step_of(go(ready(mode)))
    assert (step["mode"], step["status"]) == (mode, status)


def test_switched_off_nothing_is_bid() -> None:
    log = ready("off")
    n_before = len(log.commands())
    assert len(go(log).commands()) == n_before


def test_data_that_nobody_vouches_for_hold() -> None:
    log = ready().ticks(READY_S, READY_S + 8)
    assert log.steps() == []
    assert holds(log)[-1] == "stale_feed"


def test_an_excluded_window_holds() -> None:
    log = ready()
    times: Any = {"from_ts": START_MS + READY_S * 1_000, "to_ts": START_MS + (READY_S + 20) * 1_000}
    go(log.control(READY_S - 0.5, "exclude_window", **times), READY_S + 18)
    assert log.steps() == []
    assert holds(log)[-1] == "excluded_window"
    log.enter(READY_S + 21)  # only a room with news is looked at
    assert step_of(log.ticks(READY_S + 21, READY_S + 30))["ts"] >= times["to_ts"]


def test_time_without_news_makes_feeds_late_and_bids_hold() -> None:
    log = go(ready())
    log.at(READY_S + 9, "ack", command_id=step_of(log)["command_id"], status="applied")
    log.ticks(READY_S + 9, READY_S + 400)
    assert len(log.steps()) == 1
    assert holds(log)[-1] == "stale_feed"


# -- kill switch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room_id", [ROOM, "*"])
def test_while_the_kill_switch_is_on_nothing_is_bid(room_id: str) -> None:
    log = ready().control(READY_S - 0.5, "kill_switch", room_id=room_id, on=True)
    go(log)
    log.control(READY_S + 8.1, "override_bid", plan_id="plan-1", value=900)
    assert log.steps() == []
    assert holds(log)[-1] == "kill_switch"
    log.control(READY_S + 8.2, "kill_switch", room_id=room_id, on=False).ticks(READY_S + 8.5, READY_S + 20)
    assert step_of(log)["value"] == 1_100


def test_the_kill_switch_of_another_room_is_not_ours() -> None:
    log = ready().control(READY_S - 0.5, "kill_switch", room_id="room-2", on=True)
    assert step_of(go(log))["value"] == 1_100


def test_the_heartbeat_tells_that_all_rooms_are_off() -> None:
    log = Partition().tick(0).control(1, "kill_switch", room_id="*", on=True).ticks(1, 20)
    assert {beat["mode"] for beat in log.heartbeats()} == {"off"}


# -- approval ---------------------------------------------------------------------------------------------------


def test_an_approval_sends_the_same_command_again_as_approved() -> None:
    log = go(ready("approve"))
    pending = step_of(log)
    log.control(READY_S + 10, "approve", command_id=pending["command_id"])
    approved = log.steps()[-1]
    assert (approved["status"], approved["revision"]) == ("approved", 2)
    changed = {name for name in approved if approved[name] != pending.get(name)}
    assert changed == {"status", "revision"}
    # Once is enough.
    log.control(READY_S + 11, "approve", command_id=pending["command_id"])
    assert len(log.steps()) == 2


def test_an_approval_after_the_expiry_comes_too_late() -> None:
    log = go(ready("approve"))
    pending = step_of(log)
    after_s = second_of(pending["expires_ts"])
    log.control(after_s, "approve", command_id=pending["command_id"])
    assert [step for step in log.steps() if step["status"] == "approved"] == []


def test_a_rejection_drops_the_command() -> None:
    log = go(ready("approve"))
    pending = step_of(log)
    log.control(READY_S + 10, "reject", command_id=pending["command_id"])
    log.control(READY_S + 11, "approve", command_id=pending["command_id"])
    assert [step for step in log.steps() if step["status"] == "approved"] == []


def test_an_approval_names_its_command() -> None:
    log = go(ready("approve"))
    log.control(READY_S + 10, "approve", command_id="cmd-nobody")
    assert [step["status"] for step in log.steps()] == ["pending_approval"]


def test_what_was_issued_needs_no_approval_and_takes_none() -> None:
    log = go(ready("auto"))
    log.control(READY_S + 10, "approve", command_id=step_of(log)["command_id"])
    assert [step["status"] for step in log.steps()] == ["issued"]


def test_an_approval_while_the_kill_switch_is_on_sends_nothing() -> None:
    log = go(ready("approve"))
    pending = step_of(log)
    log.control(READY_S + 10, "kill_switch", on=True)
    log.control(READY_S + 11, "approve", command_id=pending["command_id"])
    assert [step for step in log.steps() if step["status"] == "approved"] == []


def test_an_approval_after_the_end_sends_nothing() -> None:
    log = go(ready("approve"))
    pending = step_of(log)
    log.at(READY_S + 10, "room", action="end")
    log.control(READY_S + 11, "approve", command_id=pending["command_id"])
    assert [step for step in log.steps() if step["status"] == "approved"] == []


def test_an_operators_own_value_stays_within_floor_and_cap() -> None:
    log = ready()
    log.control(READY_S, "override_bid", plan_id="plan-1", value=10**9)
    step = step_of(log)
    assert (step["status"], step["value"], step["reason"]["code"]) == ("approved", SETTINGS.cap_minor, "override")
    assert [rail["name"] for rail in step["guardrails"]] == ["floor_cap"]


# -- answers ----------------------------------------------------------------------------------------------------


def answered(status: str, *, seen_at_s: int = 10**9, **fields: Any) -> Partition:
    """Return a room whose step got an answer, some minutes and several looks later.

    From `seen_at_s` on the platform shows the bid that was asked for.
    """
    log = go(ready())
    log.at(READY_S + 9, "ack", command_id=step_of(log)["command_id"], status=status, **fields)
    for second in range(READY_S + 20, READY_S + 400, 20):
        if second >= seen_at_s:
            show(log, second, bid_minor=1_100)
        fresh(log, second)
    return log.tick(READY_S + 400)


def test_an_accepted_command_stays_open() -> None:
    log = answered("accepted")
    assert len(log.steps()) == 1
    assert holds(log)[-1] == "open_command"


def test_an_applied_command_is_the_base_of_the_next() -> None:
    first, *rest = answered("applied").steps()
    assert [(step["prev_value"], step["seq"] > first["seq"]) for step in rest] == [(1_100, True)]


def test_the_value_that_was_read_back_is_the_base_of_the_next() -> None:
    assert answered("applied", observed_value=1_050).steps()[1]["prev_value"] == 1_050


@pytest.mark.parametrize("status", ["failed", "rejected", "noop", "expired"])
def test_a_command_that_came_to_nothing_leaves_the_knob_where_it_was(status: str) -> None:
    steps = answered(status).steps()
    assert len(steps) == 2
    assert steps[1]["prev_value"] == 1_000


def test_an_outcome_nobody_knows_holds_until_the_plan_is_read_back() -> None:
    log = answered("unknown")
    assert len(log.steps()) == 1
    assert "outcome_unknown" in holds(log)
    assert [step["prev_value"] for step in answered("unknown", seen_at_s=READY_S + 100).steps()] == [1_000, 1_100]


def test_an_answer_to_nothing_we_sent_changes_nothing() -> None:
    log = go(ready())
    log.at(READY_S + 9, "ack", command_id="cmd-nobody", status="applied", observed_value=5)
    log.at(READY_S + 9.5, "ack", command_id=step_of(log)["command_id"], status="applied")
    log.control(READY_S + 10, "override_bid", plan_id="plan-1", value=1_200)
    assert log.steps()[-1]["prev_value"] == 1_100


def test_without_an_answer_no_further_step_is_taken() -> None:
    log = go(ready())
    for second in range(READY_S + 20, READY_S + 400, 20):
        fresh(log, second)
    assert len(log.steps()) == 1
    assert log.commands()[-1]["reason"] == {
        "code": "open_command",
        "params": {"command_id": step_of(log)["command_id"], "is_answer_missing": True},
    }


def test_seq_grows_with_every_step_of_a_plan_and_holds_do_not_take_one() -> None:
    log = answered("applied")
    log.control(READY_S + 401, "override_bid", plan_id="plan-1", value=900)
    seqs = [step["seq"] for step in log.steps()]
    assert len(seqs) == 3
    assert seqs == sorted(set(seqs))
    last = 0
    for command in log.commands():
        assert command["seq"] >= last
        last = command["seq"]


def test_seq_goes_on_growing_in_the_next_session() -> None:
    log = go(ready())
    log.at(READY_S + 9, "room", action="end").at(READY_S + 10, "room", action="start")
    log.control(READY_S + 11, "override_bid", plan_id="plan-1", value=900)
    first, second = log.steps()
    assert second["seq"] > first["seq"]
    assert second["command_id"] != first["command_id"]


# -- time -------------------------------------------------------------------------------------------------------


def test_a_command_that_is_over_before_anybody_could_read_it_is_suppressed() -> None:
    log = ready()
    fresh(log, READY_S)
    log.tick(READY_S + 3_600)
    born = [step for step in log.steps() if step["expires_ts"] <= START_MS + (READY_S + 3_600) * 1_000]
    assert born
    assert {step["status"] for step in born} == {"suppressed"}
    assert all("expired_at_birth" in [rail["name"] for rail in step["guardrails"]] for step in born)
    # It moved nothing: the next one starts from the same knob, with the same number, and no cooldown holds it.
    fresh(log, READY_S + 3_600)
    log.control(READY_S + 3_601, "override_bid", plan_id="plan-1", value=900)
    assert (log.steps()[-1]["prev_value"], log.steps()[-1]["seq"]) == (1_000, born[-1]["seq"])


#  ticks    | | | | | |                           |
#  events   . . . . . . . . . . . . . . . . . . . . .
#  bids     yes       5 s  |--- nothing is bid ---| yes
def test_nothing_is_bid_in_a_stretch_of_the_log_that_no_worker_attended() -> None:
    log = ready()
    fresh(log, READY_S)
    log.at(READY_S + 1, "tick", room_id="*", every_ms=500)
    for second in range(2, 60, 2):
        fresh(log, READY_S + second)
    told = [command for command in log.commands() if command["ts"] > START_MS + (READY_S + 6) * 1_000]
    assert {(command["action"], command["status"]) for command in told} == {("hold", "suppressed")}
    assert {command["reason"]["code"] for command in told} == {"unattended"}
    assert len(told) == 1  # told once a minute a plan, however long it takes
    n_steps = len(log.steps())
    log.control(READY_S + 60, "override_bid", plan_id="plan-1", value=900)
    (late,) = log.steps()[n_steps:]
    assert late["status"] == "suppressed"
    assert [rail["name"] for rail in late["guardrails"]][-1] == "unattended"
    # Somebody works again, and it moved nothing: the same number, the same knob.
    log.at(READY_S + 61, "tick", room_id="*", every_ms=500)
    log.control(READY_S + 62, "override_bid", plan_id="plan-1", value=900)
    again = log.steps()[-1]
    assert (again["status"], again["seq"], again["prev_value"]) == ("approved", late["seq"], late["prev_value"])


def test_two_overrides_of_one_moment_that_move_nothing_are_two_commands() -> None:
    """As controls come that a worker was not there to carry: one id must not stand for two contents."""
    log = go(ready()).at(READY_S + 60, "tick", room_id="*", every_ms=0)
    n_before = len(log.commands())
    for value in (900, 950):
        log.control(READY_S + 60.1, "override_bid", plan_id="plan-1", value=value)
    first, second = log.commands()[n_before:]
    assert (first["status"], second["status"], first["seq"]) == ("suppressed", "suppressed", second["seq"])
    assert (first["value"], second["value"]) == (900, 950)
    assert first["command_id"] != second["command_id"]


def test_a_worker_that_is_behind_its_own_ticks_bids_nothing_until_it_says_that_it_is_not() -> None:
    log = ready()
    fresh(log, READY_S)
    log.at(READY_S + 1, "tick", room_id="*", every_ms=0)
    log.control(READY_S + 2, "override_bid", plan_id="plan-1", value=900)
    log.at(READY_S + 3, "tick", room_id="*", every_ms=500)
    log.control(READY_S + 4, "override_bid", plan_id="plan-1", value=900)
    assert [step["status"] for step in log.steps()[-2:]] == ["suppressed", "approved"]
    assert log.engine.ticked_ts == START_MS + (READY_S + 3) * 1_000


def test_ticks_that_promise_nothing_are_not_missed() -> None:
    log = ready()
    log.at(READY_S + 1, "tick", room_id="*", every_ms=500)
    log.tick(READY_S + 2)  # another clock took over
    fresh(log, READY_S + 60)
    log.control(READY_S + 61, "override_bid", plan_id="plan-1", value=900)
    assert log.steps()[-1]["status"] == "approved"


def test_every_command_lives_a_minute_at_most() -> None:
    log = answered("applied")
    for command in [*log.commands(), *log.heartbeats()]:
        assert 0 < command["expires_ts"] - command["ts"] <= 60_000


def test_the_same_log_gives_the_same_ids_and_no_id_twice() -> None:
    log = answered("applied")
    again = Engine(Settings(trust_log=True, bidding=BiddingSettings(mode="shadow")))
    outputs = [output.json() for output in again.process(log.log)]
    assert outputs == [output.json() for output in log.outputs]
    revisions = [(command["command_id"], command["revision"]) for command in log.commands()]
    assert len(set(revisions)) == len(revisions)


# -- trail and privacy ------------------------------------------------------------------------------------------


def busy() -> Partition:
    """Return a room with commands, controls, answers and refusals in its trail."""
    log = go(ready("approve"))
    log.control(READY_S + 10, "approve", command_id=step_of(log)["command_id"])
    log.at(READY_S + 11, "ack", command_id=step_of_first(log), status="applied", observed_value=1_100, detail="ok")
    log.control(READY_S + 12, "override_bid", plan_id="plan-1", value=900)
    log.control(READY_S + 13, "kill_switch", room_id="*", on=True)
    log.control(READY_S + 14, "silence", until_ts=START_MS, metric="ivt_ratio")
    return log.control(READY_S + 15, "feedback", anomaly_id="a-1", verdict="false")


def step_of_first(log: Partition) -> str:
    first: str = log.steps()[0]["command_id"]
    return first


def test_every_entry_of_the_trail_is_chained_to_the_one_before() -> None:
    trail = busy().trail()
    heads: dict[str, tuple[int, str]] = {}
    for entry in trail:
        seq, head = heads.get(entry["room_id"], (0, ""))
        body = {name: value for name, value in entry.items() if name != "hash"}
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert (entry["seq"], entry["prev_hash"]) == (seq + 1, head)
        assert entry["hash"] == hashlib.blake2b(text, digest_size=16).hexdigest()
        heads[entry["room_id"]] = (entry["seq"], entry["hash"])
    assert set(heads) == {ROOM, "*"}


def test_every_command_control_and_answer_is_in_the_trail() -> None:
    log = busy()
    trail = log.trail()
    assert [entry["content"] for entry in trail if entry["kind"] == "command"] == log.commands()
    n_controls = sum(json.loads(value)["type"] == "control" for _, _, value in log.log)
    assert sum(entry["kind"] == "control" for entry in trail) == n_controls
    (ack,) = [entry for entry in trail if entry["kind"] == "ack"]
    assert (ack["content"]["status"], ack["content"]["observed_value"]) == ("applied", 1_100)
    assert {entry["actor"] for entry in trail if entry["kind"] == "control"} == {"operator"}
    assert {entry["policy_version"] for entry in trail} == {log.engine.policy_version}


def test_nobodys_name_address_or_words_get_out() -> None:
    log = ready()
    marks: Any = {"user_id": "MARK-user", "device_id": "MARK-device", "ip": "198.51.100.77"}
    for n in range(60):
        who: Any = {name: f"{value}{n % 12}" if name != "ip" else value for name, value in marks.items()}
        second = READY_S + n / 10
        log.at(second, "comment", text=f"MARK-words 假货！退钱 {n}", source="private_message", **who)
        log.at(
            second, "view", action="leave", session_id="MARK-visit", dwell_ms=800, **{**who, "device_id": "MARK-farm"}
        )
        log.at(second, "order", order_id=f"MARK-order-{n}", status="paid", amount_minor=9, currency="CNY", **who)
        log.at(second, "gift", amount_minor=9, currency="CNY", consent=False, **who)
    log.at(READY_S + 7, "comment", text=7, **marks)  # a reject: its payload is allowed to hold what came in
    go(log, READY_S + 20)
    shown = [output for output in log.outputs if output.topic != topics.ROOM_EVENTS_DLQ]
    assert {output.topic for output in shown} >= {topics.ROOM_SIGNALS, topics.BID_COMMANDS, topics.AUDIT_LOG}
    letters = [{**letter, "payload_b64": ""} for letter in log.messages(topics.ROOM_EVENTS_DLQ)]
    assert len(letters) == 1
    everything = b"\n".join([*(output.json() for output in shown), json.dumps(letters).encode()])
    everything += json.dumps(log.engine.summary()).encode()
    everything += b"".join(log.engine.snapshot().values())
    for mark in (b"MARK", b"198.51.100", "假货".encode(), "退钱".encode()):
        assert mark not in everything
