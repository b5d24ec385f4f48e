"""The sentiment model as it was first written: plain, slow, and the measure of the fast one.

It shares the word lists, the trained table and its constants with `pipeline.sentiment`, and nothing else: every term is
looked up by slicing, the evidence is weighed by one small method a kind, and every n-gram is hashed by itself.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from math import isqrt
from string import ascii_lowercase, digits
from typing import Final, Generic, NamedTuple, TypeVar

from pipeline.sentiment import TOPICS, Entry, Sentiment
from pipeline.sentiment.grams import read_weights
from pipeline.sentiment.model import EVEN_MARGIN, LEXICON_CHARACTERS, SHORT_CHARACTERS, read_lexicon
from pipeline.sentiment.topics import read_topics

# Characters that print nothing: people and bots put them between letters to slip past word lists. C0/C1 controls except
# white space, soft hyphen, zero-width and bidi marks, variation selectors, tag characters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]+"
)
_RUN = re.compile(r"(.)\1\1+")


def _cut(run: re.Match[str]) -> str:
    """Return a run of one character at its fixed length: words double a letter, laughter and numbers treble a sign."""
    char = run[1]
    return char * 2 if "a" <= char <= "z" else char * 3


def normalise(text: str) -> str:
    """Return ``text`` in NFKC and lower case, without invisible characters, with repeats cut to a fixed length.

    A Latin letter repeats at most twice ("goooood" is "good"), anything else three times ("哈哈哈哈哈" is "哈哈哈",
    "66666" is "666"), so that emphasis is one term and not thousands. Traditional characters stay as they are.
    The result is a fixed point: normalising twice changes nothing. Any string is accepted, lone surrogates too.

    >>> normalise("ＳＯＯＯＯ　好\u200b好！！！！！")
    'soo 好好!!!'
    """
    text = _INVISIBLE.sub("", text)
    if text.isascii():
        text = text.lower()
    else:
        # Invisible characters had to go first: a joiner between a letter and its accent hides a composition from NFKC.
        # Lower case comes between two compositions, because a capital can have a composed form where its small letter
        # has none, and the other way round.
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower()).replace("’", "'")
    return _RUN.sub(_cut, " ".join(text.split()))


Payload = TypeVar("Payload")
_LETTERS = frozenset(ascii_lowercase)
_DIGITS = frozenset(digits)
_WORD = _LETTERS | _DIGITS


class TermIndex(Generic[Payload]):
    """Find, from left to right, the longest terms of a normalised text and what hangs on each.

    Lookups go by first character and then by the few lengths that its terms have: a slice and a dictionary answer
    faster than one regular expression of two thousand alternatives, and never backtrack. A Latin word or a number
    only matches whole; Chinese is written without spaces and matches anywhere.
    """

    def __init__(self, terms: Mapping[str, Payload]) -> None:
        self._terms = dict(terms)
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for term in terms:
            lengths[term[0]].add(len(term))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def find(self, text: str) -> list[tuple[Payload, int, int]]:
        """Return payload, start and end of every term found; terms do not overlap."""
        found: list[tuple[Payload, int, int]] = []
        lengths, terms = self._lengths, self._terms
        start, size = 0, len(text)
        while start < size:
            first = text[start]
            if first in lengths and (first not in _WORD or start == 0 or not _joined(text[start - 1], first)):
                for length in lengths[first]:
                    end = start + length
                    term = text[start:end]
                    if term in terms and (end >= size or term[-1] not in _WORD or not _joined(term[-1], text[end])):
                        found.append((terms[term], start, end))
                        start = end - 1
                        break
            start += 1
        return found


def _joined(left: str, right: str) -> bool:
    """Tell whether two neighbours belong to one word or number, so that no term may begin or end between them."""
    if right in _LETTERS:
        return left in _WORD or left == "'"
    return right in _DIGITS and (left in _DIGITS or left == ".")


_UNIT: Final = 100  # one step of weight, so that halves and fifths of it stay whole
_PRIOR: Final = 3 * _UNIT  # evidence that one comment must outweigh before it counts as an opinion
_CJK_SCOPE: Final = 4  # characters between a Chinese negator and the word it turns round
_LATIN_SCOPE: Final = 4  # spaces between an English negator and the word it turns round
_REPEATABLE: Final = frozenset({"word", "face"})
_STOPS: Final = ",.!;:~。、\n"
# A space ends a clause in Chinese only, where it becomes a line break, which no normalised text has.
_CJK_SPACE: Final = re.compile(r" (?<=[^\x00-\x7f] )(?=[^\x00-\x7f])")

# 贵不贵 and 好看不好看 ask, and are read as the lexicon's 好不好.
# 不错不错 only repeats itself, and 动不动 means "all the time".
_A_NOT_A: Final = re.compile(r"(?<!不)(?!动不动)(\w\w?)不\1")


class Said(NamedTuple):
    """What the lexicon says of a text."""

    lean: int
    confidence: int
    is_silenced: bool
    is_mixed: bool


class SentimentModel:
    """Weigh the terms of a lexicon, with negation, emphasis, contrast and questions.

    Only integers are added and compared, so that every machine gives the same answer for the same text.

    Parameters
    ----------
    entries
        What each normalised term does. ``word`` carries opinion; ``more`` strengthens the word right after it and else
        counts itself; ``not`` turns round the next word of its clause; ``but`` halves what came before; ``ask`` and
        ``query`` make their clause a question; ``chat`` hides the opinion words inside it (好 in 你好); ``spam``
        silences the comment; ``face`` is an emoji or emoticon, which stands outside grammar.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        weighed = {term: Entry(kind, weight * _UNIT) for term, (kind, weight) in entries.items()}
        self._index = TermIndex(weighed | {stop: Entry("stop", 0) for stop in _STOPS})

    def said(self, norm: str) -> Said:
        """Return what the terms of a normalised text come to."""
        if not norm.isascii():
            norm = _CJK_SPACE.sub("\n", norm)
            if "不" in norm:
                norm = _A_NOT_A.sub("好不好", norm)
        weighing = _Weighing(norm)
        last: Entry | None = None
        for entry, start, end in self._index.find(norm):
            if entry is last and entry.kind in _REPEATABLE:
                continue  # 算了算了 says no more than 算了
            last = entry
            weighing.take(entry.kind, entry.weight, start, end)
        return weighing.result()


