"""What a changelog says: one owner after the other, and nothing of one that was not the owner any more."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import ProgramError
from agents.snapshots import Snapshots, pack, tombstone_headers, unpack


def record(offset: int, key: str, value: bytes | None, reign: int = 0) -> Any:
    headers = tombstone_headers(reign) if value is None else ()
    return SimpleNamespace(offset=offset, key=key.encode(), value=value, headers=headers)


@given(reign=st.integers(0, 2**64 - 1), offset=st.integers(-1, 2**62), content=st.binary())
def test_a_state_comes_back_as_it_was_packed(reign: int, offset: int, content: bytes) -> None:
    assert unpack(pack(reign, offset, content)) == (reign, offset, content)


def test_states_of_the_format_before_are_read_as_the_first_reign_s() -> None:
    assert unpack(struct.pack(">BQ", 1, 77) + b"state") == (0, 77, b"state")


@pytest.mark.parametrize("value", [b"", b"\x02short", b"\x03" + b"x" * 30])
def test_a_state_of_another_program_is_refused(value: bytes) -> None:
    with pytest.raises(ProgramError, match="run the version that wrote it"):
        unpack(value)


def test_a_claim_of_an_empty_partition_is_no_star() -> None:
    snapshots = Snapshots()
    snapshots.take([record(0, "*", pack(snapshots.next_reign(3), -1, b""))])
    assert snapshots.contents() == {}
    assert snapshots.star.offset == -1
    assert snapshots.next_reign(3) > snapshots.reign


writes = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from("abc*"), st.none() | st.binary(min_size=1, max_size=2)), max_size=30
)


@given(writes=writes, split=st.integers(0, 30))
def test_what_counts_is_what_each_owner_wrote_before_the_next_one_s_first_word(
    writes: list[tuple[int, str, bytes | None]], split: int
) -> None:
    # reigns  1 1 2 1 2 3 2      a word of a lower reign after a higher one's is dead: 4th and 7th
    expected: dict[str, bytes] = {}
    highest, dead_last = 0, dict[str, bool]()
    for reign, key, content in writes:
        dead_last[key] = reign < highest
        if reign < highest:
            continue
        highest = reign
        if content is None:
            expected.pop(key, None)
        else:
            expected[key] = content
    records = [
        record(offset, key, None if content is None else pack(reign, offset, content), reign)
        for offset, (reign, key, content) in enumerate(writes)
    ]
    snapshots = Snapshots()
    snapshots.take(records[:split])
    snapshots.take(records)  # a reader that was ahead is shown some again
    assert snapshots.contents() == expected
    assert snapshots.next == len(records)
    assert set(snapshots.overtaken()) == {key for key, is_dead in dead_last.items() if is_dead}
