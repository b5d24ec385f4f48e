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

PLAIN_CHARACTERS: Final = 6
"""Up to here one number after another is faster than arrays, which take the same time for any short text."""

# Arrays without a dimension: numpy multiplies a short array by one of them in two thirds of the time of a scalar.
_CODE: Final = np.array(0x9E3779B1, np.uint32)
_STEP: Final = np.array(0x85EBCA6B, np.uint32)
_FINISH: Final = np.array(0xC2B2AE35, np.uint32)
_BASE_SHIFT: Final = np.array(32 - BASE_BITS, np.uint32)
_MORE_SHIFT: Final = np.array(BASE_BITS - ROLE_BITS, np.uint32)
_FIRST_AT: Final = np.array(1 << BASE_BITS, np.uint32)
_ROLE_SIZE: Final = np.array(1 << ROLE_BITS, np.uint32)
_CODE_INT, _STEP_INT, _FINISH_INT = int(_CODE), int(_STEP), int(_FINISH)
_BASE_SHIFT_INT: Final = 32 - BASE_BITS
_MORE_BASE: Final = BASE_BITS - ROLE_BITS  # bits that a slot of the base table has beyond one of a clause's
_ALL: Final = 0xFFFFFFFF
_STOPS: Final = ",.!?;:~。、… "  # what ends a clause; a normalised text has no other white space
_first_clause: Final = re.compile(r"[^,.!?;:~。、… ]+").search
_up_to_last_stop: Final = re.compile(r".*[,.!?;:~。、… ]", re.DOTALL).match
_one_clause: Final = re.compile(r"[,.!?;:~。、… ]*([^,.!?;:~。、… ]+)[,.!?;:~。、… ]*").fullmatch
_sum: Final = np.add.reduce

# By code, what stands in no clause; codes beyond the table are read as its last one, which does.
_IS_OUTSIDE: Final = np.zeros(max(map(ord, _STOPS)) + 2, np.bool_)
_IS_OUTSIDE[[ord(char) for char in _STOPS + EDGE]] = True

Hashes = tuple[NDArray[np.uint32], ...]
"""For each order from 1: the hash of the n-gram that starts at each character, edges included."""


class Weights(NamedTuple):
    """The tables, of int16: `base` for every n-gram, `first` and `last` for those of these clauses.

    `table` is the three of them, one after the other. The views are what plain Python reads a number from in half the
    time; that of `only` is of `first` and `last` added, for a clause that is both.
    """

    base: NDArray[np.int16]
    first: NDArray[np.int16]
    last: NDArray[np.int16]
    table: NDArray[np.int16]
    base_view: memoryview
    only_view: memoryview


def codes_of(text: str) -> NDArray[np.uint32]:
    """Return the code of each character, lone surrogates too."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def hashes(codes: NDArray[np.uint32]) -> Hashes:
    """Return the hashes of the n-grams of a text that has its edges, or of several that share theirs."""
    one = codes * _CODE
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
    before = _up_to_last_stop(last)
    return *found.span(), before.end() if before else 0, len(last)


def of_text(norm: str) -> NDArray[np.uint32]:
    """Return where in `Weights.table` the n-grams of a normalised text stand: all, its first clause's, its last one's.

    Where there is one clause it is both.
    """
    norm = norm[:MAX_CHARACTERS]
    one, two, three, four = hashes(codes_of(f"{EDGE}{norm}{EDGE}"))
    inner = one[1:-1]  # the edges alone say nothing
    ends = ends_of_clauses(norm)
    if ends is None:
        slots = np.concatenate((inner, two, three, four))
        slots *= _FINISH
        slots >>= _BASE_SHIFT
        return slots
    first, first_end, last, last_end = ends
    slots = np.concatenate((
        inner, two, three, four,
        inner[first:first_end], two[first + 1 : first_end], three[first + 1 : first_end - 1],
        inner[last:last_end], two[last + 1 : last_end], three[last + 1 : last_end - 1],
    ))  # fmt: skip
    slots *= _FINISH
    slots >>= _BASE_SHIFT
    size = last_end - last
    n_last = size + max(0, size - 1) + max(0, size - 2)
    n_base = len(inner) + len(two) + len(three) + len(four)
    roles = slots[n_base:]
    roles >>= _MORE_SHIFT
    roles += _FIRST_AT
    lasts = slots[len(slots) - n_last :]
    lasts += _ROLE_SIZE
    return slots


def weigh_one(norm: str, weights: Weights) -> tuple[int, int]:
    """Return the sum of the weights of one normalised text, for (above 0) or against, and how many were added."""
    if len(norm) <= PLAIN_CHARACTERS and (clause := _one_clause(norm)):
        return _weigh_plainly(norm, *clause.span(1), weights)
    slots = of_text(norm)
    return int(_sum(weights.table.take(slots), dtype=np.int64)), len(slots)


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


def _clauses(
    codes: NDArray[np.uint32], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return where the first and the last clause of each text begin and end; both at one place where it has none.

    `codes` are those of texts that share their edges, which stand at `start` and `stop`.
    """
    is_outside = _IS_OUTSIDE.take(codes, mode="clip")
    # An edge is outside, so that what changes is the beginning of a clause and its end, in turn.
    turns = np.flatnonzero(is_outside[1:] != is_outside[:-1]) + 1
    begins, ends = np.append(turns[0::2], len(codes)), np.append(turns[1::2], len(codes))
    first, after = np.searchsorted(begins, start), np.searchsorted(begins, stop)
    has_any = first < after
    return (
        (np.where(has_any, begins[first], stop), np.where(has_any, ends[first], stop)),
        (np.where(has_any, begins[after - 1], stop), np.where(has_any, ends[after - 1], stop)),
    )


