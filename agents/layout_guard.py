"""A worker's own look at the layout: it stops where topics grew behind its back, or where rooms are on their way.

What a layout is, and where it is noted: `agents.layout`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from faust.types import TP

from agents.kafka import Cluster, bootstrap, partition_of_key
from agents.layout import Layout, LayoutError, check, newest, partition_counts
from agents.logs import facts
from agents.membership import Membership
from agents.shard import Records
from schemas.base import EVERY_ROOM
from schemas.settings import Settings
from schemas.topics import ROOM_EVENTS

log = logging.getLogger(__name__)

LAYOUT_INTERVAL_S: Final = 10.0
"""How often the topics' partitions are counted: whoever adds some by hand splits rooms until workers stop."""

_STAR: Final = EVERY_ROOM.encode()


class LayoutGuard:
    """Look at the number of partitions when some are assigned, when strange keys come, and as time goes by."""

    def __init__(self, settings: Settings, cluster: Cluster, member: Membership) -> None:
        self._servers, self._member = bootstrap(settings), member
        self._n_partitions, self._is_embedded = cluster.n_partitions, cluster.embedded
        self._strangers: dict[int, set[bytes]] = {}
        """Keys of rooms that a producer sends to another partition than theirs."""

    async def check_assignment(self) -> None:
        """Stop where rooms would be split, or are on their way to other partitions.

        The start looked at the same, but before this worker was a member of the group: only from now on nobody else
        can write a note.
        """
        consumer = self._member.consumer
        n_partitions = max([self._n_partitions, *(tp.partition + 1 for tp in consumer.assignment())])
        logs = [TP(ROOM_EVENTS, partition) for partition in range(self._n_partitions)]
        known = newest(await consumer.commit_notes(logs)) or Layout(self._n_partitions)
        check(known, {ROOM_EVENTS: n_partitions})

    async def look_at_keys(self, partition: int, records: Records) -> None:
        """Stop before a record is applied that a producer sent here because the topic has grown.

        One that comes here for another reason, a wrong partitioner, stops nothing: the others must not suffer.
        """
        keys = {record[3] for record in records}
        strange = {
            key for key in keys if key and key != _STAR and partition_of_key(key, self._n_partitions) != partition
        }
        strange -= self._strangers.get(partition, set())
        if not strange or self._is_embedded:
            return
        check(Layout(self._n_partitions), await partition_counts(self._servers, (ROOM_EVENTS,)))
        self._strangers.setdefault(partition, set()).update(strange)
        log.warning("rooms in another partition than theirs", extra=facts(partition=partition, n_rooms=len(strange)))

    async def watch(self, app: Any, fail: Callable[[Exception], Awaitable[None]]) -> None:
        """Look at the number of partitions again and again; a broker that does not answer is no news."""
        while not app.should_stop:
            await app.sleep(LAYOUT_INTERVAL_S)
            try:
                found = await partition_counts(self._servers, (ROOM_EVENTS,))
            except Exception as error:
                log.debug("partitions not counted", extra=facts(error=f"{type(error).__name__}: {error}"))
                continue
            try:
                check(Layout(self._n_partitions), found)
            except LayoutError as error:
                await fail(error)
                return
