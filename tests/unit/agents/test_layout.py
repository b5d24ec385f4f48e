"""What is noted beside the group's commits, and when a worker may go on."""

from __future__ import annotations

import pytest

from agents.layout import Layout, LayoutError, check, newest


@pytest.mark.parametrize("layout", [Layout(4), Layout(4, 6), Layout(4, 6, is_copied=True)])
def test_a_note_says_what_it_was_made_of(layout: Layout) -> None:
    assert Layout.read(layout.note()) == layout


@pytest.mark.parametrize("note", [None, "", "hello", "partitions=", "partitions=x", "to=6"])
def test_a_note_of_somebody_else_says_nothing(note: str | None) -> None:
    assert Layout.read(note) is None


def test_a_migration_under_way_counts_before_anything_else() -> None:
    assert newest(["", Layout(4).note(), Layout(4, 6).note()]) == Layout(4, 6)
    assert newest([Layout(4, 6, is_copied=True).note(), Layout(4, 6).note()]) == Layout(4, 6)
    assert newest(["", None]) is None


def test_topics_as_many_as_the_rooms_are_spread_over_are_right() -> None:
    check(Layout(4), {"room.events": 4, "changelog": 4})
    check(None, {"room.events": 4, "changelog": 4})


@pytest.mark.parametrize(
    ("layout", "counts", "words"),
    [
        (Layout(4), {"a": 6, "b": 6}, "the 4 partitions .* got a 6, b 6: run roompulse migrate --to 6"),
        (None, {"a": 4, "b": 6}, "the 4 partitions .* got b 6: run roompulse migrate --to 6"),
        (Layout(6), {"a": 4}, "the 6 partitions .* got a 4: the topics were made anew"),
        (Layout(4, 6), {"a": 4}, "from 4 to 6 partitions that was not finished: run roompulse migrate --to 6"),
        (Layout(4, 6, is_copied=True), {"a": 6}, "was not finished: run roompulse migrate --to 6"),
    ],
)
def test_anything_else_stops_a_worker_and_says_what_to_do(
    layout: Layout | None, counts: dict[str, int], words: str
) -> None:
    with pytest.raises(LayoutError, match=words) as refused:
        check(layout, counts)
    assert refused.value.exit_code == 1
    assert "\n" not in str(refused.value)
