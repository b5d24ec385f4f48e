"""One seed: start everything, send the load, do harm, let it settle, and see whether anything is wrong."""

from __future__ import annotations

import signal
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas.topics import BID_ACKS, OPS_CONTROL, ROOM_EVENTS
from tests.chaos import checks
from tests.chaos.brokers import Brokers
from tests.chaos.load import Load, LoadMaker
from tests.chaos.platform import Config, now_ms, read_ledger
from tests.chaos.processes import APP_ID, CONTROL_KEY, REPOSITORY, Processes, provision
from tests.chaos.schedule import Act, schedule
from tests.chaos.wire import SOURCES, Collector, Group, Sending

STALLED_S: Final = 75.0
"""Without any progress of the group for so long, something hangs: a session, a rebalance and a restart take 30."""
POLL_S: Final = 0.1


@dataclass
class Report:
    """What came of a seed."""

    seed: int
    rate: int
    seconds: float
    brokers: str
    problems: list[str] = field(default_factory=list)
    schedule: list[str] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; what happened is told in full only where something is wrong."""
        told = asdict(self)
        if self.is_ok:
            del told["happened"], told["logs"]
        return told


class StalledError(Exception):
    """The group made no progress."""


class Run:
    """One seed's run in a folder of its own."""

    def __init__(
        self, seed: int, brokers: Brokers, folder: Path, *, rate: int, seconds: float, n_rooms: int,
        beside: Path | None = None,
    ) -> None:  # fmt: skip
        self.report = Report(seed, rate, seconds, brokers.name)
        self._brokers, self._folder, self._n_rooms = brokers, folder, n_rooms
        self.processes = Processes(brokers.settings, folder, beside)
        self.n_workers, self.acts = schedule(
            seed, seconds, n_brokers_restartable=brokers.n_restartable, is_mixed=beside is not None
        )
        self.report.schedule = [f"{self.n_workers} workers", *map(str, self.acts)]
        self._group = Group(brokers.bootstrap, brokers.n_partitions)
        self._collector = Collector(brokers.bootstrap, brokers.n_partitions)

    def __call__(self) -> Report:
        """Run to the end, whatever happens, and leave no process behind."""
        report, began_s = self.report, time.monotonic()
        try:
            self._run()
        except (StalledError, TimeoutError) as error:
            report.problems.append(f"{type(error).__name__}: {error}")
        finally:
            self.processes.kill_everything()
            self._collector.stop()
            self._group.close()
        report.problems += self.processes.problems
        report.happened = self.processes.events
        report.stats["elapsed_s"] = round(time.monotonic() - began_s, 1)
        report.stats["n_ready"] = dict(Counter(
            "here" if child.checkout == REPOSITORY else "beside"
            for child in self.processes.all
            if any(line.get("message") == "ready" for line in child.lines())
        ))  # fmt: skip
        report.stats["n_ended_by_itself"] = self.processes.n_ended_by_itself
        if not report.is_ok:
            for child in self.processes.all:
                lines = [line for line in child.lines() if line.get("level") in ("warning", "error", "critical")]
                report.logs[child.name] = [str(line)[:400] for line in lines[-8:]]
        return report

    def _run(self) -> None:
        report, processes = self.report, self.processes
        provision(self._brokers.settings)
        for slot in range(self.n_workers):
            processes.start(slot)
        load = self._make_load()
        self._config(load)
        self._collector.start()
        self._await(lambda: len(processes.partitions()) == self._brokers.n_partitions, "workers are ready")
        processes.start_platform()
        sending = Sending(self._brokers.bootstrap, load.records)
        processes.begin()
        sending.start()
        self._do_harm()
        while sending.is_alive():
            processes.supervise()
            sending.join(POLL_S)
        if sending.n_failed:
            report.problems.append(f"the load must be delivered, got {sending.n_failed} records that were not")
        processes.note("load sent")
        report.stats |= {"late_s": round(sending.late_s, 2), "sent_s": round(sending.seconds, 1)}
        self._settle(load)
        self._check(load)

    def _config(self, load: Load, *, is_mute: bool = False) -> None:
        config = Config(
            self._brokers.bootstrap, self._brokers.n_partitions, str(self._folder / "ledger.jsonl"), self.report.seed,
            CONTROL_KEY, load.plans, is_mute,
        )  # fmt: skip
        config.write(self._folder / "platform.json")

    def _make_load(self) -> Load:
        report = self.report
        maker = LoadMaker(
            report.seed, begin_ms=now_ms(), n_rooms=self._n_rooms, n_partitions=self._brokers.n_partitions,
            control_key=CONTROL_KEY.encode(),
        )  # fmt: skip
        load = maker.make(rate=report.rate, seconds=report.seconds)
        report.stats |= {"n_events": load.n_events, "n_repeats": load.n_repeats, "n_rejects": load.n_rejects}
        return load

    # -- harm -------------------------------------------------------------------------------------------------

    def _do_harm(self) -> None:
        began_s = time.monotonic()
        for act in self.acts:
            while (left_s := began_s + act.at_s - time.monotonic()) > 0:
                self.processes.supervise()
                time.sleep(min(left_s, POLL_S))
            self._do(act)

    def _do(self, act: Act) -> None:
        processes = self.processes
        match act.deed:
            case "start":
                processes.start(act.slot)
            case "kill":
                processes.strike(act.slot, signal.SIGKILL)
            case "term":
                processes.strike(act.slot, signal.SIGTERM)
            case "freeze":
                processes.strike(act.slot, signal.SIGSTOP)
            case "thaw":
                processes.thaw(act.slot)
            case "platform_kill":
                if processes.platform is not None:
                    processes.platform.send(signal.SIGKILL)
            case "broker_kill":
                processes.note(f"kill -9 of broker {act.slot}")
                self._brokers.kill(act.slot)
            case "broker_halt":
                processes.note(f"SIGTERM to broker {act.slot}")
                self._brokers.halt(act.slot)
            case "broker_back":
                self._brokers.bring_back(act.slot)
                processes.note(f"broker {act.slot} is back")

    # -- the end ----------------------------------------------------------------------------------------------

    def _settle(self, load: Load) -> None:
        """Let the workers catch up, stop everything, and let one worker without a clock read the logs to their end."""
        processes = self.processes
        processes.thaw()
        if not processes.wanted:
            processes.start(0)
        ends = self._group.ends()
        began_s = time.monotonic()

        def is_worked_off() -> bool:
            done = self._group.committed()
            return all(done[place] >= end for place, end in ends.items())

        self._await(is_worked_off, "the group has worked off the load")
        self.report.stats["caught_up_s"] = round(time.monotonic() - began_s, 1)

        def is_true() -> bool:
            return not checks.sessions(load.truth, self._collector.sessions(), "")

        self._await(is_true, "signals meet the truth", fatal=False)
        processes.stop_platform()
        ends = self._group.ends((OPS_CONTROL, BID_ACKS))
        self._await(is_worked_off, "the bridge has carried everything")
        processes.stop_workers()
        closer = processes.start(0, WORKER__CLOCK="false")
        self._await(lambda: closer is not None and bool(processes.partitions()), "the last worker is ready")
        self._await(lambda: not self._group.lag(), "the last worker reads to the end")
        processes.stop_workers()
        processes.note("stopped")

    def _await(self, condition: Any, what: str, *, fatal: bool = True) -> None:
        """Wait while there is progress; without any, it is a problem, and with `fatal` the end of the run."""
        progress: object = None
        since_s = time.monotonic()
        limit_s = STALLED_S if fatal else STALLED_S / 3
        n_looks = 0
        while not condition():
            self.processes.supervise()
            time.sleep(POLL_S)
            n_looks += 1
            if n_looks % 10 == 0:
                now = self._group.committed((ROOM_EVENTS,)) if fatal else None
                if fatal and now != progress and not _is_ticks(progress, now):
                    progress, since_s = now, time.monotonic()
            if time.monotonic() - since_s > limit_s:
                if not fatal:
                    return  # the checks say what differs
                raise StalledError(f"gave up waiting until {what}; lag {self._group.lag()}")

    # -- judgement --------------------------------------------------------------------------------------------

    def _check(self, load: Load) -> None:
        report, group = self.report, self._group
        begins = {place: n for place, n in group.begins((ROOM_EVENTS, f"{APP_ID}-rooms-changelog")).items() if n}
        report.stats["n_forgotten"] = {f"{topic} {n}": begin for (topic, n), begin in begins.items()}
        if any(topic == ROOM_EVENTS for topic, _ in begins):
            report.problems.append(f"the broker must keep the whole log, got its beginning at {begins}: lower the rate")
            return
        lag = group.lag(SOURCES)
        if lag:
            report.problems.append(f"lag must be 0, got {lag}")
        self._collector.read_to_end(group)
        if self._collector.holes:
            report.problems.append(f"outputs must be read without a hole, got {self._collector.holes[:3]}")
        live = dict(self._collector.messages)
        self._config(load, is_mute=True)
        self.processes.start_platform()
        report.problems += checks.sessions(load.truth, self._collector.sessions(), "signals")
        replay = checks.Replay(self._brokers.settings, self._folder, self._brokers.n_partitions)
        replayed = {name: room["session"] for s in replay.summaries.values() for name, room in s["rooms"].items()}
        report.problems += checks.sessions(load.truth, replayed, "replay")
        report.problems += checks.live_is_replay(live, replay)
        report.problems += checks.rejects(load, replay)
        report.problems += checks.controls(load, replay)
        ledger_file = self._folder / "ledger.jsonl"
        self._await(lambda: not checks.unsettled(live, read_ledger(ledger_file)), "what was open expires", fatal=False)
        self.processes.stop_platform()
        ledger = read_ledger(ledger_file)
        report.problems += checks.commands(live, replay, ledger)
        report.stats |= {
            "n_outputs": len(live),
            "n_output_repeats": sum(live.values()) - len(live),
            "by_topic": dict(Counter(message.topic for message in live)),
            "n_applied": sum(line["what"] == "applied" for line in ledger),
            "n_expired": sum(line["what"] == "refused" for line in ledger),
            "n_platform_ends": self.processes.n_platform_ends,
            "n_acts": len(self.acts),
        }


def _is_ticks(before: Any, now: Any) -> bool:
    """Tell whether a change may be no more than ticks: progress is not their work."""
    return before is not None and all(0 <= now[place] - before[place] <= 4 for place in now)
