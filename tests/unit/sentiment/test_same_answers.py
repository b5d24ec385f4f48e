"""The fast model gives exactly the answers of the plain one, for every text."""

import random
import sys
import unicodedata
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.workloads import Workload
from pipeline.sentiment import SentimentModel, default_model, normalise, topics, topics_normalised
from pipeline.sentiment.model import MAX_RECENT, MAX_RECENT_CHARACTERS, read_lexicon
from pipeline.sentiment.topics import read_topics
from schemas.decode import decode
from tests import sentiment_oracle as plain
from tests.effort import effort

LEXICON = sorted(read_lexicon())
TERMS = sorted({*LEXICON, *read_topics()})
N_TEXTS = effort(20_000)
# What decides where a term, a word, a clause or a run begins and ends, and what a comment is hidden with.
JOINTS = [
    *" ,.!?'~:;。、，！？～：’\n\t\0", "  ", "a", "z", "S", "É", "é", "e\u0301", "İ", "\u212a", "ß", "1", "9", "１",
    "①", "不", "没", "好", "的", "哈哈哈哈", "。。。", "goood", "66666", "\u200b", "\ufe0f", "ａ", "Ａ", "ﬁ",
    "が", "か\u3099", "\ud800", "…", "“", "（", "😀", "👍🏻", "❤\ufe0f", "\u3000", "\xa0", "\x1c", "\x85", "\u2028",
]  # fmt: skip


def check(text: str) -> None:
    """Assert that every way to ask gives what the plain model says."""
    norm, leaning, named = plain.normalise(text), plain.score(text), plain.topics(text)
    model = default_model()
    assert normalise(text) == norm
    assert (model.score(text), model.score_normalised(norm)) == (leaning, leaning)
    assert (topics(text), topics_normalised(norm)) == (named, named)
    reading = model.read(text)
    assert (reading.norm, (reading.score_milli, reading.confidence_milli), reading.topics) == (norm, leaning, named)


@given(st.text(st.characters(exclude_categories=()), max_size=60))
@settings(max_examples=effort(500))
def test_any_text(text: str) -> None:
    check(text)


@given(st.lists(st.sampled_from(TERMS) | st.sampled_from(JOINTS) | st.text(max_size=2), max_size=16).map("".join))
@settings(max_examples=effort(1_000))
def test_terms_in_every_company(text: str) -> None:
    check(text)


@pytest.mark.long
def test_a_seeded_mass_of_texts() -> None:
    rng = random.Random(20)
    texts: set[str] = set()
    while len(texts) < N_TEXTS:
        pieces = rng.choices((LEXICON, TERMS, JOINTS, [chr(rng.randrange(0x4E00, 0x9FFF))]), (6, 3, 5, 1), k=12)
        texts.add("".join(rng.choice(piece) for piece in pieces[: rng.randrange(1, 13)]))
    for text in sorted(texts):
        check(text)


def test_every_term_alone_and_between_its_neighbours() -> None:
    for term in TERMS:
        for before, after in product(("", "a", "6", "'", ".", "不"), ("", "a", "6", "'", ".", "?")):
            check(f"{before}{term}{after}")


def test_comments_as_they_are_written() -> None:
    texts: set[str] = set()
    for record in Workload(3, seed=4).take(4_000):
        texts.update(event.text for event in decode(record[2]) if hasattr(event, "text"))
    assert len(texts) > 300
    for text in sorted(texts):
        check(text)


def test_every_character_has_the_spelling_that_all_rules_give_it() -> None:
    different = [
        hex(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) not in ("Cn", "Co")  # neither assigned nor composing with anything
        for text in (f"A{chr(code)}，{chr(code) * 3} {chr(code) * 4}", f"A{chr(code)}\u0301，{chr(code)}")
        if normalise(text) != plain.normalise(text)
    ]
    assert different == []


@pytest.mark.parametrize("length", [1, MAX_RECENT_CHARACTERS, MAX_RECENT_CHARACTERS + 1])
def test_what_is_remembered_is_bounded_and_changes_no_answer(length: int) -> None:
    model = SentimentModel(read_lexicon())
    texts = [f"{number}好"[-length:].rjust(length, "很") for number in range(3 * MAX_RECENT)]
    first = [model.read(text) for text in texts]
    again = [model.read(text) for text in reversed(texts)][::-1]
    n_distinct = len(set(texts))
    n_kept = sum(map(len, (model._young, model._old)))
    assert n_kept <= 2 * MAX_RECENT
    assert (n_kept > 0) == (length <= MAX_RECENT_CHARACTERS)
    assert any(one is other for one, other in zip(first, again, strict=True)) == (length <= MAX_RECENT_CHARACTERS)
    assert n_distinct == 1 or n_distinct > 2 * MAX_RECENT
    for text, one, other in zip(texts[:500], first, again, strict=False):
        assert (
            plain.score(text) == (one.score_milli, one.confidence_milli) == (other.score_milli, other.confidence_milli)
        )
        assert one.norm == other.norm == plain.normalise(text)
