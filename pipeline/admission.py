"""Which decoded events may change a room: signatures, currencies, and whether they were seen before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from pipeline import control, retirement
from pipeline.apply import KINDS, MONEY_KINDS, Kind
from pipeline.context import Context
from pipeline.money import convert
from pipeline.room import CurrencyUnknownError, RoomState
from pipeline.session import RoomConfig
from schemas.base import EVERY_ROOM, MAX_MONEY_MINOR
from schemas.control import DEFAULT_KID, is_signed
from schemas.deadletters import RejectReason
from schemas.decode import Reject


class Admission:
    """Judge events before they are applied; `room_of` gives a room's state, a blank one for a room not seen yet."""

    def __init__(
        self,
        ctx: Context,
        room_of: Callable[[str], RoomState | None],
        blank: Callable[[str], RoomState],
        *,
        control_key: bytes | None,
        trusts_log: bool,
    ) -> None:
        self._ctx, self._room_of, self._blank = ctx, room_of, blank
        self._control_key, self._trusts_log = control_key, trusts_log

    def stamp(self, elements: list[Any], value: bytes) -> int:
        """Return the stamp of a record in a file without stamps: the largest accepted `ts` so far."""
        stamp = self._ctx.star.largest_ts
        seen: set[tuple[str, str]] = set()
        # What the elements before would make of the session's currency; a single event has none before it.
        trial = RoomState("", RoomConfig("off")) if len(elements) > 1 else None
        for element in elements:
            if type(element) is Reject or (name := (element.room_id, element.event_id)) in seen:
                continue
            if self.refusal(element, value, trial) is None and not self.is_repeated(element):
                seen.add(name)
                stamp = max(stamp, element.ts)
        return stamp

    def refusal(
        self, event: Any, value: bytes, trial: RoomState | None = None, *, is_first: bool = False
    ) -> Reject | None:
        """Return why an event that is well formed must not count, None when it may; `value` is the whole record.

        `is_first` judges it as if nothing were known of its room.
        """
        kind = KINDS[type(event)].name
        if kind in ("control", "ack"):
            reason = self._distrust(value)
            if reason is not None:
                return Reject(*reason, None, value)
            if kind == "control":
                oldest_ts = retirement.oldest_control_ts(self._ctx)
                is_timeless = event.ts == 0 and event.action == "update_settings"  # the policy of a log in its own time
                if event.ts < oldest_ts and not is_timeless:
                    # Its id may be forgotten by now: it must not count twice.
                    return Reject(
                        "bad_value", f"ts: must be {oldest_ts} or later, got {event.ts}: sign it anew", None, value
                    )
                try:
                    control.read(event)
                except control.Refused as refused:
                    return Reject("bad_value", str(refused), None, value)
        elif event.room_id == EVERY_ROOM and kind != "tick":
            return Reject("bad_value", "room_id: must name one room, got '*'", None, value)
        elif kind in MONEY_KINDS:
            known = None if is_first else self._room_of(event.room_id)
            room = known or self._blank(event.room_id)
            try:
                factor = room.factor_for(event.currency, self._ctx, is_past=event.ts < room.session.begins_ts)
                if trial is not None and room.config.currency is None:
                    trial.money_factor(event.currency, self._ctx)
            except CurrencyUnknownError as unknown:
                return Reject("currency_unknown", str(unknown), None, value)
            name = "cost_minor" if kind == "spend" else "amount_minor"
            if factor != 1 and abs(convert(getattr(event, name), factor)) > MAX_MONEY_MINOR:
                # Sums of many events stay within 64 bits because one is at most this large.
                words = f"{name}: must be at most {MAX_MONEY_MINOR} in the session's currency, got more when converted"
                return Reject("over_limit", words, None, value)
        elif kind == "room" and trial is not None and event.settings is not None:
            trial.config.currency = trial.config.currency or event.settings.currency
        return None

    def _distrust(self, value: bytes) -> tuple[RejectReason, str] | None:
        """Return why a control or ack is not believed; None when it is."""
        if self._trusts_log:
            return None
        message = orjson.loads(value)
        if message.get("sig") is None:
            return "unsigned", "sig: a control or ack must be signed by the pipeline's bridge, got none"
        if self._control_key is None:
            return "bad_signature", "sig: cannot be checked, no control key is set (ROOMPULSE_CONTROL_KEY)"
        if message.get("kid") != DEFAULT_KID or not is_signed(message, self._control_key):
            return "bad_signature", f"sig: must be the bridge's own signature under kid {DEFAULT_KID!r}"
        return None

    def is_repeated(self, event: Any) -> bool:
        """Tell whether this id counted before."""
        kind, identities = KINDS[type(event)], self._ctx.identities
        star, room = self._ctx.star, self._room_of(event.room_id)
        if room is not None and kind.name != "tick":
            return self.is_known(room, kind, event, identities.event(event.event_id))
        if kind.name == "control" and event.control_id in star.control_ids:
            return True
        return star.seen.has(identities.event(f"{event.room_id}\0{event.event_id}"))

    def is_known(self, room: RoomState, kind: Kind, event: Any, fingerprint: bytes) -> bool:
        """Tell the same of an event of a known room."""
        if fingerprint in room.seen.recent:
            return True
        if kind.is_money:
            return fingerprint in room.seen.money
        if kind.name != "control":
            return False
        return event.control_id in room.control_ids or event.control_id in self._ctx.star.control_ids

    def remember(self, room: RoomState, kind: Kind, event: Any, fingerprint: bytes) -> None:
        """Note an event of a room as counted."""
        seen, now_ms = room.seen, self._ctx.star.clock_ms
        if now_ms - seen.turned_ms >= self._ctx.recent_ids_ms:
            seen.go_on(now_ms, self._ctx.recent_ids_ms)
        seen.recent[fingerprint] = seen.turn
        if kind.is_money:
            seen.money[fingerprint] = now_ms
            seen.n_money += 1
        elif kind.name == "control":
            retirement.forget_controls(room.control_ids, now_ms, self._ctx)
            room.control_ids[event.control_id] = now_ms
