"""Whether an event is invalid, as far as a room knows by now: the one answer that everything else counts.

An event is invalid if and only if its user is marked, or its device or address block was found to send nothing else,
or, where it came without consent, its channel and moment lie in a flood. The answer may change from valid to invalid
as evidence comes in, for events of the past too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.identity import address_block

if TYPE_CHECKING:
    from pipeline.context import Context
    from pipeline.room import RoomState


def is_invalid(room: RoomState, event: Any, ctx: Context) -> bool:
    """Return the verdict on a decoded event of the room; reads only the room's state and the keys."""
    evidence = room.evidence
    consent = ctx.consent_default if event.consent is None else event.consent
    if not consent:
        if event.user_id is None and event.device_id is None:
            return False
        name = event.channel or "unknown"
        return name in evidence.channels and evidence.anonymous.is_flood(event.ts, evidence.channels[name])
    user = who(event, ctx)
    if user is None:
        return False
    if user in evidence.marks:
        return True
    if not evidence.sources:
        return False
    identities = ctx.identities
    device = 0 if event.device_id is None else identities.devices[event.device_id]
    block = 0 if event.ip is None else identities.blocks[address_block(event.ip)]
    return evidence.is_source(device, block, ctx.star.clock_ms)


def who(event: Any, ctx: Context) -> int | None:
    """Return the token that stands for somebody: the user's, else the device's."""
    if event.user_id is not None:
        return ctx.identities.users[event.user_id]
    return None if event.device_id is None else ctx.identities.devices[event.device_id]
