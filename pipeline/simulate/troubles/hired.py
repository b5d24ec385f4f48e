"""Hired viewers: a rack of phones under one hand, and accounts that are paid to be there and do nothing.

Written after the evidence of `pipeline/quality` was fixed: what is found of them is a check that its making never saw.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline.simulate.audience import Viewer
from pipeline.simulate.dice import Dice
from pipeline.simulate.parameters import SECOND_MS
from pipeline.simulate.troubles.base import Place, block
from pipeline.simulate.troubles.bots import BotVisits, Visit

if TYPE_CHECKING:
    from pipeline.simulate.room import Room


class SyncedPhones(BotVisits):
    """Phones that one operator moves together: they come within seconds of each other, like on command, and go.

    `size` is their enters against the channel's usual ones on average; they come in waves, `rack_wave_s` apart.
    """

    kind = "synced_phones"

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        bots = room.parameters.bots
        self.device_ids = tuple(f"x{self._prefix}{number}" for number in range(1, bots.rack_phones + 1))
        blocks = [block(dice) for _ in range(bots.rack_blocks)]
        self.ip_blocks = tuple(f"{one}.0/24" for one in blocks)
        self._accounts: list[Viewer] = []
        for device_id in self.device_ids:
            ip, region = f"{dice.choice(blocks)}.{dice.between(1, 254)}", dice.choice(self._regions)
            self._accounts += [{"device_id": device_id, "ip": ip, "region": region} for _ in range(bots.rack_accounts)]
        self._next = 0
        self._likes = False

    def _act(self, ts: int) -> None:
        bots, dice = self.room.parameters.bots, self.dice
        if (ts - self.start_ts) % (bots.rack_wave_s * SECOND_MS):
            return
        self._likes = dice.chance(bots.rack_like_ratio)
        for _ in range(dice.poisson(self._rate() * bots.rack_wave_s)):
            self._come(ts + int(dice.uniform() * bots.rack_spread_ms), self._person(), self._dwell_ms())

    def _person(self) -> Viewer:
        account = self._accounts[self._next % len(self._accounts)]
        self._next += 1
        if "user_id" not in account:
            account |= {"user_id": self._new_user(), "segment": self.segment or "general"}
        return account

    def _dwell_ms(self) -> int:
        return self.dice.between(*self.room.parameters.bots.rack_dwell_ms)

    def _behave(self, visit: Visit) -> None:
        self._beat(visit)
        if self._likes:
            self._do(visit.ts + visit.dwell_ms // 2 + self.dice.between(0, 2_000), visit.viewer, "like")


class IdleAudience(BotVisits):
    """Accounts bought to swell the number of viewers: they hang in the room as long as people do, and do nothing."""

    kind = "idle_audience"

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        bots = room.parameters.bots
        self._blocks = [block(dice) for _ in range(bots.idle_blocks)]
        self._log_median = math.log(bots.idle_dwell_median_s)

    def _person(self) -> Viewer:
        user_id, dice = self._new_user(), self.dice
        person = {"user_id": user_id, "device_id": self._new_device(user_id)}
        return person | {"ip": f"{dice.choice(self._blocks)}.{dice.between(1, 254)}", **self._somewhere()}

    def _dwell_ms(self) -> int:
        log_dwell = self._log_median + self.room.parameters.bots.idle_dwell_sigma * self.dice.normal()
        return max(5_000, int(math.exp(log_dwell) * SECOND_MS))

    def _behave(self, visit: Visit) -> None:
        self._beat(visit)
        if self.dice.chance(self.room.parameters.bots.idle_like_ratio):
            self._do(visit.ts + int(visit.dwell_ms * self.dice.uniform()), visit.viewer, "like")
