"""When a session begins, what belongs to the one before, and who may loosen what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline import Engine
from schemas import topics
from schemas.settings import BiddingSettings, CurrencySettings, Settings
from tests.strategies import START_MS

MINUTE_MS = 60_000


class Log:
    """A room's log written down as (seconds, kind, fields)."""

    def __init__(self, **settings: Any) -> None:
        self.engine = Engine(Settings(trust_log=True, **settings))
        self.n_records = 0
        self.outputs: list[Any] = []

    def at(self, second: float, kind: str, *, late_s: float = 0, **fields: Any) -> Log:
        """Write one event of the log's clock `second`, that happened `late_s` before."""
        self.n_records += 1
        stamp = START_MS + round(second * 1_000)
        event = {
            "type": kind,
            "event_id": f"e-{self.n_records}",
            "room_id": "room-1",
            "ts": stamp - round(late_s * 1_000),
        }
        if kind == "control":
            event |= {"control_id": f"c-{self.n_records}", "actor": "operator"}
        value = json.dumps(event | fields).encode()
        self.outputs += self.engine.process([(self.n_records, stamp, value)])
        return self

    def room(self, second: float, action: str, **fields: Any) -> Log:
        return self.at(second, "room", action=action, **fields)

    def pay(
        self,
        second: float,
        order_id: str,
        amount: int,
        *,
        status: str = "paid",
        currency: str = "CNY",
        late_s: float = 0,
    ) -> Log:
        order = {"order_id": order_id, "status": status, "amount_minor": amount, "currency": currency}
        return self.at(second, "order", late_s=late_s, **order)

    def enter(self, second: float, *, late_s: float = 0, **fields: Any) -> Log:
        return self.at(second, "view", late_s=late_s, action="enter", session_id="s", **fields)

    def control(self, second: float, action: str, **args: Any) -> Log:
        return self.at(second, "control", action=action, args=args)

    def session(self) -> dict[str, Any]:
        told: dict[str, Any] = self.engine.summary()["rooms"]["room-1"]["session"]
        return told

    def signals(self) -> list[dict[str, Any]]:
        return [json.loads(o.json()) for o in self.outputs if o.topic == topics.ROOM_SIGNALS]

    def commands(self) -> list[dict[str, Any]]:
        found = [json.loads(o.json()) for o in self.outputs if o.topic == topics.BID_COMMANDS]
        return [command for command in found if command["action"] != "heartbeat"]


def test_a_start_adopts_the_session_that_no_start_opened() -> None:
    log = Log().pay(0, "a", 100).room(900, "start").pay(901, "b", 10)
    assert log.session()["gmv_minor"] == 110


def test_a_second_start_within_ten_minutes_is_an_update() -> None:
    log = Log().room(0, "start").pay(1, "a", 100).room(599, "start").pay(600, "b", 10)
    assert log.session()["gmv_minor"] == 110


def test_a_second_start_after_ten_minutes_begins_a_session() -> None:
    log = Log().room(0, "start").pay(1, "a", 100).room(601, "start").pay(602, "b", 10)
    assert log.session()["gmv_minor"] == 10


def test_a_start_after_the_end_begins_a_session_at_once() -> None:
    log = Log().room(0, "start").pay(1, "a", 100).room(2, "end").room(3, "start").pay(4, "b", 10)
    assert log.session()["gmv_minor"] == 10


def test_after_the_end_money_still_counts() -> None:
    log = Log().room(0, "start").pay(1, "a", 100).room(2, "end").pay(3, "b", 10)
    assert log.session()["gmv_minor"] == 110


def test_late_money_of_the_session_before_is_told_apart() -> None:
    log = Log().room(0, "start").pay(1, "a", 100).room(2, "end").room(60, "start").pay(61, "b", 10)
    # The payment happened before the start; the refund later, but of an order of the session before.
    log.pay(62, "c", 7, late_s=61).pay(63, "a", 30, status="refunded").pay(64, "b", 4, status="refunded")
    told = log.session()
    assert (told["gmv_minor"], told["refund_minor"]) == (10, 4)
    assert (told["prior_gmv_minor"], told["prior_refund_minor"]) == (7, 30)


def test_a_viewer_seen_only_before_the_start_is_no_user_of_the_session() -> None:
    log = Log().room(60, "start").enter(61, user_id="early", late_s=30).enter(62, user_id="on-time")
    assert (log.session()["n_enters"], log.session()["n_users"]) == (1, 1)


