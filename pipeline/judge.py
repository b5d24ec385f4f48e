"""A visit to a room: what is strange, how bad, since when, and what to tell."""

from __future__ import annotations

from typing import Any, Final, cast

from pipeline.context import Context
from pipeline.counters import N_NEGATIVE, N_SUSPECT, SPEND, Counts, digit, unpack
from pipeline.detect import WATCHED, Judgement, RobustDeviation, Watched
from pipeline.ids import derived
from pipeline.incident import Incident, Trouble, money_at_risk_minor, severity
from pipeline.room import RoomState
from pipeline.shedding import CALM_MS
from schemas.anomalies import Anomaly, Cause, Contributor
from schemas.base import Severity, capped

NEVER_MS: Final = 1 << 62
"""Later than any moment on the wire."""
SLICED_BY: Final = {"ivt_ratio": N_SUSPECT, "negative_ratio": N_NEGATIVE, "cpc_minor": SPEND}
"""Counter whose share by channel tells where a metric's deviation comes from."""
PATIENCE: Final = 2
"""Windows without enough events to judge by, after which an open anomaly is let go."""
CERTAIN: Final = 0.95
"""Confidence of a cause that the platform or the clock states outright."""


def feed_states(room: RoomState, now_ms: int, ctx: Context) -> tuple[bool, int]:
    """Bring the feeds' states up to date; return whether one changed, and when one gets worse if no news comes."""
    states, settings = room.feed_states, ctx.policy.feeds
    changed, next_ms = False, NEVER_MS
    for name, feed in room.feeds.items():
        state, change_ms = feed.look(name, now_ms, settings)
        if state is not None and states.get(name) != state:
            changed = True
            states[name] = state
        if change_ms is not None and change_ms < next_ms:
            next_ms = change_ms
    if changed:
        room.feed_states = dict(sorted(states.items()))
        room.is_feed_dull = any(state != "live" for state in states.values())
    return changed, next_ms


def is_stale(room: RoomState, feed: str) -> bool:
    """Tell whether a feed is late or dead: what rests on it means nothing then."""
    return room.feed_states.get(feed) in ("late", "dead")


