"""How well invalid traffic is told from honest look-alikes: `python -m benchmarks.signals.quality --json`.

Method: simulated rooms with known truth (docs/simulator.md) go through the real engine. At the end of each window of
five minutes, five seconds of log time later, the engine's state is asked for its verdict on every event of the window
that names a user (`pipeline.quality.is_invalid`, a pure function of the state); it is compared with the truth. Nothing
is asked twice: a bot that is found only in the next window is missed in this one. The share estimate is the window's
own `ivt_ratio` against the share of bots' events among judged ones. Figures are sums over rooms, not means of rooms.

`roas` runs again with bots that pay: the simulator's never do, so one in `BRUSHED` bot visits gets a paid, attributed
order, as brushing does it.

Seeds are apart: what a threshold was chosen on is never what is reported. So are families: `CALIBRATED` are those that
constants were chosen by (`benchmarks/signals/quality_calibration.py`), `HELD_OUT` those that were not.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from benchmarks.signals.spread import Each, one_by_one
from pipeline import Engine
from pipeline.counters import unpack
from pipeline.emit import View
from pipeline.quality import is_invalid, ivt_interval
from pipeline.simulate import World, parameters_of
from pipeline.simulate.parameters import Parameters
from schemas.decode import decode_one
from schemas.settings import Settings

CALIBRATION_SEEDS: Final = (11, 12, 13)
"""Constants were chosen on these; what was wrong was looked for on 11 to 20."""
TEST_SEEDS: Final = (201, 202, 203, 204, 205)
SCRIPTED: Final = ("bot_burst", "view_bots_fixed", "shared_address", "script_comments")
RANDOMISED: Final = ("view_bots_random", "paraphrase_comments", "incentive_hunters")
CALIBRATED: Final = (*SCRIPTED, *RANDOMISED)
HELD_OUT_SCRIPTED: Final = ("device_farm", "synced_phones")
HELD_OUT_RANDOMISED: Final = ("click_farm", "idle_audience")
HELD_OUT: Final = (*HELD_OUT_SCRIPTED, *HELD_OUT_RANDOMISED)
"""No constant was chosen by these. The method was made with `device_farm` and `click_farm` known; `synced_phones` and
`idle_audience` were written after it, and nothing was changed for what came out."""
GROUPS: Final = {
    "scripted": SCRIPTED,
    "randomised": RANDOMISED,
    "held_out_scripted": HELD_OUT_SCRIPTED,
    "held_out_randomised": HELD_OUT_RANDOMISED,
}
OTHER_WORLDS: Final = ("other-bots", "shared-sources", "half-consent")
"""Of `pipeline.simulate.worlds`; two rooms of each kind, to see where it breaks."""
OTHER_LOOK_ALIKES: Final = ("celebrity", "campus", "calm")
POINTS: Final = 0.03
"""How far a window's share may be off."""
LOOK_ALIKES: Final = (
    "crowd_echo",
    "lottery",
    "celebrity",
    "organic_surge",
    "carrier_nat",
    "campus",
    "angry_chat",
    "calm",
)
WINDOW_S: Final = 300
SETTLED_MS: Final = 5_000
TROUBLE_AT_S: Final = 390
TROUBLE_S: Final = 300
MINUTES: Final = 15
START_TS: Final = 1_767_225_600_000
BRUSHED: Final = 12
"""One in so many bot visits pays."""
NAMED: Final = ("channel", "plan_id", "user_id", "device_id", "ip")
BRUSHED_MINOR: Final = 9_900
SIGN: Final[dict[str, int]] = {"paid": 1, "refunded": -1}
SHARED: Final = Path(__file__).resolve().parents[3] / "shared" / "data" / "script_bots"


