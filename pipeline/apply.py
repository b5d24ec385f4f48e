"""How each kind of event changes a room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pipeline.bidding import Plan
from pipeline.buckets import BASE_MS, Tally
from pipeline.context import Context
from pipeline.feeds import FEED_OF, Feed
from pipeline.identity import address_block
from pipeline.money import DayTotals, SpendIncrement, convert
from pipeline.orders import Effect, Ledger, Order
from pipeline.quality import Verdict
from pipeline.room import BINS, MONEY, RoomState
from pipeline.sentiment import normalise, topics
from pipeline.session import Meaning
from pipeline.sketches import log_bin
from schemas.base import MAX_COUNTED

OPINION_MILLI: Final = 500
"""Confidence from which a comment counts as an opinion; below, the model abstains."""


def bump(tally: Tally, name: str, n: int, *, is_past: bool = False) -> None:
    """Count `n`; what belongs to a session before this one is told apart, money also as `prior`."""
    tally[name] = tally.get(name, 0) + n
    if is_past:
        tally["past:"] = 1  # a mark: sessions without it need no second look
        past = f"past:{name}"
        tally[past] = tally.get(past, 0) + n
        if name in MONEY:
            prior = f"prior:{name}"
            tally[prior] = tally.get(prior, 0) + n


class Applied:
    """One event on its way into a room: the event, its room, channel, tally and tokens."""

    __slots__ = ("block", "channel", "ctx", "device", "event", "is_past", "now_ms", "room", "user")

    def __init__(self, room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
        self.room, self.event, self.now_ms, self.ctx = room, event, now_ms, ctx
        engine = ctx.policy.engine
        self.channel = room.channel_of(event.channel, engine.max_channels)
        self.is_past = event.ts < room.session.begins_ts
        self.user = self.device = self.block = None
        consent = engine.consent_default if event.consent is None else event.consent
        token = ctx.identities.token
        if consent:
            if event.user_id is not None:
                self.user = token("user", event.user_id)
            if event.device_id is not None:
                self.device = token("device", event.device_id)
            if event.ip is not None:
                self.block = token("block", address_block(event.ip))
        elif event.user_id is not None or event.device_id is not None:
            # Without consent nobody is told apart; that somebody was there is all that stays.
            self.count("n_no_consent")

    def count(self, name: str, n: int = 1) -> None:
        """Count into this event's own tally."""
        bump(self.room.tally(self.event.ts, self.channel), name, n, is_past=self.is_past)

    def see_user(self, *, active: bool = False) -> None:
        """Count the user as present, and as taking part when `active`."""
        if self.user is None:
            return
        bucket = self.event.ts - self.event.ts % BASE_MS
        for at_ms, name, by in self.room.users.update(self.user, bucket, active=active, in_session=not self.is_past):
            tally = self.room.tally(at_ms, "")
            tally[name] = tally.get(name, 0) + by

    def is_shared_device(self) -> bool:
        """Note the device; tell whether too many users share it."""
        return self.room.evidence.device(self.device, self.user, self.now_ms, self.ctx.policy.quality)


def _on_view(a: Applied) -> None:
    event, quality = a.event, a.ctx.policy.quality
    a.see_user()
    shared = a.is_shared_device()
    if event.action == "enter":
        a.count("n_enters")
    elif event.action == "leave":
        a.count("n_leaves")
        a.count("dwell_ms", min(event.dwell_ms, MAX_COUNTED))
        bump(a.room.tally(event.ts, BINS), f"dwell:{log_bin(event.dwell_ms)}", 1, is_past=a.is_past)
        if event.dwell_ms <= quality.bounce_ms:
            a.count("n_bounces")
        _judged(a, a.room.evidence.leave(event.dwell_ms, is_shared_device=shared, settings=quality))


