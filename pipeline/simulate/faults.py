"""The troubles: each changes one thing in a healthy room, for a while, and counts what it did.

A fault draws from its own dice, so that up to its start the room is, byte for byte, the room without it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from pipeline.simulate import comments
from pipeline.simulate.audience import Viewer
from pipeline.simulate.dice import Dice
from pipeline.simulate.parameters import SECOND_MS
from pipeline.simulate.timeline import to_second
from pipeline.simulate.truth import Trouble, TroubleKind
from schemas.base import FeedName

if TYPE_CHECKING:
    from pipeline.simulate.room import Room


class Place(NamedTuple):
    """When, how strong and where."""

    start_ts: int
    end_ts: int
    size: float
    channel: str | None


class Fault:
    """One trouble of one room, whole seconds long: `start_ts` and `end_ts` are rounded up to the room's seconds."""

    kind: ClassVar[TroubleKind]
    cause: ClassVar[str | None]
    default_size: ClassVar[float]
    default_channel: ClassVar[str | None] = None
    innocent: ClassVar[bool] = False

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        self.room = room
        self.dice = dice
        self.start_ts = to_second(room.start_ts, place.start_ts)
        self.end_ts = to_second(room.start_ts, place.end_ts)
        self.size = place.size
        self.channel = place.channel
        self.topic: str | None = None
        self.device_ids: tuple[str, ...] = ()
        self.ip_block: str | None = None
        self.n_injected = 0
        self.n_injected_enters = 0
        self.cost_minor = 0
        self.n_orders_lost = 0
        self._enters_before = 0
        self._enters_after: int | None = None

    def second(self, ts: int) -> None:
        """Live through the second from `ts` on."""
        if ts == self.start_ts:
            self._enters_before = self._enters()
        if ts == self.end_ts:
            self._enters_after = self._enters()
        if self.is_on(ts):
            self._act(ts)

    def is_on(self, ts: int) -> bool:
        """Return whether the trouble lasts at `ts`."""
        return self.start_ts <= ts < self.end_ts

    def concerns(self, ts: int, channel: str) -> bool:
        """Return whether it touches `channel` at `ts`."""
        return self.is_on(ts) and self.channel in {None, channel}

    def truth(self) -> Trouble:
        """Return what it is and what it did so far."""
        n_enters = (self._enters() if self._enters_after is None else self._enters_after) - self._enters_before
        has_slice = self.n_injected_enters > 0 and n_enters > 0
        return Trouble(
            kind=self.kind,
            room_id=self.room.room_id,
            channel=self.channel,
            start_ts=self.start_ts,
            end_ts=self.end_ts,
            size=self.size,
            innocent=self.innocent,
            cause=self.cause,
            topic=self.topic,
            n_injected=self.n_injected,
            n_injected_enters=self.n_injected_enters,
            enters_ratio=round(self.n_injected_enters / n_enters, 6) if has_slice else None,
            cost_minor=self.cost_minor,
            n_orders_lost=self.n_orders_lost,
            device_ids=self.device_ids,
            ip_block=self.ip_block,
        )

    def _act(self, ts: int) -> None:
        """Do what this kind does in one second; nothing where it only changes answers."""

    def _enters(self) -> int:
        enters = self.room.audience.enters
        return sum(enters.values()) if self.channel is None else enters.get(self.channel, 0)


