"""`audience.feedback`: what each segment came to in a session, told at its end and corrected while late money comes.

A session's outcome is told at the first evaluation after its `end`, when the next `start` begins another, or when a
room that nobody ended goes. What comes in after the end (the last orders, refunds, spend reports) is told again at most
once in `signals.feedback_interval_s`, under the same id with a higher revision, until the next session begins or the
room is let go of. A name is made of the room, the session's number and the log's moment at which its counting began, so
a repeat after a crash, or a replay, has the same one.
"""

from __future__ import annotations

from typing import Any, Final

from pipeline.context import Context
from pipeline.counters import (
    DWELL_MS,
    GMV,
    N_COMMENTS,
    N_ENTERS,
    N_INTERACTIONS,
    N_LEAVES,
    N_ORDERS_PAID,
    N_REFUNDS,
    REFUND,
    SPEND,
    Counts,
    unpack,
)
from pipeline.emit import View
from pipeline.ids import derived
from pipeline.output import Output
from pipeline.quality import ivt_interval, ivt_ratio
from pipeline.room import RoomState
from pipeline.slice_metrics import SliceView
from pipeline.slicing import Slice, Slices
from schemas import topics
from schemas.base import MAX_INTEGER, capped

DIMENSION: Final = "segment"
COUNTED: Final = (
    ("view", "n_visits", N_ENTERS),
    ("counts.n_enters", "n_visits", N_ENTERS),
    ("interaction", "n_interactions", N_INTERACTIONS),
    ("counts.n_interactions", "n_interactions", N_INTERACTIONS),
    ("comment", "n_comments", N_COMMENTS),
    ("counts.n_comments", "n_comments", N_COMMENTS),
    ("order", "n_orders", N_ORDERS_PAID),
    ("order", "n_refunds", N_REFUNDS),
    ("order", "gmv_minor", GMV),
    ("order", "refund_minor", REFUND),
    ("spend", "spend_minor", SPEND),
)
"""Type of event that makes a count known, field, counter."""


def _followed(room: RoomState) -> Slices | None:
    """Return a room's slices where they tell of segments."""
    slices = room.slices
    return slices if slices is not None and DIMENSION in slices.dimensions else None


def is_due(room: RoomState, now_ms: int, ctx: Context) -> bool:
    """Tell whether a room's feedback is to be told at this evaluation."""
    due = due_ms(room, ctx)
    return due is not None and now_ms >= due


def due_ms(room: RoomState, ctx: Context) -> int | None:
    """Return when an ended session's outcome is to be told; None while nothing new is known of one."""
    slices = _followed(room)
    if slices is None or not slices.is_changed or room.session.is_active:
        return None
    return slices.told_ms + ctx.policy.signals.feedback_interval_s * 1_000 if slices.revision else 0


def is_left(room: RoomState) -> bool:
    """Tell whether a session that another one follows still has something to tell."""
    slices = _followed(room)
    return slices is not None and (slices.is_changed or any(waiting.own for waiting in slices.waiting.values()))


def told(room: RoomState, view: View) -> Output:
    """Return the message, and note that it was told."""
    slices = _followed(room)
    if slices is None:
        msg = f"room {room.room_id!r} must be sliced by {DIMENSION}"
        raise ValueError(msg)
    slices.revision, slices.told_ms, slices.is_changed = slices.revision + 1, view.now_ms, False
    fields: dict[str, Any] = {
        "feedback_id": derived("feedback", room.room_id, room.session.number, slices.since_ms),
        "revision": slices.revision,
        "room_id": room.room_id,
        "ts": capped(view.now_ms),
        "since_ts": capped(_since_ms(room, slices)),
    }
    if room.session.ended_ts >= 0:
        fields["ended_ts"] = room.session.ended_ts
    if room.config.currency is not None:
        fields["currency"] = room.config.currency
    if view.session_return.maturity is not None:
        fields["roas_maturity"] = view.session_return.maturity
    sliced = SliceView(view, slices, slices.dimensions.index(DIMENSION))
    fields["segments"] = {
        name: _outcome(sliced, place, slice_, has_buyers=slices.has_buyers)
        for name, place, slice_ in sliced.rows
        if slice_.windows.session
    }
    return Output(topics.AUDIENCE_FEEDBACK, room.room_id, fields)


def _since_ms(room: RoomState, slices: Slices) -> int:
    begins_ts = room.session.begins_ts
    return slices.since_ms if slices.is_partial or begins_ts < 0 else begins_ts


def _outcome(sliced: SliceView, place: int, slice_: Slice, *, has_buyers: bool) -> dict[str, Any]:
    counts, kinds = unpack(slice_.windows.session), sliced.kinds(place)
    found: dict[str, Any] = {
        name: min(counts[counter], MAX_INTEGER) for kind, name, counter in COUNTED if kind in kinds
    }
    if has_buyers:
        found["n_buyers"] = 0 if slice_.buyers is None else slice_.buyers.count()
    found |= _ratios(counts, sliced)
    if sliced.has_return:
        _, whole = sliced.returns(slice_, counts, counts)
        known = {"roas_valid": whole.valid, "roas_maturity": whole.maturity}
        found |= {name: value for name, value in known.items() if value is not None}
    return found


def _ratios(counts: Counts, sliced: SliceView) -> dict[str, float]:
    """Return what needs a least sample."""
    settings = sliced.quality
    found: dict[str, float] = {}
    invalid, interval = ivt_ratio(counts, settings), ivt_interval(counts, settings)
    if invalid is not None and interval is not None:
        found["valid_ratio"] = round(1 - invalid, 6)
        found["valid_low"], found["valid_high"] = round(1 - interval[1], 6), round(1 - interval[0], 6)
    if counts[N_ENTERS] >= settings.min_judged:
        n_actions = counts[N_INTERACTIONS] + counts[N_COMMENTS]
        found["actions_per_visit"] = round(n_actions / counts[N_ENTERS], 6)
    if counts[N_LEAVES] >= settings.min_judged:
        found["dwell_mean_s"] = round(counts[DWELL_MS] / counts[N_LEAVES] / 1_000, 3)
    return found
