"""Each assigned partition's engine: records in, messages out, snapshots beside them, and only then the commit.

The order is what makes the state exact although Kafka delivers at least once. An *epoch* goes from a checkpoint to its
acknowledgement:

1. records are applied and what follows from them is sent, all the time;
2. at the epoch's begin the engine says where it stands (offset S), what the partition's own state is there (the
   *star*), and which rooms changed since each was last written;
3. over the epoch these rooms are written, a few at a time, each as it is when its turn comes, at an offset of S or
   later, and only once everything sent so far is confirmed;
4. once they are confirmed, the star of S is written, last: rooms ahead of it skip records, which is harmless, while a
   star ahead of its rooms would date their records anew;
5. once that is confirmed, S is acknowledged: the next commit may stand there.

A crash anywhere in between repeats records, which the restored engine skips room by room, and messages, which carry
the same ids. No moment writes every room, and memory holds one copy of each: the engine's.

**Removing keys.** A key that no state names any more is removed in two steps. Its last reader could be a successor
that read the changelog before the state without it was there. So a tombstone waits until (a) that state is confirmed
and (b) a commit made *after* (a), of all records up to (a), succeeded, which the broker grants to members of the
group's current generation alone. Stopped between any two lines and woken an hour later, this stays safe: before the
commit nothing was removed, and a commit under a former generation fails, so nothing is; after it, whoever came next
began reading after (b), thus after (a), and its state does not name the key either.

**One owner after the other.** Who takes a partition claims it: the star as it was found is written again under a new
reign (`agents.snapshots`), and nothing else before that is confirmed and the changelog has no record between what was
read and the claim. So states read back are always one owner's, then the next one's, each up to a point: as after a
crash there. A worker that was stopped for longer than its session may have things under way when it wakes. Its states
and tombstones are dead on arrival. Its outputs have the same ids and contents as its successor's. Its acknowledgements
are refused. It learns what happened from the group, which it asks before it writes after a pause (`still_here`), or at
its epoch's end from the successor's claim.

Nothing here knows Faust: how records arrive is `agents.app`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from agents.logs import facts
from agents.sender import Confirmation, SendMany
from agents.shard import Claim, EngineLike, Epoch, Pace, Records, Shard
from agents.snapshots import Snapshots
from schemas.base import EVERY_ROOM

log = logging.getLogger(__name__)

GROUP_S: Final = 0.003
"""How long taking states from an engine may keep everything else waiting, one room more at most."""
STEP_S: Final = 0.05
"""Groups of a partition are at least this far apart while they are on time: a group costs a wait for Kafka."""


class SnapshotLog(Protocol):
    """Where snapshots are kept: the changelog's partitions."""

    async def write(self, partition: int, key: str, snapshot: bytes | None, *, reign: int, offset: int) -> Confirmation:
        """Queue the state of a key as of `offset` of its partition; None removes the key."""

    async def is_ours(self, partition: int) -> bool:
        """Say whether nobody else wrote there since the partition began here; ours must be confirmed."""


class Group(Protocol):
    """What the consumer group says of this worker."""

    @property
    def generation(self) -> int:
        """The group's generation that this worker is a member of."""

    def acknowledge(self, partition: int, offset: int) -> None:
        """Let the next commit stand after `offset`."""

    def committed(self, partition: int) -> int:
        """Return the last offset covered by a commit that succeeded in the current generation; -1 without one."""

    async def still_here(self) -> bool:
        """Ask the group whether this worker is a member of its current generation."""


class LostError(Exception):
    """The partition is not ours any more, or somebody else wrote its snapshots: it has to begin anew."""


