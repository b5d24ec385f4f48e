"""One partition's log in; signals, anomalies, bid commands, dead letters and the audit trail out.

The engine is a pure function of the records: it reads no clock but the log's, no environment, no chance. Live on
Kafka, offline in a replay, after a crash, in chunks of any size: the same records give the same outputs.

    record -> decode -> clock passes multiples of tick_ms -> each due room is visited -> the record is applied
    visit:  fold counters into windows -> feeds -> judge (anomalies) -> decide (commands) -> emit (signals)
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from pipeline import control
from pipeline.admission import KIND_OF, Admission
from pipeline.apply import apply, start_meaning
from pipeline.commands import Commander, answer, decision_due, situation
from pipeline.context import Context, Star
from pipeline.emit import View, signals
from pipeline.identity import Identities
from pipeline.ids import derived, next_turn_ms, phase_ms
from pipeline.judge import Judge, feed_states, incident_due
from pipeline.output import Output
from pipeline.room import RoomState
from pipeline.sentiment import default_model
from pipeline.session import RoomConfig
from pipeline.snapshot import Checkpoint, Saved, dump, load_room, load_star
from pipeline.summary import summarise
from schemas import topics
from schemas.base import EVERY_ROOM, MODE_RANK, capped
from schemas.commands import BidCommand, Reason
from schemas.deadletters import DeadLetter
from schemas.decode import Reject, decode, is_array, raw_elements
from schemas.settings import Policy, Settings

ENGINE_VERSION: Final = 1
"""Raised with every change that makes the same log give other outputs."""

Record = tuple[int, int | None, bytes] | tuple[int, int | None, bytes, bytes | None]
"""Offset, Kafka timestamp in ms (None in plain files), value, and the message's key where there is one."""

URGENT_KINDS: Final = ("room", "plan", "control", "ack", "feed")
"""What is looked at on the next tick instead of the room's next turn."""


