"""An incident's life: open, update, acked, resolved. One a cause, with hysteresis and a re-open window.

strange in `needed` of `of_last` looks -> open -> (ack) -> calm in all of `of_last` looks, and open for at
least `min_open_ms` -> resolved -> the same trouble within `reopen_ms` -> the same incident, open again
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.detect.base import Judgement
from pipeline.detect.watched import Watched
from schemas.anomalies import Cause
from schemas.base import Severity
from schemas.settings import DetectSettings

Status = Literal["none", "open", "acked", "resolved"]
SEVERITIES: tuple[Severity, ...] = ("S1", "S2", "S3", "S4")


class Trouble(msgspec.Struct, gc=False):
    """What an incident is about right now."""

    metric: str
    window_s: int
    observed: float
    expected: float
    score: float
    cause: Cause
    cause_confidence: float
    severity: Severity
    risk_minor: int | None
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)
    contributors: list[tuple[str, str, float]] = msgspec.field(default_factory=list)


class Incident(msgspec.Struct, gc=False):
    """One metric's trouble in one room over time."""

    looks: list[bool] = msgspec.field(default_factory=list)
    calm: int = 0
    status: Status = "none"
    anomaly_id: str = ""
    opened_ms: int = -1
    told_ms: int = -1
    closed_ms: int = -1
    judged_ms: int = -1
    escalation: int = 0
    trouble: Trouble | None = None

    @property
    def is_open(self) -> bool:
        """Somebody still has to act."""
        return self.status in ("open", "acked")

    def look(self, judgement: Judgement, watched: Watched, settings: DetectSettings) -> Literal["", "open", "clear"]:
        """Take one more judgement; return whether it opens the incident or lets it go."""
        bad_z = judgement.z if watched.worse == "up" else -judgement.z
        self.looks.append(bad_z >= settings.open_z)
        del self.looks[: max(0, len(self.looks) - settings.of_last)]
        self.calm = self.calm + 1 if bad_z < settings.clear_z else 0
        if not self.is_open and sum(self.looks) >= settings.needed:
            return "open"
        return "clear" if self.is_open and self.calm >= settings.of_last else ""

    def may_resolve(self, now_ms: int, settings: DetectSettings) -> bool:
        """Tell whether it was open long enough."""
        return now_ms - self.opened_ms >= settings.min_open_ms

    def open(self, now_ms: int, trouble: Trouble, fresh_id: str, settings: DetectSettings) -> None:
        """Open it, under its former id when it was resolved only just now."""
        if self.status != "resolved" or now_ms - self.closed_ms > settings.reopen_ms:
            self.anomaly_id = fresh_id
            self.opened_ms, self.escalation = now_ms, 0
        self.status, self.trouble, self.told_ms = "open", trouble, now_ms

    def acknowledge(self) -> bool:
        """Note that somebody took it on; an incident that is not open stays as it is."""
        if self.status != "open":
            return False
        self.status = "acked"
        return True

    def resolve(self, now_ms: int) -> None:
        """Close it."""
        self.status, self.closed_ms, self.calm = "resolved", now_ms, 0
        self.looks.clear()

    def worsens(self, trouble: Trouble) -> bool:
        """Tell whether `trouble` is graver than what was told."""
        told = self.trouble
        return told is None or SEVERITIES.index(trouble.severity) < SEVERITIES.index(told.severity)
