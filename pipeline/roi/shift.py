"""Which of the two moved: free traffic or what is paid for?

`roas` holds the whole room's sales against the spend. A wave of free viewers lifts it without any merit of the ads, and
hides ads that stopped working. So organic and attributed orders are compared with their own past, each against what it
depends on: organic ones against time, attributed ones against paid clicks.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from pipeline.counters import CLICKS, N_ORDERS_PAID, N_PAID_ATTRIBUTED, Counts

Shift = Literal["organic_surge", "paid_decline", "masked_decline"]

NEAR_S: Final = 900
FAR_S: Final = 3_600
MIN_ORDERS: Final = 20
"""Orders of a kind in the hour, below which it is not judged."""
STRANGE_Z: Final = 3.0
"""Deviations that count: one false word in 740 looks, were looks independent and orders Poisson."""


def _z(near: int, both: int, share: float) -> float:
    """Return how far `near` of `both` lies from its expected share, in standard deviations of a binomial."""
    return (near - both * share) / math.sqrt(both * share * (1.0 - share))


def shift(near: Counts, far: Counts, watched_s: float) -> Shift | None:
    """Return what changed in the last quarter of an hour; None for nothing, or too little to say.

    `near` and `far` are the counters of 900 s and of the hour that ends with them, of which `watched_s` were watched.
    `masked_decline`: paid traffic converts worse while free traffic makes up for it, so that `roas` looks healthy.
    """
    if watched_s < 2 * NEAR_S:
        return None
    organic, of_organic = (c[N_ORDERS_PAID] - c[N_PAID_ATTRIBUTED] for c in (near, far))
    paid, of_paid = near[N_PAID_ATTRIBUTED], far[N_PAID_ATTRIBUTED]
    rises = of_organic >= MIN_ORDERS and _z(organic, of_organic, NEAR_S / min(FAR_S, watched_s)) >= STRANGE_Z
    falls = False
    if of_paid >= MIN_ORDERS and 0 < near[CLICKS] < far[CLICKS]:
        falls = _z(paid, of_paid, near[CLICKS] / far[CLICKS]) <= -STRANGE_Z
    if falls:
        return "masked_decline" if rises else "paid_decline"
    return "organic_surge" if rises else None