class Score:
    """Sums of one family's rooms."""

    def __init__(self) -> None:
        self.hit = self.missed = self.wrong = self.n_honest = 0
        self.share_errors: list[float] = []
        self.attacked: list[float] = []
        """The errors of windows with invalid events in them; those without are easy."""
        self.n_covered = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the figures."""
        errors = sorted(abs(error) for error in self.share_errors)
        told: dict[str, Any] = {"n_honest": self.n_honest, "wrong_ratio": _share(self.wrong, self.n_honest)}
        if self.hit + self.missed:
            told |= {
                "n_invalid": self.hit + self.missed,
                "precision": _share(self.hit, self.hit + self.wrong),
                "recall": _share(self.hit, self.hit + self.missed),
                "f1": _share(2 * self.hit, 2 * self.hit + self.missed + self.wrong),
            }
        if errors:
            told |= {
                "share_error_mean": round(sum(errors) / len(errors), 4),
                "share_error_p90": round(errors[int(0.9 * (len(errors) - 1))], 4),
                "share_bias": round(sum(self.share_errors) / len(errors), 4),
                "interval_covers": _share(self.n_covered, len(errors)),
                "n_windows": len(errors),
            }
        if attacked := sorted(abs(error) for error in self.attacked):
            told |= {
                "attacked_error_mean": round(sum(attacked) / len(attacked), 4),
                "attacked_error_p90": round(attacked[int(0.9 * (len(attacked) - 1))], 4),
                "attacked_within": _share(sum(error <= POINTS for error in attacked), len(attacked)),
                "n_attacked": len(attacked),
            }
        return told

    def add(self, other: Score) -> None:
        """Count another score's rooms in."""
        self.hit, self.missed = self.hit + other.hit, self.missed + other.missed
        self.wrong, self.n_honest = self.wrong + other.wrong, self.n_honest + other.n_honest
        self.n_covered += other.n_covered
        self.share_errors += other.share_errors
        self.attacked += other.attacked


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def truth_of(world: World) -> set[str]:
    """Return the users who are invalid."""
    return {user for trouble in world.truth() if trouble.is_invalid for user in trouble.user_ids}


def log_of(
    kind: str, n_rooms: int, seed: int, size: float, name: str = "as-is"
) -> tuple[list[tuple[int, str, dict[str, Any]]], set[str]]:
    """Return a scenario's records, every room with the trouble, and who is invalid."""
    world = World("calm", n_rooms, seed, START_TS, parameters=parameters_of(name, Parameters(size=size)))
    if kind != "calm":
        for place, room_id in enumerate(world.room_ids):
            begin = START_TS + (TROUBLE_AT_S + 7 * (place % 5)) * 1_000
            world.inject(kind, room_id, begin, begin + TROUBLE_S * 1_000)
    records = world.advance(START_TS + MINUTES * 60_000 + 2 * SETTLED_MS)
    return records, truth_of(world)


def run(
    kind: str,
    n_rooms: int,
    seed: int,
    size: float,
    score: Score,
    *,
    settings: Settings | None = None,
    world: str = "as-is",
) -> None:
    """Play a scenario through an engine and score every window's verdicts."""
    records, bots = log_of(kind, n_rooms, seed, size, world)
    engine = Engine(settings or Settings(trust_log=True))
    waiting: list[Any] = []
    window_end = START_TS + WINDOW_S * 1_000
    offset = 0
    for batch_end in range(START_TS + 1_000, START_TS + MINUTES * 60_000 + SETTLED_MS + 1, 1_000):
        chunk = []
        while offset < len(records) and records[offset][0] < batch_end:
            arrival, _, event = records[offset]
            value = orjson.dumps(event)
            chunk.append((offset, arrival, value))
            decoded = decode_one(value, arrival)
            if getattr(decoded, "user_id", None):
                waiting.append(decoded)
            offset += 1
        chunk.append((offset, batch_end - 1, orjson.dumps(_tick(batch_end))))
        engine.process(chunk)
        if batch_end >= window_end + SETTLED_MS:
            waiting = _score(engine, waiting, bots, window_end, score)
            window_end += WINDOW_S * 1_000


def _tick(ts: int) -> dict[str, Any]:
    return {"type": "tick", "event_id": f"tick-{ts}", "room_id": "*", "ts": ts - 1}


def _score(engine: Engine, events: list[Any], bots: set[str], end_ts: int, score: Score) -> list[Any]:
    """Score a window's events; return those of later windows."""
    rest, judged, invalid = [], Counter[str](), Counter[str]()
    rooms, ctx = engine._rooms, engine._ctx
    for event in events:
        if event.ts >= end_ts:
            rest.append(event)
            continue
        is_bot = event.user_id in bots
        verdict = is_invalid(rooms[event.room_id], event, ctx)
        score.hit += is_bot and verdict
        score.missed += is_bot and not verdict
        score.wrong += verdict and not is_bot
        score.n_honest += not is_bot
        kind = type(event).__name__.lower()
        if "comment" in kind or "interaction" in kind or getattr(event, "action", None) == "leave":
            judged[event.room_id] += 1
            invalid[event.room_id] += is_bot
    for room_id, n in sorted(judged.items()):
        counts = unpack(engine._rooms[room_id].windows.totals()[1])
        interval = ivt_interval(counts, ctx.quality)
        ratio = View(engine._rooms[room_id], ctx.star.clock_ms, ctx).windows()["300"].get("ivt_ratio")
        if ratio is None or interval is None:
            continue
        truth = invalid[room_id] / n
        score.share_errors.append(ratio - truth)
        if invalid[room_id]:
            score.attacked.append(ratio - truth)
        score.n_covered += interval[0] <= truth <= interval[1]
    return rest