class Rooms:
    """The partitions that this worker has now.

    Parameters
    ----------
    make_engine : a new engine for a partition.
    send_many, snapshots : ways to Kafka.
    group : the consumer group, for acknowledgements.
    pace : how long an epoch takes; twice as much work at most is repeated after a crash.
    pause_s : after standing still for so long the group is asked before anything is written.
    clock : seconds that go on while the process is stopped.
    """

    def __init__(
        self,
        make_engine: Callable[[int], EngineLike],
        *,
        send_many: SendMany,
        snapshots: SnapshotLog,
        group: Group,
        pace: Pace,
        pause_s: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_engine, self._send_many, self._snapshots, self._group = make_engine, send_many, snapshots, group
        self._pace, self._pause_s, self._clock = pace, pause_s, clock
        self._shards: dict[int, Shard] = {}
        self._resting: dict[int, Shard] = {}
        self._seen_s = clock()
        self.n_input_bytes = self.n_written_bytes = 0
        """Values that came in and snapshots that were written, since the process began."""

    # -- partitions come and go -------------------------------------------------------------------------------

    @property
    def partitions(self) -> frozenset[int]:
        """Partitions whose engines are restored and at work."""
        return frozenset(self._shards)

    @property
    def resting(self) -> dict[int, int]:
        """Return the partitions that can go on where they rested, and the last record each applied."""
        return {partition: shard.offset for partition, shard in self._resting.items()}

    def shard(self, partition: int) -> Shard | None:
        """Return the partition as it is held now; None when it is not."""
        return self._shards.get(partition)

    def ticked_ts(self, partition: int) -> int | None:
        """Return when the newest tick that a partition has applied here was written; None without any."""
        shard = self._shards.get(partition)
        return None if shard is None else shard.engine.ticked_ts

    def begin(self, partition: int, snapshots: Snapshots) -> Shard:
        """Take a partition from its snapshots; what was overtaken there is written again before anything else is."""
        engine = self._make_engine(partition)
        engine.restore(snapshots.contents())
        shard = Shard(partition, engine, self._pace.shortest_s)
        star = snapshots.star
        # Every room is at the star's offset or ahead of it, and one that is not there was removed by then: records up
        # to it say nothing, even where a commit that stands too low brings them again.
        shard.known = star.offset
        # A commit made before this begin says nothing of what is written from now on.
        shard.acknowledged = self._group.committed(partition)
        shard.reign = snapshots.next_reign(self._group.generation)
        shard.claim = Claim(star, snapshots.overtaken())
        # Partitions take turns, so that not all of them write at once.
        shard.next_s = self._clock() + self._pace.shortest_s * (partition % 8 + 1) / 8
        self._resting.pop(partition, None)
        self._shards[partition] = shard
        return shard

    def rest(self) -> None:
        """Let every partition rest: it goes on with `resume` if it stays here, and is forgotten otherwise.

        One in the middle of something is forgotten now: whether what its engine takes for sent and written ever is
        will be known too late.
        """
        self._resting.update({partition: shard for partition, shard in self._shards.items() if not shard.is_busy})
        self._shards = {}

    def keep_resting(self, partitions: Collection[int]) -> None:
        """Forget what rests of other partitions."""
        self._resting = {partition: shard for partition, shard in self._resting.items() if partition in partitions}

    def resume(self, partition: int) -> Shard:
        """Go on with a partition that rested."""
        shard = self._shards[partition] = self._resting.pop(partition)
        shard.is_closing = False
        if shard.acknowledged >= 0:  # a commit in the middle of a rebalance may have been refused
            self._group.acknowledge(partition, shard.acknowledged)
        return shard

    def forget(self, partition: int) -> None:
        """Drop a partition without a word to Kafka: whoever takes it goes on from what is durable."""
        self._shards.pop(partition, None)
        self._resting.pop(partition, None)

    def forget_all(self) -> None:
        """Drop every partition without a word to Kafka."""
        self._shards, self._resting = {}, {}

    @contextmanager
    def _whole_or_gone(self, shard: Shard) -> Iterator[None]:
        """Drop a partition whose work was interrupted: its state is no longer what was sent and written."""
        try:
            yield
        except BaseException:
            if self._shards.get(shard.partition) is shard:
                del self._shards[shard.partition]
            raise

    # -- records ----------------------------------------------------------------------------------------------

    async def apply(self, shard: Shard, records: Records) -> None:
        """Apply records to a partition, unless it was taken away, be it for a moment: then they come again."""
        async with shard.applying:
            if self._shards.get(shard.partition) is shard and records and not shard.is_closing:
                with self._whole_or_gone(shard):
                    await shard.apply(records, self._send_many)

    # -- snapshots --------------------------------------------------------------------------------------------

    async def save_due(self) -> float:
        """Write what is due of each partition; return seconds until the next turn.

        Partitions do not wait for each other's confirmations. Raises the first error, once all have had their turn;
        the partition it belongs to is dropped.
        """
        await self._check()
        now_s = self._clock()
        due = [shard for shard in self._shards.values() if shard.next_s <= now_s]
        failed = await asyncio.gather(*(self._save(shard) for shard in due), return_exceptions=True)
        for error in failed:
            if error is not None:
                raise error
        dues = [shard.next_s for shard in self._shards.values()]
        return max(0.0, min(dues, default=now_s + self._pace.shortest_s) - self._clock())

    async def save_all(self) -> None:
        """Bring every partition to its end now: before it goes to another worker, or before the end.

        No record is applied from now on, so that what is committed in the end covers all that was sent.
        """
        shards = list(self._shards.values())
        for shard in shards:
            shard.is_closing = True
        failed = await asyncio.gather(*(self._save(shard, to_the_end=True) for shard in shards), return_exceptions=True)
        for error in failed:
            if error is not None:
                raise error

    async def bury_all(self) -> None:
        """Remove the keys that a commit has released."""
        for shard in list(self._shards.values()):
            async with shard.saving:
                if self._shards.get(shard.partition) is shard:
                    with self._whole_or_gone(shard):
                        await self._bury(shard)

    async def _save(self, shard: Shard, *, to_the_end: bool = False) -> None:
        async with shard.saving:
            if self._shards.get(shard.partition) is shard:
                with self._whole_or_gone(shard):
                    if to_the_end and shard.offset < 0 and not (shard.claim and shard.claim.overtaken):
                        return  # nothing to write, so nothing to claim
                    await self._claim(shard)
                    await self._bury(shard)
                    if to_the_end:
                        shard.epoch = None  # what it has not written yet is still named by the next checkpoint
                        await self._begin_epoch(shard)
                        while shard.epoch is not None:
                            await self._go_on(shard, shard.epoch, at_once=True)
                    elif shard.epoch is None:
                        await self._begin_epoch(shard)
                    else:
                        await self._go_on(shard, shard.epoch)

    async def _begin_epoch(self, shard: Shard) -> None:
        now_s = self._clock()
        shard.next_s = now_s + self._pace.shortest_s
        async with shard.applying:
            if shard.offset < 0 or shard.offset == shard.acknowledged:
                return
            checkpoint = shard.engine.checkpoint()
            if checkpoint.offset <= shard.acknowledged:  # records that the restored state knew already
                return
            shard.epoch = Epoch(checkpoint, now_s, shard.length_s)
        shard.next_s = max(shard.epoch.next_due_s(), now_s + STEP_S)

    async def _go_on(self, shard: Shard, epoch: Epoch, *, at_once: bool = False) -> None:
        """Write the rooms that are due; after the last one the star, and acknowledge."""
        if not epoch.is_written:
            await self._write_rooms(shard, epoch, len(epoch.rooms) if at_once else epoch.n_due(self._clock()))
        now_s = self._clock()
        if epoch.is_written and (at_once or now_s >= epoch.next_due_s()):
            await self._end_epoch(shard, epoch)
        elif epoch.n_done < epoch.n_due(now_s):
            shard.next_s = now_s  # late: the loop sees to others, then comes back
        else:
            shard.next_s = max(epoch.next_due_s(), now_s + STEP_S)

    async def _write_rooms(self, shard: Shard, epoch: Epoch, n_due: int) -> None:
        parts: list[tuple[str, bytes]] = []
        retired: list[str] = []
        async with shard.applying:
            offset = shard.offset
            end_s = self._clock() + GROUP_S
            while epoch.n_done < n_due:
                saved = shard.save(epoch.rooms[epoch.n_done])
                epoch.n_done += 1
                parts += saved.parts
                retired += saved.retired
                await shard.send(saved.told, self._send_many)
                if self._clock() >= end_s:
                    break
            sent = shard.take_unconfirmed()
        for confirmation in sent:
            await confirmation
        await self._write(shard, offset, parts)
        # A room that is gone may have been there at the checkpoint: until a commit covers its end, records of before
        # may be read again, and they need it.
        needed = max(offset, epoch.offset)
        shard.retired.update(dict.fromkeys(retired, needed))

    async def _end_epoch(self, shard: Shard, epoch: Epoch) -> None:
        await self._write(shard, epoch.offset, ((EVERY_ROOM, epoch.star),))
        await self._check_ours(shard)
        if self._shards.get(shard.partition) is not shard:
            return
        shard.acknowledged, shard.epoch = epoch.offset, None
        shard.engine.settle(epoch.offset)
        self._group.acknowledge(shard.partition, epoch.offset)
        n_in, n_out = shard.n_input_bytes, shard.n_written_bytes
        shard.n_input_bytes = shard.n_written_bytes = 0
        self.n_input_bytes += n_in
        self.n_written_bytes += n_out
        took_s = max(self._clock() - epoch.begun_s, 0.001)
        if took_s >= epoch.length_s:  # one cut short says nothing about the right length
            shard.length_s = self._pace.next_s(epoch.length_s, n_input_bytes=n_in, n_written_bytes=n_out)
        shard.next_s = self._clock()
        log.debug(
            "snapshots written",
            extra=facts(
                partition=shard.partition,
                offset=epoch.offset,
                n_rooms=len(epoch.rooms),
                took_s=round(took_s, 3),
                next_s=round(shard.length_s, 3),
                n_input_bytes=n_in,
                n_written_bytes=n_out,
            ),
        )

    async def _claim(self, shard: Shard) -> None:
        """Begin the partition's new reign, then write again what compaction must not lose to a dead record."""
        if shard.claim is None:
            return
        star, overtaken = shard.claim
        await self._write(shard, star.offset, ((EVERY_ROOM, star.content),))
        await self._check_ours(shard)
        for key, state in overtaken.items():
            if key != EVERY_ROOM:
                await self._write(
                    shard, *((0, ((key, None),)) if state is None else (state.offset, ((key, state.content),)))
                )
        shard.claim = None
        if overtaken:
            log.warning("snapshots written again", extra=facts(partition=shard.partition, n_keys=len(overtaken)))

    async def _check_ours(self, shard: Shard) -> None:
        if not await self._snapshots.is_ours(shard.partition):
            msg = f"partition {shard.partition} of the changelog must be written by its owner alone, got other records"
            raise LostError(msg)

    async def _bury(self, shard: Shard) -> None:
        """Write tombstones of the keys that a commit has released."""
        done = self._group.committed(shard.partition) if shard.retired else -1
        ready = [key for key, needed in shard.retired.items() if needed <= done]
        if ready:
            await self._write(shard, 0, ((key, None) for key in ready))

    async def _write(self, shard: Shard, offset: int, parts: Iterable[tuple[str, bytes | None]]) -> None:
        """Write states, or tombstones, in this order and return once they are confirmed."""
        await self._check()
        written = []
        for key, value in parts:
            if self._shards.get(shard.partition) is not shard:  # gone while it waited: another may be at work by now
                msg = f"partition {shard.partition} must be held to be written, got another owner of it, or none"
                raise LostError(msg)
            shard.retired.pop(key, None)  # it is back, or goes now
            shard.n_written_bytes += len(key) + len(value or b"")
            written.append(await self._snapshots.write(shard.partition, key, value, reign=shard.reign, offset=offset))
        for confirmation in written:
            await confirmation

    async def _check(self) -> None:
        """After a pause ask the group before anything is written; drop everything when it knows us no more."""
        now_s = self._clock()
        if now_s - self._seen_s > self._pause_s and not await self._group.still_here():
            self.forget_all()
            msg = f"worker must be a member of the group, got none after a pause of {now_s - self._seen_s:.1f} s"
            raise LostError(msg)
        self._seen_s = self._clock()
