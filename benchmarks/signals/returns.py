"""How far the matured return can be trusted: `python -m benchmarks.signals.returns --json`.

Method: rooms whose law is written down (spend, the return it is worth, when orders come, what comes back) play into a
real engine as a log of `spend` and `order` events. Every five minutes the room's signals are held against the law:

    rate        what a unit of the window's spend is worth on average: what a bid rests on, and what the band is for
    eventual    what the window's own orders did come to once all were paid and refunded

Each world breaks one assumption of the method; `specified` breaks none. Constants were set on other seeds than those
reported (`--calibrate` shows the former). The rival is the plain way: sales of the window over its spend, divided by
the maturity of an exponential curve with the configured mean.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from benchmarks.signals import returns_simulated as simulation
from benchmarks.signals.returns_simulated import Seen
from benchmarks.signals.spread import Each, one_by_one
from pipeline import Engine
from schemas import topics
from schemas.settings import EngineSettings, RoiSettings, Settings

START_MS: Final = 1_748_779_200_000
REPORT_S: Final = 10
LOOK_S: Final = 300
MEAN_AMOUNT: Final = 6_000
CONFIGURED_MEAN_S: Final = RoiSettings().conversion_delay_s
CALIBRATION_SEED: Final = 7_000_000
TEST_SEED: Final = 1_000_000
WINDOWS: Final = ("900", "3600", "session")
BANDS: Final = ((0.3, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1.01))


class Delay(NamedTuple):
    """A law of delays: how to draw one, and the share that came within so many seconds."""

    draw: Callable[[Random], float]
    share: Callable[[float], float]


def exponential(mean_s: float) -> Delay:
    """Return what the prior supposes."""
    return Delay(lambda random: random.expovariate(1.0 / mean_s), lambda age: -math.expm1(-age / mean_s))


def prompt_and_late(prompt: float, prompt_s: float, late_s: float) -> Delay:
    """Return a mixture: most buy at once, the others much later."""
    return Delay(
        lambda random: random.expovariate(1.0 / (prompt_s if random.random() < prompt else late_s)),
        lambda age: prompt * -math.expm1(-age / prompt_s) + (1.0 - prompt) * -math.expm1(-age / late_s),
    )


def lognormal(median_s: float, sigma: float) -> Delay:
    """Return a law with a heavy tail."""
    return Delay(
        lambda random: random.lognormvariate(math.log(median_s), sigma),
        lambda age: 0.5 * math.erfc(-math.log(age / median_s) / sigma / math.sqrt(2)) if age > 0 else 0.0,
    )


class World(NamedTuple):
    """A law of a room. `rate` of a moment (s); `burst` multiplies orders in the last third of each 200 s."""

    what: str
    delay: Delay = exponential(CONFIGURED_MEAN_S)
    later_delay: Delay | None = None
    rate: Callable[[float], float] = lambda _: 2.0
    orders_hour: float = 240.0
    amount_sigma: float = 0.6
    burst: float = 1.0
    refund_ratio: float = 0.0
    refund_s: float = 900.0
    has_touch: bool = True
    session_s: int = 7_200
    spend_wave: float = 0.0
    settings: RoiSettings = RoiSettings()


WORLDS: Final = {
    "specified": World("exponential delays with the configured mean, independent orders"),
    "small": World("60 orders an hour", orders_hour=60.0),
    "large": World("1,500 orders an hour", orders_hour=1_500.0, session_s=3_600),
    "fast": World("delays an eighth of the configured mean", delay=exponential(CONFIGURED_MEAN_S / 8)),
    "slow": World("delays four times the configured mean", delay=exponential(CONFIGURED_MEAN_S * 4)),
    "prompt_and_late": World("three in four within seconds, the others late", delay=prompt_and_late(0.75, 20.0, 360.0)),
    "heavy_tail": World("log-normal delays, a tenth beyond 43 min", delay=lognormal(200.0, 2.0)),
    "spend_in_waves": World("spend swings by two thirds in half an hour", spend_wave=0.67),
    "refunds": World("a third comes back, half an hour later", refund_ratio=0.33, refund_s=1_800.0),
    "refunds_configured": World(
        "the same, and the settings say so",
        refund_ratio=0.33,
        refund_s=1_800.0,
        settings=RoiSettings(refund_ratio=0.33, refund_delay_s=1_800),
    ),
    "bursts": World("orders in bursts of a minute, four times the usual", burst=4.0),
    "large_orders": World("amounts with a heavy tail", amount_sigma=1.3),
    "return_falls": World("the return halves after an hour", rate=lambda second: 2.0 if second < 3_600 else 1.0),
    "delay_changes": World("delays double after an hour", later_delay=exponential(CONFIGURED_MEAN_S * 2)),
    "no_touch": World("no order says when it was touched", has_touch=False),
}


class Look(NamedTuple):
    """One window of one emission beside the law."""

    world: str
    window: str
    maturity: float
    true_maturity: float
    mature: float | None
    low: float | None
    high: float | None
    rate: float
    eventual: float
    naive: float | None


class Order(NamedTuple):
    """An order that the law brought: when, what, and what comes of it in the end."""

    touch_s: float
    paid_s: float
    amount: int
    refunded_s: float | None
    number: int


Life = tuple[list[tuple[float, int]], list[Order]]
"""Reports of spend as (second, minor units), and orders."""


def _poisson(random: Random, mean: float) -> int:
    left, n = random.expovariate(1.0), 0
    while left < mean:
        n, left = n + 1, left + random.expovariate(1.0)
    return n


def _life(world: World, random: Random) -> Life:
    """Return spend as (second, minor units), reported at the end of each ten seconds, and the orders it brings."""
    spends: list[tuple[float, int]] = []
    orders: list[Order] = []
    steady = world.orders_hour * MEAN_AMOUNT / 2.0 / 3_600
    mean_burst = (2.0 + world.burst) / 3.0
    for begin in range(0, world.session_s, REPORT_S):
        wave = 1.0 + world.spend_wave * math.sin(begin / 1_800 * 2.0 * math.pi)
        cost = round(steady * wave * REPORT_S * random.uniform(0.8, 1.2))
        spends.append((float(begin + REPORT_S), cost))
        burst = (world.burst if begin % 200 >= 133 else 1.0) / mean_burst
        for _ in range(_poisson(random, world.rate(begin) * burst * cost / MEAN_AMOUNT)):
            touch_s = begin + random.uniform(0.0, REPORT_S)
            late = world.later_delay is not None and begin >= world.session_s / 2
            delay = world.later_delay if late and world.later_delay else world.delay
            paid_s = touch_s + delay.draw(random)
            amount = round(random.lognormvariate(math.log(MEAN_AMOUNT) - world.amount_sigma**2 / 2, world.amount_sigma))
            back = paid_s + random.expovariate(1.0 / world.refund_s) if random.random() < world.refund_ratio else None
            orders.append(Order(touch_s, paid_s, max(1, amount), back, len(orders)))
    return spends, orders


def _log(world: World, spends: list[tuple[float, int]], orders: list[Order]) -> list[tuple[int, int, bytes]]:
    events: list[tuple[float, dict[str, Any]]] = []
    common = {"room_id": "room-1", "channel": "feed_ads", "currency": "CNY"}
    for second, cost in spends:
        spend = {"type": "spend", "plan_id": "p", "impressions": 1_000, "clicks": 30, "cost_minor": cost}
        events.append((second, {**common, **spend}))
    for order in orders:
        sold: dict[str, Any] = {
            "type": "order",
            "order_id": f"o{order.number}",
            "attribution": "direct",
            "product_id": "p1",
        }
        if world.has_touch:
            sold["touch_ts"] = START_MS + round(order.touch_s * 1_000)
        paid = {**common, **sold, "status": "paid", "amount_minor": order.amount}
        events.append((order.paid_s, paid))
        if order.refunded_s is not None:
            events.append((order.refunded_s, {**paid, "status": "refunded"}))
    tick = {"type": "tick", "room_id": "*"}
    events += [(float(second), tick) for second in range(0, world.session_s + REPORT_S, 5)]
    lines = []
    for number, (second, event) in enumerate(sorted(events, key=lambda pair: pair[0])):
        if second > world.session_s:
            break
        ts = START_MS + round(second * 1_000)
        lines.append((number, ts, json.dumps({**event, "event_id": f"e{number}", "ts": ts}).encode()))
    return lines


def look_at(name: str, seed: int) -> list[Look]:
    """Play one session of a world and return what was told every five minutes."""
    world, random = WORLDS[name], Random(seed)
    life = _life(world, random)
    looks: list[Look] = []
    due_s = LOOK_S
    engine = Engine(Settings(trust_log=True, engine=EngineSettings(emit_interval_ms=60_000), roi=world.settings))
    for record in _log(world, *life):
        for out in engine.process([record]):
            now_s = (getattr(out.value, "ts", 0) - START_MS) / 1_000
            if out.topic != topics.ROOM_SIGNALS or now_s < due_s:
                continue
            due_s = (int(now_s) // LOOK_S + 1) * LOOK_S
            told = json.loads(out.json())["windows"]
            looks += [_look(name, window, told[window], now_s, life) for window in WINDOWS]
    return looks


def _look(name: str, window: str, told: dict[str, Any], now_s: float, life: Life) -> Look:
    world, (spends, orders) = WORLDS[name], life
    since_s = -1.0 if window == "session" else now_s - int(window)
    inside = [(second, cost) for second, cost in spends if since_s <= second < now_s]
    spent = sum(cost for _, cost in inside)
    kept = 1.0 - world.refund_ratio
    rate = sum(world.rate(second - REPORT_S) * cost for second, cost in inside) / spent * kept
    first_s, last_s = inside[0][0] - REPORT_S, inside[-1][0]
    value = sum(o.amount for o in orders if first_s <= o.touch_s < last_s and o.refunded_s is None)
    # The law's own share of what is due, with the touches spread over each report's ten seconds.
    later = world.session_s / 2

    def share(second: float) -> float:
        delay = world.later_delay if world.later_delay and second >= later else world.delay
        return delay.share(max(0.0, now_s - second + REPORT_S / 2))

    true = sum(share(second) * cost * world.rate(second - REPORT_S) for second, cost in inside)
    true /= sum(cost * world.rate(second - REPORT_S) for second, cost in inside)
    prior = exponential(CONFIGURED_MEAN_S)
    naive = sum(prior.share(now_s - second + REPORT_S / 2) * cost for second, cost in inside) / spent
    valid = told.get("roas_valid")
    return Look(
        name, window, told.get("roas_maturity", 0.0), true, told.get("roas_mature"), told.get("roas_low"),
        told.get("roas_high"), rate, value / spent, valid / naive if valid is not None and naive >= 0.3 else None,
    )  # fmt: skip


def _share(flags: list[bool]) -> float | None:
    return round(sum(flags) / len(flags), 4) if flags else None


def figures_of(looks: Sequence[Look | Seen]) -> dict[str, Any]:
    """Return what some looks come to; a figure without a sample is None."""
    told = [look for look in looks if look.mature is not None]
    banded = [look for look in told if look.low is not None and look.high is not None]
    width = [look.high / look.low for look in banded if look.low and look.high]
    bias = [look.mature / look.rate - 1.0 for look in told if look.mature is not None]
    lawful = [look for look in looks if isinstance(look, Look)]
    naive = [look.naive / look.rate - 1.0 for look in lawful if look.naive is not None]
    off = [look.maturity - look.true_maturity for look in lawful if look.maturity > 0]
    return {
        "n": len(looks),
        "told_ratio": _share([look.mature is not None for look in looks]),
        "band_ratio": _share([look.low is not None for look in looks]),
        "least_maturity_told": min((round(look.maturity, 4) for look in told), default=None),
        "coverage_rate": _share([(b.low or 0) <= b.rate <= (b.high or 0) for b in banded]),
        "missed_low": _share([b.rate < (b.low or 0) for b in banded]),
        "missed_high": _share([b.rate > (b.high or 0) for b in banded]),
        "coverage_eventual": _share([(b.low or 0) <= b.eventual <= (b.high or 0) for b in banded]),
        "band_width_median": round(statistics.median(width), 3) if width else None,
        "bias": round(statistics.fmean(bias), 4) if bias else None,
        "rmse": round(math.sqrt(statistics.fmean([b * b for b in bias])), 4) if bias else None,
        "plain_bias": round(statistics.fmean(naive), 4) if naive else None,
        "plain_rmse": round(math.sqrt(statistics.fmean([b * b for b in naive])), 4) if naive else None,
        "maturity_bias": round(statistics.fmean(off), 4) if off else None,
        "maturity_error": round(statistics.fmean([abs(each) for each in off]), 4) if off else None,
    }


def _split(looks: Sequence[Look | Seen]) -> dict[str, Any]:
    return {
        **figures_of(looks),
        "by_window": {w: figures_of([look for look in looks if look.window == w]) for w in WINDOWS},
        "by_maturity": {
            f"{low:.2f}..{min(high, 1.0):.2f}": figures_of([x for x in looks if low <= x.maturity < high])
            for low, high in BANDS
        },
    }


class Task(NamedTuple):
    """Sessions of one world, or rooms of one simulation."""

    name: str
    n: int
    seed: int


def lived(task: Task) -> list[Look]:
    """Return what was told in a world's sessions."""
    return [look for n in range(task.n) for look in look_at(task.name, task.seed + n)]


