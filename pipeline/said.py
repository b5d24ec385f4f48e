"""What a room says of itself from a moment on: the product on stage, the host, the partner."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final

import msgspec

MAX_SAID: Final = 64
"""Changes remembered of a kind: a show changes its product every few minutes, and no event counts by one older."""
NOTHING: Final = ""


class Said(msgspec.Struct, array_like=True, gc=False):
    """A value by event time: each one holds from its moment until the next; of two at one moment, what came later."""

    moments: list[int] = msgspec.field(default_factory=list)
    values: list[str] = msgspec.field(default_factory=list)

    def say(self, ts: int, value: str) -> None:
        """Note that from `ts` on the value is this one; `NOTHING` for none."""
        place = bisect_right(self.moments, ts)
        self.moments.insert(place, ts)
        self.values.insert(place, value)
        if len(self.moments) > MAX_SAID:
            del self.moments[0], self.values[0]

    def at(self, ts: int) -> str | None:
        """Return what held at `ts` as far as it is known by now; None for nothing.

        >>> stage = Said()
        >>> stage.say(10, "lipstick")
        >>> stage.at(9), stage.at(10), stage.at(11)
        (None, 'lipstick', 'lipstick')
        """
        place = bisect_right(self.moments, ts)
        return self.values[place - 1] or None if place else None


def note_room(said: dict[str, Said], event: Any, *, is_new: bool) -> None:
    """Note what a `room` event says; a new session begins with nothing on stage."""
    for name in ("host_id", "partner_id"):
        value = getattr(event, name)
        if value is not None:
            said.setdefault(name, Said()).say(event.ts, value)
    if is_new and "product_id" in said:
        said["product_id"].say(event.ts, NOTHING)


def note_product(said: dict[str, Said], event: Any) -> None:
    """Note what goes on stage and what leaves it; the end of one that is not on stage changes nothing."""
    product, action = event.product_id, event.action
    if action == "explain_start":
        said.setdefault("product_id", Said()).say(event.ts, product)
    elif action in ("explain_end", "delist"):
        stage = said.get("product_id")
        if stage is not None and stage.at(event.ts) == product:
            stage.say(event.ts, NOTHING)
