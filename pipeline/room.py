"""One room's state: counters, ledgers, detectors, plans; and the money of its sessions."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import msgspec

from pipeline.audit import Trail
from pipeline.bidding import Plan
from pipeline.buckets import BASE_MS, CHANNEL_ZONES, ROOM_ZONES, Tally, Windows
from pipeline.context import Context
from pipeline.dedup import SeenIds
from pipeline.detect import RobustDeviation
from pipeline.feeds import Feed
from pipeline.incident import Incident
from pipeline.money import SpendTotals, conversion
from pipeline.orders import Ledger
from pipeline.quality import Evidence
from pipeline.session import RoomConfig, Session
from pipeline.sketches import DistinctUsers
from schemas.base import UNKNOWN

MONEY: Final = ("gmv_minor", "refund_minor", "spend_minor", "gift_minor")
OTHER_CHANNEL: Final = "other"
BINS: Final = "\0bins"
"""Where a room's binned durations and amounts are counted: apart, since only two metrics read them."""
ROOM_WIDE: Final = ("", BINS)
LEDGER_SLACK_MS: Final = 3_600_000


class CurrencyUnknownError(ValueError):
    """Money came in a currency that no rate converts."""


class RoomState(msgspec.Struct):
    """Everything known of one room; its snapshot is this, with the offset of the last record applied."""

    room_id: str
    config: RoomConfig
    offset: int = -1
    evaluated_ms: int = -1
    due_ms: int = -1
    turn: int = 0
    is_fresh: bool = True
    money_currency: str | None = None
    session: Session = msgspec.field(default_factory=Session)
    windows: Windows = msgspec.field(default_factory=lambda: Windows.over(ROOM_ZONES))
    bins: Windows = msgspec.field(default_factory=lambda: Windows.over(ROOM_ZONES))
    channels: dict[str, Windows] = msgspec.field(default_factory=dict)
    pending: dict[int, dict[str, Tally]] = msgspec.field(default_factory=dict)
    presence: list[tuple[int, int]] = msgspec.field(default_factory=list)
    users: DistinctUsers = msgspec.field(default_factory=DistinctUsers)
    seen: SeenIds = msgspec.field(default_factory=SeenIds)
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    spend: SpendTotals = msgspec.field(default_factory=SpendTotals)
    kinds: dict[str, int] = msgspec.field(default_factory=dict)
    feeds: dict[str, Feed] = msgspec.field(default_factory=dict)
    feed_states: dict[str, str] = msgspec.field(default_factory=dict)
    evidence: Evidence = msgspec.field(default_factory=Evidence)
    detectors: dict[str, RobustDeviation] = msgspec.field(default_factory=dict)
    incidents: dict[str, Incident] = msgspec.field(default_factory=dict)
    plans: dict[str, Plan] = msgspec.field(default_factory=dict)
    is_killed: bool = False
    excluded: list[tuple[int, int]] = msgspec.field(default_factory=list)
    silences: list[tuple[int, str]] = msgspec.field(default_factory=list)
    control_ids: dict[str, int] = msgspec.field(default_factory=dict)
    trail: Trail = msgspec.field(default_factory=Trail)
    revision: int = 0
    is_changed: bool = False
    must_tell: bool = False
    channels_due_ms: int = -1
    n_anomalies: dict[str, int] = msgspec.field(default_factory=dict)
    n_commands: dict[str, int] = msgspec.field(default_factory=dict)

    # -- counting ---------------------------------------------------------------------------------------------

    def tally(self, ts: int, channel: str) -> Tally:
        """Return the open tally of a base bucket and channel; channel "" is the room itself."""
        bucket = ts - ts % BASE_MS
        channels = self.pending.get(bucket)
        if channels is None:
            channels = self.pending[bucket] = {}
        tally = channels.get(channel)
        if tally is None:
            tally = channels[channel] = {}
            if channel not in ROOM_WIDE and channel not in self.channels:
                self.channels[channel] = Windows.over(CHANNEL_ZONES)
        return tally

    def fold(self, now_ms: int) -> bool:
        """Move what happened before `now_ms` into the windows; tell whether any window changed."""
        changed = self.windows.expire(now_ms)
        self.bins.expire(now_ms)
        for windows in self.channels.values():
            windows.expire(now_ms)
        ripe = [bucket for bucket in self.pending if bucket + BASE_MS <= now_ms]
        for bucket in ripe:
            for channel, tally in self.pending.pop(bucket).items():
                if channel == BINS:
                    self.bins.put(bucket, tally, now_ms)
                    continue
                self.windows.put(bucket, tally, now_ms)
                if channel:
                    self.channels[channel].put(bucket, tally, now_ms)
        return changed or bool(ripe)

    def online(self, since_ms: int, now_ms: int) -> int | None:
        """Return the newest count of viewers with since <= ts < now."""
        newest = None
        for ts, n_online in self.presence:
            if since_ms <= ts < now_ms and (newest is None or ts >= newest[0]):
                newest = (ts, n_online)
        return newest[1] if newest else None

    def channel_of(self, channel: str | None, limit: int) -> str:
        """Return the channel an event counts under: its own while there are few enough, else `other`."""
        name = UNKNOWN if channel is None else channel
        return name if name in self.channels or len(self.channels) < limit else OTHER_CHANNEL

    def is_excluded(self, now_ms: int) -> bool:
        """Tell whether an operator took this time out of bidding."""
        return any(begin <= now_ms < end for begin, end in self.excluded)

    # -- sessions ---------------------------------------------------------------------------------------------

    def begin_session(self, now_ms: int, ctx: Context) -> None:
        """Start counting anew; what is on its way into the windows stays with the session before."""
        for channels in self.pending.values():
            for tally in channels.values():
                for name, n in list(tally.items()):
                    if not name.startswith(("past:", "prior:")):
                        tally[f"past:{name}"], tally["past:"] = n, 1
                    elif name.startswith("prior:"):
                        tally.pop(name)
        for windows in (self.windows, self.bins, *self.channels.values()):
            windows.session = {}
        self.users.begin_session()
        self.config.begin_session(ctx.policy)
        for plan in self.plans.values():
            plan.begin_session()
        horizon_ms = now_ms - ctx.policy.engine.ledger_ms
        self.ledger.forget(self.session.number, horizon_ms)
        self.seen.forget_money(horizon_ms - LEDGER_SLACK_MS)

    def factor_for(self, currency: str, ctx: Context, *, is_past: bool = False) -> Fraction:
        """Return what to multiply an amount by to have it in the session's currency.

        Late money of a session before goes by that one's currency while this one has none.

        Raises
        ------
        CurrencyUnknownError
            No rate is configured.
        """
        former = self.money_currency if is_past else None
        own = self.config.currency or former or ctx.policy.currency.default or currency
        factor = conversion(ctx.policy.currency.rates, currency, own)
        if factor is None:
            msg = f"currency: no rate is configured from {currency} to the session's {own}"
            raise CurrencyUnknownError(msg)
        return factor

    def money_factor(self, currency: str, ctx: Context, *, is_past: bool = False) -> Fraction:
        """Return the same for money that is being booked: the first of a session names its currency."""
        factor = self.factor_for(currency, ctx, is_past=is_past)
        if self.config.currency is None and not is_past:
            self.config.currency = ctx.policy.currency.default or currency
        self.settle_currency(ctx)
        return factor

    def settle_currency(self, ctx: Context) -> None:
        """Take a new session's currency: windows forget amounts of the former one, the ledgers' are converted."""
        own = self.config.currency
        if own is None or own == self.money_currency:
            return
        if self.money_currency is not None:
            for windows in (self.windows, self.bins, *self.channels.values()):
                windows.drop(_is_money)
            for channels in self.pending.values():
                for tally in channels.values():
                    for name in [name for name in tally if _is_money(name)]:
                        del tally[name]
            factor = conversion(ctx.policy.currency.rates, self.money_currency, own)
            if factor is not None:
                self.ledger.convert(factor)
                self.spend.convert(factor)
        self.money_currency = own


def _is_money(name: str) -> bool:
    return name.removeprefix("past:").startswith(("gmv", "refund_", "spend_minor", "gift_minor", "amount:"))
