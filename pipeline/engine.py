"""One partition's log in; signals, anomalies, bid commands, dead letters and the audit trail out.

The engine is a pure function of the records: it reads no clock but the log's, no environment, no chance. Live on
Kafka, offline in a replay, after a crash, in chunks of any size: the same records give the same outputs.

    record -> decode -> clock passes multiples of tick_ms -> each due room is visited -> the record is applied
    visit:  fold counters into windows -> feeds -> judge (anomalies) -> decide (commands) -> emit (signals)

What breaks the program in one room parks that room (`pipeline.parking`); every other goes on.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pipeline import attendance, control, parking, retirement, segments, shedding
from pipeline.admission import Admission
from pipeline.agenda import Agenda, Due
from pipeline.apply import KINDS, Kind, apply, start_meaning
from pipeline.commands import answer
from pipeline.context import Context
from pipeline.dormancy import Head, Rooms
from pipeline.emit import View
from pipeline.heartbeat import beat, heartbeat
from pipeline.identity import Identities
from pipeline.ids import phase_ms
from pipeline.inbox import LARGEST_BYTES, Inbox, catch_up
from pipeline.keeping import Keeping
from pipeline.operations import Operations
from pipeline.output import Output
from pipeline.retirement import Departures
from pipeline.room import Farewell, RoomState
from pipeline.sentiment import default_model
from pipeline.session import RoomConfig
from pipeline.snapshot import Checkpoint, Saved, dump, whole
from pipeline.summary import outcome, summarise
from pipeline.tally import Counters, tally
from pipeline.visits import Visits
from schemas import topics
from schemas.base import EVERY_ROOM
from schemas.deadletters import DeadLetter
from schemas.decode import Reject, decode, decode_one, is_array, raw_elements
from schemas.settings import Settings

ENGINE_VERSION: Final = 5
"""Raised with every change that makes the same log give other outputs."""

Record = tuple[int, int | None, bytes] | tuple[int, int | None, bytes, bytes | None]
"""Offset, Kafka timestamp in ms (None in plain files), value, and the message's key where there is one."""


def _key(record: Record) -> str | None:
    raw = record[3] if len(record) > 3 else None
    return None if raw is None else raw.decode("utf-8", "replace")


