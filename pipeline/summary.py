"""What a log came to: counts, versions, each room's session at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.context import Context
from pipeline.emit import View
from pipeline.room import RoomState
from pipeline.snapshot import dump_hot, load_room


def summarise(rooms: Mapping[str, RoomState], ctx: Context, end_ms: int, engine_version: int) -> dict[str, Any]:
    """Return `summary.json` without its times, as of an evaluation at `end_ms`; looking changes nothing."""
    star = ctx.star
    sessions: dict[str, dict[str, Any]] = {}
    rejects = dict(star.rejects)
    for room in rooms.values():
        for reason, n in room.rejects.items():
            rejects[reason] = rejects.get(reason, 0) + n
    for room_id in sorted(rooms):
        room = load_room(dump_hot(rooms[room_id]))  # a copy
        at_ms = max(end_ms, room.evaluated_ms)
        room.fold(at_ms)
        sessions[room_id] = {
            "session": View(room, at_ms, ctx).session_metrics(),
            "n_anomalies": {name: room.n_anomalies.get(name, 0) for name in ("S1", "S2", "S3", "S4")},
            "n_commands": dict(sorted(room.n_commands.items())),
        }
        if room.n_shed:
            sessions[room_id]["n_shed"] = room.n_shed
    return {
        "n_records": star.n_records,
        "n_events": star.n_events + sum(room.n_events for room in rooms.values()),
        "n_duplicates": star.n_duplicates + sum(room.n_duplicates for room in rooms.values()),
        "n_rejects": sum(rejects.values()),
        "n_late": star.n_late + sum(room.n_late for room in rooms.values()),
        "n_shed": sum(room.n_shed for room in rooms.values()),
        "rejects": dict(sorted(rejects.items())),
        "versions": {"engine": engine_version, "policy": ctx.policy_version},
        "rooms": sessions,
    }
