"""Invalid visits: view bots of several makes, farms, and people who are paid for the visit.

`size` of all is their enters against the channel's usual ones. On a paid channel each visit is a billed click, and a
lower bid or a pause brings fewer of them. Nobody among them pays for an order.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.simulate import comments
from pipeline.simulate.audience import Viewer
from pipeline.simulate.comments import Said
from pipeline.simulate.dice import Dice
from pipeline.simulate.parameters import SECOND_MS
from pipeline.simulate.troubles.base import Fault, Place, block

if TYPE_CHECKING:
    from pipeline.simulate.room import Room


class Visit(NamedTuple):
    """One visit of a bot: the fields of its records, and those of its `view` records."""

    ts: int
    dwell_ms: int
    viewer: Viewer
    session: Viewer


class BotVisits(Fault):
    """Bots that come at random moments."""

    cause = "ivt"
    default_size = 4.0
    default_channel = "feed_ads"
    is_invalid = True

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        self._source = room.channel(place.channel or self.default_channel)
        self._regions = list(room.parameters.regions)
        self._prefix = f"{room.room_id}-{self.start_ts:x}-"

    def _act(self, ts: int) -> None:
        for _ in range(self.dice.poisson(self._rate())):
            self._come(ts + self.dice.between(0, SECOND_MS - 1), self._person(), self._dwell_ms())

    def _rate(self) -> float:
        """Return how many come in a second."""
        plan = self.room.plan_of(self._source.name)
        volume = 1.0 if plan is None else plan.volume()
        return self.size * self._source.enters_s * self.room.traffic * volume

    def _come(self, ts: int, person: Viewer, dwell_ms: int) -> None:
        """Write one visit."""
        audience, plan = self.room.audience, self.room.plan_of(self._source.name)
        viewer: Viewer = {"channel": self._source.name}
        if plan is not None:
            viewer |= {"plan_id": plan.plan_id, "campaign_id": f"{self.room.room_id}-campaign"}
            self.cost_minor += plan.bill_click(ts, self.dice)
        viewer |= person
        session = audience.arrive(ts, dwell_ms, viewer)
        self.n_injected_enters += 1
        self._behave(Visit(ts, dwell_ms, viewer, session))

    def _new_user(self) -> str:
        """Return an id of its own, which looks like anybody's."""
        user_id = self.room.audience.new_user_id()
        self.user_ids.append(user_id)
        return user_id

    def _somewhere(self) -> dict[str, str]:
        """Return the segment and region it pretends to be of."""
        return {"segment": self.segment or "general", "region": self.dice.choice(self._regions)}

    def _new_device(self, user_id: str) -> str:
        return f"d{user_id[1:]}"

    def _do(self, ts: int, viewer: Viewer, action: str, **more: Any) -> None:
        self.room.timeline.emit("view", "interaction", ts, {**viewer, "action": action, **more})

    def _beat(self, visit: Visit) -> None:
        """Write that it is still there, as often as honest viewers' players do."""
        step = self.room.parameters.view_heartbeat_s * SECOND_MS
        for beat in range(visit.ts + step, visit.ts + visit.dwell_ms, step):
            self.room.timeline.emit("view", "view", beat, {**visit.session, "action": "heartbeat"})

    @abstractmethod
    def _person(self) -> Viewer:
        """Return who comes next: user, device, address, segment and region."""

    @abstractmethod
    def _dwell_ms(self) -> int:
        """Return how long this one stays."""

    @abstractmethod
    def _behave(self, visit: Visit) -> None:
        """Write what it does during the visit."""


