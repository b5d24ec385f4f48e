"""A room's signals: every window's metrics at one evaluation."""

from __future__ import annotations

from typing import Any

from pipeline.buckets import CHANNEL_ZONES, ROOM_ZONES
from pipeline.context import Context
from pipeline.counters import (
    GMV,
    GMV_ATTRIBUTED,
    GMV_VALID,
    PLACE,
    REFUND,
    REFUND_ATTRIBUTED,
    REFUND_VALID,
    SPEND,
    Counts,
    unpack,
)
from pipeline.metrics import PRIOR, compute, told_counts
from pipeline.roi import Return, matured_spend, returns, roas
from pipeline.room import RoomState
from pipeline.samples import counted, middle
from pipeline.sketches import bin_value, quantile
from schemas.base import MAX_INTEGER, capped

NAMES = tuple(str(reach_ms // 1_000) for reach_ms, _ in ROOM_ZONES)


class View:
    """A room's windows at one evaluation, each summed once; by their place, from the shortest to the longest."""

    __slots__ = ("amounts", "counts", "ctx", "now_ms", "returns", "room", "session", "session_return")

    def __init__(self, room: RoomState, now_ms: int, ctx: Context) -> None:
        self.room, self.now_ms, self.ctx = room, now_ms, ctx
        roi = ctx.policy.roi
        matured = matured_spend(room.spent, now_ms, roi.conversion_delay_s)
        self.counts: list[Counts] = [unpack(total) for total in room.windows.totals()]
        self.amounts = [counted(samples) for samples in room.amounts.windows()]
        self.returns = [
            returns(counts, amounts, due, roi)
            for counts, amounts, due in zip(self.counts, self.amounts, matured, strict=True)
        ]
        self.session = unpack(room.windows.session)
        due = matured[-1].with_rest(self.session[SPEND])
        self.session_return = returns(self.session, room.amounts.session, due, roi)

    def windows(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of each window by its length in seconds, and of the session."""
        room, policy, now_ms = self.room, self.ctx.policy, self.now_ms
        told = told_counts(tuple(room.kinds))
        users: list[tuple[int | None, int | None]] = [(None, None)] * len(NAMES)
        if room.users.is_known:
            users = [*room.users.windows(now_ms // 1_000)]
        out: dict[str, dict[str, Any]] = {}
        for place, samples in enumerate(room.dwell.windows()):
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
            if room.presence:
                n_online = room.online(now_ms - ROOM_ZONES[place][0], now_ms)
                if n_online is not None:
                    metrics["n_online"] = n_online
            out[NAMES[place]] = metrics
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
        """Return each channel's metrics over 300 s and the session; its return is read without a delay curve."""
        self.room.expire_channels(self.now_ms)
        name_of_window = str(CHANNEL_ZONES[0][0] // 1_000)
        return {
            name: {
                name_of_window: self._channel(unpack(windows.zones[0].total)),
                "session": self._channel(unpack(windows.session)),
            }
            for name, windows in sorted(self.room.channels.items())
            if windows.session or windows.zones[0].total
        }

    def _channel(self, counts: Counts) -> dict[str, Any]:
        spend = counts[SPEND]
        whole = roas(counts[GMV] - counts[REFUND], spend)
        attributed = roas(counts[GMV_ATTRIBUTED] - counts[REFUND_ATTRIBUTED], spend)
        valid = roas(counts[GMV_VALID] - counts[REFUND_VALID], spend)
        returned = Return(whole, attributed, valid, None, None, None, None)
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
    return fields
