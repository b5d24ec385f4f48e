"""One room's state: counters, ledgers, detectors, plans; and the money of its sessions."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import msgspec

from pipeline.audit import Trail
from pipeline.bidding import Plan
from pipeline.buckets import BASE_MS, CHANNEL_ZONES, ROOM_ZONES, Windows
from pipeline.context import Context
from pipeline.counters import MONEY, UNIT, Packed, only
from pipeline.crowding import Crowds
from pipeline.dedup import SeenIds
from pipeline.detect import RobustDeviation
from pipeline.feeds import Feed
from pipeline.incident import Incident
from pipeline.money import SpendTotals, conversion
from pipeline.orders import Ledger
from pipeline.quality import Evidence
from pipeline.roi import ReturnState
from pipeline.said import Said
from pipeline.samples import Samples
from pipeline.segments import Link
from pipeline.session import RoomConfig, Session
from pipeline.slicing import Slices, next_numbering
from pipeline.users import DistinctUsers
from schemas.base import UNKNOWN

OTHER_CHANNEL: Final = "other"
LEDGER_SLACK_MS: Final = 3_600_000
_SUSPECT: Final = UNIT["n_suspect"]


class CurrencyUnknownError(ValueError):
    """Money came in a currency that no rate converts."""


class Pending:
    """What happened in one base bucket and waits for the evaluation that folds it into the windows.

    `own` counts what belongs to this session, by channel; `late` what came late for one before it; `former` what one
    before it told already. Samples of the latter two are `past`.
    """

    __slots__ = ("amounts", "dwell", "former", "late", "own", "past_amounts", "past_dwell")

    def __init__(self) -> None:
        self.own: dict[str, Packed] = {}
        self.late: dict[str, Packed] = {}
        self.former: dict[str, Packed] = {}
        self.dwell = self.past_dwell = self.amounts = self.past_amounts = b""


class Parked(msgspec.Struct, gc=False):
    """Why a room was taken out of service: the record that broke it."""

    offset: int
    since_ms: int
    error: str
    anomaly_id: str


class Farewell(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a room hands to its partition when it goes, at a moment of the log's clock: counts, its trail's head."""

    at_ms: int
    first_offset: int
    offset: int
    """The record that began the room, and the last one before that moment: what lies between is in these counts."""
    n_events: int
    n_duplicates: int
    n_late: int
    n_shed: int
    largest_ts: int
    rejects: dict[str, int]
    n_audited: int
    head: str


