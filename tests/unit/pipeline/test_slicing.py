"""Signals by segment, region, creative, product, host, partner: what an event counts under, and what is told."""

from __future__ import annotations

import json
from random import Random
from typing import Any, get_args

import msgspec
import pytest

from agents.kafka import MAX_SNAPSHOT_BYTES
from pipeline import Engine
from pipeline.buckets import BASE_MS, Windows
from pipeline.counters import UNIT
from pipeline.retirement import shrink
from pipeline.roi.cohorts import CHANNEL_COHORTS
from pipeline.said import MAX_SAID, Said
from pipeline.slicing import MAX_BUYERS, MAX_TOUCHES, Buyers, begun
from pipeline.snapshot import FORMAT, dump_hot, load_room
from schemas.base import EVERY_ROOM, Dimension
from schemas.decode import decode_one
from schemas.settings import EngineSettings, Settings, SignalsSettings
from tests.partition import ROOM, Message, Partition, second_of
from tests.scenario import scenario

EACH_SECOND = EngineSettings(emit_interval_ms=1_000, channels_interval_ms=1_000)


def room(*dimensions: str, **more: Any) -> Partition:
    """A room that tells its slices each second."""
    signals = SignalsSettings.model_validate({"dimensions": dimensions, **more})
    return Partition(engine=EACH_SECOND, signals=signals)


def slices(partition: Partition, dimension: str) -> dict[str, Message]:
    """Return the newest session metrics by value of a dimension."""
    told = [message["dimensions"] for message in partition.signals() if dimension in message.get("dimensions", {})]
    return {name: windows["session"] for name, windows in told[-1][dimension].items()} if told else {}


def order(partition: Partition, second: float, name: str, status: str, amount: int, **fields: Any) -> Partition:
    own: Message = {"order_id": name, "status": status, "amount_minor": amount, "currency": "CNY"}
    return partition.at(second, "order", **own, **fields)


def spend(partition: Partition, second: float, cost: int, **fields: Any) -> Partition:
    own: Message = {"plan_id": "p", "impressions": 100, "clicks": 10, "cost_minor": cost, "currency": "CNY"}
    return partition.at(second, "spend", **own, **fields)


def test_without_dimensions_nothing_is_sliced_and_nothing_is_told() -> None:
    partition = room().enter(0, segment="new").ticks(0, 3)
    assert partition.engine._rooms[ROOM].slices is None
    assert all("dimensions" not in message for message in partition.signals())


def test_an_order_without_a_segment_counts_where_its_user_was_last() -> None:
    partition = room("segment").enter(0, user_id="anna", segment="new").enter(1, user_id="ben", segment="loyal")
    partition.enter(2, user_id="anna", segment="loyal")
    order(partition, 3, "o-1", "paid", 900, user_id="anna")
    order(partition, 3, "o-2", "paid", 70, user_id="somebody")
    partition.ticks(3, 5)
    told = slices(partition, "segment")
    assert {name: metrics["gmv_minor"] for name, metrics in told.items()} == {"new": 0, "loyal": 900, "unknown": 70}


def test_an_orders_own_word_beats_its_users_and_its_payment_beats_its_creation() -> None:
    partition = room("segment").enter(0, user_id="anna", segment="new")
    order(partition, 1, "o-1", "created", 100, user_id="anna", segment="loyal")
    order(partition, 2, "o-1", "paid", 100, user_id="anna")
    order(partition, 3, "o-2", "created", 10, user_id="anna", segment="loyal")
    order(partition, 4, "o-2", "paid", 10, user_id="anna", segment="bargain")
    order(partition, 5, "o-2", "refunded", 4, segment="somewhere else")
    partition.ticks(5, 7)
    told = slices(partition, "segment")
    assert told["loyal"]["gmv_minor"] == 100
    assert (told["bargain"]["gmv_minor"], told["bargain"]["refund_minor"]) == (10, 4)
    assert "somewhere else" not in told


def test_the_host_is_who_the_room_says_at_that_moment_unless_the_event_knows_better() -> None:
    partition = room("host_id", "partner_id").at(0, "room", action="start", host_id="mia", partner_id="mcn")
    partition.enter(1).at(10, "room", action="update", host_id="leo").enter(11).enter(12, late_s=5)
    partition.enter(13, host_id="guest").ticks(13, 15)
    told = slices(partition, "host_id")
    assert {name: metrics["n_enters"] for name, metrics in told.items()} == {"mia": 2, "leo": 1, "guest": 1}
    assert slices(partition, "partner_id")["mcn"]["n_enters"] == 4


