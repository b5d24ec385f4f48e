"""Slices as metrics: what a channel is told by, less what their records do not say."""

from __future__ import annotations

from typing import Any, Final

from pipeline.buckets import CHANNEL_ZONES, Windows
from pipeline.counters import Counts, unpack
from pipeline.emit import View
from pipeline.metrics import compute, told_counts
from pipeline.roi import Return, curve_of, due, returns
from pipeline.roi.cohorts import CHANNEL_COHORTS
from pipeline.slicing import Slice, Slices
from schemas.base import capped
from schemas.settings import QualitySettings

ROLLING: Final = str(CHANNEL_ZONES[0][0] // 1_000)
RETURN: Final = (
    "roas", "roas_attributed", "roas_valid", "roas_mature", "roas_maturity", "roas_low", "roas_high", "cvr",
    "contribution_minor",
)  # fmt: skip
"""Needs spend and orders that both name the dimension: else one of them is somebody else's."""
QUALITY: Final = ("ivt_ratio", "ivt_low", "ivt_high", "quality_score", "quality_reasons")
"""Not by product: a visit is valid or not, and belongs to none."""


class SliceView:
    """One dimension's slices at one evaluation."""

    def __init__(self, view: View, slices: Slices, number: int) -> None:
        self._view, self._slices, self._number = view, slices, number
        room, named = view.room, slices.named[number]
        self.has_return = "spend" in named and "order" in named
        self._kinds = tuple(room.kinds), tuple(kind for kind in room.kinds if kind.partition(".")[0] in named)
        found = sorted(slices.names[number].items())
        self.rows = [(name, place, slices.slices[number][place]) for name, place in found]

    @property
    def quality(self) -> QualitySettings:
        """The settings of traffic quality, with its least sample."""
        return self._view.ctx.policy.quality

    def kinds(self, place: int) -> tuple[str, ...]:
        """Return the types of event of which a slice tells something; `unknown` has what nobody named, too."""
        return self._kinds[place > 0]

    def told(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of each value that has anything, over 300 s and the session."""
        out: dict[str, dict[str, Any]] = {}
        for name, place, slice_ in self.rows:
            windows = slice_.windows
            windows.expire(self._view.now_ms)
            if windows.session or windows.zones[0].total:
                rolling, session = unpack(windows.zones[0].total), unpack(windows.session)
                short, whole = self.returns(slice_, rolling, session)
                out[name] = {
                    ROLLING: self.metrics(place, rolling, short),
                    "session": self.metrics(place, session, whole),
                }
        return out

    def returns(self, slice_: Slice, rolling: Counts, session: Counts) -> tuple[Return, Return]:
        """Return both windows' returns, by the room's own delay curve."""
        view = self._view
        room, roi = view.room, view.ctx.policy.roi
        cohorts = slice_.cohorts or Windows(CHANNEL_COHORTS)
        cohorts.expire(view.now_ms)
        curve = curve_of(room.returns, roi, room.config.stage)
        dues = due(cohorts, view.now_ms, curve, room.returns.refunds, room.session.begins_ts)
        return returns(rolling, dues[0], view.learned, roi), returns(session, dues[-1], view.learned, roi)

    def metrics(self, place: int, counts: Counts, returned: Return) -> dict[str, Any]:
        """Return one window's metrics, without what would mix a slice's own with everybody's."""
        told = told_counts(self.kinds(place))
        policy = self._view.ctx.policy
        metrics = compute(counts, policy, returned, told=told, dwell_p50_ms=None, n_users=None, n_active=None)
        for name in () if self.has_return else RETURN:
            metrics.pop(name, None)
        for name in QUALITY if self._slices.dimensions[self._number] == "product_id" else ():
            metrics.pop(name, None)
        return metrics


def add_dimensions(fields: dict[str, Any], view: View) -> None:
    """Add what a sliced room's signals tell by dimension: nothing where no value has anything."""
    slices = view.room.slices
    if slices is None:
        return
    told = {name: SliceView(view, slices, number).told() for number, name in enumerate(slices.dimensions)}
    if any(told.values()):
        fields["dimensions"] = {name: values for name, values in told.items() if values}
        if slices.is_partial:
            fields["dimensions_since_ts"] = capped(slices.since_ms)