class Judge:
    """One visit: looks at every watched metric, feed and plan of a room and gathers the messages."""

    def __init__(self, room: RoomState, now_ms: int, ctx: Context) -> None:
        self.room, self.now_ms, self.ctx = room, now_ms, ctx
        first, second = room.windows.zones[0].total, room.windows.zones[1].total
        self.minute: Counts = unpack(first)
        self.five: Counts = unpack(first + second)
        self.messages: list[Anomaly] = []
        self.has_opened = False

    def run(self) -> None:
        """Judge everything once; messages are in `messages` afterwards."""
        if not self.room.session.is_active:
            for key in sorted(self.room.incidents):
                self._resolve(key, "session_ended")
            return
        for watched in WATCHED:
            self._watch(watched)
        self._feeds()
        self._plans()
        if self.room.shed_ms >= 0:
            self._quota()
        self._escalate()

    # -- what is looked at ------------------------------------------------------------------------------------

    def _watch(self, watched: Watched) -> None:
        room = self.room
        counts = self.minute if watched.window_s == 60 else self.five
        incident = room.incidents.get(watched.metric)
        if incident is None and counts[watched.whole] < watched.min_past_n and counts[watched.whole] < watched.min_n:
            return  # too few to judge or to remember
        if any(is_stale(room, feed) for feed in watched.needs):
            return
        settings = self.ctx.policy.detect
        sample = watched.sample(counts, self.ctx.policy)
        if incident is not None and self.now_ms - incident.judged_ms >= PATIENCE * watched.window_s * 1_000:
            self._resolve(watched.metric, "too_little_data")  # nobody can say any more that it goes on
        if sample is None:
            return
        detector = room.detectors.get(watched.metric)
        if detector is None:
            detector = room.detectors[watched.metric] = RobustDeviation()
        judgement = detector.update(sample, self.now_ms, watched, settings)
        if judgement is None:
            return
        if incident is None:
            if abs(judgement.z) < settings.open_z:
                return  # nothing to remember about a calm metric
            incident = room.incidents[watched.metric] = Incident()
        incident.judged_ms = self.now_ms
        change = incident.look(judgement, watched, settings)
        if change == "open":
            detector.exclude(self.now_ms - settings.lag_ms)
            self._open(watched.metric, self._trouble(watched, judgement))
        elif change == "clear" and incident.may_resolve(self.now_ms, settings):
            self._resolve(watched.metric, "calm")
        elif incident.is_open:
            # What is wrong must not become what is normal, however long it lasts.
            detector.exclude(incident.opened_ms - settings.lag_ms)
            self._update(watched.metric, self._trouble(watched, judgement))

    def _feeds(self) -> None:
        for name, state in self.room.feed_states.items():
            key = f"feed:{name}"
            if state == "dead":
                freshness = self.room.feeds[name].freshness_ms(self.now_ms) or 0
                self._stated(key, "tracking", freshness / 1_000, {"feed": name, "freshness_s": freshness // 1_000})
            elif state in ("live", "quiet"):
                self._resolve(key, "feed_back")

    def _plans(self) -> None:
        for plan_id, plan in sorted(self.room.plans.items()):
            key = f"plan:{plan_id}"
            if plan.status in ("budget_out", "balance_out"):
                self._stated(key, "delivery_stopped", 1.0, {"plan_id": plan_id, "status": plan.status})
            elif plan.status is not None:
                self._resolve(key, "delivery_back")

    def _quota(self) -> None:
        """Tell that a room is over its quota: what is estimated from its comments rests on a part of them."""
        room, per_s = self.room, self.ctx.policy.engine.room_events_per_s
        if self.now_ms - room.shed_ms > CALM_MS:
            room.shed_ms = -1
            self._resolve("quota", "calm")
        else:
            # Nothing is lost to anybody but some detail: no share of the spend is at risk.
            self._stated("quota", "unknown", float(room.n_shed), {"room_events_per_s": per_s}, metric="n_shed", share=0)

    def _stated(
        self,
        key: str,
        cause: Cause,
        observed: float,
        params: dict[str, Any],
        *,
        metric: str | None = None,
        share: float = 1.0,
    ) -> None:
        """Open what needs no statistics: the clock or the platform says so, or the room's own count."""
        incident = self.room.incidents.get(key)
        if incident is not None and incident.is_open:
            return
        risk = money_at_risk_minor(self._spend_per_minute(), share)
        if incident is None:
            self.room.incidents[key] = Incident()
        self._open(
            key,
            Trouble(
                metric=metric or ("freshness_s" if cause == "tracking" else "delivery"),
                window_s=60,
                observed=round(observed, 3),
                expected=0.0,
                score=0.0,
                cause=cause,
                cause_confidence=CERTAIN,
                severity=self._severity(risk) if share else "S4",
                risk_minor=risk,
                params=params,
            ),
        )

    def _escalate(self) -> None:
        settings = self.ctx.policy.incident
        for key, incident in sorted(self.room.incidents.items()):
            if incident.status != "open" or incident.trouble is None:
                continue
            ack_s = settings.ack_s.get(incident.trouble.severity)
            if ack_s is None or incident.escalation >= 3:
                continue
            if self.now_ms >= incident.opened_ms + (incident.escalation + 1) * ack_s * 1_000:
                incident.escalation += 1
                self._tell(key, "update")

    # -- what it means ----------------------------------------------------------------------------------------

    def _spend_per_minute(self) -> int | None:
        return self.five[SPEND] // 5 if "spend" in self.room.feeds else None

    def _severity(self, risk: int | None) -> Severity:
        return severity(risk, self.room.config.budget_minor, self.ctx.policy.incident)

    def _trouble(self, watched: Watched, judgement: Judgement) -> Trouble:
        observed, expected = judgement.observed, judgement.expected
        if watched.metric == "cpc_minor":
            bad_share = 1.0 - expected / observed if observed > 0 else 0.0
        elif watched.worse == "down":
            bad_share = 1.0 - observed / expected if expected > 0 else 0.0
        else:
            bad_share = observed - expected
        risk = money_at_risk_minor(self._spend_per_minute(), bad_share)
        evidence: dict[str, Any] = {"z": judgement.z}
        if watched.cause == "ivt":
            blocks = self.room.evidence.worst_blocks(3)
            evidence["blocks"] = [{"token": f"{token:016x}", "share": share} for token, share in blocks]
        return Trouble(
            metric=watched.metric,
            window_s=watched.window_s,
            observed=observed,
            expected=expected,
            score=judgement.tail,
            cause=watched.cause,
            cause_confidence=round(min(0.9, 0.5 + abs(judgement.z) / 40), 2),
            severity=self._severity(risk),
            risk_minor=risk,
            params={"observed": observed, "expected": expected, "window_s": watched.window_s},
            evidence=evidence,
            contributors=self._contributors(SLICED_BY.get(watched.metric)),
        )

    def _contributors(self, counter: int | None) -> list[tuple[str, str, float]]:
        if counter is None:
            return []
        by_channel: dict[str, int] = {}
        self.room.expire_channels(self.now_ms)
        for name, windows in sorted(self.room.channels.items()):
            n = digit(windows.zones[0].total, counter)
            if n > 0:
                by_channel[name] = n
        total = sum(by_channel.values())
        ranked = sorted(by_channel.items(), key=lambda item: (-item[1], item[0]))[:3]
        return [("channel", name, round(n / total, 4)) for name, n in ranked]

    # -- what is told -----------------------------------------------------------------------------------------

    def _is_silenced(self, metric: str) -> bool:
        silences = (*self.room.silences, *self.ctx.star.silences)
        return any(until > self.now_ms and name in ("", metric) for until, name in silences)

    def _open(self, key: str, trouble: Trouble) -> None:
        room, incident = self.room, self.room.incidents[key]
        if self._is_silenced(trouble.metric):
            return
        fresh = derived("anomaly", room.room_id, room.session.number, key, self.now_ms)
        incident.open(self.now_ms, trouble, fresh, self.ctx.policy.detect)
        if incident.anomaly_id == fresh:
            room.n_anomalies[trouble.severity] = room.n_anomalies.get(trouble.severity, 0) + 1
        self.has_opened = True
        self._tell(key, "open")

    def _update(self, key: str, trouble: Trouble) -> None:
        incident = self.room.incidents[key]
        due = self.now_ms - incident.told_ms >= self.ctx.policy.detect.update_interval_ms
        if due or incident.worsens(trouble):
            incident.trouble = trouble
            self._tell(key, "acked" if incident.status == "acked" else "update")

    def _resolve(self, key: str, why: str) -> None:
        incident = self.room.incidents.get(key)
        if incident is None or not incident.is_open:
            return
        incident.resolve(self.now_ms)
        self._tell(key, "resolved", {"why": why})

    def _tell(self, key: str, status: Any, params: dict[str, Any] | None = None) -> None:
        self.messages.append(told(self.room, key, status, self.now_ms, self.ctx, params=params))


def told(
    room: RoomState, key: str, status: Any, now_ms: int, ctx: Context, *, params: dict[str, Any] | None = None
) -> Anomaly:
    """Return the message for an incident's step, and note that it was told."""
    incident, settings = room.incidents[key], ctx.policy.incident
    trouble = cast("Trouble", incident.trouble)
    incident.told_ms = now_ms
    ack_s = settings.ack_s.get(trouble.severity)
    resolve_s = settings.resolve_s.get(trouble.severity)
    return Anomaly.model_construct(
        anomaly_id=incident.anomaly_id,
        room_id=room.room_id,
        ts=capped(now_ms),
        status=status,
        severity=trouble.severity,
        metric=trouble.metric,
        dimension="room",
        window_s=trouble.window_s,
        observed=trouble.observed,
        expected=trouble.expected,
        score=trouble.score,
        cause=trouble.cause,
        cause_confidence=trouble.cause_confidence,
        contributors=[Contributor(dimension=d, value=v, share=s) for d, v, s in trouble.contributors],
        money_at_risk_minor=trouble.risk_minor,
        owner=settings.owners.get(trouble.cause, "traffic"),
        ack_due_ts=None if ack_s is None else capped(incident.opened_ms + ack_s * 1_000),
        resolve_due_ts=None if resolve_s is None else capped(incident.opened_ms + resolve_s * 1_000),
        escalation_level=incident.escalation,
        runbook=f"{settings.runbook_url}#{trouble.cause}",
        code=trouble.metric,
        params={**trouble.params, **(params or {})},
        evidence=trouble.evidence,
    )


def incident_due(room: RoomState, ctx: Context) -> list[int]:
    """Return when open incidents want attention if nothing else happens."""
    due: list[int] = []
    for incident in room.incidents.values():
        if incident.status != "open" or incident.trouble is None or incident.escalation >= 3:
            continue
        ack_s = ctx.policy.incident.ack_s.get(incident.trouble.severity)
        if ack_s is not None:
            due.append(incident.opened_ms + (incident.escalation + 1) * ack_s * 1_000 - 1)
    return due
