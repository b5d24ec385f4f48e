"""Read a term list of this package, and find its terms in a text."""

from collections import defaultdict
from collections.abc import Mapping
from importlib.resources import files
from string import ascii_lowercase, digits
from typing import Final, Generic, TypeVar

Payload = TypeVar("Payload")

_LETTERS: Final = frozenset(ascii_lowercase)
_DIGITS: Final = frozenset(digits)
_WORD: Final = _LETTERS | _DIGITS


def read_table(name: str, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the rows of the tab-separated file ``name`` beside this module, without the header.

    Raises
    ------
    ValueError
        The header is not ``columns``, or a row has another number of cells.
    """
    lines = files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()
    header = tuple(lines[0].split("\t")) if lines else ()
    if header != columns:
        raise ValueError(f"{name}: the first line must be the columns {columns}, got {header}; restore the header")
    rows = [tuple(line.split("\t")) for line in lines[1:]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(columns):
            raise ValueError(f"{name} line {number} must have {len(columns)} cells, got {row!r}; separate by tabs")
    return rows


class TermIndex(Generic[Payload]):
    """Find, from left to right, the longest terms of a normalised text and what hangs on each.

    Lookups go by first character and then by the few lengths that its terms have: a slice and a dictionary answer
    faster than one regular expression of two thousand alternatives, and never backtrack. A Latin word or a number
    only matches whole; Chinese is written without spaces and matches anywhere.
    """

    def __init__(self, terms: Mapping[str, Payload]) -> None:
        self._terms = dict(terms)
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for term in terms:
            lengths[term[0]].add(len(term))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def find(self, text: str) -> list[tuple[Payload, int, int]]:
        """Return payload, start and end of every term found; terms do not overlap."""
        found: list[tuple[Payload, int, int]] = []
        lengths, terms = self._lengths, self._terms
        start, size = 0, len(text)
        while start < size:
            first = text[start]
            if first in lengths and (first not in _WORD or start == 0 or not _joined(text[start - 1], first)):
                for length in lengths[first]:
                    end = start + length
                    term = text[start:end]
                    if term in terms and (end >= size or term[-1] not in _WORD or not _joined(term[-1], text[end])):
                        found.append((terms[term], start, end))
                        start = end - 1
                        break
            start += 1
        return found


def _joined(left: str, right: str) -> bool:
    """Tell whether two neighbours belong to one word or number, so that no term may begin or end between them."""
    if right in _LETTERS:
        return left in _WORD or left == "'"
    return right in _DIGITS and (left in _DIGITS or left == ".")
