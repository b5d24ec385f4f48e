"""Other currencies' amounts to the last minor unit; spend in its three reportings."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.money import DayTotals, SpendIncrement, SpendTotals, conversion, convert

RATES = {"USD:CNY": "7.1", "JPY:CNY": "0.048", "KWD:USD": "3.25"}


@pytest.mark.parametrize(
    ("from_", "to", "amount", "expected"),
    [
        ("CNY", "CNY", 12_345, 12_345),
        ("USD", "CNY", 100, 710),
        ("CNY", "USD", 710, 100),
        # Yen have no minor unit: 1,000 yen are 48 yuan are 4,800 fen, and back.
        ("JPY", "CNY", 1_000, 4_800),
        ("CNY", "JPY", 4_800, 1_000),
        # Dinars have a thousandth: 1.000 dinar is 3.25 dollars.
        ("KWD", "USD", 1_000, 325),
        ("USD", "KWD", 325, 1_000),
        # Half to even, upwards and downwards.
        ("USD", "CNY", 5, 36),  # 35.5
        ("USD", "CNY", 15, 106),  # 106.5
        ("USD", "CNY", -5, -36),
        ("USD", "CNY", -15, -106),
    ],
)
def test_amounts_convert_by_the_table(from_: str, to: str, amount: int, expected: int) -> None:
    factor = conversion(RATES, from_, to)
    assert factor is not None
    assert convert(amount, factor) == expected


@pytest.mark.parametrize("pair", [("EUR", "CNY"), ("CNY", "EUR"), ("KWD", "CNY")])
def test_without_a_rate_there_is_no_conversion_not_even_by_a_detour(pair: tuple[str, str]) -> None:
    assert conversion(RATES, *pair) is None


def test_the_rate_given_for_a_direction_wins_over_the_inverse_of_the_other() -> None:
    rates = {"USD:CNY": "7", "CNY:USD": "0.1"}
    assert conversion(rates, "USD", "CNY") == 7
    assert conversion(rates, "CNY", "USD") == Fraction(1, 10)


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**9), st.integers(0, 6))
def test_conversion_is_half_to_even_for_every_amount(amount: int, digits: int, places: int) -> None:
    rate = Decimal(digits).scaleb(-places)
    factor = conversion({"USD:CNY": f"{rate:f}"}, "USD", "CNY")
    assert factor is not None
    assert convert(amount, factor) == int((amount * rate).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def test_totals_become_increments_and_restate_downwards() -> None:
    totals = SpendTotals()
    assert totals.update("p", "2026-01-01", DayTotals(10, 100, 5, 900)) == SpendIncrement(100, 5, 900)
    assert totals.update("p", "2026-01-01", DayTotals(20, 90, 6, 800)) == SpendIncrement(-10, 1, -100)


def test_an_older_report_changes_nothing() -> None:
    totals = SpendTotals()
    totals.update("p", "2026-01-01", DayTotals(20, 100, 5, 900))
    assert totals.update("p", "2026-01-01", DayTotals(19, 999, 9, 9_999)) is None
    assert totals.update("p", "2026-01-01", DayTotals(21, 100, 5, 900)) == SpendIncrement(0, 0, 0)


def test_plans_and_days_are_kept_apart() -> None:
    totals = SpendTotals()
    for plan_id, day in (("p", "2026-01-01"), ("q", "2026-01-01"), ("p", "2026-01-02")):
        assert totals.update(plan_id, day, DayTotals(10, 1, 1, 7)) == SpendIncrement(1, 1, 7)
    totals.forget("2026-01-02")
    assert list(totals.days) == ["2026-01-02 p"]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10**6)), min_size=1, max_size=12))
def test_increments_add_up_to_the_newest_report(reports: list[tuple[int, int]]) -> None:
    totals, sum_ = SpendTotals(), 0
    newest = (-1, 0)
    for report_ts, cost in reports:
        step = totals.update("p", "2026-01-01", DayTotals(report_ts, 0, 0, cost))
        sum_ += step.cost_minor if step else 0
        newest = (report_ts, cost) if report_ts >= newest[0] else newest
    assert sum_ == newest[1]
