"""Whom the invalid traffic of the last minutes came from: channel -> address block -> device, each with its share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from pipeline.identity import shown
from pipeline.quality.visits import MARKED, Visit

N_BLAMED: Final = 3
"""Names on each level."""
SMALLEST_SHARE: Final = 0.05
"""What explains less of its level is not worth blocking."""


def blame(log: Sequence[Visit], channels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the worst channels, each with its worst blocks, each with its worst devices.

    `share` is of all invalid visits in the log, `invalid` of the source's own visits: blocking a source with a small
    `invalid` shuts out honest people. Blocks and devices are tokens.
    """
    guilty = [visit for visit in log if visit.flags & MARKED]
    all_of = [Counter(visit.channel for visit in log), Counter(v.block for v in log), Counter(v.device for v in log)]

    def level(depth: int, visits: list[Visit]) -> list[dict[str, Any]]:
        name_of = ("channel", "block", "device")[depth]
        groups: dict[int, list[Visit]] = {}
        for visit in visits:
            groups.setdefault(getattr(visit, name_of), []).append(visit)
        rows = []
        for source, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:N_BLAMED]:
            share = len(members) / len(guilty)
            if share < SMALLEST_SHARE or (depth and not source):
                continue
            row: dict[str, Any] = {name_of: shown(source) if depth else channels[source], "share": round(share, 4)}
            row["invalid"] = round(len(members) / all_of[depth][source], 4)
            if depth < 2 and (below := level(depth + 1, members)):
                row["blocks" if depth == 0 else "devices"] = below
            rows.append(row)
        return rows

    return level(0, guilty)
