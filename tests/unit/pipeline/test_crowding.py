"""Where negative comments crowd: what stands out, what does not, and that the plainest sum says the same."""

from __future__ import annotations

import math
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.crowding import HOUR_MS, LEAST_NATS, MAX_PRODUCTS, MINUTE_MS, MOST_TOLD, Crowds, surprise
from schemas.settings import EngineSettings, SentimentSettings
from tests.effort import effort
from tests.partition import Partition, second_of

LOW = SentimentSettings(min_crowded=3, crowd_difference=0.05)
AGAINST, FOR = "质量太差了，退货", "主播好棒！"


class Opinion(NamedTuple):
    ts: int
    product: str | None
    topics: tuple[str, ...]
    is_negative: bool


def noted(opinions: list[Opinion], now_ms: int) -> Crowds:
    crowds = Crowds()
    for ts, product, topics, is_negative in opinions:
        crowds.note(ts, now_ms, product, topics, is_negative=is_negative)
    return crowds


def names_of(opinion: Opinion) -> dict[str, tuple[str | None, ...]]:
    minute = opinion.ts // MINUTE_MS * MINUTE_MS
    return {"product_id": (opinion.product,), "minute": (str(minute),), "topic": opinion.topics}


def plain_surprise(k: int, n: int, k_all: int, n_all: int) -> float:
    """Return the divergence of two coins in nats, n times."""
    pairs = ((k / n, k_all / n_all), (1 - k / n, 1 - k_all / n_all))
    return n * math.fsum(p * math.log(p / q) for p, q in pairs if p)


