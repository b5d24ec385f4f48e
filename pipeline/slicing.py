"""A room's counters by other dimensions than the channel: segment, region, creative, product, host, partner.

Off unless settings name dimensions. An event's value in every dimension is one integer, its *places*: digit d of base
256 is the place of its value among those of dimension d. So what waits in a bucket is one number a combination of
values, and only folding it into the windows takes a step a dimension. A dimension tells `limit` values apart, whoever
comes first; the rest are `other`, and what names none is `unknown`: the slices of a dimension add up to the room.

Where an event does not carry a field, it counts

- by `segment`, `region`, `creative_id` where its user last was: the last value that an event of this user's named in
  the session (an order: its creation first, then its user's last);
- by `host_id`, `partner_id` as the room's own `room` events say of that moment;
- by `product_id`, a comment alone, under the product that was on stage.

Of somebody without consent, segment, region and creative are not looked at. Places mean something within one numbering
alone. Another begins when the dimensions change, and with a session that finds one of them full: values of which
nothing is left give up their places then, and what still comes of an order of before is `unknown`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pipeline.buckets import BASE_MS, CHANNEL_ZONES, Windows
from pipeline.counters import MONEY, Packed, only
from pipeline.roi.cohorts import CHANNEL_COHORTS
from pipeline.said import Said
from pipeline.users import HyperLogLog
from schemas.base import UNKNOWN
from schemas.decode import STRUCTS

OTHER: Final = "other"
MAX_TOUCHES: Final = 4_096
"""Users whose last values are remembered, the oldest half forgotten beyond: four times the visits of the evidence."""
MAX_BUYERS: Final = 512
"""Buyers of a slice that are counted one by one; more are a sketch of 4 KiB."""
PERSONAL: Final = frozenset(("segment", "region", "creative_id"))
"""Dimensions that say something of the viewer."""
NOBODYS: Final = frozenset(("spend", "counts"))
"""Types of event that are about no single viewer: where they do not speak of consent, none is needed."""

_BITS: Final = 8
_DIGIT: Final = (1 << _BITS) - 1
_NUMBERING: Final = 48
"""Where an order's places name their numbering: above six digits."""
_NUMBERINGS: Final = 1 << 15
_KIND_OF: Final = {struct: name for name, struct in STRUCTS.items()}


class Buyers(msgspec.Struct, gc=False):
    """Distinct buyers: exact while few, then within 2 %."""

    few: dict[int, bool] = msgspec.field(default_factory=dict)
    many: HyperLogLog | None = None

    def add(self, user: int) -> None:
        """Note a buyer's token."""
        if self.many is not None:
            self.many.add(user)
            return
        self.few[user] = True
        if len(self.few) > MAX_BUYERS:
            self.many = HyperLogLog()
            for token in self.few:
                self.many.add(token)
            self.few = {}

    def count(self) -> int:
        """Return how many there were."""
        return len(self.few) if self.many is None else self.many.estimate()


class Slice(msgspec.Struct, gc=False):
    """One value of a dimension: its windows as a channel has them, its cohorts once money comes, its buyers."""

    windows: Windows = msgspec.field(default_factory=lambda: Windows(CHANNEL_ZONES))
    cohorts: Windows | None = None
    buyers: Buyers | None = None

    def begin_session(self, now_ms: int) -> None:
        """Count anew; the rolling window goes on."""
        self.windows.expire(now_ms)
        self.windows.session = self.windows.prior = 0
        self.buyers = None
        if self.cohorts is not None:
            self.cohorts.session = 0


class Waiting:
    """What waits in one base bucket by places: of this session, late for one before it, told by the one before it."""

    __slots__ = ("former", "late", "own")

    def __init__(self) -> None:
        self.own: dict[int, Packed] = {}
        self.late: dict[int, Packed] = {}
        self.former: dict[int, Packed] = {}

    def parts(self) -> tuple[dict[int, Packed], dict[int, Packed], dict[int, Packed]]:
        """Return all three."""
        return self.own, self.late, self.former


