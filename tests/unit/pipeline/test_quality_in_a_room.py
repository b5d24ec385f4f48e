"""Invalid traffic in a whole room: honest crowds are innocent, scripts are found, and what is found is counted."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from pipeline.counters import N_SUSPECT, digit
from pipeline.quality import is_invalid
from schemas.decode import decode_one
from schemas.settings import QualitySettings
from tests.partition import ROOM, Partition

SETTINGS = QualitySettings()


def visit(log: Partition, second: float, dwell_ms: int, **who: Any) -> None:
    log.at(second, "view", action="leave", session_id="s", dwell_ms=dwell_ms, **who)


def suspects(log: Partition) -> int:
    """Return the invalid events that the session counts."""
    return digit(log.engine._rooms[ROOM].windows.session, N_SUSPECT)


def settle(log: Partition) -> Partition:
    return log.ticks(1_000, 1_010)


def verdicts(log: Partition, device: str = "farm") -> tuple[int, int]:
    """Return (events from the device that are invalid by now, of all)."""
    engine, found, n = log.engine, 0, 0
    for _, stamp, value in log.log:
        event: Any = decode_one(value, stamp)
        if getattr(event, "device_id", None) and event.device_id.startswith(device):
            n += 1
            found += is_invalid(engine._rooms[ROOM], event, engine._ctx)
    return found, n


def test_an_address_that_everybody_shares_condemns_nobody() -> None:
    """A campus, an office, a mobile carrier: one address, short stays."""
    log = Partition()
    for n in range(200):
        visit(log, n, 1_000, user_id=f"u{n}", device_id=f"d{n}", ip="203.0.113.7")
    assert suspects(settle(log)) == 0


def test_a_device_that_many_share_condemns_nobody_by_itself() -> None:
    """A shop's tablet: many users, who stay."""
    log = Partition()
    for n in range(200):
        visit(log, n, 60_000, user_id=f"u{n}", device_id="tablet", ip="203.0.113.7")
    assert suspects(settle(log)) == 0


def test_short_visits_condemn_nobody_by_themselves() -> None:
    log = Partition()
    for n in range(200):
        visit(log, n, 500, user_id=f"u{n}", device_id=f"d{n}")
    assert suspects(settle(log)) == 0
    assert log.session()["bounce_ratio"] == 1.0


@pytest.mark.parametrize("text", ["扣1", "666", "1", "来了", "好看", "哈哈哈哈哈", "👍👍👍", "要要要"])
def test_a_crowd_that_echoes_is_innocent(text: str) -> None:
    """The host asks for a 1 in the chat and everybody sends one, more than once."""
    log = Partition()
    for n in range(400):
        log.at(n / 10, "comment", text=text, user_id=f"u{n % 120}", device_id=f"d{n % 120}", ip=f"10.0.{n % 9}.1")
    assert suspects(settle(log)) == 0


def test_a_crowd_that_repeats_a_slogan_is_innocent_on_devices_of_its_own() -> None:
    log = Partition()
    for n in range(200):
        log.at(n / 10, "comment", text="今天全场五折买一送一", user_id=f"u{n}", device_id=f"d{n}")
    assert suspects(settle(log)) == 0


def farm(log: Partition, random: Random, n: int = 600) -> int:
    """Write a farm: ten phones of ever new users, gone within two seconds, beside people who stay; count its visits."""
    n_bots = 0
    for place in range(n):
        if place % 2:
            who = {"user_id": f"u{place}", "device_id": f"d{place}", "ip": f"10.1.{place % 250}.7"}
            visit(log, place / 2, round(1_000 * random.lognormvariate(math.log(30), 1)), channel="free", **who)
        else:
            n_bots += 1
            who = {"user_id": f"b{place}", "device_id": f"farm{place % 10}", "ip": "198.51.100.9"}
            visit(log, place / 2, random.randrange(800, 2_500), channel="ads", segment="general", **who)
    return n_bots


def test_scripts_on_shared_devices_are_found_from_their_first_visit_on() -> None:
    log = Partition()
    n_bots = farm(log, Random(3))
    settle(log)
    assert 0.97 * n_bots <= suspects(log) <= 1.03 * n_bots
    told = log.session()
    assert told["ivt_ratio"] == pytest.approx(0.5, abs=0.03)
    assert told["ivt_low"] <= 0.5 <= told["ivt_high"]
    assert {"invalid_traffic", "shared_devices"} <= set(told["quality_reasons"])
    assert told["quality_score"] < 55


def test_what_is_counted_is_what_the_verdicts_say() -> None:
    log = Partition()
    farm(log, Random(4))
    settle(log)
    found, n = verdicts(log)
    assert found >= 0.97 * n
    honest_found, _ = verdicts(log, "d")
    assert found + honest_found == suspects(log)