def plainly(opinions: list[Opinion], now_ms: int, policy: SentimentSettings) -> set[tuple[str, str, int, int]]:
    """Return what stands out as (by, value, negative, all), counted from the list in the plainest way."""
    first = now_ms - HOUR_MS - MINUTE_MS + 1
    hour = [o for o in opinions if first <= o.ts // MINUTE_MS * MINUTE_MS < now_ms]
    n_all, k_all = len(hour), sum(o.is_negative for o in hour)
    values = {
        by: {name for o in hour for name in names_of(o)[by] if name is not None}
        for by in ("product_id", "minute", "topic")
    }
    found = set()
    for by, names in values.items():
        rows = []
        for value in names:
            here = [o for o in hour if value in names_of(o)[by]]
            n, k = len(here), sum(o.is_negative for o in here)
            if k < policy.min_crowded:
                continue
            excess = k / k_all - n / n_all
            if excess >= policy.crowd_difference - 1e-12 and plain_surprise(k, n, k_all, n_all) >= LEAST_NATS:
                rows.append((-(k * n_all - n * k_all), value, (by, value, k, n)))
        found |= {row for _, _, row in sorted(rows)[:MOST_TOLD]}
    return found


def shown(told: list[dict[str, Any]]) -> set[tuple[str, str, int, int]]:
    return {(row["by"], row["value"], row["n_negative"], row["n_scored"]) for row in told}


opinions = st.builds(
    Opinion,
    st.integers(0, HOUR_MS + 10 * MINUTE_MS) | st.integers(HOUR_MS // 2, HOUR_MS // 2 + MINUTE_MS),
    st.none() | st.sampled_from(("lipstick", "cream", "brush")),
    st.lists(st.sampled_from(("price", "quality", "tech")), unique=True, max_size=2).map(tuple),
    st.booleans(),
)


@given(st.lists(opinions, max_size=60), st.integers(0, 2**32))
@settings(max_examples=effort(300))
def test_any_opinions_in_any_order_crowd_where_the_plainest_count_says(said: list[Opinion], seed: int) -> None:
    now_ms = HOUR_MS + 5 * MINUTE_MS
    # What is never known of a later moment: whatever came before the hour counts nowhere.
    known = [o for o in said if o.ts < now_ms]
    Random(seed).shuffle(known)
    crowds = noted(known, now_ms)
    told = crowds.crowded(now_ms, LOW)
    assert shown(told) == plainly(known, now_ms, LOW)
    assert told == noted(sorted(known, key=str), now_ms).crowded(now_ms, LOW)
    assert len(crowds.minutes) <= HOUR_MS // MINUTE_MS + 2


def test_a_product_that_holds_the_complaints_stands_out_and_its_share_is_told() -> None:
    said = [Opinion(n * 30_000, "cream" if n % 4 == 0 else "lipstick", (), n % 4 == 0) for n in range(100)]
    (row,) = Crowds().crowded(1, LOW) or noted(said, 50 * MINUTE_MS).crowded(50 * MINUTE_MS, SentimentSettings())
    assert row == {
        "by": "product_id", "value": "cream", "n_negative": 25, "n_scored": 25,
        "negative_share": 1.0, "scored_share": 0.25,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("k", "n", "k_all", "n_all"), [(12, 20, 30, 100), (9, 9, 20, 60), (25, 40, 30, 80), (5, 50, 6, 90)]
)
def test_the_bound_is_above_what_chance_does(k: int, n: int, k_all: int, n_all: int) -> None:
    """Draws without replacement, every case added up."""
    ways = [math.comb(n, i) * math.comb(n_all - n, k_all - i) for i in range(k, min(n, k_all) + 1)]
    assert sum(ways) / math.comb(n_all, k_all) <= math.exp(-surprise(k, n, k_all, n_all))


def test_one_product_on_stage_all_the_time_holds_all_complaints_and_that_says_nothing() -> None:
    said = [Opinion(n * 30_000, "cream", ("price",), n % 2 == 0) for n in range(100)]
    assert noted(said, 50 * MINUTE_MS).crowded(50 * MINUTE_MS, SentimentSettings()) == []


def test_too_few_complaints_say_nothing_however_much_they_crowd() -> None:
    few = [Opinion(5_000, "cream", (), True)] * 9 + [Opinion(MINUTE_MS * n, "brush", (), False) for n in range(50)]
    assert noted(few, HOUR_MS).crowded(HOUR_MS, SentimentSettings()) == []
    assert noted([*few, few[0]], HOUR_MS).crowded(HOUR_MS, SentimentSettings()) != []


def test_a_minute_is_forgotten_after_the_hour_and_what_is_older_counts_nowhere() -> None:
    bad = [Opinion(90_000, None, (), True)] * 30
    good = [Opinion(n * MINUTE_MS, None, (), False) for n in range(2, 60)]
    crowds = noted(bad + good, HOUR_MS)
    (row,) = crowds.crowded(HOUR_MS, SentimentSettings())
    assert (row["by"], row["value"], row["n_negative"]) == ("minute", "60000", 30)
    assert crowds.crowded(HOUR_MS + 2 * MINUTE_MS, SentimentSettings()) == []
    crowds.note(90_000, HOUR_MS + 2 * MINUTE_MS, None, (), is_negative=True)
    crowds.note(HOUR_MS + MINUTE_MS, HOUR_MS + 2 * MINUTE_MS, None, (), is_negative=True)
    assert min(crowds.minutes) == 2 * MINUTE_MS


def test_products_of_a_minute_are_bounded() -> None:
    said = [Opinion(1, f"p-{n}", (), True) for n in range(100)]
    (minute,) = noted(said, MINUTE_MS).minutes.values()
    assert len(minute.products) == MAX_PRODUCTS
    assert minute.all >> 32 == 100


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_complaints_at_random_hardly_ever_stand_out(share: float) -> None:
    """Sixty minutes, four products, six topics, and complaints that fall anywhere: of 200 hours two at most speak."""
    random, n_told = Random(5), 0
    for _ in range(200):
        said = [
            Opinion(
                random.randrange(HOUR_MS),
                f"p-{random.randrange(4)}",
                (f"t-{random.randrange(6)}",),
                random.random() < share,
            )
            for _ in range(600)
        ]
        n_told += bool(noted(said, HOUR_MS).crowded(HOUR_MS, SentimentSettings()))
    assert n_told <= 2


def test_the_signals_say_which_product_and_minute_holds_the_complaints_and_nothing_while_none_does() -> None:
    partition = Partition(engine=EngineSettings(channels_interval_ms=5_000)).at(0, "room", action="start")
    for minute in range(8):
        is_bad = minute == 5
        product = "cream" if is_bad else f"p-{minute % 3}"
        partition.at(60 * minute, "product", product_id=product, action="explain_start")
        for n in range(14):
            text = f"{AGAINST}{n}" if is_bad else f"{FOR}{n}"
            partition.at(60 * minute + 2 + 3 * n, "comment", text=text, user_id=f"u{minute}-{n}")
    partition.ticks(450, 470)
    told = [message for message in partition.signals() if "crowded" in message]
    assert min(second_of(message["ts"]) for message in told) > 300
    by = {(row["by"], row["value"]): row for row in told[-1]["crowded"]}
    cream = by["product_id", "cream"]
    assert (cream["n_negative"], cream["negative_share"]) == (14, 1.0)
    assert cream["scored_share"] < 0.2
    (minute_ts,) = [int(value) for kind, value in by if kind == "minute"]
    assert 240 <= second_of(minute_ts) <= 300
