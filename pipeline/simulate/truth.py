"""What really happened: the troubles that were put in, and the rooms' books."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

TroubleKind = Literal["bot_burst", "angry_chat", "landing_page", "cost_rise", "feed_dead", "crowd_echo"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One injected trouble, half-open in time: `start_ts <= t < end_ts`.

    Events carry no mark. A bot's are those from `device_ids`, which nobody else uses.
    """

    kind: TroubleKind
    room_id: str
    channel: str | None
    """The slice it is confined to; None is the whole room."""
    start_ts: int
    end_ts: int
    size: float
    """What the kind says it is, see the class of that kind in `faults.py`."""
    innocent: bool
    """True when an alarm about it would be a false one."""
    cause: str | None
    """The cause a good diagnosis names, in the words of `room.anomalies`; None for the innocent."""
    topic: str | None = None
    n_injected: int = 0
    """Events written so far that would not be there without it."""
    n_injected_enters: int = 0
    enters_ratio: float | None = None
    """Of the enters in its slice and time so far, the share that was injected; None without any."""
    cost_minor: int = 0
    """Billed so far because of it: injected clicks, or the rise of the price."""
    n_orders_lost: int = 0
    device_ids: tuple[str, ...] = ()
    ip_block: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that say something, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None and value != ()}


@dataclass(slots=True)
class Books:
    """A room's own books: what happened up to now, whether or not its record has arrived yet."""

    room_id: str
    n_enters: int = 0
    n_comments: int = 0
    n_orders_created: int = 0
    n_orders_paid: int = 0
    n_orders_cancelled: int = 0
    n_refunds: int = 0
    gmv_minor: int = 0
    refund_minor: int = 0
    gift_minor: int = 0
    impressions: int = 0
    """As reported so far, like the two that follow: what ran since a plan's last report is in none."""
    clicks: int = 0
    spend_minor: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return asdict(self)
