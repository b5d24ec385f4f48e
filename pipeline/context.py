"""What every room's rules may look at besides the room itself."""

from __future__ import annotations

import msgspec

from pipeline.audit import Trail
from pipeline.dedup import SeenIds
from pipeline.identity import Identities
from pipeline.sentiment import SentimentModel
from schemas.settings import Policy


class Star(msgspec.Struct, gc=False):
    """What belongs to a partition and to no room: the room `*` of its snapshot."""

    offset: int = -1
    clock_ms: int = -1
    evaluated_ms: int = -1
    heartbeat_ms: int = -1
    largest_ts: int = -1
    is_stamped: bool = True
    is_killed: bool = False
    silences: list[tuple[int, str]] = msgspec.field(default_factory=list)
    control_ids: dict[str, int] = msgspec.field(default_factory=dict)
    seen: SeenIds = msgspec.field(default_factory=SeenIds)
    trail: Trail = msgspec.field(default_factory=Trail)
    policy: bytes = b""
    n_records: int = 0
    n_events: int = 0
    n_duplicates: int = 0
    n_late: int = 0
    n_shed: int = 0
    rejects: dict[str, int] = msgspec.field(default_factory=dict)
    attended_until_ms: int = -1
    controls_since_ts: int = -1
    """No control signed before counts, whatever the policy: under one of before, its id was forgotten."""


class Context:
    """The policy in force, the keyed identities, the models: the same for all rooms of a partition."""

    def __init__(self, policy: Policy, identities: Identities, sentiment: SentimentModel) -> None:
        self.identities = identities
        self.sentiment = sentiment
        self.star = Star()
        self.set_policy(policy)

    def set_policy(self, policy: Policy) -> None:
        """Put a policy in force from the next record on."""
        self.policy = policy
        self.policy_version = policy.version()
        # What every event or visit asks for, looked up once.
        self.quality = policy.quality
        self.tick_ms = policy.engine.tick_ms
        self.emit_interval_ms = policy.engine.emit_interval_ms
        self.visit_interval_ms = policy.engine.visit_interval_ms
        self.visit_after_events = policy.engine.visit_after_events
        self.max_channels = policy.engine.max_channels
        self.dimensions: tuple[str, ...] = policy.signals.dimensions
        self.max_slices = policy.signals.max_slices
        self.consent_default = policy.engine.consent_default
        self.recent_ids_ms = policy.engine.recent_ids_ms
        self.room_events_per_tick = policy.engine.room_events_per_s * self.tick_ms // 1_000
