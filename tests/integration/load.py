"""Made-up events of several rooms, and what they must add up to."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from schemas import topics
from tests.integration.deployment import Deployment, now_ms


def enter(room: str, number: int) -> dict[str, Any]:
    return {
        "type": "view",
        "event_id": f"enter-{room}-{number}",
        "room_id": room,
        "ts": now_ms(),
        "action": "enter",
        "session_id": f"visit-{number}",
        "user_id": f"user-{number}",
    }


def order(room: str, number: int, amount_minor: int) -> dict[str, Any]:
    return {
        "type": "order",
        "event_id": f"order-{room}-{number}",
        "room_id": room,
        "ts": now_ms(),
        "order_id": f"order-{number}",
        "status": "paid",
        "amount_minor": amount_minor,
        "currency": "CNY",
    }


class Load:
    """Visits and orders of rooms, drawn from a seed; each counts once, however often it is worked off."""

    def __init__(self, made: Deployment, rooms: list[str], *, seed: int) -> None:
        self._made, self._rooms, self._random = made, rooms, Random(seed)
        self.expected = {room: Counter[str]() for room in rooms}

    def send(self, n_events: int) -> None:
        """Send so many events and return once the broker has them all."""
        sent = []
        for _ in range(n_events):
            room = self._random.choice(self._rooms)
            count = self.expected[room]
            if self._random.random() < 0.8:
                count["n_enters"] += 1
                event = enter(room, count["n_enters"])
            else:
                amount_minor = self._random.randrange(1, 100_000)
                count["n_orders_paid"] += 1
                count["gmv_minor"] += amount_minor
                event = order(room, count["n_orders_paid"], amount_minor)
            sent.append(self._made.send(topics.ROOM_EVENTS, room, event))
        self._made.producer.flush()
        assert all(future.succeeded() for future in sent)

    def is_counted(self) -> bool:
        """Return whether the newest signals of every room say exactly what was sent."""
        found = self._made.sessions()
        return all(
            found.get(room, {}).get(name) == n for room in self._rooms for name, n in self.expected[room].items()
        )
