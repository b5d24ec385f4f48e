"""How much of the return of money just spent has come in yet: the delay curve, learned without waiting.

An order is seen only once it is paid, so among the orders of the last minutes the quick ones are over-represented
(right truncation). Averaging delays, or counting them against all orders, learns a curve that is too fast. Read
backwards in time the problem disappears: of the orders with a delay of at most d, seen from touches at least d ago,
which share has a delay in the last step before d? Those reverse hazards r multiply to the curve,

    F(e_j) = prod over u > j of (1 - r_u),   r_u = D_u / C_u,
    D_u = orders in bin u,  C_u = orders in bins <= u whose touch is at least e_u old,

the maximum-likelihood estimate of a truncated sample, and the same as an actuary's chain ladder. Where the room has not
been watched long enough, nothing speaks: there a family of curves does, weighted by how well it explains what was seen.

References
----------
Lagakos, Barraj, De Gruttola (1988), Nonparametric analysis of truncated survival data. Kalbfleisch, Lawless (1989),
Inference based on retrospective ascertainment. Chapelle (2014), Modeling delayed feedback in display advertising.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

MILLION: Final = 1_000_000
N_BINS: Final = 25
EDGES_S: Final = (0, *(round(5 * math.sqrt(2) ** place) for place in range(N_BINS)))
"""Upper edges of the delay bins, in seconds: 5 s to 20,480 s, each 1.41 times the one before."""
HORIZON_S: Final = EDGES_S[-1]
"""What comes later than this (5.7 h) is not waited for: a show lasts hours, and a bid less."""
EDGES_MS: Final = tuple(edge * 1_000 for edge in EDGES_S)

SCALES: Final = ((0.125, 2), (0.25, 3), (0.5, 4), (1.0, 5), (2.0, 3), (4.0, 2))
"""Mean delay of a curve of the family as a multiple of the configured mean, and its weight before any order."""
SHAPES: Final = ((0.4, 1), (0.7, 2), (1.0, 2))
"""Weibull shapes, and their weights: 1 is exponential (Chapelle 2014), below are many prompt orders and a long tail."""
BIN_WEIGHT: Final = 4.0
"""Orders that the family's word is worth in each bin."""
TRUSTED_ORDERS: Final = 100
"""Orders beyond which the family is not told apart any further: none of its curves is the true one."""
CHANNEL_WEIGHT: Final = 20.0
"""Orders that the room's curve is worth in each bin of a channel's."""
MICRO: Final = 1_000_000

Floats = NDArray[np.float64]


class Curve(msgspec.Struct, array_like=True, gc=False):
    """P(order within d | it comes), and its standard error, at each of `EDGES_S`, in millionths."""

    share_ppm: list[int]
    error_ppm: list[int]

    def at(self, age_ms: int) -> tuple[int, int]:
        """Return the share due at an age, and its error; linear between edges.

        >>> Curve([0, *[500_000] * 24, 1_000_000], [0, *[0] * 25]).at(2_500)
        (250000, 0)
        """
        if age_ms <= 0:
            return 0, 0
        place = bisect_right(EDGES_MS, age_ms)
        if place > N_BINS:
            return MILLION, 0
        low_ms = EDGES_MS[place - 1]
        into, width = age_ms - low_ms, EDGES_MS[place] - low_ms
        share, error = self.share_ppm[place - 1], self.error_ppm[place - 1]
        return (
            share + (self.share_ppm[place] - share) * into // width,
            error + (self.error_ppm[place] - error) * into // width,
        )


class Delays(msgspec.Struct, array_like=True, gc=False):
    """What a truncated sample of delays comes to: orders by the bin of their delay, and by the age of their touch.

    `by_age[t]` counts orders whose touch is at least `EDGES_S[t]` old and younger than the next edge. Orders whose bin
    is not whole yet at that age wait.
    """

    by_bin: list[int] = msgspec.field(default_factory=lambda: [0] * (N_BINS + 1))
    by_age: list[int] = msgspec.field(default_factory=lambda: [0] * (N_BINS + 1))

    def add(self, delay_ms: int, age_ms: int) -> None:
        """Count one order, paid `delay_ms` after its touch, which is `age_ms` ago."""
        age = bisect_right(EDGES_MS, age_ms) - 1
        bin_ = min(max(1, bisect_right(EDGES_MS, delay_ms - 1)), N_BINS + 1)
        if bin_ <= age:
            self.by_bin[bin_] += 1
            self.by_age[age] += 1

    @property
    def n_orders(self) -> int:
        """Orders counted."""
        return sum(self.by_bin)

    def at_risk(self) -> list[int]:
        """Return C for each bin: orders with a delay of at most the bin's whose touch is old enough to tell."""
        out, so_far, younger = [0], 0, 0
        for place in range(1, N_BINS + 1):
            so_far += self.by_bin[place]
            younger += self.by_age[place - 1]
            out.append(so_far - younger)
        return out