class Slices(msgspec.Struct, gc=False):
    """A room's slices, and what is needed to find an event's."""

    dimensions: tuple[str, ...]
    limit: int
    numbering: int
    since_ms: int
    """When this session's counting began, by the log's clock."""
    is_partial: bool = False
    """That was in the middle of the session."""
    names: list[dict[str, int]] = msgspec.field(default_factory=list)
    """Place of each value, by dimension, in the order of the places."""
    slices: list[list[Slice]] = msgspec.field(default_factory=list)
    named: list[dict[str, bool]] = msgspec.field(default_factory=list)
    """Types of event that had a value, by dimension: of the others a slice tells nothing."""
    waiting: dict[int, Waiting] = msgspec.field(default_factory=dict)
    touches: dict[int, int] = msgspec.field(default_factory=dict)
    """Places of each user's last event."""
    has_buyers: bool = False
    revision: int = 0
    """Of the session's feedback (`pipeline.feedback`), when it was last told, and whether it would be another now."""
    told_ms: int = -1
    is_changed: bool = False

    # -- which slices an event is of ----------------------------------------------------------------------------

    def places(self, event: Any, said: dict[str, Said], user: int | None, *, has_consent: bool, base: int = 0) -> int:
        """Return an event's places; `base` are those it has where it names none itself, before any other rule."""
        kind, touched = _KIND_OF[type(event)], 0 if user is None else self.touches.get(user, 0)
        found = kept = 0
        for number, dimension in enumerate(self.dimensions):
            shift, is_personal = _BITS * number, dimension in PERSONAL
            value = getattr(event, dimension) if has_consent or not is_personal else None
            place = 0
            if value is None:
                place = base >> shift & _DIGIT
                if not place and is_personal:
                    place = touched >> shift & _DIGIT
                elif not place and (dimension != "product_id" or kind == "comment"):
                    so_far = said.get(dimension)
                    value = None if so_far is None else so_far.at(event.ts)
            if value is not None:
                place = self._place(number, value)
            if place:
                found |= place << shift
                if dimension != "product_id":
                    kept |= place << shift
                if kind not in self.named[number]:
                    self.named[number][kind] = True
        if user is not None and kept != touched:
            self._touch(user, kept)
        return found

    def _place(self, number: int, value: str) -> int:
        names = self.names[number]
        place = names.get(value)
        if place is None:
            if len(names) - 2 >= self.limit:
                return names[OTHER]
            place = names[value] = len(names)
            self.slices[number].append(Slice())
        return place

    def _touch(self, user: int, places: int) -> None:
        touches = self.touches
        if user not in touches and len(touches) >= MAX_TOUCHES:
            for old in list(touches)[: MAX_TOUCHES // 2]:
                del touches[old]
        touches[user] = places

    def marked(self, places: int) -> int:
        """Return an order's places with the numbering they belong to."""
        return self.numbering << _NUMBERING | places

    def current(self, marked: int) -> int:
        """Return the places of an order; all unknown where they belong to a former numbering."""
        return marked & (1 << _NUMBERING) - 1 if marked >> _NUMBERING == self.numbering else 0

    # -- counting -----------------------------------------------------------------------------------------------

    def count(self, ts: int, places: int, counted: Packed, *, is_past: bool) -> None:
        """Count packed counters at a moment; `is_past` for a session before this one."""
        bucket = ts - ts % BASE_MS
        waiting = self.waiting.get(bucket)
        if waiting is None:
            waiting = self.waiting[bucket] = Waiting()
        cells = waiting.late if is_past else waiting.own
        cells[places] = cells.get(places, 0) + counted

    def book(self, ts: int, places: int, packed: int, now_ms: int, *, is_past: bool, since_ms: int) -> None:
        """Book what `pipeline.roi.state` books in the room's cohorts, in those of the slices."""
        if not packed:
            return
        for number, slices in enumerate(self.slices):
            slice_ = slices[places >> _BITS * number & _DIGIT]
            if slice_.cohorts is None:
                slice_.cohorts = Windows(CHANNEL_COHORTS)
            if ts >= since_ms:
                slice_.cohorts.put(ts - ts % BASE_MS, packed, now_ms)
            if not is_past:
                slice_.cohorts.session += packed

    def buys(self, places: int, user: int) -> None:
        """Note who paid."""
        self.has_buyers = True
        for number, dimension in enumerate(self.dimensions):
            if dimension == "segment":
                slice_ = self.slices[number][places >> _BITS * number & _DIGIT]
                if slice_.buyers is None:
                    slice_.buyers = Buyers()
                slice_.buyers.add(user)

    def fold(self, now_ms: int) -> None:
        """Move what happened before `now_ms` into the windows, as `RoomState.fold` does."""
        last_bucket = now_ms - BASE_MS
        for bucket in [bucket for bucket in self.waiting if bucket <= last_bucket]:
            waiting = self.waiting.pop(bucket)
            for cells in waiting.parts():
                for places, counted in cells.items():
                    for number, slices in enumerate(self.slices):
                        windows = slices[places >> _BITS * number & _DIGIT].windows
                        if cells is waiting.own:
                            windows.session += counted
                        windows.put(bucket, counted, now_ms)
            self.is_changed |= bool(waiting.own)

    # -- sessions -----------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """A dimension has as many values as are told apart: the next one would be `other`."""
        return any(len(names) - 2 >= self.limit for names in self.names)

    def begin_session(self, now_ms: int, evaluated_ms: int, numbering: int) -> None:
        """Count anew; under another numbering, values of which no window holds anything give up their places."""
        for waiting in self.waiting.values():
            former: dict[int, Packed] = {}
            for part in waiting.parts():
                for places, counted in part.items():
                    former[places] = former.get(places, 0) + counted
            waiting.own, waiting.late, waiting.former = {}, {}, former
        for values in self.slices:
            for slice_ in values:
                slice_.begin_session(evaluated_ms)
        if numbering != self.numbering:
            tables = [self._renumbered(number) for number in range(len(self.dimensions))]
            for waiting in self.waiting.values():
                waiting.former = {_moved(places, tables): counted for places, counted in waiting.former.items()}
        self.touches.clear()
        self.numbering, self.since_ms, self.is_partial = numbering, now_ms, False
        self.has_buyers = self.is_changed = False
        self.revision, self.told_ms = 0, -1

    def _renumbered(self, number: int) -> list[int]:
        """Give one dimension's values their new places; return these by the old ones."""
        slices = self.slices[number]
        used: set[int] = set()
        for waiting in self.waiting.values():
            used.update(places >> _BITS * number & _DIGIT for places in waiting.former)
        names: dict[str, int] = {}
        table = [0] * len(slices)
        for name, place in self.names[number].items():
            if place < 2 or place in used or slices[place].windows.zones[0].starts:
                table[place] = names[name] = len(names)
        self.slices[number] = [slices[self.names[number][name]] for name in names]
        self.names[number] = names
        return table

    def forget_money(self) -> None:
        """Let the windows forget amounts in another currency, as the room's do."""
        for slices in self.slices:
            for slice_ in slices:
                for zone in slice_.windows.zones:
                    zone.values = [value - only(value, MONEY) for value in zone.values]
                    zone.total = sum(zone.values)
                for zone in () if slice_.cohorts is None else slice_.cohorts.zones:
                    zone.starts, zone.values, zone.total = [], [], 0
        for waiting in self.waiting.values():
            for cells in waiting.parts():
                for places, counted in cells.items():
                    cells[places] = counted - only(counted, MONEY)


def _moved(places: int, tables: list[list[int]]) -> int:
    shifts = range(0, _BITS * len(tables), _BITS)
    return sum(table[places >> shift & _DIGIT] << shift for shift, table in zip(shifts, tables, strict=True))


def begun(dimensions: tuple[str, ...], limit: int, numbering: int, now_ms: int, *, is_partial: bool) -> Slices:
    """Return slices that hold nothing yet."""
    made = Slices(dimensions, limit, numbering, now_ms, is_partial)
    made.names = [{UNKNOWN: 0, OTHER: 1} for _ in dimensions]
    made.slices = [[Slice(), Slice()] for _ in dimensions]
    made.named = [{} for _ in dimensions]
    return made


def attune(room: Any, ctx: Any) -> None:
    """Bring a room's slices into line with the settings in force; with other dimensions or limits all begin anew."""
    wanted = room.config.dimensions
    if wanted is None:
        wanted = ctx.dimensions
    slices: Slices | None = room.slices
    if slices is None:
        if not wanted:
            return
    elif slices.dimensions == wanted and slices.limit == ctx.max_slices:
        return
    if not wanted:
        room.slices = None
        return
    numbering = next_numbering(room)
    room.slices = begun(wanted, ctx.max_slices, numbering, ctx.star.clock_ms, is_partial=not room.is_fresh)


def next_numbering(room: Any) -> int:
    """Return the number of a room's next numbering; 0 is none."""
    room.numbering = room.numbering % (_NUMBERINGS - 1) + 1
    return int(room.numbering)


def has_consent(event: Any, ctx: Any) -> bool:
    """Tell whether an event says something of somebody who agreed to that, or of nobody."""
    consent = event.consent
    if consent is None:
        return bool(ctx.consent_default or _KIND_OF[type(event)] in NOBODYS)
    return bool(consent)


def places_of(room: Any, event: Any, user: int | None, ctx: Any) -> int:
    """Return an event's places; 0 in a room that is not sliced."""
    if room.slices is None:
        return 0
    found: int = room.slices.places(event, room.said, user, has_consent=has_consent(event, ctx))
    return found


def describe_order(room: Any, order: Any, event: Any, user: int | None, ctx: Any) -> None:
    """Keep the slices an order's money will be booked under: what it names itself wins, the payment's own words first.

    Then what its creation named, then where its user was last.
    """
    slices: Slices | None = room.slices
    if slices is None or order.paid_ts >= 0:
        return
    base = slices.current(order.sliced)
    places = slices.places(event, room.said, user, has_consent=has_consent(event, ctx), base=base)
    order.sliced = slices.marked(places)


def order_places(room: Any, order: Any) -> int:
    """Return the places an order's money is booked under."""
    return 0 if room.slices is None else room.slices.current(order.sliced)
