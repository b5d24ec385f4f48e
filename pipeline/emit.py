"""A room's signals: every window's metrics at one evaluation."""

from __future__ import annotations

from typing import Any, Final

from pipeline.buckets import Tally, add
from pipeline.context import Context
from pipeline.metrics import PRIOR, compute, this_session
from pipeline.roi import Return, matured_spend, net_attributed_minor, returns, roas
from pipeline.room import RoomState
from schemas.base import MAX_INTEGER, capped

HOUR_MS: Final = 3_600_000


class View:
    """A room's windows at one evaluation, each summed once."""

    def __init__(self, room: RoomState, now_ms: int, ctx: Context) -> None:
        self.room, self.now_ms, self.ctx = room, now_ms, ctx
        roi = ctx.policy.roi
        matured = matured_spend(room.windows, now_ms, roi.conversion_delay_s)
        self.tallies: dict[int, Tally] = {}
        self.returns: dict[int, Return] = {}
        self.bins: dict[int, Tally] = {}
        total: Tally = {}
        binned: Tally = {}
        for zone, bin_zone, due in zip(room.windows.zones, room.bins.zones, matured[:-1], strict=True):
            add(total, zone.total)
            add(binned, bin_zone.total)
            self.tallies[zone.reach_ms], self.bins[zone.reach_ms] = dict(total), dict(binned)
            self.returns[zone.reach_ms] = returns(total, binned, due, roi)
        self.session, self.session_bins = this_session(room.windows.session), this_session(room.bins.session)
        self.session_return = returns(self.session, self.session_bins, matured[-1], roi)

    def _users(self, tally: Tally, reach_ms: int) -> tuple[int | None, int | None]:
        users = self.room.users
        if not users.users:
            return None, None
        narrow = reach_ms >= HOUR_MS
        prefix = "hour_" if narrow else ""
        n_users, n_active = tally.get(f"{prefix}users", 0), tally.get(f"{prefix}active", 0)
        return users.scaled(max(0, n_users), narrow=narrow), users.scaled(max(0, n_active), narrow=narrow)

    def windows(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of each window by its length in seconds, and of the session."""
        room = self.room
        out: dict[str, dict[str, Any]] = {}
        for reach_ms, tally in self.tallies.items():
            n_users, n_active = self._users(tally, reach_ms)
            metrics = compute(
                tally,
                self.ctx.policy,
                self.returns[reach_ms],
                bins=self.bins[reach_ms],
                kinds=room.kinds,
                n_users=n_users,
                n_active=n_active,
            )
            n_online = room.online(self.now_ms - reach_ms, self.now_ms)
            if n_online is not None:
                metrics["n_online"] = n_online
            out[str(reach_ms // 1_000)] = metrics
        out["session"] = self.session_metrics()
        return out

    def session_metrics(self) -> dict[str, Any]:
        """Return the session's metrics, with what came late for the session before and the feeds' freshness."""
        room, users = self.room, self.room.users
        known = bool(users.users)
        metrics = compute(
            self.session,
            self.ctx.policy,
            self.session_return,
            bins=self.session_bins,
            kinds=room.kinds,
            n_users=users.scaled(users.n_session, narrow=True) if known else None,
            n_active=users.scaled(users.n_session_active, narrow=True) if known else None,
        )
        n_online = room.online(max(0, room.session.begins_ts), self.now_ms)
        if n_online is not None:
            metrics["n_online"] = n_online
        for name in PRIOR:
            late = room.windows.session.get(f"prior:{name}", 0)
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
        return {
            name: {
                "300": self._channel(windows.zones[0].total),
                "session": self._channel(this_session(windows.session)),
            }
            for name, windows in sorted(self.room.channels.items())
            if windows.session or windows.zones[0].total
        }

    def _channel(self, tally: Tally) -> dict[str, Any]:
        spend = tally.get("spend_minor", 0)
        whole = roas(tally.get("gmv_minor", 0) - tally.get("refund_minor", 0), spend)
        attributed = roas(net_attributed_minor(tally, valid=False), spend)
        valid = roas(net_attributed_minor(tally, valid=True), spend)
        returned = Return(whole, attributed, valid, None, None, None, None)
        return compute(tally, self.ctx.policy, returned, bins={}, kinds=self.room.kinds, n_users=None, n_active=None)


def signals(room: RoomState, view: View, *, with_channels: bool) -> dict[str, Any]:
    """Return the fields of one emission's `RoomSignals`; `revision` counts a room's emissions."""
    room.revision += 1
    fields: dict[str, Any] = {"room_id": room.room_id, "ts": capped(view.now_ms), "revision": room.revision}
    if room.config.currency is not None:
        fields["currency"] = room.config.currency
    fields |= {"stage": room.config.stage, "mode": room.config.mode, "windows": view.windows()}
    if with_channels:
        fields["channels"] = view.channels()
    return fields