def test_a_comment_is_of_the_product_on_stage_and_an_order_of_its_own_alone() -> None:
    partition = room("product_id").at(0, "room", action="start")
    partition.at(1, "product", product_id="lipstick", action="explain_start")
    partition.at(2, "comment", text="太贵了，不值").at(3, "comment", text="质量太差了", product_id="cream")
    order(partition, 4, "o-1", "paid", 50)
    partition.at(5, "product", product_id="cream", action="explain_end")  # it is not on stage
    partition.at(6, "comment", text="主播好棒！").at(7, "product", product_id="lipstick", action="explain_end")
    partition.at(8, "comment", text="主播好棒！").ticks(8, 10)
    told = slices(partition, "product_id")
    assert {name: metrics.get("n_comments") for name, metrics in told.items()} == {
        "lipstick": 2, "cream": 1, "unknown": 1,
    }  # fmt: skip
    assert told["unknown"]["gmv_minor"] == 50
    assert "gmv_minor" not in told["lipstick"]  # no order named a product: nobody knows what it sold


def test_values_beyond_the_limit_are_other_and_those_named_first_stay() -> None:
    partition = room("region", max_slices=2)
    for second, region in enumerate(("a", "b", "c", "d", "a", "other", "unknown")):
        partition.enter(second, region=region)
    told = slices(partition.ticks(6, 8), "region")
    counts = {name: metrics["n_enters"] for name, metrics in told.items()}
    assert counts == {"a": 2, "b": 1, "other": 3, "unknown": 1}


def test_of_somebody_without_consent_segment_region_and_creative_are_not_looked_at() -> None:
    partition = room("segment", "creative_id", "host_id").enter(0, user_id="anna", segment="new", creative_id="c-1")
    partition.enter(1, user_id="anna", segment="new", creative_id="c-1", host_id="mia", consent=False)
    partition.at(4, "presence", n_online=1).ticks(4, 6)
    assert {name: m["n_enters"] for name, m in slices(partition, "segment").items()} == {"new": 1, "unknown": 1}
    assert {name: m["n_enters"] for name, m in slices(partition, "creative_id").items()} == {"c-1": 1, "unknown": 1}
    assert slices(partition, "host_id")["mia"]["n_enters"] == 1


def test_return_is_told_where_spend_and_orders_both_name_the_dimension() -> None:
    partition = room("creative_id", "segment")
    spend(partition, 0, 200, creative_id="c-1")
    spend(partition, 1, 100)
    order(partition, 2, "o-1", "paid", 800, creative_id="c-1", segment="new", attribution="direct")
    partition.ticks(2, 4)
    by_creative, by_segment = slices(partition, "creative_id"), slices(partition, "segment")
    assert (by_creative["c-1"]["roas"], by_creative["c-1"]["roas_valid"]) == (4.0, 4.0)
    assert by_creative["unknown"]["spend_minor"] == 100
    # Spend names no segment: it is everybody's, and a return of it would be nobody's.
    assert by_segment["unknown"]["spend_minor"] == 300
    assert "spend_minor" not in by_segment["new"]
    assert not any(name.startswith("roas") for metrics in by_segment.values() for name in metrics)


def test_ratios_of_a_slice_need_the_minimum_samples_that_a_channels_need() -> None:
    partition = room("segment")
    for n in range(40):
        partition.at(n / 10, "view", action="leave", session_id="s", dwell_ms=9_000, user_id=f"u{n}", segment="new")
    partition.at(4, "view", action="leave", session_id="s", dwell_ms=9_000, user_id="v", segment="loyal").ticks(4, 6)
    told = slices(partition, "segment")
    assert told["new"]["ivt_ratio"] < 0.01
    assert "ivt_ratio" not in told["loyal"]


def test_what_turns_out_invalid_counts_in_its_users_segment() -> None:
    partition = room("segment")
    for n in range(60):
        person: Message = {"user_id": f"u{n}", "device_id": f"d{n}", "ip": f"10.0.{n}.1", "segment": "new"}
        stay = 20_000 + 4_001 * n
        partition.at(n / 4, "view", action="leave", session_id="s", dwell_ms=stay, **person)
    for n in range(60):
        bot: Message = {"user_id": f"b{n}", "device_id": f"farm{n % 3}", "ip": "10.9.9.9", "segment": "bargain"}
        partition.at(20 + n / 8, "view", action="leave", session_id="s", dwell_ms=1_500, **bot)
    partition.ticks(28, 60)
    told = slices(partition, "segment")
    assert told["bargain"]["ivt_ratio"] > 0.9
    assert told["new"]["ivt_ratio"] < 0.1


