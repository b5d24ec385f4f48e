"""The one settings tree: `Policy` is what decides (it travels in the log), the rest is how a process runs.

Every number has its unit in its name and its source in its description: [research] a rival's or a platform's
published practice, [choice] ours, to be replaced by a measurement. Sources of values (environment, TOML file) are
read at the edge; this module only says what is valid.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from schemas.base import MAX_INTEGER, MODE_RANK, Currency, Dimension, Lang, Mode, MoneyMinor, Severity, Stage

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1_000_000)]
Seconds = Annotated[int, Field(ge=1, le=31 * 86_400)]


class OneOf:
    """A check for a few integers; a Literal would refuse the text of an environment variable."""

    def __init__(self, *allowed: int) -> None:
        self.allowed = allowed

    def __call__(self, value: int) -> int:
        """Return `value` if it is one of them."""
        if value not in self.allowed:
            msg = f"must be one of {', '.join(map(str, self.allowed))}, got {value}"
            raise ValueError(msg)
        return value


TickMs = Annotated[int, AfterValidator(OneOf(500, 1_000)), WithJsonSchema({"type": "integer", "enum": [500, 1_000]})]
WindowS = Annotated[
    int, AfterValidator(OneOf(300, 900, 3_600)), WithJsonSchema({"type": "integer", "enum": [300, 900, 3_600]})
]


class Section(BaseModel):
    """A part of the tree: a misspelt name is an error, never ignored."""

    # Inputs stay out of error texts: one of them may be a secret.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="after")
    def _within_json(self) -> Section:
        for name, value in self:
            if isinstance(value, int) and abs(value) > MAX_INTEGER:
                msg = f"{name} must be within +-2^53, got {value}"
                raise ValueError(msg)
        return self


class EngineSettings(Section):
    """The log's clock and what goes out when."""

    tick_ms: TickMs = Field(500, description="evaluations fall on its multiples [contract]")
    emit_interval_ms: int = Field(5_000, ge=500, le=60_000, description="signals of a room at most this often")
    channels_interval_ms: int = Field(30_000, ge=500, le=600_000, description="the same for its channels")
    visit_interval_ms: int = Field(1_000, ge=500, le=60_000, description="a room with news is judged this often")
    visit_after_events: int = Field(10, ge=1, le=1_000, description="fewer wait for the room's next emission [choice]")
    room_events_per_s: int = Field(
        5_000,
        ge=2,
        le=1_000_000,
        description="of a room; beyond, until the next tick, comments are not read and heartbeats not noted [measured]",
    )
    heartbeat_interval_ms: int = Field(5_000, ge=1_000, le=20_000, description="of a partition [contract]")
    max_channels: int = Field(16, ge=1, le=64, description="channels of a room told apart; the rest are `other`")
    recent_ids_ms: int = Field(60_000, ge=60_000, le=600_000, description="event ids remembered at least [contract]")
    ledger_ms: int = Field(72 * 3_600_000, ge=3_600_000, description="orders of a past session are kept [contract]")
    restart_ms: int = Field(600_000, ge=0, description="a second start within it is an update [contract]")
    consent_default: bool = Field(True, description="consent of an event that does not say")

    @model_validator(mode="after")
    def _multiples(self) -> EngineSettings:
        for name in ("emit_interval_ms", "channels_interval_ms", "visit_interval_ms", "heartbeat_interval_ms"):
            if getattr(self, name) % self.tick_ms:
                msg = f"{name} must be a multiple of tick_ms ({self.tick_ms}), got {getattr(self, name)}"
                raise ValueError(msg)
        return self


class FeedSettings(Section):
    """When a feed is late and when it is dead, in seconds behind the log's clock."""

    late_after_s: int = Field(60, ge=1, description="with heartbeats: beyond the producer's expected lag [choice]")
    dead_after_s: int = Field(180, ge=1, description="the same; a dead feed freezes bids [choice]")
    quiet_after_s: int = Field(300, ge=1, description="complete, but without one event of its kind [choice]")
    gap_factor_late: float = Field(6.0, gt=1, description="without heartbeats: times its own usual gap [choice]")
    gap_factor_dead: float = Field(20.0, gt=1, description="the same [choice]")
    min_gaps: int = Field(10, ge=2, description="gaps seen before a feed without heartbeats is judged")

    @model_validator(mode="after")
    def _order(self) -> FeedSettings:
        if self.dead_after_s <= self.late_after_s:
            msg = f"dead_after_s must exceed late_after_s ({self.late_after_s}), got {self.dead_after_s}"
            raise ValueError(msg)
        if self.gap_factor_dead <= self.gap_factor_late:
            msg = f"gap_factor_dead must exceed gap_factor_late ({self.gap_factor_late}), got {self.gap_factor_dead}"
            raise ValueError(msg)
        return self


