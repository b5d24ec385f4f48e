"""One partition: its engine, what is not yet confirmed, and how far its snapshots have come."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from agents.sender import Confirmation, SendMany, cloud_event
from agents.snapshots import State

MAX_UNCONFIRMED: Final = 5_000
"""Messages on their way for one partition before its next records have to wait."""
ADAPT_AT_MOST: Final = 2.0
"""An epoch is at most so many times as long, or as short, as the one before: one burst decides little."""

Records = list[tuple[int, int | None, bytes, bytes | None]]


class CheckpointLike(Protocol):
    """What of `pipeline.snapshot.Checkpoint` is used here."""

    @property
    def offset(self) -> int:
        """Last record applied."""

    @property
    def star(self) -> bytes:
        """The partition's own state as of then."""

    @property
    def rooms(self) -> Sequence[str]:
        """Rooms changed since each was last saved."""


class SavedLike(Protocol):
    """What of `pipeline.snapshot.Saved` is used here."""

    @property
    def parts(self) -> Sequence[tuple[str, bytes]]:
        """Keys and values to write, in this order."""

    @property
    def retired(self) -> Sequence[str]:
        """Keys that nothing refers to any more."""

    @property
    def told(self) -> Sequence[Any]:
        """Messages to be confirmed before the values are written."""


class EngineLike(Protocol):
    """What of `pipeline.Engine` is used here."""

    def process(self, records: Iterable[Any]) -> Sequence[Any]:
        """Apply records, return messages."""

    def checkpoint(self) -> CheckpointLike:
        """Return where the log stands, and the rooms to save before it counts."""

    def save(self, room_id: str) -> SavedLike:
        """Return a room's state as it is now."""

    def settle(self, offset: int) -> None:
        """Take note that the star of the checkpoint at `offset` is durable."""

    def restore(self, snapshots: Mapping[str, bytes]) -> None:
        """Go on from snapshots."""

    @property
    def ticked_ts(self) -> int | None:
        """When the newest tick applied was written; None before the first."""


class EngineError(RuntimeError):
    """The engine could not do its work; its words say for which partition and offset."""


class Pace(NamedTuple):
    """How long an epoch may be, from one checkpoint's acknowledgement to the next one's, in seconds."""

    shortest_s: float
    longest_s: float

    def next_s(self, last_s: float, *, n_input_bytes: int, n_written_bytes: int) -> float:
        """Return how long the next epoch should be for the changelog to take no more bytes than came in.

        A room that changes all the time is written once an epoch, so twice the length is half the bytes.

        >>> pace = Pace(5.0, 60.0)
        >>> pace.next_s(10.0, n_input_bytes=1_000, n_written_bytes=1_500)
        15.0
        >>> pace.next_s(10.0, n_input_bytes=1_000, n_written_bytes=10)
        5.0
        >>> pace.next_s(40.0, n_input_bytes=0, n_written_bytes=100)
        60.0
        """
        ratio = n_written_bytes / max(n_input_bytes, 1)
        factor = min(max(ratio, 1 / ADAPT_AT_MOST), ADAPT_AT_MOST)
        return min(max(last_s * factor, self.shortest_s), self.longest_s)


class Epoch:
    """The way from one checkpoint to its acknowledgement: its rooms, written evenly over `length_s`, then its star."""

    __slots__ = ("begun_s", "length_s", "n_done", "offset", "rooms", "star")

    def __init__(self, checkpoint: CheckpointLike, begun_s: float, length_s: float) -> None:
        self.offset, self.star, self.rooms = checkpoint.offset, checkpoint.star, tuple(checkpoint.rooms)
        self.begun_s, self.length_s, self.n_done = begun_s, length_s, 0

    @property
    def is_written(self) -> bool:
        """Whether every room was taken from the engine."""
        return self.n_done == len(self.rooms)

    def n_due(self, now_s: float) -> int:
        """Return how many rooms should be written by now."""
        share = (now_s - self.begun_s) / self.length_s
        return min(len(self.rooms), max(0, math.floor(share * (len(self.rooms) + 1))))

    def next_due_s(self) -> float:
        """Return when the next room, or at the end the star, should be written."""
        return self.begun_s + self.length_s * (self.n_done + 1) / (len(self.rooms) + 1)