class RoomState(msgspec.Struct, gc=False):
    """Everything known of one room; its snapshot is this, with the offset of the last record applied."""

    room_id: str
    config: RoomConfig
    offset: int = -1
    parked: Parked | None = None
    seen: SeenIds = msgspec.field(default_factory=SeenIds)
    users: DistinctUsers = msgspec.field(default_factory=DistinctUsers)
    pending: dict[int, Pending] = msgspec.field(default_factory=dict)
    channels: dict[str, Windows] = msgspec.field(default_factory=dict)
    session: Session = msgspec.field(default_factory=Session)
    kinds: dict[str, bool] = msgspec.field(default_factory=dict)
    feeds: dict[str, Feed] = msgspec.field(default_factory=dict)
    evidence: Evidence = msgspec.field(default_factory=Evidence)
    n_events: int = 0
    granted_to: int = 0
    """Number of events up to which nobody asks whether the room is over its quota (`pipeline.shedding`)."""
    largest_ts: int = -1
    n_news: int = 0
    due_ms: int = -1
    is_fresh: bool = True
    is_changed: bool = False
    slices: Slices | None = None
    """Counters by other dimensions than the channel; None in a room whose settings name none."""
    # What stands before this is touched by every event, and lies together in memory.
    evaluated_ms: int = -1
    turn: int = 0
    money_currency: str | None = None
    windows: Windows = msgspec.field(default_factory=lambda: Windows(ROOM_ZONES))
    returns: ReturnState = msgspec.field(default_factory=ReturnState)
    dwell: Samples = msgspec.field(default_factory=Samples)
    amounts: Samples = msgspec.field(default_factory=Samples)
    presence: list[tuple[int, int]] = msgspec.field(default_factory=list)
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    chain: list[Link] = msgspec.field(default_factory=list)
    spend: SpendTotals = msgspec.field(default_factory=SpendTotals)
    feed_states: dict[str, str] = msgspec.field(default_factory=dict)
    feeds_due_ms: int = -1
    is_feed_dull: bool = False
    """A feed is not live: news may change that at any visit."""
    detectors: dict[str, RobustDeviation] = msgspec.field(default_factory=dict)
    incidents: dict[str, Incident] = msgspec.field(default_factory=dict)
    plans: dict[str, Plan] = msgspec.field(default_factory=dict)
    is_killed: bool = False
    excluded: list[tuple[int, int]] = msgspec.field(default_factory=list)
    silences: list[tuple[int, str]] = msgspec.field(default_factory=list)
    control_ids: dict[str, int] = msgspec.field(default_factory=dict)
    trail: Trail = msgspec.field(default_factory=Trail)
    revision: int = 0
    must_tell: bool = False
    channels_due_ms: int = -1
    n_anomalies: dict[str, int] = msgspec.field(default_factory=dict)
    n_commands: dict[str, int] = msgspec.field(default_factory=dict)
    n_duplicates: int = 0
    n_late: int = 0
    granted_tick: int = -1
    n_shed: int = 0
    shed_ms: int = -1
    """When something was shed last, by the log's clock."""
    rejects: dict[str, int] = msgspec.field(default_factory=dict)
    first_offset: int = -1
    """The record that began the room. What was refused before it counts with the partition."""
    heard_ms: int = -1
    """Last visit that found news, by the log's clock."""
    is_gone: bool = False
    """It went: what stands here says so to whoever reads the log from before."""
    numbering: int = 0
    """Of its slices, the last one given out."""
    said: dict[str, Said] = msgspec.field(default_factory=dict)
    """What the room said of itself: product on stage, host, partner."""
    crowds: Crowds = msgspec.field(default_factory=Crowds)
    farewells: list[Farewell] = msgspec.field(default_factory=list)
    """Of rooms of this name that went, as long as the partition's saved state may stand before one of them."""

    # -- counting ---------------------------------------------------------------------------------------------

    def waiting(self, ts: int) -> Pending:
        """Return what waits in the base bucket of a moment."""
        bucket = ts - ts % BASE_MS
        pending = self.pending.get(bucket)
        if pending is None:
            pending = self.pending[bucket] = Pending()
        return pending

    def count(self, ts: int, channel: str, counted: int, *, is_past: bool = False, places: int = 0) -> None:
        """Count packed counters at a moment under a channel and its slices; `is_past` for a session before this one."""
        bucket = ts - ts % BASE_MS
        pending = self.pending.get(bucket)
        if pending is None:
            pending = self.pending[bucket] = Pending()
        cells = pending.late if is_past else pending.own
        cells[channel] = cells.get(channel, 0) + counted
        if self.slices is not None:
            self.slices.count(ts, places, counted, is_past=is_past)

    def review(self, now_ms: int, ctx: Context) -> None:
        """Look at the evidence of invalid traffic; what turns out invalid counts at the time when it happened."""
        for ts, channel, n, user in self.evidence.review(now_ms, ctx.quality):
            name = channel if channel in self.channels else self.channel_of(None, ctx.max_channels)
            places = 0 if self.slices is None else self.slices.touches.get(user, 0)
            self.count(ts, name, n * _SUSPECT, is_past=ts < self.session.begins_ts, places=places)

    def fold(self, now_ms: int) -> bool:
        """Move what happened before `now_ms` into the windows; tell whether any window changed."""
        changed = self.windows.expire(now_ms)
        if changed:
            self.dwell.expire(now_ms)
            self.amounts.expire(now_ms)
        last_bucket = now_ms - BASE_MS
        ripe = [bucket for bucket in self.pending if bucket <= last_bucket]
        for bucket in ripe:
            self._fold_bucket(bucket, self.pending.pop(bucket), now_ms)
        if ripe and self.slices is not None:
            self.slices.fold(now_ms)
        return changed or bool(ripe)

    def expire_channels(self, now_ms: int) -> None:
        """Bring the channels' windows up to date: before they are read, since no visit needs them."""
        for windows in self.channels.values():
            windows.expire(now_ms)

    def _fold_bucket(self, bucket: int, pending: Pending, now_ms: int) -> None:
        total, own, windows, channels = 0, pending.own, self.windows, self.channels
        for channel, counted in own.items():
            total += counted
            slice_ = channels[channel]
            slice_.session += counted
            slice_.put(bucket, counted, now_ms)
        windows.session += total
        if pending.late or pending.former:
            for cells in (pending.late, pending.former):
                for channel, counted in cells.items():
                    total += counted
                    channels[channel].put(bucket, counted, now_ms)
                    if cells is pending.late:
                        windows.prior += counted
        windows.put(bucket, total, now_ms)
        if pending.dwell or pending.past_dwell:
            self.dwell.count(pending.dwell)
            self.dwell.put(bucket, pending.dwell + pending.past_dwell, now_ms)
        if pending.amounts or pending.past_amounts:
            self.amounts.count(pending.amounts)
            self.amounts.put(bucket, pending.amounts + pending.past_amounts, now_ms)

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
        if name not in self.channels:
            if len(self.channels) >= limit:
                name = OTHER_CHANNEL
            if name not in self.channels:
                self.channels[name] = Windows(CHANNEL_ZONES)
        return name

    def is_excluded(self, now_ms: int) -> bool:
        """Tell whether an operator took this time out of bidding."""
        return any(begin <= now_ms < end for begin, end in self.excluded)

    # -- sessions ---------------------------------------------------------------------------------------------

    def begin_session(self, now_ms: int, ctx: Context) -> None:
        """Start counting anew; what is on its way into the windows stays with the session before."""
        for pending in self.pending.values():
            # The session that ends now tells all of it in its last signals.
            pending.former = _joined(pending.own, pending.late, pending.former)
            pending.own, pending.late = {}, {}
            pending.past_dwell, pending.dwell = pending.dwell + pending.past_dwell, b""
            pending.past_amounts, pending.amounts = pending.amounts + pending.past_amounts, b""
        for windows in (self.windows, *self.channels.values()):
            windows.session = windows.prior = 0
        if self.slices is not None:
            numbering = next_numbering(self) if self.slices.is_full else self.slices.numbering
            self.slices.begin_session(now_ms, self.evaluated_ms, numbering)
        self.returns.begin_session()
        self.dwell.session, self.amounts.session = {}, {}
        self.users.begin_session(-(-self.session.begins_ts // 1_000))
        self.evidence.begin_session()
        self.config.begin_session(ctx.policy)
        for plan in self.plans.values():
            plan.begin_session()
        horizon_ms = now_ms - ctx.policy.engine.ledger_ms
        self.ledger.forget(self.session.number, horizon_ms)
        self.seen.forget_money(horizon_ms - LEDGER_SLACK_MS)

    def factor_for(self, currency: str, ctx: Context, *, is_past: bool = False) -> Fraction | int:
        """Return what to multiply an amount by to have it in the session's currency.

        Late money of a session before goes by that one's currency while this one has none.

        Raises
        ------
        CurrencyUnknownError
            No rate is configured.
        """
        own = self.config.currency
        if own == currency:
            return 1
        former = self.money_currency if is_past else None
        own = own or former or ctx.policy.currency.default or currency
        factor = conversion(ctx.policy.currency.rates, currency, own)
        if factor is None:
            msg = f"currency: no rate is configured from {currency} to the session's {own}"
            raise CurrencyUnknownError(msg)
        return factor

    def money_factor(self, currency: str, ctx: Context, *, is_past: bool = False) -> Fraction | int:
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
            for windows in (self.windows, *self.channels.values()):
                for zone in windows.zones:
                    zone.values = [value - only(value, MONEY) for value in zone.values]
                    zone.total = sum(zone.values)
            if self.slices is not None:
                self.slices.forget_money()
            self.returns.forget_money(ctx.star.clock_ms)
            self.amounts.clear()
            for pending in self.pending.values():
                for cells in (pending.own, pending.late, pending.former):
                    for channel, counted in cells.items():
                        cells[channel] = counted - only(counted, MONEY)
                pending.amounts = pending.past_amounts = b""
            factor = conversion(ctx.policy.currency.rates, self.money_currency, own)
            if factor is not None:
                self.ledger.convert(factor, self.offset)
                self.spend.convert(factor)
        self.money_currency = own


def _joined(*parts: dict[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for channel, counted in part.items():
            total[channel] = total.get(channel, 0) + counted
    return total
