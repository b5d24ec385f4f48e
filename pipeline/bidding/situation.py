"""Everything a decision rests on, gathered at one evaluation."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.roi import Return
from schemas.base import Mode


class Emergency(NamedTuple):
    """An open anomaly that burns money faster than the pace of steps."""

    anomaly_id: str
    cause: str


class Situation(NamedTuple):
    """A room at `now_ms`; unknown is None."""

    now_ms: int
    mode: Mode
    is_killed: bool
    is_excluded: bool
    target_roas: float | None
    budget_minor: int | None
    spent_minor: int
    return_: Return
    window_spend_minor: int
    window_orders: int
    stale_feeds: dict[str, str]
    has_absurd_order: bool
    emergencies: tuple[Emergency, ...]
    floor_minor: int
    cap_minor: int
    is_unattended: bool = False
    """No worker was there when this was written (`pipeline.attendance`)."""
