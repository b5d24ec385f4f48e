"""A room's course of time: what is still due to happen, and the records under way to the log."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush
from itertools import count
from operator import itemgetter
from typing import Any, Final, Protocol, runtime_checkable

from pipeline.simulate.counted import SUMMED, Tally
from pipeline.simulate.dice import Dice
from pipeline.simulate.ledger import Ledger
from pipeline.simulate.parameters import SECOND_MS, Parameters
from pipeline.simulate.truth import Books, Label, Mark
from schemas.base import FeedName

Event = dict[str, Any]
Arrival = tuple[int, str, Event]
"""Arrival time (the record's Kafka timestamp), room, event."""
Handler = Callable[[int], None]
_ENVELOPE: Final = frozenset({"type", "event_id", "room_id", "ts"})
NEVER: Final = -1
"""The arrival of a record that is lost on its way."""


@runtime_checkable
class Holder(Protocol):
    """Something that may keep a feed's records back."""

    def held_until(self, feed: FeedName, kind: str, arrival_ts: int) -> int | None:
        """Return when a record that would arrive at `arrival_ts` is let go, `NEVER` if not; None: it is not held."""


class Timeline:
    """What components of one room share: chance, books, things due, records sent."""

    def __init__(
        self, room_id: str, start_ts: int, dice: Dice, parameters: Parameters, *, is_labelled: bool = False
    ) -> None:
        self.room_id = room_id
        self.prefix = f"{room_id}-{start_ts // SECOND_MS:x}"
        """Of ids: a world that opens at another time has others, or its events would count as sent twice."""
        self.start_ts = start_ts
        self.dice = dice
        self.parameters = parameters
        self.books = Books(room_id)
        self.ledger = Ledger(room_id)
        self.holders: list[Holder] = []
        self.mark: Mark | None = None
        """The trouble on whose account records are written now; see `marked`."""
        self.labels: list[Label] | None = [] if is_labelled else None
        self.is_over = False
        """Whether nobody reads records any more; see `Room.settle`."""
        n_late = parameters.feeds["view"].lag_ms[1] // (parameters.counts_s * SECOND_MS)
        self.tally = Tally(start_ts, n_late) if parameters.is_counts_only else None
        """What is told in sums, where the platform reports no single viewers."""
        self.event_id = ""
        """Of the last record sent on its way."""
        self._due: list[tuple[int, int, Handler]] = []
        self._sent: list[tuple[int, int, Event]] = []
        self._numbers = count(1)
        self._lags = {feed: (t.lag_ms[0], t.lag_ms[1] - t.lag_ms[0]) for feed, t in parameters.feeds.items()}

    def emit(self, feed: FeedName, kind: str, ts: int, fields: Mapping[str, Any], arrival_ts: int | None = None) -> int:
        """Send a record on its way; it arrives after the feed's lag, unless the moment is given. Return when."""
        if self.tally is not None and kind in SUMMED:
            self.tally.add(kind, ts, fields)
            return ts
        number = next(self._numbers)
        if arrival_ts is None:
            least, span = self._lags[feed]
            u = self.dice.uniform()
            arrival_ts = ts + least + int(span * u * u * u)
        for holder in self.holders:
            released = holder.held_until(feed, kind, arrival_ts)
            if released is not None:
                arrival_ts = released
        self.event_id = event_id = f"{self.prefix}-{number:x}"
        mark = self.mark
        if mark is not None:
            mark.n_events += 1
            if self.labels is not None:
                self.labels.append(Label(event_id, self.room_id, ts, mark.trouble_id, mark.family, mark.is_invalid))
        if arrival_ts == NEVER or self.is_over:
            return arrival_ts
        event: Event = {
            "type": kind,
            "event_id": event_id,
            "room_id": self.room_id,
            "ts": ts,
            **fields,
        }
        if not consents(event.get("user_id"), self.parameters.consent_ratio):
            event["consent"] = False
        heappush(self._sent, (arrival_ts, number, event))
        return arrival_ts

    @contextlib.contextmanager
    def marked(self, mark: Mark | None) -> Iterator[None]:
        """Write what is sent meanwhile on a trouble's account: counted, and labelled where labels are kept."""
        before, self.mark = self.mark, mark
        try:
            yield
        finally:
            self.mark = before

    def explain(self, ts: int, **meaning: Any) -> None:
        """Label the record just sent, of moment `ts`, with what it means."""
        if self.labels is None or self.tally is not None:
            return  # what is told in sums has no records to label
        if self.mark is not None:
            self.labels[-1] = self.labels[-1]._replace(**meaning)
        else:
            self.labels.append(Label(self.event_id, self.room_id, ts, **meaning))

    def at(self, ts: int, handler: Handler) -> None:
        """Call `handler(ts)` when the room's time comes to `ts`."""
        heappush(self._due, (ts, next(self._numbers), handler))

    def every(self, interval_ms: int, first_ts: int, handler: Handler) -> None:
        """Call `handler` at `first_ts` and every `interval_ms` after."""

        def again(ts: int) -> None:
            handler(ts)
            self.at(ts + interval_ms, again)

        self.at(first_ts, again)

    def run_until(self, ts: int) -> None:
        """Let everything happen that is due before `ts`, in order of time."""
        due = self._due
        while due and due[0][0] < ts:
            moment, _, handler = heappop(due)
            handler(moment)

    def take(self, before_ts: int) -> list[Arrival]:
        """Return the records that arrive before `before_ts` and were not taken yet, in order of arrival."""
        sent, room_id = self._sent, self.room_id
        taken: list[Arrival] = []
        while sent and sent[0][0] < before_ts:
            arrival_ts, _, event = heappop(sent)
            taken.append((arrival_ts, room_id, event))
        return taken

    def under_way(self, before_ts: int) -> list[Arrival]:
        """Return the records not taken yet of what happened before `before_ts`, in order of arrival.

        Where the platform tells sums, those of a step that is not over are among them, as they would be told then.
        """
        sent = [(arrival, self.room_id, event) for arrival, _, event in sorted(self._sent) if event["ts"] < before_ts]
        if self.tally is not None:
            late_ms = self.parameters.feeds["view"].lag_ms[1]
            sent += [(before_ts + late_ms, self.room_id, event) for event in self._counts(before_ts)]
            sent.sort(key=itemgetter(0))
        return sent

    def tell_counts(self, ts: int) -> None:
        """Send the sums of what happened before `ts` on their way."""
        if self.tally is None:
            return
        last_ts = ts
        for event in self._counts(ts):
            fields = {name: value for name, value in event.items() if name not in _ENVELOPE}
            last_ts = max(last_ts, self.emit("view", "counts", event["ts"], fields))
        self.tally.forget(ts)
        self.tally.told(last_ts, ts)

    def _counts(self, ts: int) -> Iterator[Event]:
        if self.tally is not None:
            for channel, sums in self.tally.before(ts):
                event_id = f"{self.prefix}-{channel}-{ts - self.start_ts:x}"
                head = {"type": "counts", "event_id": event_id, "room_id": self.room_id, "ts": ts - 1}
                yield {**head, "channel": channel, **sums}


def consents(user_id: str | None, ratio: float) -> bool:
    """Tell whether a user consents: the same answer each time, `ratio` of all users say yes.

    >>> consents("u1", 1.0), consents("u1", 0.0), consents(None, 0.0)
    (True, False, True)
    """
    if user_id is None or ratio >= 1.0:
        return True
    drawn = hashlib.blake2b(user_id.encode(), digest_size=4).digest()
    return int.from_bytes(drawn, "big") < ratio * 2**32


def to_second(start_ts: int, ts: int) -> int:
    """Return the first moment at or after `ts` that lies on the grid of seconds from `start_ts`."""
    return ts + (start_ts - ts) % SECOND_MS
