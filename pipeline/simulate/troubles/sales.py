"""Troubles between the click and the money."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from pipeline.simulate.audience import Viewer
from pipeline.simulate.shop import Product
from pipeline.simulate.troubles.base import Fault


class LandingPage(Fault):
    """The page behind the link is broken: product clicks go on, `size` of the orders are never made."""

    kind = "landing_page"
    cause = "landing_page"
    default_size = 0.92
    is_share = True

    def loses_order(self, ts: int, order: Mapping[str, Any]) -> str | None:
        """Return the trouble where this order is lost."""
        is_ours = self.concerns(ts, order["channel"], order["segment"], order["product_id"])
        if not is_ours or not self.dice.chance(self.size):
            return None
        self.n_orders_lost += 1
        return self.mark.trouble_id


class PaymentFailure(Fault):
    """Paying fails: orders are made as usual, `size` of those that would be paid are cancelled in the end."""

    kind = "payment_failure"
    cause = "payment"
    default_size = 0.85
    is_share = True

    def loses_payment(self, ts: int, order: Mapping[str, Any]) -> str | None:
        """Return the trouble where this payment fails."""
        is_ours = self.concerns(ts, order["channel"], order["segment"], order["product_id"])
        if not is_ours or not self.dice.chance(self.size):
            return None
        self.n_orders_lost += 1
        return self.mark.trouble_id


class _Shelf(Fault):
    """Products go; `size` is how many of them, from the one on stage on in the order of the show."""

    cause = "stock_price"
    default_size = 4.0

    def _begin(self, ts: int) -> None:
        shop = self.room.shop
        named = [product for product in shop.products if product.product_id == self.product_id]
        self._gone = named or shop.coming(round(self.size))
        self.product_ids = tuple(product.product_id for product in self._gone)
        with self.room.timeline.marked(self.mark):
            for product in self._gone:
                self._take(ts, product)

    def _end(self, ts: int) -> None:
        with self.room.timeline.marked(self.mark):
            for product in self._gone:
                self._bring(ts, product)

    def appeal(self, ts: int, _viewer: Viewer, product: Product) -> float:
        """Return 0 for what cannot be had."""
        return 0.0 if self.is_on(ts) and product.product_id in self.product_ids else 1.0

    def loses_order(self, ts: int, order: Mapping[str, Any]) -> str | None:
        """Return the trouble where the order comes too late."""
        if not self.is_on(ts) or order["product_id"] not in self.product_ids:
            return None
        self.n_orders_lost += 1
        return self.mark.trouble_id

    def _take(self, ts: int, product: Product) -> None:
        """Write that the product goes."""

    def _bring(self, ts: int, product: Product) -> None:
        """Write that it is back."""


class SoldOut(_Shelf):
    """Products are out of stock; viewers still open them, and find nothing to buy. At the end there is a new lot."""

    kind = "sold_out"
    lot: Final = 500

    def _take(self, ts: int, product: Product) -> None:
        self.room.shop.restock(ts, product, 0)

    def _bring(self, ts: int, product: Product) -> None:
        self.room.shop.restock(ts, product, self.lot)


class Delisted(_Shelf):
    """The platform takes products off the shelf; viewers who still open them cannot buy."""

    kind = "delisted"

    def _take(self, ts: int, product: Product) -> None:
        self.room.shop.tell(ts, product, "delist")

    def _bring(self, ts: int, product: Product) -> None:
        shop = self.room.shop
        shop.tell(ts, product, "list", price_minor=shop.price_minor(product), stock=shop.stock_of(product))


class PriceRise(Fault):
    """A coupon ends: all prices are `size` times what they were, and conversion falls like size^-3."""

    kind = "price_rise"
    cause = "stock_price"
    default_size = 1.4
    elasticity: Final = 3.0

    def _begin(self, ts: int) -> None:
        self._set(ts, self.size)

    def _end(self, ts: int) -> None:
        self._set(ts, 1.0)

    def appeal(self, ts: int, _viewer: Viewer, product: Product) -> float:
        """Return how much less the dearer product is wanted."""
        is_ours = self.is_on(ts) and self.product_id in {None, product.product_id}
        return math.pow(self.size, -self.elasticity) if is_ours else 1.0

    def _set(self, ts: int, factor: float) -> None:
        with self.room.timeline.marked(self.mark):
            for product in self.room.shop.products:
                if self.product_id in {None, product.product_id}:
                    self.room.shop.reprice(ts, product, factor)
