"""Seeded chance: every draw comes from one stream of uniforms that its key alone decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK: Final = 4_096
_INVERSION_UP_TO: Final = 50.0
"""Above it a rounded normal is closer than anyone could tell, and does not take `lam` steps."""


class Dice:
    """Draws from the stream that `key` names, however the calls are batched.

    Uniforms are fetched in blocks (a call costs a tenth of numpy's own scalar draw) and everything else is made
    from them, so a numpy release that changes how it draws normals changes no byte here.
    """

    __slots__ = ("_block", "_left", "_rng")

    def __init__(self, *key: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        self._block: list[float] = []
        self._left = 0

    def uniform(self) -> float:
        """Return a number in [0, 1)."""
        if self._left == 0:
            self._block = self._rng.random(_BLOCK).tolist()
            self._left = _BLOCK
        self._left -= 1
        return self._block[self._left]

    def between(self, low: int, high: int) -> int:
        """Return an integer in low..high, both possible."""
        return low + int(self.uniform() * (high - low + 1))

    def chance(self, ratio: float) -> bool:
        """Return True in `ratio` of all calls."""
        return self.uniform() < ratio

    def normal(self) -> float:
        """Return a standard normal (Box and Muller, 1958)."""
        return math.sqrt(-2.0 * math.log(1.0 - self.uniform())) * math.cos(2.0 * math.pi * self.uniform())

    def factor(self, sigma: float) -> float:
        """Return a log-normal factor of mean 1."""
        return math.exp(sigma * self.normal() - sigma * sigma / 2.0)

    def exponential(self, mean: float) -> float:
        """Return an exponential waiting time."""
        return -mean * math.log(1.0 - self.uniform())

    def poisson(self, lam: float) -> int:
        """Return a Poisson count; 0 for a rate of 0 or below."""
        if lam <= 0.0:
            return 0
        if lam > _INVERSION_UP_TO:
            return max(0, round(lam + math.sqrt(lam) * self.normal()))
        left = self.uniform()
        probability = math.exp(-lam)
        n = 0
        while left >= probability and n < 400:  # rounding may leave a rest that no term can use up
            left -= probability
            n += 1
            probability *= lam / n
        return n

    def choice(self, items: Sequence[T]) -> T:
        """Return one of `items`, all alike."""
        return items[int(self.uniform() * len(items))]


class Weighted:
    """A choice among few items by weight."""

    __slots__ = ("_edges", "_items")

    def __init__(self, weights: dict[str, float]) -> None:
        total = sum(weights.values())
        self._items = list(weights)
        self._edges = [edge / total for edge in accumulate(weights.values())]
        self._edges[-1] = 1.0

    def draw(self, dice: Dice) -> str:
        """Return one item."""
        u = dice.uniform()
        for item, edge in zip(self._items, self._edges, strict=True):
            if u < edge:
                return item
        return self._items[-1]
