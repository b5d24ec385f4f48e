"""From a strange value to somebody who acts: severity, life cycle, who and by when."""

from pipeline.incident.lifecycle import Incident, Trouble
from pipeline.incident.severity import money_at_risk_minor, severity

__all__ = ["Incident", "Trouble", "money_at_risk_minor", "severity"]
