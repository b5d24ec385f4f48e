"""Which visits of a log are invalid: pools of visits with one trait, four families of evidence, two must agree.

    log -> traits of each visit (shared device, shared block, clockwork, one stay of many)
        -> a channel's visits with a trait are a pool -> rate, identity, content, outcome of the pool against the
           channel's honest visits -> two families agree: the pool holds invalid visits
        -> which sources of the pool (devices, blocks, users) are more like the pool's surplus than like honest ones
        -> their visits

A pure function of its arguments, at most `LOG` visits long: it is called when something is odd, never an event.
"""

from __future__ import annotations

import functools
import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
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
AROUND_MS: Final = 30_000
"""Visits of one stay are judged among those that ended within this time: a minute holds the dozen that a rate takes."""
LOOKED_AT: Final = 4.6
"""ln 100: about so many stays are looked at, and one of them stands out by chance (Bonferroni)."""
HONEST_LEAST, HONEST_MOST = 0.02, 0.90
"""Share of a pool taken to be honest, at least and at most."""
CLIP: Final = 3.0
"""Log likelihood ratio of one visit, at most either way: no visit condemns or clears a source alone."""
HOUSEHOLD: Final = 2.0
"""What speaks for two users of one device beforehand (nats)."""
CONTRARY: Final = -1.5
"""A visit of a condemned source that is this much more like an honest one (nats) is let go."""


class Guilt(NamedTuple):
    """What was found about a visit."""

    families: int
    trait: str


