"""Every number of the simulated rooms, in one place and with its unit.

They are chosen, not measured: plausible for a mid-size apparel and household room, and kept where the ratios of a
healthy room lie in the ranges that `tests/unit/simulate/test_rooms.py` asserts. `settings.py` changes them by name, so
that worlds can be made that are not the one a detector was calibrated on; `worlds.py` names some.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from schemas.base import FeedName

DEFAULT_START_TS: Final = 1_748_779_200_000
"""2025-06-01 12:00 UTC, 20:00 in Shanghai: a constant, so that the same seed gives the same bytes."""
ZONE_MS: Final = 8 * 3_600_000
"""The accounts' calendar day is China's: `stat_date` turns at 16:00 UTC."""
SECOND_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Channel:
    """Where viewers come from, and how they behave."""

    name: str
    enters_s: float
    """Viewers a second in a room of size 1 at the reference bid."""
    click_ratio: float
    """Of the viewers who stay, the share that opens a product page."""
    buy_ratio: float
    """Of the product clicks, the share that ends in an order, before the explanation's factor."""
    dwell_factor: float
    bounce_ratio: float
    """Share that leaves within 1-5 s: an honest bounce."""
    is_paid: bool


@dataclass(frozen=True, slots=True)
class PlanKind:
    """One of the platform's knobs; the plan pays for one channel."""

    suffix: str
    channel: str
    bid_kind: Literal["cost_per_action", "roi_goal"]
    reference: float
    """The bid (minor units an order) or the ROI goal at which the channel runs at `enters_s`."""
    click_cost_minor: float
    """Mean cost of a click at the reference."""
    ctr: float
    reporting: Literal["increment", "cumulative"]
    edits_left: int
    min_edit_gap_s: int


@dataclass(frozen=True, slots=True)
class FeedTiming:
    """How late a feed's records arrive, and what its heartbeat may promise."""

    lag_ms: tuple[int, int]
    """Least and largest; skewed to the least."""
    slack_ms: int
    """A heartbeat at h says complete through h - slack: above the largest lag, or it would lie."""
    expected_lag_s: int


CHANNELS: Final = (
    Channel("feed_ads", 0.21, 0.32, 0.185, 1.0, 0.16, is_paid=True),
    Channel("search_ads", 0.08, 0.46, 0.210, 1.2, 0.10, is_paid=True),
    Channel("recommend", 0.15, 0.15, 0.110, 0.8, 0.24, is_paid=False),
    Channel("follow", 0.06, 0.34, 0.220, 1.8, 0.06, is_paid=False),
)

PLAN_KINDS: Final = (
    PlanKind("cpa", "feed_ads", "cost_per_action", 3_600.0, 195.0, 0.042, "increment", 24, 60),
    PlanKind("roi", "search_ads", "roi_goal", 2.4, 260.0, 0.065, "cumulative", 12, 300),
)

