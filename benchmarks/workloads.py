"""The load every benchmark shares: a partition's log as producers would write it, made from a seed.

Of the events 60 % are viewers' enters, heartbeats and leaves, 15 % interactions, 15 % comments of 5 to 40 characters,
10 % orders, spend and plans: about 250 bytes each. Viewers come with user, device and address, one in four has been in
a room before, and what a viewer does lies between enter and leave. Rooms are equally busy, which is the hardest case
for an engine: any skew leaves fewer rooms to visit for as many events.

A record's Kafka timestamp is its event's `ts`, so the log carries its own time wherever it is written (CreateTime
topics): an engine evaluates as often an event as it would have live, however fast the log is read.
"""

from __future__ import annotations

import random
from typing import Any, Final, NamedTuple

import orjson

from pipeline import Record

START_MS: Final = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""
DEFAULT_RATE: Final = 10_000
"""Events a second of the log's own time, over all rooms: about what one process has to keep up with."""
THROUGHPUT_RATE: Final = 60_000
"""The same for end-to-end throughput: what a worker has to keep up with that serves 20,000 rooms.

The rate decides how much evaluation an event carries: at 60,000/s over 20,000 rooms a room has three events a second,
at 10,000/s one in two seconds, and each room with news is visited once a second.
"""
HORIZON_MS: Final = 86_400_000
"""How far ahead the two feeds vouch for themselves: no benchmark is about dead ones."""
SHARED_DEVICE_RATIO: Final = 0.05
"""Share of viewers who are on one of a room's few shared devices."""
CHANNELS: Final = ("feed_ads", "search_ads", "recommend", "follow")
CHANNEL_WEIGHTS: Final = (40, 15, 30, 15)
N_PLANS: Final = 2
Event = dict[str, Any]

_OPENINGS: Final = ("", "", "主播", "姐妹们", "老板", "这件", "这款裙子", "刚买的那双鞋", "上次买的面霜", "so ", "omg ")
_OPINIONS: Final = (
    "质量太差了", "很好用，会回购", "好看", "有点贵", "太贵了不值", "多少钱", "有没有小码", "掉色严重", "物流太慢",
    "发货很快", "声音听不见", "卡死了", "真的是正品吗", "性价比高", "扣1", "666", "来了来了", "第一次来", "关注了",
    "love it", "where is the link", "too expensive", "great quality", "does it come in black", "scam", "nice",
    "什么时候发货", "穿上显瘦吗", "已经下单了", "客服不理人", "包装破了", "孩子很喜欢",
)  # fmt: skip
_CLOSINGS: Final = (
    "",
    "",
    "！",
    "~",
    "，谢谢主播",
    "，等了三天",
    "，支持一下",
    "哈哈哈",
    " lol",
    "，再便宜点吧",
    "？？",
)


class Viewer(NamedTuple):
    """Somebody in a room, from enter to leave."""

    user_id: str
    device_id: str
    ip: str
    channel: str
    session_id: str
    entered_ts: int


class _Room:
    """One room while its log is written."""

    __slots__ = ("n_orders", "name", "unpaid", "viewers")

    def __init__(self, number: int) -> None:
        self.name = f"room-{number:06d}"
        self.viewers: list[Viewer] = []
        self.unpaid: list[tuple[str, Viewer, int]] = []
        self.n_orders = 0


