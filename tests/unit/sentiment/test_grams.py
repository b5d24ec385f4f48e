"""The table of n-grams is the one that was trained, and arrays and plain numbers read it alike."""

import zlib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sentiment import grams
from pipeline.sentiment.grams import EDGE, PLAIN_CHARACTERS, read_weights, unpacked, weigh_many, weigh_one

texts = st.text(st.characters(exclude_characters=EDGE, exclude_categories=()), max_size=3 * PLAIN_CHARACTERS)
spoken = st.text(st.sampled_from("好不贵,。 ?a6…的"), max_size=3 * PLAIN_CHARACTERS)


@given(texts | spoken)
def test_arrays_and_plain_numbers_give_one_sum(text: str) -> None:
    weights = read_weights()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grams, "PLAIN_CHARACTERS", 0)
        by_arrays = weigh_one(text, weights)
        patch.setattr(grams, "PLAIN_CHARACTERS", 1_000)
        assert weigh_one(text, weights) == by_arrays


@given(st.lists(texts | spoken, max_size=6))
def test_a_batch_gives_the_sums_of_its_texts(batch: list[str]) -> None:
    assert weigh_many(batch, read_weights()) == [weigh_one(text, read_weights()) for text in batch]


def test_another_table_than_the_trained_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grams, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"grams\.bin\.z must have the SHA-256 0{64}, got 38e10d57"):
        read_weights.__wrapped__()


def test_a_table_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must hold 6291456 weights, got 4; restore the file"):
        unpacked(bytes(8))


def test_the_file_is_small_and_most_slots_are_empty() -> None:
    packed = files("pipeline.sentiment").joinpath(grams.WEIGHTS_FILE).read_bytes()
    assert len(packed) <= 4_000_000
    assert zlib.decompress(packed).count(0) > 2 * 4_000_000
