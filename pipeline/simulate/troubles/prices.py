"""Troubles of the advertising market."""

from __future__ import annotations

from pipeline.simulate.troubles.base import Fault


class CostRise(Fault):
    """Competitors bid more: a click costs `size` times as much and converts as before."""

    kind = "cost_rise"
    cause = "auction_pressure"
    default_size = 2.5

    def click_price(self, ts: int, channel: str, cost_minor: int) -> int:
        """Return the raised price."""
        if not self.concerns(ts, channel):
            return cost_minor
        raised = round(cost_minor * self.size)
        self.cost_minor += raised - cost_minor
        return raised