def test_a_signed_control_turns_dimensions_on_in_one_room_and_a_room_can_only_have_fewer() -> None:
    partition = room().enter(0, segment="new")
    partition.control(1, "update_settings", settings={"dimensions": ["segment", "region", "segment"]})
    partition.enter(2, segment="new", region="x").ticks(2, 4)
    state = partition.engine._rooms[ROOM].slices
    assert state is not None
    assert state.dimensions == ("segment", "region")
    assert slices(partition, "segment")["new"]["n_enters"] == 1
    # What was counted is not the whole session's, and that is said.
    assert second_of(partition.signals()[-1]["dimensions_since_ts"]) == 1
    partition.at(5, "room", action="update", settings={"dimensions": ["region", "host_id"]}).enter(6, region="x")
    state = partition.engine._rooms[ROOM].slices
    assert state is not None
    assert state.dimensions == ("region",)
    partition.control(7, "update_settings", settings={"dimensions": []}).enter(8, region="x")
    assert partition.engine._rooms[ROOM].slices is None


def test_a_session_that_finds_a_dimension_full_gives_places_to_new_values() -> None:
    partition = room("creative_id", max_slices=2).at(0, "room", action="start")
    partition.enter(1, creative_id="a").enter(2, creative_id="b").enter(3, creative_id="c")
    order(partition, 4, "o-1", "paid", 90, creative_id="a")
    partition.ticks(4, 6).at(7, "room", action="end").at(4_000, "room", action="start")
    partition.enter(4_001, creative_id="c").enter(4_002, creative_id="d").enter(4_003, creative_id="a")
    order(partition, 4_004, "o-1", "refunded", 90)
    partition.ticks(4_004, 4_006)
    told = slices(partition, "creative_id")
    assert {name: m["n_enters"] for name, m in told.items() if m["n_enters"]} == {"c": 1, "d": 1, "other": 1}
    assert "a" not in told
    state = partition.engine._rooms[ROOM].slices
    assert state is not None
    assert sum(slice_.windows.prior for values in state.slices for slice_ in values) == 0


def test_users_and_buyers_that_are_remembered_are_bounded() -> None:
    state = begun(("segment",), 4, 1, 0, is_partial=False)
    view = {"type": "view", "event_id": "e", "room_id": "r", "ts": 1, "action": "enter", "session_id": "s"}
    event = decode_one(json.dumps(view | {"segment": "x"}).encode())
    for user in range(3 * MAX_TOUCHES):
        state.places(event, {}, user, has_consent=True)
        assert len(state.touches) <= MAX_TOUCHES
    assert 3 * MAX_TOUCHES - 1 in state.touches
    buyers, random = Buyers(), Random(7)
    for n in range(20_000):
        buyers.add(random.getrandbits(63))
        if n + 1 == MAX_BUYERS:
            assert buyers.count() == MAX_BUYERS
    assert buyers.few == {}
    assert abs(buyers.count() - 20_000) < 0.06 * 20_000


def test_what_was_said_is_found_by_its_moment_whatever_came_first_and_is_bounded() -> None:
    said = Said()
    for ts, value in ((50, "b"), (10, "a"), (50, "c"), (80, "")):
        said.say(ts, value)
    assert [said.at(ts) for ts in (9, 10, 49, 50, 79, 80)] == [None, "a", "a", "c", "c", None]
    for ts in range(100, 100 + 2 * MAX_SAID):
        said.say(ts, str(ts))
    assert (len(said.moments), said.at(99), said.at(10**9)) == (MAX_SAID, None, str(99 + 2 * MAX_SAID))


def test_a_room_that_nobody_hears_of_keeps_its_slices_sums_and_forgets_its_users() -> None:
    partition = room("segment").enter(0, user_id="anna", segment="new").ticks(0, 3)
    state = partition.engine._rooms[ROOM]
    shrink(state, state.heard_ms + 10_000_000, partition.engine._ctx)
    assert state.slices is not None
    assert state.slices.touches == {}
    assert state.slices.slices[0][2].windows.session


# -- snapshots ----------------------------------------------------------------------------------------------------