class BotBurst(BotVisits):
    """Crude bots, everything at once: 1-2 s, a handful of devices, one address block, three fixed texts."""

    kind = "bot_burst"

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        bots = room.parameters.bots
        self.device_ids = tuple(f"x{self._prefix}{number}" for number in range(1, bots.burst_devices + 1))
        self._block = block(dice)
        self.ip_blocks = (f"{self._block}.0/24",)
        first = dice.between(0, len(comments.SCRIPT) - 1)
        self._texts = [comments.SCRIPT[(first + step) % len(comments.SCRIPT)] for step in range(bots.burst_texts)]

    def _person(self) -> Viewer:
        return {
            "user_id": self._new_user(),
            "device_id": self.dice.choice(self.device_ids),
            "ip": f"{self._block}.{self.dice.between(1, 254)}",
            "segment": self.segment or "general",
            "region": "guangdong",
        }

    def _dwell_ms(self) -> int:
        return self.dice.between(*self.room.parameters.bots.burst_dwell_ms)

    def _behave(self, visit: Visit) -> None:
        dice, bots = self.dice, self.room.parameters.bots
        if dice.chance(bots.burst_comment_ratio):
            said = Said(dice.choice(self._texts), "script")
            self.room.audience.comment(visit.ts + visit.dwell_ms // 2, visit.viewer, said, is_danmaku=True)
        if dice.chance(bots.burst_like_ratio):
            self._do(visit.ts + visit.dwell_ms // 3, visit.viewer, "like")


class ViewBotsFixed(BotVisits):
    """Accounts of their own devices and addresses that come back, stay and report to the second."""

    kind = "view_bots_fixed"

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        self._accounts: list[tuple[int, Viewer]] = []

    def _begin(self, ts: int) -> None:
        bots, dice = self.room.parameters.bots, self.dice
        usual_s = self.size * self._source.enters_s * self.room.traffic
        for _ in range(max(1, round(usual_s * bots.fixed_interval_s))):
            user_id = self._new_user()
            person = {"user_id": user_id, "device_id": self._new_device(user_id)}
            person |= {"ip": f"{block(dice)}.{dice.between(1, 254)}", **self._somewhere()}
            self._accounts.append((ts + int(dice.uniform() * bots.fixed_interval_s * SECOND_MS), person))

    def _act(self, ts: int) -> None:
        bots, dice = self.room.parameters.bots, self.dice
        plan = self.room.plan_of(self._source.name)
        volume = 1.0 if plan is None else min(1.0, plan.volume())
        for number, (due_ts, person) in enumerate(self._accounts):
            if due_ts >= ts + SECOND_MS:
                continue
            self._accounts[number] = (due_ts + int(bots.fixed_interval_s * SECOND_MS), person)
            if volume >= 1.0 or dice.chance(volume):
                moment = due_ts + dice.between(-bots.fixed_jitter_ms, bots.fixed_jitter_ms)
                self._come(max(self.start_ts, moment), person, self._dwell_ms())

    def _person(self) -> Viewer:
        return self._accounts[0][1]

    def _dwell_ms(self) -> int:
        jitter_ms = self.room.parameters.bots.fixed_jitter_ms
        return self.room.parameters.bots.fixed_dwell_ms + self.dice.between(-jitter_ms, jitter_ms)

    def _behave(self, visit: Visit) -> None:
        step = self.room.parameters.bots.fixed_beat_ms
        for beat in range(visit.ts + step, visit.ts + visit.dwell_ms - step // 2, step):
            self.room.timeline.emit("view", "view", beat, {**visit.session, "action": "heartbeat"})


class ViewBotsRandom(BotVisits):
    """The hard ones: human stays at random moments, many devices and proxies; they hardly click and never buy."""

    kind = "view_bots_random"

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        bots = room.parameters.bots
        self._blocks = [block(dice) for _ in range(bots.random_blocks)]
        self._pool: list[Viewer] = []
        self._log_median = math.log(bots.random_dwell_median_s)

    def _person(self) -> Viewer:
        dice, most = self.dice, self.room.parameters.bots.random_accounts
        place = int(dice.uniform() * most)
        if place < len(self._pool):
            return self._pool[place] | {"ip": f"{dice.choice(self._blocks)}.{dice.between(1, 254)}"}
        user_id = self._new_user()
        person = {"user_id": user_id, "device_id": self._new_device(user_id)}
        person |= {"ip": f"{dice.choice(self._blocks)}.{dice.between(1, 254)}", **self._somewhere()}
        self._pool.append(person)
        return person

    def _dwell_ms(self) -> int:
        log_dwell = self._log_median + self.room.parameters.bots.random_dwell_sigma * self.dice.normal()
        return max(1_000, int(math.exp(log_dwell) * SECOND_MS))

    def _behave(self, visit: Visit) -> None:
        dice, parameters = self.dice, self.room.parameters
        self._beat(visit)
        if dice.chance(parameters.bots.random_like_ratio):
            self._do(visit.ts + int(visit.dwell_ms * dice.uniform()), visit.viewer, "like")
        if dice.chance(parameters.bots.random_click_ratio):
            product_id = dice.choice(self.room.shop.products).product_id
            self._do(
                visit.ts + int(visit.dwell_ms * dice.uniform()), visit.viewer, "product_click", product_id=product_id
            )


class DeviceFarm(BotVisits):
    """A rack of phones: ever new accounts on few devices behind few addresses."""

    kind = "device_farm"

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        bots = room.parameters.bots
        self.device_ids = tuple(f"x{self._prefix}{number}" for number in range(1, bots.farm_devices + 1))
        self._addresses = [f"{block(dice)}.{dice.between(1, 254)}" for _ in range(bots.farm_addresses)]
        self.ip_blocks = tuple(f"{address.rpartition('.')[0]}.0/24" for address in self._addresses)

    def _person(self) -> Viewer:
        person = {"user_id": self._new_user(), "device_id": self.dice.choice(self.device_ids)}
        return person | {"ip": self.dice.choice(self._addresses), **self._somewhere()}

    def _dwell_ms(self) -> int:
        return self.dice.between(*self.room.parameters.bots.farm_dwell_ms)

    def _behave(self, visit: Visit) -> None:
        self._beat(visit)
        if self.dice.chance(self.room.parameters.bots.farm_like_ratio):
            self._do(visit.ts + int(visit.dwell_ms * self.dice.uniform()), visit.viewer, "like")


class SharedAddress(BotVisits):
    """Machines of one data centre: a device and an account each visit, all in one address block."""

    kind = "shared_address"

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        self._block = block(dice)
        self.ip_blocks = (f"{self._block}.0/24",)

    def _person(self) -> Viewer:
        user_id = self._new_user()
        person = {"user_id": user_id, "device_id": self._new_device(user_id)}
        return person | {"ip": f"{self._block}.{self.dice.between(1, 254)}", **self._somewhere()}

    def _dwell_ms(self) -> int:
        return self.dice.between(*self.room.parameters.bots.address_dwell_ms)

    def _behave(self, visit: Visit) -> None:
        if self.dice.chance(self.room.parameters.bots.address_like_ratio):
            self._do(visit.ts + visit.dwell_ms // 2, visit.viewer, "like")


class ClickFarm(BotVisits):
    """Paid hands on phones of their own: they open products, fill carts, order a little and never pay."""

    kind = "click_farm"
    default_size = 2.0

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        bots = room.parameters.bots
        self.device_ids = tuple(f"x{self._prefix}{number}" for number in range(1, bots.hands_devices + 1))
        blocks = [block(dice) for _ in range(bots.hands_blocks)]
        self.ip_blocks = tuple(f"{one}.0/24" for one in blocks)
        regions = [dice.choice(self._regions) for _ in range(2)]
        self._hands: list[Viewer] = []
        for device_id in self.device_ids:
            ip, region = f"{dice.choice(blocks)}.{dice.between(1, 254)}", dice.choice(regions)
            self._hands += [{"device_id": device_id, "ip": ip, "region": region} for _ in range(bots.hands_accounts)]

    def _person(self) -> Viewer:
        hand = self.dice.choice(self._hands)
        if "user_id" not in hand:
            hand |= {"user_id": self._new_user(), "segment": self.segment or "general"}
        return hand

    def _dwell_ms(self) -> int:
        return self.dice.between(*self.room.parameters.bots.hands_dwell_ms)

    def _behave(self, visit: Visit) -> None:
        dice, bots = self.dice, self.room.parameters.bots
        if dice.chance(bots.hands_like_ratio):
            self._do(visit.ts + visit.dwell_ms // 4, visit.viewer, "like")
        if not dice.chance(bots.hands_click_ratio):
            return
        product = self.room.shop.shown() or dice.choice(self.room.shop.products)
        moment = visit.ts + visit.dwell_ms // 3 + dice.between(0, visit.dwell_ms // 4)
        self._do(moment, visit.viewer, "product_click", product_id=product.product_id)
        if dice.chance(bots.hands_cart_ratio):
            self._do(moment + dice.between(500, 3_000), visit.viewer, "add_to_cart", product_id=product.product_id)
        if dice.chance(bots.hands_order_ratio):
            is_paid = self.room.plan_of(self._source.name) is not None
            fields = {**visit.viewer, "product_id": product.product_id}
            fields |= {"touch_ts": visit.ts, "attribution": "direct"} if is_paid else {"attribution": "organic"}
            ordered_ts = moment + dice.between(2_000, 8_000)
            order_id = self.room.shop.invent(
                fields, ordered_ts, product.price_minor, trouble_id=self.mark.trouble_id, is_paid=False
            )
            self.order_ids.append(order_id)


class IncentiveHunters(BotVisits):
    """Real people rewarded for a task: they stay just as long as it asks, like, follow, write 打卡, and are gone."""

    kind = "incentive_hunters"
    default_size = 3.0

    def _person(self) -> Viewer:
        user_id, dice = self._new_user(), self.dice
        person = {"user_id": user_id, "device_id": self._new_device(user_id)}
        return person | {"ip": f"{block(dice)}.{dice.between(1, 254)}", **self._somewhere()}

    def _dwell_ms(self) -> int:
        bots = self.room.parameters.bots
        return int((bots.task_s + self.dice.exponential(bots.task_over_s)) * SECOND_MS)

    def _behave(self, visit: Visit) -> None:
        dice, parameters = self.dice, self.room.parameters
        bots = parameters.bots
        self._beat(visit)

        def moment() -> int:
            return visit.ts + 1_000 + int((visit.dwell_ms - 1_000) * dice.uniform())

        if dice.chance(bots.task_like_ratio):
            self._do(moment(), visit.viewer, "like")
        if dice.chance(bots.task_follow_ratio):
            self._do(moment(), visit.viewer, "follow")
        if dice.chance(bots.task_comment_ratio):
            said = Said(dice.choice(comments.TASK), "script")
            self.room.audience.comment(moment(), visit.viewer, said, is_danmaku=True)
        if dice.chance(bots.task_click_ratio):
            product_id = dice.choice(self.room.shop.products).product_id
            self._do(moment(), visit.viewer, "product_click", product_id=product_id)
