"""A room's state as bytes, with the offset it stands for, and back."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from pipeline.buckets import CHANNEL_ZONES, ROOM_ZONES, Windows
from pipeline.context import Star
from pipeline.counters import GMV_VALID, REFUND_VALID, SPEND, unpack
from pipeline.output import Output
from pipeline.roi.cohorts import CHANNEL_COHORTS, LOOSE, ORDERS, ROOM_COHORTS, SQUARES
from pipeline.room import Pending, RoomState
from pipeline.sketches import bin_value
from pipeline.slicing import Waiting

FORMAT: Final = 3
"""Raised with every change of the state's shape; one format back stays readable from format 2 on."""
READABLE: Final = (FORMAT - 1, FORMAT)
"""Format 2 differs in the evidence of invalid traffic alone, which has other fields since and begins anew."""

_ZONES: Final = {len(zones): zones for zones in (CHANNEL_ZONES, CHANNEL_COHORTS, ROOM_ZONES, ROOM_COHORTS)}
"""Windows are told apart by their number of zones."""

State = TypeVar("State", RoomState, Star)


def _bytes(value: int) -> bytes:
    """Return an integer of any size in as few bytes as it takes."""
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _plain(value: Any) -> Any:
    """Return what msgpack can hold instead of windows: packed counters are larger than its integers."""
    if isinstance(value, Pending):
        cells = [{name: _bytes(n) for name, n in part.items()} for part in (value.own, value.late, value.former)]
        return [*cells, value.dwell, value.past_dwell, value.amounts, value.past_amounts]
    if isinstance(value, Waiting):
        return [{places: _bytes(n) for places, n in part.items()} for part in value.parts()]
    if not isinstance(value, Windows):
        msg = f"state must be made of structs and windows, got {type(value).__name__}"
        raise TypeError(msg)
    zones = [(zone.starts, [_bytes(n) for n in zone.values]) for zone in value.zones]
    return [zones, _bytes(value.session), _bytes(value.prior)]


def _whole(type_: type[Any], value: Any) -> Any:
    """Return windows as they were."""
    if type_ is Pending:
        pending = Pending()
        *cells, pending.dwell, pending.past_dwell, pending.amounts, pending.past_amounts = value
        pending.own, pending.late, pending.former = (
            {name: _integer(data) for name, data in part.items()} for part in cells
        )
        return pending
    if type_ is Waiting:
        waiting = Waiting()
        waiting.own, waiting.late, waiting.former = (
            {places: _integer(data) for places, data in part.items()} for part in value
        )
        return waiting
    if type_ is not Windows:
        msg = f"state must be made of structs and windows, got {type_.__name__}"
        raise TypeError(msg)
    zones, session, prior = value
    windows = Windows(_ZONES[len(zones)])
    windows.session, windows.prior = _integer(session), _integer(prior)
    for zone, (starts, values) in zip(windows.zones, zones, strict=True):
        zone.starts, zone.values = starts, [_integer(data) for data in values]
        zone.total = sum(zone.values)
    return windows


_encode: Final = msgspec.msgpack.Encoder(enc_hook=_plain).encode
_decode_room: Final = msgspec.msgpack.Decoder(tuple[int, RoomState], dec_hook=_whole).decode
_decode_star: Final = msgspec.msgpack.Decoder(tuple[int, Star]).decode
_decode_format: Final = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode


class Checkpoint(NamedTuple):
    """A point of the log to go on from: the partition's own state there, and the rooms to save before it counts.

    `star` belongs under the key `*` once every one of `rooms` was saved, and not before: rooms ahead of the
    partition skip records, a partition ahead of its rooms would date their records anew.
    """

    offset: int
    star: bytes
    rooms: tuple[str, ...]


class Saved(NamedTuple):
    """A room as of the last record applied: what to keep under which key, in this order, and what may go.

    The last part stands under the room's own id and refers to the others. `retired` are keys that nothing refers to
    any more, but only once the last part is durable and no former owner of the partition can write. `told` is to be
    sent before the parts are written: nothing, unless an event that waited broke the room.
    """

    parts: tuple[tuple[str, bytes], ...]
    retired: tuple[str, ...]
    told: tuple[Output, ...] = ()


class SnapshotError(ValueError):
    """The bytes are no snapshot this version can read."""


def dump(state: RoomState | Star) -> bytes:
    """Return the state as bytes."""
    return _encode((FORMAT, state))


def whole(room: RoomState) -> bytes:
    """Return a room's state with its whole ledger: it names no segments."""
    chain, room.chain = room.chain, []
    try:
        return dump(room)
    finally:
        room.chain = chain


def dump_hot(room: RoomState) -> bytes:
    """Return a room's state without its order ledger and money ids: those are kept in segments, or not needed."""
    orders, money = room.ledger.orders, room.seen.money
    room.ledger.orders, room.seen.money = {}, {}
    try:
        return dump(room)
    finally:
        room.ledger.orders, room.seen.money = orders, money


def load_room(data: bytes) -> RoomState:
    """Return a room's state."""
    room: RoomState = load_as(data, _decode_room)
    if _decode_format(data)[0] == FORMAT - 1:
        _upgrade(room)
    return room


def _upgrade(room: RoomState) -> None:
    """Give a room of the format before its cohorts: the session's as sums; rolling ones begin anew.

    Money of before is in no bucket, neither spent nor earned: half of either would be a wrong return.
    """
    state, counts = room.returns, unpack(room.windows.session)
    n_orders = sum(room.amounts.session.values())
    squares = sum(n * bin_value(place) ** 2 for place, n in room.amounts.session.items())
    net = counts[GMV_VALID] - counts[REFUND_VALID]
    state.room.session = counts[SPEND] + net * LOOSE + n_orders * ORDERS + squares * SQUARES
    state.since_ms = room.evaluated_ms


def load_star(data: bytes) -> Star:
    """Return a partition's own state."""
    star: Star = load_as(data, _decode_star)
    return star


def format_of(data: bytes) -> int:
    """Return the format that a state was written in, which `load_as` has taken."""
    return _decode_format(data)[0]


def load_as(data: bytes, decode: Any) -> Any:
    """Return what `decode` makes of a state of this version's format; raise SnapshotError for any other bytes."""
    try:
        number, _ = _decode_format(data)
        if number not in READABLE:
            msg = f"a snapshot must have format {FORMAT}, got {number}: run the version that wrote it, or delete it"
            raise SnapshotError(msg)
        return decode(data)[1]
    except SnapshotError:
        raise
    except (msgspec.MsgspecError, ValueError, TypeError, LookupError) as error:  # damaged text, an impossible window
        msg = f"a snapshot must be one of this program's, got {len(data)} bytes that are not: {error}"
        raise SnapshotError(msg) from error
