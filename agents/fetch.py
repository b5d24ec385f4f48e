"""What the consumer fetched, taken in whole batches: a record costs one tuple, and only when it is needed.

aiokafka makes three objects of every record and asks for more only once all of them are consumed. Here a fetch leaves
the consumer at once and still packed, so the next one is under way while this one is worked on, and memory holds
packed bytes: at most one fetch in the consumer, one here, and the few chunks that wait for their agent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.errors import CorruptRecordException
from faust.types import TP

LogRecord = tuple[int, int | None, bytes, bytes | None]
"""Offset, Kafka timestamp in ms, value, key: what `pipeline.Engine` takes. A tombstone's value is empty."""

MAX_FETCH_BYTES: Final = 16 * 1024 * 1024
"""Of one answer, packed; with the one waiting and the one worked on this bounds what a broker's partitions hold."""
MAX_PARTITION_FETCH_BYTES: Final = 4 * 1024 * 1024
"""Of one partition in an answer: some 16,000 events of 250 bytes, so that a fetch's own cost is small."""
MAX_CHUNK_BYTES: Final = 2 * 1024 * 1024
"""Of values in one chunk: some chunks wait for their agent, and large records must not make them large."""


class Detailed(NamedTuple):
    """A record with names, for the few that are not events."""

    offset: int
    timestamp: int | None
    value: bytes
    key: bytes | None


class Fetched:
    """Batches of one partition as one fetch brought them, still packed; to be unpacked once, in order."""

    __slots__ = ("_batches", "_begin", "_tp", "next_offset")

    def __init__(self, tp: TP, batches: list[Any], begin: int) -> None:
        self._tp, self._batches, self._begin = tp, batches, begin
        self.next_offset: int = batches[-1].next_offset
        """Where the next fetch begins."""

    def chunks(self, n_at_most: int, bytes_at_most: int = MAX_CHUNK_BYTES) -> Iterator[list[LogRecord]]:
        """Yield the records in order, so many at a time; raise CorruptRecordException on a wrong checksum.

        A chunk's values come to about `bytes_at_most` and may be one record's. Markers of transactions are left out,
        and so is what a batch holds before the offset asked for.
        """
        waiting: list[LogRecord] = []
        self._batches.reverse()
        while self._batches:
            batch = self._batches.pop()  # its bytes may go as soon as its records are made
            if not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if batch.is_control_batch:
                continue
            records = [(record.offset, record.timestamp, record.value or b"", record.key) for record in batch]
            if records and records[0][0] < self._begin:
                records = [record for record in records if record[0] >= self._begin]
            waiting = waiting + records if waiting else records
            n_bytes = sum([len(record[2]) for record in waiting])
            step = (
                n_at_most
                if n_bytes <= bytes_at_most
                else max(1, min(n_at_most, len(waiting) * bytes_at_most // n_bytes))
            )
            if len(waiting) >= step:
                n_whole = len(waiting) - len(waiting) % step
                for begin in range(0, n_whole, step):
                    yield waiting[begin : begin + step]
                waiting = waiting[n_whole:]
        if waiting:
            yield waiting


async def fetched(fetcher: Fetcher, active: Collection[TP] | None, timeout_s: float) -> dict[TP, Fetched]:
    """Return what is there of the `active` partitions, after waiting for it if need be; in the consumer's own thread.

    As aiokafka's own `Fetcher.fetched_records` otherwise, whose errors it raises; only committed and uncommitted
    records are told apart by nobody here (transactions are not used).
    """
    subscriptions = fetcher._subscriptions
    deadline_s = time.monotonic() + timeout_s
    while True:
        if subscriptions.reassignment_in_progress:
            await subscriptions.wait_for_assignment()
        taken = _take(fetcher, active)
        left_s = deadline_s - time.monotonic()
        if taken or left_s <= 0:
            return taken
        waiter = fetcher._create_fetch_waiter()
        done, pending = await asyncio.wait([waiter], timeout=left_s)
        if not done or fetcher._closed:
            for future in pending:
                future.cancel()
            return {}
        waiter.result()  # raises what the broker refused


def _take(fetcher: Fetcher, active: Collection[TP] | None) -> dict[TP, Fetched]:
    buffered = fetcher._records
    taken: dict[TP, Fetched] = {}
    for tp in list(buffered):
        if active and tp not in active:
            if not _is_wanted(fetcher, tp):
                del buffered[tp]
                fetcher._notify(fetcher._wait_consume_future)  # or nothing is asked of its broker for a while
            continue
        result = buffered[tp]
        if not isinstance(result, FetchResult) and taken:
            break  # an error is raised on the next call: what came before it is handed on first
        del buffered[tp]
        fetcher._notify(fetcher._wait_consume_future)  # there is room for the next fetch
        if not isinstance(result, FetchResult):
            result.check_raise()
        # False when the partition was taken away, paused or set to another offset while the fetch was on its way.
        elif result.check_assignment(tp) and result.has_more() and (batches := _batches(result)):
            packed = result._partition_records
            taken[tp] = Fetched(tp, batches, packed.next_fetch_offset)
            packed.next_fetch_offset = taken[tp].next_offset
            result._update_position()
    return taken


def _is_wanted(fetcher: Fetcher, tp: TP) -> bool:
    """Tell whether a partition is ours and not paused in aiokafka: it is sought before it is resumed."""
    assignment = fetcher._subscriptions.subscription.assignment
    return assignment is not None and tp in assignment.tps and not assignment.state_value(tp).paused


def _batches(result: FetchResult) -> list[Any]:
    records = result._partition_records._records
    batches = []
    while records.has_next():
        batches.append(records.next_batch())
    return batches
