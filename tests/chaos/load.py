"""A seeded load with known truth: every producer's good and bad habits, its bytes made before the first is sent.

Repeats of ids, events up to a quarter of an hour late, arrays, day totals that are restated downwards and come in the
wrong order, corrections, refunds before their payment and above it, second payments, malformed records and elements;
beside them operators' controls, signed, repeated and unsigned.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Final, NamedTuple

import orjson

from agents.kafka import partition_of
from schemas.control import sign
from schemas.topics import OPS_CONTROL, ROOM_EVENTS
from tests.chaos.truth import RoomTruth
from tests.malformed import Event, malformed
from tests.scenario import TEXTS

OPENED_BEFORE_MS: Final = 20 * 60_000
"""A session's start lies this far before the first event, so that none is late for its session."""
LATE_MS: Final = (0,) * 12 + (40, 700, 4_000, 20_000, 70_000, 400_000, 900_000)
REPEAT_WITHIN_MS: Final = 15_000
"""Ids without money are remembered 60 s at least: a repeat comes long before, even from a producer that was held up."""
ARRAY_RATIO, MALFORMED_RATIO, REPEAT_RATIO = 0.06, 0.012, 0.03
CONTROLS_PER_S: Final = 3
BLOCK: Final = 4_096
"""Rooms are drawn so many at a time, and kinds three times as many: one draw costs next to nothing."""
CHANNELS: Final = ("feed_ads", "search_ads", "recommend", "follow")
OPERATOR: Final = "operator:chaos"


class Record(NamedTuple):
    """One message, due so many ms after the first."""

    due_ms: int
    topic: str
    partition: int
    key: bytes
    value: bytes


class Plan(NamedTuple):
    """A knob of the ad platform, and where it stands before anybody turns it."""

    room_id: str
    plan_id: str
    channel: str
    bid_kind: str
    value: int | str


class Load(NamedTuple):
    """What to send, and what must come of it."""

    records: list[Record]
    truth: dict[str, dict[str, int]]
    plans: list[Plan]
    n_events: int
    n_repeats: int
    n_rejects: int
    controls: dict[str, str]
    """Signed controls by id -> room."""


class _Room:
    def __init__(self, name: str, n_partitions: int) -> None:
        self.name, self.key = name, name.encode()
        self.partition = partition_of(name, n_partitions)
        self.truth = RoomTruth()
        self.recent: deque[tuple[int, bytes]] = deque(maxlen=200)
        self.money: list[bytes] = []
        self.steps: list[tuple[int, int, Event]] = []
        self.totals: dict[tuple[str, str], list[int]] = {}
        self.n_made = 0
        self.plans: list[Plan] = []


