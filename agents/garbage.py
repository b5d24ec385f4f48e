"""Python's collector of reference cycles, kept from stopping a worker for as long as its state is large.

What an engine holds has no cycles: it goes when nobody refers to it any more. The collector looks through it all the
same. With 20,000 rooms (1.4 million objects) a full collection takes 0.85 s with Python's own settings, and comes
again with every quarter that is added; a restore of these rooms spends 1.5 of 2.6 s on it.

So what has lived through a full collection is left out of all later ones. Each then looks at what was made since the
last: on the same load 41 ms at most (73 ms while rooms open, 39 ms in a restore), however many rooms there are.
Measured as processor time of collections in one process, with `gc.callbacks` around `Engine.process` of 200,000 events
of `benchmarks.workloads.Workload(20_000)`. All collections together cost about 5 us an event, no more than before.

The price: a cycle that is dropped only after a full collection has kept it is never freed.
"""

from __future__ import annotations

import gc
from typing import Any, Final

THRESHOLDS: Final = (2_000, 10, 3)
"""Objects made, less those gone, before a collection of the youngest; then each 10th and 30th looks further back."""


def bound_pauses() -> None:
    """Let no collection of this process look again at what one has kept before."""
    if _leave_out not in gc.callbacks:
        gc.callbacks.append(_leave_out)
    gc.set_threshold(*THRESHOLDS)
    gc.collect()


def _leave_out(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()