# -- the return -------------------------------------------------------------------------------------------------------


def returns(kind: str, n_rooms: int, seed: int, size: float) -> list[tuple[float, float]]:
    """Return each room's (error of `roas_attributed`, error of `roas_valid`) of the session, bots paying."""
    records, bots = log_of(kind, n_rooms, seed, size)
    records = sorted(brushed(records, bots, seed), key=lambda record: record[0])
    engine = Engine(Settings(trust_log=True))
    net: Counter[str] = Counter()
    mine: dict[str, tuple[str, bool]] = {}
    chunk = []
    for offset, (arrival, room_id, event) in enumerate(records):
        chunk.append((offset, arrival, orjson.dumps(event)))
        if event["type"] == "order" and event["user_id"] not in bots:
            if event["status"] == "paid":
                mine[event["order_id"]] = (room_id, event.get("attribution") in ("direct", "indirect"))
            room, is_attributed = mine.get(event["order_id"], ("", False))
            if is_attributed:
                net[room] += SIGN.get(event["status"], 0) * event["amount_minor"]
    engine.process(chunk)
    last = records[-1][0] + 20_000
    engine.process([(len(records), last, orjson.dumps(_tick(last)))])
    found = []
    for room_id, room in engine.summary()["rooms"].items():
        told = room["session"]
        if told.get("spend_minor", 0) <= 0:
            continue
        truth = net[room_id] / told["spend_minor"]
        found.append((told["roas_attributed"] - truth, told["roas_valid"] - truth))
    return found


