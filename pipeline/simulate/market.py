"""The advertising market: a plan's knob, what it buys and what the platform reports of it.

The answer to a bid is one number, the level: x = bid / reference, or reference goal / goal (a higher ROI goal buys
less). Traffic follows 2 x^1.2 / (1 + x^1.2): 1 at the reference, at most twice as much, falling to nothing with the
bid. A click costs x^0.5 times as much. So every further step buys less than the one before at a higher price, and
the return of paid traffic falls like x^-0.5: a loop that looks for a target has one place to settle. The answer is
immediate; learning phases and competitors' counter-moves are left out.
"""

from __future__ import annotations

import math
from collections import deque
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

from pipeline.simulate.dice import Dice
from pipeline.simulate.parameters import SECOND_MS, ZONE_MS, PlanKind
from pipeline.simulate.timeline import Timeline
from schemas.events import AckStatus

Value = int | float | str | None


class Applied(NamedTuple):
    """The platform's answer to an edit, in the words of `bid.acks`."""

    status: AckStatus
    observed_value: int | str | None = None
    detail: str | None = None


@runtime_checkable
class ClickRate(Protocol):
    """Something that may change how many clicks the same impressions bring."""

    def clicks(self, ts: int, channel: str) -> float:
        """Return the factor on the clicks."""


@runtime_checkable
class ClickPrice(Protocol):
    """Something that may change what a click costs."""

    def click_price(self, ts: int, channel: str, cost_minor: int) -> int:
        """Return what the click costs instead of `cost_minor`."""


