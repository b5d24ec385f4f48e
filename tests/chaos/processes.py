"""The processes under test: workers in slots, the ad platform, and a supervisor that restarts what ends by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from tests.chaos.platform import DIED_IN_ACT
from tests.chaos.schedule import N_SLOTS

REPOSITORY: Final = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S: Final = 60.0
APP_ID: Final = "chaos"
PRIVACY_KEY, CONTROL_KEY = "p" * 40, "c" * 40
POLICY: Final = {
    # A pace at which half a minute holds many commands and some anomalies; the rules are the product's own.
    "BIDDING__MODE": "auto",
    "BIDDING__COOLDOWN_UP_S": "10",
    "BIDDING__COOLDOWN_DOWN_S": "10",
    "BIDDING__HOURLY_RATIO": "1.0",
    "BIDDING__MAX_PER_SESSION": "10000",
    "BIDDING__MIN_ORDERS": "2",
    "BIDDING__MIN_SPEND_MINOR": "1",
    "BIDDING__MIN_MATURITY": "0.01",
    "BIDDING__INTERVAL_MS": "1000",
    "BIDDING__LIFETIME_MS": "15000",
    "BIDDING__ABSURD_ORDER_FACTOR": "1000",
    "ROI__CONVERSION_DELAY_S": "1",
    "ROI__MATURITY_FLOOR": "0.01",
    "ROI__MIN_ORDERS": "2",
    "DETECT__SAMPLE_INTERVAL_MS": "500",
    "DETECT__LAG_MS": "0",
    "DETECT__MIN_SAMPLES": "10",
    "DETECT__HISTORY": "20",
    "DETECT__OPEN_Z": "2.5",
    "DETECT__MIN_OPEN_MS": "0",
    "ENGINE__EMIT_INTERVAL_MS": "2000",
    "ENGINE__CHANNELS_INTERVAL_MS": "5000",
    "SIGNALS__DIMENSIONS": '["segment", "region"]',
}
RUNNING: Final = {
    "PRIVACY_KEY": PRIVACY_KEY,
    "CONTROL_KEY": CONTROL_KEY,
    "KAFKA__APP_ID": APP_ID,
    "KAFKA__SESSION_TIMEOUT_S": "6",
    "KAFKA__REBALANCE_TIMEOUT_S": "3",
    "KAFKA__HEARTBEAT_INTERVAL_S": "1",
    "WORKER__SNAPSHOT_INTERVAL_S": "1",
}


def code_path(checkout: Path = REPOSITORY) -> dict[str, str]:
    """Return the environment, without settings, of a process that runs a checkout's code."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROOMPULSE_")}
    path = os.pathsep.join(filter(None, (str(checkout), inherited.get("PYTHONPATH"))))
    return inherited | {"PYTHONPATH": path}


def environment(brokers: Mapping[str, str], *, checkout: Path = REPOSITORY, **more: str) -> dict[str, str]:
    """Return the environment of a `roompulse` process of this deployment."""
    settings = {f"ROOMPULSE_{name}": value for name, value in (POLICY | RUNNING | more).items()}
    return code_path(checkout) | dict(brokers) | settings


def provision(brokers: Mapping[str, str]) -> None:
    """Make the topics as a user does; an embedded broker makes them by itself."""
    said = subprocess.run(
        [sys.executable, "-m", "agents", "provision"],
        cwd=REPOSITORY, env=environment(brokers), capture_output=True, timeout=STOP_TIMEOUT_S, check=False,
    )  # fmt: skip
    if said.returncode:
        msg = f"provision must end with 0, got {said.returncode}: {said.stderr!r}"
        raise RuntimeError(msg)