class QualitySettings(Section):
    """Evidence of invalid traffic."""

    bounce_ms: int = Field(5_000, ge=500, description="left within: a bounce [contract]")
    short_dwell_ms: int = Field(3_000, ge=500, description="script bots stay 1-3 s [research]")
    repeat_users: int = Field(5, ge=2, description="users with one long text within a minute [research]")
    repeat_own: int = Field(3, ge=2, description="one user's repeats of a text within a minute [choice]")
    min_repeat_characters: int = Field(6, ge=1, description="shorter texts (666, 扣1) are a crowd's echo [choice]")
    device_users: int = Field(3, ge=1, description="more users than this on a device in ten minutes [research]")
    evidence_nats: float = Field(
        6.0, gt=0, description="nats; a family of evidence speaks where chance does it less than e^-this [simulated]"
    )
    least_difference: Share = Field(
        0.25, description="total variation between a pool's stays and honest ones that matters; half for outcomes"
    )
    least_odd: int = Field(8, ge=1, description="odd records (shared source, copied text) before an inquest [choice]")
    inquest_interval_ms: int = Field(5_000, ge=500, description="ms between two inquests of a room [choice]")
    prior_ratio: Share = Field(0.02, description="invalid share expected before any evidence [choice]")
    prior_weight: int = Field(2, ge=1, description="events that this expectation counts for [simulated]")
    min_judged: int = Field(30, ge=1, description="judged events before a ratio is told [research]")
    full_dwell_s: float = Field(30.0, gt=0, description="mean dwell that loses no score [choice]")
    full_interaction_ratio: Share = Field(0.10, description="interaction that loses no score [choice]")


class SentimentSettings(Section):
    """When comments are an opinion, and when negative ones crowd in one place."""

    negative_below_milli: int = Field(-100, le=0, ge=-1000, description="a comment at or below is negative [choice]")
    min_crowded: int = Field(
        10, ge=1, description="negative comments of a product, minute or topic before it is said to hold too many"
    )
    crowd_difference: Share = Field(
        0.10, description="its share of the negative comments is so much above its share of the opinions [choice]"
    )


