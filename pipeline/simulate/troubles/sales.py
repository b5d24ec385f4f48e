"""Troubles between the click and the money."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.simulate.troubles.base import Fault


class LandingPage(Fault):
    """The page behind the link is broken: product clicks go on, `size` of the orders are never made."""

    kind = "landing_page"
    cause = "landing_page"
    default_size = 0.92
    is_share = True

    def loses_order(self, ts: int, order: Mapping[str, Any]) -> str | None:
        """Return the trouble where this order is lost."""
        if not self.concerns(ts, order["channel"], order["segment"], order["product_id"]) or not self.dice.chance(
            self.size
        ):
            return None
        self.n_orders_lost += 1
        return self.mark.trouble_id
