"""What a demo can be fed from: records with the moments at which the log has them."""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple, Protocol

from schemas.settings import Policy

MAX_EMIT_MS: Final = 60_000


class Due(NamedTuple):
    """One record to write now, stamped with its own time; room `*` means every partition."""

    stamp_ms: int
    room_id: str
    value: bytes
    n_events: int


class Source(Protocol):
    """Made-up rooms or a recorded log, asked again and again what is due."""

    def due(self, wall_ms: int) -> list[Due]:
        """Return what is to be written at this moment of the wall clock, in order; asking takes it."""

    @property
    def clock_ms(self) -> int | None:
        """The log's own time after what `due` returned last; None before there is any."""

    @property
    def is_live(self) -> bool:
        """Whether what comes now is news, and no longer the past that has to be known first."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""


def watched_policy(policy: Policy, speed: float = 1.0) -> Policy:
    """Return `policy` with signals of rooms and channels every second, for somebody is looking.

    The second is the looker's: a log that runs `speed` times as fast is told of that many times more rarely.
    """
    interval_ms = min(MAX_EMIT_MS, 1_000 * ceil(speed))
    often = {"emit_interval_ms": interval_ms, "channels_interval_ms": interval_ms}
    return policy.model_copy(update={"engine": policy.engine.model_copy(update=often)})
