"""How often complaints that fall by chance seem to crowd, and how soon real ones are found.

`python -m benchmarks.bench_crowding [--hours 1000]`: hours of opinions at random moments, half of the comments on each
of two topics, a product on stage for ten minutes at a time. In the second table one product draws complaints `times` as
often as everything else. Shares of the hours in which anything stands out; seeded, nothing of it is tuned to.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from typing import Final

from pipeline.crowding import HOUR_MS, Crowds
from schemas.settings import SentimentSettings

STAGE_MS: Final = 600_000
"""A product's time on stage."""
PRODUCTS: Final = 3
TOPICS: Final = ("price", "quality", "logistics", "host", "tech", "authenticity")


def hour(rng: random.Random, n: int, share: float, times: float) -> Crowds:
    """Return an hour of `n` opinions, negative with `share`, of the first product `times` as often."""
    crowds = Crowds()
    for _ in range(n):
        ts = rng.randrange(HOUR_MS)
        product = ts // STAGE_MS % PRODUCTS
        is_negative = rng.random() < min(1.0, share * (times if product == 0 else 1.0))
        crowds.note(ts, HOUR_MS, f"p-{product}", tuple(rng.sample(TOPICS, rng.randrange(2))), is_negative=is_negative)
    return crowds


def shares(n: int, share: float, times: float, hours: int, seed: int) -> tuple[float, float]:
    """Return the share of hours in which the first product stands out, and in which anything else does."""
    rng, n_found, n_wrong = random.Random(seed), 0, 0
    for _ in range(hours):
        told = hour(rng, n, share, times).crowded(HOUR_MS, SentimentSettings())
        is_it = [row["value"] == "p-0" for row in told if row["by"] != "minute"]
        n_found += any(is_it)
        n_wrong += not all(is_it) or (times == 1.0 and bool(told))
    return n_found / hours, n_wrong / hours


def rows(hours: int, seed: int) -> Iterator[str]:
    """Yield the lines of both tables."""
    yield "opinions an hour | negative | found by chance"
    for n in (100, 400, 2_000):
        for share in (0.05, 0.2, 0.5):
            yield f"{n:,} | {share:.0%} | {shares(n, share, 1.0, hours, seed)[1]:.2%}"
    yield "opinions an hour | negative | times as often | product found | something else too"
    for n in (100, 400, 2_000):
        for times in (2.0, 3.0, 4.0):
            found, wrong = shares(n, 0.1, times, hours, seed + 1)
            yield f"{n:,} | 10% | {times:g} | {found:.0%} | {wrong:.2%}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for row in rows(given.hours, given.seed):
        print(row, flush=True)


if __name__ == "__main__":
    main()
