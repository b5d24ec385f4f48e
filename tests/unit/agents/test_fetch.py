"""Fetched batches come apart into the records that aiokafka's own reader finds in them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka.codec import has_lz4
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from agents.fetch import Fetched, LogRecord

HERE = TP("room.events", 3)
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = [NONE, GZIP, SNAPPY, LZ4, ZSTD] if has_lz4() else [NONE, GZIP]  # cramjam brings all three or none
CONTROL_BIT = 0x20

records = st.tuples(
    st.integers(0, 2**40), st.none() | st.binary(max_size=8), st.none() | st.binary(max_size=40), st.booleans()
).filter(lambda record: record[1] is not None or record[2] is not None)
batches = st.tuples(st.sampled_from(CODECS), st.integers(0, 5), st.lists(records, min_size=1, max_size=12))


def packed(base_offset: int, codec: int, content: list[tuple[int, bytes | None, bytes | None, bool]]) -> bytes:
    """Return a batch as a broker stores it."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, 0, 1 << 20)
    for place, (timestamp, key, value, has_headers) in enumerate(content):
        headers: list[tuple[str, bytes | None]] = [("ce_id", b"1"), ("empty", None)] if has_headers else []
        assert builder.append(place, timestamp, key, value, headers) is not None
    whole = bytearray(builder.build())
    struct.pack_into(">q", whole, 0, base_offset)
    return bytes(whole)


def unpacked(raw: bytes) -> list[Any]:
    memory, found = MemoryRecords(raw), []
    while memory.has_next():
        found.append(memory.next_batch())
    return found


def by_aiokafka(raw: bytes, begin: int) -> tuple[list[LogRecord], int]:
    reader = PartitionRecords(HERE, MemoryRecords(raw), None, begin, None, None, True, READ_UNCOMMITTED)
    found = [(record.offset, record.timestamp, record.value or b"", record.key) for record in reader]
    return found, reader.next_fetch_offset


@given(st.lists(batches, min_size=1, max_size=5), st.integers(0, 30), st.integers(1, 7))
def test_chunks_hold_what_aiokafka_reads_in_the_same_order_and_go_on_at_the_same_offset(
    content: list[Any], begin: int, n_at_most: int
) -> None:
    begin %= content[0][1] + len(content[0][2])  # a broker's answer begins with the batch that was asked for
    raw, offset = b"", 0
    for codec, gap, inside in content:
        offset += gap  # removed by compaction
        raw += packed(offset, codec, inside)
        offset += len(inside)
    expected, next_offset = by_aiokafka(raw, begin)
    fetched = Fetched(HERE, unpacked(raw), begin)
    chunks = list(fetched.chunks(n_at_most))
    assert [record for chunk in chunks for record in chunk] == expected
    assert all(len(chunk) == n_at_most for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= n_at_most for chunk in chunks)
    assert fetched.next_offset == next_offset


def test_large_records_make_short_chunks() -> None:
    content: list[Any] = [(0, b"k", b"v" * 100, False)] * 10
    raw = packed(0, GZIP, content) + packed(10, NONE, [(0, b"k", b"v" * 5_000, False), (0, b"k", b"", False)])
    sizes = [len(chunk) for chunk in Fetched(HERE, unpacked(raw), 0).chunks(8, bytes_at_most=300)]
    assert sizes == [3, 3, 3, 1, 1, 1]


def test_a_transactions_marker_is_no_record_and_is_passed() -> None:
    marker = bytearray(packed(2, NONE, [(0, b"\0\0\0\1", b"\0\0\0\0\0\0", False)]))
    marker[22] |= CONTROL_BIT
    _seal(marker)
    raw = packed(0, NONE, [(5, b"k", b"a", False), (6, b"k", b"b", False)]) + bytes(marker)
    fetched = Fetched(HERE, unpacked(raw), 0)
    assert list(fetched.chunks(10)) == [[(0, 5, b"a", b"k"), (1, 6, b"b", b"k")]]
    assert fetched.next_offset == 3


def test_a_damaged_batch_is_an_error_and_nothing_of_it_is_handed_on() -> None:
    damaged = bytearray(packed(1, NONE, [(6, b"k", b"second", False)]))
    damaged[-3] ^= 1
    fetched = Fetched(HERE, unpacked(packed(0, NONE, [(5, b"k", b"first", False)]) + bytes(damaged)), 0)
    chunks = fetched.chunks(1)
    assert next(chunks) == [(0, 5, b"first", b"k")]
    with pytest.raises(CorruptRecordException):
        next(chunks)


def test_a_brokers_own_stamp_counts_where_the_topic_says_so() -> None:
    stamped = bytearray(packed(0, NONE, [(5, b"k", b"a", False), (9, b"k", b"b", False)]))
    stamped[22] |= 0x08
    struct.pack_into(">q", stamped, 35, 1_000_000)
    _seal(stamped)
    (chunk,) = Fetched(HERE, unpacked(bytes(stamped)), 0).chunks(10)
    assert [timestamp for _, timestamp, _, _ in chunk] == [1_000_000, 1_000_000]


def _seal(batch: bytearray) -> None:
    """Put the checksum right again."""

    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
