"""What viewers' comments say: for or against, how surely, and about what."""

from pipeline.sentiment.model import Entry, Reading, SentimentModel, default_model
from pipeline.sentiment.normalise import normalise
from pipeline.sentiment.topics import TOPICS, topics, topics_normalised
from pipeline.sentiment.weigh import OPINION_MILLI, Sentiment

__all__ = [
    "OPINION_MILLI",
    "TOPICS",
    "Entry",
    "Reading",
    "Sentiment",
    "SentimentModel",
    "default_model",
    "normalise",
    "topics",
    "topics_normalised",
]
