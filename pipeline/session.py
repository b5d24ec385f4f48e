"""A room's sessions and settings: when one begins, and what a room may say about itself."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from schemas.base import MODE_RANK, Mode, Stage
from schemas.settings import Policy

Meaning = Literal["first", "new", "adopted", "update"]
"""What a `start` can mean."""


class Session(msgspec.Struct, gc=False):
    """One show. `begins_ts` -1 means "whatever came first": the session that no `start` opened has no past."""

    number: int = 0
    begins_ts: int = -1
    start_ts: int = -1
    is_opened_by_start: bool = False
    ended_ts: int = -1

    @property
    def is_active(self) -> bool:
        """It goes on: only then is anything bid or judged."""
        return self.ended_ts < 0

    def meaning(self, ts: int, *, is_first_event: bool, restart_ms: int) -> Meaning:
        """Return what a `start` at `ts` means; one from before the session's end comes late and opens nothing."""
        if is_first_event:
            return "first"
        if not self.is_active:
            return "new" if ts >= self.ended_ts else "update"
        if not self.is_opened_by_start:
            return "adopted"
        return "update" if ts - self.start_ts < restart_ms else "new"

    def start(self, ts: int, meaning: Meaning) -> None:
        """Take a `start` for what it means."""
        if meaning == "update":
            return
        self.start_ts, self.is_opened_by_start = ts, True
        if meaning != "adopted":
            self.begins_ts = ts
        if meaning == "new":
            self.number += 1
            self.ended_ts = -1


class RoomConfig(msgspec.Struct, gc=False):
    """What holds for a room now. None: the deployment's own value."""

    mode: Mode
    stage: Stage = "acquisition"
    currency: str | None = None
    target_roas: float | None = None
    budget_minor: int | None = None
    planned_end_ts: int | None = None
    account_id: str | None = None
    platform: str | None = None
    bid_floor_minor: int | None = None
    bid_cap_minor: int | None = None
    dimensions: tuple[str, ...] | None = None

    def begin_session(self, policy: Policy) -> None:
        """A new show brings its own goal; mode and limits (budget, floor, cap) survive until a signed control."""
        self.stage = policy.default_stage
        self.currency = self.target_roas = self.planned_end_ts = None

    def tighten(self, settings: Any, policy: Policy) -> None:
        """Take what the room says of itself: what is not set yet, or what is tighter."""
        for name in ("stage", "planned_end_ts", "account_id", "platform"):
            value = getattr(settings, name)
            if value is not None:
                setattr(self, name, value)
        if settings.currency is not None and self.currency is None:
            self.currency = settings.currency
        if settings.mode is not None and MODE_RANK[settings.mode] < MODE_RANK[self.mode]:
            self.mode = settings.mode
        if settings.target_roas is not None:
            target = float(settings.target_roas)
            self.target_roas = target if self.target_roas is None else max(self.target_roas, target)
        self.budget_minor = _least(self.budget_minor, settings.budget_minor, policy.bidding.max_budget_minor)
        self.bid_cap_minor = _least(self.bid_cap_minor, settings.bid_cap_minor)
        if settings.bid_floor_minor is not None:
            self.bid_floor_minor = max(self.bid_floor_minor or 0, settings.bid_floor_minor)
        if settings.dimensions is not None:
            so_far = policy.signals.dimensions if self.dimensions is None else self.dimensions
            self.dimensions = tuple(name for name in so_far if name in settings.dimensions)

    def set(self, settings: Any, policy: Policy) -> None:
        """Take a signed control's settings, looser ones too, within the deployment's limits."""
        for name in (
            "stage", "planned_end_ts", "account_id", "platform", "bid_floor_minor", "bid_cap_minor",
        ):  # fmt: skip
            value = getattr(settings, name)
            if value is not None:
                setattr(self, name, value)
        if settings.currency is not None and self.currency is None:
            self.currency = settings.currency
        if settings.target_roas is not None:
            self.target_roas = float(settings.target_roas)
        if settings.budget_minor is not None:
            self.budget_minor = _least(settings.budget_minor, policy.bidding.max_budget_minor)
        if settings.dimensions is not None:
            self.dimensions = tuple(dict.fromkeys(settings.dimensions))
        if settings.mode is not None:
            self.set_mode(settings.mode, policy)

    def set_mode(self, mode: Mode, policy: Policy) -> None:
        """Set the mode, at most as loose as the deployment allows."""
        self.mode = min(mode, policy.bidding.max_mode, key=MODE_RANK.__getitem__)


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)
