"""The shelf, the product on stage, and the life of an order: created, paid or cancelled, some refunded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from pipeline.simulate.audience import Viewer
from pipeline.simulate.parameters import CURRENCY, SECOND_MS, Channel
from pipeline.simulate.timeline import Timeline

PRICES_MINOR: Final = (1_990, 2_990, 3_990, 4_990, 5_990, 6_990, 7_990, 8_990, 9_990, 12_900, 15_900)
GOODS_COST_RATIO: Final = 0.45
COMMISSION_RATIO: Final = 0.15


class Product(NamedTuple):
    """One thing on the shelf."""

    product_id: str
    price_minor: int


@runtime_checkable
class OrderLoss(Protocol):
    """Something that may swallow an order before it is made."""

    def loses_order(self, ts: int, order: Mapping[str, Any]) -> bool:
        """Return whether the order of these fields, which would be made now, is not."""


class Shop:
    """What one room sells."""

    def __init__(self, timeline: Timeline, *, price_factor: float, conversion_factor: float) -> None:
        dice, parameters = timeline.dice, timeline.parameters
        self.losses: list[OrderLoss] = []
        self._timeline = timeline
        self._conversion_factor = conversion_factor
        # One product from each part of the price list: rooms differ, but none sells only the cheapest.
        edges = [len(PRICES_MINOR) * part / parameters.n_products for part in range(parameters.n_products)]
        width = len(PRICES_MINOR) / parameters.n_products
        prices = [PRICES_MINOR[int(edge + width * dice.uniform())] for edge in edges]
        self.products = [
            Product(f"{timeline.room_id}-p{number}", round(price * price_factor))
            for number, price in enumerate(prices, start=1)
        ]
        self._stock = {product.product_id: 2_000 for product in self.products}
        self._on_stage: Product | None = None
        self._stage_number = dice.between(0, parameters.n_products - 1)
        self._burst_from = timeline.start_ts
        self._n_orders = 0

    def open(self, ts: int) -> None:
        """Put the products on the shelf and start explaining them in turn."""
        for product in self.products:
            self._product(ts, product, "list", price_minor=product.price_minor, stock=self._stock[product.product_id])
        dice, parameters = self._timeline.dice, self._timeline.parameters
        self._timeline.at(ts + dice.between(*parameters.pause_s) * SECOND_MS, self._explain)

    def shown(self) -> Product | None:
        """Return the product on stage; None in a pause."""
        return self._on_stage

    def never_paid(self, fields: Mapping[str, Any], product: Product, ts: int) -> None:
        """Make an order at `ts` that nobody means to pay; it is cancelled when its time is over."""
        timeline = self._timeline
        self._n_orders += 1
        order = {
            **fields,
            "order_id": f"{timeline.prefix}-o{self._n_orders}",
            "amount_minor": product.price_minor,
            "currency": CURRENCY,
            "quantity": 1,
        }
        mark = timeline.mark
        timeline.books.n_orders_created += 1
        timeline.emit("order", "order", ts, {**order, "status": "created"})

        def cancel(at_ts: int) -> None:
            with timeline.marked(mark):
                self._cancel(order, at_ts)

        timeline.at(ts + timeline.parameters.cancel_after_s * SECOND_MS, cancel)

    def click(self, viewer: Viewer, channel: Channel, touch_ts: int, buy_factor: float, ts: int) -> None:
        """Let a viewer open a product's page, and perhaps buy, soon or later."""
        timeline = self._timeline
        dice, parameters = timeline.dice, timeline.parameters
        product = self._on_stage if self._on_stage is not None and dice.chance(0.8) else dice.choice(self.products)
        with_product = {**viewer, "product_id": product.product_id}
        timeline.emit("view", "interaction", ts, {**with_product, "action": "product_click"})
        buys = dice.chance(channel.buy_ratio * self._factor(ts) * buy_factor)
        if dice.chance(parameters.cart_ratio * (3.0 if buys else 1.0)):
            timeline.emit(
                "view", "interaction", ts + dice.between(500, 4_000), {**with_product, "action": "add_to_cart"}
            )
        if not buys:
            return
        prompt = dice.chance(parameters.prompt_ratio)
        wait_s = 2.0 + dice.exponential(8.0) if prompt else 30.0 + dice.exponential(parameters.late_order_mean_s)
        fields = {**with_product, "touch_ts": touch_ts, "attribution": "direct" if prompt else "indirect"}
        if not channel.is_paid:
            fields["attribution"] = "organic"
            del fields["touch_ts"]
        timeline.at(ts + int(wait_s * SECOND_MS), partial(self._create, fields, product))

    def _factor(self, ts: int) -> float:
        """Conversion against its mean: most is sold when the link goes up at the end of an explanation."""
        parameters = self._timeline.parameters
        if self._on_stage is None:
            return self._conversion_factor * parameters.pause_factor
        if ts >= self._burst_from:
            return self._conversion_factor * parameters.burst_factor
        return self._conversion_factor * parameters.explain_factor

    def _explain(self, ts: int) -> None:
        dice, parameters = self._timeline.dice, self._timeline.parameters
        self._stage_number = (self._stage_number + 1) % len(self.products)
        self._on_stage = self.products[self._stage_number]
        length_s = dice.between(*parameters.explain_s)
        self._burst_from = ts + (length_s - parameters.burst_s) * SECOND_MS
        self._product(ts, self._on_stage, "explain_start", price_minor=self._on_stage.price_minor)
        self._timeline.at(ts + length_s * SECOND_MS, self._stop)

    def _stop(self, ts: int) -> None:
        dice, parameters = self._timeline.dice, self._timeline.parameters
        if self._on_stage is not None:
            self._product(ts, self._on_stage, "explain_end", stock=self._stock[self._on_stage.product_id])
        self._on_stage = None
        self._timeline.at(ts + dice.between(*parameters.pause_s) * SECOND_MS, self._explain)

    def _product(self, ts: int, product: Product, action: str, **more: int) -> None:
        fields: dict[str, Any] = {"product_id": product.product_id, "action": action, **more}
        self._timeline.emit("plan", "product", ts, fields)

    def _create(self, fields: dict[str, Any], product: Product, ts: int) -> None:
        timeline = self._timeline
        dice, parameters, books = timeline.dice, timeline.parameters, timeline.books
        if any(loss.loses_order(ts, fields) for loss in self.losses):
            return
        self._n_orders += 1
        tail = (1.0 - dice.uniform()) ** (-1.0 / parameters.quantity_tail)
        quantity = min(parameters.quantity_max, int(tail))
        amount_minor = max(1, round(product.price_minor * quantity * dice.factor(parameters.amount_sigma)))
        self._stock[product.product_id] = max(0, self._stock[product.product_id] - quantity)
        order: dict[str, Any] = {
            **fields,
            "order_id": f"{timeline.prefix}-o{self._n_orders}",
            "amount_minor": amount_minor,
            "currency": CURRENCY,
            "quantity": quantity,
        }
        books.n_orders_created += 1
        timeline.emit("order", "order", ts, {**order, "status": "created"})
        if dice.chance(parameters.pay_ratio):
            wait_s = 2.0 + parameters.pay_median_s * math.exp(parameters.pay_sigma * dice.normal())
            timeline.at(ts + int(min(wait_s, parameters.cancel_after_s - 1) * SECOND_MS), partial(self._pay, order))
        else:
            timeline.at(ts + parameters.cancel_after_s * SECOND_MS, partial(self._cancel, order))

    def _pay(self, order: dict[str, Any], ts: int) -> None:
        timeline = self._timeline
        dice, parameters, books = timeline.dice, timeline.parameters, timeline.books
        amount_minor = order["amount_minor"]
        books.n_orders_paid += 1
        books.gmv_minor += amount_minor
        fields = {
            **order,
            "status": "paid",
            "goods_cost_minor": round(amount_minor * GOODS_COST_RATIO),
            "commission_minor": round(amount_minor * COMMISSION_RATIO),
            "is_new_customer": dice.chance(0.2 if order["segment"] == "high_value" else 0.6),
        }
        timeline.emit("order", "order", ts, fields)
        if dice.chance(parameters.refund_ratio):
            back_minor = amount_minor
            if dice.chance(parameters.partial_refund_ratio):
                back_minor = max(1, amount_minor // 2)
            wait_s = 30.0 + dice.exponential(parameters.refund_mean_s)
            timeline.at(ts + int(wait_s * SECOND_MS), partial(self._refund, order, back_minor))

    def _refund(self, order: dict[str, Any], amount_minor: int, ts: int) -> None:
        books = self._timeline.books
        books.n_refunds += 1
        books.refund_minor += amount_minor
        self._timeline.emit("order", "order", ts, {**order, "status": "refunded", "amount_minor": amount_minor})

    def _cancel(self, order: dict[str, Any], ts: int) -> None:
        self._timeline.books.n_orders_cancelled += 1
        self._timeline.emit("order", "order", ts, {**order, "status": "cancelled"})
