"""Spend in its three reportings, and other currencies' money: integers throughout."""

from __future__ import annotations

from fractions import Fraction
from typing import Final, NamedTuple

import msgspec

EXPONENTS: Final = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND"), 0),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Decimal places of currencies whose minor unit is not a hundredth (ISO 4217)."""


def conversion(rates: dict[str, str], from_: str, to: str) -> Fraction | None:
    """Return minor units of `to` per minor unit of `from_`; None when no rate is configured.

    >>> conversion({"USD:CNY": "7.1"}, "USD", "CNY")
    Fraction(71, 10)
    """
    if from_ == to:
        return Fraction(1)
    if (rate := rates.get(f"{from_}:{to}")) is not None:
        major = Fraction(rate)
    elif (rate := rates.get(f"{to}:{from_}")) is not None:
        major = 1 / Fraction(rate)
    else:
        return None
    return major * Fraction(10) ** (EXPONENTS.get(to, 2) - EXPONENTS.get(from_, 2))


def convert(amount_minor: int, factor: Fraction | int) -> int:
    """Return the amount in the other currency's minor units, half to even.

    >>> convert(105, Fraction(71, 10))
    746
    """
    return amount_minor if factor == 1 else round(amount_minor * factor)


class SpendIncrement(NamedTuple):
    """What one report adds."""

    impressions: int
    clicks: int
    cost_minor: int


class DayTotals(msgspec.Struct, array_like=True, gc=False):
    """The newest totals of one plan and calendar day."""

    report_ts: int
    impressions: int
    clicks: int
    cost_minor: int


class SpendTotals(msgspec.Struct, gc=False):
    """Cumulative reports turned into increments: the newest `report_ts` of a day wins."""

    days: dict[str, DayTotals] = msgspec.field(default_factory=dict)

    def update(self, plan_id: str, stat_date: str, report: DayTotals) -> SpendIncrement | None:
        """Return what the report changes, negative where it restates downwards; None when a newer one was seen."""
        key = f"{stat_date} {plan_id}"
        known = self.days.get(key) or DayTotals(-1, 0, 0, 0)
        if report.report_ts < known.report_ts:
            return None
        self.days[key] = report
        return SpendIncrement(
            report.impressions - known.impressions, report.clicks - known.clicks, report.cost_minor - known.cost_minor
        )

    def convert(self, factor: Fraction) -> None:
        """Restate every amount in another currency."""
        for totals in self.days.values():
            totals.cost_minor = convert(totals.cost_minor, factor)

    def forget(self, before_date: str) -> None:
        """Let go of days before `before_date` (YYYY-MM-DD)."""
        for key in [key for key in self.days if key[:10] < before_date]:
            del self.days[key]
