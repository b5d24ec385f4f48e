"""What happened in a replayed log: its busiest room-minutes, and what was flagged.

    roompulse replay log.jsonl.gz --out review && python examples/busiest_minutes.py review

Reads the folder's signals.jsonl and anomalies.jsonl, nothing else; prints two Markdown tables.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

N_ROWS = 10


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the messages of one file of the folder."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def at(ts: int) -> str:
    """Return a moment as people write it."""
    return datetime.fromtimestamp(ts / 1_000, UTC).strftime("%m-%d %H:%M:%S")


def busiest(signals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the emissions with the most comments in their last minute, each room once in ten minutes."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for message in signals:
        key = (message["room_id"], message["ts"] // 600_000)
        if key not in best or _comments(message) > _comments(best[key]):
            best[key] = message
    return sorted(best.values(), key=lambda m: (-_comments(m), m["ts"]))[:N_ROWS]


def _comments(message: dict[str, Any]) -> int:
    n: int = message["windows"]["60"].get("n_comments", 0)
    return n


def main() -> None:
    """Print both tables."""
    folder = Path(sys.argv[1])
    print("| minute ending (UTC) | room | online | comments | opinions | negative | quality | reasons |")
    print("|---|---|---:|---:|---:|---:|---:|---|")
    for message in busiest(lines(folder / "signals.jsonl")):
        m = message["windows"]["60"]
        cells = (
            m.get("n_online"),
            _comments(message),
            m.get("n_scored"),
            m.get("negative_ratio"),
            m.get("quality_score"),
        )
        shown = " | ".join("–" if cell is None else f"{cell:,}" for cell in cells)
        reasons = ", ".join(m.get("quality_reasons", []))
        print(f"| {at(message['ts'])} | {message['room_id']} | {shown} | {reasons} |")
    print("\n| opened (UTC) | room | severity | metric | observed | expected | cause |")
    print("|---|---|---|---|---:|---:|---|")
    for a in lines(folder / "anomalies.jsonl"):
        if a["status"] == "open" and a["metric"] != "freshness_s":
            print(
                f"| {at(a['ts'])} | {a['room_id']} | {a['severity']} | {a['metric']} "
                f"| {a['observed']:.3f} | {a['expected']:.3f} | {a['cause']} |"
            )


if __name__ == "__main__":
    main()
