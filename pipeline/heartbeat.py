"""The engine's sign of life on `bid.commands`: while it comes, controllers know that silence means "nothing to do"."""

from __future__ import annotations

from pipeline.context import Context
from pipeline.ids import derived
from pipeline.output import Output
from schemas import topics
from schemas.base import EVERY_ROOM, capped
from schemas.commands import BidCommand, Reason


def beat(ctx: Context, now_ms: int) -> int | None:
    """Return the heartbeat that is due at `now_ms`, the newest alone where several were passed at once."""
    interval_ms, star = ctx.policy.engine.heartbeat_interval_ms, ctx.star
    beat_ms = now_ms - now_ms % interval_ms
    if beat_ms <= star.heartbeat_ms:
        return None
    star.heartbeat_ms = beat_ms
    return beat_ms


def heartbeat(ctx: Context, beat_ms: int) -> Output:
    """Return the command that says so, in the name of all rooms."""
    command = BidCommand.model_construct(
        command_id=derived("beat", beat_ms),
        revision=1,
        seq=beat_ms // ctx.policy.engine.heartbeat_interval_ms,
        room_id=EVERY_ROOM,
        ts=beat_ms,
        expires_ts=capped(beat_ms + ctx.policy.bidding.lifetime_ms),
        action="heartbeat",
        direction="none",
        mode="off" if ctx.star.is_killed else ctx.policy.bidding.max_mode,
        status="issued",
        emergency=False,
        reason=Reason(code="alive"),
        evidence={},
        anomaly_ids=[],
        guardrails=[],
        policy_version=ctx.policy_version,
    )
    return Output(topics.BID_COMMANDS, EVERY_ROOM, command)
