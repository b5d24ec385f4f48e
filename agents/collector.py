"""Python's cyclic garbage collector, told that rooms hold no cycles.

A room's state is made of structs, dictionaries and numbers that never refer back, and is freed by counting references
alone. The collector does not know that: by default it walks all of it again and again, which cost 9 us an event on
20,000 rooms and stops everything for as long as it takes. What does make cycles (futures, exceptions) is young when it
dies.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 100_000
"""New containers that wait for a look: some five seconds' futures and messages of a busy worker."""
OLDEST: Final = 1_000_000
"""Looks at the middle generation before one at everything: never, in practice."""


def spare_the_rooms() -> None:
    """Leave what is alive now out of every later collection, and look at the old hardly ever."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, OLDEST)
