"""What every trouble is: it lasts from `start_ts` to `end_ts`, concerns a slice of the room and counts what it does.

A trouble draws from its own dice and marks what it writes, so that up to its start the room is, byte for byte, the
room without it, and the truth about its records is kept where they are written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pipeline.simulate.dice import Dice
from pipeline.simulate.timeline import to_second
from pipeline.simulate.truth import Mark, Trouble, TroubleKind

if TYPE_CHECKING:
    from pipeline.simulate.room import Room


class Place(NamedTuple):
    """When, how strong and where; None is the whole room."""

    trouble_id: str
    start_ts: int
    end_ts: int
    size: float
    channel: str | None = None
    segment: str | None = None
    product_id: str | None = None


class Fault:
    """One trouble of one room, whole seconds long: `start_ts` and `end_ts` are rounded up to the room's seconds."""

    kind: ClassVar[TroubleKind]
    cause: ClassVar[str | None]
    default_size: ClassVar[float]
    default_channel: ClassVar[str | None] = None
    is_share: ClassVar[bool] = False
    """Whether `size` is a share, 1 at most."""
    innocent: ClassVar[bool] = False
    is_invalid: ClassVar[bool] = False

    def __init__(self, room: Room, dice: Dice, place: Place) -> None:
        self.room = room
        self.dice = dice
        self.start_ts = to_second(room.start_ts, place.start_ts)
        self.end_ts = to_second(room.start_ts, place.end_ts)
        self.size = place.size
        self.channel = place.channel
        self.segment = place.segment
        self.product_id = place.product_id
        self.mark = Mark(place.trouble_id, self.kind if self.is_invalid else None, self.is_invalid)
        self.topic: str | None = None
        self.device_ids: tuple[str, ...] = ()
        self.ip_blocks: tuple[str, ...] = ()
        self.user_ids: list[str] = []
        self.product_ids: tuple[str, ...] = ()
        self.order_ids: list[str] = []
        self.n_records = 0
        self.n_injected_enters = 0
        self.cost_minor = 0
        self.n_orders_lost = 0
        self._enters_before = 0
        self._enters_after: int | None = None

    def second(self, ts: int) -> None:
        """Live through the second from `ts` on."""
        if ts == self.start_ts:
            self._enters_before = self._enters()
            self._begin(ts)
        if ts == self.end_ts:
            self._enters_after = self._enters()
            self._end(ts)
        if self.is_on(ts):
            with self.room.timeline.marked(self.mark):
                self._act(ts)

    def is_on(self, ts: int) -> bool:
        """Return whether the trouble lasts at `ts`."""
        return self.start_ts <= ts < self.end_ts

    def concerns(self, ts: int, channel: str, segment: str | None = None, product_id: str | None = None) -> bool:
        """Return whether it touches the slice at `ts`; a part that is None is not looked at."""
        return (
            self.start_ts <= ts < self.end_ts
            and self.channel in {None, channel}
            and (segment is None or self.segment in {None, segment})
            and (product_id is None or self.product_id in {None, product_id})
        )

    def truth(self) -> Trouble:
        """Return what it is and what it did so far."""
        n_enters = (self._enters() if self._enters_after is None else self._enters_after) - self._enters_before
        has_slice = self.n_injected_enters > 0 and n_enters > 0
        return Trouble(
            kind=self.kind,
            room_id=self.room.room_id,
            channel=self.channel,
            start_ts=self.start_ts,
            end_ts=self.end_ts,
            size=self.size,
            innocent=self.innocent,
            cause=self.cause,
            topic=self.topic,
            n_injected=self.mark.n_events,
            n_injected_enters=self.n_injected_enters,
            enters_ratio=round(self.n_injected_enters / n_enters, 6) if has_slice else None,
            cost_minor=self.cost_minor,
            n_orders_lost=self.n_orders_lost,
            device_ids=self.device_ids,
            ip_block=self.ip_blocks[0] if len(self.ip_blocks) == 1 else None,
            trouble_id=self.mark.trouble_id,
            family=self.mark.family,
            is_invalid=self.is_invalid,
            segment=self.segment,
            product_id=self.product_id,
            ip_blocks=self.ip_blocks,
            user_ids=tuple(self.user_ids),
            product_ids=self.product_ids,
            order_ids=tuple(self.order_ids),
            n_records=self.n_records,
        )

    def _begin(self, ts: int) -> None:
        """Do what this kind does once, at its start."""

    def _act(self, ts: int) -> None:
        """Do what this kind does in one second; nothing where it only changes answers."""

    def _end(self, ts: int) -> None:
        """Do what this kind does once, at its end."""

    def _enters(self) -> int:
        enters = self.room.audience.enters
        return sum(enters.values()) if self.channel is None else enters.get(self.channel, 0)


def block(dice: Dice) -> str:
    """Return the first three numbers of an address block outside the carriers'."""
    return f"10.{dice.between(64, 255)}.{dice.between(0, 255)}"