FEEDS: Final[dict[FeedName, FeedTiming]] = {
    "view": FeedTiming((80, 900), 1_000, 1),
    "comment": FeedTiming((60, 700), 1_000, 1),
    "order": FeedTiming((300, 4_000), 5_000, 5),
    "spend": FeedTiming((1_000, 4_000), 5_000, 20),
    "plan": FeedTiming((200, 2_000), 3_000, 5),
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A kind of viewer: the factors multiply the channel's and the room's own numbers."""

    weight: float
    dwell_factor: float = 1.0
    click_factor: float = 1.0
    buy_factor: float = 1.0
    comment_factor: float = 1.0


SEGMENTS: Final[dict[str, Segment]] = {
    "general": Segment(55.0, dwell_factor=0.90, click_factor=0.90, buy_factor=0.88, comment_factor=0.90),
    "potential": Segment(30.0, dwell_factor=1.05, click_factor=1.05, buy_factor=1.05, comment_factor=1.10),
    "high_value": Segment(15.0, dwell_factor=1.27, click_factor=1.27, buy_factor=1.25, comment_factor=1.17),
}
"""Their weighted means are 1, so that the room's numbers stay what they say."""


@dataclass(frozen=True, slots=True)
class Bots:
    """What invalid traffic of each family does; how much there is of it is the trouble's `size`."""

    # bot_burst: crude, everything at once.
    burst_devices: int = 8
    burst_dwell_ms: tuple[int, int] = (1_000, 2_000)
    burst_comment_ratio: float = 0.45
    burst_like_ratio: float = 0.15
    burst_texts: int = 3

    # view_bots_fixed: accounts of their own devices and addresses that come back to the second.
    fixed_interval_s: float = 20.0
    fixed_jitter_ms: int = 60
    """Largest deviation from the schedule, either way."""
    fixed_dwell_ms: int = 12_000
    fixed_beat_ms: int = 3_000
    """They report that they are still there this often."""

    # view_bots_random: the hard ones, they only never buy.
    random_accounts: int = 400
    random_blocks: int = 40
    """Address blocks (/24) of the proxies they come from."""
    random_dwell_median_s: float = 22.0
    random_dwell_sigma: float = 0.7
    random_like_ratio: float = 0.10
    random_click_ratio: float = 0.03

    # device_farm: few phones, ever new accounts.
    farm_devices: int = 40
    farm_addresses: int = 6
    farm_dwell_ms: tuple[int, int] = (15_000, 60_000)
    farm_like_ratio: float = 0.20

    # shared_address: devices of their own in one block.
    address_dwell_ms: tuple[int, int] = (3_000, 15_000)
    address_like_ratio: float = 0.05

    # click_farm: paid hands; they open products and never pay.
    hands_devices: int = 60
    hands_accounts: int = 3
    """Accounts a device."""
    hands_blocks: int = 6
    hands_dwell_ms: tuple[int, int] = (8_000, 25_000)
    hands_click_ratio: float = 0.90
    hands_cart_ratio: float = 0.30
    hands_order_ratio: float = 0.02
    """Of the visits, those that end in an order nobody pays."""
    hands_like_ratio: float = 0.30

    # incentive_hunters: people who are rewarded for staying a while.
    task_s: float = 30.0
    """They leave soon after this long."""
    task_over_s: float = 2.0
    """Mean of what they stay longer."""
    task_like_ratio: float = 0.60
    task_follow_ratio: float = 0.35
    task_comment_ratio: float = 0.30
    task_click_ratio: float = 0.12

    # synced_phones: one operator moves a rack of phones.
    rack_phones: int = 80
    rack_accounts: int = 2
    """Accounts a phone; all of them come in turn."""
    rack_blocks: int = 4
    rack_wave_s: int = 45
    """Between two waves."""
    rack_spread_ms: int = 4_000
    """All of a wave have come after it."""
    rack_dwell_ms: tuple[int, int] = (20_000, 40_000)
    rack_like_ratio: float = 0.50
    """Of the waves, those that are told to like."""

    # idle_audience: accounts that are paid to be there.
    idle_blocks: int = 30
    idle_dwell_median_s: float = 75.0
    idle_dwell_sigma: float = 0.6
    idle_like_ratio: float = 0.03

    # script_comments, paraphrase_comments: accounts that stay and write.
    script_accounts: int = 30
    script_texts: int = 4
    script_blocks: int = 3
    script_interval_sigma: float = 0.3
    """Of the log-normal factor on the time between two comments of an account."""


@dataclass(frozen=True, slots=True)
class Crowds:
    """What honest crowds that look like bots do."""

    # celebrity: many who come for a face.
    celebrity_bounce_ratio: float = 0.40
    celebrity_dwell_factor: float = 0.6
    celebrity_click_factor: float = 0.35
    celebrity_buy_factor: float = 0.6
    celebrity_comment_factor: float = 1.6
    celebrity_rise_s: float = 20.0
    """The crowd has come up to its full size after it, and ebbs away with three times that."""

    # organic_surge: the recommendation engine pushes the room; these people buy less.
    surge_click_factor: float = 0.7
    surge_buy_factor: float = 0.8

    # carrier_nat: everybody of a region behind a few addresses.
    nat_addresses: int = 3

    # campus: one address block, one region, all in the breaks.
    campus_break_s: int = 90
    campus_class_s: int = 120
    campus_dwell_factor: float = 0.8


@dataclass(frozen=True, slots=True)
class Parameters:
    """The rest of a room's numbers; `size` multiplies its traffic (and its budgets), nothing else."""

    size: float = 1.0

    # Differences between rooms: sigma of a log-normal factor of mean 1.
    traffic_sigma: float = 0.15
    price_sigma: float = 0.10
    click_cost_sigma: float = 0.10
    conversion_sigma: float = 0.08

    # Session
    target_roas: float = 2.0
    budget_minor: int = 1_200_000
    session_s: int = 4 * 3_600
    stages: tuple[Literal["acquisition", "retention", "promotion"], ...] = ("acquisition", "retention", "promotion")

    # Course of a session and of time
    shape: tuple[float, ...] = (0.75, 1.0, 1.08, 1.1, 1.08, 1.05, 1.0, 0.9, 0.75)
    """Factors on all traffic at evenly spaced moments from the session's first to its last, straight in between."""
    hours: tuple[float, ...] = ()
    """24 factors on all traffic by the hour in China, straight in between the hours' beginnings; empty is no curve."""
    weekend_factor: float = 1.0
    """On all traffic of China's Saturdays and Sundays."""

    # Traffic: waves of the recommendation engine, an AR(1) of log traffic stepped every 10 s.
    wave_keep: float = 0.95
    wave_sigma: float = 0.03
    returning_ratio: float = 0.10
    shared_device_ratio: float = 0.03
    carrier_ratio: float = 0.08
    """Viewers behind one of four address blocks of mobile carriers: an honest concentration."""
    lost_click_ratio: float = 0.07
    """Ad clicks that are billed and never become a viewer."""

    consent_ratio: float = 1.0
    """Of the users, bots too, those who consent; the records of the others say `consent: false` and keep their ids."""
    is_counts_only: bool = False
    """Whether the platform reports no single viewers but sums by channel (`counts`), each `counts_s`."""
    counts_s: int = 10

    # A viewer's stay
    dwell_median_s: float = 30.0
    dwell_sigma: float = 1.0
    dwell_max_s: float = 2_400.0
    view_heartbeat_s: int = 30
    like_ratio: float = 0.22
    follow_ratio: float = 0.02
    share_ratio: float = 0.012
    comment_ratio: float = 0.24
    comment_more_ratio: float = 0.25
    gift_ratio: float = 0.008
    english_ratio: float = 0.08
    cart_ratio: float = 0.22
    """Of the product clicks that end without an order, the share that fills the cart; with one, three times that."""

    # What comments are about; the rest is chatter.
    positive_ratio: float = 0.20
    neutral_ratio: float = 0.16
    negative_ratio: float = 0.07

    # Products on stage
    n_products: int = 6
    explain_s: tuple[int, int] = (120, 240)
    pause_s: tuple[int, int] = (15, 40)
    burst_s: int = 45
    """The end of an explanation, when the link goes up."""
    burst_factor: float = 2.2
    explain_factor: float = 0.8
    pause_factor: float = 0.4
    appeal_sigma: float = 0.15
    """Of the log-normal factor (mean 1) on conversion, by product."""

    # Orders
    prompt_ratio: float = 0.75
    """Orders made within seconds of the click (direct); the others come later (indirect)."""
    prompt_mean_s: float = 8.0
    late_order_mean_s: float = 300.0
    """After 30 s in which nobody makes up their mind."""
    late_order_kind: Literal["exponential", "lognormal", "pareto"] = "exponential"
    late_order_shape: float = 1.5
    """Sigma of the log-normal, exponent of the Pareto tail (above 1); the mean stays what it is."""
    pay_ratio: float = 0.90
    pay_median_s: float = 12.0
    pay_sigma: float = 0.9
    cancel_after_s: int = 900
    refund_ratio: float = 0.10
    """Of paid orders, in the end; the mean over products."""
    refund_sigma: float = 0.5
    """Of the log-normal factor on it, by product."""
    refund_most: float = 0.9
    refund_soon_ratio: float = 0.4
    """Of the refunds, those in remorse, after `refund_mean_s`; the others come days later."""
    refund_mean_s: float = 900.0
    refund_late_median_s: float = 2.0 * 86_400
    refund_late_sigma: float = 0.8
    partial_refund_ratio: float = 0.15
    quantity_tail: float = 2.4
    """P(quantity > n) falls like (n + 1) to this power: heavy, with a mean."""
    quantity_max: int = 12
    amount_sigma: float = 0.20
    currency: str = "CNY"
    """Of the session: settings, spend, gifts and, but for the foreign ones, orders."""
    foreign_ratio: float = 0.0
    """Of the orders, those in another currency, at a fixed rate; the books add amounts as they are written."""
    foreign_currency: str = "USD"
    foreign_rate: float = 7.2

    # The market's answer to a bid `level` times the reference, see `market.py`.
    volume_power: float = 1.2
    price_power: float = 0.5
    click_cost_spread: float = 0.25

    # Reports
    report_s: tuple[int, int] = (10, 60)
    """Between two reports of a plan, even for one plan; the spend feed promises the longest and its lag."""
    plan_report_s: int = 60
    presence_s: int = 30
    feed_heartbeat_s: int = 10
    credit_mean_s: float = 600.0
    """Between the platform's credits for invalid clicks."""
    credit_ratio: float = 0.02

    regions: dict[str, float] = field(
        default_factory=lambda: {
            "guangdong": 18.0,
            "zhejiang": 12.0,
            "jiangsu": 12.0,
            "shandong": 9.0,
            "henan": 8.0,
            "sichuan": 8.0,
            "hunan": 6.0,
            "hubei": 6.0,
            "beijing": 5.0,
            "shanghai": 5.0,
            "hebei": 5.0,
            "liaoning": 3.0,
            "shaanxi": 3.0,
        }
    )
    segments: dict[str, Segment] = field(default_factory=lambda: dict(SEGMENTS))
    channels: dict[str, Channel] = field(default_factory=lambda: {channel.name: channel for channel in CHANNELS})
    plans: dict[str, PlanKind] = field(default_factory=lambda: {kind.suffix: kind for kind in PLAN_KINDS})
    feeds: dict[FeedName, FeedTiming] = field(default_factory=lambda: dict(FEEDS))
    bots: Bots = field(default_factory=Bots)
    crowds: Crowds = field(default_factory=Crowds)

    # Troubles of a scenario: nothing by default, so that each is what its documentation says.
    trouble_size_sigma: float = 0.0
    """Of the log-normal factor (median 1) on a scenario trouble's own size."""
    trouble_jitter_s: float = 0.0
    """A scenario's trouble begins up to this much later, and lasts as long."""
