"""What a log came to: counts, versions, each room's session at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.context import Context
from pipeline.emit import View
from pipeline.room import RoomState
from pipeline.snapshot import dump_hot, load_room


def outcome(room: RoomState, at_ms: int, ctx: Context) -> dict[str, Any]:
    """Return what a room's session came to by a moment; looking changes nothing."""
    copy = load_room(dump_hot(room))
    at_ms = max(at_ms, copy.evaluated_ms)
    copy.fold(at_ms)
    told: dict[str, Any] = {
        "session": View(copy, at_ms, ctx).session_metrics(),
        "n_anomalies": {name: copy.n_anomalies.get(name, 0) for name in ("S1", "S2", "S3", "S4")},
        "n_commands": dict(sorted(copy.n_commands.items())),
    }
    if copy.n_shed:
        told["n_shed"] = copy.n_shed
    return told


def summarise(
    rooms: Mapping[str, RoomState],
    former: Mapping[str, dict[str, Any]],
    ctx: Context,
    end_ms: int,
    engine_version: int,
) -> dict[str, Any]:
    """Return `summary.json` without its times, as of an evaluation at `end_ms`; `former` are outcomes of rooms gone."""
    star = ctx.star
    rejects = dict(star.rejects)
    for room in rooms.values():
        for reason, n in room.rejects.items():
            rejects[reason] = rejects.get(reason, 0) + n
    sessions = {**former, **{room_id: outcome(room, end_ms, ctx) for room_id, room in rooms.items()}}
    return {
        "n_records": star.n_records,
        "n_events": star.n_events + sum(room.n_events for room in rooms.values()),
        "n_duplicates": star.n_duplicates + sum(room.n_duplicates for room in rooms.values()),
        "n_rejects": sum(rejects.values()),
        "n_late": star.n_late + sum(room.n_late for room in rooms.values()),
        "n_shed": star.n_shed + sum(room.n_shed for room in rooms.values()),
        "rejects": dict(sorted(rejects.items())),
        "versions": {"engine": engine_version, "policy": ctx.policy_version},
        "rooms": dict(sorted(sessions.items())),
    }
