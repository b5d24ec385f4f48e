"""Which writers of a log of comments are invalid: scripts that stay and write, whatever else they do.

Two pools are looked at. Writers from shared address blocks (identity) who write more than others do (rate), or what
many write (content); and writers in lockstep (identity): the same hands under two and more texts that many wrote
(content). What a crowd writes within seconds, because the host asked for it, is an echo and says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from pipeline.quality.inquest import CLIP, CONTENT, IDENTITY, LEAST, OUTCOME_FAMILY, RATE, Guilt
from pipeline.quality.reference import PRIOR_SHARED, Past
from pipeline.quality.surprise import shortfall, surplus
from pipeline.quality.visits import CAME, CLICKED, COPIED, LIKED, PAID, Comment
from schemas.settings import QualitySettings

USUAL_COMMENTS: Final = 1.5
"""Comments of a writer where nothing is known; it counts for ten writers [choice]."""
USUAL_ACTING: Final = 0.3
"""Of writers, the share who like or click too where nothing is known; it counts for ten writers [choice]."""
ECHO_MS: Final = 5_000
"""A crowd answers within this time."""
LOCKSTEP_TEXTS: Final = 2
LOCKSTEP_SHARE: Final = 0.5
"""Of all who wrote either of two texts, those who wrote both."""
PURE_SHARE: Final = 0.7
"""Of what one in lockstep wrote, the share that others wrote too: a fan also says something of his own."""
MONOLOGUE_MS: Final = 60_000
"""From the first to the last copy of one's only text."""
LEAST_CHARACTERS: Final = 4
"""Of a text that may be in lockstep; shorter ones (666, 扣1) are everybody's."""
ACTED: Final = LIKED | CLICKED | PAID


def writers(log: Sequence[Comment], acts: Mapping[int, int], past: Past, settings: QualitySettings) -> dict[int, Guilt]:
    """Return the users whose comments are invalid, with the families that spoke against them."""
    found = monologues(log, acts, settings) | lockstep(log, settings) | farms(log, settings)
    for user, guilt in neighbours(log, acts, past, settings).items():
        found[user] = guilt
    return found


def neighbours(
    log: Sequence[Comment], acts: Mapping[int, int], past: Past, settings: QualitySettings
) -> dict[int, Guilt]:
    """Return users from shared blocks who write unlike those from blocks of their own."""
    n_of: dict[int, int] = {}
    copied_of: dict[int, int] = {}
    block_of: dict[int, int] = {}
    for comment in log:
        n_of[comment.user] = n_of.get(comment.user, 0) + 1
        copied_of[comment.user] = copied_of.get(comment.user, 0) + bool(comment.flags & COPIED)
        if comment.block:
            block_of[comment.user] = comment.block
    by_block: dict[int, list[int]] = {}
    for user, block in block_of.items():
        by_block.setdefault(block, []).append(user)
    crowded = {block: users for block, users in by_block.items() if len(users) >= 2}
    members = {user for users in crowded.values() for user in users}
    plain = [user for user in n_of if user not in members]
    if len(members) < LEAST or len(plain) < LEAST:
        return {}  # nobody to judge, or nobody to compare them with
    shared = (past.n_block + 50 * PRIOR_SHARED[1]) / (past.n + 50)
    n_usual = max(len(plain) * shared / (1.0 - shared), 1.0)
    side = Side(n_of, copied_of, acts, plain)
    # Honest neighbours behind a carrier hide the few blocks that a script writes from: those with surprisingly many
    # writers are judged by themselves first. How many write from a block says nothing about what honest ones do there.
    each = n_usual / len(crowded)
    standing = {block: users for block, users in crowded.items() if surplus(len(users), each) >= settings.evidence_nats}
    found: dict[int, Guilt] = {}
    if 0 < len(standing) < len(crowded):
        found = _against(standing, side, n_usual, settings)
    return found or _against(crowded, side, n_usual, settings)


class Side(NamedTuple):
    """What each writer wrote and did, and who of them speaks for the usual."""

    n_of: Mapping[int, int]
    copied_of: Mapping[int, int]
    acts: Mapping[int, int]
    plain: Sequence[int]


def _against(
    blocks: Mapping[int, Sequence[int]], side: Side, n_usual: float, settings: QualitySettings
) -> dict[int, Guilt]:
    """Return the users of the blocks that are more like these blocks' surplus of writers than like others."""
    n_of, copied_of, acts, plain = side
    pool = [user for users in blocks.values() for user in users]
    if len(pool) < LEAST:
        return {}
    n_plain = sum(n_of[user] for user in plain)
    usual = (n_plain + 10 * USUAL_COMMENTS) / (len(plain) + 10)
    usual_copied = (sum(copied_of[user] for user in plain) + 1.0) / (n_plain + 10.0)
    families, bar = 0, settings.evidence_nats
    n_pool = sum(n_of[user] for user in pool)
    n_copied = sum(copied_of[user] for user in pool)
    # What is usual is known from few: a pool must stand out against all it could honestly be.
    usual += 2.0 * math.sqrt(usual / (len(plain) + 10))
    if surplus(len(pool), n_usual) >= bar:
        families |= IDENTITY
    if surplus(n_pool, len(pool) * usual) >= bar:
        families |= RATE
    if n_copied >= settings.repeat_users and surplus(n_copied, n_pool * min(1.0, 2.0 * usual_copied)) >= bar:
        families |= CONTENT
    n_acting = sum(bool(acts.get(user, 0) & ACTED) for user in pool)
    n_plain_acting = sum(bool(acts.get(user, 0) & ACTED) for user in plain)
    usual_acting = (n_plain_acting + 10 * USUAL_ACTING) / (len(plain) + 10)
    usual_acting -= math.sqrt(usual_acting * (1.0 - usual_acting) / (len(plain) + 10))
    if shortfall(n_acting, len(pool) * usual_acting) >= bar:
        families |= OUTCOME_FAMILY
    if not families & IDENTITY or families.bit_count() < 2:
        return {}
    honest = min(0.9, max(0.02, n_usual / len(pool)))
    prior = math.log((1.0 - honest) / honest)
    like = Manner(n_pool / len(pool), min(0.98, max(0.02, n_copied / n_pool)))
    others = Manner(usual, min(usual_copied, 0.98))
    found: dict[int, Guilt] = {}
    for users in blocks.values():
        score = prior
        for user in users:
            score += max(-CLIP, min(CLIP, like.nats(n_of[user], copied_of[user], others)))
        if score > 0:
            found.update((user, Guilt(families, "block")) for user in users)
    return found