class Engine:
    """Everything known of one partition's rooms.

    Parameters
    ----------
    settings : keys, trust, and the policy until the log names another; None for the defaults.
    partition : number that dead letters name.
    keep_policy : stay with the settings' policy whatever the log says (a replay under another policy).
    """

    def __init__(self, settings: Settings | None = None, *, partition: int = 0, keep_policy: bool = False) -> None:
        settings = settings or Settings()
        privacy = settings.privacy_key
        self._ctx = Context(
            settings.policy, Identities(privacy.get_secret_value() if privacy else None), default_model()
        )
        self.partition = partition
        self._keeps_policy = keep_policy
        self._rooms: dict[str, RoomState] = {}
        self._admission = Admission(
            self._ctx,
            self._rooms.get,
            self._blank_room,
            control_key=settings.control_key.get_secret_value().encode() if settings.control_key else None,
            trusts_log=settings.trust_log,
        )
        self._due: list[tuple[int, str]] = []
        self._dirty: dict[str, bool] = {}

    # -- what others look at ----------------------------------------------------------------------------------

    @property
    def counters(self) -> Star:
        """Counts of records, events, duplicates, late events and rejects so far."""
        return self._ctx.star

    @property
    def clock_ms(self) -> int | None:
        """The log's clock; None before the first record."""
        return None if self._ctx.star.clock_ms < 0 else self._ctx.star.clock_ms

    @property
    def n_rooms(self) -> int:
        """Rooms held."""
        return len(self._rooms)

    @property
    def policy_version(self) -> str:
        """Version of the policy in force."""
        return self._ctx.policy_version

    # -- records ----------------------------------------------------------------------------------------------

    def process(self, records: Iterable[Record]) -> list[Output]:
        """Apply records in the order of their offsets; return what to send, in order."""
        out: list[Output] = []
        for record in records:
            self._record(record, out)
        return out

    def _record(self, record: Record, out: list[Output]) -> None:
        offset, timestamp_ms, value = record[0], record[1], record[2]
        raw_key = record[3] if len(record) > 3 else None
        star = self._ctx.star
        is_new = offset > star.offset
        if value.strip():
            key = None if raw_key is None else raw_key.decode(errors="replace")
            elements = decode(value, timestamp_ms=timestamp_ms, key=key)
            if timestamp_ms is None:
                star.is_stamped = False
                timestamp_ms = self._admission.stamp(elements, value)
            self._advance(timestamp_ms, out)
            star.n_records += is_new
            fresh_rooms: set[str] = set()
            for place, element in enumerate(elements):
                rejected = element
                if type(element) is not Reject:
                    rejected = self._element(element, offset, value, fresh_rooms, out)
                    if rejected is not None and is_array(value):
                        rejected = rejected._replace(place=place, payload=raw_elements(value)[place])
                if rejected is not None and is_new:
                    star.rejects[rejected.reason] = star.rejects.get(rejected.reason, 0) + 1
                    out.append(self._dead_letter(rejected, offset, key))
            for room_id in fresh_rooms:
                self._rooms[room_id].offset = offset
        star.offset = max(star.offset, offset)

    def _element(
        self, event: Any, offset: int, value: bytes, fresh_rooms: set[str], out: list[Output]
    ) -> Reject | None:
        """Apply one decoded event; return a reject where the room's state or the signature forbids it."""
        star, room_id = self._ctx.star, event.room_id
        kind = KIND_OF[type(event)]
        is_new = offset > star.offset
        room = self._rooms.get(room_id)
        if room is not None and room_id not in fresh_rooms and offset <= room.offset:
            return None  # the snapshot this room came back from already knows it
        # What no room keeps is known by the partition alone: ticks, and answers for rooms nobody has seen.
        is_roomless = room_id == EVERY_ROOM or kind == "tick" or (kind == "ack" and room is None)
        if is_roomless and not is_new:
            return None
        refusal = self._admission.refusal(event, value)
        if refusal is not None:
            return refusal
        if self._admission.is_repeated(event):
            star.n_duplicates += is_new
            return None
        star.n_events += is_new
        star.largest_ts = max(star.largest_ts, event.ts)
        star.n_late += is_new and event.ts < star.evaluated_ms
        if is_roomless:
            self._star_event(kind, event, out)
            return None
        if room is None:
            room = self._new_room(room_id)
        self._admission.remember(room, kind, event)
        fresh_rooms.add(room_id)
        self._dirty[room_id] = True
        if kind == "control":
            self._room_control(room, event, out)
        elif kind == "ack":
            self._audit(room, "ack", "controller", event, out)
            answer(room, event)
        else:
            if kind == "room" and event.action == "start" and start_meaning(room, event, self._ctx) == "new":
                self._tell_the_end(room, out)
            apply(room, kind, event, star.clock_ms, self._ctx)
        self._call(room, self._turn(room, urgent=kind in URGENT_KINDS))
        return None

    def _dead_letter(self, rejected: Reject, offset: int, key: str | None) -> Output:
        letter = DeadLetter.model_construct(
            reason=rejected.reason,
            error=rejected.error,
            topic=topics.ROOM_EVENTS,
            partition=self.partition,
            offset=offset,
            index=rejected.place,
            ts=self.clock_ms,
            payload_b64=base64.b64encode(rejected.payload).decode(),
        )
        return Output(topics.ROOM_EVENTS_DLQ, key or "", letter)

    # -- time -------------------------------------------------------------------------------------------------

    def _advance(self, stamp_ms: int, out: list[Output]) -> None:
        """Let the clock pass to a record's stamp: visit every room that is due on the way, in order of time."""
        star = self._ctx.star
        if star.clock_ms < 0:
            star.clock_ms = stamp_ms
            self._beat(stamp_ms)
            return
        tick_ms = self._ctx.policy.engine.tick_ms
        passed_ms = stamp_ms - stamp_ms % tick_ms
        while self._due and self._due[0][0] <= passed_ms:
            at_ms, room_id = heapq.heappop(self._due)
            room = self._rooms.get(room_id)
            if room is not None and room.due_ms == at_ms:
                self._visit(room, at_ms, stamp_ms, out)
        if stamp_ms <= star.clock_ms:
            return
        if passed_ms > star.clock_ms:
            star.evaluated_ms = passed_ms
            beat_ms = self._beat(passed_ms)
            if beat_ms is not None:
                out.append(self._heartbeat(beat_ms))
        star.clock_ms = stamp_ms

    def _beat(self, now_ms: int) -> int | None:
        """Return the heartbeat that is due at `now_ms`, the newest alone where several were passed at once."""
        interval_ms, star = self._ctx.policy.engine.heartbeat_interval_ms, self._ctx.star
        beat_ms = now_ms - now_ms % interval_ms
        if beat_ms <= star.heartbeat_ms:
            return None
        star.heartbeat_ms = beat_ms
        return beat_ms

    def _heartbeat(self, beat_ms: int) -> Output:
        command = BidCommand.model_construct(
            command_id=derived("beat", beat_ms),
            revision=1,
            seq=beat_ms // self._ctx.policy.engine.heartbeat_interval_ms,
            room_id=EVERY_ROOM,
            ts=beat_ms,
            expires_ts=capped(beat_ms + self._ctx.policy.bidding.lifetime_ms),
            action="heartbeat",
            direction="none",
            mode="off" if self._ctx.star.is_killed else self._ctx.policy.bidding.max_mode,
            status="issued",
            emergency=False,
            reason=Reason(code="alive"),
            evidence={},
            anomaly_ids=[],
            guardrails=[],
            policy_version=self._ctx.policy_version,
        )
        return Output(topics.BID_COMMANDS, EVERY_ROOM, command)

    def _turn(self, room: RoomState, *, urgent: bool) -> int:
        """Return when to visit a room that has news: on its own turn, or on the next tick."""
        engine, now_ms = self._ctx.policy.engine, self._ctx.star.clock_ms
        if urgent:
            return next_turn_ms(now_ms, 0, engine.tick_ms)
        return next_turn_ms(now_ms, self._phase(room) % engine.visit_interval_ms, engine.visit_interval_ms)

    def _phase(self, room: RoomState) -> int:
        engine = self._ctx.policy.engine
        return room.turn % (engine.emit_interval_ms // engine.tick_ms) * engine.tick_ms

    def _call(self, room: RoomState, at_ms: int) -> None:
        """Put a room on the list of visits, unless it is there for an earlier moment."""
        if room.due_ms < 0 or at_ms < room.due_ms:
            room.due_ms = at_ms
            heapq.heappush(self._due, (at_ms, room.room_id))

    def _visit(self, room: RoomState, now_ms: int, passing_ms: int, out: list[Output]) -> None:
        """Look at a room at one evaluation."""
        ctx = self._ctx
        room.due_ms, room.evaluated_ms = -1, now_ms
        self._dirty[room.room_id] = True
        if MODE_RANK[room.config.mode] > MODE_RANK[ctx.policy.bidding.max_mode]:
            room.config.mode = ctx.policy.bidding.max_mode
        room.is_changed |= room.fold(now_ms)
        room.is_changed |= feed_states(room, now_ms, ctx)
        judge = Judge(room, now_ms, ctx)
        judge.run()
        out.extend(Output(topics.ROOM_ANOMALIES, room.room_id, anomaly) for anomaly in judge.messages)
        view: View | None = None
        has_commands = False
        bidding = ctx.policy.bidding
        engine, phase = ctx.policy.engine, self._phase(room)
        if room.plans and (judge.has_opened or (now_ms - phase) % bidding.interval_ms == 0):
            view = View(room, now_ms, ctx)
            commander = Commander(room, now_ms, passing_ms, ctx)
            commander.run(self._situation(room, view))
            has_commands = bool(commander.messages)
            self._commands(room, commander, out)
        is_emission = (now_ms - phase) % engine.emit_interval_ms == 0
        if judge.has_opened or has_commands or room.must_tell or (room.is_changed and is_emission):
            self._emit(room, view or View(room, now_ms, ctx), out)
        self._schedule(room, now_ms)

    def _situation(self, room: RoomState, view: View) -> Any:
        window_ms = self._ctx.policy.bidding.decision_window_s * 1_000
        return situation(
            room,
            view.now_ms,
            self._ctx,
            tally=view.tallies[window_ms],
            amounts=view.bins[window_ms],
            returned=view.returns[window_ms],
            spent_minor=view.session.get("spend_minor", 0),
        )

    def _emit(self, room: RoomState, view: View, out: list[Output]) -> None:
        interval_ms = self._ctx.policy.engine.channels_interval_ms
        with_channels = view.now_ms >= room.channels_due_ms
        if with_channels:
            # The first interval is longer by a share of the room's own, so that rooms do not go on together.
            extra_ms = room.turn % interval_ms if room.channels_due_ms < 0 else 0
            room.channels_due_ms = view.now_ms + interval_ms + extra_ms
        out.append(Output(topics.ROOM_SIGNALS, room.room_id, signals(room, view, with_channels=with_channels)))
        room.is_changed = room.must_tell = False

    def _tell_the_end(self, room: RoomState, out: list[Output]) -> None:
        """Emit what a session came to before the next one begins: nothing later would tell it."""
        if not room.is_changed:
            return
        tick_ms = self._ctx.policy.engine.tick_ms
        last = load_room(dump(room))  # a copy: the room itself goes on from where it is
        at_ms = next_turn_ms(self._ctx.star.clock_ms, 0, tick_ms)
        last.fold(at_ms)
        self._emit(last, View(last, at_ms, self._ctx), out)
        room.revision, room.channels_due_ms = last.revision, last.channels_due_ms

    def _schedule(self, room: RoomState, now_ms: int) -> None:
        """Put the room's own deadlines on the list: an idle room without any is not visited again."""
        ctx, engine = self._ctx, self._ctx.policy.engine
        emission = self._phase(room)
        if room.is_changed:
            self._call(room, next_turn_ms(now_ms, emission, engine.emit_interval_ms))
        else:
            expiry_ms = room.windows.next_expiry_ms()
            if expiry_ms is not None:
                self._call(room, next_turn_ms(max(expiry_ms - 1, now_ms), emission, engine.emit_interval_ms))
        moments = [min(room.pending, default=-1), *(incident_due(room, ctx))]
        moments += [feed.next_change_ms(now_ms, ctx.policy.feeds) or -1 for feed in room.feeds.values()]
        for moment in moments:
            if moment >= 0:
                self._call(room, next_turn_ms(max(moment, now_ms), 0, engine.tick_ms))
        for moment in decision_due(room, now_ms, ctx):
            self._call(room, next_turn_ms(moment - 1, emission, ctx.policy.bidding.interval_ms))

    # -- controls, commands, trail ----------------------------------------------------------------------------

    def _star_event(self, kind: str, event: Any, out: list[Output]) -> None:
        star = self._ctx.star
        star.seen.turn(star.clock_ms, self._ctx.policy.engine.recent_ids_ms)
        star.seen.remember(self._ctx.identities.fingerprint(f"{event.room_id}\0{event.event_id}"))
        if kind == "tick":
            return
        if kind == "control":
            star.control_ids[event.control_id] = star.clock_ms
            if not (self._keeps_policy and event.action == "update_settings"):
                control.apply_to_all(event, control.read(event), self._ctx)
        # An answer for a room nobody has seen changes nothing, but somebody sent it.
        record = star.trail.append(
            "control" if kind == "control" else "ack",
            EVERY_ROOM,
            star.clock_ms,
            actor=event.actor if kind == "control" else "controller",
            content={**self._content(event), "room_id": event.room_id},
            policy_version=self._ctx.policy_version,
        )
        out.append(Output(topics.AUDIT_LOG, EVERY_ROOM, record))

    def _room_control(self, room: RoomState, event: Any, out: list[Output]) -> None:
        now_ms = self._ctx.star.clock_ms
        self._audit(room, "control", event.actor, event, out)
        commander = Commander(room, now_ms, now_ms, self._ctx)
        action = control.RoomControl(room, commander, now_ms, self._ctx)
        action.apply(event, control.read(event), self._situation(room, View(room, now_ms, self._ctx)))
        out.extend(Output(topics.ROOM_ANOMALIES, room.room_id, anomaly) for anomaly in action.anomalies)
        self._commands(room, commander, out)
        room.is_changed = True
        room.must_tell |= bool(commander.messages)

    def _commands(self, room: RoomState, commander: Commander, out: list[Output]) -> None:
        for command in commander.messages:
            out.append(Output(topics.BID_COMMANDS, room.room_id, command))
            record = room.trail.append(
                "command",
                room.room_id,
                commander.now_ms,
                actor="roompulse",
                content=command.model_dump(mode="json", exclude_none=True),
                policy_version=self._ctx.policy_version,
            )
            out.append(Output(topics.AUDIT_LOG, room.room_id, record))

    def _audit(
        self, room: RoomState, kind: Literal["control", "ack"], actor: str, event: Any, out: list[Output]
    ) -> None:
        record = room.trail.append(
            kind,
            room.room_id,
            self._ctx.star.clock_ms,
            actor=actor,
            content=self._content(event),
            policy_version=self._ctx.policy_version,
        )
        out.append(Output(topics.AUDIT_LOG, room.room_id, record))

    @staticmethod
    def _content(event: Any) -> dict[str, Any]:
        """Return what the trail keeps of a control or ack: its own fields, without the signature."""
        names = ("control_id", "action", "args", "command_id", "status", "observed_value", "detail", "ts")
        return {name: value for name in names if (value := getattr(event, name, None)) is not None}

    # -- rooms, snapshots, the end ----------------------------------------------------------------------------

    def _blank_room(self, room_id: str) -> RoomState:
        policy = self._ctx.policy
        config = RoomConfig(mode=policy.bidding.mode, stage=policy.default_stage)
        return RoomState(room_id, config, turn=phase_ms(room_id, 1 << 40, 1))

    def _new_room(self, room_id: str) -> RoomState:
        room = self._rooms[room_id] = self._blank_room(room_id)
        return room

    def snapshot(self) -> dict[str, bytes]:
        """Return every room's state, and the partition's own under `*`, each with the offset it stands for."""
        states = {room_id: dump(room) for room_id, room in self._rooms.items()}
        return {**states, EVERY_ROOM: dump(self._ctx.star)}

    def changed(self) -> dict[str, bytes | None]:
        """Return the states that changed since this was last asked for; None would drop a room."""
        states: dict[str, bytes | None] = {room_id: dump(self._rooms[room_id]) for room_id in sorted(self._dirty)}
        self._dirty.clear()
        return {**states, EVERY_ROOM: dump(self._ctx.star)}

    def checkpoint(self) -> Checkpoint:
        """Return where the log stands, and the rooms that changed since each was last saved."""
        star = self._ctx.star
        return Checkpoint(star.offset, dump(star), tuple(sorted(self._dirty)))

    def save(self, room_id: str) -> Saved:
        """Return a room's state as it is now; it counts as saved."""
        self._dirty.pop(room_id, None)
        return Saved(((room_id, dump(self._rooms[room_id])),), ())

    def restore(self, snapshots: Mapping[str, bytes]) -> None:
        """Take back what `snapshot` or `changed` gave; records a room already knows are skipped from then on.

        Raises
        ------
        SnapshotError
            Bytes that this version cannot read; nothing was taken.
        """
        rooms = {room_id: load_room(data) for room_id, data in snapshots.items() if room_id != EVERY_ROOM}
        star = load_star(snapshots[EVERY_ROOM]) if EVERY_ROOM in snapshots else self._ctx.star
        self._rooms.update(rooms)
        self._ctx.star = star
        if star.policy:
            self._ctx.set_policy(Policy.model_validate_json(star.policy))
        for room_id, room in rooms.items():
            if room.due_ms >= 0:
                heapq.heappush(self._due, (room.due_ms, room_id))

    def _end_ms(self) -> int:
        tick_ms = self._ctx.policy.engine.tick_ms
        largest = max(self._ctx.star.largest_ts, 0)
        return largest - largest % tick_ms + tick_ms

    def flush(self) -> list[Output]:
        """Make the last evaluation of a file without timestamps, at the first multiple after the largest `ts`."""
        out: list[Output] = []
        if self._ctx.star.is_stamped or self._ctx.star.clock_ms < 0:
            return out
        end_ms = self._end_ms()
        for room in self._rooms.values():
            if room.is_changed:
                self._call(room, end_ms)
        self._advance(end_ms, out)
        for room_id in sorted(self._rooms):
            if self._rooms[room_id].is_changed:
                self._emit(self._rooms[room_id], View(self._rooms[room_id], end_ms, self._ctx), out)
        return out

    def summary(self) -> dict[str, Any]:
        """Return `summary.json` without its times: counts, versions, each room's session at the end."""
        return summarise(self._rooms, self._ctx, self._end_ms(), ENGINE_VERSION)
