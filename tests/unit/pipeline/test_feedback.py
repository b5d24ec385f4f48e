"""`audience.feedback`: when it is told, that it is told once, and what is in it."""

from __future__ import annotations

import json
from typing import Any

from pipeline import Engine
from pipeline.identity import shown
from schemas import topics
from schemas.feedback import AudienceFeedback
from schemas.settings import Settings, SignalsSettings
from tests.partition import ROOM, Message, Partition, second_of

HOUR_S = 3_600


def room(*dimensions: str, **more: Any) -> Partition:
    return Partition(signals=SignalsSettings.model_validate({"dimensions": dimensions or ("segment",), **more}))


def order(partition: Partition, second: float, name: str, status: str, amount: int, **fields: Any) -> Partition:
    own: Message = {"order_id": name, "status": status, "amount_minor": amount, "currency": "CNY"}
    return partition.at(second, "order", **own, **fields)


def told(partition: Partition) -> list[Message]:
    return partition.messages(topics.AUDIENCE_FEEDBACK)


def show(partition: Partition) -> Partition:
    """A show of ten minutes: forty visitors of one segment, two orders, one of another."""
    partition.at(0, "room", action="start")
    for n in range(40):
        person: Message = {"user_id": f"u{n}", "segment": "new"}
        partition.enter(1 + n, **person)
        partition.at(100 + n, "view", action="leave", session_id="s", dwell_ms=20_000 + 1_777 * n, **person)
    partition.at(150, "interaction", action="like", user_id="u1").at(151, "comment", text="666", user_id="u2")
    order(partition, 160, "o-1", "paid", 5_000, user_id="u1", attribution="direct")
    order(partition, 161, "o-2", "paid", 3_000, user_id="u1", attribution="direct")
    order(partition, 162, "o-3", "paid", 900, user_id="z", segment="loyal")
    return partition


def test_a_sessions_outcome_is_told_at_its_end_once() -> None:
    partition = show(room()).at(600, "room", action="end").ticks(600, 700)
    (message,) = told(partition)
    assert AudienceFeedback.model_validate(message).model_dump(exclude_none=True) == message
    assert (message["revision"], second_of(message["since_ts"]), second_of(message["ended_ts"])) == (1, 0, 600)
    assert 600 <= second_of(message["ts"]) <= 601
    assert message["currency"] == "CNY"
    new = message["segments"]["new"]
    assert (new["n_visits"], new["n_orders"], new["n_buyers"], new["gmv_minor"]) == (40, 2, 1, 8_000)
    assert (new["actions_per_visit"], new["valid_ratio"] > 0.9) == (0.05, True)
    assert (message["segments"]["loyal"]["gmv_minor"], message["segments"]["loyal"]["n_buyers"]) == (900, 1)


def test_what_is_not_known_or_rests_on_too_little_is_left_out() -> None:
    partition = show(room()).at(600, "room", action="end").ticks(600, 605)
    (message,) = told(partition)
    # Nobody spent anything here, and nobody of this segment was seen long enough to judge.
    assert message["segments"]["loyal"] == {
        "n_visits": 0, "n_orders": 1, "n_refunds": 0, "gmv_minor": 900, "refund_minor": 0, "n_buyers": 1,
        "n_interactions": 0, "n_comments": 0,
    }  # fmt: skip
    assert "roas_maturity" not in message


def test_spend_that_names_a_segment_gives_it_a_return() -> None:
    partition = show(room())
    partition.at(
        200, "spend", plan_id="p", impressions=9, clicks=3, cost_minor=2_000, currency="CNY", segment="new"
    ).at(600, "room", action="end").ticks(600, 605)
    (message,) = told(partition)
    new = message["segments"]["new"]
    assert (new["spend_minor"], new["roas_valid"]) == (2_000, 4.0)
    assert 0 < new["roas_maturity"] <= 1
    assert abs(message["roas_maturity"] - new["roas_maturity"]) < 0.02  # all of it is this one's; its buckets are wider