def _judged(a: Applied, verdict: Verdict) -> None:
    a.count("n_judged")
    if verdict.identity:
        a.count("n_shared_device")
    if verdict.content:
        a.count("n_repeats")
    if verdict.is_suspect:
        a.count("n_suspect")
        a.room.evidence.condemn(a.user, a.block, a.now_ms)


def _on_presence(a: Applied) -> None:
    room = a.room
    room.presence.append((a.event.ts, a.event.n_online))
    if len(room.presence) > 32:
        # One a minute is usual; an hour's newest is all that is ever asked for.
        room.presence = sorted(room.presence)[-16:]


def _on_interaction(a: Applied) -> None:
    a.see_user(active=True)
    a.is_shared_device()
    a.count("n_interactions")
    if a.event.action == "product_click":
        a.count("n_product_clicks")
    elif a.event.action == "add_to_cart":
        a.count("n_add_to_cart")


def _on_comment(a: Applied) -> None:
    a.see_user(active=True)
    a.count("n_comments")
    quality, text = a.ctx.policy.quality, normalise(a.event.text)
    token = a.ctx.identities.token("text", text) if len(text) >= quality.min_repeat_characters else None
    verdict = a.room.evidence.comment(
        token, a.user, is_shared_device=a.is_shared_device(), now_ms=a.now_ms, settings=quality
    )
    _judged(a, verdict)
    if verdict.content or verdict.rate:
        return  # repeated texts move nobody's mood
    opinion = a.ctx.sentiment.score(a.event.text)
    if opinion.confidence_milli < OPINION_MILLI:
        return
    a.count("n_scored")
    a.count("sentiment_milli", opinion.score_milli)
    if opinion.score_milli <= a.ctx.policy.sentiment.negative_below_milli:
        a.count("n_negative")
        for topic in topics(a.event.text) or ("other",):
            a.count(f"topic:{topic}")


def _on_order(a: Applied) -> None:
    event, room, ctx = a.event, a.room, a.ctx
    a.see_user()
    factor = room.money_factor(event.currency, ctx, is_past=a.is_past)
    amount = convert(event.amount_minor, factor)
    order = room.ledger.get(ctx.identities.fingerprint(event.order_id), room.session.number, a.now_ms)
    if event.status == "created":
        effects = Ledger.create(order, event.ts)
        _describe(order, a)
    elif event.status == "paid":
        _describe(order, a)
        effects = Ledger.pay(order, event.ts, amount)
    elif event.status == "refunded":
        effects = Ledger.refund(order, event.ts, amount)
    else:
        effects = Ledger.cancel(order, event.ts)
    for effect in effects:
        _book(a, order, effect)


def _describe(order: Order, a: Applied) -> None:
    """Keep what the money will be booked under; the payment's own words win."""
    if order.paid_ts >= 0:
        return
    if a.event.channel is not None or not order.channel:
        order.channel = a.channel
    if a.event.attribution is not None:
        order.is_attributed = a.event.attribution in ("direct", "indirect")
    order.is_valid = not a.room.evidence.is_suspect_user(a.user)


def _book(a: Applied, order: Order, effect: Effect) -> None:
    is_refund = effect.field in ("refund_minor", "n_refunds")
    is_past = (order.paid_ts if is_refund else effect.ts) < a.room.session.begins_ts
    tally = a.room.tally(effect.ts, order.channel or a.channel)
    bump(tally, effect.field, effect.amount, is_past=is_past)
    if not order.is_attributed:
        return
    if effect.field == "n_orders_paid":
        bump(tally, "n_paid_attributed", effect.amount, is_past=is_past)
        return
    name = {"gmv_minor": "gmv", "refund_minor": "refund"}.get(effect.field)
    if name is None:
        return
    bump(tally, f"{name}_attributed", effect.amount, is_past=is_past)
    if order.is_valid:
        bump(tally, f"{name}_valid", effect.amount, is_past=is_past)
        if name == "gmv":
            bump(a.room.tally(effect.ts, BINS), f"amount:{log_bin(effect.amount)}", 1, is_past=is_past)