class LoadMaker:
    """Make one load; the same arguments make the same bytes.

    Parameters
    ----------
    seed : all chance comes from it.
    begin_ms : the wall clock's time at which the first event is taken to happen.
    control_key : signs the operator's controls.
    """

    def __init__(self, seed: int, *, begin_ms: int, n_rooms: int, n_partitions: int, control_key: bytes) -> None:
        self.random = Random(f"load-{seed}")
        self.begin_ms, self._key, self._n_partitions = begin_ms, control_key, n_partitions
        names = [f"room-{number:03d}" for number in range(n_rooms - 1)] + ["直播间-热"]
        self.rooms = [_Room(name, n_partitions) for name in names]
        self.records: list[Record] = []
        self.controls: dict[str, str] = {}
        self.counted: Counter[str] = Counter()
        self._kinds: tuple[tuple[Callable[[_Room, int], Event], int], ...] = (
            (self._view, 46), (self._interaction, 15), (self._comment, 12), (self._order, 18),
            (self._spend, 5), (self._gift, 1), (self._counts, 1), (self._presence, 1), (self._product, 1),
        )  # fmt: skip

    def make(self, *, rate: int, seconds: float) -> Load:
        """Return `rate` events a second, elements of arrays counted singly, for so many seconds."""
        for room in self.rooms:
            self._open(room)
        n_wanted = int(rate * seconds)
        makers, weights = zip(*self._kinds, strict=True)
        # One room has a quarter of the load: neighbours of its partition must not suffer.
        shares = [1.0] * (len(self.rooms) - 1) + [len(self.rooms) / 3]
        n = 0
        while n < n_wanted:
            rooms = self.random.choices(self.rooms, shares, k=BLOCK)
            kinds = iter(self.random.choices(makers, weights, k=BLOCK * 3))
            for room in rooms:
                if n < n_wanted:
                    n += self._some(room, n * 1_000 // rate, kinds)
        self._operate(int(seconds * 1_000))
        self.records.sort(key=lambda record: record.due_ms)  # stable: a room's own records keep their order
        return Load(
            self.records,
            {room.name: room.truth.session() for room in self.rooms},
            [plan for room in self.rooms for plan in room.plans],
            self.counted["events"],
            self.counted["repeats"],
            self.counted["rejects"],
            self.controls,
        )

    def _some(self, room: _Room, due_ms: int, kinds: Iterator[Callable[[_Room, int], Event]]) -> int:
        """Send one record and return how many elements it has."""
        dice = self.random.random()
        if dice < ARRAY_RATIO:
            return self._array(room, due_ms, kinds)
        if dice < ARRAY_RATIO + MALFORMED_RATIO:
            self.counted["rejects"] += 1
            self._send(room, due_ms, self._damaged(room, due_ms))
        elif (again := self._repeat(room, due_ms)) is not None:
            self._send(room, due_ms, again)
        else:
            self._send(room, due_ms, self._element(room, due_ms, next(kinds, self._view)))
        return 1

    # -- records ----------------------------------------------------------------------------------------------

    def _send(self, room: _Room, due_ms: int, value: bytes) -> None:
        self.records.append(Record(due_ms, ROOM_EVENTS, room.partition, room.key, value))

    def _array(self, room: _Room, due_ms: int, kinds: Iterator[Callable[[_Room, int], Event]]) -> int:
        """Send an array; some of its elements are repeats, some are malformed."""
        elements = []
        for _ in range(self.random.randrange(2, 20)):
            dice = self.random.random()
            if dice < 0.02:
                self.counted["rejects"] += 1
                stranger = orjson.dumps(self._base(room, due_ms, "presence") | {"room_id": "room-other", "n_online": 1})
                elements.append(self.random.choice((b"17", b"[]", b'{"type":"tick"}', stranger)))
            elif dice < 0.10 and (again := self._repeat(room, due_ms, always=True)) is not None:
                elements.append(again)
            else:
                elements.append(self._element(room, due_ms, next(kinds, self._view)))
        first_is_strange = elements[0].find(b"room-other") >= 0
        if first_is_strange:  # the key, not the first element, says whose array it is
            elements.reverse()
        self._send(room, due_ms, b"[" + b",".join(elements) + b"]")
        return len(elements)

    def _element(self, room: _Room, due_ms: int, maker: Callable[[_Room, int], Event]) -> bytes:
        event = maker(room, due_ms)
        value = orjson.dumps(event)
        room.truth.take(event)
        self.counted["events"] += 1
        if event["type"] in ("order", "spend", "gift"):
            room.money.append(value)
        else:
            room.recent.append((due_ms, value))
        return value

    def _repeat(self, room: _Room, due_ms: int, *, always: bool = False) -> bytes | None:
        """Return something that was sent before: money of any age, others of the last seconds."""
        if not always and self.random.random() >= REPEAT_RATIO:
            return None
        if room.money and self.random.random() < 0.5:
            self.counted["repeats"] += 1
            return self.random.choice(room.money)
        if not room.recent:
            return None
        sent_ms, value = self.random.choice(room.recent)
        if due_ms - sent_ms > REPEAT_WITHIN_MS:
            return None
        self.counted["repeats"] += 1
        return value

    def _damaged(self, room: _Room, due_ms: int) -> bytes:
        event = self._base(room, due_ms, "gift") | {"amount_minor": 100, "currency": "CNY"}
        incomplete = {name: value for name, value in event.items() if name != "event_id"}
        return self.random.choice(
            (
                *malformed(event, incomplete),
                orjson.dumps(event | {"ts": event["ts"] + 3_600_000}),
                orjson.dumps(event | {"currency": "USD"}),  # no rate is set
                orjson.dumps(event | {"type": "ack", "command_id": "c", "status": "applied"}),  # unsigned
            )
        )

    # -- events -----------------------------------------------------------------------------------------------

    def _base(self, room: _Room, due_ms: int, kind: str) -> Event:
        room.n_made += 1
        return {
            "type": kind,
            "event_id": f"{kind}-{room.n_made}",
            "room_id": room.name,
            "ts": self.begin_ms + due_ms - self.random.choice(LATE_MS),
        }

    def _by(self, room: _Room, due_ms: int, kind: str) -> Event:
        user = self.random.randrange(5_000)
        who = {"user_id": f"u-{user}", "device_id": f"d-{user // 2}", "ip": f"10.0.{user % 250}.{user % 99}"}
        return self._base(room, due_ms, kind) | {"channel": CHANNELS[user % 4], "segment": f"g-{user % 3}"} | who

    def _view(self, room: _Room, due_ms: int) -> Event:
        dice = self.random.random()
        # Only views say where somebody is: what comes later counts there by what its user named last.
        event = self._by(room, due_ms, "view") | {
            "region": f"r-{room.n_made % 20}",
            "session_id": f"s-{room.n_made % 997}",
        }
        if dice < 0.3:
            return event | {"action": "leave", "dwell_ms": self.random.randrange(500, 120_000)}
        return event | {"action": "enter" if dice < 0.6 else "heartbeat"}

    def _interaction(self, room: _Room, due_ms: int) -> Event:
        action = self.random.choice(("like", "share", "follow", "product_click", "product_click", "add_to_cart"))
        return self._by(room, due_ms, "interaction") | {"action": action}

    def _comment(self, room: _Room, due_ms: int) -> Event:
        return self._by(room, due_ms, "comment") | {"text": self.random.choice(TEXTS)}

    def _gift(self, room: _Room, due_ms: int) -> Event:
        return self._by(room, due_ms, "gift") | {"amount_minor": self.random.randrange(1, 9_999), "currency": "CNY"}

    def _counts(self, room: _Room, due_ms: int) -> Event:
        names = self.random.sample(("n_enters", "n_product_clicks", "n_add_to_cart", "n_interactions", "n_comments"), 2)
        return self._base(room, due_ms, "counts") | {name: self.random.randrange(50) for name in names}

    def _presence(self, room: _Room, due_ms: int) -> Event:
        return self._base(room, due_ms, "presence") | {"n_online": self.random.randrange(10_000)}

    def _product(self, room: _Room, due_ms: int) -> Event:
        return self._base(room, due_ms, "product") | {"product_id": "p-1", "action": "stock", "stock": 5}

    def _order(self, room: _Room, due_ms: int) -> Event:
        """Return the next step of an order that is due, or the first of a new one."""
        if not room.steps or room.steps[0][0] > due_ms:
            self._new_order(room, due_ms)
        _, _, step = heapq.heappop(room.steps)
        return self._by(room, due_ms, "order") | step

    def _new_order(self, room: _Room, due_ms: int) -> None:
        """Plan an order's life: the steps in the order in which they will arrive."""
        random = self.random
        amount = random.randrange(100, 50_000)
        half, more = amount // 2, amount + 777
        lives: tuple[tuple[tuple[str, int], ...], ...] = (
            (("created", amount), ("paid", amount)),
            (("created", amount), ("paid", amount)),
            (("paid", amount), ("created", amount)),
            (("created", amount), ("paid", amount), ("refunded", half), ("refunded", half)),
            (("refunded", half), ("created", amount), ("paid", amount), ("refunded", more)),
            (("refunded", more), ("paid", amount)),
            (("created", amount), ("paid", amount), ("cancelled", amount)),
            (("created", amount), ("cancelled", amount)),
            (("created", amount), ("paid", amount), ("paid", more)),
        )
        order_id = f"o-{room.name}-{room.n_made}"
        common = {"order_id": order_id, "currency": "CNY", "attribution": random.choice(("direct", "organic"))}
        at_ms = due_ms
        for number, (status, minor) in enumerate(random.choice(lives)):
            step = common | {"status": status, "amount_minor": minor}
            heapq.heappush(room.steps, (at_ms, room.n_made * 8 + number, step))
            at_ms += random.randrange(1, 4_000)

    def _spend(self, room: _Room, due_ms: int) -> Event:
        random, plan = self.random, self.random.choice(room.plans)
        event = self._base(room, due_ms, "spend") | {
            "plan_id": plan.plan_id,
            "channel": plan.channel,
            "currency": "CNY",
        }
        dice = random.random()
        if dice < 0.5:
            now = (random.randrange(50, 400), random.randrange(12), random.randrange(2_000))
            return event | {"reporting": "increment"} | _spent(now)
        if dice < 0.6:
            now = (-random.randrange(5), -random.randrange(2), -random.randrange(200))
            return event | {"reporting": "adjust"} | _spent(now)
        day = random.choice(("2026-01-01", "2026-01-02"))
        totals = room.totals.setdefault((plan.plan_id, day), [0, 0, 0, 0])
        if totals[0] > 1 and dice < 0.66:  # an old report comes late: it must not count
            return event | _total(day, totals[0] - 1, (7, 7, 7))
        totals[0] += 2
        for place, most in ((1, 400), (2, 12), (3, 2_000)):
            restated = -random.randrange(most // 4) if dice < 0.72 else random.randrange(most)
            totals[place] = max(0, totals[place] + restated)
        return event | _total(day, totals[0], (totals[1], totals[2], totals[3]))

    # -- openings and operators -------------------------------------------------------------------------------

    def _open(self, room: _Room) -> None:
        """Send what a producer writes once a session: start, plans, two feeds that vouch for themselves."""
        random, ts = self.random, self.begin_ms - OPENED_BEFORE_MS
        settings: Event = {"stage": "acquisition", "currency": "CNY", "budget_minor": 10**10}
        settings["target_roas"] = random.choice((0.02, 0.02, 500.0, 500.0, 3.0))
        if random.random() < 0.25:
            settings["mode"] = random.choice(("approve", "approve", "shadow"))
        opening: list[Event] = [{"type": "room", "action": "start", "settings": settings}]
        for number in range(random.choice((1, 2))):
            kind, value = random.choice((("cost_per_action", 3_000), ("roi_goal", "2.5")))
            plan = Plan(room.name, f"{room.name}-plan-{number}", CHANNELS[number], kind, value)
            room.plans.append(plan)
            opening.append(plan_shown(plan, value))
        far_ms = self.begin_ms + 86_400_000
        opening += [{"type": "feed", "feed": feed, "complete_through_ts": far_ms} for feed in ("order", "spend")]
        for event in opening:
            value_bytes = orjson.dumps(self._base(room, 0, event["type"]) | event | {"ts": ts})
            self._send(room, 0, value_bytes)
            self.counted["events"] += 1

    def _operate(self, length_ms: int) -> None:
        """Send operators' controls: most once, some again, some without a signature."""
        random = self.random
        for number in range(int(length_ms / 1_000 * CONTROLS_PER_S)):
            room, due_ms = random.choice(self.rooms), random.randrange(length_ms)
            control_id = f"ctl-{number}"
            plan = random.choice(room.plans)
            wanted = str(random.randrange(20, 60) / 10) if plan.bid_kind == "roi_goal" else random.randrange(500, 9_000)
            action, args = random.choice(
                (
                    ("override_bid", {"plan_id": plan.plan_id, "value": wanted}),
                    ("override_bid", {"plan_id": plan.plan_id, "value": wanted}),
                    ("set_mode", {"mode": random.choice(("auto", "auto", "approve", "shadow"))}),
                    ("silence", {"until_ts": self.begin_ms + due_ms + 3_000}),
                    ("exclude_window", {"from_ts": self.begin_ms + due_ms, "to_ts": self.begin_ms + due_ms + 2_000}),
                    ("update_settings", {"settings": {"budget_minor": 10**10 - number}}),
                    ("kill_switch", {"on": True}),
                )
            )
            self._control(room, due_ms, control_id, action, args)
            if action == "kill_switch":
                self._control(room, due_ms + 2_500, f"{control_id}-off", action, {"on": False})
        self._control(None, length_ms // 2, "ctl-all", "silence", {"until_ts": self.begin_ms + length_ms // 2 + 2_000})

    def _control(self, room: _Room | None, due_ms: int, control_id: str, action: str, args: Event) -> None:
        name = "*" if room is None else room.name
        ts = self.begin_ms + due_ms
        message = {
            "control_id": control_id,
            "room_id": name,
            "ts": ts,
            "actor": "chaos",
            "action": action,
            "args": args,
        }
        partition = partition_of(name, self._n_partitions)
        if self.random.random() < 0.1:
            unsigned = orjson.dumps(message | {"control_id": f"{control_id}-unsigned"})
            self.records.append(Record(due_ms, OPS_CONTROL, partition, name.encode(), unsigned))
        signed = orjson.dumps(sign(message, self._key, OPERATOR))
        self.controls[control_id] = name
        for again_ms in (0, 900) if self.random.random() < 0.3 else (0,):
            self.records.append(Record(due_ms + again_ms, OPS_CONTROL, partition, name.encode(), signed))


def plan_shown(plan: Plan, value: int | str) -> Event:
    """Return the fields of a `plan` event: the knob as the platform shows it."""
    knob = {"roi_goal": value} if plan.bid_kind == "roi_goal" else {"bid_minor": value}
    return {
        "type": "plan", "plan_id": plan.plan_id, "channel": plan.channel, "status": "delivering",
        "bid_kind": plan.bid_kind, "learning_state": "learned", "changed_by": "us", **knob,
    }  # fmt: skip


def _spent(amounts: tuple[int, int, int]) -> Event:
    return dict(zip(("impressions", "clicks", "cost_minor"), amounts, strict=True))


def _total(day: str, report_ts: int, amounts: tuple[int, int, int]) -> Event:
    return {"reporting": "cumulative", "stat_date": day, "report_ts": report_ts} | _spent(amounts)
