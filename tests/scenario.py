"""One seeded log of a partition in which everything happens that producers do, well and badly.

Viewers, chat, orders in every order of arrival, spend in its three reportings, two currencies with and one without a
rate, sessions that start, restart and end, late and repeated and malformed records, arrays, ticks, controls.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from tests.malformed import Event, as_json, malformed

BEGIN_MS: Final = 1_767_225_600_000
ROOMS: Final = ("room-1", "room-2", "直播间-3")
RATES: Final = {"USD:CNY": "7.13"}
TEXTS: Final = (
    "666",
    "多少钱",
    "质量太差了，退货",
    "主播好棒！",
    "假货！退钱",
    "物流太慢了",
    "how much is it?",
    "买了买了",
)
SLICED: Final[dict[str, tuple[str | None, ...]]] = {
    "segment": ("new", "loyal", None, "high_value", None, "bargain", "other"),
    "region": ("广东", None, "北京", "四川", None),
    "creative_id": (None, None, "c-1", "c-2", "c-3", "c-4", "c-5", "c-6", None, None, "c-7"),
    "product_id": (None, "p-1", "p-2", None, None, None, None, "p-3", None, None, None, None, None),
    "host_id": (None,) * 16 + ("host-1",),
    "partner_id": ("mcn-1", "unknown", None),
}
"""Values that events carry by dimension; cycles of numbers without a common divisor."""
_CHANNELS: Final = ("paid", "organic", "follow", None)


class Line(NamedTuple):
    """A record, and what is known of it: `bad` are the places of malformed elements, None for the whole value."""

    offset: int
    timestamp: int
    value: bytes
    bad: tuple[int | None, ...]


def _damaged(random: Random, event: Event) -> bytes:
    """Return an event made unacceptable in one of many ways; one line, one reject."""
    without = {name: value for name, value in event.items() if name != random.choice(("event_id", "room_id", "type"))}
    ways = malformed(event, without if len(without) < len(event) else {})
    too_long = as_json({**event, "extra": "x" * 65_536})
    return random.choice((*ways[:-2], too_long, *ways[-2:]))


class _Maker:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = BEGIN_MS
        self.n_events = 0
        self.orders: dict[str, list[str]] = {room: [] for room in ROOMS}
        self.totals: dict[tuple[str, str], list[int]] = {}
        self.kinds: list[tuple[Callable[[str], Event], int]] = [
            (self.view, 30), (self.interaction, 15), (self.comment, 15), (self.order, 22), (self.gift, 4),
            (self.spend, 12), (self.counts, 3), (self.presence, 3), (self.feed, 3), (self.plan, 3), (self.room, 2),
        ]  # fmt: skip

    def base(self, kind: str, room: str) -> Event:
        random = self.random
        self.n_events += 1
        late = random.choice((0, 0, 0, 0, 0, 0, 10, 700, 4_000, 70_000, 400_000, 1_000_000, 4_000_000))
        event: Event = {"type": kind, "event_id": f"e-{self.n_events}", "room_id": room, "ts": self.now - late}
        channel = random.choice(_CHANNELS)
        if channel is not None:
            event["channel"] = channel
        if random.random() < 0.7:
            user = random.randrange(300)
            event |= {"user_id": f"user-{user}", "device_id": f"device-{user // 2}", "ip": f"10.0.{user % 9}.{user}"}
        if random.random() < 0.05:
            event["consent"] = False
        # Without the dice: what was drawn before these fields were there is drawn still.
        for place, (name, values) in enumerate(SLICED.items()):
            value = values[(self.n_events * (2 * place + 3) + place) % len(values)]
            if value is not None:
                event[name] = value
        return event

    def view(self, room: str) -> Event:
        event = {**self.base("view", room), "action": self.random.choice(("enter", "enter", "heartbeat", "leave"))}
        event["session_id"] = f"visit-{self.random.randrange(50)}"
        if event["action"] == "leave":
            event["dwell_ms"] = self.random.choice((900, 2_000, 5_000, 5_001, 30_000, 600_000))
        return event

    def interaction(self, room: str) -> Event:
        actions = ("like", "share", "follow", "product_click", "product_click", "add_to_cart")
        return {**self.base("interaction", room), "action": self.random.choice(actions)}

    def comment(self, room: str) -> Event:
        return {**self.base("comment", room), "text": self.random.choice(TEXTS)}

    def currency(self) -> str:
        return self.random.choice(("CNY",) * 12 + ("USD", "USD", "JPY"))

    def order(self, room: str) -> Event:
        known, random = self.orders[room], self.random
        if not known or random.random() < 0.35:
            known.append(f"order-{room}-{len(known)}")
        name = random.choice(known[-12:])
        status = random.choice(("created", "created", "paid", "paid", "paid", "refunded", "refunded", "cancelled"))
        event = {**self.base("order", room), "order_id": name, "status": status, "currency": self.currency()}
        event["amount_minor"] = random.choice((0, 1, 990, 5_000, 12_900, 12_901, 10**6))
        if random.random() < 0.6:
            event["attribution"] = random.choice(("direct", "indirect", "organic", "unknown"))
        return event

    def gift(self, room: str) -> Event:
        return {**self.base("gift", room), "amount_minor": self.random.randrange(1_000), "currency": self.currency()}

    def spend(self, room: str) -> Event:
        random, plan = self.random, f"plan-{self.random.randrange(2)}"
        event = {**self.base("spend", room), "plan_id": plan, "currency": self.currency()}
        numbers = [random.randrange(2_000), random.randrange(60), random.randrange(8_000)]
        reporting = random.choice(("increment", None, "cumulative", "cumulative", "adjust"))
        if reporting == "adjust":
            numbers = [-n // 10 for n in numbers]
        if reporting == "cumulative":
            total = self.totals.setdefault((room, plan), [0, 0, 0])
            growth = random.choice((1, 1, 1, -1))  # a restatement downwards now and then
            numbers = [max(0, old + growth * n) for old, n in zip(total, numbers, strict=True)]
            total[:] = numbers
            older = random.choice((0, 0, 0, 90_000))
            event |= {"stat_date": random.choice(("2026-01-01", "2026-01-02")), "report_ts": self.now - older}
        if reporting is not None:
            event["reporting"] = reporting
        return event | dict(zip(("impressions", "clicks", "cost_minor"), numbers, strict=True))

    def counts(self, room: str) -> Event:
        names = ("n_enters", "n_product_clicks", "n_add_to_cart", "n_interactions", "n_comments")
        return {
            **self.base("counts", room),
            **{name: self.random.randrange(9) for name in self.random.sample(names, 3)},
        }

    def presence(self, room: str) -> Event:
        return {**self.base("presence", room), "n_online": self.random.randrange(5_000)}

    def feed(self, room: str) -> Event:
        feed = self.random.choice(("view", "comment", "order", "spend"))
        return {**self.base("feed", room), "feed": feed, "complete_through_ts": self.now - 1_000}

    def plan(self, room: str) -> Event:
        bid = self.random.choice((1_000, 1_200, 1_500))
        knob = self.random.choice(({"bid_kind": "cost_per_action", "bid_minor": bid}, {"budget_left_minor": 5_000}))
        status = self.random.choice(("delivering", "delivering", "budget_out"))
        return {**self.base("plan", room), "plan_id": "plan-0", "status": status, **knob}

    def room(self, room: str) -> Event:
        action = self.random.choice(("start", "start", "update", "end"))
        event = {**self.base("room", room), "action": action}
        if self.random.random() < 0.5:
            event["settings"] = {"currency": "CNY", "budget_minor": 10**6, "target_roas": 2}
        return event

    def control(self, room: str) -> Event:
        action, args = self.random.choice(
            (
                ("set_mode", {"mode": "approve"}),
                ("kill_switch", {"on": True}),
                ("kill_switch", {"on": False}),
                ("silence", {"until_ts": self.now + 60_000}),
                ("override_bid", {"plan_id": "plan-0", "value": 1_100}),
            )
        )
        event = {**self.base("control", room), "control_id": f"c-{self.n_events}", "actor": "operator"}
        return {**event, "action": action, "args": args}

    def any(self, room: str) -> Event:
        made: list[Callable[[str], Event]] = [kind for kind, _ in self.kinds]
        (chosen,) = self.random.choices(made, [weight for _, weight in self.kinds])
        return chosen(room)


def scenario(seed: int = 1, n_records: int = 3_000) -> list[Line]:
    """Return the log; equal arguments give equal bytes."""
    maker = _Maker(seed)
    random = maker.random
    lines: list[Line] = []
    recent: list[bytes] = []
    for offset in range(n_records):
        maker.now += random.choice((0, 0, 1, 40, 300, 500, 900, 1_500, 2_500))
        if random.random() < 0.002:
            maker.now += random.choice((300_000, 1_200_000, 7_500_000))
        room, chance = random.choice(ROOMS), random.random()
        bad: tuple[int | None, ...] = ()
        if chance < 0.04:
            value, bad = _damaged(random, maker.any(room)), (None,)
        elif chance < 0.12 and recent:
            value = random.choice(recent[-25:])
        elif chance < 0.20:
            value, bad = _batch(maker, room)
        elif chance < 0.24:
            event = {"type": "tick", "event_id": f"tick-{offset}", "room_id": "*", "ts": maker.now}
            value = as_json(event)
        elif chance < 0.25:
            value = as_json(maker.control(room))
        else:
            value = as_json(maker.any(room))
        if not bad:
            recent.append(value)
        lines.append(Line(offset, maker.now, value, bad))
    return lines


def _batch(maker: _Maker, room: str) -> tuple[bytes, tuple[int | None, ...]]:
    """Return an array in which some elements are bad; the first one is good, so that the room is plain."""
    elements: list[Any] = [maker.any(room) for _ in range(maker.random.randint(1, 6))]
    bad: tuple[int | None, ...] = ()
    if len(elements) > 2 and maker.random.random() < 0.5:
        wrong: list[Any] = [
            [elements[1]],
            7,
            {**elements[1], "ts": "now"},
            {**elements[1], "room_id": "another-room"},
            {"type": "tick", "event_id": "t", "room_id": room, "ts": maker.now},
        ]
        elements[1], bad = maker.random.choice(wrong), (1,)
    return as_json(elements), bad


def dump_lines(lines: list[Line]) -> bytes:
    """Return the log as `roompulse dump` writes it."""
    return b"".join(
        json.dumps(
            {"offset": line.offset, "timestamp": line.timestamp, "value_b64": base64.b64encode(line.value).decode()}
        ).encode()
        + b"\n"
        for line in lines
    )
