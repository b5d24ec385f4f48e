"""What is still to come back: refunds by the age of an order, and by product.

Every order at risk is known, so refunds need no correction for truncation: of the money that reached an age, which
share came back there (the actuary's rate)? Each rate is shrunk to a configured prior, which alone speaks of ages that
the room has not seen. A product's rate is the room's times a factor, shrunk to 1 (Bühlmann, Straub 1970).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise
from typing import Final

import msgspec

MILLION: Final = 1_000_000
EDGES_S: Final[tuple[int, ...]] = (0, *(60 << place for place in range(13)))
"""Edges of an order's age, in seconds: a minute to 68 h, about as long as orders are kept."""
EDGES_MS: Final = tuple(edge * 1_000 for edge in EDGES_S)
N_AGES: Final = len(EDGES_S) - 1
PRIOR_ORDERS: Final = 20
"""Mean orders that the prior rate of an age is worth."""
PRIOR_REFUNDS: Final = 3
"""Refunds of a mean order that a product's factor 1 is worth."""
MAX_PRODUCTS: Final = 64
"""Products of a room told apart; the rest have the room's rate."""


class RefundCurve(msgspec.Struct, array_like=True, gc=False):
    """Share of an order's value still expected back at each of `EDGES_S` of its age, in millionths; empty for none.

    `n_refunds` have been seen; `products` holds factors in millionths by the product's number in the room.
    """

    remaining_ppm: list[int] = msgspec.field(default_factory=list)
    n_refunds: int = 0
    products: dict[int, int] = msgspec.field(default_factory=dict)

    def remaining(self, age_ms: int) -> int:
        """Return the share still expected back at an age, linear between edges; the last edge's beyond it.

        >>> RefundCurve([60_000, 40_000, *[0] * 12]).remaining(30_000)
        50000
        """
        curve = self.remaining_ppm
        if not curve:
            return 0
        if age_ms <= 0:
            return curve[0]
        place = bisect_right(EDGES_MS, age_ms)
        if place > N_AGES:
            return 0
        low_ms = EDGES_MS[place - 1]
        return curve[place - 1] + (curve[place] - curve[place - 1]) * (age_ms - low_ms) // (EDGES_MS[place] - low_ms)

    def factor(self, product: int) -> int:
        """Return how often this product comes back against the room's mean, in millionths."""
        return self.products.get(product, MILLION)


class Returned(msgspec.Struct, gc=False):
    """Money by age: what reached the end of each age bin, and what came back within it; the same by product."""

    at_risk: list[int] = msgspec.field(default_factory=lambda: [0] * (N_AGES + 1))
    back: list[int] = msgspec.field(default_factory=lambda: [0] * (N_AGES + 1))
    by_product: dict[int, tuple[list[int], int]] = msgspec.field(default_factory=dict)
    n_orders: int = 0
    n_refunds: int = 0
    gmv_minor: int = 0

    def add(self, product: int, paid_minor: int, age_ms: int, refunds: list[tuple[int, int]]) -> None:
        """Count an order of `age_ms`; `refunds` as (age in ms, minor units). A bin that is not over yet waits."""
        reached = bisect_right(EDGES_MS, age_ms) - 1
        self.n_orders += 1
        self.gmv_minor += paid_minor
        if reached < 1:
            return
        reach, back = self.by_product.get(product) or ([0] * (N_AGES + 1), 0)
        self.at_risk[reached] += paid_minor  # as "at least so old": summed from the oldest on when read
        reach[reached] += paid_minor
        for at_ms, amount in refunds:
            place = min(max(1, bisect_right(EDGES_MS, at_ms - 1)), N_AGES + 1)
            if place <= reached:
                self.back[place] += amount
                back += amount
                self.n_refunds += 1
        self.by_product[product] = (reach, back)


def _reached(counts: list[int]) -> list[int]:
    out, total = [0] * len(counts), 0
    for place in range(len(counts) - 1, 0, -1):
        total += counts[place]
        out[place] = total
    return out


def learn_refunds(seen: Returned, prior_ratio: float, prior_delay_s: int) -> RefundCurve:
    """Return the room's refund curve; the prior is `prior_ratio` of the value, exponential with a mean delay."""
    if prior_ratio <= 0 and seen.n_refunds == 0:
        return RefundCurve()
    prior = [
        prior_ratio * (math.exp(-low / prior_delay_s) - math.exp(-high / prior_delay_s))
        for low, high in pairwise(EDGES_S)
    ]
    order = seen.gmv_minor / seen.n_orders if seen.n_orders else 1.0
    weight = PRIOR_ORDERS * order
    rates = [
        (back + weight * rate) / (money + weight)
        for back, money, rate in zip(seen.back[1:], _reached(seen.at_risk)[1:], prior, strict=True)
    ]
    remaining, left = [0], 0.0
    for rate in reversed(rates):
        left = min(1.0, left + rate)
        remaining.append(round(MILLION * left))
    remaining.reverse()
    products = {}
    for product, (reach, back) in sorted(seen.by_product.items()):
        expected = sum(rate * money for rate, money in zip(rates, _reached(reach)[1:], strict=True))
        factor = (back + PRIOR_REFUNDS * order) / (expected + PRIOR_REFUNDS * order)
        products[product] = round(MILLION * factor)
    return RefundCurve(remaining, seen.n_refunds, products)
