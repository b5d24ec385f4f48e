"""Say of one comment whether it is for or against, and when not to say anything."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from math import isqrt
from typing import Final, NamedTuple, get_args

from pipeline.sentiment.grams import Weights, read_weights, weigh_many, weigh_one
from pipeline.sentiment.normalise import normalise
from pipeline.sentiment.terms import TermIndex, read_table
from pipeline.sentiment.topics import topics_normalised
from pipeline.sentiment.weigh import OPINION_MILLI, PRIOR, SILENT, Kind, Sentiment, Weighed, term_of, weigh

_FILE_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in get_args(Kind) if kind != "stop"}

LEXICON_FILE: Final = "lexicon.tsv"
MAX_WEIGHT: Final = 9
SHORT_CHARACTERS: Final = 12
"""Up to here a sure lexicon wins: where the two differ on so short a comment of the folds for choosing, n-grams were
right 21 times of 38."""
MAX_RECENT: Final = 4_096
"""Readings in each of the two generations that are remembered: four megabytes at the most."""
MAX_RECENT_CHARACTERS: Final = 40
"""Longer texts are not remembered: they seldom come twice."""

LEXICON_SHARE: Final = 8, 5
"""As 8 to 5: units of an n-gram's weight to hundredths of a lexicon's step. Of 0 to 8 units a hundredth, the folds for
choosing (`benchmarks.signals.train_sentiment`) were best with it, and nearly as good from half to twice of it."""
LEXICON_CHARACTERS: Final = 16
"""Of more than twice as many the lexicon reads so many at either end, where the verdict stands: on the folds for
choosing 12, 16, 20 and 24 gave an accuracy of 0.9289, 0.9290, 0.9288 and 0.9289, and time grows with it."""
EVEN_MARGIN: Final = 1_120
"""Units for each square root of the n-grams, at which they alone are an opinion: half a confidence. On the folds for
choosing 97 % of such opinions were right. A short comment, or one of praise and blame, takes twice of it."""

_STOPS: Final = ",.!;:~。、\n"
_HAN: Final = re.compile("[一-鿿]").search
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
    """Weigh the terms of a lexicon, with negation, emphasis, contrast and questions, and what its n-grams say.

    Only integers are added and compared, so that every machine gives the same answer for the same text, whether it is
    asked alone or among others.

    Parameters
    ----------
    entries
        What each normalised term does. ``word`` carries opinion; ``more`` strengthens the word right after it and else
        counts itself; ``not`` turns round the next word of its clause; ``but`` halves what came before; ``ask`` and
        ``query`` make their clause a question; ``chat`` hides the opinion words inside it (好 in 你好); ``spam``
        silences the comment; ``face`` is an emoji or emoticon, which stands outside grammar.
    weights
        The table of n-grams of Chinese; without it the lexicon answers alone, as it does of texts without Chinese.
    """

    def __init__(self, entries: Mapping[str, Entry], weights: Weights | None = None) -> None:
        terms = {term: term_of(kind, weight) for term, (kind, weight) in entries.items()}
        self._index = TermIndex(terms | {stop: term_of("stop", 0) for stop in _STOPS})
        self._weights = weights
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
                reading = Reading(norm, *self._scored(norm))
            if len(text) <= MAX_RECENT_CHARACTERS:
                if len(self._young) >= MAX_RECENT:
                    self._young, self._old = {}, self._young
                self._young[text] = reading
        return reading

    def score(self, text: str) -> Sentiment:
        """Return the leaning of one comment; blank text is (0, 0), and no string is refused.

        >>> default_model().score("质量不错，下次还会来").score_milli > 0
        True
        >>> default_model().score("这个多少钱？").confidence_milli
        0
        """
        return Sentiment(*self._scored(normalise(text)))

    def score_normalised(self, norm: str) -> Sentiment:
        """Return the leaning of a text that `normalise` returned; of any other, an answer that means nothing."""
        return Sentiment(*self._scored(norm))

    def scores(self, texts: Sequence[str]) -> list[Sentiment]:
        """Return what `score` returns of each text; of many at once it costs less.

        >>> default_model().scores(["太贵了", ""]) == [default_model().score("太贵了"), Sentiment(0, 0)]
        True
        """
        norms = list(map(normalise, texts))
        if self._weights is None:
            return [Sentiment(*self._scored(norm)) for norm in norms]
        sums = weigh_many(norms, self._weights)
        return [
            Sentiment(*combined(self._said(norm), norm, total, n_grams)) if norm else Sentiment(0, 0)
            for norm, (total, n_grams) in zip(norms, sums, strict=True)
        ]

    def _scored(self, norm: str) -> tuple[int, int]:
        said = self._said(norm)
        if self._weights is None or not norm:
            return of_lexicon(said)
        if said.lean and _HAN(norm) is None:
            return of_lexicon(said)  # as `combined` would, without the n-grams
        return combined(said, norm, *weigh_one(norm, self._weights))

    def _said(self, norm: str) -> Weighed:
        if len(norm) > 2 * LEXICON_CHARACTERS and self._weights is not None and _HAN(norm):
            norm = f"{norm[:LEXICON_CHARACTERS]}. {norm[-LEXICON_CHARACTERS:]}"
        if not norm.isascii():
            if " " in norm:
                norm = _CJK_SPACE.sub("\n", norm)
            if "不" in norm:
                norm = _A_NOT_A.sub("好不好", norm)
        found = self._index.find(norm)
        return weigh(norm, found) if found else SILENT


def of_lexicon(said: Weighed) -> tuple[int, int]:
    """Return the score and confidence of what a lexicon alone says."""
    lean, confidence, _, _ = said
    if lean == 0:
        return 0, 0
    size = abs(lean)
    score = 1000 * size // (size + PRIOR)
    return score if lean > 0 else -score, confidence


def combined(said: Weighed, norm: str, total: int, n_grams: int) -> tuple[int, int]:
    """Return score and confidence of what the lexicon says of a text and what its `n_grams` n-grams sum up to.

    The two vote, the lexicon with `LEXICON_SHARE`. Where it is sure and agrees, the surer of both gives the confidence;
    where it is sure and outvoted, nobody is; where it is unsure, n-grams make an opinion from `EVEN_MARGIN` on (twice
    of it where it finds praise and blame, or the comment is short), and never where the comment asks, chats or is spam.
    A text without Chinese is the lexicon's, and so is a short one where it is sure: the slang of live rooms is in no
    review.
    """
    if not n_grams:
        return 0, 0
    lean, confidence, is_silenced, is_mixed = said
    is_sure = confidence >= OPINION_MILLI
    is_chinese = _HAN(norm) is not None
    if lean and not is_chinese:
        return of_lexicon(said)
    units, hundredths = LEXICON_SHARE
    # Rounded towards zero on both sides, so that praise and blame weigh alike.
    vote = total + (lean * units // hundredths if lean >= 0 else -(-lean * units // hundredths))
    agrees = lean > 0 if vote > 0 else lean < 0
    if is_sure and not agrees and len(norm) <= SHORT_CHARACTERS:
        return of_lexicon(said)
    size = abs(vote) * 1000 // isqrt(1_000_000 * n_grams)
    strength = 1000 * size // (size + EVEN_MARGIN)
    score = max(strength, 1000 * abs(lean) // (abs(lean) + PRIOR) if agrees else 1)
    if is_sure:
        confidence = max(confidence, strength) if agrees else min(strength, OPINION_MILLI - 1)
    else:
        size //= 1 + (is_mixed or len(norm) <= SHORT_CHARACTERS)
        confidence = 1000 * size // (size + EVEN_MARGIN) if is_chinese and not is_silenced else 0
    return score if vote > 0 else -score, confidence


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
    """Return the model of the package's own lexicon and table, read once a process."""
    return SentimentModel(read_lexicon(), read_weights())