class SignalsSettings(Section):
    """Signals by other dimensions than the channel, and what is told of them when a session is over."""

    dimensions: tuple[Dimension, ...] = Field((), description="fields by whose values signals are told too")
    # At 48 six full dimensions fill 7 MB of a snapshot, which may have 8 MiB; a signal stays below Kafka's 1 MB.
    max_slices: int = Field(16, ge=1, le=48, description="values of a dimension told apart; the rest are `other`")
    feedback_interval_s: int = Field(
        3_600, ge=60, le=86_400, description="an ended session's outcome is corrected at most this often [choice]"
    )

    @field_validator("dimensions")
    @classmethod
    def _once(cls, dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
        if len(set(dimensions)) < len(dimensions):
            msg = f"must name each dimension once, got {', '.join(dimensions)}"
            raise ValueError(msg)
        return dimensions


class RoiSettings(Section):
    """Return: what is due, what is still to come."""

    conversion_delay_s: int = Field(
        300, ge=1, le=86_400, description="mean from touch to payment: the delay curve's prior [choice]"
    )
    conversion_delays_s: dict[str, Seconds] = Field(
        {}, description="the same by stage ('promotion'), channel ('*/search_ads') or both ('promotion/search_ads')"
    )
    maturity_floor: Share = Field(0.3, description="no matured return below it [choice]")
    min_orders: int = Field(5, ge=2, description="attributed orders before a band is told")
    min_impressions: int = Field(200, ge=1, description="before `ctr` is told [choice; research acts on 2,000]")
    min_clicks: int = Field(30, ge=1, description="ad clicks before `cvr`, product clicks before `cart_ratio`")
    min_orders_created: int = Field(10, ge=1, description="before `pay_ratio` is told [choice]")
    refund_ratio: Share = Field(0.0, description="of GMV expected back: the refund curve's prior; 0 claims none")
    refund_delay_s: int = Field(86_400, ge=60, le=31 * 86_400, description="mean from payment to refund: its prior")
    margin_ratio: Share | None = Field(
        None, description="net margin of orders without costs of their own; unknown leaves contribution out"
    )
    new_customer_weight: float = Field(1.0, ge=0, le=100, description="worth of a new customer's order to a bid")
    returning_customer_weight: float = Field(1.0, ge=0, le=100, description="the same of a returning one's")


class DetectSettings(Section):
    """Deviation from a room's own past."""

    sample_interval_ms: int = Field(10_000, ge=500, le=300_000, description="the past is sampled this often [choice]")
    lag_ms: int = Field(
        60_000, ge=0, le=900_000, description="a sample joins the past this late, so trouble cannot hide"
    )
    history: int = Field(90, ge=20, le=1_000, description="samples of the past kept a metric [choice: 15 min]")
    min_samples: int = Field(20, ge=10, description="samples before a metric is judged [research: 30]")
    open_z: float = Field(4.0, gt=1, description="robust deviations that count as strange [choice]")
    clear_z: float = Field(2.0, gt=0, description="half of it clears [research]")
    of_last: int = Field(5, ge=1, le=20, description="samples looked at [research]")
    needed: int = Field(3, ge=1, le=20, description="strange ones among them that open [research]")
    min_open_ms: int = Field(30_000, ge=0, description="an anomaly stays open at least [choice]")
    reopen_ms: int = Field(120_000, ge=0, description="the same trouble within it re-opens the same anomaly [choice]")
    update_interval_ms: int = Field(60_000, ge=1_000, description="an open anomaly is told again at most this often")

    @model_validator(mode="after")
    def _consistent(self) -> DetectSettings:
        if self.needed > self.of_last:
            msg = f"needed must be <= of_last ({self.of_last}), got {self.needed}"
            raise ValueError(msg)
        if self.clear_z >= self.open_z:
            msg = f"clear_z must be below open_z ({self.open_z}), got {self.clear_z}"
            raise ValueError(msg)
        if self.min_samples > self.history:
            msg = f"min_samples must be <= history ({self.history}), got {self.min_samples}"
            raise ValueError(msg)
        return self


class IncidentSettings(Section):
    """Severity by money at risk, and who has to act by when."""

    s1_budget_share: Share = Field(0.05, description="of the session's budget at risk in 10 min [research]")
    s2_budget_share: Share = Field(0.02, description="[research]")
    s3_budget_share: Share = Field(0.005, description="[research]")
    ack_s: dict[Severity, Seconds] = Field({"S1": 120, "S2": 300, "S3": 1_800}, description="[research]")
    resolve_s: dict[Severity, Seconds] = Field(
        {"S1": 600, "S2": 1_800, "S3": 7_200}, description="[research; S3's is ours]"
    )
    owners: dict[str, str] = Field(
        {
            "ivt": "traffic",
            "creative": "content",
            "targeting": "traffic",
            "content": "content",
            "landing_page": "tech",
            "payment": "tech",
            "stock_price": "product",
            "auction_pressure": "traffic",
            "organic_surge": "traffic",
            "refund_wave": "product",
            "delivery_stopped": "traffic",
            "tracking": "tech",
            "unknown": "traffic",
        },
        description="team that acts, by cause",
    )
    runbook_url: str = Field("docs/runbook.md", description="where each cause has a heading")

    @model_validator(mode="after")
    def _order(self) -> IncidentSettings:
        for graver, milder in (("s1", "s2"), ("s2", "s3")):
            limit, share = getattr(self, f"{graver}_budget_share"), getattr(self, f"{milder}_budget_share")
            if share >= limit:
                msg = f"{milder}_budget_share must be below {graver}_budget_share ({limit}), got {share}"
                raise ValueError(msg)
        return self


class BiddingSettings(Section):
    """One step at a time, within limits a seller can read."""

    mode: Mode = Field("shadow", description="of a new room [contract]")
    max_mode: Mode = Field("auto", description="what a signed control can loosen a room to")
    floor_minor: MoneyMinor = Field(10, description="no bid below; a seller sets it per deployment [choice]")
    cap_minor: MoneyMinor = Field(100_000, description="no bid above [choice]")
    goal_floor: Positive = Field(0.01, description="no ROI goal below [research: platform's range]")
    goal_cap: Positive = Field(100.0, description="no ROI goal above [research: platform's range]")
    max_budget_minor: MoneyMinor | None = Field(None, description="no room's budget above")
    default_target_roas: Positive | None = Field(None, description="of rooms that name none")
    step_ratio: Share = Field(0.10, description="largest change a command [research]")
    brake_ratio: Share = Field(0.20, description="largest emergency cut a command [research]")
    hourly_ratio: Share = Field(0.30, description="largest net change in a rolling hour [research]")
    cooldown_up_s: int = Field(300, ge=10, description="[research]")
    cooldown_down_s: int = Field(120, ge=10, description="[research]")
    max_per_session: int = Field(12, ge=0, description="commands that move a knob of one plan [research]")
    dead_band: Share = Field(0.10, description="no step while return is this close to the target [research]")
    min_orders: int = Field(10, ge=1, description="attributed orders in the window [research]")
    min_spend_minor: MoneyMinor = Field(10_000, description="spend in the window [research: 100 units of currency]")
    min_maturity: Share = Field(0.6, description="of the window's return [research]")
    decision_window_s: WindowS = Field(900, description="window whose return is judged")
    interval_ms: int = Field(5_000, ge=500, description="a plan is looked at this often")
    lifetime_ms: int = Field(60_000, ge=1_000, le=60_000, description="until a command expires [contract]")
    ack_timeout_ms: int = Field(120_000, ge=1_000, description="without an answer the hold says so; no further step")
    hold_interval_ms: int = Field(60_000, ge=1_000, description="an unchanged hold is told again this often")
    absurd_order_factor: int = Field(20, ge=2, description="times the room's median order [design]")

    @model_validator(mode="after")
    def _consistent(self) -> BiddingSettings:
        if self.floor_minor > self.cap_minor:
            msg = f"floor_minor must be <= cap_minor ({self.cap_minor}), got {self.floor_minor}"
            raise ValueError(msg)
        if self.goal_floor > self.goal_cap:
            msg = f"goal_floor must be <= goal_cap ({self.goal_cap}), got {self.goal_floor}"
            raise ValueError(msg)
        if MODE_RANK[self.mode] > MODE_RANK[self.max_mode]:
            msg = f"mode must not be looser than max_mode ({self.max_mode!r}), got {self.mode!r}"
            raise ValueError(msg)
        return self


class CurrencySettings(Section):
    """How other currencies' money is taken into a session."""

    default: Currency | None = Field(None, description="of rooms whose settings name none")
    rates: dict[str, str] = Field(
        default_factory=dict,
        description="'USD:CNY' = '7.1': one major unit of the first in major units of the second",
    )

    @field_validator("rates")
    @classmethod
    def _rates(cls, rates: dict[str, str]) -> dict[str, str]:
        for pair, rate in rates.items():
            one, colon, other = pair.partition(":")
            if not (colon and all(len(c) == 3 and c.isascii() and c.isalpha() and c.isupper() for c in (one, other))):
                msg = f"rates key must be like 'USD:CNY', got {pair!r}"
                raise ValueError(msg)
            whole, _, places = rate.partition(".")
            digits = whole + places
            if not (digits.isascii() and digits.isdigit() and len(digits) <= 18 and int(digits) > 0):
                msg = f"rates[{pair!r}] must be a positive decimal as text, got {rate!r}"
                raise ValueError(msg)
        return rates


class Policy(Section):
    """All that decides: it is written into the log, takes effect at an offset, and is named by its version."""

    engine: EngineSettings = EngineSettings()
    feeds: FeedSettings = FeedSettings()
    quality: QualitySettings = QualitySettings()
    sentiment: SentimentSettings = SentimentSettings()
    signals: SignalsSettings = SignalsSettings()
    roi: RoiSettings = RoiSettings()
    detect: DetectSettings = DetectSettings()
    incident: IncidentSettings = IncidentSettings()
    bidding: BiddingSettings = BiddingSettings()
    currency: CurrencySettings = CurrencySettings()
    default_stage: Stage = "acquisition"

    def version(self) -> str:
        """Return 12 hex digits that name this policy: equal policies have equal names on every machine."""
        text = orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(text, digest_size=6).hexdigest()


class KafkaSettings(Section):
    """Topics as this deployment creates them."""

    partitions: int = Field(12, ge=1, le=1_000, description="of every room topic; cannot grow afterwards")
    replication_factor: int = Field(1, ge=1, le=10)
    min_insync_replicas: int | None = Field(
        None, ge=1, le=10, description="copies that a write waits for; the broker's own default if not given"
    )
    app_id: str = Field("roompulse", min_length=1, max_length=100, description="consumer group and changelog prefix")
    session_timeout_s: float = Field(
        6.0, ge=1, description="the least a broker allows by itself; half of what a worker's death costs [measured]"
    )
    heartbeat_interval_s: float = Field(1.0, gt=0, description="also how late a worker hears of a rebalance [measured]")
    rebalance_timeout_s: float = Field(10.0, ge=1)

    @model_validator(mode="after")
    def _heartbeat(self) -> KafkaSettings:
        if self.heartbeat_interval_s * 2 > self.session_timeout_s:
            msg = (
                "heartbeat_interval_s must be at most half of session_timeout_s "
                f"({self.session_timeout_s}), got {self.heartbeat_interval_s}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _copies(self) -> KafkaSettings:
        if self.min_insync_replicas is not None and self.min_insync_replicas > self.replication_factor:
            msg = (
                f"min_insync_replicas must be at most replication_factor ({self.replication_factor}), "
                f"got {self.min_insync_replicas}"
            )
            raise ValueError(msg)
        return self


class WorkerSettings(Section):
    """One worker process."""

    data_dir: str = Field(".roompulse", min_length=1, description="local tables; can be deleted at any time")
    web_port: int = Field(0, ge=0, le=65_535, description="status page on loopback; 0 turns it off")
    snapshot_interval_s: float = Field(
        5.0, gt=0, le=600, description="each room that changed is written once in this time; twice of it is repeated"
    )
    snapshot_max_interval_s: float = Field(
        60.0, gt=0, le=3_600, description="the same when snapshots would else take more bytes than came in"
    )
    standby_replicas: int = Field(
        0, ge=0, le=5, description="workers that hold a partition's snapshots ready beside its own; 1 in production"
    )
    start_timeout_s: float = Field(60.0, gt=0, description="how long a start waits for the broker and its topics")
    huge_pages: bool = Field(True, description="start again with huge pages where Linux and glibc can [measured]")
    clock: bool = Field(True, description="write ticks into own partitions; off when a log is played in its own time")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else json")

    @model_validator(mode="after")
    def _intervals(self) -> WorkerSettings:
        if self.snapshot_max_interval_s < self.snapshot_interval_s:
            msg = (
                f"snapshot_max_interval_s must be at least snapshot_interval_s ({self.snapshot_interval_s}), "
                f"got {self.snapshot_max_interval_s}"
            )
            raise ValueError(msg)
        return self


class Settings(Section):
    """Everything a process is told: `ROOMPULSE_<SECTION>__<FIELD>`, or `[section]` in the TOML file."""

    broker: str | None = Field(None, description="kafka://host:port[,host:port]")
    privacy_key: SecretStr | None = None
    control_key: SecretStr | None = None
    lang: Lang = "en"
    engine: EngineSettings = Policy().engine
    feeds: FeedSettings = Policy().feeds
    quality: QualitySettings = Policy().quality
    sentiment: SentimentSettings = Policy().sentiment
    signals: SignalsSettings = Policy().signals
    roi: RoiSettings = Policy().roi
    detect: DetectSettings = Policy().detect
    incident: IncidentSettings = Policy().incident
    bidding: BiddingSettings = Policy().bidding
    currency: CurrencySettings = Policy().currency
    default_stage: Stage = "acquisition"
    kafka: KafkaSettings = KafkaSettings()
    worker: WorkerSettings = WorkerSettings()
    trust_log: bool = Field(False, description="take unsigned controls and acks: only for files somebody vouches for")

    @field_validator("broker")
    @classmethod
    def _broker(cls, url: str | None) -> str | None:
        if url is None:
            return None
        host_ports = [host.rpartition(":") for host in url.removeprefix("kafka://").split(",")]
        fits = all(
            host and not set(host) & set(" /@") and port.isascii() and port.isdigit() and 0 < int(port) < 65_536
            for host, _, port in host_ports
        )
        if not url.startswith("kafka://") or not fits:
            msg = f"must be kafka://host:port[,host:port], got {url!r}"
            raise ValueError(msg)
        return url

    @field_validator("privacy_key", "control_key")
    @classmethod
    def _key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < 32:
            msg = "must have at least 32 characters (its value is not shown)"
            raise ValueError(msg)
        return key

    @property
    def policy(self) -> Policy:
        """The part that decides."""
        return Policy(**{name: getattr(self, name) for name in Policy.model_fields})
