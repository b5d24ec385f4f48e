"""Collections of the worker's process do not look twice at what stays, and still find new cycles."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc, weakref
from agents.garbage import bound_pauses

class Node:
    pass

bound_pauses()
kept = [[number] for number in range(200_000)]
gc.collect()
assert sum(len(gc.get_objects(generation)) for generation in range(3)) < 1_000
assert gc.get_freeze_count() > len(kept)
node = Node()
node.itself = node
seen = weakref.ref(node)
del node
gc.collect()
assert seen() is None
del kept[:]
print("ok")
"""


def test_what_stays_is_looked_at_once_and_a_new_cycle_is_found() -> None:
    said = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (said.stdout, said.returncode) == ("ok\n", 0), said.stderr