class Engine:
    """Everything known of one partition's rooms.

    Parameters
    ----------
    settings : keys, trust, and the policy until the log names another; None for the defaults.
    partition : number that dead letters name.
    keep_policy : stay with the settings' policy whatever the log says (a replay under another policy).
    keep_outcomes : let `summary` tell of rooms too that went long ago; they take memory then.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        partition: int = 0,
        keep_policy: bool = False,
        keep_outcomes: bool = False,
    ) -> None:
        settings = settings or Settings()
        privacy = settings.privacy_key
        self._ctx = Context(
            settings.policy, Identities(privacy.get_secret_value() if privacy else None), default_model()
        )
        self.partition = partition
        self._keeps_policy = keep_policy
        self._agenda = Agenda()
        self._rooms = Rooms(self._agenda, self._unreadable)
        self._admission = Admission(
            self._ctx,
            self._rooms.find,
            self._blank_room,
            control_key=settings.control_key.get_secret_value().encode() if settings.control_key else None,
            trusts_log=settings.trust_log,
        )
        self._inboxes: dict[str, Inbox] = {}
        self._held: list[Output] = []
        """What broke a room while nobody could be told."""
        self._departures = Departures(self._blank_room)
        self._keeping = Keeping(self._ctx, self._rooms, self._departures)
        self._dirty = self._keeping.dirty
        self._operations = Operations(self._ctx)
        self._visits = Visits(self._ctx, self._agenda, self._operations)
        self._outcomes: dict[str, dict[str, Any]] | None = {} if keep_outcomes else None
        self._next_tick_ms = -1
        """First moment that an evaluation waits for; records before it pass no multiple of `tick_ms`."""
        self._ticked_ts: int | None = None
        self._touched = -1
        """Offset of the last record that changed a room."""
        self._met = -1
        """Offset of the last record that began a room, as far as that is known again after a crash."""

    # -- what others look at ----------------------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """Counts of records, events, duplicates, late, shed and refused events so far; rooms keep their own share."""
        self._catch_up_all(self._held)
        asleep = (room.head for room in self._rooms.asleep.values())
        return tally(self._ctx.star, (*self._rooms.values(), *asleep, *self._departures.expected()))

    @property
    def n_records(self) -> int:
        """Records taken so far."""
        return self._ctx.star.n_records

    @property
    def clock_ms(self) -> int | None:
        """The log's clock; None before the first record."""
        return None if self._ctx.star.clock_ms < 0 else self._ctx.star.clock_ms

    @property
    def ticked_ts(self) -> int | None:
        """When the newest tick applied here was written, by its writer; None before the first since `restore`."""
        return self._ticked_ts

    @property
    def n_rooms(self) -> int:
        """Rooms held."""
        return self._rooms.n_held

    @property
    def policy_version(self) -> str:
        """Version of the policy in force."""
        return self._ctx.policy_version

    # -- records ----------------------------------------------------------------------------------------------

    def process(self, records: Iterable[Record]) -> list[Output]:
        """Apply records in the order of their offsets; return what to send, in order."""
        out, self._held = self._held, []
        star, inbox_of = self._ctx.star, self._inboxes.get
        for record in records:
            offset, timestamp_ms, value = record[0], record[1], record[2]
            event = None if timestamp_ms is None else decode_one(value, timestamp_ms)
            if timestamp_ms is None or event is None or type(event) is Reject:
                self._unusual(record, out)
                continue
            if timestamp_ms >= self._next_tick_ms:
                self._advance(timestamp_ms, out)
            elif timestamp_ms > star.clock_ms:
                star.clock_ms = timestamp_ms
            is_new = offset > star.offset
            if is_new:
                star.n_records += 1
            inbox = inbox_of(event.room_id)
            if inbox is not None and inbox.n_left and offset > inbox.offset and len(value) <= LARGEST_BYTES:
                kind = KINDS[type(event)]
                if kind.may_wait and (kind.is_plain or event.currency == inbox.currency):
                    inbox.waiting += (event, record, star.clock_ms, star.evaluated_ms)
                    inbox.offset = offset
                    inbox.n_left -= 1
                    if not inbox.n_left:
                        self._catch_up(inbox, out)
                        self._await(inbox)
                    if is_new:
                        star.offset = offset
                    continue
            rejected = self._event(event, offset, value, out)
            if rejected is not None:
                self._reject(rejected, offset, record, event.room_id, out)
            if is_new:
                star.offset = offset
        if self._held:
            out += self._held
            self._held = []
        return out

    def _unusual(self, record: Record, out: list[Output]) -> None:
        """Apply a record that is an array, a reject, blank, or without a stamp."""
        offset, timestamp_ms, value = record[0], record[1], record[2]
        star = self._ctx.star
        if value and not value.isspace():
            inbox = self._inboxes.get(_key(record) or "")
            if inbox is not None and inbox.waiting:
                self._catch_up(inbox, out)  # where it breaks the room, its dead letters come before this record's
            elements = decode(value, timestamp_ms=timestamp_ms, key=_key(record))
            if timestamp_ms is None:
                if star.is_stamped:
                    self._catch_up_all(out)  # the stamp follows from what was accepted so far
                star.is_stamped = False
                timestamp_ms = self._admission.stamp(elements, value)
            if timestamp_ms >= self._next_tick_ms or timestamp_ms > star.clock_ms:
                self._advance(timestamp_ms, out)
            if offset > star.offset:
                star.n_records += 1
            in_array, goes_on = is_array(value), False
            for place, event in enumerate(elements):
                if type(event) is Reject:
                    self._reject(event, offset, record, None, out)
                    continue
                rejected = self._event(event, offset, value, out, goes_on=goes_on)
                if rejected is not None:
                    if in_array:
                        rejected = rejected._replace(place=place, payload=raw_elements(value)[place])
                    self._reject(rejected, offset, record, event.room_id, out)
                # Elements of one record are of one room: what the first one finds new is new for all.
                goes_on = goes_on or self._touched == offset
        star.offset = max(star.offset, offset)

    def _event(
        self, event: Any, offset: int, value: bytes, out: list[Output], *, goes_on: bool = False
    ) -> Reject | None:
        """Apply one decoded event, or park its room; return why it was refused where it was.

        `goes_on` says that an element before it in the same record changed the room.
        """
        kind = KINDS[type(event)]
        inbox = self._inboxes.get(event.room_id)
        if inbox is not None:
            inbox.n_left = 0
            if inbox.waiting:
                self._catch_up(inbox, out)
        room = self._rooms.get(event.room_id) or self._rooms.wake(event.room_id)
        if room is None:
            if event.room_id == EVERY_ROOM or kind.name == "ack":
                # What no room keeps is known by the partition alone: ticks, and answers for rooms nobody has seen.
                return self._roomless(kind, event, offset, value, out)
        elif offset <= room.offset and not goes_on:
            if offset <= room.first_offset and self._met != offset:
                return self._before_its_room(room, kind, event, offset, value, out=out)
            return None  # the snapshot this room came back from already knows it
        n_before = len(out)
        mark = None if kind.is_plain or room is None else parking.mark(room)
        try:
            return self._accepted(room, kind, event, offset, value, out=out)
        except MemoryError:
            raise  # of this machine at this moment, not of the record
        except Exception as error:
            del out[n_before:]
            tried = self._rooms.get(event.room_id)
            if tried is not None and not kind.is_plain:
                parking.put_back(tried, mark or parking.NOTHING_TOLD)
            return self._park(event.room_id, offset, error, value, out)

    def _accepted(
        self, room: RoomState | None, kind: Kind, event: Any, offset: int, value: bytes, *, out: list[Output]
    ) -> Reject | None:
        """Apply an event that its room does not know yet, unless something forbids it."""
        ctx, admission = self._ctx, self._admission
        if room is None or not kind.is_plain:
            refusal = admission.refusal(event, value)
            if refusal is not None:
                return refusal
        if room is None:
            room = self._new_room(event.room_id, offset)
        elif room.parked is not None:
            if kind.name == "control" and parking.ends(room, event):
                self._begin_anew(room, event, offset, out)
                return None
            return parking.refusal(room, event, value)
        room.offset = self._touched = offset
        self._dirty[room.room_id] = None
        fingerprint = ctx.identities.event(event.event_id)
        if fingerprint in room.seen.recent or (
            not kind.is_plain and admission.is_known(room, kind, event, fingerprint)
        ):
            room.n_duplicates += 1
            return None
        admission.remember(room, kind, event, fingerprint)
        handler = kind.handler
        if handler is not None:
            if kind.name == "room" and event.action == "start" and start_meaning(room, event, ctx) == "new":
                self._visits.tell_the_end(room, out)
            if room.n_events >= room.granted_to and shedding.is_over(room, ctx.star.clock_ms, ctx):
                handler = shedding.handler_of(room, kind, event, handler, now_ms=ctx.star.clock_ms)
            apply(room, kind, handler, event, ctx)
        elif kind.name == "control":
            self._operations.control(room, event, out)
        else:
            self._operations.audit(room, "ack", "controller", event, out)
            answer(room, event)
        # Counted when it is done: what broke on the way is a reject.
        star, ts = ctx.star, event.ts
        room.n_events += 1
        if ts > room.largest_ts:
            room.largest_ts = ts
            star.largest_ts = max(star.largest_ts, ts)
        if ts < star.evaluated_ms:
            room.n_late += 1
        n_news = room.n_news = room.n_news + 1
        if kind.is_urgent or n_news in (1, ctx.visit_after_events):
            self._visits.call(room, is_urgent=kind.is_urgent)
        inbox = self._inboxes.get(room.room_id)
        if inbox is None:
            inbox = self._inboxes[room.room_id] = Inbox(room)
        self._await(inbox)
        return None

    def _await(self, inbox: Inbox) -> None:
        """Let a room's events wait, from the one on after which nothing but its visit is to be seen to."""
        room = self._rooms[inbox.room.room_id]
        if room.n_news and room.parked is None and self._ctx.star.is_stamped:
            inbox.open(room, self._ctx.visit_after_events - room.n_news)

    def _catch_up(self, inbox: Inbox, out: list[Output]) -> None:
        """Apply what waited in a room; where one event breaks it, all from there on are dead letters."""
        room, waiting, inbox.waiting = inbox.room, inbox.waiting, []
        inbox.n_left = 0
        self._dirty[room.room_id] = None
        n_news = room.n_news
        try:
            catch_up(room, waiting, self._ctx)
        except MemoryError:
            raise
        except Exception as error:
            self._break(room, waiting, error, out)
            return
        if n_news < self._ctx.visit_after_events <= room.n_news:
            self._visits.call(room, is_urgent=KINDS[type(waiting[-4])].is_urgent)

    def _break(self, room: RoomState, waiting: list[Any], error: Exception, out: list[Output]) -> None:
        """Park a room at the event that broke it, and refuse what waited behind that, each as of its own clock."""
        star, room_id = self._ctx.star, room.room_id
        now_ms, entries = star.clock_ms, iter(waiting)
        refused: Reject | None = None
        for event, record, clock_ms, _ in zip(entries, entries, entries, entries, strict=True):
            if record[0] < room.offset:
                continue
            star.clock_ms = clock_ms
            if refused is None:
                refused = self._park(room_id, room.offset, error, record[2], out)
                room = self._rooms[room_id]
            else:
                refused = parking.refusal(room, event, record[2])
            self._reject(refused, record[0], record, room_id, out)
        star.clock_ms = now_ms

    def _catch_up_all(self, out: list[Output]) -> None:
        """Apply all that waits."""
        for inbox in list(self._inboxes.values()):  # a room that breaks has none any more
            if inbox.waiting:
                self._catch_up(inbox, out)
            inbox.n_left = 0

    def _before_its_room(
        self, room: RoomState, kind: Kind, event: Any, offset: int, value: bytes, *, out: list[Output]
    ) -> Reject | None:
        """Take a record from before its room began, which came back ahead of the partition: no room knows of it.

        It was refused, or an answer that meant nothing; one that was neither began the room.
        """
        if offset <= self._ctx.star.offset:
            return None
        if any(former.first_offset < offset <= former.offset for former in room.farewells):
            return None  # an earlier room of this name counted it
        if kind.name == "ack":
            return self._roomless(kind, event, offset, value, out)
        refusal = self._admission.refusal(event, value, is_first=True)
        if refusal is None:
            self._met = offset
        return refusal

    def _roomless(self, kind: Kind, event: Any, offset: int, value: bytes, out: list[Output]) -> Reject | None:
        star = self._ctx.star
        if offset <= star.offset:
            return None
        refusal = self._admission.refusal(event, value)
        if refusal is not None:
            return refusal
        if self._admission.is_repeated(event):
            star.n_duplicates += 1
            return None
        star.n_events += 1
        star.largest_ts = max(star.largest_ts, event.ts)
        star.n_late += event.ts < star.evaluated_ms
        self._star_event(kind.name, event, out)
        return None

    def _reject(self, rejected: Reject, offset: int, record: Record, room_id: str | None, out: list[Output]) -> None:
        """Count a reject where it is known, the room or the partition, and tell it, once."""
        room = None if room_id is None else self._rooms.get(room_id)
        if room is not None and (offset > room.first_offset or self._met == offset):
            room.offset = self._touched = offset
            self._dirty[room.room_id] = None
            room.rejects[rejected.reason] = room.rejects.get(rejected.reason, 0) + 1
        elif offset > self._ctx.star.offset:
            rejects = self._ctx.star.rejects
            rejects[rejected.reason] = rejects.get(rejected.reason, 0) + 1
        else:
            return
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
        out.append(Output(topics.ROOM_EVENTS_DLQ, _key(record) or "", letter))

    def _park(self, room_id: str, offset: int, error: Exception, value: bytes, out: list[Output]) -> Reject:
        """Take a room out of service, since its state is no longer whole: an S1, and its records are dead letters."""
        former = self._rooms.get(room_id)
        self._inboxes.pop(room_id, None)
        room = self._rooms[room_id] = parking.parked(
            self._blank_room(room_id), former, offset=offset, now_ms=self._ctx.star.clock_ms, error=error
        )
        self._dirty[room_id] = None
        out.append(Output(topics.ROOM_ANOMALIES, room_id, parking.told(room, "open", self._ctx)))
        return Reject("engine_error", parking.words(room), None, value)

    def _unreadable(self, head: Head, hot: RoomState | None, error: Exception) -> RoomState:
        """Return what stands for a room whose packed bytes are damaged: it is parked, and told of soon."""
        room_id = head.room_id
        former = parking.salvaged(self._blank_room(room_id), head, hot)
        room = parking.parked(
            self._blank_room(room_id), former, offset=head.offset, now_ms=self._ctx.star.clock_ms, error=error
        )
        self._dirty[room_id] = None
        self._keeping.leave(room_id, segments.named(hot or head))
        self._held.append(Output(topics.ROOM_ANOMALIES, room_id, parking.told(room, "open", self._ctx)))
        return room

    def _begin_anew(self, room: RoomState, event: Any, offset: int, out: list[Output]) -> None:
        """Put an empty room in a parked one's place, as an operator asked for."""
        self._operations.audit(room, "control", event.actor, event, out)
        out.append(Output(topics.ROOM_ANOMALIES, room.room_id, parking.told(room, "resolved", self._ctx)))
        fresh = self._rooms[room.room_id] = parking.successor(self._blank_room(room.room_id), room)
        fresh.offset, fresh.n_events = offset, fresh.n_events + 1
        fresh.heard_ms = fresh.control_ids[event.control_id] = self._ctx.star.clock_ms
        self._visits.schedule(fresh, fresh.heard_ms)
        self._dirty[room.room_id] = None
        self._touched = offset

    # -- time -------------------------------------------------------------------------------------------------

    def _advance(self, stamp_ms: int, out: list[Output]) -> None:
        """Let the clock pass to a record's stamp: visit every room that is due on the way, in order of time."""
        star, tick_ms = self._ctx.star, self._ctx.tick_ms
        passed_ms = stamp_ms - stamp_ms % tick_ms
        self._next_tick_ms = max(self._next_tick_ms, passed_ms + tick_ms)
        if star.clock_ms < 0:
            star.clock_ms = stamp_ms
            beat(self._ctx, stamp_ms)
            return
        for at_ms, due in self._agenda.pass_to(passed_ms):
            room = self._awake(due)
            if room is None:
                continue
            if room.is_gone:
                self._let_go(room, self._departures.arrived(room), out)
                continue
            if self._rooms.get(room.room_id) is not room:
                continue  # it was parked meanwhile: another stands in its place
            inbox = self._inboxes.get(room.room_id)
            if inbox is not None and inbox.waiting:
                self._catch_up(inbox, out)
                if self._rooms[room.room_id] is not room:
                    continue
            if at_ms > star.clock_ms and retirement.is_over(room, at_ms, self._ctx):
                if self._outcomes is not None:
                    self._outcomes[room.room_id] = outcome(room, at_ms, self._ctx)
                self._let_go(room, retirement.leave(room, at_ms, star.offset), out)
                continue
            n_before, mark = len(out), parking.mark(room)
            if inbox is not None:
                inbox.n_left = 0
            self._dirty[room.room_id] = None
            try:
                self._visits.visit(room, at_ms, stamp_ms, out)
            except MemoryError:
                raise
            except Exception as error:
                del out[n_before:]
                parking.put_back(room, mark)
                self._park(room.room_id, room.offset, error, b"", out)
        if stamp_ms <= star.clock_ms:
            return
        if passed_ms > star.clock_ms:
            star.evaluated_ms = passed_ms
            beat_ms = beat(self._ctx, passed_ms)
            if beat_ms is not None:
                out.append(heartbeat(self._ctx, beat_ms))
        star.clock_ms = stamp_ms

    def _awake(self, due: Due) -> RoomState | None:
        """Return the room that is due; None where it was woken before and is due at another moment."""
        if isinstance(due, RoomState):
            return due
        room = self._rooms.wake(due.room_id)
        if room is None or room.parked is not None:
            return None
        room.due_ms = -1
        return room

    def _let_go(self, room: RoomState, farewells: list[Farewell], out: list[Output]) -> None:
        """Take a room out for good: its counts and the head of its trail are the partition's from now on."""
        retirement.take(self._ctx.star, farewells[-1])
        self._operations.farewell(room.room_id, farewells[-1], out)
        if self._rooms.get(room.room_id) is room:
            self._inboxes.pop(room.room_id, None)
            self._keeping.let_go(room, farewells)

    # -- controls, commands, trail ----------------------------------------------------------------------------

    def _star_event(self, kind: str, event: Any, out: list[Output]) -> None:
        star = self._ctx.star
        star.seen.go_on(star.clock_ms, self._ctx.policy.engine.recent_ids_ms)
        star.seen.remember(self._ctx.identities.event(f"{event.room_id}\0{event.event_id}"))
        if kind == "tick":
            attendance.note(star, event)
            self._ticked_ts = event.ts
            return
        if kind == "control":
            self._catch_up_all(out)  # what came before goes by the policy of before
            retirement.forget_controls(star.control_ids, star.clock_ms, self._ctx)
            star.control_ids[event.control_id] = star.clock_ms
            star.controls_since_ts = retirement.oldest_control_ts(self._ctx)
            if not (self._keeps_policy and event.action == "update_settings"):
                control.apply_to_all(event, control.read(event), self._ctx)
                self._next_tick_ms = -1  # a policy may have brought another tick
        # An answer for a room nobody has seen changes nothing, but somebody sent it.
        self._operations.audit_all("control" if kind == "control" else "ack", event, out)

    # -- rooms, snapshots, the end ----------------------------------------------------------------------------

    def _blank_room(self, room_id: str) -> RoomState:
        policy = self._ctx.policy
        config = RoomConfig(mode=policy.bidding.mode, stage=policy.default_stage)
        return RoomState(room_id, config, turn=phase_ms(room_id, 1 << 40, 1))

    def _new_room(self, room_id: str, offset: int) -> RoomState:
        room = self._rooms[room_id] = self._blank_room(room_id)
        room.first_offset = self._met = offset
        room.farewells = self._departures.undone(room_id)
        return room

    def catch_up(self) -> list[Output]:
        """Apply all that waits; return what follows from that: nothing, unless an event broke its room."""
        out, self._held = self._held, []
        self._catch_up_all(out)
        return out

    def snapshot(self) -> dict[str, bytes]:
        """Return every room's whole state, and the partition's own under `*`, each with the offset it stands for.

        Send what `catch_up` returns before: what waits is applied now.
        """
        self._catch_up_all(self._held)
        self._rooms.wake_all()
        states = {room_id: whole(room) for room_id, room in self._rooms.items()}
        return {**states, EVERY_ROOM: dump(self._ctx.star)}

    def checkpoint(self) -> Checkpoint:
        """Return where the log stands, and the rooms that changed since each was last saved."""
        star = self._ctx.star
        self._departures.note(star.offset, star.evaluated_ms)
        waiting = [inbox for inbox in self._inboxes.values() if inbox.waiting]
        newest = sorted(((inbox.largest_ts(), inbox.room.room_id) for inbox in waiting), reverse=True)
        for ts, room_id in newest:
            if ts <= star.largest_ts:
                break
            # The partition's own state knows the largest `ts` that counted: seldom more than one room has to tell.
            self._catch_up(self._inboxes[room_id], self._held)
        rooms = self._dirty | dict.fromkeys(inbox.room.room_id for inbox in waiting)
        return Checkpoint(star.offset, dump(star), tuple(sorted(rooms)))

    def settle(self, offset: int) -> None:
        """Take note that the partition's state of the checkpoint at `offset` is saved, and every room it named."""
        self._departures.settle(offset, self._rooms)

    def save(self, room_id: str) -> Saved:
        """Return a room's state as it is now; it counts as saved.

        A room that went leaves a marker, whose own key may go too once the log is committed beyond that moment.
        """
        told, self._held = self._held, []
        inbox = self._inboxes.get(room_id)
        if inbox is not None and inbox.waiting:
            self._catch_up(inbox, told)
        saved = self._keeping.save(room_id)
        if room_id in self._rooms.asleep:
            self._inboxes.pop(room_id, None)
        return saved._replace(told=tuple(told))

    def restore(self, snapshots: Mapping[str, bytes]) -> None:
        """Take back what `snapshot` or `changed` gave; records a room already knows are skipped from then on.

        Raises
        ------
        SnapshotError
            Bytes that this version cannot read; nothing was taken.
        """
        for room_id in self._keeping.restore(snapshots):
            self._inboxes.pop(room_id, None)
        self._next_tick_ms = -1
        for room in {id(room): room for room in (*self._rooms.values(), *self._departures.markers)}.values():
            if room.due_ms >= 0:
                self._agenda.put(room)

    def _end_ms(self) -> int:
        tick_ms = self._ctx.tick_ms
        self._rooms.wake_all()
        rooms = (room.largest_ts for room in self._rooms.values())
        largest = max(self._ctx.star.largest_ts, 0, max(rooms, default=0))
        return largest - largest % tick_ms + tick_ms

    def flush(self) -> list[Output]:
        """Make the last evaluation of a file without timestamps, at the first multiple after the largest `ts`."""
        out = self.catch_up()
        if self._ctx.star.is_stamped or self._ctx.star.clock_ms < 0:
            return out
        end_ms = self._end_ms()
        for room in self._rooms.values():
            if room.is_changed:
                self._agenda.call(room, end_ms)
        self._advance(end_ms, out)
        for room_id in sorted(self._rooms):
            if self._rooms[room_id].is_changed:
                self._visits.emit(self._rooms[room_id], View(self._rooms[room_id], end_ms, self._ctx), out)
        return out

    def summary(self) -> dict[str, Any]:
        """Return `summary.json` without its times: counts, versions, each room's session at the end."""
        self._catch_up_all(self._held)
        return summarise(self._rooms, self._outcomes or {}, self._ctx, self._end_ms(), ENGINE_VERSION)
