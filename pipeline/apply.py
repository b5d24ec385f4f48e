"""How each kind of event changes a room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pipeline.bidding import Plan
from pipeline.buckets import BASE_MS
from pipeline.context import Context
from pipeline.counters import UNIT
from pipeline.feeds import FEED_OF, Feed
from pipeline.identity import address_block
from pipeline.money import DayTotals, SpendIncrement, convert
from pipeline.orders import Effect, Ledger, Order
from pipeline.quality import DEVICE_MEMORY_MS, Verdict
from pipeline.room import Pending, RoomState
from pipeline.session import Meaning
from pipeline.sketches import log_bin
from pipeline.users import TAG_BITS
from schemas.base import MAX_COUNTED
from schemas.decode import STRUCTS

OPINION_MILLI: Final = 500
"""Confidence from which a comment counts as an opinion; below, the model abstains."""

_ENTER: Final = UNIT["n_enters"]
_LEAVE: Final = UNIT["n_leaves"] + UNIT["n_judged"]
_DWELL: Final = UNIT["dwell_ms"]
_BOUNCE: Final = UNIT["n_bounces"]
_INTERACTION: Final = {
    "product_click": UNIT["n_interactions"] + UNIT["n_product_clicks"],
    "add_to_cart": UNIT["n_interactions"] + UNIT["n_add_to_cart"],
}
_OTHER_INTERACTION: Final = UNIT["n_interactions"]
_COMMENT: Final = UNIT["n_comments"] + UNIT["n_judged"]
_UNREAD_COMMENT: Final = UNIT["n_comments"]
_SCORED: Final = UNIT["n_scored"]
_SENTIMENT: Final = UNIT["sentiment_milli"]
_NEGATIVE: Final = UNIT["n_negative"]
_NO_CONSENT: Final = UNIT["n_no_consent"]
_TAG_BITS: Final = (1 << TAG_BITS) - 1
_COUNTS: Final = ("n_enters", "n_product_clicks", "n_add_to_cart", "n_interactions", "n_comments")


def _count(room: RoomState, event: Any, ctx: Context, counted: int) -> Pending:
    """Count packed counters at the event's own moment and channel; return what waits there."""
    ts, channel = event.ts, event.channel
    if channel not in room.channels:
        channel = room.channel_of(channel, ctx.max_channels)
    bucket = ts - ts % BASE_MS
    pending = room.pending.get(bucket)
    if pending is None:
        pending = room.pending[bucket] = Pending()
    cells = pending.own if ts >= room.session.begins_ts else pending.late
    cells[channel] = cells.get(channel, 0) + counted
    return pending


