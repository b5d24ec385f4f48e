"""How each kind of event changes a room."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final, NamedTuple

from pipeline.bidding import Plan
from pipeline.buckets import BASE_MS
from pipeline.context import Context
from pipeline.counters import UNIT
from pipeline.feeds import FEED_OF, Feed
from pipeline.identity import address_block
from pipeline.money import DayTotals, SpendIncrement, convert
from pipeline.orders import Effect, Ledger, Order
from pipeline.quality import LEAST_CHARACTERS
from pipeline.room import Pending, RoomState
from pipeline.said import note_product, note_room
from pipeline.session import Meaning
from pipeline.sketches import log_bin
from pipeline.slicing import attune, describe_order, order_places, places_of
from schemas.base import MAX_COUNTED
from schemas.decode import STRUCTS

OPINION_MILLI: Final = 500
"""Confidence from which a comment counts as an opinion; below, the model abstains."""

_ENTER: Final = UNIT["n_enters"]
_LEAVE: Final = UNIT["n_leaves"] + UNIT["n_judged"]
_DWELL: Final = UNIT["dwell_ms"]
_BOUNCE: Final = UNIT["n_bounces"]
_INTERACTION: Final = {
    "product_click": UNIT["n_interactions"] + UNIT["n_product_clicks"] + UNIT["n_judged"],
    "add_to_cart": UNIT["n_interactions"] + UNIT["n_add_to_cart"] + UNIT["n_judged"],
}
_OTHER_INTERACTION: Final = UNIT["n_interactions"] + UNIT["n_judged"]
_COMMENT: Final = UNIT["n_comments"] + UNIT["n_judged"]
_UNREAD_COMMENT: Final = UNIT["n_comments"]
_SCORED: Final = UNIT["n_scored"]
_SENTIMENT: Final = UNIT["sentiment_milli"]
_NEGATIVE: Final = UNIT["n_negative"]
_NO_CONSENT: Final = UNIT["n_no_consent"]
_JUDGED: Final = UNIT["n_judged"]
_SUSPECT: Final = UNIT["n_suspect"]
_SHARED: Final = UNIT["n_shared_device"]
_REPEAT: Final = UNIT["n_repeats"]
_FLAGS: Final = {"like": 1, "share": 2, "follow": 2, "product_click": 4, "add_to_cart": 4}
"""What an interaction says about its visit, see `pipeline.quality.visits`."""
_COST: Final = UNIT["cost_minor"]
_COUNTS: Final = ("n_enters", "n_product_clicks", "n_add_to_cart", "n_interactions", "n_comments")


def _count(room: RoomState, event: Any, ctx: Context, counted: int, user: int | None = None) -> Pending:
    """Count packed counters at the event's own moment, channel and slices; return what waits there."""
    ts, channel = event.ts, event.channel
    if channel not in room.channels:
        channel = room.channel_of(channel, ctx.max_channels)
    bucket = ts - ts % BASE_MS
    pending = room.pending.get(bucket)
    if pending is None:
        pending = room.pending[bucket] = Pending()
    cells = pending.own if ts >= room.session.begins_ts else pending.late
    cells[channel] = cells.get(channel, 0) + counted
    if room.slices is not None:
        places = places_of(room, event, user, ctx)
        room.slices.count(ts, places, counted, is_past=ts < room.session.begins_ts)
    return pending