def seen(task: Task) -> list[Seen]:
    """Return what was told of a simulation's rooms."""
    return simulation.looks(task.name, task.n, task.seed)


def figures(
    n_sessions: int = 60,
    *,
    n_rooms: int | None = None,
    calibrate: bool = False,
    worlds: Sequence[str] = (),
    each: Each = one_by_one,
) -> dict[str, Any]:
    """Return every figure of the return family; `calibrate` takes the seeds that constants were set on.

    `worlds` names some of `WORLDS` and of the simulated settings; none means all. `n_rooms` of each simulation are
    played, as many as sessions by default; `each` plays the worlds, one after the other or beside each other.
    """
    first_seed = CALIBRATION_SEED if calibrate else TEST_SEED
    n_rooms = n_sessions if n_rooms is None else n_rooms
    tasks = [Task(name, n_sessions, first_seed + 10_000 * place) for place, name in enumerate(WORLDS)]
    tasks = [task for task in tasks if not worlds or task.name in worlds]
    lives = each("return, rooms with a law of their own", lived, tasks)
    rooms = [Task(name, n_rooms, first_seed + 1_000_000 + place) for place, name in enumerate(simulation.ALL)]
    rooms = [task for task in rooms if not worlds or task.name in worlds]
    views = each("return, simulated rooms", seen, rooms)
    told = {name: {"what": setting.what} for name, setting in simulation.ALL.items()}
    by_name = {task.name: {**told[task.name], **_split(looks)} for task, looks in zip(rooms, views, strict=True)}
    return {
        "family": "returns",
        "n_sessions": n_sessions,
        "n_rooms": n_rooms,
        "seeds": "calibration" if calibrate else "test",
        "worlds": {
            task.name: {"what": WORLDS[task.name].what, **_split(looks)}
            for task, looks in zip(tasks, lives, strict=True)
        },
        "all_worlds": _split([look for looks in lives for look in looks]),
        "all_simulated": _split(_of(rooms, views, simulation.SETTINGS)),
        "all_misspecified": _split(_of(rooms, views, simulation.MISSPECIFIED)),
        "simulated": {name: row for name, row in by_name.items() if name in simulation.SETTINGS},
        "misspecified": {name: row for name, row in by_name.items() if name in simulation.MISSPECIFIED},
    }


