"""Train the table of the sentiment model from labelled comments: `make train-sentiment`.

Two logistic regressions over hashed n-grams of one to four characters, averaged: one scales an n-gram by how rare it
is (TF-IDF), the other by its log-count ratio between the classes (NB-SVM, Wang and Manning 2012). The average becomes
integers of two bytes. numpy and scipy are enough, and nothing is drawn by chance. The last bit of a float sum may
differ from one processor to the next, so the committed file's checksum is that of the machine that made it.

A comment belongs to a fold by the hash of its normalised text, so that no text is on two sides. The report fold is
never trained on; what was chosen (scales, penalties, thresholds) was chosen on the folds of `CHOOSING_FOLDS`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from pipeline.sentiment.grams import BASE_BITS, ROLE_BITS, WEIGHTS_FILE, Weights, of_text, unpacked
from pipeline.sentiment.normalise import normalise

DATA: Final = Path("../shared/data/sentiment/train.csv.gz")
PACKAGE: Final = Path("pipeline/sentiment")
N_FOLDS: Final = 10
REPORT_FOLD: Final = 9
CHOOSING_FOLDS: Final = (0, 1)
NON_COMMERCIAL: Final = "twitch_emote_controlled"
"""The English source: its licence forbids commercial use, so the shipped table knows nothing of it."""

MIN_COMMENTS: Final = 2  # an n-gram that one comment alone has says nothing about others
ITERATIONS: Final = 120
MAX_WEIGHT: Final = 16_383  # two of them added fit two bytes: the first clause and the last may be one
LARGE_WEIGHT: Final = 2_032
LARGE_SHARE: Final = 0.0002
"""This share of the weights lies beyond `LARGE_WEIGHT`: units fine enough that rounding costs no answer. Bytes instead
of two cost 0.14 points of accuracy on the choosing folds."""


class Example(NamedTuple):
    """One labelled comment, normalised."""

    norm: str
    is_for: bool
    source: str
    fold: int


class Recipe(NamedTuple):
    """One regression: how it scales n-grams, its penalty's inverse, what the clauses' own tables weigh beside."""

    scale: str
    inverse_penalty: float
    role_scale: float


RECIPES: Final = (Recipe("ratio", 6.0, 0.5), Recipe("rarity", 10.0, 0.6))


def fold_of(norm: str) -> int:
    """Return the fold of a normalised text, 0 to 9.

    >>> fold_of("好") == fold_of(normalise(" 好 ")) < N_FOLDS
    True
    """
    return int.from_bytes(hashlib.blake2b(norm.encode(), digest_size=8).digest(), "big") % N_FOLDS


def examples(path: Path = DATA) -> Iterator[Example]:
    """Yield the labelled comments of a file of `text,label,source`."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            norm = normalise(row["text"])
            yield Example(norm, row["label"] == "1", row["source"], fold_of(norm))


def matrix(norms: Iterable[str]) -> Any:
    """Return how often each slot occurs in each text: texts x slots, the tables side by side."""
    columns, ends = [], [0]
    for norm in norms:
        columns.append(of_text(norm).astype(np.int32))
        ends.append(ends[-1] + len(columns[-1]))
    values = np.ones(ends[-1], np.float32)
    shape = len(columns), (1 << BASE_BITS) + 2 * (1 << ROLE_BITS)
    counts = sparse.csr_matrix((values, np.concatenate(columns), np.array(ends)), shape=shape)
    counts.sum_duplicates()
    return counts


def _scales(counts: Any, is_for: NDArray[np.float64], recipe: Recipe) -> NDArray[np.float32]:
    seen = counts.copy()
    seen.data[:] = 1
    n_comments = np.asarray(seen.sum(axis=0)).ravel()
    rarity = np.log((1 + len(is_for)) / (1 + n_comments)) + 1
    if recipe.scale == "rarity":
        scales = rarity
    else:
        n_for = seen.T @ is_for + 1
        n_against = n_comments + 2 - n_for
        ratio = np.log(n_for / n_for.sum()) - np.log(n_against / n_against.sum())
        scales = np.sqrt(rarity) * (np.minimum(np.abs(ratio), 4) + 0.1)
    scales = scales * (n_comments >= MIN_COMMENTS)
    scales[1 << BASE_BITS :] *= recipe.role_scale
    return np.asarray(scales, np.float32)


