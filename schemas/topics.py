"""The topics, and what each needs from a broker."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

ROOM_EVENTS: Final = "room.events"
ROOM_EVENTS_DLQ: Final = "room.events.dlq"
ROOM_SIGNALS: Final = "room.signals"
ROOM_ANOMALIES: Final = "room.anomalies"
BID_COMMANDS: Final = "bid.commands"
BID_ACKS: Final = "bid.acks"
OPS_CONTROL: Final = "ops.control"
OPS_KILL: Final = "ops.kill"
AUDIT_LOG: Final = "audit.log"
AUDIENCE_FEEDBACK: Final = "audience.feedback"

DAY_MS: Final = 24 * 60 * 60 * 1000


class Topic(NamedTuple):
    """One topic's needs; `retention_ms` -1 keeps it for ever, `by_room` topics share one partition count."""

    name: str
    retention_ms: int
    purpose: str
    by_room: bool = True
    cleanup: Literal["delete", "compact"] = "delete"
    timestamp_type: Literal["LogAppendTime", "CreateTime"] = "LogAppendTime"


TOPICS: Final[tuple[Topic, ...]] = (
    # Raw texts and ids live here and in the dead letters alone, hence one day.
    Topic(ROOM_EVENTS, DAY_MS, "each room's log: everything that can change its state"),
    Topic(ROOM_EVENTS_DLQ, DAY_MS, "refused records, each with its reason"),
    Topic(ROOM_SIGNALS, 7 * DAY_MS, "rolling signals of each room"),
    Topic(ROOM_ANOMALIES, 30 * DAY_MS, "the life of each anomaly"),
    Topic(BID_COMMANDS, 30 * DAY_MS, "commands for bid controllers, and the heartbeat they wait for"),
    Topic(BID_ACKS, 30 * DAY_MS, "controllers' answers"),
    Topic(OPS_CONTROL, 30 * DAY_MS, "operators' actions"),
    Topic(OPS_KILL, -1, "the kill switch's state a room, read by controllers themselves", cleanup="compact"),
    Topic(AUDIT_LOG, 365 * DAY_MS, "every command, control and ack, chained a room"),
    Topic(AUDIENCE_FEEDBACK, 30 * DAY_MS, "each segment's outcome per session, for whoever keeps user tags"),
)
