"""The shelf, the product on stage, and the life of an order: created, paid or cancelled, some refunded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from pipeline.simulate.audience import Viewer
from pipeline.simulate.dice import Dice
from pipeline.simulate.ledger import Order
from pipeline.simulate.parameters import SECOND_MS, Channel, Parameters
from pipeline.simulate.timeline import Timeline

PRICES_MINOR: Final = (1_990, 2_990, 3_990, 4_990, 5_990, 6_990, 7_990, 8_990, 9_990, 12_900, 15_900)
GOODS_COST_RATIO: Final = 0.45
COMMISSION_RATIO: Final = 0.15
REMEMBERED: Final = 1_000


class Product(NamedTuple):
    """One thing on the shelf."""

    product_id: str
    price_minor: int
    appeal: float
    """Conversion against the room's."""
    refund_ratio: float


class Refund(NamedTuple):
    """When after payment, and how much."""

    wait_ms: int
    amount_minor: int


@runtime_checkable
class OrderLoss(Protocol):
    """Something that may swallow an order before it is made."""

    def loses_order(self, ts: int, order: Mapping[str, Any]) -> str | None:
        """Return the trouble because of which the order of these fields is not made now; None when it is."""


@runtime_checkable
class PaymentLoss(Protocol):
    """Something that may keep an order from being paid."""

    def loses_payment(self, ts: int, order: Mapping[str, Any]) -> str | None:
        """Return the trouble because of which the order is not paid now; None when it is."""


@runtime_checkable
class Aversion(Protocol):
    """Something that may keep a viewer from opening or buying a product."""

    def appeal(self, ts: int, viewer: Viewer, product: Product) -> float:
        """Return the factor on the probability that the viewer buys."""


@runtime_checkable
class OrderRewrite(Protocol):
    """Something that may change what the records of an order say."""

    def rewritten(self, ts: int, order: dict[str, Any]) -> dict[str, Any]:
        """Return the record's fields instead of `order`."""


