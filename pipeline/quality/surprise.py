"""The tests behind the evidence: how surprising a count or a shape is, in nats.

All are bounds or ratios with a closed form, of integers and shares: nothing is drawn, nothing iterates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

LEAST_EXPECTED: Final = 0.5
"""No count is taken to be due less often: one visit where none was due is no proof."""


def surplus(n: int, expected: float) -> float:
    """Return -ln of Chernoff's bound on P(X >= n) of a Poisson count; 0 for no surplus.

    References
    ----------
    Chernoff (1952); Mitzenmacher and Upfal (2005), theorem 5.4.

    >>> round(surplus(20, 5.0), 2), surplus(3, 5.0)
    (12.73, 0.0)
    """
    if n <= expected:
        return 0.0
    return n * math.log(n / expected) - (n - expected)


def shortfall(n: int, expected: float) -> float:
    """Return -ln of Chernoff's bound on P(X <= n) of a Poisson count; 0 for no shortfall.

    >>> shortfall(0, 9.0), shortfall(12, 9.0)
    (9.0, 0.0)
    """
    if n >= expected:
        return 0.0
    return expected - n + (n * math.log(n / expected) if n else 0.0)


def divergence(counts: Sequence[int], shares: Sequence[float], n_reference: float) -> tuple[float, float]:
    """Return (evidence, size) that counts do not come from `shares`, themselves known from `n_reference` cases.

    Evidence is -ln P of the likelihood ratio G = 2 sum n_i ln(n_i / n p_i), taken down by what the reference's own few
    cases leave open (n_ref / (n + n_ref)), under the chi-squared distribution; size is the distance in total variation,
    0..1: with many cases everything is significant and little of it matters.
    """
    n = sum(counts)
    if n == 0:
        return 0.0, 0.0
    g, distance, cells = 0.0, 0.0, 0
    for count, share in zip(counts, shares, strict=True):
        distance += abs(count / n - share)
        cells += count > 0 or n * share >= 1.0
        if count:
            g += 2.0 * count * math.log(count / max(n * share, LEAST_EXPECTED))
    return chi_squared_nats(max(g, 0.0) * n_reference / (n + n_reference), max(1, cells - 1)), distance / 2


def chi_squared_nats(x: float, degrees: int) -> float:
    """Return -ln P(X > x) of a chi-squared variable (Wilson and Hilferty, 1931); 0 up to its mean.

    >>> round(chi_squared_nats(16.27, 3), 1), chi_squared_nats(2.0, 3)
    (6.9, 0.0)
    """
    if x <= degrees:
        return 0.0
    spread = 2.0 / (9.0 * degrees)
    z = (math.pow(x / degrees, 1.0 / 3.0) - (1.0 - spread)) / math.sqrt(spread)
    if z > 30.0:
        return z * z / 2.0
    return -math.log(math.erfc(z / math.sqrt(2.0)) / 2.0)
