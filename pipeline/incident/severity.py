"""How bad, in money a minute."""

from __future__ import annotations

from schemas.base import Severity
from schemas.settings import IncidentSettings


def money_at_risk_minor(spend_per_minute_minor: int | None, bad_share: float) -> int | None:
    """Return minor units lost a minute while `bad_share` of the spend buys nothing; None when spend is unknown."""
    if spend_per_minute_minor is None:
        return None
    return round(max(0, spend_per_minute_minor) * min(1.0, max(0.0, bad_share)))


def severity(risk_minor: int | None, budget_minor: int | None, settings: IncidentSettings) -> Severity:
    """Return S1..S4 by the share of the session's budget that ten minutes put at risk.

    Unsure goes up: without a budget, or without known spend, an anomaly is at least S3.
    """
    if risk_minor is None or not budget_minor:
        return "S3"
    at_risk = 10 * risk_minor / budget_minor
    if at_risk >= settings.s1_budget_share:
        return "S1"
    if at_risk >= settings.s2_budget_share:
        return "S2"
    if at_risk >= settings.s3_budget_share:
        return "S3"
    return "S4"