def _lengths(counts: Any) -> NDArray[np.float64]:
    squares = np.asarray(counts.multiply(counts).sum(axis=1), np.float64).ravel()
    return np.asarray(np.sqrt(squares) + 1e-9, np.float64)


def fit(counts: Any, is_for: NDArray[np.float64], recipe: Recipe) -> NDArray[np.float64]:
    """Return the weight of each slot's count: logistic regression without intercept on rows of length one."""
    scales = _scales(counts, is_for, recipe)
    used = np.flatnonzero(scales)
    rows = (counts @ sparse.diags(scales)).tocsr()
    rows = (sparse.diags((1 / _lengths(rows)).astype(np.float32)) @ rows).tocsr()[:, used]
    columns = rows.T.tocsr()
    side = 2 * is_for - 1

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = side * (rows @ weights.astype(np.float32)).astype(np.float64)
        pull = (side / (1 + np.exp(margin))).astype(np.float32)
        value = recipe.inverse_penalty * np.logaddexp(0, -margin).sum() + 0.5 * weights @ weights
        return float(value), weights - recipe.inverse_penalty * (columns @ pull).astype(np.float64)

    found = optimize.minimize(
        loss, np.zeros(len(used)), jac=True, method="L-BFGS-B",
        options={"maxiter": ITERATIONS, "maxcor": 8, "ftol": 1e-6, "gtol": 1e-3},
    )  # fmt: skip
    weights = np.zeros(len(scales))
    weights[used] = found.x * scales[used]
    return weights


def train(known: list[Example]) -> bytes:
    """Return the tables that the labelled comments teach, as `pipeline.sentiment.grams.unpacked` reads them."""
    counts = matrix(one.norm for one in known)
    is_for = np.array([one.is_for for one in known], np.float64)
    n_grams = np.sqrt(np.asarray(counts.sum(axis=1)).ravel())
    total = np.zeros(counts.shape[1])
    for recipe in RECIPES:
        weights = fit(counts, is_for, recipe)
        total += weights / np.std((counts @ weights) / n_grams)
    large = np.quantile(np.abs(total[total != 0]), 1 - LARGE_SHARE)
    weights = np.clip(np.rint(total * (LARGE_WEIGHT / large)), -MAX_WEIGHT, MAX_WEIGHT)
    return bytes(weights.astype("<i2").tobytes())


def trained(path: Path, *, without: tuple[int, ...] = (REPORT_FOLD,)) -> Weights:
    """Return tables taught by the file's comments, but those of some folds and of the non-commercial source."""
    return unpacked(train([one for one in examples(path) if one.fold not in without and one.source != NON_COMMERCIAL]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the sentiment model's table and write it to the package.")
    parser.add_argument("--data", type=Path, default=DATA, help="text,label,source as .csv.gz")
    parser.add_argument("--out", type=Path, default=PACKAGE / WEIGHTS_FILE)
    parser.add_argument("--without", default=str(REPORT_FOLD), help="folds that are left out, as 0,1,9")
    arguments = parser.parse_args()
    without = {int(fold) for fold in arguments.without.split(",")}
    known = [one for one in examples(arguments.data) if one.fold not in without and one.source != NON_COMMERCIAL]
    data = train(known)
    packed = zlib.compress(data, 9)
    arguments.out.write_bytes(packed)
    n_used = int(np.count_nonzero(np.frombuffer(data, "<i2")))
    print(f"{arguments.out}: {len(known)} comments, {n_used} weights, {len(packed)} bytes")
    print(f"WEIGHTS_SHA256: Final = {hashlib.sha256(data).hexdigest()!r}")


if __name__ == "__main__":
    main()
