"""Simulated rooms for the demo: their calm past first, then live, with troubles that come in waves.

A room without a past cannot be judged, so the log begins `past_s` before now. The past is written as fast as the
worker takes it, each record with its own stamp, under a policy that looks at it in coarse steps (`past_policy`). From
where it ends each record is written at the moment it arrives, and the policy for people who look takes effect.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final, NamedTuple

import orjson

from agents.bridge import policy_record
from agents.demo.source import Due, watched_policy
from pipeline.simulate import SCENARIOS, Parameters, Trouble, World
from pipeline.simulate.market import Applied, Value
from pipeline.simulate.parameters import CHANNELS
from pipeline.simulate.truth import TroubleKind
from schemas.base import EVERY_ROOM
from schemas.settings import Policy

PAST_S: Final = 750
"""Return is judged over 15 minutes of which 60 % must have matured: twelve minutes and a half do."""
SHORT_PAST_S: Final = 400
"""With many rooms: enough to know what is usual, and the worker is through with it in half the time."""
MANY_ROOMS: Final = 40
FEW_ROOMS: Final = 12
"""Fewer are larger instead: in a very small room nothing can be judged in a minute."""
STEP_MS: Final = 20_000
"""Of the past, at most this much is made up at a time, so that nothing else waits long."""
WAVE_MS: Final = 300_000
TROUBLE_MS: Final = 150_000
LONG_TROUBLES_MS: Final[dict[TroubleKind, int]] = {"landing_page": 280_000, "feed_dead": 240_000}
"""Lost sales show in five minutes' orders alone, and a feed is dead after three minutes without a word."""
STARTS_MS: Final[dict[TroubleKind, int]] = {
    "bot_burst": 3_000,
    "landing_page": 4_000,
    "cost_rise": 5_000,
    "angry_chat": 6_000,
    "feed_dead": 8_000,
    "crowd_echo": 10_000,
}
"""When each kind begins in a wave: bots first, they are seen soonest."""
SIZES: Final[dict[TroubleKind, float]] = {"cost_rise": 3.0, "angry_chat": 8.0}
"""Where the kind's own size would take minutes to show in a small room."""
BOTS_S: Final = 5.0
"""Bots a second, whatever the room: some 15 s of them are enough to be sure."""
LEAST_BOTS: Final = 5.0
"""Times the channel's usual enters, in a room so large that `BOTS_S` would be lost in it."""
MIX: Final[dict[int, TroubleKind]] = {
    0: "bot_burst", 1: "landing_page", 2: "angry_chat", 4: "cost_rise", 7: "crowd_echo", 9: "feed_dead",
}  # fmt: skip
"""The mix by the rooms' traffic: what takes many events to see is where many are."""
AUTO_RANKS: Final = (0, 1, 3, 4)
APPROVE_RANKS: Final = (6,)
"""Rooms by traffic, the largest is 0, that act by themselves, and that ask first; the rest stay in shadow."""
SECOND_BOTS_MS: Final = 15_000
"""In the mix the room that asks first gets bots too, a little later: so its way to a command is seen as well."""

PARAMETERS: Final = Parameters(
    size=0.6,
    traffic_sigma=0.6,  # many small rooms and a few large ones, as on any platform
    budget_minor=1_000_000,
    comment_ratio=0.45,
    positive_ratio=0.30,
    negative_ratio=0.09,
    view_heartbeat_s=60,
    feed_heartbeat_s=20,
    shape=(),
    report_s=(10, 15),
)
"""Chosen so that the past is some 20,000 records, which a worker takes in seconds, and the large rooms talk enough."""


def past_s(n_rooms: int) -> int:
    """Return how long the rooms have been open when the demo begins."""
    return PAST_S if n_rooms <= MANY_ROOMS else SHORT_PAST_S


def parameters(n_rooms: int) -> Parameters:
    """Return the rooms' parameters."""
    return replace(PARAMETERS, size=PARAMETERS.size * max(1.0, FEW_ROOMS / n_rooms))


def past_policy(policy: Policy) -> Policy:
    """Return `policy` with coarser looks: nobody watches the past, it only has to be known."""
    coarse = {"visit_interval_ms": 10_000, "emit_interval_ms": 60_000, "channels_interval_ms": 600_000}
    return policy.model_copy(update={"engine": policy.engine.model_copy(update=coarse)})


class Modes(NamedTuple):
    """Which rooms are trusted with what."""

    auto: tuple[str, ...]
    approve: tuple[str, ...]


