"""A visit to a room: what is looked at, what is told of it, and when the room is visited next."""

from __future__ import annotations

from pipeline import feedback, retirement
from pipeline.agenda import Agenda
from pipeline.commands import Commander, decision_due, situation
from pipeline.context import Context
from pipeline.emit import View, signals
from pipeline.ids import next_turn_ms
from pipeline.judge import NEVER_MS, Judge, feed_states, incident_due
from pipeline.operations import Operations
from pipeline.output import Output
from pipeline.roi import refresh
from pipeline.room import RoomState
from pipeline.slice_metrics import add_dimensions
from pipeline.snapshot import dump_hot, load_room
from schemas import topics
from schemas.base import MODE_RANK


class Visits:
    """Visit rooms, and put them on the agenda; see `pipeline.engine` for the order of a visit."""

    def __init__(self, ctx: Context, agenda: Agenda, operations: Operations) -> None:
        self._ctx, self._agenda, self._operations = ctx, agenda, operations

    def visit(self, room: RoomState, now_ms: int, passing_ms: int, out: list[Output]) -> None:
        """Look at a room at one evaluation."""
        ctx = self._ctx
        if room.n_news:
            room.heard_ms = now_ms
        room.evaluated_ms, room.n_news = now_ms, 0
        retirement.end_session(room, now_ms, ctx)
        bidding = ctx.policy.bidding
        if MODE_RANK[room.config.mode] > MODE_RANK[bidding.max_mode]:
            room.config.mode = bidding.max_mode
        room.review(now_ms, ctx)
        room.is_changed |= room.fold(now_ms)
        refresh(room.returns, room.ledger, ctx.policy.roi, room.config.stage, now_ms)
        phase = self.phase_ms(room)
        is_emission = (now_ms - phase) % ctx.emit_interval_ms == 0
        if is_emission or room.is_feed_dull or now_ms >= room.feeds_due_ms or len(room.feed_states) != len(room.feeds):
            has_changed, room.feeds_due_ms = feed_states(room, now_ms, ctx)
            room.is_changed |= has_changed
        judge = Judge(room, now_ms, ctx)
        judge.run()
        out.extend(Output(topics.ROOM_ANOMALIES, room.room_id, anomaly) for anomaly in judge.messages)
        view: View | None = None
        has_commands = False
        if room.plans and (judge.has_opened or (now_ms - phase) % bidding.interval_ms == 0):
            view = View(room, now_ms, ctx)
            commander = Commander(room, now_ms, passing_ms, ctx)
            commander.run(situation(view))
            has_commands = bool(commander.messages)
            self._operations.commands(room, commander, out)
        if judge.has_opened or has_commands or room.must_tell or (room.is_changed and is_emission):
            view = view or View(room, now_ms, ctx)
            self.emit(room, view, out)
        if room.slices is not None and feedback.is_due(room, now_ms, ctx):
            out.append(feedback.told(room, view or View(room, now_ms, ctx)))
        self.schedule(room, now_ms)

    def emit(self, room: RoomState, view: View, out: list[Output]) -> None:
        """Tell a room's signals, with its channels' where those are due."""
        interval_ms = self._ctx.policy.engine.channels_interval_ms
        with_channels = view.now_ms >= room.channels_due_ms
        if with_channels:
            # The first interval is longer by a share of the room's own, so that rooms do not go on together.
            extra_ms = room.turn % interval_ms if room.channels_due_ms < 0 else 0
            room.channels_due_ms = view.now_ms + interval_ms + extra_ms
        fields = signals(room, view, with_channels=with_channels)
        if with_channels and room.slices is not None:
            add_dimensions(fields, view)
        out.append(Output(topics.ROOM_SIGNALS, room.room_id, fields))
        room.is_changed = room.must_tell = False

    def tell_the_end(self, room: RoomState, out: list[Output]) -> None:
        """Emit what a session came to before the next one begins: nothing later would tell it."""
        has_feedback = feedback.is_left(room)
        if not room.is_changed and not has_feedback:
            return
        last = load_room(dump_hot(room))  # a copy: the room itself goes on from where it is
        at_ms = next_turn_ms(self._ctx.star.clock_ms, 0, self._ctx.tick_ms)
        last.fold(at_ms)
        view = View(last, at_ms, self._ctx)
        if room.is_changed:
            self.emit(last, view, out)
            room.revision, room.channels_due_ms = last.revision, last.channels_due_ms
        if has_feedback:
            out.append(feedback.told(last, view))

    def call(self, room: RoomState, *, is_urgent: bool) -> None:
        """Call a room to its visit: on the next tick for what cannot wait, on its own turn once enough has happened.

        Fewer events than `visit_after_events` change little; they wait for the room's next emission.
        """
        ctx, now_ms = self._ctx, self._ctx.star.clock_ms
        if is_urgent:
            self._agenda.call(room, next_turn_ms(now_ms, 0, ctx.tick_ms))
            return
        if room.n_news >= ctx.visit_after_events:
            phase = self.phase_ms(room) % ctx.visit_interval_ms
            self._agenda.call(room, next_turn_ms(now_ms, phase, ctx.visit_interval_ms))
        else:
            self._agenda.call(room, next_turn_ms(now_ms, self.phase_ms(room), ctx.emit_interval_ms))

    def schedule(self, room: RoomState, now_ms: int) -> None:
        """Put the room's own deadlines on the list: an idle room without any is not visited again."""
        ctx = self._ctx
        emission = self.phase_ms(room)
        if room.is_changed:
            soonest_ms = next_turn_ms(now_ms, emission, ctx.emit_interval_ms)
        else:
            expiry_ms = room.windows.next_expiry_ms()
            soonest_ms = -1
            if expiry_ms is not None:
                soonest_ms = next_turn_ms(max(expiry_ms - 1, now_ms), emission, ctx.emit_interval_ms)
        urgent = [min(room.pending)] if room.pending else []
        if room.incidents:
            urgent += incident_due(room, ctx)
        if room.feeds_due_ms < NEVER_MS:
            urgent.append(room.feeds_due_ms)
        if urgent:
            at_ms = next_turn_ms(max(min(urgent), now_ms), 0, ctx.tick_ms)
            soonest_ms = at_ms if soonest_ms < 0 else min(soonest_ms, at_ms)
        if room.slices is not None and (feedback_ms := feedback.due_ms(room, ctx)) is not None:
            at_ms = next_turn_ms(max(feedback_ms - 1, now_ms), 0, ctx.tick_ms)
            soonest_ms = at_ms if soonest_ms < 0 else min(soonest_ms, at_ms)
        if room.plans or room.excluded:
            for moment in decision_due(room, now_ms, ctx):
                at_ms = next_turn_ms(moment - 1, emission, ctx.policy.bidding.interval_ms)
                soonest_ms = at_ms if soonest_ms < 0 else min(soonest_ms, at_ms)
        if soonest_ms < 0:
            retirement.shrink(room, now_ms, ctx)
            if not retirement.may_go(room, ctx):
                return
            soonest_ms = next_turn_ms(max(retirement.due_ms(room, ctx) - 1, now_ms), 0, ctx.tick_ms)
        self._agenda.call(room, soonest_ms)

    def phase_ms(self, room: RoomState) -> int:
        """Return the room's own share of the emission's interval: its turn, in whole ticks."""
        ctx = self._ctx
        return room.turn % (ctx.emit_interval_ms // ctx.tick_ms) * ctx.tick_ms
