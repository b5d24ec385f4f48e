"""How much a test tries: enough to notice in `make test`, and all of it in `make test-long`."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

QUICK: Final = 40
LONG: Final = 100
"""Examples of a property that names no number; Hypothesis' own default. `--hypothesis-profile=long` takes them."""


def effort(n: int) -> int:
    """Return how many of the `n` examples, records or seeds of the long profile are tried in this one.

    >>> effort(LONG) in (QUICK, LONG)
    True
    """
    return max(1, n * settings().max_examples // LONG)
