"""The matured return of simulated rooms beside the simulator's own truth of what spend brings in the end.

The simulator draws an order's whole future when the viewer decides, so it can tell of each minute's spend what it will
have brought once all is paid and, days later, sent back. Nothing of it follows the engine's suppositions: delays are a
mixture by parameter, sales come in bursts with the product on stage, products differ in price and refunds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, Final, NamedTuple

from pipeline import Engine
from pipeline.simulate import World
from pipeline.simulate.parameters import Parameters
from pipeline.simulate.world import play
from pipeline.simulate.worlds import WORLDS, parameters_of
from schemas import topics
from schemas.settings import EngineSettings, RoiSettings, Settings

MINUTES: Final = 90
LOOK_MS: Final = 300_000
MINUTE_MS: Final = 60_000
WINDOWS: Final = {"900": 15, "3600": 60, "session": 10**6}
REFUNDS_KNOWN: Final = RoiSettings(refund_ratio=0.1, refund_delay_s=86_400)


class Setting(NamedTuple):
    """Rooms and what the engine is told of them."""

    what: str
    size: float = 1.0
    roi: RoiSettings = RoiSettings()
    world: str = "as-is"
    """Of `pipeline.simulate.worlds`."""


SETTINGS: Final = {
    "calm": Setting("rooms as they are, 60 orders an hour, default settings"),
    "calm_refunds_configured": Setting("the same; the settings say a tenth comes back", roi=REFUNDS_KNOWN),
    "calm_large": Setting("five times the traffic; the settings say a tenth comes back", size=5.0, roi=REFUNDS_KNOWN),
}
MISSPECIFIED: Final = {
    name: Setting(f"world `{name}`: {WORLDS[name].en}", size=2.0, roi=REFUNDS_KNOWN, world=name)
    for name in ("slow-delay", "heavy-tail", "big-orders", "refunds", "seasonal", "bursts", "slow-feeds", "counts-only")
}
"""The simulator's own worlds, twice the usual traffic; the settings say a tenth comes back, a day later."""
ALL: Final = {**SETTINGS, **MISSPECIFIED}


class Seen(NamedTuple):
    """One window of one emission: what was told, and the truth. `rate` is the room's own mean over the session."""

    window: str
    maturity: float
    mature: float | None
    low: float | None
    high: float | None
    rate: float
    eventual: float


class _Minute:
    def __init__(self) -> None:
        self.spend = self.value = 0
        self.expected = 0.0


def looks(name: str, n_rooms: int, seed: int) -> list[Seen]:
    """Play one world and return every room's windows each five minutes beside the truth."""
    setting = ALL[name]
    world = World("calm", n_rooms, seed, parameters=parameters_of(setting.world, Parameters(size=setting.size)))
    begin_ms = world.now_ts
    engine = Engine(Settings(trust_log=True, engine=EngineSettings(emit_interval_ms=60_000), roi=setting.roi))
    told: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for number, (arrival_ts, _, event) in enumerate(play(world, MINUTES)):
        for out in engine.process([(number, arrival_ts, json.dumps(event).encode())]):
            if out.topic == topics.ROOM_SIGNALS:
                at_ms = out.value.ts - begin_ms  # type: ignore[attr-defined]
                if at_ms // LOOK_MS not in told[out.key] and 0 < at_ms < MINUTES * MINUTE_MS:
                    told[out.key][at_ms // LOOK_MS] = json.loads(out.json())
    world.settle()
    minutes: dict[str, dict[int, _Minute]] = defaultdict(lambda: defaultdict(_Minute))
    for cohort in world.cohorts():
        if cohort.plan_id is not None:
            minute = minutes[cohort.room_id][(cohort.start_ts - begin_ms) // MINUTE_MS]
            minute.spend += cohort.spend_minor - cohort.credit_minor
            minute.value += cohort.gmv_minor - cohort.refund_minor
            minute.expected += cohort.expected_gmv_minor - cohort.expected_refund_minor
    found = []
    for room_id, emissions in sorted(told.items()):
        truth = minutes[room_id]
        rate = sum(m.expected for m in truth.values()) / sum(m.spend for m in truth.values())
        for message in emissions.values():
            last = (message["ts"] - begin_ms) // MINUTE_MS
            for window, length in WINDOWS.items():
                inside = [minute for at, minute in truth.items() if last - length <= at < last]
                spent = sum(minute.spend for minute in inside)
                metrics = message["windows"][window]
                if spent <= 0:
                    continue
                eventual = sum(minute.value for minute in inside) / spent
                mature, low, high = (metrics.get(field) for field in ("roas_mature", "roas_low", "roas_high"))
                maturity = metrics.get("roas_maturity", 0.0)
                found.append(Seen(window, maturity, mature, low, high, rate, eventual))
    return found