class _Weighing:
    """The evidence of one comment while its terms are read from left to right."""

    __slots__ = (
        "ask",
        "asked",
        "chat",
        "clause_against",
        "clause_for",
        "clause_start",
        "hint",
        "more_end",
        "more_start",
        "more_value",
        "not_end",
        "not_value",
        "spam",
        "text",
        "total_against",
        "total_for",
    )

    def __init__(self, text: str) -> None:
        self.text = text
        self.total_for = self.total_against = 0  # closed clauses
        self.clause_for = self.clause_against = 0  # the open one
        self.clause_start = 0
        self.hint = 0  # moves the best guess, never the confidence
        self.ask = 0  # 1: a question if the clause ends in "?", 2: a question
        self.not_end = self.more_end = -1  # where a waiting negator or intensifier ended
        self.more_start = self.more_value = self.not_value = 0
        self.spam = self.asked = self.chat = False

    def take(self, kind: str, value: int, start: int, end: int) -> None:
        """Weigh the next term, which stands at ``start:end``."""
        if kind == "word":
            if self.more_end >= 0:
                if start - self.more_end <= 1:
                    value = value * 3 // 2
                    self.more_end = -1
                else:
                    self._settle_more()
            self._word(value, start)
            return
        self._settle_more()
        if kind == "face":
            self._add(value)
        elif kind == "stop":
            self._end_clause(end)
        elif kind == "more":
            self.more_start, self.more_end, self.more_value = start, end, value
        elif kind == "not":
            if self._negated(start):
                self.not_end = -1  # 不是没: two negators cancel
            else:
                self._settle_not()
                self.not_end, self.not_value = end, value
        elif kind == "ask":
            self._ask(value, start)
        elif kind == "query":
            if self.ask or self.clause_for >= self.clause_against:
                self.ask = 2  # 为什么卡? keeps its complaint, 好用? is only asked
            self._end_clause(end)
        elif kind == "but":
            self._end_clause(end)
            self.total_for //= 2
            self.total_against //= 2
        elif kind == "spam":
            self.spam = True
        elif kind == "chat":
            self.chat = True

    def result(self) -> Said:
        """Close the last clause and return what the comment comes to."""
        self._settle_more()
        self._end_clause(len(self.text))
        evidence = self.total_for - self.total_against
        lean = evidence + self.hint
        if self.spam or evidence * lean <= 0:
            confidence = 0
        else:
            confidence = 1000 * abs(evidence) // (self.total_for + self.total_against + _PRIOR)
        is_silenced = self.spam or self.asked or (self.chat and evidence == 0)
        return Said(lean, confidence, is_silenced, bool(self.total_for and self.total_against) and confidence < 500)

    def _word(self, value: int, start: int) -> None:
        is_hint = -_UNIT <= value <= _UNIT
        if self._negated(start):
            # Not good is nearly bad; not bad is only a little good.
            value = -value * 4 // 5 if value > 0 else -value // 2
            self.not_end = -1
        if is_hint:
            self.hint += value
        else:
            self._add(value)

    def _add(self, value: int) -> None:
        if value > 0:
            self.clause_for += value
        else:
            self.clause_against -= value

    def _ask(self, value: int, start: int) -> None:
        self.hint += value
        # "is it" asks at the head of a clause; inside one ("the worst thing is it broke") only with a question mark.
        inside = self.text[start].isascii() and self.text[self.clause_start : start].strip() != ""
        self.ask = max(self.ask, 1 if inside else 2)

    def _negated(self, start: int) -> bool:
        end = self.not_end
        if end < 0:
            return False
        if self.text[end - 1].isascii():
            return self.text.count(" ", end, start) <= _LATIN_SCOPE
        return start - end <= _CJK_SCOPE

    def _settle_more(self) -> None:
        """Count an intensifier that no word followed as a word of its own (好 alone, 太…了)."""
        if self.more_end >= 0:
            self.more_end = -1
            self._word(self.more_value, self.more_start)

    def _settle_not(self) -> None:
        """Count a negator that turned nothing round as a hint of complaint."""
        if self.not_end >= 0:
            self.hint += self.not_value
            self.not_end = -1

    def _end_clause(self, end: int) -> None:
        self._settle_not()
        if self.ask == 2:
            self.asked = True
            self.hint += (self.clause_for - self.clause_against) // 2
        else:
            self.total_for += self.clause_for
            self.total_against += self.clause_against
        self.clause_for = self.clause_against = self.ask = 0
        self.clause_start = end