def test_a_session_in_another_currency_keeps_what_it_counted_before_its_first_money() -> None:
    log = Log().room(0, "start").pay(1, "a", 100).room(2, "end").room(60, "start")
    for second in range(61, 66):
        log.enter(second)
    log.pay(70, "b", 5, currency="USD").enter(75)
    told = log.session()
    assert (told["n_enters"], told["gmv_minor"]) == (6, 5)


def test_a_session_in_another_currency_never_adds_amounts_of_two() -> None:
    log = Log().room(0, "start").pay(1, "a", 100).room(2, "end").room(30, "start", settings={"currency": "USD"})
    log.enter(31).enter(40).pay(41, "b", 5, currency="USD").enter(50)
    for told in log.signals():
        if told.get("currency") == "USD":
            assert told["windows"]["60"]["gmv_minor"] in (0, 5)
    assert log.signals()[-1]["windows"]["60"]["n_enters"] == 2


def test_late_money_of_the_session_before_does_not_name_the_currency_of_this_one() -> None:
    log = Log().room(0, "start").pay(1, "a", 100).room(2, "end").room(60, "start")
    log.pay(61, "late", 7, late_s=60).pay(62, "b", 5, currency="USD")
    assert log.engine.counters.rejects == {}
    assert log.session()["gmv_minor"] == 5


def test_other_currencies_convert_by_the_table_half_to_even() -> None:
    log = Log(currency=CurrencySettings(rates={"USD:CNY": "7.1", "JPY:CNY": "0.05"}))
    log.pay(0, "a", 1, currency="CNY").pay(1, "b", 105, currency="USD").pay(2, "c", 1_000, currency="JPY")
    # 105 x 7.1 = 745.5 -> 746; 1,000 yen (no minor unit) x 0.05 = 50 yuan = 5,000 fen
    assert log.session()["gmv_minor"] == 1 + 746 + 5_000
    assert log.pay(3, "d", 5, currency="EUR").engine.counters.rejects == {"currency_unknown": 1}


def test_an_event_id_counts_once_whatever_its_type() -> None:
    log = Log().pay(0, "a", 100)
    log.enter(1, event_id="e-1")
    assert (log.engine.counters.n_events, log.engine.counters.n_duplicates) == (1, 1)


# -- modes and limits -------------------------------------------------------------------------------------------


def mode_of(log: Log, second: float = 3_000) -> Any:
    """Return the mode that the next signals tell."""
    return log.enter(second).enter(second + 20).signals()[-1]["mode"]


def test_a_room_can_lower_its_mode_only() -> None:
    log = Log(bidding=BiddingSettings(mode="approve")).room(0, "start", settings={"mode": "auto"})
    assert mode_of(log, 10) == "approve"
    assert mode_of(log.room(100, "update", settings={"mode": "shadow"}), 110) == "shadow"
    assert mode_of(log.room(200, "update", settings={"mode": "approve"}), 210) == "shadow"


@pytest.mark.parametrize(("allowed", "expected"), [("auto", "auto"), ("approve", "approve"), ("off", "off")])
def test_a_control_loosens_a_mode_as_far_as_the_deployment_allows(allowed: Any, expected: str) -> None:
    bidding = BiddingSettings(mode="off" if allowed == "off" else "shadow", max_mode=allowed)
    assert mode_of(Log(bidding=bidding).room(0, "start").control(1, "set_mode", mode="auto")) == expected


def test_mode_and_kill_switch_survive_a_start() -> None:
    log = Log().room(0, "start").control(1, "set_mode", mode="auto").control(2, "kill_switch", on=True).room(3, "end")
    log.room(4, "start").at(5, "plan", plan_id="p", status="delivering", bid_kind="cost_per_action", bid_minor=1_000)
    assert mode_of(log) == "auto"
    assert [command["reason"]["code"] for command in log.commands()][:1] == ["kill_switch"]


def test_after_the_end_nothing_is_bid_not_even_by_hand() -> None:
    log = Log().at(0, "plan", plan_id="p", status="delivering", bid_kind="cost_per_action", bid_minor=1_000)
    log.room(1, "end")
    log.control(10, "override_bid", plan_id="p", value=900)
    assert [command for command in log.commands() if command["action"] != "hold"] == []
