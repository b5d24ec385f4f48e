"""A room's counts and money worked out a second time, from the raw lines, in the plainest way.

Nothing of the engine is used here: every accepted event becomes a few effects `(room, ts, name, amount)`; a window or a
session is the sum of those that fall into it. Which elements are malformed is told by whoever made the log.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from typing import Any, Final, NamedTuple

TICK_MS: Final = 500
RESTART_MS: Final = 600_000
MONEY_TYPES: Final = ("order", "spend", "gift")
MONEY: Final = ("gmv_minor", "refund_minor", "spend_minor", "gift_minor")
SAFE_REPEAT_MS: Final = 60_000
COUNTED: Final = (
    "n_enters", "n_interactions", "n_product_clicks", "n_add_to_cart", "n_comments", "n_orders_created",
    "n_orders_paid", "n_refunds", "gmv_minor", "refund_minor", "gift_minor", "impressions", "clicks", "spend_minor",
)  # fmt: skip


class Effect(NamedTuple):
    """One change of one count: when it happened, in which session it arrived, whether it belongs to one before.

    `purse` numbers the room's currencies: amounts of two of them have no sum.
    """

    room: str
    session: int
    ts: int
    name: str
    amount: int
    is_past: bool
    purse: int


class Room:
    """What the oracle keeps of a room besides effects."""

    def __init__(self) -> None:
        self.is_fresh = True
        self.session = 0
        self.begins: int | None = None
        self.started: int | None = None
        self.ended: int | None = None
        self.currency: str | None = None
        self.booked_in: str | None = None
        self.purse = 0
        self.orders: dict[str, list[dict[str, Any]]] = {}
        self.totals: dict[tuple[str, str], tuple[int, int, int, int]] = {}


def order_money(events: Iterable[Mapping[str, Any]]) -> list[tuple[int, str, int]]:
    """Return what an order's events (in the order of arrival, amounts converted) come to as (ts, name, amount)."""
    found: list[tuple[int, str, int]] = []
    created = [e for e in events if e["status"] == "created"]
    paid = [e for e in events if e["status"] == "paid"]
    if created:
        found.append((created[0]["ts"], "n_orders_created", 1))
    if not paid:
        return found
    paid_ts, left = paid[0]["ts"], paid[0]["amount"]
    found += [(paid_ts, "n_orders_paid", 1), (paid_ts, "gmv_minor", left)]
    refunds = sorted((e["ts"], e["amount"]) for e in events if e["status"] == "refunded")
    cancels = [e["ts"] for e in events if e["status"] == "cancelled" and e["ts"] >= paid_ts]
    for ts, amount in [*refunds, *((ts, left) for ts in cancels[:1])]:
        taken = min(left, amount)
        left -= taken
        if taken:
            found += [(ts, "n_refunds", 1), (ts, "refund_minor", taken)]
    return found