def _see(room: RoomState, event: Any, now_ms: int, ctx: Context, *, active: bool) -> tuple[int | None, bool]:
    """Note who it was, where that may be known; return the user's token, and whether too many share the device."""
    consent, user_id, device_id = event.consent, event.user_id, event.device_id
    if not (ctx.consent_default if consent is None else consent):
        if user_id is not None or device_id is not None:
            # Without consent nobody is told apart; that somebody was there is all that stays.
            _count(room, event, ctx, _NO_CONSENT)
        return None, False
    if user_id is None:
        return None, False
    ts, identities = event.ts, ctx.identities
    user, in_session = identities.users[user_id], ts >= room.session.begins_ts
    if device_id is None:
        room.users.see(user, ts // 1_000, 0, active=active, in_session=in_session)
        return user, False
    device, devices = identities.devices[device_id], room.evidence.devices
    if now_ms - devices.turned_ms >= DEVICE_MEMORY_MS:
        devices.turn(now_ms)
    tag = ((device ^ devices.n_turns) << 1 | 1) & _TAG_BITS
    if room.users.see(user, ts // 1_000, tag, active=active, in_session=in_session):
        return user, False  # a device of the user's own, noted in this turn: by far the most usual
    first = devices.recent.get(device)
    n_users = devices.meet(device, user, now_ms)
    if n_users == 1:
        room.users.tag(user, tag)
    elif isinstance(first, int) and first != user:
        room.users.tag(first, 0)  # not that one's own any more
    return user, n_users > ctx.quality.device_users


def _judged(room: RoomState, event: Any, ctx: Context, verdict: Verdict, user: int | None, *, now_ms: int) -> int:
    """Return what a verdict counts; remember a suspect and the address block it came from."""
    counted = 0
    if verdict.identity:
        counted += UNIT["n_shared_device"]
    if verdict.content:
        counted += UNIT["n_repeats"]
    if verdict.is_suspect:
        counted += UNIT["n_suspect"]
        consent = ctx.consent_default if event.consent is None else event.consent
        has_block = consent and event.ip is not None
        block = ctx.identities.blocks[address_block(event.ip)] if has_block else None
        room.evidence.condemn(user, block, now_ms)
    return counted


def _on_view(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    user, shared = _see(room, event, now_ms, ctx, active=False)
    action = event.action
    if action == "enter":
        _count(room, event, ctx, _ENTER)
    elif action == "leave":
        quality, dwell_ms = ctx.quality, event.dwell_ms
        counted = _LEAVE + (dwell_ms if dwell_ms < MAX_COUNTED else MAX_COUNTED) * _DWELL
        if dwell_ms <= quality.bounce_ms:
            counted += _BOUNCE
        if shared or dwell_ms <= quality.short_dwell_ms:
            verdict = room.evidence.leave(dwell_ms, is_shared_device=shared, settings=quality)
            counted += _judged(room, event, ctx, verdict, user, now_ms=now_ms)
        pending = _count(room, event, ctx, counted)
        sample = bytes((log_bin(min(dwell_ms, MAX_COUNTED)),))
        if event.ts >= room.session.begins_ts:
            pending.dwell += sample
        else:
            pending.past_dwell += sample


def _on_presence(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    _anonymous(room, event, ctx)
    room.presence.append((event.ts, event.n_online))
    if len(room.presence) > 32:
        # One a minute is usual; an hour's newest is all that is ever asked for.
        room.presence = sorted(room.presence)[-16:]


def _anonymous(room: RoomState, event: Any, ctx: Context) -> bool:
    """Count an event of somebody without consent; tell whether it was one."""
    consent = ctx.consent_default if event.consent is None else event.consent
    if not consent and (event.user_id is not None or event.device_id is not None):
        _count(room, event, ctx, _NO_CONSENT)
    return not consent


def _on_interaction(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    _see(room, event, now_ms, ctx, active=True)
    _count(room, event, ctx, _INTERACTION.get(event.action, _OTHER_INTERACTION))


def _on_comment(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    user, shared = _see(room, event, now_ms, ctx, active=True)
    quality, reading = ctx.quality, ctx.sentiment.read(event.text)
    text = reading.norm
    token = ctx.identities.texts[text] if len(text) >= quality.min_repeat_characters else None
    counted = _COMMENT
    verdict = room.evidence.comment(token, user, is_shared_device=shared, now_ms=now_ms, settings=quality)
    if verdict.rate or verdict.identity or verdict.content:
        counted += _judged(room, event, ctx, verdict, user, now_ms=now_ms)
    # Repeated texts move nobody's mood.
    if reading.confidence_milli >= OPINION_MILLI and not (verdict.content or verdict.rate):
        counted += _SCORED + reading.score_milli * _SENTIMENT
        if reading.score_milli <= ctx.policy.sentiment.negative_below_milli:
            counted += _NEGATIVE
            for topic in reading.topics or ("other",):
                counted += UNIT[f"topic:{topic}"]
    _count(room, event, ctx, counted)


def _on_comment_unread(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    """Count a comment nobody reads: its author was active, and it is not among what was judged."""
    _see(room, event, now_ms, ctx, active=True)
    _count(room, event, ctx, _UNREAD_COMMENT)


def _on_heartbeat_unnoted(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    _anonymous(room, event, ctx)


def _on_order(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    user, _ = _see(room, event, now_ms, ctx, active=False)
    channel = room.channel_of(event.channel, ctx.max_channels)
    is_past = event.ts < room.session.begins_ts
    factor = room.money_factor(event.currency, ctx, is_past=is_past)
    amount = convert(event.amount_minor, factor)
    order = room.ledger.get(ctx.identities.fingerprint(event.order_id), room.session.number, now_ms, room.offset)
    if event.status == "created":
        effects = Ledger.create(order, event.ts)
        _describe(room, order, event, channel, user)
    elif event.status == "paid":
        _describe(room, order, event, channel, user)
        effects = Ledger.pay(order, event.ts, amount)
    elif event.status == "refunded":
        effects = Ledger.refund(order, event.ts, amount)
    else:
        effects = Ledger.cancel(order, event.ts)
    for effect in effects:
        _book(room, order, effect, order.channel or channel)


def _describe(room: RoomState, order: Order, event: Any, channel: str, user: int | None) -> None:
    """Keep what the money will be booked under; the payment's own words win."""
    if order.paid_ts >= 0:
        return
    if event.channel is not None or not order.channel:
        order.channel = channel
    if event.attribution is not None:
        order.is_attributed = event.attribution in ("direct", "indirect")
    order.is_valid = not room.evidence.is_suspect_user(user)


def _book(room: RoomState, order: Order, effect: Effect, channel: str) -> None:
    field, amount = effect.field, effect.amount
    is_refund = field in ("refund_minor", "n_refunds")
    is_past = (order.paid_ts if is_refund else effect.ts) < room.session.begins_ts
    counted = amount * UNIT[field]
    if order.is_attributed:
        if field == "n_orders_paid":
            counted += amount * UNIT["n_paid_attributed"]
        elif field in ("gmv_minor", "refund_minor"):
            name = field.removesuffix("_minor")
            counted += amount * UNIT[f"{name}_attributed"]
            if order.is_valid:
                counted += amount * UNIT[f"{name}_valid"]
                if field == "gmv_minor":
                    pending, sample = room.waiting(effect.ts), bytes((log_bin(min(amount, MAX_COUNTED)),))
                    if is_past:
                        pending.past_amounts += sample
                    else:
                        pending.amounts += sample
    room.count(effect.ts, channel, counted, is_past=is_past)


def _on_gift(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    _see(room, event, now_ms, ctx, active=False)
    factor = room.money_factor(event.currency, ctx, is_past=event.ts < room.session.begins_ts)
    _count(room, event, ctx, convert(event.amount_minor, factor) * UNIT["gift_minor"])


def _on_spend(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    _anonymous(room, event, ctx)
    is_past = event.ts < room.session.begins_ts
    factor = room.money_factor(event.currency, ctx, is_past=is_past)
    plan, name = room.plans.get(event.plan_id), event.channel
    if name is None and plan is not None:
        name = plan.channel
    cost = convert(event.cost_minor, factor)
    impressions, clicks = (max(-MAX_COUNTED, min(n, MAX_COUNTED)) for n in (event.impressions, event.clicks))
    if event.reporting == "cumulative":
        totals = DayTotals(event.report_ts, impressions, clicks, cost)
        step = room.spend.update(event.plan_id, event.stat_date, totals)
        if step is None:
            return
    else:
        step = SpendIncrement(impressions, clicks, cost)
    counted = step.impressions * UNIT["impressions"] + step.clicks * UNIT["clicks"]
    counted += step.cost_minor * UNIT["spend_minor"]
    room.count(event.ts, room.channel_of(name, ctx.max_channels), counted, is_past=is_past)


def _on_plan(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    _anonymous(room, event, ctx)
    plan = room.plans.get(event.plan_id)
    if plan is None:
        # Controllers keep a knob's last number for longer than a room is kept: a room that comes back must begin above
        # it. A knob is moved at most once a visit, so seconds stay ahead.
        plan = room.plans[event.plan_id] = Plan(event.plan_id, seq=max(now_ms, 0) // 1_000)
    plan.observe(event)


def _on_counts(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    _anonymous(room, event, ctx)
    counted = 0
    for name in _COUNTS:
        n = getattr(event, name)
        if n is not None:
            room.kinds[f"counts.{name}"] = True
            counted += min(n, MAX_COUNTED) * UNIT[name]
    _count(room, event, ctx, counted)


def _on_feed(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    _anonymous(room, event, ctx)
    feed = room.feeds.get(event.feed)
    if feed is None:
        feed = room.feeds[event.feed] = Feed()
    feed.heartbeat(event.complete_through_ts, event.expected_lag_s)


def start_meaning(room: RoomState, event: Any, ctx: Context) -> Meaning:
    """Return what a `start` means for a room."""
    return room.session.meaning(event.ts, is_first_event=room.is_fresh, restart_ms=ctx.policy.engine.restart_ms)


def _on_room(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    _anonymous(room, event, ctx)
    if event.action == "start":
        meaning = start_meaning(room, event, ctx)
        room.session.start(event.ts, meaning)
        if meaning == "first":
            room.users.begin_session(-(-event.ts // 1_000))
        if meaning == "new":
            room.begin_session(now_ms, ctx)
    elif event.action == "end" and event.ts >= room.session.begins_ts:  # a late one ended the session before
        room.session.ended_ts = event.ts
    if event.settings is not None:
        room.config.tighten(event.settings, ctx.policy)
        room.settle_currency(ctx)


def _on_product(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    """What is on stage is kept in the log; no signal of this version rests on it."""
    _anonymous(room, event, ctx)


Handler = Callable[[RoomState, Any, int, Context], None]
HANDLERS: Final[dict[str, Handler]] = {
    "room": _on_room,
    "view": _on_view,
    "presence": _on_presence,
    "interaction": _on_interaction,
    "comment": _on_comment,
    "order": _on_order,
    "gift": _on_gift,
    "spend": _on_spend,
    "plan": _on_plan,
    "product": _on_product,
    "counts": _on_counts,
    "feed": _on_feed,
}
UNREAD: Final[dict[str, Handler]] = {"comment": _on_comment_unread, "view": _on_heartbeat_unnoted}
"""What `pipeline.shedding` has done instead for a room over its quota: of views, to heartbeats alone."""


class Kind(NamedTuple):
    """What the engine has to know of a type of event. `is_plain`: nothing but its room's state can refuse it."""

    name: str
    feed: str | None
    handler: Handler | None
    is_money: bool
    is_urgent: bool
    is_plain: bool


MONEY_KINDS: Final = ("order", "spend", "gift")
URGENT_KINDS: Final = ("room", "plan", "control", "ack", "feed")
"""What is looked at on the next tick instead of the room's next turn."""
KINDS: Final = {
    struct: Kind(
        name,
        FEED_OF.get(name),
        HANDLERS.get(name),
        name in MONEY_KINDS,
        name in URGENT_KINDS,
        name not in (*MONEY_KINDS, "control", "ack", "tick"),
    )
    for name, struct in STRUCTS.items()
}
"""The kind of a decoded event, by its struct."""


def apply(room: RoomState, kind: Kind, handler: Handler, event: Any, ctx: Context) -> None:
    """Apply one accepted event of the room's log."""
    name, feed = kind.name, kind.feed
    if name not in room.kinds:
        room.kinds[name] = True
        if feed is not None and feed not in room.feeds:
            room.feeds[feed] = Feed()
    if feed is not None:
        room.feeds[feed].event(event.ts)
    handler(room, event, ctx.star.clock_ms, ctx)
    room.is_fresh = False
    if name != "feed":  # a heartbeat alone changes nothing that is told
        room.is_changed = True
