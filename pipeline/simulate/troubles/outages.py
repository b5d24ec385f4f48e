"""Feeds that fall silent."""

from __future__ import annotations

from typing import ClassVar, Final

from pipeline.simulate.troubles.base import Fault
from pipeline.simulate.truth import TroubleKind
from schemas.base import FeedName


class FeedDead(Fault):
    """The order feed sends nothing, heartbeats included; afterwards it catches up. Sales themselves go on.

    `size` is 1: a feed is dead or it is not.
    """

    kind: ClassVar[TroubleKind] = "feed_dead"
    cause = "tracking"
    default_size = 1.0
    is_share = True
    feed: ClassVar[FeedName] = "order"
    catch_up_ms: Final = 3_000

    def held_until(self, feed: FeedName, _kind: str, arrival_ts: int) -> int | None:
        """Hold what would arrive meanwhile, then let it go in the order in which it was sent."""
        if feed != self.feed or not self.start_ts <= arrival_ts < self.end_ts:
            return None
        share = (arrival_ts - self.start_ts) / (self.end_ts - self.start_ts)
        return self.end_ts + int(share * self.catch_up_ms)

    def silences(self, feed: FeedName, ts: int) -> bool:
        """Return whether the producer may promise nothing: until it has caught up."""
        return feed == self.feed and self.start_ts <= ts < self.end_ts + self.catch_up_ms


class ViewFeedDead(FeedDead):
    """Enters, leaves, clicks and the platform's count are not told."""

    kind = "view_feed_dead"
    feed = "view"


class CommentFeedDead(FeedDead):
    """Comments are not told."""

    kind = "comment_feed_dead"
    feed = "comment"


class SpendFeedDead(FeedDead):
    """Costs are not told: money goes out and nobody sees it."""

    kind = "spend_feed_dead"
    feed = "spend"
