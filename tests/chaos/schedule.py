"""When what goes wrong: faults drawn from a seed, each written out as acts on slots, free to overlap."""

from __future__ import annotations

from random import Random
from typing import Final, Literal, NamedTuple

Deed = Literal["start", "kill", "term", "freeze", "thaw", "platform_kill", "broker_kill", "broker_halt", "broker_back"]
N_SLOTS: Final = 3
SECONDS_PER_FAULT: Final = 6.0
ZOMBIE_S: Final = (7.5, 10.0)
"""A frozen worker sleeps longer than its session (6 s) lasts: it wakes up when its partitions are others'."""


class Act(NamedTuple):
    """One deed at a moment of the load; `slot` is a worker's place, a broker's number, or nothing (-1)."""

    at_s: float
    deed: Deed
    slot: int = -1

    def __str__(self) -> str:
        place = "" if self.slot < 0 else f" {self.slot}"
        return f"{self.at_s:.1f}s {self.deed}{place}"


def schedule(
    seed: int, seconds: float, *, n_brokers_restartable: int = 0, is_mixed: bool = False
) -> tuple[int, list[Act]]:
    """Return with how many workers to begin, and the acts in the order of time.

    Somewhere in the last third every worker is killed at once. An act that does not fit what is there (a kill of an
    empty slot) does nothing: so faults may overlap freely. `is_mixed` has two kinds of workers: at least two at a time,
    all of them replaced again and again, each by one of the other kind.
    """
    random = Random(f"faults-{seed}")
    n_workers = max(random.choice((1, 2, 2, 3)), 2 if is_mixed else 1)
    makers = [_kill, _kill, _zombie, _zombie, _rolling, _scale, _platform]
    makers += [_broker] * (2 if n_brokers_restartable else 0)
    acts: list[Act] = []
    for _ in range(max(2, round(seconds / SECONDS_PER_FAULT))):
        at_s = random.uniform(0.5, max(1.0, seconds * 0.85))
        acts += random.choice(makers)(random, at_s, n_workers, n_brokers_restartable)
    if is_mixed:
        for share in (0.1, 0.35, 0.6):
            acts += _rolling(random, seconds * share, n_workers, 0)
    acts += _power_cut(random, seconds * random.uniform(0.6, 0.95))
    return n_workers, sorted(acts)


def _power_cut(random: Random, at_s: float) -> list[Act]:
    """End every worker at once, well into the load: nobody is left who knows more than the snapshots."""
    back_s = at_s + random.choice((0.5, 2.0))
    cut = [Act(at_s, "kill", slot) for slot in range(N_SLOTS)]
    return [*cut, *(Act(back_s, "start", slot) for slot in range(random.choice((1, 2))))]


def _kill(random: Random, at_s: float, n_workers: int, _: int) -> list[Act]:
    slot = random.randrange(n_workers)
    return [Act(at_s, "kill", slot), Act(at_s + random.choice((0.0, 1.0, 4.0)), "start", slot)]


def _zombie(random: Random, at_s: float, n_workers: int, _: int) -> list[Act]:
    """With one worker somebody else has to take over meanwhile."""
    slot = random.randrange(n_workers)
    found = [Act(at_s, "freeze", slot), Act(at_s + random.uniform(*ZOMBIE_S), "thaw", slot)]
    if n_workers == 1:
        found.append(Act(at_s + 0.5, "start", N_SLOTS - 1))
    return found


def _rolling(random: Random, at_s: float, n_workers: int, _: int) -> list[Act]:
    found = []
    for slot in range(n_workers):
        found += [Act(at_s, "term", slot), Act(at_s + 0.2, "start", slot)]
        at_s += random.uniform(2.0, 5.0)
    return found


def _scale(random: Random, at_s: float, n_workers: int, _: int) -> list[Act]:
    """Grow to three, then back to what there was."""
    back_s = at_s + random.uniform(5.0, 9.0)
    found = []
    for slot in range(n_workers, N_SLOTS):
        found += [Act(at_s, "start", slot), Act(back_s, "term", slot)]
    return found or [Act(at_s, "term", N_SLOTS - 1), Act(back_s, "start", N_SLOTS - 1)]


def _platform(_: Random, at_s: float, __: int, ___: int) -> list[Act]:
    return [Act(at_s, "platform_kill")]


def _broker(random: Random, at_s: float, _: int, n_brokers: int) -> list[Act]:
    number = random.randrange(n_brokers)
    way: Deed = random.choice(("broker_kill", "broker_halt"))
    return [Act(at_s, way, number), Act(at_s + random.uniform(1.0, 5.0), "broker_back", number)]
