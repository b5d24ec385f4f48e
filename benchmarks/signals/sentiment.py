"""How good and how fast the sentiment model is: `python -m benchmarks.signals.sentiment --json`.

Accuracy is told on the fold of the labelled comments that the shipped table never saw, and on comments of live
commerce that were written by hand for it (`live_commerce.tsv`), before the model was asked. Nothing was chosen on them.
`--samples 50` prints as many comments of each kind from the recorded rooms on this machine, which may not be copied.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, Final

from benchmarks.signals.train_sentiment import DATA, NON_COMMERCIAL, REPORT_FOLD, Example, examples
from pipeline.sentiment import OPINION_MILLI, Sentiment, SentimentModel, default_model

CHATTER: Final = Path("../shared/data/live_rooms/live_rooms.jsonl.gz")
HAND_WRITTEN: Final = Path(__file__).with_name("live_commerce.tsv")
KINDS: Final = ("positive", "negative", "none")
"""What the model answers; `none` is right for a hand-written neutral comment, question or spam."""
BATCH: Final = 2_000
ROUNDS: Final = 7
SEED: Final = 7
NEAR_MEAN: Final = 5
"""Characters by which a comment may differ from the mean length to be timed as one of it."""
SHORT_CHAT: Final = "xiaosi_conversation_manual"

AIMS: Final[dict[str, tuple[str, float, bool]]] = {
    "accuracy": ("held_out.all.accuracy", 0.935, True),
    "accuracy_of_short_chat": (f"held_out.{SHORT_CHAT}.accuracy", 0.92, True),
    "precision_of_negative": ("hand_written.by_kind.negative.precision", 0.9, True),
    "reviews_per_s_in_batches": ("speed.reviews.comments_per_s_in_batches", 50_000, True),
    "us_for_one_review": ("speed.reviews.us_for_one_of_mean_length", 40, False),
}
"""What the model is meant to reach: which figure, what value, and whether more is better."""


def kind_of(answer: Sentiment) -> str:
    """Return the kind that an answer stands for.

    >>> kind_of(Sentiment(-900, 900)), kind_of(Sentiment(-900, 499))
    ('negative', 'none')
    """
    if answer.confidence_milli < OPINION_MILLI:
        return "none"
    return "positive" if answer.score_milli > 0 else "negative"


def share(part: int, whole: int) -> float | None:
    """Return a rounded share; None of nothing."""
    return round(part / whole, 4) if whole else None


def standard_error(part: int, whole: int) -> float | None:
    """Return by how much a share of so many would vary from one sample to the next; None of nothing.

    >>> standard_error(90, 100)
    0.03
    """
    return round(math.sqrt(part * (whole - part) / whole**3), 4) if whole else None


def on_labelled(model: SentimentModel, labelled: Sequence[Example]) -> dict[str, Any]:
    """Return accuracy by source: of the sign (0 is wrong), and of the opinions alone with the share that has one."""
    groups: defaultdict[str, list[tuple[bool, bool]]] = defaultdict(list)
    answers = model.scores([one.norm for one in labelled])
    for one, (score, confidence) in zip(labelled, answers, strict=True):
        outcome = (score > 0 if one.is_for else score < 0, confidence >= OPINION_MILLI)
        for name in (one.source, "all", *(() if one.source == NON_COMMERCIAL else ("all_trained_sources",))):
            groups[name].append(outcome)
    return {
        name: {
            "n": len(outcomes),
            "accuracy": share(sum(right for right, _ in outcomes), len(outcomes)),
            "coverage": share(sum(sure for _, sure in outcomes), len(outcomes)),
            "accuracy_at_coverage": share(
                sum(right and sure for right, sure in outcomes), sum(sure for _, sure in outcomes)
            ),
            "standard_error": standard_error(sum(right for right, _ in outcomes), len(outcomes)),
        }
        for name, outcomes in sorted(groups.items())
    }


def on_hand_written(model: SentimentModel) -> dict[str, Any]:
    """Return the figures of the three kinds on the hand-written comments, and what each label was answered with."""
    with HAND_WRITTEN.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    answers = [kind_of(answer) for answer in model.scores([row["text"] for row in rows])]
    pairs = [
        (row["label"] if row["label"] in KINDS else "none", answer) for row, answer in zip(rows, answers, strict=True)
    ]
    by_kind = {kind: _precision(pairs, kind) for kind in KINDS}
    confusion: dict[str, dict[str, int]] = {}
    for row, answer in zip(rows, answers, strict=True):
        confusion.setdefault(row["label"], dict.fromkeys(KINDS, 0))[answer] += 1
    return {
        "n": len(rows),
        "macro_f1": round(sum(figures["f1"] or 0.0 for figures in by_kind.values()) / len(KINDS), 4),
        "by_kind": by_kind,
        "answers_by_label": confusion,
        "by_language": {
            language: share(
                sum(pair[0] == pair[1] for pair, row in zip(pairs, rows, strict=True) if row["language"] == language),
                sum(row["language"] == language for row in rows),
            )
            for language in sorted({row["language"] for row in rows})
        },
    }


def _precision(pairs: Iterable[tuple[str, str]], kind: str) -> dict[str, float | None]:
    counts = Counter((truth == kind, answer == kind) for truth, answer in pairs)
    right, said, there = counts[True, True], counts[True, True] + counts[False, True], counts[True, True]
    there += counts[True, False]
    return {"precision": share(right, said), "recall": share(right, there), "f1": share(2 * right, said + there)}


def recorded() -> list[str]:
    """Return the comments of the recorded rooms, in order."""
    with gzip.open(CHATTER, "rt", encoding="utf-8") as file:
        return [event["text"] for event in map(json.loads, file) if event["type"] == "comment"]


def on_chatter(model: SentimentModel, texts: Sequence[str]) -> dict[str, Any]:
    """Return how comments of entertainment rooms divide, which nobody has labelled: nearly all is chatter."""
    kinds = Counter(kind_of(answer) for answer in model.scores(texts))
    return {"n": len(texts)} | {kind: share(kinds[kind], len(texts)) for kind in KINDS}


def speed(model: SentimentModel, texts: Sequence[str]) -> dict[str, float]:
    """Return comments a second in batches, and microseconds of one comment asked alone: medians of processor time.

    `us_for_one` is the mean over comments of every length, `us_for_one_of_mean_length` over those of about the mean.
    """
    mean = sum(map(len, texts)) / len(texts)
    groups = {
        "us_for_one": texts[:BATCH],
        "us_for_one_of_mean_length": [text for text in texts if abs(len(text) - mean) <= NEAR_MEAN][:BATCH],
    }
    batches: list[float] = []
    alone: dict[str, list[float]] = {name: [] for name in groups}
    for _ in range(ROUNDS):
        began = process_time()
        for at in range(0, len(texts), BATCH):
            model.scores(texts[at : at + BATCH])
        batches.append(process_time() - began)
        for name, group in groups.items():
            began = process_time()
            for text in group:
                model.score(text)
            alone[name].append((process_time() - began) / max(1, len(group)))
    return {
        "characters_mean": round(mean, 1),
        "comments_per_s_in_batches": round(len(texts) / median(batches)),
        **{name: round(median(times) * 1e6, 1) for name, times in alone.items()},
    }


def against_aims(found: dict[str, Any]) -> dict[str, Any]:
    """Return each aim with what was measured; None where this machine could not measure it.

    >>> against_aims({"held_out": {"all": {"accuracy": 0.94}}})["accuracy"]
    {'aim': 0.935, 'measured': 0.94, 'is_met': True}
    """
    compared: dict[str, Any] = {}
    for name, (path, aim, more_is_better) in AIMS.items():
        value: Any = found
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        is_met = None if value is None else bool(value >= aim if more_is_better else value <= aim)
        compared[name] = {"aim": aim, "measured": value, "is_met": is_met}
    return compared


def figures() -> dict[str, Any]:
    """Return everything that this machine can measure; what rests on data that is not here is None."""
    model = default_model()
    found: dict[str, Any] = {"hand_written": on_hand_written(model), "held_out": None, "chatter": None, "speed": {}}
    if DATA.exists():
        labelled = [one for one in examples() if one.fold == REPORT_FOLD]
        found["held_out"] = on_labelled(model, labelled)
        found["speed"]["reviews"] = speed(model, [one.norm for one in labelled])
    if CHATTER.exists():
        texts = recorded()
        found["chatter"] = on_chatter(model, texts)
        found["speed"]["chatter"] = speed(model, texts[:20_000])
    return found | {"aims": against_aims(found)}


def print_samples(n: int) -> None:
    """Print `n` comments of each kind from the recorded rooms, drawn by a fixed seed among different texts."""
    texts = sorted(set(recorded()))
    by_kind: defaultdict[str, list[str]] = defaultdict(list)
    for text, answer in zip(texts, default_model().scores(texts), strict=True):
        by_kind[kind_of(answer)].append(text)
    for kind in KINDS:
        print(f"# {kind}: {len(by_kind[kind])} of {len(texts)} different texts")
        for text in random.Random(SEED).sample(by_kind[kind], min(n, len(by_kind[kind]))):
            print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the sentiment model.")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of an indented one")
    parser.add_argument("--samples", type=int, default=0, help="print so many recorded comments of each kind instead")
    arguments = parser.parse_args()
    if arguments.samples:
        if not CHATTER.exists():
            sys.exit(f"the recorded rooms must be at {CHATTER}, got no such file")
        print_samples(arguments.samples)
        return
    print(json.dumps(figures(), indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
