"""Viewers who are there write more: in anger about one topic, or because the host asks."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pipeline.simulate import comments
from pipeline.simulate.comments import Said, Topic
from pipeline.simulate.dice import Dice
from pipeline.simulate.parameters import SECOND_MS
from pipeline.simulate.troubles.base import Fault, Place
from pipeline.simulate.truth import TroubleKind

if TYPE_CHECKING:
    from pipeline.simulate.room import Room


class Chorus(Fault):
    """`size` is their comments against the room's usual ones."""

    def _act(self, ts: int) -> None:
        audience, dice = self.room.audience, self.dice
        for _ in range(dice.poisson(self.size * self.room.usual_comments_s)):
            viewer = audience.someone(dice, ts)
            if viewer is None:
                return
            moment = ts + dice.between(0, SECOND_MS - 1)
            audience.comment(moment, viewer, self._said(), is_danmaku=dice.chance(0.8))

    @abstractmethod
    def _said(self) -> Said:
        """Return what one of them writes."""


class AngryChat(Chorus):
    """Complaints about one topic from many real viewers, each in other words; they go on buying."""

    kind: ClassVar[TroubleKind] = "angry_chat"
    cause = "content"
    default_size = 4.0
    about: ClassVar[Topic | None] = None
    """The topic; None lets chance choose."""

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        super().__init__(room, dice, place)
        chosen: Topic = dice.choice(comments.TOPICS)
        self._about = chosen if self.about is None else self.about
        self.topic = self._about

    def _said(self) -> Said:
        english = self.dice.chance(self.room.parameters.english_ratio)
        return Said(comments.negative(self._about, self.dice, english=english), "negative", self._about)


class ComplaintPrice(AngryChat):
    """They find it too expensive."""

    kind = "complaint_price"
    about = "price"


class ComplaintQuality(AngryChat):
    """What they bought fell apart."""

    kind = "complaint_quality"
    about = "quality"


class ComplaintLogistics(AngryChat):
    """Parcels do not come, or come broken."""

    kind = "complaint_logistics"
    about = "logistics"


class ComplaintHost(AngryChat):
    """The host annoys them."""

    kind = "complaint_host"
    about = "host"