class _Family:
    """Curves that delays of this kind of room may follow: hazards, logarithms for the likelihood, weights."""

    def __init__(self, mean_s: int) -> None:
        shares = []
        weights: list[float] = []
        for scale, scale_weight in SCALES:
            for shape, shape_weight in SHAPES:
                unit_s = mean_s * scale / math.gamma(1.0 + 1.0 / shape)
                raw = [-math.expm1(-((edge / unit_s) ** shape)) for edge in EDGES_S]
                shares.append([share / raw[-1] for share in raw])
                weights.append(scale_weight * shape_weight)
        floor = 1e-9  # a delay that a curve calls impossible is only very unlikely
        self.weights = weights
        self.hazards: Floats = np.array([[0.0] + [1.0 - a / b for a, b in pairwise(row)] for row in shares])
        # Whole millionths: sums of them are exact in whatever order they are made.
        self.log_mass: NDArray[np.int64] = np.array(
            [[0] + [round(MICRO * math.log(max(b - a, floor))) for a, b in pairwise(row)] for row in shares]
        )
        self.log_share: NDArray[np.int64] = np.array(
            [[0] + [round(MICRO * math.log(max(share, floor))) for share in row[1:]] for row in shares]
        )


@lru_cache(maxsize=32)
def _family(mean_s: int) -> _Family:
    return _Family(mean_s)


@lru_cache(maxsize=32)
def prior_curve(mean_s: int) -> Curve:
    """Return the curve of a room of which nothing is known but its kind's mean delay."""
    return learn(Delays(), mean_s)


def learn(seen: Delays, mean_s: int) -> Curve:
    """Return the room's curve: its own reverse hazards, shrunk to a family around `mean_s` that the sample weighs."""
    family = _family(mean_s)
    n = seen.n_orders
    by_bin, by_age = np.array(seen.by_bin), np.array(seen.by_age)
    likelihood = family.log_mass @ by_bin - family.log_share @ by_age
    scores = [int(score) / MICRO * min(1.0, TRUSTED_ORDERS / n) if n else 0.0 for score in likelihood]
    best = max(scores)
    weights = [w * math.exp(score - best) for w, score in zip(family.weights, scores, strict=True)]
    whole = sum(weights)
    share: Floats = np.array([w / whole for w in weights])
    at_risk = np.array(seen.at_risk(), dtype=np.float64)
    hazards = (by_bin + BIN_WEIGHT * family.hazards) / (at_risk + BIN_WEIGHT)
    curves = _curves(hazards)
    mean = _weighted(share, curves)
    spread = _weighted(share, (curves - mean) ** 2)
    hazard = _weighted(share, hazards)
    return _curve(mean, spread + _sampling(hazard, at_risk, BIN_WEIGHT) * mean**2)


def learn_within(seen: Delays, room: Curve) -> Curve:
    """Return a channel's curve: its own reverse hazards, shrunk to the room's."""
    shares = np.array(room.share_ppm, dtype=np.float64)
    own = np.ones(N_BINS + 1)
    own[0] = 0.0
    own[1:] = 1.0 - shares[:-1] / np.maximum(shares[1:], 1.0)
    at_risk = np.array(seen.at_risk(), dtype=np.float64)
    weight = at_risk + CHANNEL_WEIGHT
    hazard = (np.array(seen.by_bin) + CHANNEL_WEIGHT * own) / weight
    mean = _curves(hazard[None, :])[0]
    # Of the room's own error as much stays as the room's word weighs at the bin that decides most.
    kept = CHANNEL_WEIGHT / weight
    inherited = (np.array(room.error_ppm) / MILLION * kept) ** 2
    return _curve(mean, inherited + _sampling(hazard, at_risk, CHANNEL_WEIGHT) * mean**2)


def _curves(hazards: Floats) -> Floats:
    """Return F at every edge, a row a curve: the product of 1 - r over later bins."""
    kept = 1.0 - np.minimum(hazards, 1.0 - 1e-9)
    kept[:, 0] = 1.0
    later = np.ones_like(kept)
    later[:, :-1] = np.cumprod(kept[:, :0:-1], axis=1)[:, ::-1]
    later[:, 0] = 0.0
    return later


def _weighted(weights: Floats, rows: Floats) -> Floats:
    total: Floats = np.add.reduce(weights[:, None] * rows, axis=0)  # row by row: the same sum on every processor
    return total


def _sampling(hazard: Floats, at_risk: Floats, weight: float) -> Floats:
    """Return the relative variance of F at each edge that comes of counting so few orders.

    Greenwood's formula read backwards, with each bin's share of say. Bins without orders add nothing here: what is
    not known of them is the spread of the family.
    """
    kept = np.maximum(1.0 - hazard, 1e-6)
    each = hazard / kept * at_risk / (at_risk + weight) ** 2
    each[0] = 0.0
    out: Floats = np.zeros(N_BINS + 1)
    out[:-1] = np.cumsum(each[:0:-1])[::-1]
    return out


def _curve(mean: Floats, variance: Floats) -> Curve:
    ceiling: Sequence[Any] = [MILLION * min(1.0, float(share)) for share in mean]
    errors = [MILLION * min(0.5, math.sqrt(max(0.0, float(each)))) for each in variance]
    shares = [0, *(round(share) for share in ceiling[1:-1]), MILLION]
    return Curve(shares, [0, *(round(error) for error in errors[1:-1]), 0])
