"""Every code that the pipeline can say has words in both languages, and they hold what the message holds."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import Any, get_args

import pytest

from agents.words import (
    ACTIONS,
    CAUSES,
    METRICS,
    MODES,
    REASONS,
    STATUSES,
    amount,
    anomaly_words,
    command_words,
    of,
    reason_words,
)
from pipeline.bidding import GATES
from pipeline.detect import WATCHED
from schemas.anomalies import Anomaly, Cause
from schemas.base import Lang, Mode
from schemas.commands import BidCommand, CommandAction, CommandStatus
from schemas.events import AckStatus

ROOT = Path(__file__).parents[3]
LANGS: tuple[Lang, ...] = ("en", "zh")
CODES = re.compile(r'(?:Decision\(|_within\(|\bcode=|Guardrail\(name=|Reason\(code=)\s*"(\w+)"')


def said_by_the_pipeline() -> set[str]:
    sources = [*(ROOT / "pipeline" / "bidding").glob("*.py")]
    sources += [ROOT / "pipeline" / name for name in ("commands.py", "heartbeat.py", "operations.py")]
    found = {code for source in sources for code in CODES.findall(source.read_text(encoding="utf-8"))}
    found |= {"return_above_target", "return_below_target"}  # behind a condition
    return found | {gate.name for gate in GATES}


def test_every_reason_in_the_pipelines_source_has_words() -> None:
    said = said_by_the_pipeline()
    assert {"emergency_cut", "cooldown", "hourly_limit", "expired_at_birth", "alive", "override"} <= said
    assert said - set(REASONS) == set()


def test_every_cause_action_mode_and_status_has_words() -> None:
    assert set(CAUSES) == set(get_args(Cause))
    assert set(ACTIONS) == set(get_args(CommandAction))
    assert set(MODES) == set(get_args(Mode))
    lives = get_args(Anomaly.model_fields["status"].annotation)
    assert set(STATUSES) == {*get_args(CommandStatus), *get_args(AckStatus), *lives}


def test_every_metric_under_watch_has_words() -> None:
    assert {watched.metric for watched in WATCHED} | {"delivery", "freshness_s", "n_shed"} <= set(METRICS)


@pytest.mark.parametrize("table", [CAUSES, METRICS, REASONS, ACTIONS, MODES, STATUSES])
def test_both_languages_name_the_same_parameters(table: dict[str, tuple[str, str]]) -> None:
    for code, (en, zh) in table.items():
        names = [{name for _, name, _, _ in Formatter().parse(text) if name} for text in (en, zh)]
        assert names[0] == names[1], code
        assert (en.isascii(), zh.isascii()) == (True, False) or en == zh, code


def bid(**changes: Any) -> dict[str, Any]:
    command = BidCommand(
        command_id="c", seq=1, room_id="r", plan_id="p", ts=1, expires_ts=2, action="set_bid", direction="less_spend",
        prev_value=3_600, value=2_880, unit="minor:CNY", mode="auto", status="issued", policy_version="0",
        reason={"code": "emergency_cut", "params": {"cause": "ivt"}},  # type: ignore[arg-type]  # a dict is validated
    )  # fmt: skip
    return {**command.model_dump(mode="json", exclude_none=True), **changes}


def test_a_command_says_from_where_to_where_and_why() -> None:
    assert command_words(bid(), "en") == "bid 36.00 → 28.80"
    assert command_words(bid(unit="minor:JPY"), "en") == "bid 3,600 → 2,880"
    goal = bid(action="set_roi_goal", prev_value="2.4", value="3.000001", unit="ratio")
    assert command_words(goal, "zh") == "ROI 目标 2.40 → 3.00"
    assert reason_words(bid(), "en") == "emergency cut: bots or paid viewers"
    assert command_words(bid(action="hold", value=None), "zh") == "保持"


def test_a_clipped_command_names_its_limits_and_a_hold_names_its_own_once() -> None:
    clipped = bid(guardrails=[{"name": "hourly_limit", "effect": "clipped", "params": {}}])
    assert (
        reason_words(clipped, "en")
        == "emergency cut: bots or paid viewers; limited: this hour's limit of change is reached"
    )
    reason = {"code": "budget_spent", "params": {"budget_minor": 100_000, "spent_minor": 100_050}}
    hold = bid(action="hold", value=None, reason=reason, guardrails=[{"name": "budget_spent", "effect": "blocked"}])
    assert reason_words(hold, "en") == "the budget is spent: 1,000.50 of 1,000.00"


@pytest.mark.parametrize("lang", LANGS)
def test_missing_parameters_and_unknown_codes_never_break_a_line(lang: Lang) -> None:
    for code in (*REASONS, "of_a_newer_version"):
        assert reason_words(bid(reason={"code": code}), lang)
    for metric in (*METRICS, "of_a_newer_version"):
        assert anomaly_words({"metric": metric}, lang)
    assert of(CAUSES, "of_a_newer_version", lang) == "of_a_newer_version"


def test_an_anomaly_says_what_was_seen_in_the_metrics_own_unit() -> None:
    seen = {"metric": "ivt_ratio", "observed": 0.43, "expected": 0.0113, "cause": "ivt"}
    assert anomaly_words(seen, "en") == "invalid traffic 43%, usually 1.1%: bots or paid viewers"
    cost = {"metric": "cpc_minor", "observed": 413.0, "expected": 268.4, "cause": "auction_pressure"}
    assert anomaly_words(cost, "zh", "CNY") == "单次点击成本 4.13，平时 2.68；竞价压力上升"
    feed = {"metric": "freshness_s", "cause": "tracking", "params": {"feed": "order", "freshness_s": 181}}
    assert anomaly_words(feed, "en") == "the order feed is silent for 181 s: a data feed is broken"


def test_money_has_its_currencys_places() -> None:
    assert (amount(5), amount(-12_345, "CNY"), amount(1_234, "KWD")) == ("0.05", "-123.45", "1.234")
