"""An incident's life: opened by several looks, closed by calm, one id for its whole life, graver with more money."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detect import WATCHED, Judgement, Watched
from pipeline.incident import Incident, Trouble, money_at_risk_minor, severity
from schemas.settings import DetectSettings, IncidentSettings
from tests.partition import Partition, second_of
from tests.strategies import START_MS

SETTINGS = DetectSettings()
UP = next(watched for watched in WATCHED if watched.worse == "up")
DOWN = next(watched for watched in WATCHED if watched.worse == "down")
RANKS = ("S1", "S2", "S3", "S4")


def look(incident: Incident, *scores: float, watched: Watched = UP) -> list[str]:
    return [incident.look(Judgement(0.0, 0.0, z, 0.5), watched, SETTINGS) for z in scores]


def trouble(grade: Any = "S3") -> Trouble:
    return Trouble("ivt_ratio", 60, 0.3, 0.02, 0.0, "ivt", 0.9, grade, 100)


def opened(now_ms: int = START_MS) -> Incident:
    incident = Incident()
    incident.open(now_ms, trouble(), "a-1", SETTINGS)
    return incident


def test_three_strange_looks_of_five_open() -> None:
    assert look(Incident(), 9, 0, 9, 0, 9) == ["", "", "", "", "open"]
    assert look(Incident(), 9, 9, 9) == ["", "", "open"]
    assert "open" not in look(Incident(), 9, 0, 0, 9, 0, 0, 9, 0, 0, 9)


def test_only_the_worse_way_is_trouble() -> None:
    assert "open" not in look(Incident(), *[-9.0] * 9)
    assert "open" not in look(Incident(), *[9.0] * 9, watched=DOWN)
    assert look(Incident(), -9, -9, -9, watched=DOWN)[-1] == "open"


@pytest.mark.parametrize(("z", "expected"), [(SETTINGS.open_z, "open"), (SETTINGS.open_z - 0.001, "")])
def test_strange_begins_at_the_threshold(z: float, expected: str) -> None:
    assert look(Incident(), z, z, z)[-1] == expected


def test_five_calm_looks_in_a_row_let_go_and_what_is_between_keeps_open() -> None:
    assert look(opened(), 1, 1, 1, 1, 1) == ["", "", "", "", "clear"]
    between = (SETTINGS.clear_z + SETTINGS.open_z) / 2
    assert "clear" not in look(opened(), 1, 1, 1, 1, between, 1, 1, 1, 1)


def test_an_incident_stays_open_for_a_while() -> None:
    incident = opened()
    assert not incident.may_resolve(START_MS + SETTINGS.min_open_ms - 1, SETTINGS)
    assert incident.may_resolve(START_MS + SETTINGS.min_open_ms, SETTINGS)


@pytest.mark.parametrize(("after_ms", "same"), [(0, True), (SETTINGS.reopen_ms, True), (SETTINGS.reopen_ms + 1, False)])
def test_the_same_trouble_soon_after_is_the_same_incident(after_ms: int, *, same: bool) -> None:
    incident = opened()
    incident.escalation = 2
    incident.resolve(START_MS + 60_000)
    assert not incident.is_open
    again_ms = START_MS + 60_000 + after_ms
    incident.open(again_ms, trouble(), "a-2", SETTINGS)
    assert incident.is_open
    assert (incident.anomaly_id == "a-1") == same
    assert (incident.opened_ms, incident.escalation) == ((START_MS, 2) if same else (again_ms, 0))


def test_a_resolved_incident_needs_three_strange_looks_again() -> None:
    incident = opened()
    look(incident, 9, 9)
    incident.resolve(START_MS + 60_000)
    assert look(incident, 9, 9, 9) == ["", "", "open"]


def test_an_acknowledgement_takes_on_what_is_open_and_nothing_else() -> None:
    incident = Incident()
    assert not incident.acknowledge()
    incident = opened()
    assert incident.acknowledge()
    assert not incident.acknowledge()
    assert incident.is_open
    incident.resolve(START_MS + 60_000)
    assert not incident.acknowledge()
    assert not incident.is_open


@pytest.mark.parametrize("now", RANKS)
@pytest.mark.parametrize("told", RANKS)
def test_graver_means_a_smaller_number(told: str, now: str) -> None:
    incident = opened()
    incident.trouble = trouble(told)
    assert incident.worsens(trouble(now)) == (int(now[1]) < int(told[1]))


# -- how bad ----------------------------------------------------------------------------------------------------

BUDGET = 1_000_000


@pytest.mark.parametrize(
    ("risk", "expected"),
    # Ten minutes at risk, as a share of the budget: 5 % is S1, 2 % is S2, 0.5 % is S3.
    [(0, "S4"), (499, "S4"), (500, "S3"), (1_999, "S3"), (2_000, "S2"), (4_999, "S2"), (5_000, "S1"), (10**9, "S1")],
)
def test_severity_is_the_money_at_risk(risk: int, expected: str) -> None:
    assert severity(risk, BUDGET, IncidentSettings()) == expected


@pytest.mark.parametrize(("risk", "budget"), [(None, BUDGET), (5, None), (None, None), (5, 0)])
def test_unsure_is_at_least_s3(risk: int | None, budget: int | None) -> None:
    assert severity(risk, budget, IncidentSettings()) in RANKS[:3]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**9))
def test_more_money_at_risk_is_never_milder(risk: int, more: int, budget: int) -> None:
    settings = IncidentSettings()
    assert severity(risk + more, budget, settings) <= severity(risk, budget, settings)


@pytest.mark.parametrize(
    ("spend", "share", "expected"),
    [(1_000, 0.25, 250), (1_000, -0.5, 0), (1_000, 7.0, 1_000), (-40, 0.5, 0), (0, 1.0, 0), (None, 1.0, None)],
)
def test_money_at_risk_is_the_bad_share_of_the_spend(spend: int | None, share: float, expected: int | None) -> None:
    assert money_at_risk_minor(spend, share) == expected


# -- in a room --------------------------------------------------------------------------------------------------


def show(log: Partition, second: float, status: str) -> Partition:
    return log.at(second, "plan", plan_id="p", status=status, bid_kind="cost_per_action", bid_minor=1_000)


def broken(budget_minor: int = 10**6, per_minute: int = 0, **sections: Any) -> Partition:
    """Return a room whose delivery stopped at second 10 while `per_minute` was being spent."""
    log = Partition(**sections)
    log.at(0, "room", action="start", settings={"currency": "CNY", "budget_minor": budget_minor})
    log.at(1, "spend", plan_id="p", impressions=1, clicks=1, cost_minor=5 * per_minute, currency="CNY")
    show(log, 2, "delivering")
    show(log, 10, "budget_out")
    return log.tick(11)


def lives(log: Partition) -> list[tuple[float, str]]:
    return [(second_of(anomaly["ts"]), anomaly["status"]) for anomaly in log.anomalies()]


def test_a_life_from_open_to_resolved_under_one_id() -> None:
    log = broken()
    (opened_,) = log.anomalies()
    log.control(20, "ack_anomaly", anomaly_id=opened_["anomaly_id"])
    show(log, 30, "delivering").tick(31)
    assert lives(log) == [(10.5, "open"), (20.0, "acked"), (30.5, "resolved")]
    assert {anomaly["anomaly_id"] for anomaly in log.anomalies()} == {opened_["anomaly_id"]}
    # The same within two minutes is the same; later it is another.
    show(log, 60, "balance_out").tick(61)
    assert log.anomalies()[-1]["anomaly_id"] == opened_["anomaly_id"]
    assert log.anomalies()[-1]["status"] == "open"
    show(log, 70, "delivering").tick(71)
    show(log, 300, "budget_out").tick(301)
    assert log.anomalies()[-1]["status"] == "open"
    assert log.anomalies()[-1]["anomaly_id"] != opened_["anomaly_id"]


def test_an_acknowledgement_never_opens_anything_again() -> None:
    log = broken()
    anomaly_id = log.anomalies()[0]["anomaly_id"]
    show(log, 20, "delivering").tick(21)
    n_before = len(log.anomalies())
    log.control(30, "ack_anomaly", anomaly_id=anomaly_id).tick(31)
    log.control(32, "resolve_anomaly", anomaly_id=anomaly_id).tick(33)
    log.control(34, "ack_anomaly", anomaly_id="nobody").tick(35)
    assert len(log.anomalies()) == n_before


def test_an_operator_resolves() -> None:
    log = broken()
    log.control(20, "resolve_anomaly", anomaly_id=log.anomalies()[0]["anomaly_id"])
    assert lives(log)[-1] == (20.0, "resolved")


def test_the_severity_and_the_times_come_from_the_money() -> None:
    for per_minute, grade in ((100, "S4"), (600, "S3"), (3_000, "S2"), (9_000, "S1")):
        (told,) = broken(per_minute=per_minute).anomalies()
        assert (told["severity"], told["money_at_risk_minor"]) == (grade, per_minute)
        settings = IncidentSettings()
        ack_s, resolve_s = settings.ack_s.get(told["severity"]), settings.resolve_s.get(told["severity"])
        assert told.get("ack_due_ts") == (None if ack_s is None else told["ts"] + ack_s * 1_000)
        assert told.get("resolve_due_ts") == (None if resolve_s is None else told["ts"] + resolve_s * 1_000)
        assert told["owner"] == settings.owners[told["cause"]]
        assert told["runbook"].endswith(f"#{told['cause']}")


def test_what_nobody_takes_on_escalates_three_times() -> None:
    log = broken(per_minute=9_000)  # S1: two minutes each
    log.ticks(11, 1_000, 10)
    steps = [(second_of(a["ts"]), a["escalation_level"]) for a in log.anomalies() if a["status"] == "update"]
    assert steps == [(130.5, 1), (250.5, 2), (370.5, 3)]


def test_what_somebody_took_on_does_not_escalate() -> None:
    log = broken(per_minute=9_000)
    log.control(60, "ack_anomaly", anomaly_id=log.anomalies()[0]["anomaly_id"]).ticks(60, 1_000, 10)
    assert all(anomaly["escalation_level"] == 0 for anomaly in log.anomalies())


def test_a_silence_lets_nothing_new_be_told_until_it_ends() -> None:
    log = Partition()
    show(log, 0, "delivering")
    log.control(1, "silence", until_ts=START_MS + 60_000)
    show(log, 10, "budget_out").tick(11)
    assert log.anomalies() == []
    show(log, 70, "budget_out").tick(71)
    assert lives(log) == [(70.5, "open")]


def test_the_end_of_a_session_resolves_what_is_open() -> None:
    log = broken()
    log.at(20, "room", action="end").tick(21)
    assert lives(log)[-1] == (20.5, "resolved")
