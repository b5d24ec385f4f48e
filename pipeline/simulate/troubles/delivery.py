"""Troubles of the advertising market and of what the ads bring."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from pipeline.simulate.audience import Manner, Viewer
from pipeline.simulate.dice import Dice
from pipeline.simulate.troubles.base import Fault, Place

if TYPE_CHECKING:
    from pipeline.simulate.room import Room


class CostRise(Fault):
    """Competitors bid more: a click costs `size` times as much and converts as before."""

    kind = "cost_rise"
    cause = "auction_pressure"
    default_size = 2.5

    def click_price(self, ts: int, channel: str, cost_minor: int) -> int:
        """Return the raised price."""
        if not self.concerns(ts, channel):
            return cost_minor
        raised = round(cost_minor * self.size)
        self.cost_minor += raised - cost_minor
        return raised


class CreativeFatigue(Fault):
    """People have seen the ad: of the same impressions `size` of the usual clicks, each dearer by size^-0.7.

    Impressions are what is bought, so a click's price rises almost as the rate falls. Who clicks buys as before.
    """

    kind = "creative_fatigue"
    cause = "creative"
    default_size = 0.4
    default_channel = "feed_ads"
    is_share = True
    price_power: Final = 0.7

    def clicks(self, ts: int, channel: str) -> float:
        """Return the factor on the clicks that the same impressions bring."""
        return self.size if self.concerns(ts, channel) else 1.0

    def click_price(self, ts: int, channel: str, cost_minor: int) -> int:
        """Return the raised price."""
        if not self.concerns(ts, channel):
            return cost_minor
        raised = round(cost_minor * math.pow(self.size, -self.price_power))
        self.cost_minor += raised - cost_minor
        return raised


class TargetingDrift(Fault):
    """The platform shows the ad to the wrong people: clicks go on, `size` of the usual interest in staying and buying.

    They are of segment `general` and of two regions.
    """

    kind = "targeting_drift"
    cause = "targeting"
    default_size = 0.4
    default_channel = "feed_ads"
    is_share = True

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        self._regions = [dice.choice(list(room.parameters.regions)) for _ in range(2)]

    def person(self, ts: int, channel: str, person: Viewer) -> Viewer:
        """Return somebody of the wrong kind."""
        if not self.concerns(ts, channel):
            return person
        return person | {"segment": "general", "region": self.dice.choice(self._regions)}

    def manner(self, ts: int, viewer: Viewer, manner: Manner) -> Manner:
        """Return the manner of people who are not interested."""
        if not self.concerns(ts, viewer["channel"]):
            return manner
        return Manner(
            min(1.0, manner.bounce_ratio * (2.0 - self.size)),
            manner.dwell_factor * math.sqrt(self.size),
            manner.click_factor * math.sqrt(self.size),
            manner.buy_factor * self.size,
            manner.comment_factor * math.sqrt(self.size),
        )


class ContentSlump(Fault):
    """The show bores: on all channels viewers stay `size` of the usual time, click and write less."""

    kind = "content_slump"
    cause = "content"
    default_size = 0.4
    is_share = True

    def manner(self, ts: int, viewer: Viewer, manner: Manner) -> Manner:
        """Return the manner of bored people."""
        if not self.concerns(ts, viewer["channel"], viewer["segment"]):
            return manner
        return Manner(
            min(1.0, manner.bounce_ratio * (2.0 - self.size)),
            manner.dwell_factor * self.size,
            manner.click_factor * math.sqrt(self.size),
            manner.buy_factor,
            manner.comment_factor * self.size,
        )


class DeliveryStopped(Fault):
    """The account's balance is out: the plan delivers nothing until it is filled. `size` is 1."""

    kind = "delivery_stopped"
    cause = "delivery_stopped"
    default_size = 1.0
    default_channel = "feed_ads"
    is_share = True

    def _begin(self, ts: int) -> None:
        plan = self.room.plan_of(self.channel or self.default_channel)
        if plan is not None:
            plan.halt(ts)

    def _end(self, ts: int) -> None:
        plan = self.room.plan_of(self.channel or self.default_channel)
        if plan is not None:
            plan.release(ts)
