"""The viewers: who comes, how long each stays and what each does meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from pipeline.simulate import comments
from pipeline.simulate.comments import Said
from pipeline.simulate.dice import Dice, Weighted
from pipeline.simulate.market import Plan
from pipeline.simulate.parameters import SECOND_MS, Channel, Segment
from pipeline.simulate.timeline import Timeline

Viewer = dict[str, Any]
"""The fields that every record of one visit shares: channel, plan, user, device, address, segment, region."""
REMEMBERED: Final = 400
"""Former viewers who may come back; the oldest are forgotten."""


class Manner(NamedTuple):
    """How a viewer behaves: a ratio, and factors on the channel's and the room's numbers."""

    bounce_ratio: float
    dwell_factor: float
    click_factor: float
    buy_factor: float
    comment_factor: float


@runtime_checkable
class OtherPerson(Protocol):
    """Something that may change who comes."""

    def person(self, ts: int, channel: str, person: Viewer) -> Viewer:
        """Return the viewer who comes on `channel` instead of `person`."""


@runtime_checkable
class OtherManner(Protocol):
    """Something that may change how viewers behave."""

    def manner(self, ts: int, viewer: Viewer, manner: Manner) -> Manner:
        """Return how the viewer behaves instead."""


class Audience:
    """The viewers of one room, honest ones; bots bring their own (see `troubles/`)."""

    def __init__(self, timeline: Timeline, click: Callable[[Viewer, Channel, int, float, int], None]) -> None:
        self.enters: dict[str, int] = {}
        """Enters so far by channel, bots included."""
        self.n_online = 0
        self.people: list[OtherPerson] = []
        self.manners: list[OtherManner] = []
        self._timeline = timeline
        self._click = click
        self._known: list[Viewer] = []
        self._present: list[tuple[int, Viewer]] = []
        self._leaves: dict[int, int] = {}
        self._n_users = 0
        self._n_sessions = 0
        dice, parameters = timeline.dice, timeline.parameters
        self._blocks = [f"10.{dice.between(0, 63)}.{dice.between(0, 255)}" for _ in range(4)]
        self._regions = Weighted(parameters.regions)
        self._segments = Weighted({name: segment.weight for name, segment in parameters.segments.items()})
        self._log_median = math.log(parameters.dwell_median_s)

    def second(self, ts: int) -> None:
        """Let those go whose time is over."""
        self.n_online -= self._leaves.pop(ts // SECOND_MS, 0)
        if len(self._present) > 2 * self.n_online + 64:
            self._present = [(leave_ts, viewer) for leave_ts, viewer in self._present if leave_ts > ts]

    def presence(self, ts: int) -> None:
        """Write the platform's own count of viewers."""
        self._timeline.emit("view", "presence", ts, {"n_online": self.n_online})

    def someone(self, dice: Dice, ts: int) -> Viewer | None:
        """Return an honest viewer who is present at `ts`; None when nobody is."""
        present = self._present
        while present:
            place = int(dice.uniform() * len(present))
            leave_ts, viewer = present[place]
            if leave_ts > ts:
                return viewer
            present[place] = present[-1]
            present.pop()
        return None

    def enter(self, ts: int, channel: Channel, plan: Plan | None) -> None:
        """Let one viewer come at `ts` and decide the whole stay, but for what a product click leads to."""
        self.stay(ts, channel, self.visit(channel.name, plan) | self._person(ts, channel.name))

    def stay(self, ts: int, channel: Channel, viewer: Viewer) -> None:
        """Let `viewer` come at `ts` and behave as honest ones do."""
        timeline = self._timeline
        dice, parameters, emit = timeline.dice, timeline.parameters, timeline.emit
        segment = parameters.segments.get(viewer["segment"]) or Segment(1.0)
        manner = Manner(
            channel.bounce_ratio,
            channel.dwell_factor * segment.dwell_factor,
            segment.click_factor,
            segment.buy_factor,
            segment.comment_factor,
        )
        for change in self.manners:
            manner = change.manner(ts, viewer, manner)
        timeline.ledger.cohort(channel.name, viewer.get("plan_id"), ts).n_enters += 1
        bounces = dice.chance(manner.bounce_ratio)
        if bounces:
            dwell_ms = dice.between(1_000, 5_000)
        else:
            log_dwell = self._log_median + parameters.dwell_sigma * dice.normal()
            dwell_s = min(parameters.dwell_max_s, math.exp(log_dwell) * manner.dwell_factor)
            dwell_ms = max(2_000, int(dwell_s * SECOND_MS))
        session = self.arrive(ts, dwell_ms, viewer)
        step = parameters.view_heartbeat_s * SECOND_MS
        for beat in range(ts + step, ts + dwell_ms, step):
            emit("view", "view", beat, {**session, "action": "heartbeat"})
        if bounces:
            return
        self._present.append((ts + dwell_ms, viewer))
        self._pastime(ts, dwell_ms, viewer, manner.comment_factor)
        if dice.chance(channel.click_ratio * manner.click_factor):
            moment = ts + int(dwell_ms * (0.15 + 0.8 * dice.uniform()))
            timeline.at(moment, partial(self._click, viewer, channel, ts, manner.buy_factor))

    def arrive(self, ts: int, dwell_ms: int, viewer: Viewer) -> Viewer:
        """Write a visit's enter and leave; return the fields of its `view` records."""
        self._n_sessions += 1
        session = {**viewer, "session_id": f"{self._timeline.prefix}-s{self._n_sessions:x}"}
        self._timeline.emit("view", "view", ts, {**session, "action": "enter"})
        self._timeline.emit("view", "view", ts + dwell_ms, {**session, "action": "leave", "dwell_ms": dwell_ms})
        self._timeline.books.n_enters += 1
        channel = viewer["channel"]
        self.enters[channel] = self.enters.get(channel, 0) + 1
        self.n_online += 1
        second = (ts + dwell_ms) // SECOND_MS + 1
        self._leaves[second] = self._leaves.get(second, 0) + 1
        return session

    def comment(self, ts: int, viewer: Viewer, said: Said, *, is_danmaku: bool) -> None:
        """Write one comment."""
        timeline = self._timeline
        source = "danmaku" if is_danmaku else "comment"
        timeline.emit("comment", "comment", ts, {**viewer, "source": source, "text": said.text})
        timeline.books.n_comments += 1
        if timeline.labels is not None:
            timeline.explain(ts, feeling=said.feeling, topic=said.topic)

    def new_user_id(self) -> str:
        """Return an id nobody had before."""
        self._n_users += 1
        return f"u{self._timeline.room_id.removeprefix('room-')}-{self._n_users:06d}"

    def new_person(self) -> Viewer:
        """Return somebody who was never here, with a device, an address, a segment and a region."""
        dice, parameters = self._timeline.dice, self._timeline.parameters
        user_id = self.new_user_id()
        device_id = f"d{user_id[1:]}"
        if self._known and dice.chance(parameters.shared_device_ratio):
            device_id = dice.choice(self._known)["device_id"]
        if dice.chance(parameters.carrier_ratio):
            ip = f"{dice.choice(self._blocks)}.{dice.between(1, 254)}"
        else:
            ip = f"10.{dice.between(64, 255)}.{dice.between(0, 255)}.{dice.between(1, 254)}"
        return {
            "user_id": user_id,
            "device_id": device_id,
            "ip": ip,
            "segment": self._segments.draw(dice),
            "region": self._regions.draw(dice),
        }

    def visit(self, channel: str, plan: Plan | None) -> Viewer:
        """Return the fields that say how a viewer came."""
        if plan is None:
            return {"channel": channel}
        return {
            "channel": channel,
            "plan_id": plan.plan_id,
            "campaign_id": f"{self._timeline.room_id}-campaign",
            "creative_id": f"{plan.plan_id}-c{self._timeline.dice.between(1, 3)}",
        }

    def _person(self, ts: int, channel: str) -> Viewer:
        dice, known = self._timeline.dice, self._known
        if known and dice.chance(self._timeline.parameters.returning_ratio):
            return dice.choice(known)
        person = self.new_person()
        for change in self.people:
            person = change.person(ts, channel, person)
        if len(known) < REMEMBERED:
            known.append(person)
        else:
            known[self._n_users % REMEMBERED] = person
        return person

    def _pastime(self, ts: int, dwell_ms: int, viewer: Viewer, comment_factor: float) -> None:
        """Write likes, shares, follows, comments and gifts over the stay."""
        timeline = self._timeline
        dice, parameters, emit = timeline.dice, timeline.parameters, timeline.emit

        def moment() -> int:
            return ts + 1_000 + int((dwell_ms - 1_000) * dice.uniform())

        if dice.chance(parameters.like_ratio):
            for _ in range(1 + dice.poisson(0.5)):
                emit("view", "interaction", moment(), {**viewer, "action": "like"})
        if dice.chance(parameters.follow_ratio):
            emit("view", "interaction", moment(), {**viewer, "action": "follow"})
        if dice.chance(parameters.share_ratio):
            emit("view", "interaction", moment(), {**viewer, "action": "share"})
        if dice.chance(parameters.comment_ratio * comment_factor):
            while True:
                said = comments.ordinary(dice, parameters)
                self.comment(moment(), viewer, said, is_danmaku=dice.chance(0.8))
                if not dice.chance(parameters.comment_more_ratio):
                    break
        if dice.chance(parameters.gift_ratio):
            timeline.at(moment(), partial(self._gift, viewer))

    def _gift(self, viewer: Viewer, ts: int) -> None:
        dice = self._timeline.dice
        amount_minor = min(500_000, int(100 * (1.0 - dice.uniform()) ** -0.9))
        self._timeline.books.gift_minor += amount_minor
        self._timeline.emit(
            "order",
            "gift",
            ts,
            {**viewer, "amount_minor": amount_minor, "currency": self._timeline.parameters.currency},
        )
