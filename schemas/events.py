"""What may be written into a room's log, `room.events`: one model a `type`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas.base import (
    EVERY_ROOM,
    MAX_TEXT_CHARACTERS,
    CalendarDate,
    Count,
    Currency,
    Decimal6,
    Dimension,
    FeedName,
    Identifier,
    Mode,
    MoneyMinor,
    PositiveDecimal,
    SignedCount,
    SignedMoneyMinor,
    Stage,
    TimestampMs,
    WireModel,
)

Ratio = Annotated[float, Field(gt=0, le=1_000_000)] | PositiveDecimal
"""A target or goal: a JSON number, or a decimal as text."""


class Event(WireModel):
    """The fields every record of the log has."""

    event_id: Identifier
    room_id: Identifier
    ts: TimestampMs
    source: Identifier | None = None
    channel: Identifier | None = None
    plan_id: Identifier | None = None
    campaign_id: Identifier | None = None
    creative_id: Identifier | None = None
    segment: Identifier | None = None
    region: Identifier | None = None
    host_id: Identifier | None = None
    partner_id: Identifier | None = None
    account_id: Identifier | None = None
    product_id: Identifier | None = None
    user_id: Identifier | None = None
    device_id: Identifier | None = None
    ip: Identifier | None = None
    consent: bool | None = None

    @staticmethod
    def problem(event: Any) -> tuple[str, str] | None:  # noqa: ARG004 - the subclasses' rules read it
        """Return (field, rule) of the first rule broken across fields, None when there is none.

        Takes the model or the struct that `schemas.decode` derives from it: one rule, two decoders.
        """
        return None

    @model_validator(mode="after")
    def _rules_across_fields(self) -> Event:
        broken = type(self).problem(self)
        if broken is not None:
            field, rule = broken
            msg = f"{field} {rule}"
            raise ValueError(msg)
        return self


class RoomSettings(WireModel):
    """What a room's own producer may say about it; it can only tighten what the deployment allows."""

    stage: Stage | None = None
    currency: Currency | None = None
    target_roas: Ratio | None = None
    budget_minor: MoneyMinor | None = None
    planned_end_ts: TimestampMs | None = None
    mode: Mode | None = None
    account_id: Identifier | None = None
    platform: Identifier | None = None
    bid_floor_minor: MoneyMinor | None = None
    bid_cap_minor: MoneyMinor | None = None
    dimensions: list[Dimension] | None = None


class RoomEvent(Event):
    """A session begins, changes its settings, or ends."""

    type: Literal["room"]
    action: Literal["start", "update", "end"]
    settings: RoomSettings | None = None


class ViewEvent(Event):
    """A viewer enters, is still there, or leaves."""

    type: Literal["view"]
    action: Literal["enter", "heartbeat", "leave"]
    session_id: Identifier
    dwell_ms: Count | None = None

    @staticmethod
    def problem(event: Any) -> tuple[str, str] | None:
        """A `leave` tells how long the viewer stayed."""
        if event.action == "leave" and event.dwell_ms is None:
            return "dwell_ms", "is required when action is 'leave'"
        return None


class PresenceEvent(Event):
    """The platform's own count of viewers now."""

    type: Literal["presence"]
    n_online: Count


class InteractionEvent(Event):
    """A viewer does something that is not a comment."""

    type: Literal["interaction"]
    action: Literal["like", "share", "follow", "product_click", "add_to_cart"]


class CommentEvent(Event):
    """A viewer writes; the text never leaves the log."""

    type: Literal["comment"]
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]


class OrderEvent(Event):
    """One step in the life of an order."""

    type: Literal["order"]
    order_id: Identifier
    status: Literal["created", "paid", "refunded", "cancelled"]
    amount_minor: MoneyMinor
    currency: Currency
    quantity: Count | None = None
    attribution: Literal["direct", "indirect", "organic", "unknown"] | None = None
    touch_ts: TimestampMs | None = None
    goods_cost_minor: MoneyMinor | None = None
    commission_minor: MoneyMinor | None = None
    is_new_customer: bool | None = None


class GiftEvent(Event):
    """A virtual gift: money, but never merchandise value."""

    type: Literal["gift"]
    amount_minor: MoneyMinor
    currency: Currency