class Manner(NamedTuple):
    """How people write: comments a writer, and the share of them that are copies."""

    comments: float
    copied: float

    def nats(self, n: int, copied: int, others: Manner) -> float:
        """Return the log likelihood ratio, against others, of one who wrote `n` comments, some of them copied."""
        more, usual = max(self.comments - 1.0, 0.05), max(others.comments - 1.0, 0.05)
        nats = (n - 1) * math.log(more / usual) - (self.comments - others.comments)
        nats += copied * math.log(self.copied / others.copied)
        return nats + (n - copied) * math.log((1.0 - self.copied) / (1.0 - others.copied))


def farms(log: Sequence[Comment], settings: QualitySettings) -> dict[int, Guilt]:
    """Return the users of devices that more of them wrote from than a household has, what others wrote as well."""
    by_device: dict[int, list[Comment]] = {}
    for comment in log:
        if comment.device:
            by_device.setdefault(comment.device, []).append(comment)
    found: dict[int, Guilt] = {}
    for comments in by_device.values():
        users = {comment.user for comment in comments}
        n_copied = sum(bool(comment.flags & COPIED) for comment in comments)
        if len(users) > settings.device_users and 2 * n_copied >= len(comments):
            found.update((user, Guilt(IDENTITY | CONTENT, "device")) for user in sorted(users))
    return found


def lockstep(log: Sequence[Comment], settings: QualitySettings) -> dict[int, Guilt]:
    """Return users who wrote the same texts as the same others, not all at once."""
    who: dict[int, set[int]] = {}
    when: dict[int, list[int]] = {}
    wrote: dict[int, dict[int, int]] = {}
    n_of: dict[int, int] = {}
    for comment in log:
        if comment.n_characters < LEAST_CHARACTERS:
            continue
        n_of[comment.user] = n_of.get(comment.user, 0) + 1
        if comment.text:
            who.setdefault(comment.text, set()).add(comment.user)
            when.setdefault(comment.text, []).append(comment.at_ms)
            mine = wrote.setdefault(comment.user, {})
            mine[comment.text] = mine.get(comment.text, 0) + 1
    texts = [text for text, users in who.items() if len(users) >= settings.repeat_users and not is_echo(when[text])]
    pairs: dict[int, set[int]] = {text: set() for text in texts}
    for place, one in enumerate(texts):
        for other in texts[place + 1 :]:
            both = len(who[one] & who[other])
            if both >= settings.repeat_users and both >= LOCKSTEP_SHARE * min(len(who[one]), len(who[other])):
                pairs[one].add(other)
                pairs[other].add(one)
    found: dict[int, Guilt] = {}
    for user, mine in wrote.items():
        joined = [text for text in mine if pairs.get(text)]
        copied = [text for text in joined if any(text in pairs[other] for other in joined)]
        n_copied = sum(mine[text] for text in joined)
        if len(copied) >= LOCKSTEP_TEXTS and n_copied >= PURE_SHARE * n_of[user]:
            found[user] = Guilt(CONTENT | IDENTITY, "lockstep")
    return found


def monologues(log: Sequence[Comment], acts: Mapping[int, int], settings: QualitySettings) -> dict[int, Guilt]:
    """Return users without a visit who say one text, that many say, again and again and hardly anything else.

    A crowd that is asked for a pass phrase repeats it too, but it came to see something. Where a room's log has no
    visits at all, only what is said is left to judge by.
    """
    moments: dict[int, dict[int, list[int]]] = {}
    n_of: dict[int, int] = {}
    for comment in log:
        n_of[comment.user] = n_of.get(comment.user, 0) + 1
        if comment.text and comment.n_characters >= settings.min_repeat_characters:
            moments.setdefault(comment.text, {}).setdefault(comment.user, []).append(comment.at_ms)
    found: dict[int, Guilt] = {}
    for users in moments.values():
        speakers = [
            user
            for user, mine in users.items()
            if len(mine) >= settings.repeat_own
            and max(mine) - min(mine) >= MONOLOGUE_MS
            and len(mine) >= PURE_SHARE * n_of[user]
            and not acts.get(user, 0) & CAME
        ]
        if len(speakers) < settings.repeat_users:
            continue
        if 2 * len(speakers) >= len(users):  # the text is a script's: who has said it twice so far is one more
            speakers += [
                user
                for user, mine in users.items()
                if len(mine) >= 2 and len(mine) >= PURE_SHARE * n_of[user] and not acts.get(user, 0) & CAME
            ]
        found.update((user, Guilt(RATE | CONTENT, "monologue")) for user in speakers)
    return found


def is_echo(moments: Mapping[int, int] | Sequence[int]) -> bool:
    """Tell whether half of a text's moments lie within one answer's time: the host asked, the crowd said it."""
    ordered = sorted(moments)
    half = (len(ordered) + 1) // 2
    return any(ordered[place + half - 1] - ordered[place] <= ECHO_MS for place in range(len(ordered) - half + 1))