class SimulatedRooms:
    """A world in real time.

    Parameters
    ----------
    scenario, n_rooms, seed : as in `pipeline.simulate.World`; the scenario says which troubles a wave has.
    start_ms : now; the rooms opened `past_s` before.
    control_key : signs the policies.
    policy : what the worker decides by.
    """

    def __init__(
        self, scenario: str, n_rooms: int, seed: int, start_ms: int, *, control_key: bytes, policy: Policy
    ) -> None:
        self._scenario = SCENARIOS[scenario]
        self._past_s = past_s(n_rooms)
        self._begin_ms = start_ms - self._past_s * 1_000
        self._world = World("calm", n_rooms, seed, self._begin_ms, parameters=parameters(n_rooms))
        self._control_key, self._policy = control_key, policy
        self._enters: Counter[str] = Counter(dict.fromkeys(self._world.room_ids, 0))
        self._ranked: list[str] = []
        self._n_waves = 0
        self._is_told = False
        self.live_since_ms: int | None = None

    @property
    def clock_ms(self) -> int | None:
        """The world's time."""
        return self._world.now_ts

    @property
    def is_live(self) -> bool:
        """Whether the past is written."""
        return self.live_since_ms is not None

    @property
    def is_over(self) -> bool:
        """Whether the rooms' sessions have ended."""
        return self._world.now_ts > self._begin_ms + (PARAMETERS.session_s + 60) * 1_000

    def due(self, wall_ms: int) -> list[Due]:
        """Return what arrives up to now, at most `STEP_MS` of it; first of all the policy for the past."""
        found: list[Due] = []
        if not self._is_told:
            self._is_told = True
            found.append(self._told(past_policy(self._policy), self._begin_ms))
        for arrival_ts, room_id, event in self._world.advance(min(wall_ms, self._world.now_ts + STEP_MS)):
            found.append(Due(arrival_ts, room_id, orjson.dumps(event), 1))
            if self.live_since_ms is None and event.get("action") == "enter":
                self._enters[room_id] += 1
        if self._world.now_ts >= wall_ms:
            if self.live_since_ms is None:
                self.live_since_ms = wall_ms
                self._ranked = [room_id for room_id, _ in self._enters.most_common()]
            self._plan_wave(self.live_since_ms)
        return found

    def watched(self, wall_ms: int) -> Due:
        """Return the record by which the policy for people who look takes effect."""
        return self._told(watched_policy(self._policy), wall_ms)

    def modes(self) -> Modes:
        """Return the rooms that get more than shadow, once their sizes are known."""
        picked = [
            tuple(self._ranked[r] for r in ranks if r < len(self._ranked)) for ranks in (AUTO_RANKS, APPROVE_RANKS)
        ]
        return Modes(*picked)

    def apply(self, room_id: str, plan_id: str, action: str, value: Value) -> Applied:
        """Turn a plan's knob, as the platform would."""
        return self._world.apply(room_id, plan_id, action, value)

    def truth(self) -> list[Trouble]:
        """Return the troubles that have begun."""
        return [trouble for trouble in self._world.truth() if trouble.start_ts < self._world.now_ts]

    def _told(self, policy: Policy, ts: int) -> Due:
        versions: dict[str, object] = {"policy": policy.version()}
        record = policy_record(policy, versions, 0, key=self._control_key, start_ts=ts, ts=ts)
        return Due(ts, EVERY_ROOM, record, 0)

    def _plan_wave(self, live_since_ms: int) -> None:
        """Put the next wave's troubles in, each in another room than in the wave before."""
        now_ms = self._world.now_ts
        if now_ms < live_since_ms + self._n_waves * WAVE_MS:
            return
        for rank in range(len(self._ranked)):
            kind = MIX.get(rank) if self._scenario.name == "mixed" else self._scenario.trouble_of(rank)
            if kind is not None:
                self._inject(kind, rank, now_ms + STARTS_MS[kind])
        if self._scenario.name == "mixed":
            for rank in APPROVE_RANKS:
                self._inject("bot_burst", rank, now_ms + SECOND_BOTS_MS)
        self._n_waves += 1

    def _inject(self, kind: TroubleKind, rank: int, begin_ms: int) -> None:
        """Put one trouble in; a wave's ranks are one further than those of the wave before."""
        if rank >= len(self._ranked):
            return
        room_id = self._ranked[(rank + self._n_waves) % len(self._ranked)]
        lasts_ms = LONG_TROUBLES_MS.get(kind, TROUBLE_MS)
        self._world.inject(kind, room_id, begin_ms, begin_ms + lasts_ms, size=self._size(kind, room_id))

    def _size(self, kind: TroubleKind, room_id: str) -> float | None:
        """Return how strong a trouble is in this room; None is the kind's own."""
        if kind != "bot_burst":
            return SIZES.get(kind)
        usual_s = self._enters[room_id] / self._past_s * CHANNELS[0].enters_s / sum(c.enters_s for c in CHANNELS)
        return max(LEAST_BOTS, BOTS_S / max(usual_s, 0.01))
