"""Read a term list of this package, and find its terms in a text."""

from collections.abc import Mapping
from importlib.resources import files
from string import ascii_lowercase, digits
from typing import Any, Final, Generic, TypeVar

Payload = TypeVar("Payload")

_LETTERS: Final = frozenset(ascii_lowercase)
_DIGITS: Final = frozenset(digits)
_BEFORE: Final = dict.fromkeys(_LETTERS, _LETTERS | _DIGITS | {"'"}) | dict.fromkeys(_DIGITS, _DIGITS | {"."})
"""What may not stand before a term that begins so: it would begin inside a word or a number."""
_AFTER: Final = dict.fromkeys(_LETTERS, _LETTERS) | dict.fromkeys(_DIGITS, _LETTERS | _DIGITS)
"""What may not stand after a term that ends so."""


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

    The terms are a tree of dictionaries, one level a character: most places of a text are left after one lookup or
    two, and nothing is read twice but the few characters beyond a term that a longer one shares. A regular expression
    of two thousand alternatives takes twice as long. A Latin word or a number only matches whole; Chinese is written
    without spaces and matches anywhere.
    """

    def __init__(self, terms: Mapping[str, Payload]) -> None:
        """Take normalised `terms`, none of them empty, with what hangs on each."""
        tree: dict[str, Any] = {}
        for term, payload in terms.items():
            level = tree
            for char in term:
                node = level.setdefault(char, {})
                level = node.setdefault("more", {})
            node["found"] = payload
        self._roots = {
            char: (*node, _BEFORE.get(char)) for char, node in ((char, _frozen(char, tree[char])) for char in tree)
        }

    def find(self, text: str) -> list[tuple[Payload, int, int]]:
        """Return payload, start and end of every term found; terms do not overlap."""
        found: list[tuple[Payload, int, int]] = []
        roots = self._roots
        free = 0  # where the last term found ends
        padded = text + "\n"  # stands in no term, so that looking one further needs no test
        for at, char in enumerate(text):
            if char not in roots or at < free:
                continue
            payload, longer, after, before = roots[char]
            end = ahead = at + 1
            if before is not None:
                if at and text[at - 1] in before:
                    continue
                if after is not None and padded[end] in after:
                    payload = None
            while longer is not None:
                following = padded[ahead]
                if following not in longer:
                    break
                ahead += 1
                here, longer, after = longer[following]
                if here is not None and (after is None or padded[ahead] not in after):
                    payload, end = here, ahead
            if payload is not None:
                found.append((payload, at, end))
                free = end
        return found


def _frozen(char: str, node: dict[str, Any]) -> tuple[Any, dict[str, Any] | None, frozenset[str] | None]:
    """Return a node as `find` reads it: what hangs on the term that ends here, what follows, what may not."""
    longer = {following: _frozen(following, inner) for following, inner in node["more"].items()}
    return node.get("found"), longer or None, _AFTER.get(char)
