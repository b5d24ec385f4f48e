"""A room that broke the program: out of service until somebody looks, while every other goes on.

The engine is a pure function of the log, so the same record breaks the same room after every restart: going on would
loop, and skipping it would count on a state that is no longer whole. A parked room counts nothing and bids nothing;
its records go to the dead letters, from which they can be written again. Resolving its anomaly (a signed control)
puts an empty room in its place.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pipeline.context import Context
from pipeline.dormancy import Head
from pipeline.ids import derived
from pipeline.room import Parked, RoomState
from schemas.anomalies import Anomaly
from schemas.base import capped
from schemas.decode import Reject

_CARRIED: Final = (
    "n_events", "n_duplicates", "n_late", "n_shed", "rejects", "largest_ts", "revision", "trail", "control_ids",
    "n_anomalies", "n_commands", "first_offset", "farewells",
    "is_killed",
)  # fmt: skip
"""What was told or audited of a room and must go on where it was."""


_LIMITS: Final = ("mode", "budget_minor", "bid_floor_minor", "bid_cap_minor")
"""Settings that nothing but a signed control may loosen."""
Mark = tuple[int, str, int, dict[str, int], dict[str, int]]
"""What was told of a room before something was tried that may break it: what was not told must not count."""


NOTHING_TOLD: Final[Mark] = (0, "", 0, {}, {})
"""Where a room stands that has not begun."""


def mark(room: RoomState) -> Mark:
    """Return where the room stands."""
    trail = room.trail
    return trail.seq, trail.head, room.revision, room.n_anomalies.copy(), room.n_commands.copy()


def put_back(room: RoomState, mark: Mark) -> None:
    """Let the room stand there again."""
    room.trail.seq, room.trail.head, room.revision, n_anomalies, n_commands = mark
    room.n_anomalies, room.n_commands = n_anomalies.copy(), n_commands.copy()


def successor(blank: RoomState, former: RoomState) -> RoomState:
    """Return `blank` with what must go on where the former room was."""
    for name in _CARRIED:
        setattr(blank, name, getattr(former, name))
    for name in _LIMITS:
        setattr(blank.config, name, getattr(former.config, name))
    return blank


def salvaged(blank: RoomState, head: Head, hot: RoomState | None) -> RoomState:
    """Return what is left of a packed room that cannot be read: `hot` where only its ledger is damaged.

    Else its counts alone. Whether somebody stopped it is not known then, so it stays stopped until somebody says so.
    """
    if hot is not None:
        return hot
    for name in ("n_events", "n_duplicates", "n_late", "n_shed", "rejects", "largest_ts", "first_offset"):
        setattr(blank, name, getattr(head, name))
    blank.is_killed = True
    return blank


def parked(blank: RoomState, former: RoomState | None, *, offset: int, now_ms: int, error: Exception) -> RoomState:
    """Return the room as it stands parked: `blank`, with what was told of the `former` one carried on."""
    if former is not None:
        successor(blank, former)
    blank.offset, blank.is_fresh = offset, False
    # The error's text may quote what a viewer wrote: its type alone is told.
    anomaly_id = derived("anomaly", blank.room_id, "engine_error", offset)
    blank.parked = Parked(offset, now_ms, type(error).__name__, anomaly_id)
    blank.n_anomalies["S1"] = blank.n_anomalies.get("S1", 0) + 1
    return blank


def words(room: RoomState) -> str:
    """Return why the room's records are refused, for whoever reads the dead letters."""
    state = room.parked
    if state is None:
        return ""
    return (
        f"room is parked since offset {state.offset} broke the program ({state.error}): "
        f"resolve anomaly {state.anomaly_id} to begin anew, then write its records again"
    )


def refusal(room: RoomState, _: Any, value: bytes) -> Reject:
    """Return the reject of any record of a parked room."""
    return Reject("engine_error", words(room), None, value)


def ends(room: RoomState, event: Any) -> bool:
    """Tell whether a control resolves what parked the room."""
    state = room.parked
    return state is not None and event.action == "resolve_anomaly" and event.args.get("anomaly_id") == state.anomaly_id


def told(room: RoomState, status: Literal["open", "resolved"], ctx: Context) -> Anomaly:
    """Return the message about a parked room."""
    settings, state = ctx.policy.incident, room.parked
    if state is None:
        msg = f"room {room.room_id!r} must be parked"
        raise ValueError(msg)
    ack_s, resolve_s = settings.ack_s.get("S1"), settings.resolve_s.get("S1")
    return Anomaly.model_construct(
        anomaly_id=state.anomaly_id,
        room_id=room.room_id,
        ts=capped(ctx.star.clock_ms),
        status=status,
        severity="S1",
        metric="engine",
        dimension="room",
        window_s=60,
        observed=1.0,
        expected=0.0,
        score=0.0,
        cause="unknown",
        cause_confidence=0.0,
        contributors=[],
        owner="tech",
        ack_due_ts=None if ack_s is None else capped(state.since_ms + ack_s * 1_000),
        resolve_due_ts=None if resolve_s is None else capped(state.since_ms + resolve_s * 1_000),
        escalation_level=0,
        runbook=f"{settings.runbook_url}#engine_error",
        code="engine_error",
        params={"offset": state.offset, "error": state.error},
        evidence={},
    )