def _see(room: RoomState, event: Any, ctx: Context, *, active: bool) -> int | None:
    """Note who it was, where that may be known; return the token of the user, or of the device that stands for one."""
    consent, user_id, device_id = event.consent, event.user_id, event.device_id
    if not (ctx.consent_default if consent is None else consent):
        if user_id is not None or device_id is not None:
            # Without consent nobody is told apart; that somebody was there is all that stays.
            _count(room, event, ctx, _NO_CONSENT)
            _hidden(room, event, ctx)
        return None
    if user_id is None:
        return None if device_id is None else ctx.identities.devices[device_id]
    ts, user = event.ts, ctx.identities.users[user_id]
    room.users.see(user, ts // 1_000, 0, active=active, in_session=ts >= room.session.begins_ts)
    return user


def _hidden(room: RoomState, event: Any, ctx: Context) -> None:
    """Note an event without consent in the room's coarse counters."""
    evidence, kind = room.evidence, KINDS[type(event)].name
    channel = evidence.channel(room.channel_of(event.channel, ctx.max_channels))
    dwell_ms = event.dwell_ms if kind == "view" and event.action == "leave" else None
    is_judged = dwell_ms is not None or kind in ("comment", "interaction")
    step = evidence.anonymous.note(
        event.ts, channel, dwell_ms=dwell_ms, is_judged=is_judged, short_ms=ctx.quality.short_dwell_ms
    )
    if kind == "comment":
        step.n_comments += 1
        text = ctx.sentiment.read(event.text).norm
        if len(text) >= ctx.quality.min_repeat_characters:
            # Nobody is told apart: a text that nobody says so often counts as copied.
            _, n_times = evidence.texts.note(ctx.identities.texts[text], -1, ctx.star.clock_ms)
            step.n_copied += n_times >= ctx.quality.repeat_users


def _on_view(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    user = _see(room, event, ctx, active=False)
    action = event.action
    if action == "enter":
        if user is not None:
            room.evidence.enter(user)
        _count(room, event, ctx, _ENTER, user)
    elif action == "leave":
        dwell_ms = event.dwell_ms
        counted = _LEAVE + (dwell_ms if dwell_ms < MAX_COUNTED else MAX_COUNTED) * _DWELL
        if dwell_ms <= ctx.quality.bounce_ms:
            counted += _BOUNCE
        if user is not None:
            counted += _leave(room, event, user, now_ms, ctx)
        pending = _count(room, event, ctx, counted, user)
        sample = bytes((log_bin(min(dwell_ms, MAX_COUNTED)),))
        if event.ts >= room.session.begins_ts:
            pending.dwell += sample
        else:
            pending.past_dwell += sample


def _leave(room: RoomState, event: Any, user: int, now_ms: int, ctx: Context) -> int:
    """Note a visit that is over; return what it counts besides."""
    identities, evidence = ctx.identities, room.evidence
    device, ip, channel = event.device_id, event.ip, event.channel
    is_marked, is_shared = evidence.leave(
        user,
        0 if device is None else identities.devices[device],
        0 if ip is None else identities.blocks[address_block(ip)],
        now_ms,
        (
            event.ts,
            event.dwell_ms,
            evidence.channel(room.channel_of(channel, ctx.max_channels)),
            evidence.segment(event.segment),
        ),
    )
    return (_SUSPECT if is_marked else 0) + (_SHARED if is_shared else 0)


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


def _on_interaction(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    user, action = _see(room, event, ctx, active=True), event.action
    counted = _INTERACTION.get(action, _OTHER_INTERACTION)
    if user is not None and room.evidence.act(user, _FLAGS[action]):
        counted += _SUSPECT
    _count(room, event, ctx, counted, user)


def _on_comment(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    user = _see(room, event, ctx, active=True)
    reading, counted, is_copied = ctx.sentiment.read(event.text), _COMMENT, False
    if user is not None:
        is_marked, is_copied = _say(room, event, user, reading.norm, ctx)
        if is_copied:
            counted += _REPEAT
        if is_marked:
            counted += _SUSPECT
    # What is repeated moves nobody's mood.
    if reading.confidence_milli >= OPINION_MILLI and not is_copied:
        counted += _SCORED + reading.score_milli * _SENTIMENT
        is_negative = reading.score_milli <= ctx.policy.sentiment.negative_below_milli
        if is_negative:
            counted += _NEGATIVE
            for topic in reading.topics or ("other",):
                counted += UNIT[f"topic:{topic}"]
        product = event.product_id
        if product is None and "product_id" in room.said:
            product = room.said["product_id"].at(event.ts)
        room.crowds.note(event.ts, now_ms, product, reading.topics, is_negative=is_negative)
    _count(room, event, ctx, counted, user)


def _say(room: RoomState, event: Any, user: int, text: str, ctx: Context) -> tuple[bool, bool]:
    """Note what somebody wrote; return (is marked, is copied or repeated)."""
    identities, evidence, ip, device = ctx.identities, room.evidence, event.ip, event.device_id
    channel = evidence.channel(room.channel_of(event.channel, ctx.max_channels))
    return evidence.comment(
        user,
        (
            identities.texts[text] if len(text) >= LEAST_CHARACTERS else 0,
            0 if device is None else identities.devices[device],
            0 if ip is None else identities.blocks[address_block(ip)],
            event.ts,
            len(text),
            channel,
        ),
        ctx.star.clock_ms,
        ctx.quality,
    )


def _on_comment_unread(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    """Count a comment nobody reads: its author was active, and it is not among what was judged."""
    user = _see(room, event, ctx, active=True)
    _count(room, event, ctx, _UNREAD_COMMENT, user)


def _on_heartbeat_unnoted(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    _anonymous(room, event, ctx)


def _on_order(room: RoomState, event: Any, now_ms: int, ctx: Context) -> None:
    user = _see(room, event, ctx, active=False)
    channel = room.channel_of(event.channel, ctx.max_channels)
    is_past = event.ts < room.session.begins_ts
    factor = room.money_factor(event.currency, ctx, is_past=is_past)
    amount = convert(event.amount_minor, factor)
    fingerprint = ctx.identities.fingerprint(event.order_id)
    order = room.ledger.get(fingerprint, room.session.number, now_ms, room.offset)
    before, saved = order.worth(), order.costs_back()
    if event.status in ("created", "paid"):
        describe_order(room, order, event, user, ctx)
    if event.status == "created":
        effects = Ledger.create(order, event.ts)
        _describe(room, order, event, channel, (fingerprint, user))
    elif event.status == "paid":
        _describe(room, order, event, channel, (fingerprint, user))
        _value(room, order, event, factor, ctx)
        effects = Ledger.pay(order, event.ts, amount)
    elif event.status == "refunded":
        effects = Ledger.refund(order, event.ts, amount)
    else:
        effects = Ledger.cancel(order, event.ts)
    for effect in effects:
        _book(room, order, effect, order.channel or channel)
    if room.slices is not None and event.status == "paid" and effects and user is not None and not is_past:
        room.slices.buys(order_places(room, order), user)
    if effects and order.paid_ts >= 0:
        room.returns.n_news += sum(e.amount for e in effects if e.field in ("n_orders_paid", "n_refunds"))
        _settle(room, order, before, saved, order.channel or channel)


def _describe(room: RoomState, order: Order, event: Any, channel: str, whose: tuple[bytes, int | None]) -> None:
    """Keep what the money will be booked under; the payment's own words win."""
    if order.paid_ts >= 0:
        return
    if event.channel is not None or not order.channel:
        order.channel = channel
    if event.attribution is not None:
        order.is_attributed = event.attribution in ("direct", "indirect")
    if event.touch_ts is not None:
        order.touch_ts = event.touch_ts
    if event.product_id is not None:
        order.product = room.returns.product(event.product_id)
    fingerprint, user = whose
    if user is None:
        return
    evidence = room.evidence
    order.is_valid = not evidence.bought(fingerprint, user)
    if event.status == "paid" and user in evidence.doing:
        evidence.doing[user] |= 8


def _book_flips(room: RoomState, now_ms: int) -> None:
    """Take orders out of the valid return whose buyers turned out invalid since; this record touches them."""
    flips, room.evidence.flips = room.evidence.flips, []
    for fingerprint in flips:
        order = room.ledger.orders.get(fingerprint)
        if order is None or not order.is_valid:
            continue
        order = room.ledger.get(fingerprint, order.session, now_ms, room.offset)
        if order.is_attributed and order.paid_ts >= 0:
            is_past, places = order.paid_ts < room.session.begins_ts, order_places(room, order)
            taken = -order.paid_minor * UNIT["gmv_valid"]
            room.count(order.paid_ts, order.channel, taken, is_past=is_past, places=places)
            for ts, amount in order.refunded():
                room.count(ts, order.channel, -amount * UNIT["refund_valid"], is_past=is_past, places=places)
        before = order.worth()
        order.is_valid = False
        _settle(room, order, before, order.costs_back(), order.channel)


def _value(room: RoomState, order: Order, event: Any, factor: Fraction | int, ctx: Context) -> None:
    """Keep what the payment says of its costs and its customer."""
    if order.paid_ts >= 0:
        return
    if event.goods_cost_minor is not None:
        order.cost_minor = convert(event.goods_cost_minor + (event.commission_minor or 0), factor)
    if event.is_new_customer is not None:
        roi = ctx.policy.roi
        weight = roi.new_customer_weight if event.is_new_customer else roi.returning_customer_weight
        order.worth_ppm = round(weight * 1_000_000)
    order.risk_ppm = room.returns.refunds.factor(order.product)


def _settle(room: RoomState, order: Order, before: tuple[int, int], saved: list[tuple[int, int]], channel: str) -> None:
    """Book what an order is worth now in the cohort of its touch, and what its refunds save of its costs."""
    returns, is_past = room.returns, order.paid_ts < room.session.begins_ts
    after, places = order.worth(), order_places(room, order)
    if after != before:
        has_touch = order.touch_ts >= 0
        at_ms = min(order.touch_ts, order.paid_ts) if has_touch else order.paid_ts
        now_ms = room.evaluated_ms
        booked = returns.order(at_ms, channel, before, after, now_ms, is_past=is_past, has_touch=has_touch)
        if room.slices is not None:
            room.slices.book(at_ms, places, booked, now_ms, is_past=is_past, since_ms=returns.since_ms)
    for savings, unit in ((saved, _COST), (order.costs_back(), -_COST)):
        for ts, amount in savings:
            room.count(ts, channel, amount * unit, is_past=is_past, places=places)


def _book(room: RoomState, order: Order, effect: Effect, channel: str) -> None:
    field, amount = effect.field, effect.amount
    is_refund = field in ("refund_minor", "n_refunds")
    is_past = (order.paid_ts if is_refund else effect.ts) < room.session.begins_ts
    counted = amount * UNIT[field]
    if order.cost_minor >= 0:
        if field == "gmv_minor":
            counted += amount * UNIT["gmv_costed"] + order.cost_minor * _COST
        elif field == "refund_minor":
            counted += amount * UNIT["refund_costed"]
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
    room.count(effect.ts, channel, counted, is_past=is_past, places=order_places(room, order))


def _on_gift(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    user = _see(room, event, ctx, active=False)
    factor = room.money_factor(event.currency, ctx, is_past=event.ts < room.session.begins_ts)
    _count(room, event, ctx, convert(event.amount_minor, factor) * UNIT["gift_minor"], user)


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
    channel = room.channel_of(name, ctx.max_channels)
    places, now_ms = places_of(room, event, None, ctx), room.evaluated_ms
    room.count(event.ts, channel, counted, is_past=is_past, places=places)
    room.returns.spend(event.ts, channel, step.cost_minor, now_ms, is_past=is_past)
    if room.slices is not None:
        since_ms = room.returns.since_ms
        room.slices.book(event.ts, places, step.cost_minor, now_ms, is_past=is_past, since_ms=since_ms)


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
    is_new = False
    if event.action == "start":
        meaning = start_meaning(room, event, ctx)
        is_new = meaning == "new"
        room.session.start(event.ts, meaning)
        if meaning == "first":
            room.users.begin_session(-(-event.ts // 1_000))
        if is_new:
            room.begin_session(now_ms, ctx)
    elif event.action == "end" and event.ts >= room.session.begins_ts:  # a late one ended the session before
        room.session.ended_ts = event.ts
    note_room(room.said, event, is_new=is_new)
    if event.settings is not None:
        room.config.tighten(event.settings, ctx.policy)
        room.settle_currency(ctx)
        attune(room, ctx)


def _on_product(room: RoomState, event: Any, _: int, ctx: Context) -> None:
    """Note what is on stage: what is said meanwhile is said of it."""
    _anonymous(room, event, ctx)
    note_product(room.said, event)


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
    """What the engine has to know of a type of event.

    `is_plain`: nothing but its room's state can refuse it. `may_wait`: it asks for nothing at once.
    """

    name: str
    feed: str | None
    handler: Handler | None
    is_money: bool
    is_urgent: bool
    is_plain: bool
    may_wait: bool


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
        name not in (*URGENT_KINDS, "tick"),
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
    if ctx.dimensions or room.slices is not None:
        attune(room, ctx)
    if room.evidence.flips:
        _book_flips(room, ctx.star.clock_ms)
    handler(room, event, ctx.star.clock_ms, ctx)
    room.is_fresh = False
    if name != "feed":  # a heartbeat alone changes nothing that is told
        room.is_changed = True