class SpendEvent(Event):
    """What a plan cost: an increment, the day's totals so far, or a signed correction."""

    type: Literal["spend"]
    plan_id: Identifier
    impressions: SignedCount
    clicks: SignedCount
    cost_minor: SignedMoneyMinor
    currency: Currency
    reporting: Literal["increment", "cumulative", "adjust"] | None = None
    stat_date: CalendarDate | None = None
    report_ts: TimestampMs | None = None

    @staticmethod
    def problem(event: Any) -> tuple[str, str] | None:
        """Only `adjust` may be negative; totals name their day and their moment."""
        if event.reporting != "adjust":
            for field in ("impressions", "clicks", "cost_minor"):
                if getattr(event, field) < 0:
                    return field, "must be >= 0 unless reporting is 'adjust'"
        if event.reporting == "cumulative":
            for field in ("stat_date", "report_ts"):
                if getattr(event, field) is None:
                    return field, "is required when reporting is 'cumulative'"
        return None


class PlanEvent(Event):
    """The knob itself, as the platform shows it."""

    type: Literal["plan"]
    plan_id: Identifier
    status: Literal["delivering", "paused", "review", "budget_out", "balance_out", "ended"] | None = None
    bid_kind: Literal["cost_per_action", "roi_goal", "none"] | None = None
    bid_minor: MoneyMinor | None = None
    roi_goal: Ratio | None = None
    budget_minor: MoneyMinor | None = None
    budget_left_minor: MoneyMinor | None = None
    budget_period: Literal["day", "session"] | None = None
    learning_state: Literal["learning", "learned", "failed"] | None = None
    protection_state: Literal["none", "in_effect", "void"] | None = None
    edits_left: Count | None = None
    min_edit_gap_s: Count | None = None
    changed_by: Literal["us", "human", "platform", "other"] | None = None


class ProductEvent(Event):
    """What is on the shelf and on stage."""

    type: Literal["product"]
    product_id: Identifier
    action: Literal["list", "delist", "explain_start", "explain_end", "price", "stock", "coupon"]
    stock: Count | None = None
    price_minor: MoneyMinor | None = None


class CountsEvent(Event):
    """Increments from platforms that report no single viewers."""

    type: Literal["counts"]
    n_enters: Count | None = None
    n_product_clicks: Count | None = None
    n_add_to_cart: Count | None = None
    n_interactions: Count | None = None
    n_comments: Count | None = None


class FeedEvent(Event):
    """A producer's word that it has sent everything up to a moment."""

    type: Literal["feed"]
    feed: FeedName
    complete_through_ts: TimestampMs
    expected_lag_s: Count | None = None


class TickEvent(Event):
    """Time goes on though nothing else is written."""

    type: Literal["tick"]
    every_ms: Count | None = Field(
        default=None, description="its writer goes on writing one this often while it is at work; 0 while it is behind"
    )


ControlAction = Literal[
    "set_mode",
    "kill_switch",
    "approve",
    "reject",
    "ack_anomaly",
    "resolve_anomaly",
    "silence",
    "override_bid",
    "exclude_window",
    "feedback",
    "update_settings",
]
AckStatus = Literal["accepted", "applied", "rejected", "failed", "expired", "noop", "unknown"]


class SignedEvent(Event):
    """A record only the pipeline's bridge writes; `sig` is HMAC-SHA256 under the key that `kid` names."""

    kid: Identifier | None = None
    sig: Annotated[str, Field(max_length=128)] | None = None


class ControlEvent(SignedEvent):
    """An operator's action, or the worker's own policy taking effect."""

    type: Literal["control"]
    control_id: Identifier
    actor: Identifier
    action: ControlAction
    args: dict[str, Any] = Field(default_factory=dict)


class AckEvent(SignedEvent):
    """What became of a command."""

    type: Literal["ack"]
    command_id: Identifier
    status: AckStatus
    observed_value: Count | Decimal6 | None = None
    detail: Annotated[str, Field(max_length=1_000)] | None = None

    @staticmethod
    def problem(event: Any) -> tuple[str, str] | None:
        """An answer belongs to one room's command."""
        return ("room_id", "must be one room, got '*'") if event.room_id == EVERY_ROOM else None


EVENT_MODELS: tuple[type[Event], ...] = (
    RoomEvent,
    ViewEvent,
    PresenceEvent,
    InteractionEvent,
    CommentEvent,
    OrderEvent,
    GiftEvent,
    SpendEvent,
    PlanEvent,
    ProductEvent,
    CountsEvent,
    FeedEvent,
    TickEvent,
    ControlEvent,
    AckEvent,
)
