"""Honest crowds that look like bots: none of their events is invalid, and an alarm that blames them is false."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pipeline.simulate import comments
from pipeline.simulate.audience import Manner, Viewer
from pipeline.simulate.comments import Said
from pipeline.simulate.dice import Dice
from pipeline.simulate.parameters import SECOND_MS
from pipeline.simulate.troubles.base import Fault, Place, block
from pipeline.simulate.troubles.chorus import Chorus

if TYPE_CHECKING:
    from pipeline.simulate.room import Room


class CrowdEcho(Chorus):
    """The host asks for 扣1 and everybody writes it: short, the same, and honest."""

    kind = "crowd_echo"
    cause = None
    default_size = 6.0
    innocent = True

    def _said(self) -> Said:
        return Said(self.dice.choice(comments.ECHO), "chatter")


class Lottery(Chorus):
    """A lucky bag opens for who writes the pass phrase: long, the same for all, and honest."""

    kind = "lottery"
    cause = None
    default_size = 5.0
    innocent = True

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        self._phrase = dice.choice(comments.LOTTERY)

    def _said(self) -> Said:
        return Said(self._phrase if self.dice.chance(0.85) else self.dice.choice(comments.ECHO), "chatter")


class _Crowd(Fault):
    """More people; `size` is their enters against the channel's usual ones, the channel being free."""

    cause: ClassVar[str | None] = "organic_surge"
    default_size = 6.0
    default_channel = "recommend"
    innocent = True

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        self._source = room.channel(place.channel or self.default_channel)
        self._mine: set[str] = set()

    def _act(self, ts: int) -> None:
        usual_s = self._source.enters_s * self.room.traffic
        for _ in range(self.dice.poisson(self.size * usual_s * self._share(ts))):
            person = self._guest(self.room.audience.new_person())
            self.user_ids.append(person["user_id"])
            viewer = {"channel": self._source.name} | person
            self._mine.add(person["user_id"])
            self.room.audience.stay(ts + self.dice.between(0, SECOND_MS - 1), self._source, viewer)
            self.n_injected_enters += 1
        self._mine.clear()

    def manner(self, _ts: int, viewer: Viewer, manner: Manner) -> Manner:
        """Let only the crowd behave as a crowd."""
        return self._crowd_manner(manner) if viewer["user_id"] in self._mine else manner

    def _share(self, _ts: int) -> float:
        """Return the share of the full crowd that comes now."""
        return 1.0

    def _guest(self, person: Viewer) -> Viewer:
        return person

    def _crowd_manner(self, manner: Manner) -> Manner:
        return manner


class Celebrity(_Crowd):
    """A star drops in: a crowd comes at once, writes a lot, leaves soon and buys little."""

    kind = "celebrity"
    default_size = 10.0

    def _share(self, ts: int) -> float:
        rise_s = self.room.parameters.crowds.celebrity_rise_s
        since_s, left_s = (ts - self.start_ts) / SECOND_MS, (self.end_ts - ts) / SECOND_MS
        return min(1.0, (since_s + 1.0) / rise_s) * (1.0 - math.exp(-left_s / (3.0 * rise_s)))

    def _crowd_manner(self, manner: Manner) -> Manner:
        crowds = self.room.parameters.crowds
        return Manner(
            crowds.celebrity_bounce_ratio,
            manner.dwell_factor * crowds.celebrity_dwell_factor,
            manner.click_factor * crowds.celebrity_click_factor,
            manner.buy_factor * crowds.celebrity_buy_factor,
            manner.comment_factor * crowds.celebrity_comment_factor,
        )


class OrganicSurge(_Crowd):
    """The recommendation engine pushes the room: more of the usual people, who click and buy a little less."""

    kind = "organic_surge"
    default_size = 3.0

    def _crowd_manner(self, manner: Manner) -> Manner:
        crowds = self.room.parameters.crowds
        return manner._replace(
            click_factor=manner.click_factor * crowds.surge_click_factor,
            buy_factor=manner.buy_factor * crowds.surge_buy_factor,
        )


class Campus(_Crowd):
    """Students in the breaks: their own devices, one address block, one region, the usual buying."""

    kind = "campus"
    cause = None
    default_size = 4.0

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        self._block = block(dice)
        self.ip_blocks = (f"{self._block}.0/24",)
        self._region = dice.choice(list(room.parameters.regions))

    def _share(self, ts: int) -> float:
        crowds = self.room.parameters.crowds
        period_s = crowds.campus_break_s + crowds.campus_class_s
        in_break = (ts - self.start_ts) // SECOND_MS % period_s < crowds.campus_break_s
        return period_s / crowds.campus_break_s if in_break else 0.0

    def _guest(self, person: Viewer) -> Viewer:
        host = self.dice.between(1, 254)
        return person | {"ip": f"{self._block}.{host}", "region": self._region, "segment": "potential"}

    def _crowd_manner(self, manner: Manner) -> Manner:
        return manner._replace(dwell_factor=manner.dwell_factor * self.room.parameters.crowds.campus_dwell_factor)


class CarrierNat(Fault):
    """A carrier puts `size` of the channel's new viewers behind a few addresses of one block; nothing else changes."""

    kind = "carrier_nat"
    cause = None
    default_size = 0.6
    is_share = True
    default_channel = "feed_ads"
    innocent = True

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        one = block(dice)
        self.ip_blocks = (f"{one}.0/24",)
        self._addresses = [f"{one}.{dice.between(1, 254)}" for _ in range(room.parameters.crowds.nat_addresses)]

    def person(self, ts: int, channel: str, person: Viewer) -> Viewer:
        """Put the viewer behind the carrier."""
        if not self.concerns(ts, channel, person["segment"]) or not self.dice.chance(self.size):
            return person
        self.user_ids.append(person["user_id"])
        return person | {"ip": self.dice.choice(self._addresses)}