def test_late_refunds_correct_it_an_hour_later_under_the_same_id() -> None:
    partition = show(room()).at(600, "room", action="end").ticks(600, 610)
    order(partition, 700, "o-1", "refunded", 5_000)
    partition.tick(900).tick(600 + HOUR_S - 2)
    assert len(told(partition)) == 1
    order(partition, 600 + HOUR_S, "o-2", "refunded", 1_000)
    partition.tick(600 + HOUR_S + 30).tick(600 + 3 * HOUR_S)
    first, second = told(partition)
    assert (first["feedback_id"], first["revision"], second["revision"]) == (second["feedback_id"], 1, 2)
    assert (first["segments"]["new"]["refund_minor"], second["segments"]["new"]["refund_minor"]) == (0, 6_000)
    assert second["segments"]["loyal"] == first["segments"]["loyal"]
    assert second_of(second["ts"]) >= 600 + HOUR_S
    assert len(told(partition.tick(600 + 9 * HOUR_S))) == 2  # nothing else changed


def test_a_session_that_nobody_ended_is_told_before_the_next_one_begins() -> None:
    partition = show(room()).ticks(162, 200, step=1).at(2_000, "room", action="start")
    (message,) = told(partition)
    assert "ended_ts" not in message
    assert message["segments"]["new"]["gmv_minor"] == 8_000
    order(partition, 2_001, "o-9", "paid", 77, segment="new").at(2_100, "room", action="end").ticks(2_100, 2_110)
    _, other = told(partition)
    assert (other["feedback_id"] != message["feedback_id"], other["revision"]) == (True, 1)
    assert (other["segments"]["new"]["gmv_minor"], second_of(other["since_ts"])) == (77, 2_000)


def test_a_correction_that_was_still_to_come_is_told_before_the_next_session() -> None:
    partition = show(room()).at(600, "room", action="end").ticks(600, 610)
    order(partition, 700, "o-1", "refunded", 5_000)
    partition.at(800, "room", action="start")
    assert [message["revision"] for message in told(partition)] == [1, 2]
    assert told(partition)[1]["segments"]["new"]["refund_minor"] == 5_000
    # A refund of the show before, in the one that follows, belongs to neither message any more.
    order(partition, 801, "o-2", "refunded", 3_000)
    partition.at(1_000, "room", action="end").ticks(1_000, 1_010)
    last = told(partition)[-1]
    assert last["feedback_id"] != told(partition)[0]["feedback_id"] or last["revision"] == 2


def test_a_room_that_nobody_ends_tells_it_when_it_goes() -> None:
    partition = show(room()).ticks(162, 170)
    for hour in range(1, 76):
        partition.tick(hour * HOUR_S)
    (message,) = told(partition)
    assert (message["segments"]["new"]["gmv_minor"], second_of(message["ended_ts"])) == (8_000, 162)


def test_without_the_dimension_segment_or_without_anything_counted_nothing_is_told() -> None:
    partition = show(room("region")).at(600, "room", action="end").ticks(600, 700)
    assert told(partition) == []
    assert told(room().at(0, "room", action="start").at(5, "room", action="end").ticks(5, 50)) == []


def test_replayed_it_has_the_same_id_and_bytes_and_it_names_nobody() -> None:
    partition = show(room()).at(600, "room", action="end").ticks(600, 605)
    again = Engine(Settings(trust_log=True, signals=SignalsSettings(dimensions=("segment",))))
    outputs = again.process(partition.log)
    (message,) = [out.json() for out in outputs if out.topic == topics.AUDIENCE_FEEDBACK]
    assert json.loads(message) == told(partition)[0]
    users = partition.engine._ctx.identities.users
    for user in [*(f"u{n}" for n in range(40)), "z"]:
        token = users[user]
        assert str(token).encode() not in message
        assert shown(token).encode() not in message
        assert f'"{user}"'.encode() not in message
    assert partition.engine._rooms[ROOM].slices is not None