class Claim(NamedTuple):
    """What an owner writes first: the star as it found it, and what a dead record stands after."""

    star: State
    overtaken: Mapping[str, State | None]


class Shard:
    """One partition as this worker has it."""

    def __init__(self, partition: int, engine: EngineLike, length_s: float) -> None:
        self.partition, self.engine = partition, engine
        # Records are applied under the first alone, snapshots written under both: while Kafka confirms them, the
        # engine goes on.
        self.applying, self.saving = asyncio.Lock(), asyncio.Lock()
        self.is_closing = False
        """Whether records are left to whoever goes on with the partition."""
        self.offset = -1
        """Last record applied since this process got the partition."""
        self.known = self.acknowledged = -1
        """What the snapshots knew of, all of it; and the newest checkpoint that is durable since."""
        self.epoch: Epoch | None = None
        self.length_s, self.next_s = length_s, 0.0
        self._unconfirmed: dict[Confirmation, int] = {}
        """Oldest first, each with the messages it is for: a confirmation is a whole batch's, and calls share it."""
        self._n_unconfirmed = 0
        self.retired: dict[str, int] = {}
        """Keys to be removed, and up to where records must be committed first."""
        self.claim: Claim | None = None
        """To be written before anything else."""
        self.reign = 0
        self.n_input_bytes = self.n_written_bytes = 0
        """Since the last checkpoint was acknowledged."""

    @property
    def is_busy(self) -> bool:
        """Whether records are being applied or states written: a failure would leave the engine ahead of Kafka."""
        return self.applying.locked() or self.saving.locked()

    async def apply(self, records: Records, send_many: SendMany) -> None:
        """Apply records in order and send what follows from them to the same partition."""
        new = records if records[0][0] > self.known else [record for record in records if record[0] > self.known]
        if new:
            await self.send(self._process(new), send_many)
        self.offset = records[-1][0]
        self.n_input_bytes += sum([len(record[2]) for record in records])
        while self._n_unconfirmed > MAX_UNCONFIRMED:  # the oldest alone: what came after it stays on its way
            oldest = next(iter(self._unconfirmed))
            await oldest
            self._n_unconfirmed -= self._unconfirmed.pop(oldest)

    async def send(self, outputs: Iterable[Any], send_many: SendMany) -> None:
        """Send an engine's messages; their confirmations are awaited later."""
        messages = []
        for output in outputs:
            value = output.json()
            headers = cloud_event(output.topic, self.partition, value)
            messages.append((output.topic, output.key.encode(), value, headers))
        if messages:
            self._await_later(await send_many(messages, self.partition), len(messages))

    def _await_later(self, confirmations: Sequence[Confirmation], n_messages: int) -> None:
        for confirmation in confirmations:
            self._unconfirmed.setdefault(confirmation, 0)
        self._unconfirmed[confirmations[-1]] += n_messages
        self._n_unconfirmed += n_messages

    def _process(self, records: Records) -> Sequence[Any]:
        try:
            return self.engine.process(records)
        except Exception as error:
            msg = (
                f"engine must apply offsets {records[0][0]} to {records[-1][0]} of partition {self.partition}, "
                f"{self._where(records)}got {type(error).__name__}: {error}"
            )
            raise EngineError(msg) from error

    def _where(self, records: Records) -> str:
        """Return in words which record was too much, as far as the engine can still say."""
        try:
            last = self.engine.checkpoint().offset
        except Exception:  # it just failed: whatever it says now is no news
            return ""
        failed = next((record[0] for record in records if record[0] > last), None)
        return "" if failed is None else f"at offset {failed} "

    def save(self, room_id: str) -> SavedLike:
        """Return a room's state as of `offset`."""
        try:
            return self.engine.save(room_id)
        except Exception as error:
            msg = (
                f"engine must save every room it named, partition {self.partition} at offset {self.offset}, "
                f"got {type(error).__name__}: {error}"
            )
            raise EngineError(msg) from error

    def take_unconfirmed(self) -> list[Confirmation]:
        """Return what to wait for before a room's state may be written."""
        sent, self._unconfirmed, self._n_unconfirmed = list(self._unconfirmed), {}, 0
        return sent
