"""`audience.feedback`: what each audience segment of a session came to, for whoever keeps user tags."""

from __future__ import annotations

from pydantic import Field

from schemas.base import Count, Currency, Identifier, TimestampMs, WireModel


class SegmentOutcome(WireModel):
    """One segment's session. What is not known is left out: a ratio under its minimum sample, money nobody reported."""

    n_visits: Count | None = Field(default=None, description="enters")
    valid_ratio: float | None = Field(default=None, description="1 - `ivt_ratio`; 30 judged events at least")
    valid_low: float | None = Field(default=None, description="its 90 % interval")
    valid_high: float | None = None
    n_interactions: Count | None = None
    n_comments: Count | None = None
    actions_per_visit: float | None = Field(
        default=None, description="interactions and comments a visit; 30 visits at least"
    )
    dwell_mean_s: float | None = Field(default=None, description="30 ended visits at least")
    n_orders: int | None = Field(default=None, description="paid")
    n_buyers: Count | None = Field(default=None, description="users who paid: exact up to 512, then within 2 %")
    n_refunds: int | None = None
    gmv_minor: int | None = Field(default=None, description="paid; refunds are not taken off")
    refund_minor: int | None = None
    spend_minor: int | None = Field(default=None, description="known where spend reports name a segment")
    roas_valid: float | None = Field(
        default=None, description="attributed orders less refunds and invalid traffic's, per unit of spend"
    )
    roas_maturity: float | None = Field(default=None, description="share of what that spend brings that is due, 0..1")


class AudienceFeedback(WireModel):
    """The outcome of one session, at its end, and again (same id, higher `revision`) when late money changes it."""

    feedback_id: Identifier
    revision: int = Field(description="from 1; a message replaces those before it")
    room_id: Identifier
    ts: TimestampMs
    since_ts: TimestampMs = Field(description="since when segments were counted: the session's beginning, or later")
    ended_ts: TimestampMs | None = Field(default=None, description="left out where nothing ended it but the next one")
    currency: Currency | None = None
    roas_maturity: float | None = Field(
        default=None, description="of the whole room: how much of its return is due by now, 0..1"
    )
    segments: dict[str, SegmentOutcome]
