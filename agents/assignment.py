"""What this worker has of the partitions now: how each begins, rests, goes on, is lost and comes back.

With every assignment all rests. What stayed here without a break goes on at once where it was; the others begin from
their snapshots meanwhile, and nothing of them is fetched until they have. A partition whose work Kafka interrupted in
between begins anew from what is durable.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

from aiokafka.errors import KafkaError, KafkaTimeoutError
from faust.types import TP

from agents.changelog import Changelog
from agents.errors import ProgramError
from agents.intake import Cursor
from agents.layout_guard import LayoutGuard
from agents.logs import facts
from agents.membership import Membership
from agents.rooms import LostError, Rooms
from agents.snapshots import check_log
from pipeline.snapshot import SnapshotError
from schemas.topics import ROOM_EVENTS

log = logging.getLogger(__name__)

RETRY_S: Final = (0.5, 30.0)
"""Pauses between attempts to begin a partition anew: the first, doubled each time, and the longest."""

_PASSING: Final = (LostError, KafkaTimeoutError, ConnectionError, TimeoutError)


def is_passing(error: Exception) -> bool:
    """Say whether Kafka or another worker did it: then the partition begins anew, and nothing of it is lost."""
    return isinstance(error, _PASSING) or (isinstance(error, KafkaError) and bool(error.retriable))


class Assignment:
    """The partitions of one worker, with the place in each from which it goes on.

    Parameters
    ----------
    app : Faust's application.
    topics : what the worker consumes, `room.events` among it.
    changelog_topic : the name for messages.
    told : is told the partitions of `room.events` when they are at work.
    fail : ends the worker with an error.
    """

    def __init__(
        self,
        app: Any,
        member: Membership,
        rooms: Rooms,
        changelog: Changelog,
        guard: LayoutGuard,
        *,
        topics: Collection[str],
        changelog_topic: str,
        told: Callable[[list[int]], None],
        fail: Callable[[Exception], Awaitable[None]],
    ) -> None:
        self._app, self._member, self._rooms, self._changelog, self._guard = app, member, rooms, changelog, guard
        self._topics, self._changelog_topic, self._told, self._fail = topics, changelog_topic, told, fail
        self._cursors: dict[TP, Cursor] = {}
        self._lost: set[TP] = set()
        """Partitions of ours that have to begin anew."""
        self._number = 0
        """What began under one assignment must not end under the next."""
        self._kept: list[int] | None = None
        """What went on at once, until the whole assignment is at work and that is said."""

    def cursor(self, tp: TP) -> Cursor | None:
        """Return where a partition goes on; None while it is not at work here."""
        return self._cursors.get(tp)

    @property
    def room_partitions(self) -> list[TP]:
        """Partitions of `room.events` that are at work here, or were a moment ago."""
        return [tp for tp in self._cursors if tp.topic == ROOM_EVENTS]

    # -- it comes ---------------------------------------------------------------------------------------------

    def begin(self, generation: int, actives: Collection[int], standbys: Collection[int]) -> None:
        """Forget what did not stay with us without a break: in a generation we missed it may have been another's."""
        stayed = actives if generation == self._member.generation + 1 else ()
        self._number += 1
        self._cursors, self._kept = {}, None
        self._lost.clear()
        self._member.joined(generation)
        self._rooms.rest()
        self._rooms.keep_resting(stayed)
        self._changelog.stand_by(standbys, actives)

    async def complete(self, *_args: Any, **_kwargs: Any) -> None:
        """Go on with what rested, at once, and begin to read the others' snapshots."""
        number = self._number
        await self._guard.check_assignment()
        assigned = self._member.assigned(self._topics)
        kept = await self._stayed(assigned)
        if self._number == number:
            await self._member.consumer.hold(set(assigned) - {TP(ROOM_EVENTS, partition) for partition in kept})
        if self._number != number:
            return  # assigned anew meanwhile: this is called again for that
        self._cursors = {
            TP(ROOM_EVENTS, partition): Cursor(self._rooms.resume(partition).offset + 1) for partition in kept
        }
        new = frozenset(assigned) - self._cursors.keys()
        self._kept = kept
        self._told(sorted(tp.partition for tp in assigned if tp.topic == ROOM_EVENTS))
        if new:
            self._app.add_future(self._take_over(new, number))
        else:
            self._say_ready()

    async def _stayed(self, assigned: Collection[TP]) -> list[int]:
        """Return the partitions that rested here and that nobody else had meanwhile."""
        resting = {
            partition: offset
            for partition, offset in self._rooms.resting.items()
            if TP(ROOM_EVENTS, partition) in assigned
        }
        if not resting:
            return []
        try:
            committed = await self._member.consumer.committed_offsets([TP(ROOM_EVENTS, place) for place in resting])
            ours = await self._changelog.ours(resting)
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("partitions begin anew", extra=facts(error=f"{type(error).__name__}: {error}"))
            return []  # whether it is still ours is not known
        return [
            partition
            for partition, offset in resting.items()
            if partition in ours and committed[TP(ROOM_EVENTS, partition)] <= offset + 1
        ]

    async def _take_over(self, tps: Collection[TP], number: int) -> None:
        """Begin what came with an assignment; what Kafka does not let us begin is lost, and tried again."""
        try:
            await self._begin(tps, number)
        except Exception as error:
            if self._number != number:
                return
            if not is_passing(error):
                await self._fail(error)
                return
            self._lost.update(tps)
            log.warning("partitions wait for Kafka", extra=facts(error=f"{type(error).__name__}: {error}"))

    async def _begin(self, tps: Collection[TP], number: int) -> bool:
        """Begin partitions from their snapshots and fetch them; False when another assignment came meanwhile."""
        positions = await self._member.consumer.positions(tps)
        if not await self._start(sorted(tp.partition for tp in tps if tp.topic == ROOM_EVENTS), positions, number):
            return False
        await self._member.consumer.seek_wait({tp: positions[tp][0] for tp in tps})
        if self._number != number:
            return False
        self._lost.difference_update(tps)
        self._cursors |= {tp: Cursor(positions[tp][0]) for tp in tps}
        await self._member.consumer.release(tps)
        self._say_ready()
        return True

    def _say_ready(self) -> None:
        """Say it once an assignment, as soon as all of it is at work."""
        if self._kept is not None and self._cursors.keys() >= set(self._member.assigned(self._topics)):
            partitions = sorted(tp.partition for tp in self.room_partitions)
            generation = self._app.consumer_generation_id
            log.info("ready", extra=facts(partitions=partitions, generation=generation, kept=self._kept))
            self._kept = None

    async def _start(self, partitions: list[int], positions: Mapping[TP, tuple[int, int]], number: int) -> bool:
        """Begin partitions from their snapshots; False when another assignment came meanwhile."""
        found = await self._changelog.load(partitions)
        for partition in partitions:
            if self._number != number:
                return False
            snapshots = found[partition]
            check_log(partition, snapshots, *positions[TP(ROOM_EVENTS, partition)])
            try:
                self._rooms.begin(partition, snapshots)
            except SnapshotError as error:
                msg = f"partition {partition} of {self._changelog_topic}: {error}"
                raise ProgramError(msg) from None
            self._changelog.release(partition)
            await asyncio.sleep(0)  # a large partition takes its time: others' turn
        return self._number == number

    # -- a partition of it is lost, and comes back ------------------------------------------------------------

    def lose(self, tp: TP, error: Exception) -> None:
        """Let a partition begin anew from what is durable."""
        if self._cursors.pop(tp, None) is None:
            return
        if tp.topic == ROOM_EVENTS:
            self._rooms.forget(tp.partition)
            self._changelog.forget(tp.partition)
        self._lost.add(tp)
        log.warning(
            "partition begins anew",
            extra=facts(topic=tp.topic, partition=tp.partition, error=f"{type(error).__name__}: {error}"),
        )

    async def begin_anew(self) -> None:
        """Bring lost partitions back, again and again while Kafka does not let us."""
        shortest_s, longest_s = RETRY_S
        pause_s, back_s = shortest_s, -longest_s
        while not self._app.should_stop:
            await self._app.sleep(pause_s)
            if not self._lost:
                # What is lost again soon after it came back has to wait longer than the last time.
                pause_s = pause_s if time.monotonic() - back_s < longest_s else shortest_s
                continue
            pause_s = min(pause_s * 2, longest_s)
            try:
                await self._bring_back()
                back_s = time.monotonic()
            except Exception as error:
                if not is_passing(error):
                    await self._fail(error)
                    return
                log.warning(
                    "partitions wait for Kafka",
                    extra=facts(error=f"{type(error).__name__}: {error}", again_in_s=pause_s),
                )

    async def _bring_back(self) -> None:
        lost, number = sorted(self._lost), self._number
        if not lost or not await self._member.still_here():
            return  # a worker that is no member is assigned anew
        if await self._begin(lost, number):
            log.info("ready again", extra=facts(partitions=[f"{tp.topic}-{tp.partition}" for tp in lost]))

    # -- it goes ----------------------------------------------------------------------------------------------

    async def hand_over(self, timeout_s: float) -> None:
        """Save what can be saved in time, then let everything rest until it is known whose it is."""
        rooms = self._rooms
        self._cursors, self._kept = {}, None
        self._lost.clear()
        self._number += 1
        try:
            async with asyncio.timeout(timeout_s):
                await rooms.save_all()
                await self._member.commit()
                await rooms.bury_all()
        except Exception as error:  # nothing is lost: a successor works it out again from the last snapshots
            log.warning("last snapshots not written", extra=facts(error=type(error).__name__))
        finally:
            rooms.rest()
        if rooms.n_written_bytes:
            log.info(
                "snapshots written so far",
                extra=facts(n_input_bytes=rooms.n_input_bytes, n_written_bytes=rooms.n_written_bytes),
            )
