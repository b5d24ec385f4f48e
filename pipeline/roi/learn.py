"""The curves of a room learned from its order ledger: one pass over it, each time it has grown by a fifth.

The ledger holds every order of the session and of three days before, with its refunds as they stand, so nothing is
kept a second time and nothing is learned twice: a cancelled order, a late one, a converted amount are what they are
now. What is learned follows from the ledger, the spend and the time of the evaluation alone.
"""

from __future__ import annotations

from typing import Final

from pipeline.orders import Ledger
from pipeline.roi.cohorts import unpack
from pipeline.roi.delay import MILLION, Curve, Delays, learn, learn_within, prior_curve
from pipeline.roi.refunds import Returned, learn_refunds
from pipeline.roi.state import ROOM, ReturnState
from schemas.settings import RoiSettings

FIRST_NEWS: Final = 5
"""Payments and refunds that a first curve waits for."""
GROWTH: Final = 5
"""Curves are learned again when the ledger has grown by one part in so many: a constant cost an order."""
LEAST_GAP_MS: Final = 30_000
"""Curves are learned at most this often: a hot room's change no more in half a minute."""
MIN_CHANNEL_ORDERS: Final = 20
"""Orders with a touch from which a channel has a curve of its own."""
MOST_ORDERS: Final = 4_096
"""Orders a pass looks at; of a larger ledger every second, fourth ... one, chosen by the time of its payment."""
BLOCK_MS: Final = 300_000
"""Cohorts are compared in blocks of five minutes: longer than a product is on stage, so that blocks are independent."""
DISPERSION_WEIGHT: Final = 6
"""Blocks that a dispersion of 1 is worth."""
MAX_DISPERSION: Final = 9.0
_MIX: Final = 0x9E3779B97F4A7C15


def mean_delay_s(settings: RoiSettings, stage: str, channel: str | None = None) -> int:
    """Return the prior's mean delay for a kind of room: its stage and channel, its channel, its stage, or any."""
    priors = settings.conversion_delays_s
    if channel is not None:
        for name in (f"{stage}/{channel}", f"*/{channel}"):
            if name in priors:
                return priors[name]
        return priors.get(stage, settings.conversion_delay_s)
    return priors.get(stage, settings.conversion_delay_s)


def curve_of(state: ReturnState, settings: RoiSettings, stage: str, channel: str = ROOM) -> Curve:
    """Return the delay curve in force for a channel, or for the room."""
    own = state.curves.get(channel)
    if own is not None:
        return own
    if channel != ROOM:
        mean_s = mean_delay_s(settings, stage, channel)
        if mean_s != mean_delay_s(settings, stage):
            return prior_curve(mean_s)
        return curve_of(state, settings, stage)
    return prior_curve(mean_delay_s(settings, stage))


def refresh(state: ReturnState, ledger: Ledger, settings: RoiSettings, stage: str, now_ms: int) -> bool:
    """Learn the curves anew when enough has come in; tell whether they were."""
    if state.n_news < state.due_after or now_ms < state.learned_ms + LEAST_GAP_MS:
        return False
    state.learned_ms = now_ms
    n_orders = len(ledger.orders)
    state.n_news, state.due_after = 0, max(FIRST_NEWS, n_orders // GROWTH)
    every = 1
    while n_orders > every * MOST_ORDERS:
        every *= 2
    delays: dict[str, Delays] = {}
    returned = Returned()
    for order in ledger.orders.values():
        paid_ts = order.paid_ts
        if paid_ts < 0 or paid_ts >= now_ms:
            continue
        if every > 1 and (paid_ts * _MIX >> 40) % every:
            continue
        if not (order.is_attributed and order.is_valid):
            continue
        if order.touch_ts >= 0:
            own = delays.get(order.channel)
            if own is None:
                own = delays[order.channel] = Delays()
            own.add(paid_ts - order.touch_ts, now_ms - order.touch_ts)
        back = [(max(0, ts - paid_ts), amount) for ts, amount in order.refunded()]
        returned.add(order.product, order.paid_minor, now_ms - paid_ts, back)
    room = Delays()
    for own in delays.values():
        room.by_bin = [a + b for a, b in zip(room.by_bin, own.by_bin, strict=True)]
        room.by_age = [a + b for a, b in zip(room.by_age, own.by_age, strict=True)]
    curves = {ROOM: learn(room, mean_delay_s(settings, stage))}
    for channel, own in sorted(delays.items()):
        if own.n_orders >= MIN_CHANNEL_ORDERS:
            prior_s = mean_delay_s(settings, stage, channel)
            within = curves[ROOM] if prior_s == mean_delay_s(settings, stage) else prior_curve(prior_s)
            curves[channel] = learn_within(own, within)
    state.curves = curves
    state.refunds = learn_refunds(returned, settings.refund_ratio, settings.refund_delay_s)
    state.dispersion_ppm = dispersion_ppm(state, curves[ROOM], now_ms)
    return True


def dispersion_ppm(state: ReturnState, curve: Curve, now_ms: int) -> int:
    """Return how much more the blocks' returns scatter than independent orders would, in millionths; at least 1.

    Pearson's statistic over the cohorts of the last hours, shrunk to 1: products, hosts and offers come in turns, so
    orders come in bursts (McCullagh, Nelder 1989, 4.5; the chain ladder's Mack 1993).
    """
    blocks: dict[int, list[int]] = {}
    for zone in state.room.zones:
        for start_ms, packed in zip(zone.starts, zone.values, strict=True):
            part = unpack(packed)
            share, _ = curve.at(now_ms - zone.bucket_ms // 2 - start_ms)
            width_ms = max(BLOCK_MS, zone.bucket_ms)
            block = blocks.setdefault(start_ms - start_ms % width_ms, [0, 0, 0])
            block[0] += part.spend * share // MILLION
            block[1] += part.net
            block[2] += part.squares
    told = [block for _, block in sorted(blocks.items()) if block[0] > 0]
    due, net, squares = (sum(column) for column in zip(*told, strict=True)) if told else (0, 0, 0)
    if len(told) < 2 or squares <= 0:
        return MILLION
    pearson = sum((block[1] - net * block[0] / due) ** 2 * due / (squares * block[0]) for block in told)
    dispersion = (DISPERSION_WEIGHT + pearson) / (DISPERSION_WEIGHT + len(told) - 1)
    return round(MILLION * min(MAX_DISPERSION, max(1.0, dispersion)))
