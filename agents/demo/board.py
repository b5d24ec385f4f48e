"""What a demo has seen so far: the one thing that the live view, the plain lines and the summary are made from."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from statistics import median
from typing import Any, Final

MOVES: Final = ("set_bid", "set_roi_goal", "set_budget", "pause", "resume")
"""Actions that turn a knob; the others say why none is turned, or that the pipeline is alive."""
NEWEST: Final = 50
RATE_OVER_S: Final = 5.0
DELAYS: Final = 2_000
REMEMBERED: Final = 10_000
"""Steps of the log's clock: some eight minutes of them."""

Message = Mapping[str, Any]


class Board:
    """Counts and newest messages. `elapsed_s` is always seconds since the demo began.

    What happened before `live_since_ms` in the log is the rooms' past: counted, but never the first of anything.
    """

    def __init__(self) -> None:
        self.live_since_ms: int | None = None
        self.n_events = self.n_signals = self.n_rejects = self.n_answers = 0
        self.n_commands: Counter[str] = Counter()
        self.firsts: dict[str, float] = {}
        self.signals: dict[str, Message] = {}
        """Newest signals by room."""
        self.opened: dict[str, Message] = {}
        """How each anomaly was first told, by id; the past's too."""
        self.anomalies: dict[str, Message] = {}
        """How each anomaly was last told, by id."""
        self.commands: deque[Message] = deque(maxlen=NEWEST)
        """Newest commands that turn a knob, or wait to; a later revision takes its own's place."""
        self.holds: dict[str, Message] = {}
        """Newest hold by room."""
        self.moves: dict[str, Message] = {}
        """Every live command that turns a knob, by id, as last told."""
        self.answers: dict[str, str] = {}
        """Controller's answer by command."""
        self._written: deque[tuple[float, int]] = deque()
        self._clocks: list[int] = []
        """The log's clock, and beside it when that was written."""
        self._clocks_s: list[float] = []
        self._delays: deque[tuple[float, float]] = deque(maxlen=DELAYS)

    # -- what came --------------------------------------------------------------------------------------------

    def events(self, n_events: int, elapsed_s: float) -> None:
        """Note events written into the log."""
        self.n_events += n_events
        self._written.append((elapsed_s, n_events))
        while self._written and self._written[0][0] < elapsed_s - RATE_OVER_S:
            self._written.popleft()

    def wrote_up_to(self, clock_ms: int, elapsed_s: float) -> None:
        """Note that the log has all up to its clock's `clock_ms`."""
        self._clocks.append(clock_ms)
        self._clocks_s.append(elapsed_s)
        if len(self._clocks) > 2 * REMEMBERED:
            del self._clocks[:REMEMBERED], self._clocks_s[:REMEMBERED]

    def signal(self, message: Message, elapsed_s: float) -> None:
        """Note a room's signals."""
        self.n_signals += 1
        known = self.signals.get(message["room_id"])
        if known is None or message["ts"] >= known["ts"]:
            self.signals[message["room_id"]] = message
        if self.is_live(message):
            self.firsts.setdefault("signal", elapsed_s)
            place = bisect_left(self._clocks, message["ts"])
            if place < len(self._clocks):
                self._delays.append((elapsed_s, elapsed_s - self._clocks_s[place]))

    def anomaly(self, message: Message, elapsed_s: float) -> None:
        """Note a step in an anomaly's life."""
        self.opened.setdefault(message["anomaly_id"], message)
        self.anomalies.pop(message["anomaly_id"], None)
        self.anomalies[message["anomaly_id"]] = message
        if message["status"] == "open" and self.is_live(message):
            self.firsts.setdefault("anomaly", elapsed_s)

    def command(self, message: Message, elapsed_s: float) -> None:
        """Note a bid command."""
        action = message["action"]
        if action == "heartbeat":
            return
        self.n_commands[action] += message.get("revision", 1) == 1
        if action not in MOVES:
            self.holds[message["room_id"]] = message
            return
        for place, known in enumerate(self.commands):
            if known["command_id"] == message["command_id"]:
                del self.commands[place]
                break
        self.commands.append(message)
        if self.is_live(message):
            self.moves[message["command_id"]] = message
            self.firsts.setdefault("command", elapsed_s)

    def answer(self, ack: Message) -> None:
        """Note what the ad platform did about a command."""
        self.n_answers += 1
        self.answers[ack["command_id"]] = ack["status"]

    def reject(self) -> None:
        """Note a dead letter."""
        self.n_rejects += 1

    # -- what it comes to -------------------------------------------------------------------------------------

    def is_live(self, message: Message) -> bool:
        """Tell whether a message is about now, and not about the rooms' past."""
        return self.live_since_ms is not None and bool(message["ts"] >= self.live_since_ms)

    def events_per_s(self, elapsed_s: float) -> float:
        """Return the rate of the last seconds."""
        over_s = min(RATE_OVER_S, max(elapsed_s, 0.5))
        return sum(n for at_s, n in self._written if at_s > elapsed_s - over_s) / over_s

    def delay_s(self, since_s: float = 0.0) -> float | None:
        """Return how long after its moment was in the log a signal came, in the median since then; None without any."""
        delays = [delay for at_s, delay in self._delays if at_s >= since_s]
        return median(delays) if delays else None

    @property
    def n_anomalies(self) -> int:
        """Anomalies opened, each once."""
        return len(self.opened)

    @property
    def n_moves(self) -> int:
        """Commands that turn a knob."""
        return sum(self.n_commands[action] for action in MOVES)

    def open_anomalies(self) -> list[Message]:
        """Return what is still open, newest last."""
        return [anomaly for anomaly in self.anomalies.values() if anomaly["status"] != "resolved"]
