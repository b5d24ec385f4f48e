"""Say of one comment whether it is for or against, and when not to say anything."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Final, Literal, NamedTuple, get_args

from pipeline.sentiment.normalise import normalise
from pipeline.sentiment.terms import TermIndex, read_table

Kind = Literal["word", "more", "not", "but", "ask", "query", "chat", "spam", "face", "stop"]

_FILE_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in get_args(Kind) if kind != "stop"}

LEXICON_FILE: Final = "lexicon.tsv"
MAX_WEIGHT: Final = 9

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


class Sentiment(NamedTuple):
    """One comment's leaning.

    ``score_milli`` is -1000 (against) to 1000 (for); its sign is the best guess even where the model abstains, and 0
    means that nothing pointed either way. ``confidence_milli`` is 0 to 1000; below 500 the model abstains: no opinion,
    a question, small talk, spam, or evidence that cancels out.
    """

    score_milli: int
    confidence_milli: int


class Entry(NamedTuple):
    """What a term does; ``weight`` is -9 to 9, where 1 is a hint that never makes an opinion by itself."""

    kind: Kind
    weight: int


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

    def score(self, text: str) -> Sentiment:
        """Return the leaning of one comment; blank text is (0, 0), and no string is refused.

        >>> default_model().score("质量不错，下次还会来")
        Sentiment(score_milli=785, confidence_milli=785)
        >>> default_model().score("这个多少钱？").confidence_milli
        0
        """
        norm = normalise(text)
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
        self.spam = False

    def take(self, kind: Kind, value: int, start: int, end: int) -> None:
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

    def result(self) -> Sentiment:
        """Close the last clause and return what the comment comes to."""
        self._settle_more()
        self._end_clause(len(self.text))
        evidence = self.total_for - self.total_against
        lean = evidence + self.hint
        size = 1000 * abs(lean) // (abs(lean) + _PRIOR)
        if self.spam or evidence * lean <= 0:
            confidence = 0
        else:
            confidence = 1000 * abs(evidence) // (self.total_for + self.total_against + _PRIOR)
        return Sentiment(size if lean > 0 else -size, confidence)

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
            self.hint += (self.clause_for - self.clause_against) // 2
        else:
            self.total_for += self.clause_for
            self.total_against += self.clause_against
        self.clause_for = self.clause_against = self.ask = 0
        self.clause_start = end


def read_lexicon() -> dict[str, Entry]:
    """Return the package's lexicon by term; ValueError says which row of the file breaks which rule."""
    entries: dict[str, Entry] = {}
    for term, kind, weight in read_table(LEXICON_FILE, ("term", "kind", "weight")):
        if kind not in _FILE_KINDS:
            raise ValueError(f"{LEXICON_FILE}: the kind of {term!r} must be one of {_FILE_KINDS}, got {kind!r}")
        if not (weight.lstrip("-").isdecimal() and abs(int(weight)) <= MAX_WEIGHT):
            raise ValueError(f"{LEXICON_FILE}: the weight of {term!r} must be -9 to 9, got {weight!r}")
        if not term or normalise(term) != term or term in entries:
            raise ValueError(f"{LEXICON_FILE}: {term!r} must be normalised and stand once; merge or respell it")
        entries[term] = Entry(_FILE_KINDS[kind], int(weight))
    return entries


@cache
def default_model() -> SentimentModel:
    """Return the model of the package's own lexicon, read once a process."""
    return SentimentModel(read_lexicon())