class Child:
    """A process of ours and its log file."""

    def __init__(
        self, name: str, folder: Path, arguments: list[str], env: dict[str, str], checkout: Path = REPOSITORY
    ) -> None:
        self.checkout = checkout
        self.name, self.is_frozen, self.was_told_to_stop, self.is_judged = name, False, False, False
        self.log_file = folder / f"{name}.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], cwd=checkout, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def code(self) -> int | None:
        """Exit code, None while it runs."""
        return self.process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is anybody to hear it."""
        if self.code is None:
            self.process.send_signal(number)
            self.was_told_to_stop |= number == signal.SIGTERM
            self.is_frozen = number == signal.SIGSTOP or (self.is_frozen and number != signal.SIGCONT)

    def wait(self) -> int:
        """Return its exit code once it has ended; SIGKILL when that takes too long."""
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """Return the log; a line that is no JSON becomes an error of its own."""
        found = []
        for line in self.log_file.read_bytes().splitlines():
            try:
                found.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                found.append({"level": "error", "message": line.decode(errors="replace")})
        return found


class Processes:
    """Workers by slot, and the platform; `events` says what was done to them and when."""

    def __init__(self, brokers: Mapping[str, str], folder: Path, beside: Path | None = None) -> None:
        self._brokers, self._folder = brokers, folder
        self._checkouts = (REPOSITORY, beside or REPOSITORY)
        """Slots begin with them in turn; a slot's next worker runs the other one's code."""
        self._turns = list(range(N_SLOTS))
        self.slots: list[Child | None] = [None] * N_SLOTS
        self.wanted: set[int] = set()
        """Slots that a supervisor keeps filled."""
        self.all: list[Child] = []
        self.platform: Child | None = None
        self.events: list[str] = []
        self.n_ended_by_itself = self.n_platform_ends = 0
        self.problems: list[str] = []
        self._begin_s = time.monotonic()

    def note(self, words: str) -> None:
        """Add to what happened."""
        self.events.append(f"{time.monotonic() - self._begin_s:.1f}s {words}")

    def begin(self) -> None:
        """Count time from here on."""
        self._begin_s = time.monotonic()

    # -- workers ----------------------------------------------------------------------------------------------

    def start(self, slot: int, **more: str) -> Child | None:
        """Fill a slot, unless it is filled."""
        self.wanted.add(slot)
        held = self.slots[slot]
        if held is not None and held.code is None:
            return None
        checkout = self._checkouts[self._turns[slot] % 2]
        self._turns[slot] += 1
        name = f"worker-{slot}-{len(self.all)}{'' if checkout == REPOSITORY else '-beside'}"
        env = environment(self._brokers, checkout=checkout, WORKER__DATA_DIR=str(self._folder / name), **more)
        child = self.slots[slot] = Child(name, self._folder, ["-m", "agents", "worker"], env, checkout)
        self.all.append(child)
        self.note(f"started {name}")
        return child

    def strike(self, slot: int, number: signal.Signals) -> None:
        """Send a signal to the worker of a slot; one that ends it leaves the slot empty."""
        child = self.slots[slot]
        if child is None or child.code is not None:
            return
        if number in (signal.SIGTERM, signal.SIGKILL):
            self.wanted.discard(slot)
            if child.is_frozen and number == signal.SIGTERM:
                child.send(signal.SIGCONT)
            self.slots[slot] = None
        child.send(number)
        self.note(f"{number.name} to {child.name}")

    def supervise(self) -> None:
        """Restart what ended by itself, as a deployment's supervisor does."""
        for slot in self.wanted:
            child = self.slots[slot]
            if child is not None and child.code is not None:
                self.n_ended_by_itself += 1
                self.note(f"{child.name} ended by itself with {child.code}: {last_words(child)}")
                self.slots[slot] = None
                self.start(slot)
        if self.platform is not None and self.platform.code is not None:
            self.n_platform_ends += 1
            if self.platform.code not in (DIED_IN_ACT, -signal.SIGKILL):
                self.problems.append(f"the platform ended with {self.platform.code}: {last_words(self.platform)}")
            self.note(f"platform ended with {self.platform.code}")
            self.start_platform()

    def partitions(self) -> set[int]:
        """Return the partitions that running workers said they have."""
        held: set[int] = set()
        for child in self.slots:
            if child is not None and child.code is None:
                ready = [line for line in child.lines() if line["message"] == "ready"]
                held |= set(ready[-1]["partitions"]) if ready else set()
        return held

    def thaw(self, slot: int | None = None) -> None:
        """Let the frozen worker of a slot go on, or every one."""
        for child in self.all if slot is None else [self.slots[slot]]:
            if child is not None and child.is_frozen:
                child.send(signal.SIGCONT)
                self.note(f"SIGCONT to {child.name}")

    def stop_workers(self) -> None:
        """End every worker cleanly; what does not end with 0 is a problem."""
        self.wanted.clear()
        for slot in range(N_SLOTS):
            self.strike(slot, signal.SIGTERM)
        for child in self.all:
            if child.was_told_to_stop and not child.is_judged:
                child.is_judged, code = True, child.wait()
                self.note(f"{child.name} stopped with {code}")
                # Told before Python had read the program: there was nobody to answer, and nothing begun.
                if code != 0 and not (code == -signal.SIGTERM and not child.lines()):
                    self.problems.append(f"{child.name} must end with 0 on SIGTERM, got {code}: {last_words(child)}")

    # -- the platform -----------------------------------------------------------------------------------------

    def start_platform(self) -> None:
        """Start the ad platform, for the first time or again."""
        name = f"platform-{self.n_platform_ends}"
        arguments = ["-m", "tests.chaos.platform", str(self._folder / "platform.json")]
        self.platform = Child(name, self._folder, arguments, environment(self._brokers))

    def stop_platform(self) -> None:
        """End the platform for good."""
        if self.platform is not None:
            self.platform.send(signal.SIGKILL)
            self.platform.wait()
            self.platform = None

    def kill_everything(self) -> None:
        """Leave no process behind, however the run ended."""
        for child in [*self.all, *filter(None, [self.platform])]:
            if child.code is None:
                child.process.kill()
                child.process.wait()


def last_words(child: Child) -> str:
    """Return the last line of a child's log that is more than information."""
    for line in reversed(child.lines()):
        if line.get("level") in ("error", "critical", "warning"):
            return " ".join(str(line[name]) for name in ("message", "error") if name in line)[:300]
    return "nothing"