def brushed(
    records: Iterable[tuple[int, str, dict[str, Any]]], bots: set[str], seed: int
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the records, with a paid order in some bots' visits."""
    dice = random.Random(seed)
    for arrival, room_id, event in records:
        yield arrival, room_id, event
        if event["type"] == "view" and event["action"] == "enter" and event["user_id"] in bots:
            if dice.random() >= 1 / BRUSHED:
                continue
            ts = event["ts"] + 900
            named: dict[str, Any] = {name: event[name] for name in NAMED if name in event}
            order: dict[str, Any] = {
                "type": "order", "event_id": f"brush-{event['event_id']}", "room_id": room_id, "ts": ts, **named,
                "order_id": f"b-{event['event_id']}", "status": "paid", "amount_minor": BRUSHED_MINOR,
                "currency": "CNY", "attribution": "direct",
            }  # fmt: skip
            yield max(arrival, ts), room_id, order


# -- comment scripts as they were recorded ------------------------------------------------------------


def script_bots(folder: Path, seed: int) -> dict[str, Any] | None:
    """Return what is found of recorded scripts' messages, and of honest bursts marked; None without the data.

    The data has no moments, visits or addresses. Each recorded room's messages come in random order, one each two
    seconds, among crowds' bursts: every eight seconds five to nine of 400 viewers write one text within two seconds.
    """
    if not (folder / "bot_messages.csv.gz").exists():
        return None
    by_room: dict[str, list[tuple[str, str]]] = {}
    with gzip.open(folder / "bot_messages.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by_room.setdefault(row["room"], []).append((row["account_hash"], row["text"]))
    with gzip.open(folder / "burst_texts_unlabelled.csv.gz", "rt", encoding="utf-8") as file:
        bursts = [row["text"] for row in csv.DictReader(file)]
    scripted = {text for messages in by_room.values() for _, text in messages}
    bursts = [text for text in bursts if text not in scripted]
    dice = random.Random(seed)
    dice.shuffle(bursts)
    n_bots = n_found = n_crowd = n_wrong = 0
    next_burst = 0
    for room, messages in sorted(by_room.items()):
        dice.shuffle(messages)
        said: list[tuple[int, str, str, bool]] = []
        for place, (account, text) in enumerate(messages):
            said.append((place * 2_000 + dice.randrange(2_000), account, text, True))
        for begin in range(0, max(len(messages) * 2_000, 80_000), 8_000):
            text = bursts[next_burst % len(bursts)]
            next_burst += 1
            said += [
                (begin + dice.randrange(2_000), f"viewer-{user}", text, False)
                for user in dice.sample(range(400), dice.randrange(5, 10))
            ]
        events = _comments(room, sorted(said))
        engine = Engine(Settings(trust_log=True))
        engine.process([(n, START_TS + at, value) for n, (at, value) in enumerate(events)])
        last = START_TS + events[-1][0] + 20_000
        engine.process([(len(events), last, orjson.dumps(_tick(last)))])
        for (_, value), (_, _, _, is_bot) in zip(events, sorted(said), strict=True):
            verdict = is_invalid(engine._rooms[room], decode_one(value, last), engine._ctx)
            n_bots, n_found = n_bots + is_bot, n_found + (is_bot and verdict)
            n_crowd, n_wrong = n_crowd + (not is_bot), n_wrong + (verdict and not is_bot)
    return {
        "n_bot_messages": n_bots, "found_ratio": _share(n_found, n_bots),
        "n_crowd_messages": n_crowd, "wrong_ratio": _share(n_wrong, n_crowd),
    }  # fmt: skip


def _comments(room: str, said: list[tuple[int, str, str, bool]]) -> list[tuple[int, bytes]]:
    return [
        (at, orjson.dumps({
            "type": "comment", "event_id": f"c-{n}", "room_id": room, "ts": START_TS + at,
            "user_id": user, "text": text,
        }))
        for n, (at, user, text, _) in enumerate(said)
    ]  # fmt: skip


# -- all of it ------------------------------------------------------------


class Task(NamedTuple):
    """The rooms of one kind."""

    kind: str
    seeds: tuple[int, ...]
    n_rooms: int
    size: float
    world: str = "as-is"


def scored(task: Task) -> Score:
    """Return what verdicts on the rooms of a task come to."""
    score = Score()
    for seed in task.seeds:
        run(task.kind, task.n_rooms, seed, task.size, score, world=task.world)
    return score


def return_errors(task: Task) -> list[tuple[float, float]]:
    """Return the errors of both returns of the rooms of a task."""
    return [error for seed in task.seeds for error in returns(task.kind, task.n_rooms, seed, task.size)]


def figures(
    seeds: Sequence[int] = TEST_SEEDS, *, n_rooms: int = 2, size: float = 1.0, each: Each = one_by_one
) -> dict[str, Any]:
    """Return every figure of this family; `each` plays the kinds of rooms, one after the other or beside each other."""
    told: dict[str, Any] = {
        "seeds": list(seeds), "calibration_seeds": list(CALIBRATION_SEEDS), "n_rooms": n_rooms, "size": size,
        "calibrated_on": list(CALIBRATED), "held_out": list(HELD_OUT),
    }  # fmt: skip
    groups = {**GROUPS, "look_alikes": LOOK_ALIKES}
    every = [kind for kinds in groups.values() for kind in kinds]
    tasks = [Task(kind, tuple(seeds), n_rooms, size) for kind in every]
    score_of = dict(zip(every, each("traffic, kinds of rooms", scored, tasks), strict=True))
    for group, kinds in groups.items():
        all_of = Score()
        for kind in kinds:
            all_of.add(score_of[kind])
        told[group] = {**{kind: score_of[kind].as_dict() for kind in kinds}, "all": all_of.as_dict()}
    others = [(world, kind) for world in OTHER_WORLDS for kind in (*CALIBRATED, *OTHER_LOOK_ALIKES)]
    few = [Task(kind, tuple(seeds[:2]), 1, size, world) for world, kind in others]
    told["worlds"] = {world: {} for world in OTHER_WORLDS}
    for (world, kind), score in zip(others, each("traffic, other worlds", scored, few), strict=True):
        told["worlds"][world][kind] = score.as_dict()
    for name, kinds in (("roas", CALIBRATED), ("roas_held_out", HELD_OUT)):
        paying = [task for task in tasks if task.kind in kinds and "comments" not in task.kind]
        found = each(f"traffic, return where bots pay ({name})", return_errors, paying)
        errors = [error for of in found for error in of]
        if errors:
            attributed, valid = (sum(abs(error[place]) for error in errors) / len(errors) for place in (0, 1))
            told[name] = {
                "error_attributed": round(attributed, 4), "error_valid": round(valid, 4),
                "ratio": round(valid / attributed, 4) if attributed else None, "n_rooms": len(errors),
            }  # fmt: skip
    if (scripts := script_bots(SHARED, seeds[0])) is not None:
        told["script_bots"] = scripts
    return told


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(TEST_SEEDS))
    parser.add_argument("--calibration", action="store_true", help="the seeds that thresholds were chosen on")
    parser.add_argument("--rooms", type=int, default=2, help="of each kind and seed")
    parser.add_argument("--size", type=float, default=1.0, help="multiplies a room's traffic")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parsed = parser.parse_args()
    seeds = CALIBRATION_SEEDS if parsed.calibration else parsed.seeds
    told = figures(seeds, n_rooms=parsed.rooms, size=parsed.size)
    if parsed.json:
        print(json.dumps(told))
        return
    for group in (*GROUPS, "look_alikes"):
        for kind, row in told[group].items():
            print(f"{group:19} {kind:20} {row}")
    for name in ("roas", "roas_held_out", "script_bots"):
        print(name, told.get(name))


if __name__ == "__main__":
    main()
