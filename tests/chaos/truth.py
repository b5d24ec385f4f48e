"""What a room's session must come to, kept by whoever makes its events; nothing of the engine is used."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from tests.oracle import order_money

COMPARED: Final = (
    "n_enters", "n_comments", "n_interactions", "n_product_clicks", "n_add_to_cart", "n_orders_created",
    "n_orders_paid", "n_refunds", "gmv_minor", "refund_minor", "gift_minor", "impressions", "clicks", "spend_minor",
)  # fmt: skip
SPENT: Final = ("impressions", "clicks", "cost_minor")


class RoomTruth:
    """One room: every accepted event is told once, in the order of its log."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._orders: dict[str, list[dict[str, Any]]] = {}
        self._totals: dict[tuple[str, str], tuple[int, tuple[int, ...]]] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Note an event that counts."""
        match event["type"]:
            case "view" if event["action"] == "enter":
                self._counts["n_enters"] += 1
            case "comment":
                self._counts["n_comments"] += 1
            case "interaction":
                self._counts["n_interactions"] += 1
                self._counts["n_product_clicks"] += event["action"] == "product_click"
                self._counts["n_add_to_cart"] += event["action"] == "add_to_cart"
            case "counts":
                self._counts.update({name: event[name] for name in COMPARED[:5] if name in event})
            case "gift":
                self._counts["gift_minor"] += event["amount_minor"]
            case "order":
                step = {"ts": event["ts"], "status": event["status"], "amount": event["amount_minor"]}
                self._orders.setdefault(event["order_id"], []).append(step)
            case "spend":
                self._spend(event)

    def _spend(self, event: dict[str, Any]) -> None:
        amounts = tuple(event[name] for name in SPENT)
        if event["reporting"] != "cumulative":
            self._add(amounts)
            return
        key = (event["plan_id"], event["stat_date"])
        if event["report_ts"] > self._totals.get(key, (-1, ()))[0]:
            self._totals[key] = (event["report_ts"], amounts)

    def _add(self, amounts: tuple[int, ...]) -> None:
        self._counts.update(dict(zip(("impressions", "clicks", "spend_minor"), amounts, strict=True)))

    def session(self) -> dict[str, int]:
        """Return every count and sum of the session."""
        whole = RoomTruth()
        whole._counts = self._counts.copy()
        for _, amounts in self._totals.values():
            whole._add(amounts)
        for history in self._orders.values():
            for _, name, amount in order_money(history):
                whole._counts[name] += amount
        return {name: whole._counts[name] for name in COMPARED}
