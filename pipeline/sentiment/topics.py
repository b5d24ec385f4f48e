"""Say what a comment is about, so that an operator knows which of six things to mend."""

from functools import cache
from typing import Final

from pipeline.sentiment.normalise import normalise
from pipeline.sentiment.terms import TermIndex, read_table

TOPICS: Final = ("price", "quality", "logistics", "host", "tech", "authenticity")
TOPICS_FILE: Final = "topics.tsv"

_NONE: Final = "-"  # a term that only hides a topic's word inside it (卡 in 银行卡)


def topics(text: str) -> tuple[str, ...]:
    """Return the topics that a comment names, in the order of `TOPICS`; empty when it names none.

    >>> topics("太贵了，而且没声音")
    ('price', 'tech')
    >>> topics("晚上好")
    ()
    """
    return topics_normalised(normalise(text))


def topics_normalised(norm: str) -> tuple[str, ...]:
    """Return the topics of a text that `normalise` returned."""
    found = _index().find(norm)
    if not found:
        return ()
    named = {topic for topic, _, _ in found}
    return tuple(topic for topic in TOPICS if topic in named)


def read_topics() -> dict[str, str]:
    """Return the topic of each term, ``-`` where it hides one; ValueError where a row of the file is malformed."""
    topic_of: dict[str, str] = {}
    for term, topic in read_table(TOPICS_FILE, ("term", "topic")):
        if topic not in (*TOPICS, _NONE):
            raise ValueError(
                f"{TOPICS_FILE}: the topic of {term!r} must be one of {TOPICS} or {_NONE!r}, got {topic!r}"
            )
        if not term or normalise(term) != term or term in topic_of:
            raise ValueError(f"{TOPICS_FILE}: {term!r} must be normalised and stand once; merge or respell it")
        topic_of[term] = topic
    return topic_of


@cache
def _index() -> TermIndex[str]:
    return TermIndex(read_topics())
