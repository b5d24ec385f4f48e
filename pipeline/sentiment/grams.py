"""Look up what every run of one to four characters of a comment says: a linear model in a table of small integers.

Each n-gram is hashed to a slot whose weight was learnt (`benchmarks.signals.train_sentiment`). N-grams of the first and
of the last clause count a second time, by tables of their own: reviews begin and end with their verdict. Weights and
sums are integers, so that one comment and a batch, and every machine, agree to the bit.
"""

import hashlib
import re
import zlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

WEIGHTS_FILE: Final = "grams.bin.z"
WEIGHTS_SHA256: Final = "38e10d57a3b6a091f887d72913b53c317a00b04dfbc8d9537408aff65e311c9e"
"""Of the tables in the committed file; `make train-sentiment` makes both."""

MAX_ORDER: Final = 4
ROLE_ORDER: Final = 3
"""The longest n-gram that counts again in the first or last clause; four characters there are too rare to learn."""
BASE_BITS: Final = 22
ROLE_BITS: Final = 20
EDGE: Final = "\x02"
"""Stands at both ends of a text, so that an n-gram can say "at the start"; `normalise` leaves none inside."""
MAX_CHARACTERS: Final = 2_048
"""Characters that are read of a text; the wire allows 2,000."""

PLAIN_CHARACTERS: Final = 12
"""Up to here one number after another is faster than arrays, which take the same time for any short text."""

_CODE: Final = np.uint32(0x9E3779B1)
_STEP: Final = np.uint32(0x85EBCA6B)
_FINISH: Final = np.uint32(0xC2B2AE35)
_BASE_SHIFT: Final = np.uint32(32 - BASE_BITS)
_ROLE_SHIFT: Final = np.uint32(32 - ROLE_BITS)
_CODE_INT, _STEP_INT, _FINISH_INT = int(_CODE), int(_STEP), int(_FINISH)
_BASE_SHIFT_INT: Final = 32 - BASE_BITS
_MORE_BASE: Final = BASE_BITS - ROLE_BITS  # bits that a slot of the base table has beyond one of a clause's
_ALL: Final = 0xFFFFFFFF
_STOPS: Final = ",.!?;:~。、… "  # what ends a clause; a normalised text has no other white space
_first_clause: Final = re.compile(r"[^,.!?;:~。、… ]+").search
_one_clause: Final = re.compile(r"[,.!?;:~。、… ]*([^,.!?;:~。、… ]+)[,.!?;:~。、… ]*").fullmatch
_sum: Final = np.add.reduce

Hashes = tuple[NDArray[np.uint32], ...]
"""For each order from 1: the hash of the n-gram that starts at each character, edges included."""


class Weights(NamedTuple):
    """The tables: `base` for every n-gram, `first` and `last` for those of these clauses, `only` for both in one.

    Arrays of int16, and the views that plain Python reads a number from in half the time.
    """

    base: NDArray[np.int16]
    first: NDArray[np.int16]
    last: NDArray[np.int16]
    only: NDArray[np.int16]
    base_view: memoryview
    only_view: memoryview


def hashes(text: str) -> Hashes:
    """Return the hashes of the n-grams of a text that has its edges, or of several that share theirs."""
    one = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32) * _CODE
    two = one[:-1] * _STEP
    two ^= one[1:]
    three = two[:-1] * _STEP
    three ^= one[2:]
    four = three[:-1] * _STEP
    four ^= one[3:]
    return one, two, three, four


def ends_of_clauses(norm: str) -> tuple[int, int, int, int] | None:
    """Return start and end of the first and of the last clause of a normalised text; None where it has none."""
    found = _first_clause(norm)
    if found is None:
        return None
    last = norm.rstrip(_STOPS)
    return *found.span(), max(map(last.rfind, _STOPS)) + 1, len(last)


