"""A plan as the platform last showed it, and what we did to it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

MICRO: Final = 1_000_000
"""Goals are kept in millionths: integers decide."""
LARGEST_GOAL_MICRO: Final = 10**15
"""A goal of a billion buys nothing more than this one, and stays within 64 bits."""


def goal_micro(goal: float | str) -> int:
    """Return a ROI goal in millionths.

    >>> goal_micro(2.5), goal_micro("3.000001")
    (2500000, 3000001)
    """
    return min(int((Decimal(str(goal)) * MICRO).to_integral_value()), LARGEST_GOAL_MICRO)


def goal_text(micro: int) -> str:
    """Return millionths as the decimal text that commands carry.

    >>> goal_text(2500000), goal_text(3000000)
    ('2.5', '3')
    """
    whole, rest = divmod(micro, MICRO)
    return f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)


class OpenCommand(msgspec.Struct, gc=False):
    """A command whose end is not known yet."""

    command_id: str
    revision: int
    ts: int
    expires_ts: int
    value: int
    status: Literal["issued", "pending_approval", "approved"]
    message: dict[str, Any]
    is_accepted: bool = False


class Plan(msgspec.Struct, gc=False):
    """One plan of a room: its knob (minor units, or millionths of a goal), its pace, its history of ours."""

    plan_id: str
    channel: str | None = None
    status: str | None = None
    bid_kind: str | None = None
    knob: int | None = None
    budget_minor: int | None = None
    budget_left_minor: int | None = None
    learning_state: str | None = None
    protection_state: str | None = None
    edits_left: int | None = None
    min_edit_gap_s: int = 0
    seen_ts: int = -1
    changed_ms: int = -1
    seq: int = 0
    n_moves: int = 0
    moves: list[tuple[int, int, int]] = msgspec.field(default_factory=list)
    last_up_ms: int = -1
    last_down_ms: int = -1
    open: OpenCommand | None = None
    is_outcome_unknown: bool = False
    hold_code: str = ""
    hold_told_ms: int = -1

    @property
    def is_goal(self) -> bool:
        """The knob is a ROI goal: raising it means less spend."""
        return self.bid_kind == "roi_goal"

    def observe(self, event: Any) -> None:
        """Take what a `plan` event shows; older ones than the newest are left aside."""
        if event.ts < self.seen_ts:
            return
        self.seen_ts = event.ts
        for name in (
            "channel", "status", "bid_kind", "budget_minor", "budget_left_minor", "learning_state",
            "protection_state", "edits_left", "min_edit_gap_s",
        ):  # fmt: skip
            value = getattr(event, name)
            if value is not None:
                setattr(self, name, value)
        knob = None
        if self.bid_kind == "cost_per_action" and event.bid_minor is not None:
            knob = event.bid_minor
        elif self.bid_kind == "roi_goal" and event.roi_goal is not None:
            knob = goal_micro(event.roi_goal)
        if knob is not None and knob != self.knob:
            if self.knob is not None:
                self.changed_ms = event.ts
            self.knob = knob
        if knob is not None:
            self._read_back(event.ts)

    def _read_back(self, ts: int) -> None:
        """The platform showed the knob: that settles what became of a command that is over."""
        self.is_outcome_unknown = False
        if self.open is not None and (ts >= self.open.expires_ts or self.knob == self.open.value):
            self.open = None

    def shown(self, value: int | None) -> int | str | None:
        """Return a knob's value as commands carry it."""
        return goal_text(value) if value is not None and self.is_goal else value

    def begin_session(self) -> None:
        """Per-session counts start anew; the knob, its sequence and what is open go on."""
        self.n_moves = 0

    def moved(self, now_ms: int, from_: int, to: int, *, more_spend: bool) -> None:
        """Note a step of ours."""
        self.n_moves += 1
        self.moves = [move for move in self.moves if move[0] > now_ms - 3_600_000]
        self.moves.append((now_ms, from_, to))
        if more_spend:
            self.last_up_ms = now_ms
        else:
            self.last_down_ms = now_ms
