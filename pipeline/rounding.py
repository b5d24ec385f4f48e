"""Six decimals, as `round` gives them, at a third of its price: an emission rounds some forty ratios."""

from __future__ import annotations

from typing import Final

_MOST: Final = 1_000.0
"""Up to here x * 1e6 is off by 6e-8 at most, which moves nothing that is further from a half than `_HALF` says."""
_HALF: Final = 0.4999


def millionths(x: float) -> float:
    """Return `round(x, 6)`, to the last bit.

    `round` writes the number out in decimal and reads it again. Where the nearest whole number of millionths is plain,
    dividing it by a million gives the same double, since that division is rounded correctly too; near a half, beyond
    a thousand and for what is not positive, `round` itself decides.

    >>> millionths(2 / 3), millionths(-0.5), millionths(0.1234565)
    (0.666667, -0.5, 0.123457)
    """
    if 0.0 < x < _MOST:
        scaled = x * 1e6
        whole = int(scaled + 0.5)
        if -_HALF < scaled - whole < _HALF:
            return whole / 1e6
    return round(x, 6)