def base_slots(found: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the slots of hashes in the table of all n-grams."""
    return found * _FINISH >> _BASE_SHIFT


def role_slots(found: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the slots of hashes in the tables of the first and the last clause."""
    return found * _FINISH >> _ROLE_SHIFT


def of_clause(found: Hashes, start: int, end: int) -> NDArray[np.uint32]:
    """Return the slots of a clause's own n-grams; `start` and `end` count from the text's first edge."""
    one, two, three, _ = found
    size = end - start
    if size == 1:
        return role_slots(one[start:end])
    if size == 2:
        return role_slots(np.concatenate((one[start:end], two[start : end - 1])))
    return role_slots(np.concatenate((one[start:end], two[start : end - 1], three[start : end - 2])))


def of_text(norm: str) -> tuple[NDArray[np.uint32], NDArray[np.uint32] | None, NDArray[np.uint32] | None]:
    """Return the slots of a normalised text: of all its n-grams, of its first clause's and of its last one's.

    Where there is one clause it is both, and the two arrays are one object.
    """
    norm = norm[:MAX_CHARACTERS]
    found = hashes(f"{EDGE}{norm}{EDGE}")
    one, two, three, four = found
    # The edges alone say nothing.
    base = base_slots(np.concatenate((one[1:-1], two, three, four)))
    ends = ends_of_clauses(norm)
    if ends is None:
        return base, None, None
    first_start, first_end, last_start, last_end = ends
    first = of_clause(found, first_start + 1, first_end + 1)
    if last_start == first_start:
        return base, first, first
    return base, first, of_clause(found, last_start + 1, last_end + 1)


def weigh_one(norm: str, weights: Weights) -> tuple[int, int]:
    """Return the sum of the weights of one normalised text, for (above 0) or against, and how many were added."""
    if len(norm) <= PLAIN_CHARACTERS and (clause := _one_clause(norm)):
        return _weigh_plainly(norm, *clause.span(1), weights)
    base, first, last = of_text(norm)
    total = int(_sum(weights.base.take(base), dtype=np.int64))
    if first is None or last is None:
        return total, len(base)
    if first is last:
        total += int(_sum(weights.only.take(first), dtype=np.int64))
    else:
        total += int(_sum(weights.first.take(first), dtype=np.int64))
        total += int(_sum(weights.last.take(last), dtype=np.int64))
    return total, len(base) + len(first) + len(last)


def _weigh_plainly(norm: str, start: int, end: int, weights: Weights) -> tuple[int, int]:
    """Return what `weigh_one` returns of a short text whose one clause stands at `start:end`, without an array."""
    base, only = weights.base_view, weights.only_view
    total = 0
    size = end - start
    one = ord(EDGE) * _CODE_INT & _ALL
    two = three = 0
    for at, code in enumerate(map(ord, norm + EDGE)):
        new = code * _CODE_INT & _ALL
        four = (three * _STEP_INT & _ALL) ^ new
        three = (two * _STEP_INT & _ALL) ^ new
        two = (one * _STEP_INT & _ALL) ^ new
        one = new
        place = at - start  # of this character in the clause
        slot = (two * _FINISH_INT & _ALL) >> _BASE_SHIFT_INT
        total += base[slot]
        if 0 < place < size:
            total += only[slot >> _MORE_BASE]
        if at > 0:
            slot = (three * _FINISH_INT & _ALL) >> _BASE_SHIFT_INT
            total += base[slot]
            if 1 < place < size:
                total += only[slot >> _MORE_BASE]
            if at > 1:
                total += base[(four * _FINISH_INT & _ALL) >> _BASE_SHIFT_INT]
        if at < len(norm):
            slot = (one * _FINISH_INT & _ALL) >> _BASE_SHIFT_INT
            total += base[slot]
            if 0 <= place < size:
                total += only[slot >> _MORE_BASE]
    length = len(norm)
    n_base = length + (length + 1) + length + max(0, length - 1)
    return total, n_base + 2 * (size + max(0, size - 1) + max(0, size - 2))


def weigh_many(norms: Sequence[str], weights: Weights) -> list[tuple[int, int]]:
    """Return what `weigh_one` returns of each of many normalised texts, at a fraction of the cost."""
    if not norms:
        return []
    norms = [norm[:MAX_CHARACTERS] for norm in norms]
    sizes = np.fromiter(map(len, norms), np.int64, len(norms)) + 1
    stop = np.cumsum(sizes)  # where the edge after each text stands
    start = stop - sizes
    spans = np.array([ends_of_clauses(norm) or (0, 0, 0, 0) for norm in norms], np.int64) + (start + 1)[:, None]
    found = hashes(f"{EDGE}{EDGE.join(norms)}{EDGE}")
    total, count = np.zeros(len(norms), np.int64), np.zeros(len(norms), np.int64)

    def add(values: NDArray[np.int16], low: NDArray[np.int64], high: NDArray[np.int64]) -> None:
        sums = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values, dtype=np.int64, out=sums[1:])
        low = np.minimum(low, len(values))  # the last text's clause may begin where no longer n-gram does
        high = np.maximum(low, high)
        np.add(total, sums[high] - sums[low], out=total)
        np.add(count, high - low, out=count)

    for order, each in enumerate(found, start=1):
        # An n-gram begins at its text's first edge (one character: after it) and ends at the last at the latest.
        low, high = (start + 1, stop) if order == 1 else (start, stop + 2 - order)
        add(weights.base.take(base_slots(each)), low, high)
        if order <= ROLE_ORDER:
            slots = role_slots(each)
            add(weights.first.take(slots), spans[:, 0], spans[:, 1] + 1 - order)
            add(weights.last.take(slots), spans[:, 2], spans[:, 3] + 1 - order)
    return list(zip(total.tolist(), count.tolist(), strict=True))


@cache
def read_weights() -> Weights:
    """Return the package's tables; ValueError says that the file is not the one that was trained."""
    data = zlib.decompress(files(__package__).joinpath(WEIGHTS_FILE).read_bytes())
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"{WEIGHTS_FILE} must have the SHA-256 {WEIGHTS_SHA256}, got {digest}; restore the file")
    return unpacked(data)


def unpacked(data: bytes) -> Weights:
    """Return the tables of a file's unpacked content: `base`, `first`, `last`, one after the other."""
    table = np.frombuffer(data, "<i2").astype(np.int16, copy=False)
    base, role = 1 << BASE_BITS, 1 << ROLE_BITS
    if len(table) != base + 2 * role:
        raise ValueError(f"{WEIGHTS_FILE} must hold {base + 2 * role} weights, got {len(table)}; restore the file")
    first, last = table[base : base + role], table[base + role :]
    only = first + last
    return Weights(table[:base], first, last, only, _view(table[:base]), _view(only))


def _view(table: NDArray[np.int16]) -> memoryview:
    return memoryview(table)  # type: ignore[arg-type]  # numpy's stubs do not say that arrays are buffers
