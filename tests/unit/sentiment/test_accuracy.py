"""How often the model is right about words it never saw; `python -m benchmarks.signals.sentiment` tells more."""

import pytest

from benchmarks.signals.sentiment import CHATTER, on_chatter, on_hand_written, on_labelled, recorded
from benchmarks.signals.train_sentiment import DATA, REPORT_FOLD, examples
from pipeline.sentiment import SentimentModel, default_model
from pipeline.sentiment.model import read_lexicon


@pytest.mark.skipif(not DATA.exists(), reason=f"the labelled comments are not at {DATA}")
def test_the_table_is_right_more_often_than_the_lexicon_alone_on_comments_that_it_never_saw() -> None:
    labelled = [one for one in examples() if one.fold == REPORT_FOLD]
    both = on_labelled(default_model(), labelled)["all"]
    alone = on_labelled(SentimentModel(read_lexicon()), labelled)["all"]
    assert both["accuracy"] >= 0.92
    assert alone["accuracy"] <= 0.86
    assert both["accuracy_at_coverage"] >= 0.955
    assert both["coverage"] >= 0.65


def test_on_hand_written_live_commerce_a_negative_is_nearly_always_one() -> None:
    figures = on_hand_written(default_model())
    assert figures["n"] == 300
    assert figures["by_kind"]["negative"]["precision"] >= 0.9
    assert figures["by_kind"]["negative"]["recall"] >= 0.7
    assert figures["macro_f1"] >= 0.8


@pytest.mark.skipif(not CHATTER.exists(), reason=f"the recorded rooms are not at {CHATTER}")
def test_the_model_mostly_abstains_on_entertainment_chatter() -> None:
    assert on_chatter(default_model(), recorded())["none"] >= 0.8