def _on_gift(a: Applied) -> None:
    a.see_user()
    factor = a.room.money_factor(a.event.currency, a.ctx, is_past=a.is_past)
    a.count("gift_minor", convert(a.event.amount_minor, factor))


def _on_spend(a: Applied) -> None:
    event, room = a.event, a.room
    factor = room.money_factor(event.currency, a.ctx, is_past=a.is_past)
    plan = room.plans.get(event.plan_id)
    channel = a.channel
    if event.channel is None and plan is not None and plan.channel is not None:
        channel = room.channel_of(plan.channel, a.ctx.policy.engine.max_channels)
    cost = convert(event.cost_minor, factor)
    impressions, clicks = (max(-MAX_COUNTED, min(n, MAX_COUNTED)) for n in (event.impressions, event.clicks))
    if event.reporting == "cumulative":
        totals = DayTotals(event.report_ts, impressions, clicks, cost)
        step = room.spend.update(event.plan_id, event.stat_date, totals)
        if step is None:
            return
    else:
        step = SpendIncrement(impressions, clicks, cost)
    tally = room.tally(event.ts, channel)
    bump(tally, "impressions", step.impressions, is_past=a.is_past)
    bump(tally, "clicks", step.clicks, is_past=a.is_past)
    bump(tally, "spend_minor", step.cost_minor, is_past=a.is_past)


def _on_plan(a: Applied) -> None:
    plan = a.room.plans.get(a.event.plan_id)
    if plan is None:
        plan = a.room.plans[a.event.plan_id] = Plan(a.event.plan_id)
    plan.observe(a.event)


def _on_counts(a: Applied) -> None:
    for name in ("n_enters", "n_product_clicks", "n_add_to_cart", "n_interactions", "n_comments"):
        n = getattr(a.event, name)
        if n is not None:
            a.room.kinds[f"counts.{name}"] = 1
            a.count(name, min(n, MAX_COUNTED))


def _on_feed(a: Applied) -> None:
    event = a.event
    feed = a.room.feeds.get(event.feed)
    if feed is None:
        feed = a.room.feeds[event.feed] = Feed()
    feed.heartbeat(event.complete_through_ts, event.expected_lag_s)


def start_meaning(room: RoomState, event: Any, ctx: Context) -> Meaning:
    """Return what a `start` means for a room."""
    return room.session.meaning(event.ts, is_first_event=room.is_fresh, restart_ms=ctx.policy.engine.restart_ms)


def _on_room(a: Applied) -> None:
    event, room, ctx = a.event, a.room, a.ctx
    if event.action == "start":
        meaning = start_meaning(room, event, ctx)
        room.session.start(event.ts, meaning)
        if meaning == "new":
            room.begin_session(a.now_ms, ctx)
    elif event.action == "end" and event.ts >= room.session.begins_ts:  # a late one ended the session before
        room.session.ended_ts = event.ts
    if event.settings is not None:
        room.config.tighten(event.settings, ctx.policy)
        room.settle_currency(ctx)


def _on_product(_: Applied) -> None:
    """What is on stage is kept in the log; no signal of this version rests on it."""


HANDLERS: Final[dict[str, Callable[[Applied], None]]] = {
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


def apply(room: RoomState, kind: str, event: Any, now_ms: int, ctx: Context) -> None:
    """Apply one accepted event of the room's log."""
    room.kinds[kind] = room.kinds.get(kind, 0) + 1
    feed = FEED_OF.get(kind)
    if feed is not None:
        state = room.feeds.get(feed)
        if state is None:
            state = room.feeds[feed] = Feed()
        state.event(event.ts)
    HANDLERS[kind](Applied(room, event, now_ms, ctx))
    room.is_fresh = False
    room.is_changed |= kind != "feed"  # a heartbeat alone changes nothing that is told
