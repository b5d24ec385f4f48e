"""What Faust knows of the snapshots: a table, so that its changelog is assigned with the rooms, standbys included.

Nothing is in the table and Faust recovers nothing for it: `agents.changelog` reads, and says why.
"""

from __future__ import annotations

from collections.abc import Callable

import faust
from faust.tables import TableManager
from faust.tables.recovery import Recovery
from faust.types import TP
from faust.types.tables import CollectionT

OnAssigned = Callable[[int, frozenset[int], frozenset[int]], None]
"""Called with generation, active and standby partitions as soon as they are known, before anything is restored."""


class SnapshotTable(faust.Table[bytes, bytes]):
    """The changelog's place in Faust's assignment."""

    on_assigned: OnAssigned | None = None

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Say which partitions this worker has now and which it stands by for."""
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        assignor, topic = self.app.assignor, self.changelog_topic_name
        actives = frozenset(tp.partition for tp in assignor.assigned_actives() if tp.topic == topic)
        standbys = frozenset(tp.partition for tp in assignor.assigned_standbys() if tp.topic == topic)
        if self.on_assigned is not None:
            self.on_assigned(generation_id, actives, standbys - actives)


class NoRecovery(Recovery):
    """Faust's recovery without anything to read: what comes after it (seeking, resuming) stays Faust's."""

    def add_active(self, table: CollectionT, tp: TP) -> None:
        """Leave a partition of the changelog to `agents.changelog`."""

    def add_standby(self, table: CollectionT, tp: TP) -> None:
        """Leave a partition of the changelog to `agents.changelog`."""


class Tables(TableManager):
    """Faust's tables, recovered elsewhere."""

    @property
    def recovery(self) -> Recovery:
        """The service that goes through a recovery's steps."""
        if self._recovery is None:
            self._recovery = NoRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
