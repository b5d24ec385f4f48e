"""One demo from start to end: broker, worker, rooms or a recording, ad platform, operator, and who looks on.

Everything here runs in one thread, in small steps: write what is due, hear what the pipeline says, let the platform
and the operator act, show it. The worker's own clock is off and the demo writes the ticks: it alone knows what the
log's time is, in a recording as well as while the rooms' past is written. Were the worker to stamp ticks with now
before the past is there, all of the past would be late. So worker and past can come up side by side: the policy that a
worker writes when it is ready is the one for the past, wherever it falls, and only after it the one for live follows.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from agents.broker import DEFAULT_PARTITIONS, EmbeddedBroker
from agents.clock import now_ms
from agents.demo.board import Board
from agents.demo.child import WorkerChild
from agents.demo.market import AdPlatform
from agents.demo.playback import Playback
from agents.demo.rooms import SimulatedRooms, past_policy
from agents.demo.source import watched_policy
from agents.demo.wire import Heard, Wire
from agents.errors import ProgramError
from schemas.control import sign
from schemas.settings import Settings
from schemas.topics import BID_COMMANDS, OPS_KILL, ROOM_ANOMALIES, ROOM_EVENTS_DLQ, ROOM_SIGNALS, TOPICS

ACTOR: Final = "demo"
APPROVE_AFTER_S: Final = 4.0
"""What the operator takes to say yes: long enough to be seen waiting."""
TICK_S: Final = 0.5
STEP_S: Final = 0.05
DRAIN_S: Final = 10.0
"""What the worker gets to work off the rest once nothing more is written."""
READY_S: Final = 60.0
"""A worker that has not begun after this long never will; it needs 6 s, on a busy machine 20."""


class Options(NamedTuple):
    """What was asked for."""

    scenario: str = "mixed"
    n_rooms: int = 20
    seed: int = 1
    seconds: float | None = None
    file: str | None = None
    speed: float = 1.0


class Onlooker(Protocol):
    """Who is shown the demo as it goes."""

    def show(self, demo: Demo) -> None:
        """Show it as it is now, or leave it: called at every step."""


class Demo:
    """Run it once with `run`; afterwards `board`, `rooms` and the numbers say what happened."""

    def __init__(self, options: Options, settings: Settings, onlooker: Onlooker) -> None:
        self.options = options
        self.board = Board()
        self.rooms: SimulatedRooms | None = None
        """The simulated rooms; None while a recording plays."""
        self.n_behind: int | None = None
        """Records not worked off, once the demo is over; None where the broker does not say."""
        self.is_draining = False
        self._settings, self._onlooker = settings, onlooker
        self._control_key = secrets.token_hex(32)
        self._platform: AdPlatform | None = None
        self._pending: dict[str, tuple[float, dict[str, Any]]] = {}
        self._begun_s = time.monotonic()
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._ticked_s = 0.0
        self._n_controls = 0
        self._is_watched = False

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun_s

    @property
    def is_catching_up(self) -> bool:
        """Whether the worker is still busy with what was before."""
        return "signal" not in self.board.firsts

    def stop(self) -> None:
        """End it soon; the second call ends it without waiting for the worker's last word."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    # -- from start to end ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until the time is over, the recording ends or somebody stops it.

        Raises
        ------
        ProgramError
            A part could not be started, or died.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._signals())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roompulse-demo-")))
            self._source = self._make_source()
            broker = EmbeddedBroker(topics=[topic.name for topic in TOPICS], lang=self._settings.lang)
            self._broker = stack.enter_context(broker)
            self._worker = WorkerChild(self._environment(broker.url, folder), folder)
            stack.callback(self._worker.kill)
            self._worker.start()
            self._wire = Wire(
                broker.bootstrap, self._settings.kafka.app_id, DEFAULT_PARTITIONS, is_paced=self.rooms is None
            )
            stack.callback(self._wire.close)
            if self.rooms is None:
                self._await_worker()
                self.board.live_since_ms = 0
            self._live()
            self._finish()

    def _live(self) -> None:
        seconds = self.options.seconds
        while not self._stop.is_set() and not self._source.is_over:
            if seconds is not None and self.elapsed_s >= seconds:
                break
            self._write()
            self._hear(STEP_S if self._source.is_live or not self._wire.has_room else 0.0)
            self._act()
            self._check()
            self._onlooker.show(self)

    def _finish(self) -> None:
        """Let the worker work off the rest, then end it: what it says meanwhile still counts.

        Who ends a demo before there was anything to see has nothing to wait for.
        """
        if self.is_catching_up:
            self._hurry.set()
        self.is_draining = True
        self._wire.flush()
        deadline_s = time.monotonic() + DRAIN_S
        while self._wire.n_behind() != 0 and time.monotonic() < deadline_s and not self._hurry.is_set():
            self._hear(STEP_S)
            self._check()
            self._onlooker.show(self)
        if self._hurry.is_set():
            self._worker.kill()
        elif exit_code := self._worker.stop():
            self._fail_worker(exit_code)
        self._hear(2 * STEP_S)
        self.n_behind = self._wire.n_behind()

    def _make_source(self) -> SimulatedRooms | Playback:
        options, key = self.options, self._control_key.encode()
        if options.file is not None:
            return Playback(options.file, options.speed, control_key=key)
        self.rooms = SimulatedRooms(
            options.scenario, options.n_rooms, options.seed, now_ms(), control_key=key, policy=self._settings.policy
        )
        self._platform = AdPlatform(self.rooms.apply)
        return self.rooms

    def _environment(self, url: str, folder: Path) -> dict[str, str]:
        policy = self._settings.policy
        engine = (watched_policy(policy, self.options.speed) if self.rooms is None else past_policy(policy)).engine
        return {
            "ROOMPULSE_BROKER": url,
            "ROOMPULSE_CONTROL_KEY": self._control_key,
            "ROOMPULSE_PRIVACY_KEY": secrets.token_hex(32),
            "ROOMPULSE_ENGINE__VISIT_INTERVAL_MS": str(engine.visit_interval_ms),
            "ROOMPULSE_ENGINE__EMIT_INTERVAL_MS": str(engine.emit_interval_ms),
            "ROOMPULSE_ENGINE__CHANNELS_INTERVAL_MS": str(engine.channels_interval_ms),
            "ROOMPULSE_KAFKA__PARTITIONS": str(DEFAULT_PARTITIONS),
            "ROOMPULSE_KAFKA__SESSION_TIMEOUT_S": "6",
            "ROOMPULSE_KAFKA__HEARTBEAT_INTERVAL_S": "1",
            "ROOMPULSE_KAFKA__REBALANCE_TIMEOUT_S": "6",
            "ROOMPULSE_WORKER__CLOCK": "false",
            "ROOMPULSE_WORKER__DATA_DIR": str(folder),
            "ROOMPULSE_WORKER__LOG_FORMAT": "json",
            "ROOMPULSE_WORKER__SNAPSHOT_INTERVAL_S": "1",
            "ROOMPULSE_WORKER__WEB_PORT": "0",
        }

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Take Ctrl-C, SIGTERM and a closed terminal as the wish to end, where signals can be taken at all."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, lambda *_: self.stop()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _await_worker(self) -> None:
        """Wait until the worker reads: a recording should not begin before anybody can see it."""
        deadline_s = time.monotonic() + READY_S
        while not self._wire.is_policy_told:
            if self._stop.is_set() or (self.options.seconds is not None and self.elapsed_s >= self.options.seconds):
                return
            if time.monotonic() > deadline_s:
                msg = f"the worker must be ready within {READY_S:g} s, got nothing: is the machine very busy?"
                raise ProgramError(msg)
            self._check()
            self._onlooker.show(self)
            self._hear(STEP_S)
            self._wire.look()

    # -- one step ---------------------------------------------------------------------------------------------

    def _write(self) -> None:
        self._wire.look()
        self._check()  # a broker that has gone takes seconds not to answer, and as many not to take what is written
        if not self._wire.has_room:
            return
        if self.rooms is not None and self.rooms.is_live and not self._is_watched and self._wire.is_policy_told:
            self._is_watched = True
            self._wire.write([self.rooms.watched(now_ms())])
            self._set_modes(self.rooms)  # not earlier: in the log they would look like the worker's policy
        records = self._source.due(now_ms())
        self._wire.write(records)
        self.board.events(sum(record.n_events for record in records), self.elapsed_s)
        if self.rooms is not None:
            if not self.rooms.is_live:
                return  # the past needs no ticks: its records follow one another closely
            self.board.live_since_ms = self.rooms.live_since_ms
        clock_ms = self._source.clock_ms
        if clock_ms is not None and (records or time.monotonic() - self._ticked_s >= TICK_S):
            self.board.wrote_up_to(clock_ms, self.elapsed_s)
            if time.monotonic() - self._ticked_s >= TICK_S:
                self._ticked_s = time.monotonic()
                self._wire.tick(clock_ms)

    def _hear(self, timeout_s: float) -> None:
        for heard in self._wire.hear(timeout_s):
            self._take(heard)

    def _take(self, heard: Heard) -> None:
        board, message, elapsed_s = self.board, heard.message, self.elapsed_s
        if heard.topic == OPS_KILL:
            if self._platform is not None:
                self._platform.kill(heard.key, message)
        elif message is None:
            return
        elif heard.topic == ROOM_SIGNALS:
            board.signal(message, elapsed_s)
        elif heard.topic == ROOM_ANOMALIES:
            board.anomaly(message, elapsed_s)
        elif heard.topic == ROOM_EVENTS_DLQ:
            board.reject()
        elif heard.topic == BID_COMMANDS:
            board.command(message, elapsed_s)
            if self._platform is not None:
                self._platform.hear(message, heard.partition)
                self._consider(message)

    def _check(self) -> None:
        """Raise ProgramError when a part has died."""
        if not self._broker.is_running:
            msg = "the embedded broker must run until the end, got its early end: start the demo again"
            raise ProgramError(msg)
        exit_code = self._worker.exit_code
        if exit_code is not None:
            self._fail_worker(exit_code)
        self._wire.check()

    def _fail_worker(self, exit_code: int) -> None:
        how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        words = self._worker.last_words()
        msg = f"the worker must run until the end, got {how}{f' after: {words}' if words else ''}"
        raise ProgramError(msg)

    # -- operator and ad platform -----------------------------------------------------------------------------

    def _set_modes(self, rooms: SimulatedRooms) -> None:
        modes = rooms.modes()
        for mode, room_ids in (("auto", modes.auto), ("approve", modes.approve)):
            for room_id in room_ids:
                self._control(room_id, "set_mode", {"mode": mode})

    def _consider(self, command: dict[str, Any]) -> None:
        """Note what waits for the operator's yes."""
        if command["status"] == "pending_approval":
            self._pending[command["command_id"]] = (time.monotonic() + APPROVE_AFTER_S, command)

    def _act(self) -> None:
        """Let the operator approve what has waited long enough, and the platform act and answer."""
        now_s = time.monotonic()
        for command_id, (due_s, command) in list(self._pending.items()):
            if now_s >= due_s:
                del self._pending[command_id]
                self._control(command["room_id"], "approve", {"command_id": command_id})
        for ack in () if self._platform is None else self._platform.step(now_ms()):
            self._wire.ack(sign(ack, self._control_key.encode(), f"controller:{ACTOR}"))
            self.board.answer(ack)

    def _control(self, room_id: str, action: str, args: dict[str, Any]) -> None:
        self._n_controls += 1
        ts = now_ms()
        request = {
            "control_id": f"demo-{ts}-{self._n_controls}",
            "room_id": room_id,
            "ts": ts,
            "actor": ACTOR,
            "action": action,
            "args": args,
        }
        self._wire.control(sign(request, self._control_key.encode(), f"operator:{ACTOR}"))
