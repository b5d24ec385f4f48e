"""A room's signals: every window's metrics at one evaluation."""

from __future__ import annotations

from typing import Any

from pipeline.buckets import CHANNEL_ZONES, ROOM_ZONES, Windows
from pipeline.context import Context
from pipeline.counters import N_ORDERS_PAID, PLACE, Counts, unpack
from pipeline.metrics import PRIOR, compute, told_counts
from pipeline.quality import ivt_interval, ivt_ratio, judged
from pipeline.roi import Learned, Return, curve_of, due, returns
from pipeline.roi.cohorts import CHANNEL_COHORTS
from pipeline.roi.shift import shift
from pipeline.room import RoomState
from pipeline.samples import counted, middle
from pipeline.sketches import bin_value, quantile
from schemas.base import MAX_INTEGER, capped

QUARTER, HOUR = 2, 3
"""Places of the windows of 900 s and 3,600 s."""
NAMES = tuple(str(reach_ms // 1_000) for reach_ms, _ in ROOM_ZONES)


class View:
    """A room's windows at one evaluation, each summed once; by their place, from the shortest to the longest."""

    __slots__ = ("amounts", "counts", "ctx", "learned", "now_ms", "returns", "room", "session", "session_return")

    def __init__(self, room: RoomState, now_ms: int, ctx: Context) -> None:
        self.room, self.now_ms, self.ctx = room, now_ms, ctx
        roi = ctx.policy.roi
        state, begins_ts = room.returns, room.session.begins_ts
        self.learned = Learned(state.dispersion_ppm, state.refunds.n_refunds)
        state.room.expire(now_ms)
        dues = due(state.room, now_ms, curve_of(state, roi, room.config.stage), state.refunds, begins_ts)
        self.counts: list[Counts] = []
        self.amounts: list[dict[int, int]] = []
        self.returns: list[Return] = []
        total, samples = None, None
        sums = zip(room.windows.totals(), room.amounts.windows(), strict=True)
        for place, (packed, amounts) in enumerate(sums):
            # What a longer window adds to a shorter one is often nothing: then all of it is the same.
            is_same = packed == total
            self.counts.append(self.counts[-1] if is_same else unpack(packed))
            self.amounts.append(self.amounts[-1] if amounts == samples else counted(amounts))
            if is_same and dues[place] == dues[place - 1]:
                self.returns.append(self.returns[-1])
            else:
                self.returns.append(returns(self.counts[-1], dues[place], self.learned, roi))
            total, samples = packed, amounts
        self.session = unpack(room.windows.session)
        self.session_return = returns(self.session, dues[-1], self.learned, roi)

    def windows(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of each window by its length in seconds, and of the session."""
        room, policy, now_ms = self.room, self.ctx.policy, self.now_ms
        told = told_counts(tuple(room.kinds))
        users: list[tuple[int | None, int | None]] = [(None, None)] * len(NAMES)
        if room.users.is_known:
            users = [*room.users.windows(now_ms // 1_000)]
        out: dict[str, dict[str, Any]] = {}
        metrics: dict[str, Any] = {}
        last: tuple[Any, ...] = ()
        for place, samples in enumerate(room.dwell.windows()):
            basis = self.counts[place], self.returns[place], samples, users[place]
            if basis != last:
                half = middle(samples)
                n_users, n_active = users[place]
                metrics = compute(
                    self.counts[place],
                    policy,
                    self.returns[place],
                    told=told,
                    dwell_p50_ms=None if half is None else bin_value(half),
                    n_users=n_users,
                    n_active=n_active,
                )
                last = basis
            out[NAMES[place]] = metrics
            if room.presence:
                n_online = room.online(now_ms - ROOM_ZONES[place][0], now_ms)
                if n_online is not None:
                    out[NAMES[place]] = {**metrics, "n_online": n_online}
        if room.session.begins_ts >= 0 and self.counts[HOUR][N_ORDERS_PAID] > 0:
            watched_s = (now_ms - room.session.begins_ts) / 1_000
            moved = shift(self.counts[QUARTER], self.counts[HOUR], watched_s)
            if moved is not None:
                out[NAMES[QUARTER]] = {**out[NAMES[QUARTER]], "return_shift": moved}
        out["session"] = self.session_metrics()
        return out

    def session_metrics(self) -> dict[str, Any]:
        """Return the session's metrics, with what came late for the session before and the feeds' freshness."""
        room, users = self.room, self.room.users
        n_users, n_active = users.session_counts() if users.is_known else (None, None)
        metrics = compute(
            self.session,
            self.ctx.policy,
            self.session_return,
            told=told_counts(tuple(room.kinds)),
            dwell_p50_ms=quantile(room.dwell.session, 0.5),
            n_users=n_users,
            n_active=n_active,
        )
        if room.presence:
            n_online = room.online(max(0, room.session.begins_ts), self.now_ms)
            if n_online is not None:
                metrics["n_online"] = n_online
        if room.windows.prior:
            prior = unpack(room.windows.prior)
            for name in PRIOR:
                late = prior[PLACE[name]]
                if late:
                    metrics[f"prior_{name}"] = min(late, MAX_INTEGER)
        freshness = {
            name: round(behind / 1_000, 3)
            for name, feed in sorted(room.feeds.items())
            if (behind := feed.freshness_ms(self.now_ms)) is not None
        }
        if freshness:
            metrics["freshness_s"] = freshness
        if room.feed_states:
            metrics["feed_state"] = dict(room.feed_states)
        return metrics

    def channels(self) -> dict[str, dict[str, Any]]:
        """Return each channel's metrics over 300 s and the session, its return by the channel's own delay curve."""
        self.room.expire_channels(self.now_ms)
        name_of_window = str(CHANNEL_ZONES[0][0] // 1_000)
        out = {}
        for name, windows in sorted(self.room.channels.items()):
            if windows.session or windows.zones[0].total:
                rolling, session = unpack(windows.zones[0].total), unpack(windows.session)
                short, whole = self._returns(name, rolling, session)
                out[name] = {name_of_window: self._channel(rolling, short), "session": self._channel(session, whole)}
        return out

    def segments(self) -> dict[str, dict[str, Any]]:
        """Return each segment's invalid share of the session's visits, where enough were judged."""
        evidence, settings = self.room.evidence, self.ctx.policy.quality
        told: dict[str, dict[str, Any]] = {}
        for name, (n_judged, n_invalid) in zip(evidence.segments, evidence.by_segment, strict=True):
            counts = judged(n_judged, n_invalid)
            share, interval = ivt_ratio(counts, settings), ivt_interval(counts, settings)
            if name and share is not None and interval is not None:
                told[name] = {"session": {"ivt_ratio": share, "ivt_low": interval[0], "ivt_high": interval[1]}}
        return dict(sorted(told.items()))

    def _returns(self, channel: str, rolling: Counts, session: Counts) -> tuple[Return, Return]:
        room, roi = self.room, self.ctx.policy.roi
        state = room.returns
        cohorts = state.channels.get(channel) or Windows(CHANNEL_COHORTS)
        cohorts.expire(self.now_ms)
        curve = curve_of(state, roi, room.config.stage, channel)
        dues = due(cohorts, self.now_ms, curve, state.refunds, room.session.begins_ts)
        return returns(rolling, dues[0], self.learned, roi), returns(session, dues[-1], self.learned, roi)

    def _channel(self, counts: Counts, returned: Return) -> dict[str, Any]:
        told = told_counts(tuple(self.room.kinds))
        return compute(counts, self.ctx.policy, returned, told=told, dwell_p50_ms=None, n_users=None, n_active=None)


def signals(room: RoomState, view: View, *, with_channels: bool) -> dict[str, Any]:
    """Return the fields of one emission's `RoomSignals`; `revision` counts a room's emissions."""
    room.revision += 1
    fields: dict[str, Any] = {"room_id": room.room_id, "ts": capped(view.now_ms), "revision": room.revision}
    if room.config.currency is not None:
        fields["currency"] = room.config.currency
    fields["stage"], fields["mode"] = room.config.stage, room.config.mode
    if room.n_shed:
        fields["n_shed"] = room.n_shed
    fields["windows"] = view.windows()
    if with_channels:
        fields["channels"] = view.channels()
        if segments := view.segments():
            fields["segments"] = segments
        if crowded := room.crowds.crowded(view.now_ms, view.ctx.policy.sentiment):
            fields["crowded"] = crowded
    return fields
