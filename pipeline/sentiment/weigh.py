"""Weigh the terms of one comment against each other: negation, emphasis, contrast, questions."""

from typing import Final, Literal, NamedTuple

Kind = Literal["word", "more", "not", "but", "ask", "query", "chat", "spam", "face", "stop"]

UNIT: Final = 100  # one step of weight, so that halves and fifths of it stay whole
OPINION_MILLI: Final = 500
"""Confidence below which there is no opinion."""
PRIOR: Final = 3 * UNIT  # evidence that one comment must outweigh before it counts as an opinion
_CJK_SCOPE: Final = 4  # characters between a Chinese negator and the word it turns round
_LATIN_SCOPE: Final = 4  # spaces between an English negator and the word it turns round

# The kinds as numbers, in the order in which `weigh` tells them apart: what counts once when repeated, then emphasis,
# then what ends a clause, then the rest.
_WORD, _FACE, _MORE, _STOP, _QUERY, _BUT, _NOT, _ASK, _SPAM, _CHAT = range(10)
_CODES: Final[dict[Kind, int]] = {
    "word": _WORD,
    "face": _FACE,
    "more": _MORE,
    "stop": _STOP,
    "query": _QUERY,
    "but": _BUT,
    "not": _NOT,
    "ask": _ASK,
    "spam": _SPAM,
    "chat": _CHAT,
}


class Sentiment(NamedTuple):
    """One comment's leaning.

    ``score_milli`` is -1000 (against) to 1000 (for); its sign is the best guess even where the model abstains, and 0
    means that nothing pointed either way. ``confidence_milli`` is 0 to 1000; below 500 the model abstains: no opinion,
    a question, small talk, spam, or evidence that cancels out.
    """

    score_milli: int
    confidence_milli: int


Term = tuple[int, int]
"""What `weigh` reads of a term: a code of its kind, and its weight in hundredths of a step.

Each term has an object of its own, which is how a repeated one is known; equal ones may be different terms.
"""


def term_of(kind: Kind, weight: int) -> Term:
    """Return a new object for the term of a lexicon's entry."""
    return _CODES[kind], weight * UNIT


class Weighed(NamedTuple):
    """What the words of a lexicon say of a comment.

    ``lean`` is evidence and hints in hundredths of a step, above 0 for; ``confidence_milli`` is as in `Sentiment`;
    ``is_silenced`` says that the comment asks something, is spam or small talk, so that what else it holds
    is no opinion; ``is_mixed`` that it praises and blames, and neither clearly more.
    """

    lean: int
    confidence_milli: int
    is_silenced: bool
    is_mixed: bool


SILENT: Final = Weighed(0, 0, is_silenced=False, is_mixed=False)


def weigh(text: str, found: list[tuple[Term, int, int]]) -> Weighed:  # noqa: PLR0915 - calls would cost more
    """Return what the terms `found` in `text`, from left to right with start and end, come to.

    One loop over plain variables: a comment has a handful of terms, and a call for each costs more than the sums.
    """
    total_for = total_against = 0  # closed clauses
    clause_for = clause_against = clause_start = 0  # the open one
    hint = 0  # moves the best guess, never the confidence
    ask = 0  # 1: a question if the clause ends in "?", 2: a question
    not_end, not_value = -1, 0  # where a waiting negator ended, and what it says if it turns nothing round
    is_boosted = is_spam = has_asked = has_chat = False
    last: Term | None = None
    place = 0
    for term, start, end in found:
        place += 1
        code, value = term
        if code <= _FACE and term is last:
            continue  # 算了算了 says no more than 算了
        last = term
        if code <= _MORE:
            if code == _WORD:
                if is_boosted:
                    is_boosted = False
                    value = value * 3 // 2
            elif code == _FACE:  # stands outside grammar
                if value > 0:
                    clause_for += value
                else:
                    clause_against -= value
                continue
            elif place < len(found):
                following, its_start, _ = found[place]
                if following[0] == _WORD and its_start - end <= 1:
                    is_boosted = True
                    continue
            # A word, or an intensifier that no word follows at once and that counts as one (好 alone, 太…了).
            is_hint = -UNIT <= value <= UNIT
            if not_end >= 0 and _reaches(text, not_end, start):
                # Not good is nearly bad; not bad is only a little good.
                value = -value * 4 // 5 if value > 0 else -value // 2
                not_end = -1
            if is_hint:
                hint += value
            elif value > 0:
                clause_for += value
            else:
                clause_against -= value
        elif code <= _BUT:
            if code == _QUERY and (ask or clause_for >= clause_against):
                ask = 2  # 为什么卡? keeps its complaint, 好用? is only asked
            if not_end >= 0:  # a negator that turned nothing round hints at a complaint
                hint += not_value
                not_end = -1
            if ask == 2:
                has_asked = True
                hint += (clause_for - clause_against) // 2
            else:
                total_for += clause_for
                total_against += clause_against
            if code == _BUT:
                total_for //= 2
                total_against //= 2
            clause_for = clause_against = ask = 0
            clause_start = end
        elif code == _NOT:
            if not_end >= 0 and _reaches(text, not_end, start):
                not_end = -1  # 不是没: two negators cancel
            else:
                if not_end >= 0:
                    hint += not_value
                not_end, not_value = end, value
        elif code == _ASK:
            hint += value
            # "is it" asks at the head of a clause; inside one ("the worst thing is it broke") only with a question
            # mark.
            if not text[start].isascii() or not text[clause_start:start].strip():
                ask = 2
            elif not ask:
                ask = 1
        elif code == _SPAM:
            is_spam = True
        else:
            has_chat = True
    if not_end >= 0:
        hint += not_value
    if ask == 2:
        has_asked = True
        hint += (clause_for - clause_against) // 2
    else:
        total_for += clause_for
        total_against += clause_against
    evidence = total_for - total_against
    lean = evidence + hint
    confidence = 0
    if evidence * lean > 0 and not is_spam:
        confidence = 1000 * abs(evidence) // (total_for + total_against + PRIOR)
    is_mixed = total_for > 0 < total_against and confidence < OPINION_MILLI
    return Weighed(lean, confidence, is_spam or has_asked or (has_chat and evidence == 0), is_mixed)


def _reaches(text: str, not_end: int, start: int) -> bool:
    """Tell whether a negator that ended at `not_end` still turns round what begins at `start`."""
    if text[not_end - 1].isascii():
        return text.count(" ", not_end, start) <= _LATIN_SCOPE
    return start - not_end <= _CJK_SCOPE