class BotBurst(Fault):
    """View bots and comment bots on one channel; `size` is their enters against the channel's usual ones.

    They stay 1-2 s, change their user id at every visit but share a handful of devices and one address block, write
    from three fixed texts, and never buy. On a paid channel each visit is a billed
    click, and a lower bid or a pause brings fewer of them.
    """

    kind = "bot_burst"
    cause = "ivt"
    default_size = 4.0
    default_channel = "feed_ads"
    n_devices: Final = 8
    comment_ratio: Final = 0.45
    like_ratio: Final = 0.15

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        prefix = f"x{room.room_id}-{self.start_ts}-"
        self.device_ids = tuple(f"{prefix}{number}" for number in range(1, self.n_devices + 1))
        self.ip_block = f"10.{dice.between(64, 255)}.{dice.between(0, 255)}.0/24"
        first = dice.between(0, len(comments.SCRIPT) - 1)
        self._texts = [comments.SCRIPT[(first + step) % len(comments.SCRIPT)] for step in range(3)]

    def _act(self, ts: int) -> None:
        channel = self.room.channel(self.channel or BotBurst.default_channel)
        plan = self.room.plan_of(channel.name)
        volume = 1.0 if plan is None else plan.volume()
        for _ in range(self.dice.poisson(self.size * channel.enters_s * self.room.traffic * volume)):
            self._visit(ts + self.dice.between(0, SECOND_MS - 1), channel.name)

    def _visit(self, ts: int, channel: str) -> None:
        audience, timeline, dice = self.room.audience, self.room.timeline, self.dice
        viewer: Viewer = {"channel": channel}
        plan = self.room.plan_of(channel)
        if plan is not None:
            viewer |= {"plan_id": plan.plan_id, "campaign_id": f"{self.room.room_id}-campaign"}
            self.cost_minor += plan.bill_click(ts, dice)
        viewer |= {
            "user_id": audience.new_user_id(),
            "device_id": dice.choice(self.device_ids),
            "ip": f"{(self.ip_block or '').rpartition('.')[0]}.{dice.between(1, 254)}",
            "segment": "general",
            "region": "guangdong",
        }
        dwell_ms = dice.between(1_000, 2_000)
        audience.arrive(ts, dwell_ms, viewer)
        self.n_injected_enters += 1
        self.n_injected += 2
        if dice.chance(self.comment_ratio):
            audience.comment(ts + dwell_ms // 2, viewer, dice.choice(self._texts), is_danmaku=True)
            self.n_injected += 1
        if dice.chance(self.like_ratio):
            timeline.emit("view", "interaction", ts + dwell_ms // 3, {**viewer, "action": "like"})
            self.n_injected += 1


class _Chorus(Fault):
    """Viewers who are there write more; `size` is their comments against the room's usual ones."""

    def _act(self, ts: int) -> None:
        audience, dice = self.room.audience, self.dice
        for _ in range(dice.poisson(self.size * self.room.usual_comments_s)):
            viewer = audience.someone(dice, ts)
            if viewer is None:
                return
            moment = ts + dice.between(0, SECOND_MS - 1)
            audience.comment(moment, viewer, self._text(), is_danmaku=dice.chance(0.8))
            self.n_injected += 1

    @abstractmethod
    def _text(self) -> str:
        """Return what one of them writes."""


class AngryChat(_Chorus):
    """Complaints about one topic from many real viewers, each in other words; they go on buying."""

    kind = "angry_chat"
    cause = "content"
    default_size = 4.0

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        self._about = dice.choice(comments.TOPICS)
        self.topic = self._about

    def _text(self) -> str:
        english = self.dice.chance(self.room.parameters.english_ratio)
        return comments.negative(self._about, self.dice, english=english)


class CrowdEcho(_Chorus):
    """The host asks for 扣1 and everybody writes it: short, the same, and honest."""

    kind = "crowd_echo"
    cause = None
    default_size = 6.0
    innocent = True

    def _text(self) -> str:
        return self.dice.choice(comments.ECHO)


class LandingPage(Fault):
    """The page behind the link is broken: product clicks go on, `size` of the orders are never made."""

    kind = "landing_page"
    cause = "landing_page"
    default_size = 0.92

    def loses_order(self, ts: int, channel: str) -> bool:
        """Return whether this order is lost."""
        if not self.concerns(ts, channel) or not self.dice.chance(self.size):
            return False
        self.n_orders_lost += 1
        return True


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


class FeedDead(Fault):
    """The order feed sends nothing, heartbeats included; afterwards it catches up. Sales themselves go on.

    `size` is 1: a feed is dead or it is not.
    """

    kind = "feed_dead"
    cause = "tracking"
    default_size = 1.0
    feed: Final = "order"
    catch_up_ms: Final = 3_000

    def held_until(self, feed: FeedName, arrival_ts: int) -> int | None:
        """Hold what would arrive meanwhile, then let it go in the order in which it was sent."""
        if feed != self.feed or not self.start_ts <= arrival_ts < self.end_ts:
            return None
        share = (arrival_ts - self.start_ts) / (self.end_ts - self.start_ts)
        return self.end_ts + int(share * self.catch_up_ms)

    def silences(self, feed: FeedName, ts: int) -> bool:
        """Return whether the producer may promise nothing: until it has caught up."""
        return feed == self.feed and self.start_ts <= ts < self.end_ts + self.catch_up_ms


FAULTS: Final[dict[str, type[Fault]]] = {
    fault.kind: fault for fault in (BotBurst, AngryChat, LandingPage, CostRise, FeedDead, CrowdEcho)
}
