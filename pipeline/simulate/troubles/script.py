"""Accounts that come to write: from a few texts, or in ever other words.

`size` is their comments against the room's usual ones. They enter in the first 20 seconds, one a device, from a few
address blocks, stay to the end and write at almost even intervals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pipeline.simulate import comments, scripts
from pipeline.simulate.audience import Viewer
from pipeline.simulate.comments import Said
from pipeline.simulate.dice import Dice
from pipeline.simulate.parameters import SECOND_MS
from pipeline.simulate.troubles.base import Fault, Place, block
from pipeline.simulate.truth import TroubleKind

if TYPE_CHECKING:
    from pipeline.simulate.room import Room

_COME_MS = 20_000


class ScriptComments(Fault):
    """Fixed texts, each many times."""

    kind: ClassVar[TroubleKind] = "script_comments"
    cause = "ivt"
    default_size = 2.0
    default_channel = "recommend"
    is_invalid = True

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        bots = room.parameters.bots
        self._source = room.channel(place.channel or self.default_channel)
        blocks = [block(dice) for _ in range(bots.script_blocks)]
        self.ip_blocks = tuple(f"{one}.0/24" for one in blocks)
        self._blocks = blocks
        first = dice.between(0, len(comments.SCRIPT) - 1)
        self._texts = [comments.SCRIPT[(first + step) % len(comments.SCRIPT)] for step in range(bots.script_texts)]
        self._due: list[tuple[int, Viewer]] = []
        self._interval_ms = bots.script_accounts / max(1e-9, place.size * room.usual_comments_s) * SECOND_MS

    def _begin(self, ts: int) -> None:
        room, dice, bots = self.room, self.dice, self.room.parameters.bots
        regions = list(room.parameters.regions)
        step = room.parameters.view_heartbeat_s * SECOND_MS
        plan = room.plan_of(self._source.name)
        with room.timeline.marked(self.mark):
            for _ in range(bots.script_accounts):
                moment = ts + int(dice.uniform() * min(_COME_MS, self.end_ts - ts))
                user_id = room.audience.new_user_id()
                self.user_ids.append(user_id)
                viewer: Viewer = {"channel": self._source.name}
                if plan is not None:
                    viewer |= {"plan_id": plan.plan_id, "campaign_id": f"{room.room_id}-campaign"}
                    self.cost_minor += plan.bill_click(moment, dice)
                viewer |= {
                    "user_id": user_id,
                    "device_id": f"d{user_id[1:]}",
                    "ip": f"{dice.choice(self._blocks)}.{dice.between(1, 254)}",
                    "segment": self.segment or "general",
                    "region": dice.choice(regions),
                }
                session = room.audience.arrive(moment, self.end_ts - moment, viewer)
                self.n_injected_enters += 1
                for beat in range(moment + step, self.end_ts, step):
                    room.timeline.emit("view", "view", beat, {**session, "action": "heartbeat"})
                self._due.append((moment + int(self._interval_ms * dice.uniform()), viewer))

    def _act(self, ts: int) -> None:
        dice, sigma = self.dice, self.room.parameters.bots.script_interval_sigma
        for number, (first_ts, viewer) in enumerate(self._due):
            due_ts = first_ts
            while due_ts < min(ts + SECOND_MS, self.end_ts):
                self.room.audience.comment(due_ts, viewer, Said(self._text(), "script"), is_danmaku=True)
                due_ts += max(200, int(self._interval_ms * dice.factor(sigma)))
            self._due[number] = (due_ts, viewer)

    def _text(self) -> str:
        return self.dice.choice(self._texts)


class ParaphraseComments(ScriptComments):
    """The same five messages in some thousand wordings: hardly any text comes twice."""

    kind = "paraphrase_comments"

    def _text(self) -> str:
        return scripts.paraphrase(self.dice)
