"""Slices equal what a plainer calculation says: the room, its channels, and rooms that had one slice's records only."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Engine, Output
from pipeline.counters import NAMES, unpack
from pipeline.room import RoomState
from pipeline.slice_metrics import QUALITY
from pipeline.slicing import OTHER
from schemas import topics
from schemas.base import UNKNOWN
from schemas.settings import CurrencySettings, EngineSettings, Settings, SignalsSettings
from tests.effort import effort
from tests.oracle import COUNTED, Oracle
from tests.scenario import BEGIN_MS, RATES, ROOMS, scenario
from tests.strategies import Record, logs

ALL = ("segment", "region", "creative_id", "product_id", "host_id", "partner_id")
Event = dict[str, Any]


def engine(*dimensions: str, max_slices: int = 16) -> Engine:
    """An engine that tells slices and channels each second."""
    return Engine(
        Settings(
            trust_log=True,
            currency=CurrencySettings(rates=RATES),
            engine=EngineSettings(emit_interval_ms=1_000, channels_interval_ms=1_000),
            signals=SignalsSettings.model_validate({"dimensions": dimensions, "max_slices": max_slices}),
        )
    )


def good(seed: int, n_records: int) -> list[tuple[int, int, Event]]:
    """Return the well-formed single events of a log in which everything happens."""
    found = []
    for line in scenario(seed, n_records):
        parsed = None if line.bad else json.loads(line.value)
        if isinstance(parsed, dict):
            found.append((line.offset, line.timestamp, parsed))
    return found


def as_records(log: list[tuple[int, int, Event]]) -> list[tuple[int, int, bytes]]:
    return [(offset, stamp, json.dumps(event).encode()) for offset, stamp, event in log]


def signals(outputs: list[Output]) -> list[Event]:
    return [json.loads(output.json()) for output in outputs if output.topic == topics.ROOM_SIGNALS]


# -- slices of a dimension add up to the room ---------------------------------------------------------------------


def add_up(subject: Engine) -> int:
    """Compare the sums of every dimension's slices with the room's own counters; return how many rooms are sliced."""
    n_sliced = 0
    for room in subject._rooms.values():
        slices = room.slices
        # A room that was told to leave dimensions out began them anew: the rolling window lacks what came before.
        if slices is None or slices.is_partial or room.config.dimensions is not None:
            continue
        n_sliced += 1
        room.expire_channels(room.evaluated_ms)
        rolling = sum(windows.zones[0].total for windows in room.channels.values())
        waiting = {
            bucket: tuple(sum(cells.values()) for cells in (pending.own, pending.late, pending.former))
            for bucket, pending in room.pending.items()
        }
        apart = {
            bucket: tuple(sum(cells.values()) for cells in waits.parts()) for bucket, waits in slices.waiting.items()
        }
        assert {b: sums for b, sums in apart.items() if any(sums)} == {b: s for b, s in waiting.items() if any(s)}
        for values in slices.slices:
            assert sum(slice_.windows.session for slice_ in values) == room.windows.session
            assert sum(slice_.cohorts.session for slice_ in values if slice_.cohorts) == room.returns.room.session
            for slice_ in values:
                slice_.windows.expire(room.evaluated_ms)
            assert sum(slice_.windows.zones[0].total for slice_ in values) == rolling
    return n_sliced


@pytest.mark.parametrize("seed", range(3))
def test_slices_of_a_long_log_add_up_to_the_room_at_every_moment(seed: int) -> None:
    subject, n_sliced = engine(*ALL, max_slices=2), 0
    log = scenario(40 + seed, 1_200)
    for begin in range(0, len(log), 60):
        chunk = [(line.offset, line.timestamp, line.value) for line in log[begin : begin + 60]]
        subject.process(chunk)
        subject.catch_up()
        n_sliced += add_up(subject)
    assert n_sliced > 20


@given(logs(max_records=40), st.integers(1, 3))
@settings(max_examples=effort(150))
def test_slices_of_any_log_add_up_to_the_room(log: list[Record], max_slices: int) -> None:
    subject = engine(*ALL, max_slices=max_slices)
    subject.process(log)
    subject.catch_up()
    add_up(subject)
    for room in subject._rooms.values():
        for values in room.slices.slices if room.slices is not None else ():
            assert len(values) <= max_slices + 2


# -- a dimension that says what the channel says ------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_a_dimension_that_repeats_the_channel_has_the_channels_metrics(seed: int) -> None:
    subject, log = engine("partner_id"), []
    for offset, stamp, event in good(seed, 1_500):
        if event["type"] == "spend":
            event.setdefault("channel", "paid")  # else a channel would be its plan's
        event.pop("partner_id", None)
        if "channel" in event and event["type"] != "room":
            event["partner_id"] = event["channel"]
        log.append((offset, stamp, event))
    n_compared = 0
    for message in signals(subject.process(as_records(log))):
        channels = message.get("channels", {})
        slices = message.get("dimensions", {}).get("partner_id", {})
        assert slices.keys() == channels.keys()
        for name, windows in channels.items():
            for window, metrics in windows.items():
                told = slices[name][window]
                # What turns out invalid counts where its user was last.
                expected = {field: value for field, value in metrics.items() if field not in QUALITY}
                assert {field: told.get(field, 0) for field in expected} == expected, (name, window)
                assert told.keys() <= metrics.keys()
                n_compared += len(told) > 10
    assert n_compared > 500


# -- a room that had one slice's records only ---------------------------------------------------------------------


def named(event: Event) -> str | None:
    """Return the host of an event: one for all events of an order, of a plan, of everything else by chance."""
    what = event.get("order_id") or event.get("plan_id") or event["event_id"]
    return ("host-a", "host-b", "host-c", None)[zlib.crc32(what.encode()) % 4]


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_a_slice_counts_what_a_room_with_its_records_alone_would_count(seed: int) -> None:
    subject, log = engine("host_id"), []
    by_value: dict[str, Oracle] = {name: Oracle() for name in ("host-a", "host-b", "host-c", UNKNOWN)}
    begin = [
        (
            -n,
            BEGIN_MS,
            {"type": "room", "action": "start", "event_id": f"begin-{n}", "room_id": room_id, "ts": BEGIN_MS},
        )
        for n, room_id in enumerate(ROOMS, 1)
    ]
    seen: set[str] = set()
    for offset, stamp, event in [*begin, *good(seed, 1_500)]:
        if event["type"] in ("tick", "control") or event["event_id"] in seen:
            continue
        seen.add(event["event_id"])
        if event["type"] == "room":
            event.pop("host_id", None)
            event["settings"] = {"currency": "CNY"}
        else:
            event["host_id"] = named(event)
        if "currency" in event:
            event["currency"] = "CNY"
        log.append((offset + 3, stamp, event))
        for name, oracle in by_value.items():
            if event["type"] == "room" or (event["host_id"] or UNKNOWN) == name:
                assert oracle.feed(stamp, json.dumps(event).encode())
    subject.process(as_records(log))
    subject.catch_up()
    n_compared = 0
    for room_id, room in subject._rooms.items():
        told = session_counts(room)
        for name, oracle in by_value.items():
            expected = {field: n for field, n in oracle.session(room_id).items() if field in COUNTED}
            assert {field: told[name].get(field, 0) for field in expected} == expected, (room_id, name)
            n_compared += expected["gmv_minor"] > 0
        assert told.keys() == by_value.keys()
    assert n_compared > 3


def session_counts(room: RoomState) -> dict[str, Event]:
    """Return each host's counts of the session, all that waits folded in."""
    room.fold(1 << 52)
    assert room.slices is not None
    places = {name: place for name, place in room.slices.names[0].items() if name != OTHER}
    found = {name: unpack(room.slices.slices[0][place].windows.session) for name, place in places.items()}
    return {name: dict(zip(NAMES, counts, strict=True)) for name, counts in found.items()}


