"""Say of one comment whether it is for or against, and when not to say anything."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple, get_args

from pipeline.sentiment.normalise import normalise
from pipeline.sentiment.terms import TermIndex, read_table
from pipeline.sentiment.topics import topics_normalised
from pipeline.sentiment.weigh import Kind, Sentiment, term_of, weigh

_FILE_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in get_args(Kind) if kind != "stop"}

LEXICON_FILE: Final = "lexicon.tsv"
MAX_WEIGHT: Final = 9
MAX_RECENT: Final = 4_096
"""Readings in each of the two generations that are remembered: four megabytes at the most."""
MAX_RECENT_CHARACTERS: Final = 40
"""Longer texts are not remembered: they seldom come twice."""

_STOPS: Final = ",.!;:~。、\n"
# A space ends a clause in Chinese only, where it becomes a line break, which no normalised text has.
_CJK_SPACE: Final = re.compile(r" (?<=[^\x00-\x7f] )(?=[^\x00-\x7f])")

# 贵不贵 and 好看不好看 ask, and are read as the lexicon's 好不好.
# 不错不错 only repeats itself, and 动不动 means "all the time".
_A_NOT_A: Final = re.compile(r"(?<!不)(?!动不动)(\w\w?)不\1")


class Entry(NamedTuple):
    """What a term does; ``weight`` is -9 to 9, where 1 is a hint that never makes an opinion by itself."""

    kind: Kind
    weight: int


class Reading:
    """Everything that is known of one comment's text: its spelling, its leaning, what it is about."""

    __slots__ = ("_topics", "confidence_milli", "norm", "score_milli")

    def __init__(self, norm: str, score_milli: int, confidence_milli: int) -> None:
        self.norm = norm
        self.score_milli = score_milli
        self.confidence_milli = confidence_milli
        self._topics: tuple[str, ...] | None = None

    @property
    def topics(self) -> tuple[str, ...]:
        """What the comment is about; worked out when first asked for, because few comments are asked."""
        if self._topics is None:
            self._topics = topics_normalised(self.norm)
        return self._topics


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
        terms = {term: term_of(kind, weight) for term, (kind, weight) in entries.items()}
        self._index = TermIndex(terms | {stop: term_of("stop", 0) for stop in _STOPS})
        self._young: dict[str, Reading] = {}
        self._old: dict[str, Reading] = {}

    def read(self, text: str) -> Reading:
        """Return spelling, leaning and topics of one comment, from memory where the same text came lately.

        Live chat says the same few things over and over. What is remembered changes no answer, belongs to no
        snapshot, and is bounded: `MAX_RECENT` texts twice, of `MAX_RECENT_CHARACTERS` characters at most.
        """
        reading = self._young.get(text)
        if reading is None:
            reading = self._old.get(text)
            if reading is None:
                norm = normalise(text)
                reading = Reading(norm, *self._weighed(norm))
            if len(text) <= MAX_RECENT_CHARACTERS:
                if len(self._young) >= MAX_RECENT:
                    self._young, self._old = {}, self._young
                self._young[text] = reading
        return reading

    def score(self, text: str) -> Sentiment:
        """Return the leaning of one comment; blank text is (0, 0), and no string is refused.

        >>> default_model().score("质量不错，下次还会来")
        Sentiment(score_milli=785, confidence_milli=785)
        >>> default_model().score("这个多少钱？").confidence_milli
        0
        """
        return Sentiment(*self._weighed(normalise(text)))

    def score_normalised(self, norm: str) -> Sentiment:
        """Return the leaning of a text that `normalise` returned; of any other, an answer that means nothing."""
        return Sentiment(*self._weighed(norm))

    def _weighed(self, norm: str) -> tuple[int, int]:
        if not norm.isascii():
            if " " in norm:
                norm = _CJK_SPACE.sub("\n", norm)
            if "不" in norm:
                norm = _A_NOT_A.sub("好不好", norm)
        found = self._index.find(norm)
        return weigh(norm, found) if found else (0, 0)


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
