"""A message's CloudEvents attributes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agents.sender import cloud_event


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_id_is_the_same_for_the_same_content_alone(first: bytes, second: bytes) -> None:
    ids = [
        dict(cloud_event("room.signals", partition, value))["ce_id"]
        for partition in (0, 7)
        for value in (first, second)
    ]
    assert ids[:2] == ids[2:]
    assert (ids[0] == ids[1]) == (first == second)


def test_what_is_required_is_there() -> None:
    assert dict(cloud_event("bid.commands", 2, b"{}")).items() >= {
        ("ce_specversion", b"1.0"),
        ("ce_type", b"roompulse.bid.commands"),
        ("ce_source", b"/roompulse/partitions/2"),
        ("content-type", b"application/json"),
    }