def test_segments_and_the_anomaly_say_where_it_comes_from() -> None:
    log = Partition()
    for n in range(300):  # five minutes of a calm past
        who = {"user_id": f"p{n}", "device_id": f"e{n}", "ip": f"10.9.{n % 250}.7", "segment": "potential"}
        visit(log, n, 30_000 + 97 * n % 40_000, channel="free", **who)
    random = Random(5)
    for n in range(600):
        who = {"user_id": f"b{n}", "device_id": f"farm{n % 10}", "ip": "198.51.100.9", "segment": "general"}
        visit(log, 300 + n / 5, random.randrange(800, 2_500), channel="ads", **who)
    log.ticks(420, 480)
    (opened,) = [message for message in log.anomalies() if message["status"] == "open"]
    (worst,) = opened["evidence"]["blame"]
    assert (worst["channel"], worst["share"]) == ("ads", 1.0)
    assert worst["blocks"][0]["share"] == 1.0
    assert len(worst["blocks"][0]["devices"]) == 3
    assert set(opened["evidence"]["families"]) >= {"identity", "rate"}
    segments = [message["segments"] for message in log.signals() if "segments" in message][-1]
    assert segments["general"]["session"]["ivt_ratio"] > 0.95
    assert segments["potential"]["session"]["ivt_ratio"] < 0.05


def test_one_who_repeats_a_sentence_is_condemned_by_nothing_else() -> None:
    """One fact, one user's repeats, is evidence of one family: it takes a second one."""
    log = Partition()
    for n in range(40):
        log.at(n, "comment", text="主播今天真的太好看了", user_id="fan", device_id="d1")
    assert suspects(settle(log)) == 0


def test_a_script_that_posts_one_text_from_a_farm_is_found_and_moves_no_mood() -> None:
    log = Partition()
    for n in range(100):
        log.at(n / 10, "comment", text="这个主播是骗子大家快跑", user_id=f"b{n}", device_id=f"farm{n % 5}")
    assert suspects(settle(log)) == 100
    assert log.session().get("n_scored", 0) <= SETTINGS.repeat_users


def test_a_family_on_one_tablet_may_join_a_crowd_s_slogan() -> None:
    log = Partition()
    for n in range(100):
        log.at(n / 10, "comment", text="今天全场五折买一送一", user_id=f"u{n}", device_id=f"d{n // 3}")
    assert suspects(settle(log)) == 0


def test_orders_that_came_before_their_buyer_was_found_leave_the_valid_return_too() -> None:
    log = Partition()
    log.at(0, "spend", plan_id="p", impressions=10, clicks=5, cost_minor=10_000, currency="CNY")
    for place, (user, device) in enumerate((("b0", "farm0"), ("honest", "own"))):
        order: Any = {"order_id": f"o{place}", "status": "paid", "amount_minor": 10_000, "currency": "CNY"}
        log.at(place / 2, "order", user_id=user, device_id=device, attribution="direct", **order)
    log.at(0.9, "order", order_id="o0", status="refunded", amount_minor=4_000, currency="CNY", user_id="b0")
    log.tick(1.0)
    # Before: o0 10,000 less 4,000, o1 10,000. After: o1 alone.
    assert log.session()["roas_valid"] == 1.6
    for n in range(600):
        who = {"user_id": f"b{n}", "device_id": f"farm{n % 10}", "ip": "198.51.100.9"}
        visit(log, 2 + n / 5, 1_000 + 3 * n, **who)
    settle(log)
    log.at(1_011, "presence", n_online=3)
    log.at(1_012, "order", order_id="o0", status="refunded", amount_minor=1_000, currency="CNY", user_id="b0")
    told = log.ticks(1_012, 1_020).session()
    assert (told["roas_attributed"], told["roas_valid"]) == (1.5, 1.0)
    restored = Partition()
    restored.engine.restore(log.engine.snapshot())
    assert restored.session()["roas_valid"] == 1.0


def hidden(log: Partition, begin: int, end: int, per_second: int, dwell_ms: int) -> None:
    for second in range(begin, end):
        for n in range(per_second):
            visit(log, second + n / per_second, dwell_ms, user_id="x", device_id="y", channel="ads", consent=False)


def test_a_flood_without_consent_is_evidence_once_its_visits_end_at_once() -> None:
    log = Partition()
    hidden(log, 0, 100, 1, 30_000)
    hidden(log, 100, 140, 8, 1_000)
    hidden(log, 140, 200, 1, 30_000)
    assert suspects(settle(log)) == 320
    engine = log.engine
    marked = [is_invalid(engine._rooms[ROOM], decode_one(value, stamp), engine._ctx) for _, stamp, value in log.log]
    assert sum(marked) == 320


def test_a_crowd_without_consent_that_stays_is_no_flood() -> None:
    log = Partition()
    hidden(log, 0, 100, 1, 30_000)
    hidden(log, 100, 140, 8, 30_000)
    assert suspects(settle(log)) == 0


def test_without_consent_nobody_is_told_apart() -> None:
    log = Partition()
    for n in range(100):
        visit(log, n, 40_000, user_id="same", device_id="same", ip="198.51.100.9", consent=False)
    assert suspects(settle(log)) == 0
    evidence = log.engine._rooms[ROOM].evidence
    assert not (evidence.visits or evidence.doing or evidence.devices.recent or evidence.addresses.recent)
    assert "n_users" not in log.session()
