"""Bins on a log scale: quantiles of durations and amounts, each within five per cent."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Final


def _edges(smallest: int, largest: int, growth: float) -> tuple[int, ...]:
    edges, edge = [smallest], float(smallest)
    while edges[-1] < largest:
        edge = max(edge * growth, edges[-1] + 1)
        edges.append(round(edge))
    return tuple(edges)


LOG_EDGES: Final = _edges(100, 10**12, 1.1)
"""Upper edges of the bins that durations (ms) and amounts (minor units) are counted in: each within 5 %."""


def log_bin(value: int) -> int:
    """Return the bin of a value >= 0.

    >>> log_bin(0), log_bin(100), log_bin(101)
    (0, 0, 1)
    """
    return bisect_left(LOG_EDGES, value)


def bin_value(number: int) -> int:
    """Return the value that stands for a bin: the middle of its edges on a log scale."""
    if number == 0:
        return LOG_EDGES[0] // 2
    return math.isqrt(LOG_EDGES[number - 1] * LOG_EDGES[min(number, len(LOG_EDGES) - 1)])


def quantile(bins: dict[int, int], share: float) -> int | None:
    """Return the value below which `share` of a binned sample lies, within 5 %; None for an empty one."""
    total = sum(bins.values())
    if total <= 0:
        return None
    wanted, below = share * total, 0
    for number in sorted(bins):
        below += bins[number]
        if below >= wanted:
            return bin_value(number)
    return None
