"""What this worker has of the partitions now: how each begins, rests, goes on, is lost and comes back.

With every assignment all rests, and what stayed here without a break goes on where it was; the others begin from their
snapshots. A partition whose work Kafka interrupted in between begins anew from what is durable.
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
        self._cursors = {}
        self._lost.clear()
        self._member.joined(generation)
        self._rooms.rest()
        self._rooms.keep_resting(stayed)
        self._changelog.stand_by(standbys, actives)

    async def complete(self, *_args: Any, **_kwargs: Any) -> None:
        """Start with the partitions of this assignment: go on with what rested, read the others' snapshots."""
        number = self._number
        await self._guard.check_assignment()
        assigned = self._member.assigned(self._topics)
        positions = await self._member.consumer.positions(assigned) if assigned else {}
        partitions = sorted(tp.partition for tp in positions if tp.topic == ROOM_EVENTS)
        kept = []
        for partition, offset in self._rooms.resting.items():
            next_offset, _ = positions.get(TP(ROOM_EVENTS, partition), (offset + 2, 0))
            if next_offset <= offset + 1 and await self._changelog.is_ours(partition):
                kept.append(partition)
        if not await self._start([partition for partition in partitions if partition not in kept], positions, number):
            return  # assigned anew meanwhile: this is called again for that
        cursors = {tp: Cursor(next_offset) for tp, (next_offset, _) in positions.items()}
        for partition in kept:
            cursors[TP(ROOM_EVENTS, partition)] = Cursor(self._rooms.resume(partition).offset + 1)
        self._told(partitions)
        self._cursors = cursors
        log.info("ready", extra=facts(partitions=partitions, generation=self._app.consumer_generation_id, kept=kept))

    async def _start(self, partitions: list[int], positions: Mapping[TP, tuple[int, int]], number: int) -> bool:
        """Begin partitions from their snapshots; False when another assignment came meanwhile."""
        found = await self._changelog.load(partitions)
        for partition in partitions:
            if self._number != number:
                return False
            snapshots = found[partition]
            next_offset, end = positions[TP(ROOM_EVENTS, partition)]
            needed = max(next_offset, snapshots.newest() + 1)
            if needed > end:
                msg = (
                    f"{ROOM_EVENTS} partition {partition} must reach offset {needed}, got {end}: "
                    "the topic was made anew; set another ROOMPULSE_KAFKA__APP_ID"
                )
                raise ProgramError(msg)
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
        positions = await self._member.consumer.positions(lost)
        if not await self._start([tp.partition for tp in lost if tp.topic == ROOM_EVENTS], positions, number):
            return
        for tp in lost:
            self._lost.discard(tp)
            self._cursors[tp] = Cursor(positions[tp][0])
        await self._app.consumer.seek_wait({tp: positions[tp][0] for tp in lost})
        log.info("ready again", extra=facts(partitions=[f"{tp.topic}-{tp.partition}" for tp in lost]))

    # -- it goes ----------------------------------------------------------------------------------------------

    async def hand_over(self, timeout_s: float) -> None:
        """Save what can be saved in time, then let everything rest until it is known whose it is."""
        rooms = self._rooms
        self._cursors = {}
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
