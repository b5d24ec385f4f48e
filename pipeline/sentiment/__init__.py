"""What viewers' comments say: for or against, how surely, and about what."""

from pipeline.sentiment.model import Entry, Sentiment, SentimentModel, default_model
from pipeline.sentiment.normalise import normalise
from pipeline.sentiment.topics import TOPICS, topics

__all__ = ["TOPICS", "Entry", "Sentiment", "SentimentModel", "default_model", "normalise", "topics"]
