"""Ticks and the worker's policy, written into the partitions it has; the one place that reads the wall clock.

Ticks only see to it that a log's time goes on when nothing else is written. The policy comes before the first tick of
a partition, so that everything after it was decided under it, live and in a replay.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

import orjson

from agents.bridge import policy_record
from agents.logs import facts
from agents.sender import Send
from pipeline.attendance import promise_ms
from schemas.base import EVERY_ROOM
from schemas.settings import Policy
from schemas.topics import ROOM_EVENTS

log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[object]]


def now_ms() -> int:
    """Return the wall clock's time."""
    return time.time_ns() // 1_000_000


def tick(partition: int, ts: int, every_ms: int | None = None) -> bytes:
    """Return the tick of a partition at a moment; `every_ms` promises more, as long as its writer is at work."""
    record = {"type": "tick", "event_id": f"tick-{partition}-{ts}", "room_id": EVERY_ROOM, "ts": ts}
    return orjson.dumps(record if every_ms is None else record | {"every_ms": every_ms})


class Clock:
    """Write the policy into partitions that are new here, and ticks into all of them at each multiple of `tick_ms`.

    Parameters
    ----------
    send : the way to Kafka.
    partitions : what this worker has now.
    policy, versions, control_key : what takes effect, and the key that signs it.
    ticked_ts : when the newest tick that a partition has applied was written, None without any: how far behind it is.
    ticks : False where a log is played in its own time. The policy is then stamped with 0, which moves no clock.
    """

    def __init__(
        self,
        send: Send,
        partitions: Callable[[], Collection[int]],
        *,
        policy: Policy,
        versions: dict[str, object],
        control_key: bytes,
        ticked_ts: Callable[[int], int | None],
        ticks: bool = True,
    ) -> None:
        self._send, self._partitions = send, partitions
        self._policy, self._versions, self._key, self._ticks = policy, versions, control_key, ticks
        self._told: set[int] = set()
        self._ticked_ts = ticked_ts

    def assigned(self, partitions: Collection[int]) -> None:
        """Note what this worker has from now on; a partition that comes back later is told the policy again."""
        self._told.intersection_update(partitions)

    async def run(self, is_over: Callable[[], bool], sleep: Sleep = asyncio.sleep) -> None:
        """Go on until `is_over`; a broker that does not answer costs ticks, never the worker."""
        tick_ms = self._policy.engine.tick_ms
        while not is_over():
            await sleep((tick_ms - now_ms() % tick_ms) / 1_000)
            try:
                await self.beat(now_ms())
            except Exception as error:  # whatever the client raises: the next tick may be written
                log.warning("tick not written", extra=facts(error=type(error).__name__))

    async def beat(self, ts: int) -> None:
        """Tell the policy where it was not told yet, then write one tick to each partition."""
        partitions = sorted(self._partitions())
        # All at once: a partition that takes its time must not keep the others' ticks waiting one after the other.
        await asyncio.gather(*(self._tell(partition, ts) for partition in partitions if partition not in self._told))
        if self._ticks:
            key, every_ms = EVERY_ROOM.encode(), self._policy.engine.tick_ms
            sent = []
            for partition in partitions:
                promised_ms = promise_ms(every_ms, self._ticked_ts(partition), ts)
                record = tick(partition, ts, promised_ms)
                sent.append(await self._send(ROOM_EVENTS, key, record, partition, timestamp_ms=ts))
            for confirmation in sent:
                await confirmation

    async def _tell(self, partition: int, ts: int) -> None:
        """Write the policy and wait until it is in the log."""
        stamp = ts if self._ticks else 0
        record = policy_record(self._policy, self._versions, partition, key=self._key, start_ts=ts, ts=stamp)
        key = EVERY_ROOM.encode()
        await (await self._send(ROOM_EVENTS, key, record, partition, timestamp_ms=stamp))
        self._told.add(partition)
        log.info("policy written", extra=facts(partition=partition, policy_version=self._policy.version()))