class Workload:
    """One partition's log, written as far as it is asked for: the same arguments, the same bytes.

    Parameters
    ----------
    n_rooms : rooms that are on air, all equally busy.
    seed : all chance comes from it.
    rate : events a second of the log's own time, over all rooms.
    """

    def __init__(self, n_rooms: int, seed: int, rate: int = DEFAULT_RATE) -> None:
        self.rng = random.Random(seed)
        self.rate = rate
        self.rooms = [_Room(number) for number in range(n_rooms)]
        self.n_records = 0
        self.n_taken = 0

    def opening(self) -> list[Record]:
        """Return what producers write once a session: each room's start, its plans, and that two feeds are complete."""
        return [record for room in self.rooms for record in self._opening(room, START_MS)]

    def take(self, n: int) -> list[Record]:
        """Return the next `n` events of the mixture."""
        taken = []
        for _ in range(n):
            taken.append(self._next(START_MS + 1_000 + self.n_taken * 1_000 // self.rate))
            self.n_taken += 1
        return taken

    def _record(self, room: _Room, ts: int, kind: str, **fields: Any) -> Record:
        """Return the next record of the log."""
        self.n_records += 1
        event: Event = {
            "type": kind,
            "event_id": f"{kind[:2]}-{self.n_records:012d}",
            "room_id": room.name,
            "ts": ts,
            **fields,
        }
        return self.n_records - 1, ts, orjson.dumps(event), room.name.encode()

    def _next(self, ts: int) -> Record:
        """Return one event of the mixture, in a room taken at random."""
        rng = self.rng
        room = self.rooms[rng.randrange(len(self.rooms))]
        dice = rng.random()
        if dice < 0.60:
            return self._view(room, ts)
        if dice < 0.90:
            return self._act(room, ts, is_comment=dice >= 0.75)
        if dice < 0.95:
            return self._order(room, ts)
        return self._spend(room, ts) if dice < 0.99 else self._plan(room, ts)

    # -- viewers ----------------------------------------------------------------------------------------------

    def _enter(self, room: _Room, ts: int) -> Viewer:
        rng = self.rng
        number = rng.randrange(2_000_000)
        if rng.random() < 0.25:
            number = regular(room.name, rng.randrange(200))  # one of the room's regulars
        device = f"d-{number:09d}"
        if rng.random() < SHARED_DEVICE_RATIO:
            device = f"d-{room.name}-{rng.randrange(3)}"
        block = number % 60_000
        channel = rng.choices(CHANNELS, CHANNEL_WEIGHTS)[0]
        return Viewer(
            user_id=f"u-{number:09d}",
            device_id=device,
            ip=f"10.{block >> 8}.{block & 255}.{number % 251}",
            channel=channel,
            session_id=f"s-{number:09d}",
            entered_ts=ts,
        )

    def _view(self, room: _Room, ts: int) -> Record:
        """A quarter of them enter, a quarter leave, half are heartbeats."""
        rng = self.rng
        dice = rng.random()
        if not room.viewers or dice < 0.25:
            viewer = self._enter(room, ts)
            room.viewers.append(viewer)
            return self._by(viewer, room, ts, "view", action="enter", session_id=viewer.session_id)
        if dice < 0.5:
            viewer = room.viewers.pop(rng.randrange(len(room.viewers)))
            dwell_ms = ts - viewer.entered_ts
            if rng.random() < 0.1:
                dwell_ms = rng.randrange(500, 5_000)
            fields = {"action": "leave", "session_id": viewer.session_id, "dwell_ms": dwell_ms}
            return self._by(viewer, room, ts, "view", **fields)
        viewer = rng.choice(room.viewers)
        return self._by(viewer, room, ts, "view", action="heartbeat", session_id=viewer.session_id)

    def _someone(self, room: _Room, ts: int) -> Viewer:
        return self.rng.choice(room.viewers) if room.viewers else self._enter(room, ts)

    def _act(self, room: _Room, ts: int, *, is_comment: bool) -> Record:
        viewer = self._someone(room, ts)
        if is_comment:
            return self._by(viewer, room, ts, "comment", source="danmaku", text=self._text())
        actions = ("like", "like", "share", "follow", "product_click", "product_click", "add_to_cart")
        fields = {"action": self.rng.choice(actions), "product_id": f"p-{self.rng.randrange(30)}"}
        return self._by(viewer, room, ts, "interaction", **fields)

    def _text(self) -> str:
        rng = self.rng
        while True:
            text = rng.choice(_OPENINGS) + rng.choice(_OPINIONS) + rng.choice(_CLOSINGS)
            if len(text) >= 5:
                return text[:40]

    def _by(self, viewer: Viewer, room: _Room, ts: int, kind: str, **fields: Any) -> Record:
        who = {"channel": viewer.channel, "user_id": viewer.user_id, "device_id": viewer.device_id, "ip": viewer.ip}
        return self._record(room, ts, kind, **who, region="CN-ZJ", **fields)

    # -- money ------------------------------------------------------------------------------------------------

    def _order(self, room: _Room, ts: int) -> Record:
        """Orders are created and, nine in ten, paid a little later; one paid in twenty is refunded."""
        rng = self.rng
        if room.unpaid and rng.random() < 0.5:
            order_id, viewer, amount = room.unpaid.pop(0)
            status = rng.choices(("paid", "cancelled"), (9, 1))[0]
            if rng.random() < 0.05:
                status = "refunded"
        else:
            room.n_orders += 1
            order_id, viewer = f"o-{room.name}-{room.n_orders}", self._someone(room, ts)
            amount, status = rng.choice((2_990, 4_990, 9_900, 12_900, 25_900)), "created"
            room.unpaid.append((order_id, viewer, amount))
        fields = {"order_id": order_id, "status": status, "amount_minor": amount, "currency": "CNY"}
        fields["attribution"] = "organic" if viewer.channel in ("recommend", "follow") else "direct"
        return self._by(viewer, room, ts, "order", **fields)

    def _spend(self, room: _Room, ts: int) -> Record:
        rng = self.rng
        number, clicks = rng.randrange(N_PLANS), rng.randrange(12)
        return self._record(
            room, ts, "spend",
            plan_id=f"{room.name}-plan-{number}", channel=CHANNELS[number], impressions=rng.randrange(50, 400),
            clicks=clicks, cost_minor=clicks * 120, currency="CNY", reporting="increment",
            account_id="account-0001", campaign_id=f"campaign-{room.name}", creative_id="creative-0001",
        )  # fmt: skip

    def _plan(self, room: _Room, ts: int, number: int | None = None) -> Record:
        """Return a plan as the platform shows it."""
        number = self.rng.randrange(N_PLANS) if number is None else number
        knob = (
            {"bid_kind": "roi_goal", "roi_goal": "2.5"}
            if number
            else {"bid_kind": "cost_per_action", "bid_minor": 3_000}
        )
        return self._record(
            room, ts, "plan",
            plan_id=f"{room.name}-plan-{number}", channel=CHANNELS[number], status="delivering", **knob,
            learning_state="learned", edits_left=10, min_edit_gap_s=60, budget_minor=5_000_000, changed_by="platform",
        )  # fmt: skip

    def _opening(self, room: _Room, ts: int) -> list[Record]:
        settings = {"stage": "acquisition", "currency": "CNY", "target_roas": 2.0, "budget_minor": 5_000_000}
        start = self._record(room, ts, "room", action="start", settings=settings)
        plans = [self._plan(room, ts, number) for number in range(N_PLANS)]
        feeds = [
            self._record(room, ts, "feed", feed=feed, complete_through_ts=ts + HORIZON_MS, expected_lag_s=60)
            for feed in ("order", "spend")
        ]
        return [start, *plans, *feeds]


def regular(name: str, number: int) -> int:
    """Return the number of one of a room's regulars; `hash` would change it from process to process."""
    return (sum(map(ord, name)) * 2_654_435_761 + number * 40_503) % 2_000_000