@cache
def _model() -> SentimentModel:
    return SentimentModel(read_lexicon())


@cache
def _index() -> TermIndex[str]:
    return TermIndex(read_topics())


_HAN: Final = re.compile("[一-鿿]")
_CLAUSE: Final = re.compile(r"[^,.!?;:~。、… ]+")


def _hashed(gram: str) -> int:
    """Return an n-gram's 32-bit hash."""
    rolling = 0
    for char in gram:
        rolling = (rolling * 0x85EBCA6B ^ ord(char) * 0x9E3779B1) % 2**32
    return rolling * 0xC2B2AE35 % 2**32


def _grams(text: str, longest: int) -> list[int]:
    return [_hashed(text[at : at + n]) for n in range(1, longest + 1) for at in range(len(text) - n + 1)]


def weigh_grams(norm: str) -> tuple[int, int]:
    """Return the sum of what the table says of a text's n-grams, and how many there are."""
    weights = read_weights()
    edged = f"\x02{norm[:2048]}\x02"
    values = [int(weights.base[gram >> 10]) for gram in _grams(edged, 4)]
    edge = int(weights.base[_hashed("\x02") >> 10])
    total, n_grams = sum(values) - 2 * edge, len(values) - 2
    clauses = _CLAUSE.findall(norm[:2048])
    if clauses:
        for clause, table in ((clauses[0], weights.first), (clauses[-1], weights.last)):
            inside = [int(table[gram >> 12]) for gram in _grams(clause, 3)]
            total, n_grams = total + sum(inside), n_grams + len(inside)
    return total, n_grams


def score(text: str) -> Sentiment:
    """Return the leaning of one comment by the package's own lexicon and table."""
    norm = normalise(text)
    if not norm:
        return Sentiment(0, 0)
    is_chinese = _HAN.search(norm) is not None
    seen = norm
    if is_chinese and len(norm) > 2 * LEXICON_CHARACTERS:
        seen = f"{norm[:LEXICON_CHARACTERS]}. {norm[-LEXICON_CHARACTERS:]}"
    said = _model().said(seen)
    by_lexicon = 1000 * abs(said.lean) // (abs(said.lean) + _PRIOR)
    alone = Sentiment(by_lexicon if said.lean > 0 else -by_lexicon, said.confidence)
    if said.lean and not is_chinese:
        return alone
    total, n_grams = weigh_grams(norm)
    vote = total + (1 if said.lean > 0 else -1) * (abs(said.lean) * 8 // 5)
    side = 1 if vote > 0 else -1
    agrees = said.lean * side > 0
    is_short = len(norm) <= SHORT_CHARACTERS
    is_sure = said.confidence >= 500
    if is_sure and not agrees and is_short:
        return alone
    margin = abs(vote) * 1000 // isqrt(1_000_000 * n_grams)
    strength = 1000 * margin // (margin + EVEN_MARGIN)
    size = max(strength, by_lexicon if agrees else 1)
    if is_sure:
        return Sentiment(side * size, max(said.confidence, strength) if agrees else min(strength, 499))
    if said.is_silenced or not is_chinese:
        return Sentiment(side * size, 0)
    margin //= 2 if said.is_mixed or is_short else 1
    return Sentiment(side * size, 1000 * margin // (margin + EVEN_MARGIN))


def topics(text: str) -> tuple[str, ...]:
    """Return the topics that a comment names, in their order."""
    named = {topic for topic, _, _ in _index().find(normalise(text))}
    return tuple(topic for topic in TOPICS if topic in named)