def inquest(
    log: Sequence[Visit],
    pasts: dict[int, Past],
    now_ms: int,
    settings: QualitySettings,
    marks: Mapping[int, int] | None = None,
) -> dict[int, Guilt]:
    """Return the invalid visits by their place in the log, with the families that spoke against them.

    `marks` are the users found invalid before, with the families against them.
    """
    alike, core, close = spikes(log, settings)
    traits = {
        "device": shared(log, lambda visit: visit.device),
        "block": shared(log, lambda visit: visit.block),
        "clock": clockwork(log),
        "stay": alike.keys(),
    }
    odd = close.union(*traits.values())
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
                n_plain = len({visit.user for visit in plain[channel]})
                case = Case(log, pool, trait, n_plain, expected, now_ms)
                if trait == "stay":
                    tried = [place for place in pool if place in core]
                    case = case._replace(pool=tried, more=pool, honest_around=alike)
                guilty, families = judge(case, settings, _proven(case, marks or {}))
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
        gaps = sorted(b - a for a, b in pairwise(moments))
        middle = gaps[len(gaps) // 2]
        n_even = sum(abs(gap - middle) * CLOCK_TOLERANCE <= middle for gap in gaps)
        if middle > 0 and n_even >= max(CLOCK_GAPS, len(gaps) * 3 // 4):
            found.update(mine)
    return found


def spikes(log: Sequence[Visit], settings: QualitySettings) -> tuple[dict[int, float], set[int], set[int]]:
    """Find the stays that surprisingly many visits of a channel share.

    Return (share of honest ones expected around each such visit; those of them at the peaks, by which they are tried;
    visits too close to tell).
    """
    found: dict[int, float] = {}
    core: set[int] = set()
    close: set[int] = set()
    bar = settings.evidence_nats + LOOKED_AT
    by_channel: dict[int, dict[int, list[int]]] = {}
    for place, visit in enumerate(log):
        by_channel.setdefault(visit.channel, {}).setdefault(fine_stay(visit.dwell_ms), []).append(place)
    for bins in by_channel.values():
        count = {number: len({log[place].user for place in places}) for number, places in bins.items()}
        usual_of: dict[int, float] = {}
        alike: set[int] = set()
        beside: set[int] = set()
        for number in sorted(bins):
            three = sum(count.get(number + step, 0) for step in (-1, 0, 1))
            below = sum(count.get(number + step, 0) for step in (-9, -8, -7, -6, -5, -4))
            above = sum(count.get(number + step, 0) for step in (6, 7, 8, 9, 10, 11))
            usual = max(below / 2, above / 2, 0.5)  # of three bins; the edge of a plateau is no spike
            if three >= LEAST and three >= SPIKE_RATIO * usual and surplus(three, usual) >= bar:
                # An attack's stays thin out, upwards above all: it goes on while bins hold three times the usual.
                for way in (range(7), range(0, -3, -1)):
                    for step in way:
                        if count.get(number + step, 0) >= usual:
                            alike.update(bins.get(number + step, ()))
                            usual_of[number + step] = max(usual / 3, usual_of.get(number + step, 0.0))
                            if abs(step) <= 1:
                                core.update(bins.get(number + step, ()))
                        elif abs(step) > 1:
                            break
                for step in range(-2, 7):
                    beside.update(bins.get(number + step, ()))
        if alike:
            others = [log[place].left_ms for places in bins.values() for place in places if place not in beside]
            due = math.fsum(usual_of.values())
            found.update(_honest_around(log, alike, others, due))
        close |= beside
    return found, core, close


def _honest_around(
    log: Sequence[Visit], alike: set[int], others: Sequence[int], due: float
) -> Iterator[tuple[int, float]]:
    """Yield each visit of one stay of many with the share of honest ones expected among those that ended around it.

    `due` honest visits of that stay are expected in the whole log; they come as the channel's `others` come (ends, ms),
    while an attack has its own time: who stays as long before or after it, is no part of it.
    """
    moments, usual = sorted(log[place].left_ms for place in alike), sorted(others)

    def between(ends: Sequence[int], at_ms: int) -> int:
        return bisect_right(ends, at_ms + AROUND_MS) - bisect_left(ends, at_ms - AROUND_MS)

    for place in sorted(alike):
        at_ms = log[place].left_ms
        n_due = due * (between(usual, at_ms) + 1) / (len(usual) + 1)
        n_others = between(moments, at_ms) - 1  # the visit itself says nothing about the company it is in
        yield place, min(HONEST_MOST, max(HONEST_LEAST, (n_due + 1) / (max(n_due, n_others) + 1)))


# -- a pool ---------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A channel's visits with one trait, and what honest ones would be like."""

    log: Sequence[Visit]
    pool: list[int]
    trait: str
    n_plain: int
    """Users of the channel in the log that no trait speaks against."""
    expected: Reference
    now_ms: int
    more: Sequence[int] = ()
    """Visits that are condemned or cleared with the pool, and by which it is not tried."""
    honest_around: Mapping[int, float] = {}
    """Of visits that are their own source: the share of honest ones expected around each."""

    @property
    def n_usual(self) -> float:
        """Return how many users of the pool would be honest ones."""
        usual = {"device": self.expected.device, "block": self.expected.block}.get(self.trait, HONEST_LEAST)
        return self.n_plain * usual / (1.0 - usual)

    def source(self, place: int) -> int:
        """Return what is condemned or cleared as a whole: a device, a block, a user, or the visit alone."""
        visit = self.log[place]
        return {"device": visit.device, "block": visit.block, "clock": visit.user}.get(self.trait, place)


class Tables(NamedTuple):
    """A pool's visits by stay and outcome, and how many honest ones would be there."""

    stays: list[int]
    outcomes: list[int]
    due_stays: list[float]
    due_outcomes: list[float]


def tables(case: Case) -> Tables:
    """Count a pool; what is due is summed visit by visit, given when each began and how long it was."""
    made = Tables([0] * N_STAYS, [0] * N_OUTCOMES, [0.0] * N_STAYS, [0.0] * N_OUTCOMES)
    for place in case.pool:
        visit = case.log[place]
        stay = visit.stay
        made.stays[stay] += 1
        made.outcomes[visit.outcome] += 1
        for number, share in enumerate(case.expected.outcome[stay]):
            made.due_outcomes[number] += share
        for number, share in enumerate(case.expected.stays_by(age_ms(visit, case.now_ms))):
            made.due_stays[number] += share
    return made


def age_ms(visit: Visit, now_ms: int) -> int:
    """Return how long ago a visit began."""
    return max(now_ms - visit.left_ms, 0) + visit.dwell_ms


def _proven(case: Case, marks: Mapping[int, int]) -> int:
    """Return the families against those of a pool who were found before, 0 unless they are half of it: one attack.

    While it goes on, evidence just over the bar may fall just under it: it is not asked for anew.
    """
    known = [marks[user] for place in case.pool if (user := case.log[place].user) in marks]
    return functools.reduce(operator.or_, known, 0) if 2 * len(known) >= len(case.pool) else 0


def judge(case: Case, settings: QualitySettings, proven: int = 0) -> tuple[list[int], int]:
    """Return the invalid visits of a pool, none unless two families agree, and the families.

    `proven` are families that spoke against the same pool before.
    """
    n, bar, least = len(case.pool), settings.evidence_nats, settings.least_difference
    is_source, seen = case.trait in ("device", "block"), tables(case)
    families = proven if is_source else proven | RATE
    n_users = len({case.log[place].user for place in case.pool})
    if is_source and surplus(n_users, max(case.n_usual, 1.0)) >= bar:
        families |= IDENTITY
    n_short = sum(case.log[place].dwell_ms <= settings.short_dwell_ms for place in case.pool)
    if case.trait == "device" and 2 * n_short >= n and _users_of_one(case) > settings.device_users:
        families |= RATE  # needs no comparison: nobody's phone is handed round every two seconds
    nats, size = divergence(seen.stays, [share / n for share in seen.due_stays], case.expected.n)
    if is_source and nats >= bar and size >= least:
        families |= RATE
    n_known = math.fsum(count * known for count, known in zip(seen.stays, case.expected.n_of_outcome, strict=True)) / n
    nats, size = divergence(seen.outcomes, [share / n for share in seen.due_outcomes], n_known)
    if nats >= bar and size >= 0.8 * least:
        families |= OUTCOME_FAMILY
    flags = [case.log[place].flags for place in case.pool]
    n_copied = sum(bool(flag & COPIED) for flag in flags)
    if n_copied >= settings.repeat_users and 2 * n_copied >= sum(bool(flag & TOOK_PART) for flag in flags):
        families |= CONTENT
    return (_condemned(case, seen) if families.bit_count() >= 2 else []), families


def _users_of_one(case: Case) -> int:
    """Return how many users the source with the most of them has."""
    users: dict[int, set[int]] = {}
    for place in case.pool:
        users.setdefault(case.source(place), set()).add(case.log[place].user)
    return max(len(some) for some in users.values())


def _condemned(case: Case, seen: Tables) -> list[int]:
    """Return the visits of the sources that are more like the pool's surplus than like honest ones.

    The surplus is what the pool has beyond its honest share; naive Bayes by stay and outcome.
    """
    log, expected, n = case.log, case.expected, len(case.pool)
    around = case.honest_around
    honest = math.fsum(around[place] for place in case.pool) / n if around else _honest(case.n_usual, n)
    like_stay = _surplus_shares(seen.stays, seen.due_stays, honest)
    like_outcome = _surplus_shares(seen.outcomes, seen.due_outcomes, honest)

    def ratio(visit: Visit) -> float:
        stay, outcome = visit.stay, visit.outcome
        usual = max(expected.stays_by(age_ms(visit, case.now_ms))[stay], 1e-3)
        nats = math.log(like_stay[stay] / usual)
        nats += math.log(like_outcome[outcome] / expected.outcome[stay][outcome])
        return max(-CLIP, min(CLIP, nats))

    pool = case.more or case.pool
    ratios = {place: ratio(log[place]) for place in pool}
    score: dict[int, float] = {}
    users: dict[int, set[int]] = {}
    for place in pool:
        source = case.source(place)
        score[source] = score.get(source, 0.0) + ratios[place]
        users.setdefault(source, set()).add(log[place].user)
    # Two on one phone are a household, as many as there usually are; three and more are something else.
    n_of_two = sum(len(users[case.source(place)]) == 2 for place in pool)
    for source in score:
        part = honest
        if case.trait == "device":
            is_two = len(users[source]) == 2
            part = _honest(case.n_usual * (0.8 if is_two else 0.2), n_of_two if is_two else n - n_of_two)
            score[source] -= HOUSEHOLD if is_two else 0.0
        part = case.honest_around.get(source, part)
        score[source] += math.log((1.0 - part) / part)
    # Honest people may share a bot's address or happen to stay as long; nobody shares a bot's phone or clock.
    strict = case.trait in ("device", "clock")
    return [
        place
        for place in pool
        if score[case.source(place)] > 0 and (strict or not (log[place].flags & PAID or ratios[place] <= CONTRARY))
    ]


def _honest(n_usual: float, n: int) -> float:
    return min(HONEST_MOST, max(HONEST_LEAST, n_usual / n))


def _surplus_shares(counts: Sequence[int], due: Sequence[float], honest: float) -> list[float]:
    n = math.fsum(due)
    surpluses = [max(count - honest * share, 0.0) + share / n for count, share in zip(counts, due, strict=True)]
    total = math.fsum(surpluses)
    return [share / total for share in surpluses]
