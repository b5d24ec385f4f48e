"""Which visits of a log are invalid: pools of visits with one trait, four families of evidence, two must agree.

    log -> traits of each visit (shared device, shared block, clockwork, one stay of many)
        -> a channel's visits with a trait are a pool -> rate, identity, content, outcome of the pool against the
           channel's honest visits -> two families agree: the pool holds invalid visits
        -> which sources of the pool (devices, blocks, users) are more like the pool's surplus than like honest ones
        -> their visits

A pure function of its arguments, at most `LOG` visits long: it is called when something is odd, never an event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pipeline.quality.reference import Past, Reference, reference, tabulate
from pipeline.quality.surprise import divergence, surplus
from pipeline.quality.visits import COPIED, MARKED, N_OUTCOMES, N_STAYS, PAID, TOOK_PART, Visit, fine_stay
from schemas.settings import QualitySettings

RATE: Final = 1
IDENTITY: Final = 2
CONTENT: Final = 4
OUTCOME_FAMILY: Final = 8
FAMILIES: Final = {RATE: "rate", IDENTITY: "identity", CONTENT: "content", OUTCOME_FAMILY: "outcome"}
TRAITS: Final = ("device", "block", "clock", "stay")

LEAST: Final = 8
"""Visits of a pool below which it says nothing."""
CLOCK_GAPS: Final = 3
CLOCK_TOLERANCE: Final = 20
"""An account comes by the clock when each of its last gaps, three at least, is within a twentieth of their median."""
SPIKE_RATIO: Final = 3.0
"""A stay that many share stands out three times above those a quarter to a half octave beside it."""
HONEST_LEAST, HONEST_MOST = 0.02, 0.90
"""Share of a pool taken to be honest, at least and at most."""
CLIP: Final = 3.0
"""Log likelihood ratio of one visit, at most either way: no visit condemns or clears a source alone."""
CONTRARY: Final = -1.5
"""A visit of a condemned source that is this much more like an honest one (nats) is let go."""


class Guilt(NamedTuple):
    """What was found about a visit."""

    families: int
    trait: str


def inquest(log: Sequence[Visit], pasts: dict[int, Past], settings: QualitySettings) -> dict[int, Guilt]:
    """Return the invalid visits by their place in the log, with the families that spoke against them."""
    traits = {
        "device": shared(log, lambda visit: visit.device),
        "block": shared(log, lambda visit: visit.block),
        "clock": clockwork(log),
        "stay": spikes(log, settings),
    }
    odd = set().union(*traits.values())
    by_channel: dict[int, list[int]] = {}
    for place, visit in enumerate(log):
        by_channel.setdefault(visit.channel, []).append(place)
    plain = {
        channel: [log[place] for place in places if place not in odd and not log[place].flags & MARKED]
        for channel, places in by_channel.items()
    }
    own = {channel: tabulate(visits) for channel, visits in plain.items()}
    for channel, past in pasts.items():
        own[channel] = [a + b for a, b in zip(own.get(channel, [0] * len(past.cells)), past.cells, strict=True)]
    room = [sum(column) for column in zip(*own.values(), strict=True)]
    found: dict[int, Guilt] = {}
    for channel, places in by_channel.items():
        expected = reference(own[channel], room, pasts.get(channel) or Past())
        for trait in TRAITS:
            pool = [place for place in places if place in traits[trait]]
            if len(pool) >= LEAST:
                guilty, families = judge(log, pool, trait, len(plain[channel]), expected, settings)
                for place in guilty:
                    found.setdefault(place, Guilt(families, trait))
    return found


# -- traits ---------------------------------------------------------------------------------------------------------


def shared(log: Sequence[Visit], source_of: Callable[[Visit], int]) -> set[int]:
    """Return the visits whose source was seen with two users at least."""
    users: dict[int, int] = {}
    many: set[int] = set()
    for visit in log:
        source = source_of(visit)
        if source and users.setdefault(source, visit.user) != visit.user:
            many.add(source)
    return {place for place, visit in enumerate(log) if source_of(visit) in many}


def clockwork(log: Sequence[Visit]) -> set[int]:
    """Return the visits of accounts that come back at even intervals."""
    places: dict[int, list[int]] = {}
    for place, visit in enumerate(log):
        places.setdefault(visit.user, []).append(place)
    found: set[int] = set()
    for mine in places.values():
        if len(mine) <= CLOCK_GAPS:
            continue
        moments = sorted(log[place].left_ms for place in mine)
        gaps = sorted(b - a for a, b in zip(moments, moments[1:], strict=False))
        middle = gaps[len(gaps) // 2]
        n_even = sum(abs(gap - middle) * CLOCK_TOLERANCE <= middle for gap in gaps)
        if middle > 0 and n_even >= max(CLOCK_GAPS, len(gaps) * 3 // 4):
            found.update(mine)
    return found


def spikes(log: Sequence[Visit], settings: QualitySettings) -> set[int]:
    """Return the visits whose stay is one that surprisingly many of their channel share."""
    found: set[int] = set()
    by_channel: dict[int, dict[int, list[int]]] = {}
    for place, visit in enumerate(log):
        by_channel.setdefault(visit.channel, {}).setdefault(fine_stay(visit.dwell_ms), []).append(place)
    for bins in by_channel.values():
        count = {number: len(places) for number, places in bins.items()}
        for number in sorted(bins):
            three = sum(count.get(number + step, 0) for step in (-1, 0, 1))
            beside = sum(count.get(number + step, 0) for step in (-9, -8, -7, -6, -5, -4, 6, 7, 8, 9, 10, 11)) / 4
            usual = max(beside, 0.5)
            if three >= LEAST and three >= SPIKE_RATIO * usual and surplus(three, usual) >= settings.evidence_nats:
                for step in (-1, 0, 1):
                    found.update(bins.get(number + step, ()))
    return found


# -- a pool ---------------------------------------------------------------------------------------------------------


def judge(
    log: Sequence[Visit], pool: list[int], trait: str, n_plain: int, expected: Reference, settings: QualitySettings
) -> tuple[list[int], int]:
    """Return the invalid visits of a pool, none unless two families agree, and the families."""
    visits = [log[place] for place in pool]
    n, bar = len(pool), settings.evidence_nats
    usual = {"device": expected.device, "block": expected.block}.get(trait, HONEST_LEAST)
    n_usual = n_plain * usual / (1.0 - usual)
    families = 0
    if trait in ("device", "block"):
        if surplus(n, max(n_usual, 1.0)) >= bar:
            families |= IDENTITY
    else:
        families |= RATE
    stays, outcomes = [0] * N_STAYS, [0] * N_OUTCOMES
    due = [0.0] * N_OUTCOMES
    for visit in visits:
        stay = visit.stay
        stays[stay] += 1
        outcomes[visit.outcome] += 1
        for place, share in enumerate(expected.outcome[stay]):
            due[place] += share
    nats, size = divergence(stays, expected.stay, expected.n)
    if trait in ("device", "block") and nats >= bar and size >= settings.least_difference:
        families |= RATE
    nats, size = divergence(outcomes, [share / n for share in due], expected.n)
    if nats >= bar and size >= settings.least_difference / 2:
        families |= OUTCOME_FAMILY
    n_copied = sum(bool(visit.flags & COPIED) for visit in visits)
    if n_copied >= settings.repeat_users and 2 * n_copied >= sum(bool(visit.flags & TOOK_PART) for visit in visits):
        families |= CONTENT
    if families.bit_count() < 2:
        return [], families
    honest = min(HONEST_MOST, max(HONEST_LEAST, n_usual / n))
    return _condemned(log, pool, trait, honest, expected, (stays, outcomes, due)), families


def _condemned(
    log: Sequence[Visit],
    pool: list[int],
    trait: str,
    honest: float,
    expected: Reference,
    seen: tuple[list[int], list[int], list[float]],
) -> list[int]:
    """Return the visits of the sources that are more like the pool's surplus than like honest ones.

    The surplus is what the pool has beyond its honest share, naive Bayes by stay and outcome.
    """
    stays, outcomes, due = seen
    n = len(pool)
    like_stay = _surplus_shares(stays, [honest * n * share for share in expected.stay], expected.stay)
    like_outcome = _surplus_shares(outcomes, [honest * share for share in due], [share / n for share in due])

    def ratio(visit: Visit) -> float:
        stay, outcome = visit.stay, visit.outcome
        nats = math.log(like_stay[stay] / expected.stay[stay])
        nats += math.log(like_outcome[outcome] / expected.outcome[stay][outcome])
        return max(-CLIP, min(CLIP, nats))

    prior = math.log((1.0 - honest) / honest)
    score: dict[int, float] = {}
    for place in pool:
        source = _source(trait, log[place], place)
        score[source] = score.get(source, prior) + ratio(log[place])
    return [
        place
        for place in pool
        if score[_source(trait, log[place], place)] > 0
        # Honest people may share a bot's address or happen to stay as long; nobody shares a bot's phone or clock.
        and (trait in ("device", "clock") or not (log[place].flags & PAID or ratio(log[place]) <= CONTRARY))
    ]


def _surplus_shares(counts: Sequence[int], honest: Sequence[float], usual: Sequence[float]) -> list[float]:
    surpluses = [max(count - share, 0.0) + usually for count, share, usually in zip(counts, honest, usual, strict=True)]
    total = math.fsum(surpluses)
    return [share / total for share in surpluses]


def _source(trait: str, visit: Visit, place: int) -> int:
    if trait == "device":
        return visit.device
    if trait == "block":
        return visit.block
    return visit.user if trait == "clock" else place