def without_slices(states: dict[str, bytes]) -> dict[str, bytes]:
    """Return states as the version before slices wrote them, in the same format."""
    found = {}
    for key, state in states.items():
        number, plain = msgspec.msgpack.decode(state, strict=False)
        assert number == FORMAT
        if key != EVERY_ROOM:
            for name in ("slices", "numbering", "said", "crowds"):
                del plain[name]
            del plain["config"]["dimensions"]
            orders = plain["ledger"]["orders"]
            plain["ledger"]["orders"] = {fingerprint: order[:-1] for fingerprint, order in orders.items()}
        found[key] = msgspec.msgpack.encode((number, plain))
    return found


@pytest.mark.parametrize("dimensions", [(), ("segment", "product_id")])
def test_snapshots_of_the_version_before_are_read_and_slices_begin_where_they_are_turned_on(
    dimensions: tuple[str, ...],
) -> None:
    log = [(line.offset, line.timestamp, line.value) for line in scenario(3, 900)]
    before = Engine(Settings(trust_log=True))
    before.process(log[:600])
    signals = SignalsSettings.model_validate({"dimensions": dimensions})
    after = Engine(Settings(trust_log=True, signals=signals))
    after.restore(without_slices(before.snapshot()))
    after.process(log[600:])
    before.process(log[600:])
    assert after.counters == before.counters
    assert after.summary()["rooms"] == before.summary()["rooms"]
    sliced = [room.slices for room in after._rooms.values() if room.slices is not None]
    assert len(sliced) == (len(after._rooms) if dimensions else 0)
    for key, state in after.snapshot().items():
        if key != EVERY_ROOM:
            again = load_room(state)
            assert (again.slices is None) == (not dimensions)


def test_spend_and_counts_are_of_nobody_and_need_no_consent() -> None:
    engine = EACH_SECOND.model_copy(update={"consent_default": False})
    partition = Partition(engine=engine, signals=SignalsSettings(dimensions=("segment", "creative_id")))
    spend(partition.at(0, "room", action="start"), 1, 500, segment="new", creative_id="c-1")
    spend(partition, 2, 30, segment="new", consent=False)
    partition.at(3, "counts", n_enters=7, segment="new")
    partition.enter(4, user_id="anna", segment="new").ticks(4, 6)
    told = slices(partition, "segment")
    assert (told["new"]["spend_minor"], told["unknown"]["spend_minor"]) == (500, 30)
    assert (told["new"]["n_enters"], told["unknown"]["n_enters"]) == (7, 1)
    assert slices(partition, "creative_id")["c-1"]["spend_minor"] == 500


def test_the_most_slices_that_settings_allow_fit_a_snapshot_and_a_message() -> None:
    field = SignalsSettings.model_json_schema()["properties"]["max_slices"]
    dimensions: tuple[Dimension, ...] = get_args(Dimension)
    partition = room(*dimensions, max_slices=field["maximum"]).at(0, "room", action="start")
    names = [f"{number:02}".ljust(128, "名") for number in range(field["maximum"] + 1)]
    for number, name in enumerate(names):
        named: dict[str, Any] = dict.fromkeys(dimensions, name)
        partition.at(1, "view", action="leave", session_id="s", dwell_ms=1, **named)
        partition.at(1, "comment", text="质量太差了", **named)
        partition.at(1, "interaction", action="like", **named)
        partition.at(1, "gift", amount_minor=1, currency="CNY", **named)
        order(partition, 1, f"o-{number}", "paid", 100, attribution="direct", **named)
        spend(partition, 1, 100, **named)
    state = partition.ticks(1, 2).engine._rooms[ROOM]
    assert state.slices is not None
    now_ms, each = state.evaluated_ms, sum(123_456 * unit for unit in UNIT.values())
    for values in state.slices.slices:
        for slice_ in values:
            slice_.windows.session = each
            for ts in range(now_ms - 300_000, now_ms, BASE_MS):
                slice_.windows.put(ts, each, now_ms)
            slice_.cohorts = Windows(CHANNEL_COHORTS)
            for ts in range(now_ms - 3_600_000, now_ms, 5_000):
                slice_.cohorts.put(ts, each & (1 << 256) - 1, now_ms)
    partition.enter(3).ticks(3, 5)
    largest = max(len(json.dumps(message, ensure_ascii=False).encode()) for message in partition.signals())
    assert 300_000 < largest < 1_000_000  # Kafka's default of max.message.bytes
    assert 5_000_000 < len(dump_hot(state)) < 7_500_000 < MAX_SNAPSHOT_BYTES
