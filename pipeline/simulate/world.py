"""Many rooms at once, stepped in time or written out whole."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from pipeline.simulate.ledger import Cohort, Order
from pipeline.simulate.market import Applied, Value
from pipeline.simulate.parameters import DEFAULT_START_TS, SECOND_MS, Parameters
from pipeline.simulate.room import Room
from pipeline.simulate.scenarios import scenario_named
from pipeline.simulate.timeline import Arrival
from pipeline.simulate.truth import Books, Label, Trouble

TROUBLE_AFTER_MS = 600_000
TROUBLE_FOR_MS = 300_000
_STEP_MS = 10_000
_SETTLED_MS = 3_600_000
"""Well above `dwell_max_s`: nobody clicks later."""


class World:
    """The rooms of a scenario.

    The records are the same whatever the steps of `advance`, as long as `apply` and `inject` come at the same times.

    Parameters
    ----------
    scenario
        A name out of `SCENARIOS`; another raises UnknownScenarioError.
    n_rooms, seed
        Room k is the same whatever `n_rooms` is.
    start_ts
        When the rooms open, ms.
    trouble_at_ms
        When the scenario's troubles begin, ms since the epoch; default ten minutes after `start_ts`.
    trouble_for_ms
        How long they last.
    parameters
        Every number of the rooms; `pipeline.simulate.settings` changes them by name.
    is_labelled
        Whether `labels` keeps what single records are.

    """

    def __init__(
        self,
        scenario: str,
        n_rooms: int,
        seed: int,
        start_ts: int = DEFAULT_START_TS,
        *,
        trouble_at_ms: int | None = None,
        trouble_for_ms: int = TROUBLE_FOR_MS,
        parameters: Parameters | None = None,
        is_labelled: bool = False,
    ) -> None:
        plan = scenario_named(scenario)
        self.now_ts = start_ts
        begin_ts = start_ts + TROUBLE_AFTER_MS if trouble_at_ms is None else trouble_at_ms
        self._rooms: dict[str, Room] = {}
        for index in range(n_rooms):
            room = Room(index, seed, start_ts, parameters or Parameters(), is_labelled=is_labelled)
            self._rooms[room.room_id] = room
            kind = plan.trouble_of(index)
            if kind is not None:
                size, later_ms = room.draw_trouble(kind)
                room.inject(kind, begin_ts + later_ms, begin_ts + later_ms + trouble_for_ms, size=size)

    @property
    def room_ids(self) -> list[str]:
        """The rooms, in order."""
        return list(self._rooms)

    def advance(self, to_ts: int) -> list[Arrival]:
        """Live up to `to_ts`; return the records that arrived before it and were not returned yet, in order.

        Going back is no step: a `to_ts` in the past returns nothing.
        """
        self.now_ts = max(self.now_ts, to_ts)
        return _merged([room.advance(self.now_ts) for room in self._rooms.values()])

    def under_way(self) -> list[Arrival]:
        """Return the records of what has happened that did not arrive yet; `advance` will return them later."""
        return _merged([room.timeline.under_way(self.now_ts) for room in self._rooms.values()])

    def apply(self, room_id: str, plan_id: str, action: str, value: Value = None) -> Applied:
        """Turn a plan's knob from the next second on, as the platform would; `plan` events tell the new state.

        `action` is set_bid (minor units), set_roi_goal (decimal), set_budget (minor units), pause or resume.
        """
        room = self._rooms.get(room_id)
        if room is None:
            return Applied("rejected", None, f"room_id must be one of the world's, got {room_id!r}")
        return room.apply(plan_id, action, value)

    def inject(
        self,
        kind: str,
        room_id: str,
        start_ts: int,
        end_ts: int,
        *,
        size: float | None = None,
        channel: str | None = None,
        segment: str | None = None,
        product_id: str | None = None,
    ) -> None:
        """Plan one more trouble; `size` and `channel` default to the kind's own. Raise ValueError for a wrong one.

        `segment` and `product_id` confine it further, where the kind heeds them: see the table in docs/simulator.md.
        """
        if room_id not in self._rooms:
            msg = f"room_id must be one of the world's, got {room_id!r}"
            raise ValueError(msg)
        self._rooms[room_id].inject(
            kind, start_ts, end_ts, size=size, channel=channel, segment=segment, product_id=product_id
        )

    def truth(self) -> list[Trouble]:
        """Return every trouble, with what it did so far."""
        return [trouble for room in self._rooms.values() for trouble in room.truth()]

    def orders(self) -> list[Order]:
        """Return every order drawn so far, room by room, with what becomes of it."""
        return [order for room in self._rooms.values() for order in room.timeline.ledger.orders]

    def cohorts(self) -> list[Cohort]:
        """Return what came, cost and will come in of each room, minute and channel so far.

        The last minutes' viewers may still be about to click: `settle` first where they matter.
        """
        return [cohort for room in self._rooms.values() for cohort in room.timeline.ledger.cohorts()]

    def settle(self) -> None:
        """End the world: let those who came finish, so that `orders` and `cohorts` are complete.

        No records are returned of it, and `books` and `labels` go on with it: read them before.
        """
        for room in self._rooms.values():
            room.settle(self.now_ts + _SETTLED_MS)

    def labels(self) -> list[Label]:
        """Return the labels of records sent on their way since the last call, room by room; [] without labels."""
        taken: list[Label] = []
        for room in self._rooms.values():
            if room.timeline.labels:
                taken += room.timeline.labels
                room.timeline.labels.clear()
        return taken

    def books(self) -> dict[str, Books]:
        """Return each room's books up to now: the sums of all records returned or under way."""
        return {room_id: room.timeline.books for room_id, room in self._rooms.items()}


def play(world: World, minutes: float) -> Iterator[Arrival]:
    """Yield all that happens in the world's next `minutes`, in order of arrival; the last records arrive after them."""
    end_ts = world.now_ts + round(minutes * 60) * SECOND_MS
    while world.now_ts < end_ts:
        yield from world.advance(min(end_ts, world.now_ts + _STEP_MS))
    yield from world.under_way()


def simulate(
    scenario: str,
    n_rooms: int,
    seed: int,
    start_ts: int = DEFAULT_START_TS,
    minutes: float = 20.0,
    *,
    parameters: Parameters | None = None,
) -> Iterator[Arrival]:
    """Yield `(arrival_ts, room_id, event)` of a scenario; take a `World` and `play` where the truth is wanted too."""
    yield from play(World(scenario, n_rooms, seed, start_ts, parameters=parameters), minutes)


def _merged(rooms: list[list[Arrival]]) -> list[Arrival]:
    """Merge by arrival; of equal ones the earlier room's first, so that the steps do not show."""
    arrivals = [arrival for room in rooms for arrival in room]
    arrivals.sort(key=itemgetter(0))
    return arrivals