def _of(tasks: Sequence[Task], views: Sequence[list[Seen]], settings: Mapping[str, object]) -> list[Seen]:
    return [one for task, some in zip(tasks, views, strict=True) if task.name in settings for one in some]


COLUMNS: Final = (
    "n", "coverage_rate", "missed_low", "missed_high", "coverage_eventual", "band_width_median", "bias", "rmse",
    "plain_bias", "plain_rmse", "maturity_bias", "maturity_error", "told_ratio", "band_ratio",
)  # fmt: skip


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=60, help="sessions of each world")
    parser.add_argument("--rooms", type=int, help="rooms of each simulation; as many by default")
    parser.add_argument("--calibrate", action="store_true", help="the seeds that constants were set on")
    parser.add_argument("--world", action="append", default=[], choices=[*WORLDS, *simulation.ALL])
    parser.add_argument("--json", action="store_true", help="one JSON object with everything")
    args = parser.parse_args()
    told = figures(args.sessions, n_rooms=args.rooms, calibrate=args.calibrate, worlds=args.world)
    if args.json:
        print(json.dumps(told, indent=1))
        return
    print(f"{'':26}" + "".join(f"{name.replace('coverage', 'cov')[:12]:>13}" for name in COLUMNS))
    for world, found in {
        **told["worlds"],
        "all worlds": told["all_worlds"],
        **told["simulated"],
        **told["misspecified"],
    }.items():
        rows = [(world, found), *((f"  {w}", f) for w, f in found["by_window"].items())]
        rows += [(f"  maturity {band}", f) for band, f in found["by_maturity"].items()]
        for label, row in rows:
            print(f"{label:26}" + "".join(f"{'-' if row[name] is None else row[name]:>13}" for name in COLUMNS))


if __name__ == "__main__":
    main()