def weigh_many(norms: Sequence[str], weights: Weights) -> list[tuple[int, int]]:
    """Return what `weigh_one` returns of each of many normalised texts, at a fraction of the cost."""
    if not norms:
        return []
    norms = [norm[:MAX_CHARACTERS] for norm in norms]
    lengths = np.fromiter(map(len, norms), np.int64, len(norms))
    stop = np.cumsum(lengths + 1)  # where the edge after each text stands
    start = stop - lengths - 1
    codes = codes_of(f"{EDGE}{EDGE.join(norms)}{EDGE}")
    base_slots = [each * _FINISH >> _BASE_SHIFT for each in hashes(codes)]
    role_slots = [each >> _MORE_SHIFT for each in base_slots[:ROLE_ORDER]]
    first, last = _clauses(codes, start, stop)
    total = _sums(weights.base, base_slots, start, stop, 1)
    total += _sums(weights.first, role_slots, *first, 0)
    total += _sums(weights.last, role_slots, *last, 0)
    count = 3 * lengths + 1 + np.maximum(lengths - 1, 0)
    for low, high in (first, last):
        size = high - low
        count += size + np.maximum(size - 1, 0) + np.maximum(size - 2, 0)
    return list(zip(total.tolist(), count.tolist(), strict=True))


def _sums(
    table: NDArray[np.int16],
    slots: list[NDArray[np.uint32]],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    reach: int,
) -> NDArray[np.int64]:
    """Return what the n-grams of each span weigh that begin from `low` on and end before `high`, or `reach` beyond it.

    `slots` are those of each order from 1, which begin at each character and edge; edges alone count nothing.
    """
    n_places = len(slots[0])
    here = np.zeros(n_places, np.int32)
    values = np.empty(n_places, np.int16)
    for order, each in enumerate(slots, start=1):
        size = len(each)
        table.take(each, mode="clip", out=values[:size])
        values[size:] = 0
        # Those that begin in the span and end after it. A span shorter than that has no n-gram of this order, and the
        # places before it are in no span, or at the end of the one before.
        for beyond in range(1, order - reach):
            values[high - beyond] = 0
        if order == 1 and reach:
            values[low] = 0
        np.add(here, values, out=here)
    sums = np.zeros(n_places + 1, np.int64)
    np.cumsum(here, dtype=np.int64, out=sums[1:])
    return np.asarray(sums[high] - sums[low], np.int64)


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
    return Weights(table[:base], first, last, table, _view(table[:base]), _view(first + last))


def _view(table: NDArray[np.int16]) -> memoryview:
    return memoryview(table)  # type: ignore[arg-type]  # numpy's stubs do not say that arrays are buffers