class Oracle:
    """Feed it every record; then ask for counts, windows and sessions.

    `rates` are minor units per minor unit ("USD:CNY"), and hold both ways.
    """

    def __init__(self, rates: Mapping[str, Fraction] | None = None) -> None:
        self.rates = dict(rates or {})
        self.rooms: dict[str, Room] = {}
        self.effects: list[Effect] = []
        self.seen: dict[tuple[str, str], int] = {}
        self.clock: int | None = None
        self.evaluated: int | None = None
        self.largest = -1
        self.n_records = self.n_events = self.n_duplicates = self.n_rejects = self.n_late = 0

    def feed(self, timestamp: int | None, value: bytes, bad: Collection[int | None] = ()) -> bool:
        """Apply a record; False (and nothing done) when it repeats an id that may or may not be forgotten by now.

        `bad` holds the places of malformed elements; None says that the whole value is one reject.
        """
        whole_is_bad = None in bad
        parsed = [] if whole_is_bad else json.loads(value)
        elements = parsed if isinstance(parsed, list) else [parsed]
        good = [e for place, e in enumerate(elements) if place not in bad]
        stamp = timestamp
        if stamp is None:
            stamp = max([self.largest, *(e["ts"] for e in self._accepted(good))])
        clock = stamp if self.clock is None else max(self.clock, stamp)
        if any(self._is_doubtful(e, clock) for e in good):
            return False
        passed = clock - clock % TICK_MS
        if self.clock is not None and passed > self.clock:
            self.evaluated = passed
        self.clock = None if clock < 0 else clock
        self.n_records += 1
        self.n_rejects += len(bad)
        for event in good:
            self._event(event, clock)
        return True

    def _is_doubtful(self, event: Mapping[str, Any], clock: int) -> bool:
        seen = self.seen.get((event["room_id"], event["event_id"]))
        return event["type"] not in MONEY_TYPES and seen is not None and clock - seen >= SAFE_REPEAT_MS

    def _accepted(self, events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return those of one record's elements that are neither repeats nor in an unknown currency."""
        taken: list[Mapping[str, Any]] = []
        ids = set(self.seen)
        for event in events:
            name = (event["room_id"], event["event_id"])
            if name not in ids and self._factor(event) is not None:
                taken.append(event)
                ids.add(name)
        return taken

    def _factor(self, event: Mapping[str, Any]) -> Fraction | None:
        if event["type"] not in MONEY_TYPES:
            return Fraction(1)
        room = self.rooms.get(event["room_id"])
        own = room.currency if room else None
        if room is not None and own is None and self._is_past(room, event):
            own = room.booked_in
        if own is None or own == event["currency"]:
            return Fraction(1)
        return self._rate(event["currency"], own)

    @staticmethod
    def _is_past(room: Room, event: Mapping[str, Any]) -> bool:
        return room.begins is not None and event["ts"] < room.begins

    def _event(self, event: dict[str, Any], clock: int) -> None:
        factor = self._factor(event)
        if factor is None:
            self.n_rejects += 1
            return
        name = (event["room_id"], event["event_id"])
        if name in self.seen:
            self.n_duplicates += 1
            return
        self.seen[name] = clock
        self.n_events += 1
        self.largest = max(self.largest, event["ts"])
        self.n_late += self.evaluated is not None and event["ts"] < self.evaluated
        if event["type"] not in ("tick", "control", "ack"):
            self._apply(event, factor)

    def _apply(self, event: dict[str, Any], factor: Fraction) -> None:
        kind, ts = event["type"], event["ts"]
        room = self.rooms.setdefault(event["room_id"], Room())
        if kind in MONEY_TYPES and (room.currency is not None or not self._is_past(room, event)):
            # Late money of the session before names no currency of this one.
            room.currency = room.currency or event["currency"]
            self._settle(room)
            room.booked_in = room.currency
        if kind == "room":
            self._session(room, event)
        elif kind == "view" and event["action"] == "enter":
            self._book(event, ts, "n_enters", 1)
        elif kind == "interaction":
            self._book(event, ts, "n_interactions", 1)
            if event["action"] in ("product_click", "add_to_cart"):
                self._book(event, ts, {"product_click": "n_product_clicks"}.get(event["action"], "n_add_to_cart"), 1)
        elif kind == "comment":
            self._book(event, ts, "n_comments", 1)
        elif kind == "counts":
            for name in COUNTED[:5]:
                self._book(event, ts, name, event.get(name) or 0)
        elif kind == "gift":
            self._book(event, ts, "gift_minor", round(event["amount_minor"] * factor))
        elif kind == "spend":
            self._spend(room, event, factor)
        elif kind == "order":
            self._order(room, event, factor)
        room.is_fresh = False

    def _book(self, event: Mapping[str, Any], ts: int, name: str, amount: int, *, decides: int | None = None) -> None:
        """Note an effect; the moment that decides the session is its own `ts` but for refunds."""
        room = self.rooms[event["room_id"]]
        is_past = room.begins is not None and (ts if decides is None else decides) < room.begins
        self.effects.append(Effect(event["room_id"], room.session, ts, name, amount, is_past, room.purse))

    def _session(self, room: Room, event: Mapping[str, Any]) -> None:
        ts = event["ts"]
        if event["action"] == "end":
            if room.begins is None or ts >= room.begins:
                room.ended = ts
        elif event["action"] == "start":
            if room.is_fresh:
                room.begins = room.started = ts
            elif room.ended is not None and ts < room.ended:
                pass  # it comes late
            elif room.ended is None and room.started is None:
                room.started = ts
            elif room.ended is not None or ts - (room.started or 0) >= RESTART_MS:
                room.session += 1
                room.begins = room.started = ts
                room.ended, room.currency = None, None
        named = (event.get("settings") or {}).get("currency")
        room.currency = room.currency or named
        if event.get("settings"):
            self._settle(room)

    def _settle(self, room: Room) -> None:
        """What is remembered in a former session's currency goes on in this one's, where a rate says how."""
        if room.currency is None or room.booked_in in (None, room.currency):
            return
        room.purse += 1
        rate = self._rate(str(room.booked_in), room.currency)
        if rate is not None:
            room.totals = {key: (*totals[:3], round(totals[3] * rate)) for key, totals in room.totals.items()}
            room.orders = {
                order_id: [{**event, "amount": round(event["amount"] * rate)} for event in history]
                for order_id, history in room.orders.items()
            }
        room.booked_in = room.currency

    def _rate(self, one: str, other: str) -> Fraction | None:
        inverse = self.rates.get(f"{other}:{one}")
        return self.rates.get(f"{one}:{other}", 1 / inverse if inverse else None)

    def _spend(self, room: Room, event: Mapping[str, Any], factor: Fraction) -> None:
        now = (event["impressions"], event["clicks"], round(event["cost_minor"] * factor))
        before = (0, 0, 0)
        if event.get("reporting") == "cumulative":
            key = (event["plan_id"], event["stat_date"])
            newest, *rest = room.totals.get(key, (-1, 0, 0, 0))
            if event["report_ts"] < newest:
                return
            before = (rest[0], rest[1], rest[2])
            room.totals[key] = (event["report_ts"], *now)
        for name, new, old in zip(("impressions", "clicks", "spend_minor"), now, before, strict=True):
            self._book(event, event["ts"], name, new - old)

    def _order(self, room: Room, event: dict[str, Any], factor: Fraction) -> None:
        history = room.orders.setdefault(event["order_id"], [])
        before = order_money(history)
        history.append({**event, "amount": round(event["amount_minor"] * factor)})
        after = order_money(history)
        paid = next((ts for ts, name, _ in after if name == "n_orders_paid"), None)
        for found, sign in ((before, -1), (after, 1)):
            for ts, name, amount in found:
                is_refund = name in ("n_refunds", "refund_minor")
                self._book(event, ts, name, sign * amount, decides=paid if is_refund else None)

    # -- answers ----------------------------------------------------------------------------------------------

    def session(self, room_id: str) -> dict[str, int]:
        """Return every count and sum of a room's last session, `prior_*` too."""
        number = self.rooms[room_id].session
        found: Counter[str] = Counter()
        for effect in self.effects:
            if effect.room == room_id and effect.session == number:
                if not effect.is_past:
                    found[effect.name] += effect.amount
                elif effect.name in MONEY:
                    found[f"prior_{effect.name}"] += effect.amount
        return {name: found[name] for name in (*COUNTED, *(f"prior_{name}" for name in MONEY))}

    def window(self, room_id: str, begin: int, end: int, effects: Iterable[Effect] | None = None) -> dict[str, int]:
        """Return every count of what happened in begin <= ts < end."""
        found: Counter[str] = Counter()
        known = self.effects if effects is None else effects
        purse = max((effect.purse for effect in known if effect.room == room_id), default=0)
        for effect in known:
            if (
                effect.room == room_id
                and begin <= effect.ts < end
                and (effect.name not in MONEY or effect.purse == purse)
            ):
                found[effect.name] += effect.amount
        return {name: found[name] for name in COUNTED}
