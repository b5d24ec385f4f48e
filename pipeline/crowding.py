"""Where a room's negative comments crowd: a product, a minute, a topic that holds more of them than of the opinions.

Counted are opinions (comments that `pipeline.sentiment` is sure about and that nobody copied) of the last hour, by
minute, and within a minute by the product on stage and by what the comment names. So a place is compared with the same
hour: a product that is on stage half of the time may hold half of the complaints.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from schemas.settings import SentimentSettings

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
MAX_PRODUCTS: Final = 8
"""Products told apart within one minute; of more, comments count with the minute alone."""
LEAST_NATS: Final = 4.0
"""Evidence (`surprise`) from which a place stands out: of 4,500 simulated hours without any crowd two had one at 4, one
at 5 (seed 101; `benchmarks/bench_crowding.py` reports on others). The least difference of the shares does the rest."""
MOST_TOLD: Final = 3
"""Places told of a kind, those with the largest excess."""

_NEGATIVE: Final = 1 << 32
"""A negative comment, beside an opinion in the same integer."""
_OPINIONS: Final = _NEGATIVE - 1


class Minute(msgspec.Struct, array_like=True, gc=False):
    """Opinions of one minute, packed with the negative ones: all of them, by product, by topic."""

    all: int = 0
    products: dict[str, int] = msgspec.field(default_factory=dict)
    topics: dict[str, int] = msgspec.field(default_factory=dict)


class Crowds(msgspec.Struct, gc=False):
    """The minutes of a room's last hour in which somebody had an opinion."""

    minutes: dict[int, Minute] = msgspec.field(default_factory=dict)

    def note(self, ts: int, now_ms: int, product: str | None, topics: tuple[str, ...], *, is_negative: bool) -> None:
        """Count one opinion; one that is older than the hour before `now_ms` counts nowhere."""
        start_ms, oldest_ms = ts - ts % MINUTE_MS, now_ms - HOUR_MS - MINUTE_MS
        minute = self.minutes.get(start_ms)
        if minute is None:
            if start_ms <= oldest_ms:
                return
            for old in [old for old in self.minutes if old <= oldest_ms]:
                del self.minutes[old]
            minute = self.minutes[start_ms] = Minute()
        one = 1 + _NEGATIVE if is_negative else 1
        minute.all += one
        if product is not None and (product in minute.products or len(minute.products) < MAX_PRODUCTS):
            minute.products[product] = minute.products.get(product, 0) + one
        for topic in topics:
            minute.topics[topic] = minute.topics.get(topic, 0) + one

    def crowded(self, now_ms: int, settings: SentimentSettings) -> list[dict[str, Any]]:
        """Return the places that stand out, as fields of `schemas.signals.Crowded`: products, minutes, topics.

        The hour is whole minutes that begin before `now_ms`, the oldest one no more than an hour and a minute ago.
        """
        oldest_ms = now_ms - HOUR_MS - MINUTE_MS
        hour = {start: minute for start, minute in self.minutes.items() if oldest_ms < start < now_ms}
        total = sum(minute.all for minute in hour.values())
        if total >> 32 < settings.min_crowded:
            return []
        products: dict[str, int] = {}
        topics: dict[str, int] = {}
        for minute in hour.values():
            for found, part in ((products, minute.products), (topics, minute.topics)):
                for name, packed in part.items():
                    found[name] = found.get(name, 0) + packed
        minutes = {str(start): minute.all for start, minute in hour.items()}
        told = []
        for by, places in (("product_id", products), ("minute", minutes), ("topic", topics)):
            told += [{"by": by, **fields} for fields in standing_out(places, total, settings)]
        return told


def surprise(k: int, n: int, k_all: int, n_all: int) -> float:
    """Return -ln of a bound on how likely chance gives `n` of `n_all` opinions `k` of the `k_all` negative ones.

    That many or more: Hoeffding's bound for draws without replacement; 0 where it holds no more than its share.

    References
    ----------
    Hoeffding (1963), theorems 1 and 4; Chvatal (1979).

    >>> round(surprise(9, 10, 30, 100), 2), surprise(3, 10, 30, 100)
    (7.94, 0.0)
    """
    share, usual = k / n, k_all / n_all
    if share <= usual:
        return 0.0
    nats = share * math.log(share / usual)
    if k < n:
        nats += (1 - share) * math.log((1 - share) / (1 - usual))
    return n * nats


def standing_out(places: dict[str, int], total: int, settings: SentimentSettings) -> list[dict[str, Any]]:
    """Return the places of one kind that stand out of `total`, the largest excess first."""
    n_all, k_all = total & _OPINIONS, total >> 32
    least_excess = round(settings.crowd_difference * 1_000_000)
    found: list[tuple[int, str, dict[str, Any]]] = []
    for value, packed in places.items():
        n, k = packed & _OPINIONS, packed >> 32
        excess = k * n_all - n * k_all  # of the two shares, times both totals
        if k < settings.min_crowded or excess * 1_000_000 < least_excess * n_all * k_all or excess <= 0:
            continue
        if surprise(k, n, k_all, n_all) < LEAST_NATS:
            continue
        shares = {"negative_share": round(k / k_all, 6), "scored_share": round(n / n_all, 6)}
        found.append((-excess, value, {"value": value, "n_negative": k, "n_scored": n, **shares}))
    return [fields for _, _, fields in sorted(found, key=lambda row: row[:2])[:MOST_TOLD]]
