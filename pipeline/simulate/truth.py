"""What really happened: the troubles that were put in, the rooms' books, and a label for what is not plain traffic.

Events carry no mark. Who wants to know what one of them is has three ways, all exact:

- `Trouble.user_ids`: an event is invalid traffic if and only if its `user_id` is in the list of a trouble with
  `is_invalid`. No honest viewer has a bot's id, and a bot has no honest viewer's.
- `Label`: one a record that is not plain, by `event_id` (`World(…, is_labelled=True)`, `--labels FILE`).
- `Trouble.device_ids`, `ip_blocks`: the slices an alarm should name.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

BotKind = Literal[
    "bot_burst",
    "view_bots_fixed",
    "view_bots_random",
    "device_farm",
    "shared_address",
    "click_farm",
    "incentive_hunters",
    "script_comments",
    "paraphrase_comments",
    "synced_phones",
    "idle_audience",
]
CrowdKind = Literal["crowd_echo", "lottery", "celebrity", "organic_surge", "carrier_nat", "campus"]
ComplaintKind = Literal["angry_chat", "complaint_price", "complaint_quality", "complaint_logistics", "complaint_host"]
BusinessKind = Literal[
    "landing_page",
    "payment_failure",
    "sold_out",
    "delisted",
    "price_rise",
    "refund_wave",
    "cost_rise",
    "creative_fatigue",
    "targeting_drift",
    "content_slump",
    "delivery_stopped",
]
DataKind = Literal[
    "feed_dead",
    "view_feed_dead",
    "comment_feed_dead",
    "spend_feed_dead",
    "tracking_outage",
    "orders_late",
    "orders_lost",
    "absurd_orders",
]
TroubleKind = BotKind | CrowdKind | ComplaintKind | BusinessKind | DataKind
BOT_KINDS: tuple[BotKind, ...] = get_args(BotKind)
CROWD_KINDS: tuple[CrowdKind, ...] = get_args(CrowdKind)
COMPLAINT_KINDS: tuple[ComplaintKind, ...] = get_args(ComplaintKind)


class Label(NamedTuple):
    """What one record is; a record without a label is plain traffic of an honest viewer, or a machine's."""

    event_id: str
    room_id: str
    ts: int
    """When it happened."""
    trouble_id: str | None = None
    """The trouble that wrote it; None where it would be there anyway."""
    family: str | None = None
    """Of invalid traffic: the trouble's `family`."""
    is_invalid: bool = False
    feeling: str | None = None
    """Of a comment: `negative`, `positive`, `neutral` (a question), `chatter` or `script`."""
    topic: str | None = None
    """What a `negative` or `positive` comment is about."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that say something, ready for JSON."""
        return {name: value for name, value in self._asdict().items() if value is not None}


@dataclass(slots=True)
class Mark:
    """On whose account records are written; see `Timeline.marked`."""

    trouble_id: str
    family: str | None
    is_invalid: bool
    n_events: int = 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """One injected trouble, half-open in time: `start_ts <= t < end_ts`."""

    kind: TroubleKind
    room_id: str
    channel: str | None
    """The slice it is confined to; None is the whole room."""
    start_ts: int
    end_ts: int
    size: float
    """What the kind says it is, see the class of that kind in `troubles/`."""
    innocent: bool
    """True when an alarm that blames somebody for it would be a false one."""
    cause: str | None
    """The cause a good diagnosis names, in the words of `room.anomalies`; None where there is none to name."""
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
    """The devices of invalid traffic, where they are few; nobody else uses them."""
    ip_block: str | None = None
    trouble_id: str = ""
    family: str | None = None
    """Of invalid traffic: its kind. `bot_burst` is one family, script comments included."""
    is_invalid: bool = False
    """Whether what it injected is invalid traffic."""
    segment: str | None = None
    """The slice of viewers it is confined to, or which its bots pretend to be; None is all."""
    product_id: str | None = None
    ip_blocks: tuple[str, ...] = ()
    """All address blocks of what it injected, where they are few."""
    user_ids: tuple[str, ...] = ()
    """Who was injected; of `carrier_nat` those moved behind its addresses."""
    product_ids: tuple[str, ...] = ()
    """The products that were taken away, once it has begun."""
    order_ids: tuple[str, ...] = ()
    """The orders that were invented, sent back or robbed of their attribution."""
    n_records: int = 0
    """Records that came late, not at all, or robbed of something."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that say something, ready for JSON."""
        told = {name: value for name, value in asdict(self).items() if value is not None and value != ()}
        return {"type": "trouble", **told}


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