# -- feedback -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_the_last_feedback_of_a_session_is_what_its_segments_orders_came_to(seed: int) -> None:
    """Orders alone, each with a segment and a buyer of its own: the plainest sum there is, and money comes late."""
    log, n = [], 0
    expected: dict[str, Counter[str]] = {}
    buyers: dict[str, set[str]] = {}
    refunds: dict[str, int] = {}
    for number in range(120):
        segment = ("new", "loyal", "bargain")[zlib.crc32(f"{seed}-{number}".encode()) % 3]
        amount, buyer = 100 + 37 * number, f"user-{number % 50}-{segment}"
        order = {"order_id": f"o-{number}", "currency": "CNY", "segment": segment, "user_id": buyer}
        late_s = (3 * 3_600, 40, 90)[number % 3] if number % 5 == 0 else 0
        steps = [(number, "paid", amount)] + ([(900 + number + late_s, "refunded", amount // 2)] if late_s else [])
        for second, status, minor in steps:
            log.append((second, {"type": "order", **order, "status": status, "amount_minor": minor}))
        found = expected.setdefault(segment, Counter())
        found.update({"n_orders": 1, "gmv_minor": amount})
        if late_s:
            found.update({"n_refunds": 1, "refund_minor": amount // 2})
        buyers.setdefault(segment, set()).add(buyer)
        refunds[segment] = refunds.get(segment, 0) + bool(late_s)
    log.append((0, {"type": "room", "action": "start"}))
    log.append((600, {"type": "room", "action": "end"}))
    records = []
    for second, event in sorted(log, key=lambda item: (item[0], item[1]["type"] != "room")):
        n += 1
        stamp = BEGIN_MS + second * 1_000
        fields = {"event_id": f"e-{n}", "room_id": "room-1", "ts": stamp, **event}
        records.append((n, stamp, json.dumps(fields).encode()))
    last = records[-1][1]
    tick = {"type": "tick", "event_id": "t", "room_id": "*", "ts": last + 7_200_000}
    records.append((n + 1, last + 7_200_000, json.dumps(tick).encode()))
    outputs = engine("segment").process(records)
    told = [json.loads(out.json()) for out in outputs if out.topic == topics.AUDIENCE_FEEDBACK]
    assert [message["revision"] for message in told] == list(range(1, len(told) + 1))
    assert len({message["feedback_id"] for message in told}) == 1
    assert len(told) >= 3  # at the end, after the quick refunds, after those that took hours
    assert told[0]["segments"] != told[-1]["segments"]
    final = told[-1]["segments"]
    assert final.keys() == expected.keys()
    for segment, counts in expected.items():
        got = {name: final[segment].get(name, 0) for name in ("n_orders", "gmv_minor", "n_refunds", "refund_minor")}
        assert got == {name: counts[name] for name in got}
        assert final[segment]["n_buyers"] == len(buyers[segment])
