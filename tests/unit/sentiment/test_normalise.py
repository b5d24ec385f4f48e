"""One spelling for every comment, reached in one step."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sentiment import normalise
from tests.effort import LONG, effort

any_text = st.text(st.characters(exclude_categories=()), max_size=60)


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("哈哈哈哈哈哈哈", "哈哈哈"),
        ("666666666", "666"),
        ("goooood", "good"),
        ("ＧＯＯＤ！！！！！", "good!!!"),
        ("垃\u200b圾", "垃圾"),
        ("垃\x00圾", "垃圾"),
        ("❤\ufe0f", "❤"),
        ("don’t", "don't"),
        (" 好 \t\r\n 看　吧 ", "好 看 吧"),
        ("還不錯", "還不錯"),
        ("", ""),
        ("\u200b\u200d\ufeff", ""),
        ("   ", ""),
    ],
)
def test_spelling(raw: str, normal: str) -> None:
    assert normalise(raw) == normal


@given(any_text)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@pytest.mark.long
def test_every_character_is_a_fixed_point_after_one_step() -> None:
    # Those that nobody has assigned are many and all treated alike.
    bare = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cn", "Co")]
    left_out = set(bare) - set(bare[:: 1 if effort(LONG) == LONG else 16])
    unstable = [
        hex(code)
        for code in range(sys.maxunicode + 1)
        if code not in left_out and (once := normalise(f"a{chr(code)}\u0301 {chr(code) * 5}")) != normalise(once)
    ]
    assert unstable == []


@given(st.sampled_from("好哈6!。a😀 "), st.integers(min_value=3, max_value=200))
def test_the_length_of_a_run_does_not_show(char: str, n_repeats: int) -> None:
    assert normalise(char * n_repeats) == normalise(char * 3)


@given(any_text)
def test_nothing_invisible_is_left(text: str) -> None:
    assert not set(normalise(text)) & {"\u200b", "\u200c", "\u200d", "\ufeff", "\u00ad", "\ufe0f", "\n", "\t", "\x00"}


@pytest.mark.parametrize("text", ["\ufdfa" * 2_000, "好" + "\u3300" * 1_999, "\ufdfa" * 500])
def test_no_character_makes_a_comment_longer_than_a_comment_may_be(text: str) -> None:
    assert len(normalise(text)) <= 2_000
    assert normalise(normalise(text)) == normalise(text)


def test_a_short_text_of_ligatures_is_kept_whole() -> None:
    assert normalise("\ufdfa" * 3) == unicodedata.normalize("NFKC", "\ufdfa" * 3)