class Plan:
    """One knob of the platform and the money that runs through it."""

    def __init__(self, timeline: Timeline, kind: PlanKind, click_cost_minor: float) -> None:
        parameters, dice = timeline.parameters, timeline.dice
        self.kind = kind
        self.plan_id = f"{timeline.room_id}-{kind.suffix}"
        self.status = "delivering"
        self.bid_minor = round(kind.reference) if kind.bid_kind == "cost_per_action" else None
        self.roi_goal = f"{kind.reference:.2f}" if kind.bid_kind == "roi_goal" else None
        self.budget_minor = round(parameters.budget_minor * parameters.size / 2)
        self.edits_left = kind.edits_left
        self.prices: list[ClickPrice] = []
        self.rates: list[ClickRate] = []
        self._volume: float | None = None
        """What `volume` returns; None: to be worked out anew."""
        self._halted: str | None = None
        """The status it had before it was stopped from outside."""
        self.exposure = 0.0
        """Clicks expected of honest viewers since the last report: what the impressions are drawn from."""
        self._timeline = timeline
        self._click_cost_minor = click_cost_minor
        self._spent_minor = 0
        self._credited = [0, 0]
        """Clicks and cost since the last credit."""
        self._pending = [0, 0, 0]
        """Impressions, clicks and cost not reported yet."""
        self._totals = [0, 0, 0]
        self._stat_date = ""
        self._reports: deque[tuple[int, int]] = deque(
            [(timeline.start_ts, timeline.start_ts)],
            maxlen=4 + parameters.feeds["spend"].lag_ms[1] // (parameters.report_s[0] * SECOND_MS),
        )
        """Arrival and end of the last reports; the oldest has always arrived, however late they come."""
        self.report_s = dice.between(*parameters.report_s)
        interval_ms = self.report_s * SECOND_MS
        timeline.every(interval_ms, timeline.start_ts + dice.between(SECOND_MS, interval_ms), self._report)
        plan_ms = parameters.plan_report_s * SECOND_MS
        timeline.every(plan_ms, timeline.start_ts + dice.between(SECOND_MS, plan_ms), self.publish)
        timeline.at(timeline.start_ts + self._credit_wait_ms(), self._credit)

    @property
    def level(self) -> float:
        """How strong the bid is: 1 at the reference."""
        if self.roi_goal is not None:
            return self.kind.reference / float(self.roi_goal)
        return (self.bid_minor or 0) / self.kind.reference

    def volume(self) -> float:
        """Return the traffic the plan buys, 1 at the reference; 0 while it does not deliver."""
        if self._volume is None:
            raised = math.pow(self.level, self._timeline.parameters.volume_power)
            self._volume = 2.0 * raised / (1.0 + raised) if self.status == "delivering" else 0.0
        return self._volume

    def click_rate(self, ts: int) -> float:
        """Return the clicks that an impression brings against the usual."""
        factor = 1.0
        for rate in self.rates:
            factor *= rate.clicks(ts, self.kind.channel)
        return factor

    def halt(self, ts: int) -> None:
        """Stop delivering because the account's balance is out."""
        if self.status == "ended" or self._halted is not None:
            return
        self._halted = self.status
        self.status = "balance_out"
        self.publish(ts, "platform")

    def release(self, ts: int) -> None:
        """Deliver again as before."""
        if self._halted is None:
            return
        before, self._halted = self._halted, None
        if self.status == "balance_out":
            self.status = before
            self.publish(ts, "platform")

    def bill_click(self, ts: int, dice: Dice) -> int:
        """Charge one click and return what it cost; the platform bills 1 minor unit at least."""
        parameters = self._timeline.parameters
        mean = self._click_cost_minor * math.pow(self.level, parameters.price_power)
        cost_minor = max(1, round(mean * dice.factor(parameters.click_cost_spread)))
        for price in self.prices:
            cost_minor = price.click_price(ts, self.kind.channel, cost_minor)
        self._pending[0] += 1
        self._pending[1] += 1
        self._pending[2] += cost_minor
        self._credited[0] += 1
        self._credited[1] += cost_minor
        self._spent_minor += cost_minor
        cohort = self._timeline.ledger.cohort(self.kind.channel, self.plan_id, ts)
        cohort.n_ad_clicks += 1
        cohort.spend_minor += cost_minor
        mark = self._timeline.mark
        if mark is not None and mark.is_invalid:
            cohort.n_invalid_clicks += 1
            cohort.invalid_spend_minor += cost_minor
        if self._spent_minor >= self.budget_minor and self.status == "delivering":
            self.status = "budget_out"
            self.publish(ts, "platform")
        return cost_minor

    def apply(self, ts: int, action: str, value: Value) -> Applied:
        """Turn the knob from `ts` on; every accepted edit uses one of the plan's edits up."""
        if self.edits_left == 0:
            return Applied("rejected", self._observed(action), "edits_left is 0")
        if self.status == "ended":
            return Applied("rejected", None, "the plan has ended")
        problem = self._turn(action, value)
        if problem is not None:
            return Applied("rejected", self._observed(action), problem)
        self.edits_left -= 1
        self.publish(ts, "us")
        return Applied("applied", self._observed(action))

    def told_through(self, ts: int) -> int:
        """Return up to when the plan's costs are in reports that had arrived by `ts`."""
        return max(through for arrival_ts, through in self._reports if arrival_ts <= ts)

    def end(self, ts: int) -> None:
        """Stop with the session."""
        self.status = "ended"
        self.publish(ts, "platform")

    def publish(self, ts: int, changed_by: str | None = None) -> None:
        """Write the knob as the platform shows it; whatever turns it says so here."""
        self._volume = None
        knob: dict[str, Any] = {"bid_kind": self.kind.bid_kind}
        if self.bid_minor is not None:
            knob["bid_minor"] = self.bid_minor
        if self.roi_goal is not None:
            knob["roi_goal"] = self.roi_goal
        if changed_by is not None:
            knob["changed_by"] = changed_by
        fields = {
            **self._head(),
            "status": self.status,
            **knob,
            "budget_minor": self.budget_minor,
            "budget_left_minor": max(0, self.budget_minor - self._spent_minor),
            "budget_period": "session",
            "learning_state": "learned",
            "protection_state": "none",
            "edits_left": self.edits_left,
            "min_edit_gap_s": self.kind.min_edit_gap_s,
        }
        self._timeline.emit("plan", "plan", ts, fields)

    def _head(self) -> dict[str, Any]:
        campaign = f"{self._timeline.room_id}-campaign"
        return {"channel": self.kind.channel, "plan_id": self.plan_id, "campaign_id": campaign}

    def _turn(self, action: str, value: Value) -> str | None:
        """Set what `action` sets; return the rule that forbids it."""
        if action == "pause":
            self.status = "paused"
        elif action == "resume" and self._halted is not None:
            return "the account's balance is out"
        elif action == "resume":
            self.status = "delivering" if self._spent_minor < self.budget_minor else "budget_out"
        elif action == "set_bid" and self.bid_minor is not None:
            if not _is_integer(value) or value <= 0:
                return f"value of set_bid must be a positive integer of minor units, got {value!r}"
            self.bid_minor = value
        elif action == "set_roi_goal" and self.roi_goal is not None:
            goal = _decimal(value)
            if goal is None or not 0.01 <= goal <= 100.0:
                return f"value of set_roi_goal must be a decimal in 0.01..100, got {value!r}"
            self.roi_goal = f"{goal:.2f}"
        elif action == "set_budget":
            if not _is_integer(value) or value < 0:
                return f"value of set_budget must be an integer >= 0 of minor units, got {value!r}"
            self.budget_minor = value
            if self.status in {"delivering", "budget_out"}:
                self.status = "delivering" if self._spent_minor < value else "budget_out"
        else:
            return f"a plan of kind {self.kind.bid_kind} has no {action}"
        return None

    def _observed(self, action: str) -> int | str | None:
        return {"set_bid": self.bid_minor, "set_roi_goal": self.roi_goal, "set_budget": self.budget_minor}.get(action)

    def _report(self, ts: int) -> None:
        """Write what ran since the last report: as an increment, or as the day's totals so far."""
        unseen = self._timeline.dice.poisson(self.exposure * (1.0 / self.kind.ctr - 1.0))
        self.exposure = 0.0
        self._pending[0] += unseen
        fields: dict[str, Any] = {
            **self._head(),
            "reporting": self.kind.reporting,
            "currency": self._timeline.parameters.currency,
        }
        if self.kind.reporting == "cumulative":
            today = datetime.fromtimestamp((ts + ZONE_MS) / 1_000, UTC).strftime("%Y-%m-%d")
            if today != self._stat_date:
                self._stat_date = today
                self._totals = [0, 0, 0]
            totals = [max(0, total + pending) for total, pending in zip(self._totals, self._pending, strict=True)]
            moved = [new - old for new, old in zip(totals, self._totals, strict=True)]
            self._pending = [pending - step for pending, step in zip(self._pending, moved, strict=True)]
            self._totals = totals
            fields |= {"stat_date": today, "report_ts": ts}
            arrival_ts = self._spend(ts, fields, totals, moved)
        else:
            moved, self._pending = self._pending, [0, 0, 0]
            arrival_ts = self._spend(ts, fields, moved, moved)
        self._reports.append((arrival_ts, ts))

    def _credit(self, ts: int) -> None:
        """Give a little back for clicks found invalid: a signed correction, or totals that come down."""
        clicks, cost_minor = (round(spent * self._timeline.parameters.credit_ratio) for spent in self._credited)
        self._credited = [0, 0]
        self._timeline.at(ts + self._credit_wait_ms(), self._credit)
        if cost_minor == 0:
            return
        moved = [0, -clicks, -cost_minor]
        self._timeline.ledger.cohort(self.kind.channel, self.plan_id, ts).credit_minor += cost_minor
        if self.kind.reporting == "cumulative":
            self._pending = [pending + step for pending, step in zip(self._pending, moved, strict=True)]
        else:
            self._spend(
                ts,
                {**self._head(), "reporting": "adjust", "currency": self._timeline.parameters.currency},
                moved,
                moved,
            )

    def _spend(self, ts: int, fields: dict[str, Any], told: list[int], moved: list[int]) -> int:
        books = self._timeline.books
        books.impressions += moved[0]
        books.clicks += moved[1]
        books.spend_minor += moved[2]
        fields |= {"impressions": told[0], "clicks": told[1], "cost_minor": told[2]}
        return self._timeline.emit("spend", "spend", ts, fields)

    def _credit_wait_ms(self) -> int:
        mean_s = self._timeline.parameters.credit_mean_s
        return 30 * SECOND_MS + int(self._timeline.dice.exponential(mean_s) * SECOND_MS)


def _is_integer(value: Value) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _decimal(value: Value) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
