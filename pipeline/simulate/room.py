"""One simulated room: a clock of whole seconds, its viewers, its shop, its plans and its troubles."""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from math import exp
from typing import Any, Final

from pipeline.simulate.audience import Audience, OtherManner, OtherPerson
from pipeline.simulate.dice import Dice
from pipeline.simulate.market import Applied, ClickPrice, ClickRate, Plan, Value
from pipeline.simulate.parameters import SECOND_MS, ZONE_MS, Channel, Parameters
from pipeline.simulate.shop import Aversion, OrderLoss, OrderRewrite, PaymentLoss, Shop
from pipeline.simulate.timeline import Arrival, Holder, Timeline
from pipeline.simulate.troubles import FAULTS, Fault, FeedDead, Place
from pipeline.simulate.truth import Trouble
from schemas.base import FeedName

WAVE_S: Final = 10
HEARTBEAT_LAG_MS: Final = (20, 80)


class Room:
    """The world of one room; `(seed, index)` decides it, not how many rooms there are nor how it is stepped."""

    def __init__(
        self, index: int, seed: int, start_ts: int, parameters: Parameters, *, is_labelled: bool = False
    ) -> None:
        self.index = index
        self.start_ts = start_ts
        self.parameters = parameters
        self.room_id = f"room-{index + 1:03d}"
        self.next_ts = start_ts
        """The first second not lived through yet."""
        self._seed = seed
        self._faults: list[Fault] = []
        self._is_over = False
        self._wave = 0.0
        self._season = season(parameters, start_ts, start_ts)
        self._channels = tuple(parameters.channels.values())
        dice = Dice(seed, index)
        self._dice = dice
        self.traffic = parameters.size * dice.factor(parameters.traffic_sigma)
        """What `Channel.enters_s` is multiplied by."""
        click_cost_factor = dice.factor(parameters.click_cost_sigma)
        self.timeline = Timeline(self.room_id, start_ts, dice, parameters, is_labelled=is_labelled)
        self.shop = Shop(
            self.timeline,
            price_factor=dice.factor(parameters.price_sigma),
            conversion_factor=dice.factor(parameters.conversion_sigma),
        )
        self.audience = Audience(self.timeline, self.shop.click)
        self.plans = {
            kind.channel: Plan(self.timeline, kind, kind.click_cost_minor * click_cost_factor)
            for kind in parameters.plans.values()
        }
        self._sources = [(channel, self.plans.get(channel.name)) for channel in self._channels]
        usual_enters_s = (
            sum(channel.enters_s * (1.0 - channel.bounce_ratio) for channel in self._channels) * self.traffic
        )
        self.usual_comments_s = usual_enters_s * parameters.comment_ratio / (1.0 - parameters.comment_more_ratio)
        self._open()

    def channel(self, name: str) -> Channel:
        """Return the channel of that name."""
        known = self.parameters.channels
        if name not in known:
            msg = f"channel must be one of {', '.join(known)}, got {name!r}"
            raise ValueError(msg)
        return known[name]

    def plan_of(self, channel: str) -> Plan | None:
        """Return the plan that pays for the channel's viewers; None where they come free."""
        return self.plans.get(channel)

    def inject(
        self,
        kind: str,
        start_ts: int,
        end_ts: int,
        *,
        size: float | None = None,
        channel: str | None = None,
        segment: str | None = None,
        product_id: str | None = None,
    ) -> None:
        """Plan a trouble; it must not begin before the first second that is still to come."""
        if kind not in FAULTS:
            msg = f"kind must be one of {', '.join(FAULTS)}, got {kind!r}"
            raise ValueError(msg)
        if not self.next_ts <= start_ts < end_ts:
            msg = f"start_ts must be in {self.next_ts}..end_ts - 1, got {start_ts} with end_ts {end_ts}"
            raise ValueError(msg)
        kind_of_fault = FAULTS[kind]
        channel = kind_of_fault.default_channel if channel is None else self.channel(channel).name
        size = kind_of_fault.default_size if size is None else size
        if segment is not None and segment not in self.parameters.segments:
            msg = f"segment must be one of {', '.join(self.parameters.segments)}, got {segment!r}"
            raise ValueError(msg)
        product_ids = [product.product_id for product in self.shop.products]
        if product_id is not None and product_id not in product_ids:
            msg = f"product_id must be one of {', '.join(product_ids)}, got {product_id!r}"
            raise ValueError(msg)
        number = 1 + len(self._faults)
        place = Place(f"{self.timeline.prefix}-t{number}", start_ts, end_ts, size, channel, segment, product_id)
        fault = kind_of_fault(self, Dice(self._seed, self.index, number), place)
        self._faults.append(fault)
        self._listen(fault)

    def _listen(self, fault: Fault) -> None:
        """Ask the trouble wherever it has a word to say."""
        if isinstance(fault, OtherPerson):
            self.audience.people.append(fault)
        if isinstance(fault, OtherManner):
            self.audience.manners.append(fault)
        if isinstance(fault, OrderLoss):
            self.shop.order_losses.append(fault)
        if isinstance(fault, PaymentLoss):
            self.shop.payment_losses.append(fault)
        if isinstance(fault, Aversion):
            self.shop.aversions.append(fault)
        if isinstance(fault, OrderRewrite):
            self.shop.rewrites.append(fault)
        if isinstance(fault, ClickPrice):
            for plan in self.plans.values():
                plan.prices.append(fault)
        if isinstance(fault, ClickRate):
            for plan in self.plans.values():
                plan.rates.append(fault)
        if isinstance(fault, Holder):
            self.timeline.holders.append(fault)

    def draw_trouble(self, kind: str) -> tuple[float, int]:
        """Return the size of a scenario's trouble in this room, and how many ms later it begins."""
        parameters, dice = self.parameters, Dice(self._seed, self.index, 0)
        factor = exp(parameters.trouble_size_sigma * dice.normal())
        default_size = FAULTS[kind].default_size
        size = min(1.0, default_size * factor) if FAULTS[kind].is_share else default_size * factor
        return size, int(dice.uniform() * parameters.trouble_jitter_s) * SECOND_MS

    def apply(self, plan_id: str, action: str, value: Value) -> Applied:
        """Turn a plan's knob from the next second on."""
        for plan in self.plans.values():
            if plan.plan_id == plan_id:
                return plan.apply(self.next_ts, action, value)
        return Applied("rejected", None, f"plan_id must be one of the room's, got {plan_id!r}")

    def advance(self, to_ts: int) -> list[Arrival]:
        """Live up to `to_ts` and return the records that arrived before it and were not returned yet."""
        while self.next_ts < to_ts:
            self._second()
        return self.timeline.take(to_ts)

    def settle(self, until_ts: int) -> None:
        """Let those who are there finish what they began, without newcomers and reports that anybody reads."""
        self._is_over = self.timeline.is_over = True
        self.timeline.run_until(until_ts)

    def truth(self) -> list[Trouble]:
        """Return the room's troubles as far as they went."""
        return [fault.truth() for fault in self._faults]

    def _open(self) -> None:
        timeline, parameters, dice = self.timeline, self.parameters, self._dice
        start_ts = self.start_ts + dice.between(0, SECOND_MS - 1)
        end_ts = self.start_ts + parameters.session_s * SECOND_MS
        settings: dict[str, Any] = {
            "stage": parameters.stages[self.index % len(parameters.stages)],
            "currency": parameters.currency,
            "target_roas": parameters.target_roas,
            "budget_minor": round(parameters.budget_minor * parameters.size),
            "planned_end_ts": end_ts,
            "account_id": f"account-{self.index // 4 + 1:02d}",
            "platform": "simulated",
        }
        host, partner = f"host-{self.index % 7 + 1}", f"partner-{self.index % 3 + 1}"
        self._head = {"account_id": settings["account_id"], "host_id": host, "partner_id": partner}
        # The first record of the room, before anything that may depend on its settings.
        least_ms = min(timing.lag_ms[0] for timing in parameters.feeds.values())
        fields = {**self._head, "action": "start", "settings": settings}
        timeline.emit("plan", "room", start_ts, fields, arrival_ts=start_ts + least_ms // 2)
        timeline.at(start_ts, self.shop.open)
        for plan in self.plans.values():
            timeline.at(start_ts, plan.publish)
        timeline.at(end_ts, self._close)
        timeline.every(WAVE_S * SECOND_MS, self.start_ts, self._move_wave)
        timeline.every(parameters.presence_s * SECOND_MS, start_ts + SECOND_MS, self.audience.presence)
        if timeline.tally is not None:
            step_ms = parameters.counts_s * SECOND_MS
            timeline.every(step_ms, self.start_ts + step_ms, timeline.tell_counts)
        beat_ms = parameters.feed_heartbeat_s * SECOND_MS
        for feed in parameters.feeds:
            if feed == "comment" and timeline.tally is not None:
                continue  # there is no such feed
            timeline.every(beat_ms, start_ts + dice.between(SECOND_MS, beat_ms), partial(self._heartbeat, feed))

    def _second(self) -> None:
        ts = self.next_ts
        if ts > self.start_ts:
            self.audience.second(ts)
            for fault in self._faults:
                fault.second(ts)
            if not self._is_over:
                self._arrivals(ts)
        self.timeline.run_until(ts + SECOND_MS)
        self.next_ts = ts + SECOND_MS

    def _arrivals(self, ts: int) -> None:
        """Let this second's viewers come: one Poisson count for all channels, then the channel of each."""
        dice, lost_ratio = self._dice, self.parameters.lost_click_ratio
        usual, wave = self.traffic * self._season, exp(self._wave)
        total = 0.0
        edges: list[float] = []
        for channel, plan in self._sources:
            if plan is None:
                rate = channel.enters_s * usual * wave
            else:
                rate = channel.enters_s * usual * plan.volume() / (1.0 - lost_ratio)
                plan.exposure += rate
                if plan.rates:
                    rate *= plan.click_rate(ts)
            total += rate
            edges.append(total)
        for _ in range(dice.poisson(total)):
            place = bisect_right(edges, dice.uniform() * total)
            channel, plan = self._sources[min(place, len(edges) - 1)]
            moment = ts + dice.between(0, SECOND_MS - 1)
            if plan is not None:
                plan.bill_click(moment, dice)
                if dice.chance(lost_ratio):
                    continue
            self.audience.enter(moment, channel, plan)

    def _move_wave(self, ts: int) -> None:
        """Free traffic comes in the recommendation engine's waves, all of it as the session and the day go."""
        parameters = self.parameters
        self._season = season(parameters, self.start_ts, ts)
        self._wave = parameters.wave_keep * self._wave + parameters.wave_sigma * self._dice.normal()

    def _heartbeat(self, feed: FeedName, ts: int) -> None:
        """Promise what is true: all up to `ts` less the feed's slack has been sent."""
        timing = self.parameters.feeds[feed]
        arrival_ts = ts + self._dice.between(*HEARTBEAT_LAG_MS)
        if any(isinstance(fault, FeedDead) and fault.silences(feed, arrival_ts) for fault in self._faults):
            return
        complete_ts, expected_lag_s = ts - timing.slack_ms, timing.expected_lag_s
        if feed == "spend":
            # Costs are known only up to the last report that arrived; the slower plan decides.
            complete_ts = min(complete_ts, *(plan.told_through(arrival_ts) for plan in self.plans.values()))
            slowest_s = max(plan.report_s for plan in self.plans.values())
            expected_lag_s = max(expected_lag_s, slowest_s + timing.slack_ms // SECOND_MS)
        elif feed == "view" and self.timeline.tally is not None:
            complete_ts = min(complete_ts, self.timeline.tally.told_through(arrival_ts))
            expected_lag_s += self.parameters.counts_s
        fields = {
            "feed": feed,
            "complete_through_ts": max(self.start_ts, complete_ts),
            "expected_lag_s": expected_lag_s,
        }
        self.timeline.emit(feed, "feed", ts, fields, arrival_ts=arrival_ts)

    def _close(self, ts: int) -> None:
        """End the session: nobody comes any more; orders are still paid, cancelled and refunded."""
        self._is_over = True
        for plan in self.plans.values():
            plan.end(ts)
        self.timeline.emit("plan", "room", ts, {**self._head, "action": "end"})


def season(parameters: Parameters, start_ts: int, ts: int) -> float:
    """Return the factor on all traffic at `ts`: of the session's course, of the hour and of the weekend in China.

    >>> season(Parameters(shape=(1.0, 2.0), session_s=100), 0, 25_000)
    1.25
    """
    factor = 1.0
    if parameters.shape:
        share = min(1.0, max(0.0, (ts - start_ts) / (parameters.session_s * SECOND_MS)))
        factor *= _between(parameters.shape, share * (len(parameters.shape) - 1))
    local_s = (ts + ZONE_MS) // SECOND_MS
    if parameters.hours:
        hours = (*parameters.hours, parameters.hours[0])
        factor *= _between(hours, local_s % 86_400 / 86_400 * len(parameters.hours))
    is_weekend = (local_s // 86_400 + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    return factor * parameters.weekend_factor if is_weekend else factor


def _between(values: tuple[float, ...], place: float) -> float:
    left = min(int(place), len(values) - 1)
    right = min(left + 1, len(values) - 1)
    return values[left] + (values[right] - values[left]) * (place - left)