class Shop:
    """What one room sells."""

    def __init__(self, timeline: Timeline, *, price_factor: float, conversion_factor: float) -> None:
        dice, parameters = timeline.dice, timeline.parameters
        self.order_losses: list[OrderLoss] = []
        self.payment_losses: list[PaymentLoss] = []
        self.aversions: list[Aversion] = []
        self.rewrites: list[OrderRewrite] = []
        self.paid: deque[tuple[dict[str, Any], Order]] = deque(maxlen=REMEMBERED)
        """The last paid orders: a trouble may send them back."""
        self._timeline = timeline
        self._conversion_factor = conversion_factor
        # One product from each part of the price list: rooms differ, but none sells only the cheapest.
        edges = [len(PRICES_MINOR) * part / parameters.n_products for part in range(parameters.n_products)]
        width = len(PRICES_MINOR) / parameters.n_products
        prices = [PRICES_MINOR[min(len(PRICES_MINOR) - 1, int(edge + width * dice.uniform()))] for edge in edges]
        self.products = [
            Product(
                f"{timeline.room_id}-p{number}",
                round(price * price_factor),
                dice.factor(parameters.appeal_sigma),
                min(parameters.refund_most, parameters.refund_ratio * dice.factor(parameters.refund_sigma)),
            )
            for number, price in enumerate(prices, start=1)
        ]
        self._stock = {product.product_id: 2_000 for product in self.products}
        self._price_factors: dict[str, float] = {}
        self._on_stage: Product | None = None
        self._stage_number = dice.between(0, parameters.n_products - 1)
        self._burst_from = timeline.start_ts
        self._n_orders = 0
        self._mean_quantity = mean_quantity(parameters)

    def open(self, ts: int) -> None:
        """Put the products on the shelf and start explaining them in turn."""
        for product in self.products:
            self.tell(ts, product, "list", price_minor=product.price_minor, stock=self._stock[product.product_id])
        dice, parameters = self._timeline.dice, self._timeline.parameters
        self._timeline.at(ts + dice.between(*parameters.pause_s) * SECOND_MS, self._explain)

    def shown(self) -> Product | None:
        """Return the product on stage; None in a pause."""
        return self._on_stage

    def coming(self, n_products: int) -> list[Product]:
        """Return this many products in the order of the show, from the one on stage on."""
        first = self._stage_number + (self._on_stage is None)
        n_all = len(self.products)
        return [self.products[(first + step) % n_all] for step in range(min(n_products, n_all))]

    def price_minor(self, product: Product) -> int:
        """Return what the product costs now."""
        return max(1, round(product.price_minor * self._price_factors.get(product.product_id, 1.0)))

    def reprice(self, ts: int, product: Product, factor: float) -> None:
        """Set and tell a product's price: `factor` times its own."""
        self._price_factors[product.product_id] = factor
        self.tell(ts, product, "price", price_minor=self.price_minor(product))

    def restock(self, ts: int, product: Product, stock: int) -> None:
        """Set and tell how many of a product are left."""
        self._stock[product.product_id] = stock
        self.tell(ts, product, "stock", stock=stock)

    def tell(self, ts: int, product: Product, action: str, **more: int) -> None:
        """Write what happens to a product."""
        fields: dict[str, Any] = {"product_id": product.product_id, "action": action, **more}
        self._timeline.emit("plan", "product", ts, fields)

    def stock_of(self, product: Product) -> int:
        """Return how many are left."""
        return self._stock[product.product_id]

    def click(self, viewer: Viewer, channel: Channel, touch_ts: int, buy_factor: float, ts: int) -> None:
        """Let a viewer open a product's page, and perhaps buy, soon or later."""
        timeline = self._timeline
        dice, parameters = timeline.dice, timeline.parameters
        product = self._on_stage if self._on_stage is not None and dice.chance(0.8) else dice.choice(self.products)
        with_product = {**viewer, "product_id": product.product_id}
        timeline.emit("view", "interaction", ts, {**with_product, "action": "product_click"})
        probability = channel.buy_ratio * self._factor(ts) * buy_factor * product.appeal
        for aversion in self.aversions:
            probability *= aversion.appeal(ts, viewer, product)
        probability = min(1.0, probability)
        self._expect(viewer, product, touch_ts, probability)
        buys = dice.chance(probability)
        if dice.chance(parameters.cart_ratio * (3.0 if buys else 1.0)):
            timeline.emit(
                "view", "interaction", ts + dice.between(500, 4_000), {**with_product, "action": "add_to_cart"}
            )
        if not buys:
            return
        prompt = dice.chance(parameters.prompt_ratio)
        wait_s = 2.0 + dice.exponential(parameters.prompt_mean_s) if prompt else _late_wait_s(dice, parameters)
        fields = {**with_product, "touch_ts": touch_ts, "attribution": "direct" if prompt else "indirect"}
        if not channel.is_paid:
            fields["attribution"] = "organic"
            del fields["touch_ts"]
        self._decide(fields, product, touch_ts, ts, ts + int(wait_s * SECOND_MS))

    def invent(
        self,
        fields: Mapping[str, Any],
        ts: int,
        amount_minor: int,
        *,
        trouble_id: str,
        is_paid: bool,
        quantity: int = 1,
    ) -> str:
        """Make an order that nobody means and return its id; it is paid in the record alone, or cancelled in time."""
        timeline = self._timeline
        record = self._record(fields, amount_minor, quantity)
        truth = self._truth(record, ts, ts, amount_minor, ts)
        truth.is_valid, truth.trouble_id = False, trouble_id
        timeline.ledger.add(truth)
        mark = timeline.mark
        timeline.books.n_orders_created += 1
        timeline.emit("order", "order", ts, {**record, "status": "created"})

        def later(step: Any, at_ts: int) -> None:
            with timeline.marked(mark):
                step(record, at_ts)

        if is_paid:
            truth.paid_ts = ts + 3_000
            timeline.at(ts + 3_000, partial(later, self._pay_record))
        else:
            timeline.at(ts + timeline.parameters.cancel_after_s * SECOND_MS, partial(later, self._cancel))
        return truth.order_id

    def give_back(self, record: dict[str, Any], truth: Order, ts: int, trouble_id: str) -> bool:
        """Refund a paid order in full at `ts` instead of whatever was to come; return whether it still could be."""
        if truth.refund_ts is not None and truth.refund_ts <= ts:
            return False
        self._timeline.ledger.correct(truth, trouble_id, refund_ts=ts, refund_minor=truth.amount_minor)
        self._timeline.at(ts, partial(self._refund, record, truth, ts, record["amount_minor"]))
        return True

    def _expect(self, viewer: Viewer, product: Product, touch_ts: int, probability: float) -> None:
        parameters = self._timeline.parameters
        cohort = self._timeline.ledger.cohort(viewer["channel"], viewer.get("plan_id"), touch_ts)
        cohort.n_product_clicks += 1
        cohort.expected_orders += probability
        gmv_minor = probability * parameters.pay_ratio * self.price_minor(product) * self._mean_quantity
        cohort.expected_gmv_minor += gmv_minor
        share = 1.0 - parameters.partial_refund_ratio / 2.0
        cohort.expected_refund_minor += gmv_minor * product.refund_ratio * share

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
        self.tell(ts, self._on_stage, "explain_start", price_minor=self.price_minor(self._on_stage))
        self._timeline.at(ts + length_s * SECOND_MS, self._stop)

    def _stop(self, ts: int) -> None:
        dice, parameters = self._timeline.dice, self._timeline.parameters
        if self._on_stage is not None:
            self.tell(ts, self._on_stage, "explain_end", stock=self._stock[self._on_stage.product_id])
        self._on_stage = None
        self._timeline.at(ts + dice.between(*parameters.pause_s) * SECOND_MS, self._explain)

    def _decide(self, fields: dict[str, Any], product: Product, touch_ts: int, click_ts: int, created_ts: int) -> None:
        """Draw an order's whole life, enter it in the ledger and let it begin."""
        timeline = self._timeline
        dice, parameters = timeline.dice, timeline.parameters
        tail = (1.0 - dice.uniform()) ** (-1.0 / parameters.quantity_tail)
        quantity = min(parameters.quantity_max, int(tail))
        amount_minor = max(1, round(self.price_minor(product) * quantity * dice.factor(parameters.amount_sigma)))
        record = self._record(fields, amount_minor, quantity)
        truth = self._truth(record, touch_ts, click_ts, amount_minor, created_ts)
        if dice.chance(parameters.pay_ratio):
            wait_s = 2.0 + parameters.pay_median_s * math.exp(parameters.pay_sigma * dice.normal())
            truth.paid_ts = created_ts + int(min(wait_s, parameters.cancel_after_s - 1) * SECOND_MS)
            if dice.chance(product.refund_ratio):
                refund = _refund(dice, parameters, amount_minor)
                truth.refund_ts = truth.paid_ts + refund.wait_ms
                truth.refund_minor = refund.amount_minor
        timeline.ledger.add(truth)
        timeline.at(created_ts, partial(self._create, record, truth))

    def _record(self, fields: Mapping[str, Any], amount_minor: int, quantity: int) -> dict[str, Any]:
        """Return the fields that all records of a new order share."""
        timeline = self._timeline
        parameters = timeline.parameters
        self._n_orders += 1
        currency = parameters.currency
        if parameters.foreign_ratio > 0 and timeline.dice.chance(parameters.foreign_ratio):
            currency, amount_minor = parameters.foreign_currency, max(1, round(amount_minor / parameters.foreign_rate))
        return {
            **fields,
            "order_id": f"{timeline.prefix}-o{self._n_orders}",
            "amount_minor": amount_minor,
            "currency": currency,
            "quantity": quantity,
        }

    def _truth(
        self, record: Mapping[str, Any], touch_ts: int, click_ts: int, amount_minor: int, created_ts: int
    ) -> Order:
        return Order(
            room_id=self._timeline.room_id,
            order_id=record["order_id"],
            channel=record["channel"],
            plan_id=record.get("plan_id"),
            segment=record["segment"],
            product_id=record["product_id"],
            user_id=record["user_id"],
            attribution=record["attribution"],
            touch_ts=touch_ts,
            click_ts=click_ts,
            created_ts=created_ts,
            amount_minor=amount_minor,
            paid_ts=None,
            refund_ts=None,
            refund_minor=0,
        )

    def _create(self, record: dict[str, Any], truth: Order, ts: int) -> None:
        timeline = self._timeline
        for loss in self.order_losses:
            trouble_id = loss.loses_order(ts, record)
            if trouble_id is not None:
                timeline.ledger.correct(truth, trouble_id, is_lost=True)
                return
        product_id = record["product_id"]
        self._stock[product_id] = max(0, self._stock[product_id] - record["quantity"])
        timeline.books.n_orders_created += 1
        self._write(ts, {**record, "status": "created"})
        if truth.paid_ts is not None:
            timeline.at(truth.paid_ts, partial(self._pay, record, truth))
        else:
            timeline.at(ts + timeline.parameters.cancel_after_s * SECOND_MS, partial(self._cancel, record))

    def _pay(self, record: dict[str, Any], truth: Order, ts: int) -> None:
        timeline = self._timeline
        for loss in self.payment_losses:
            trouble_id = loss.loses_payment(ts, record)
            if trouble_id is not None:
                timeline.ledger.correct(truth, trouble_id, paid_ts=None, refund_ts=None, refund_minor=0)
                timeline.at(
                    truth.created_ts + timeline.parameters.cancel_after_s * SECOND_MS, partial(self._cancel, record)
                )
                return
        self._pay_record(record, ts)
        if truth.refund_ts is not None:
            back_minor = record["amount_minor"]
            if truth.refund_minor < truth.amount_minor:
                back_minor = max(1, back_minor // 2)
            timeline.at(truth.refund_ts, partial(self._refund, record, truth, truth.refund_ts, back_minor))
        self.paid.append((record, truth))

    def _pay_record(self, record: dict[str, Any], ts: int) -> None:
        dice, books = self._timeline.dice, self._timeline.books
        amount_minor = record["amount_minor"]
        books.n_orders_paid += 1
        books.gmv_minor += amount_minor
        fields = {
            **record,
            "status": "paid",
            "goods_cost_minor": round(amount_minor * GOODS_COST_RATIO),
            "commission_minor": round(amount_minor * COMMISSION_RATIO),
            "is_new_customer": dice.chance(0.2 if record["segment"] == "high_value" else 0.6),
        }
        self._write(ts, fields)

    def _refund(self, record: dict[str, Any], truth: Order, planned_ts: int, amount_minor: int, ts: int) -> None:
        if truth.refund_ts != planned_ts:
            return  # it came back earlier
        books = self._timeline.books
        books.n_refunds += 1
        books.refund_minor += amount_minor
        self._write(ts, {**record, "status": "refunded", "amount_minor": amount_minor})

    def _cancel(self, record: dict[str, Any], ts: int) -> None:
        self._timeline.books.n_orders_cancelled += 1
        self._write(ts, {**record, "status": "cancelled"})

    def _write(self, ts: int, fields: dict[str, Any]) -> None:
        for rewrite in self.rewrites:
            fields = rewrite.rewritten(ts, fields)
        self._timeline.emit("order", "order", ts, fields)


def mean_quantity(parameters: Parameters) -> float:
    """Return the mean of a quantity: P(n or more) is n to the power of minus `quantity_tail`, up to the largest.

    >>> round(mean_quantity(Parameters(quantity_tail=2.4, quantity_max=12)), 3)
    1.36
    """
    mean: float = math.fsum(math.pow(n, -parameters.quantity_tail) for n in range(1, parameters.quantity_max + 1))
    return mean


def _late_wait_s(dice: Dice, parameters: Parameters) -> float:
    """Return how long after the click a late order is made."""
    mean_s, shape = parameters.late_order_mean_s, parameters.late_order_shape
    if parameters.late_order_kind == "lognormal":
        return 30.0 + mean_s * dice.factor(shape)
    if parameters.late_order_kind == "pareto":
        return 30.0 + mean_s * (shape - 1.0) * (math.pow(1.0 - dice.uniform(), -1.0 / shape) - 1.0)
    return 30.0 + dice.exponential(mean_s)


def _refund(dice: Dice, parameters: Parameters, amount_minor: int) -> Refund:
    """Return the refund of a paid order: soon after, in remorse, or days later, when the parcel has been opened."""
    if dice.chance(parameters.partial_refund_ratio):
        amount_minor = max(1, amount_minor // 2)
    if dice.chance(parameters.refund_soon_ratio):
        wait_s = 30.0 + dice.exponential(parameters.refund_mean_s)
    else:
        wait_s = parameters.refund_late_median_s * math.exp(parameters.refund_late_sigma * dice.normal())
    return Refund(int(wait_s * SECOND_MS), amount_minor)
