"""The word lists are tidy, so that a change to them reads as one line."""

from importlib.resources import files

import pytest

from pipeline.sentiment import TOPICS, normalise
from pipeline.sentiment.model import MAX_WEIGHT, read_lexicon
from pipeline.sentiment.terms import TermIndex, read_table
from pipeline.sentiment.topics import read_topics

OPINION_KINDS = {"word", "face"}
SILENT_KINDS = {"but", "query", "chat", "spam"}


@pytest.mark.parametrize("name", ["lexicon.tsv", "topics.tsv"])
def test_terms_stand_once_sorted_and_normalised(name: str) -> None:
    lines = files("pipeline.sentiment").joinpath(name).read_text(encoding="utf-8").splitlines()[1:]
    terms = [line.split("\t")[0] for line in lines]
    assert terms == sorted(set(terms))
    assert [term for term in terms if normalise(term) != term] == []


def test_weights_are_small_integers_that_fit_their_kind() -> None:
    for term, entry in read_lexicon().items():
        assert isinstance(entry.weight, int) and abs(entry.weight) <= MAX_WEIGHT, term
        if entry.kind in OPINION_KINDS:
            assert entry.weight != 0, f"{term} says nothing"
        if entry.kind in SILENT_KINDS:
            assert entry.weight == 0, f"{term} has an opinion but is {entry.kind}"
        if entry.kind in {"not", "ask"}:
            assert entry.weight == -1, f"{term} may only hint"


def test_both_languages_and_both_leanings_are_there() -> None:
    words = [(term, entry.weight) for term, entry in read_lexicon().items() if entry.kind == "word"]
    for is_latin in (True, False):
        for sign in (1, -1):
            assert sum(1 for term, weight in words if term.isascii() == is_latin and weight * sign > 0) >= 80


def test_every_topic_has_terms() -> None:
    assert set(read_topics().values()) == {*TOPICS, "-"}


def test_a_wrong_header_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"topics\.tsv: the first line must be the columns"):
        read_table("topics.tsv", ("term", "kind", "weight"))


def test_the_longest_term_wins_and_latin_words_match_whole() -> None:
    index = TermIndex({"好": "good", "你好": "hello", "你好吗": "how are you", "ok": "ok", "66": "66"})
    assert index.find("你好吗你好好") == [("how are you", 0, 3), ("hello", 3, 5), ("good", 5, 6)]
    assert index.find("book oke ok 好ok!") == [("ok", 9, 11), ("good", 12, 13), ("ok", 13, 15)]
    assert index.find("166 661 6.66 66") == [("66", 13, 15)]
