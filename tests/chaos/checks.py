"""What must hold once a run is over; each check returns problems in words, none when all is well."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import orjson

from agents.cli.replay import FILES
from examples.bid_controller import KNOBS
from schemas.topics import (
    AUDIENCE_FEEDBACK,
    AUDIT_LOG,
    BID_COMMANDS,
    ROOM_ANOMALIES,
    ROOM_EVENTS,
    ROOM_EVENTS_DLQ,
    ROOM_SIGNALS,
)
from tests.chaos.load import Load
from tests.chaos.processes import REPOSITORY, environment
from tests.chaos.truth import COMPARED
from tests.chaos.wire import OUTPUTS, Message

REPLAY_TIMEOUT_S: Final = 600.0
SHOWN: Final = 4
"""Differences told of one kind: the first few say what it is."""
_IDS: Final = {
    ROOM_SIGNALS: ("room_id", "revision"),
    ROOM_ANOMALIES: ("anomaly_id", "status", "ts"),
    BID_COMMANDS: ("command_id", "revision", "action"),
    AUDIT_LOG: ("room_id", "seq", "kind"),
    ROOM_EVENTS_DLQ: ("offset", "index", "reason"),
    AUDIENCE_FEEDBACK: ("feedback_id", "revision"),
}


def sessions(truth: Mapping[str, Mapping[str, int]], told: Mapping[str, Mapping[str, Any]], who: str) -> list[str]:
    """Compare each room's last session metrics with the truth."""
    found = []
    for room, wanted in truth.items():
        if room not in told:
            found.append(f"{who}: {room} must be told of, got nothing")
            continue
        differences = {
            name: f"{told[room].get(name, 0)} instead of {wanted[name]}"
            for name in COMPARED
            if told[room].get(name, 0) != wanted[name]
        }
        if differences:
            found.append(f"{who}: {room} must equal the truth, got {differences}")
    return found


class Replay:
    """`roompulse dump` of each partition, piped into `roompulse replay`: messages and summaries."""

    def __init__(self, brokers: Mapping[str, str], folder: Path, n_partitions: int) -> None:
        self._env, self._folder = environment(brokers), folder
        self.problems: list[str] = []
        self.messages: dict[int, dict[str, set[bytes]]] = {}
        self.summaries: dict[int, dict[str, Any]] = {}
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._partition, range(n_partitions)))

    def _partition(self, partition: int) -> None:
        out = self._folder / f"replay-{partition}"
        program = [sys.executable, "-m", "agents"]
        with subprocess.Popen(
            [*program, "dump", "--partition", str(partition)],
            cwd=REPOSITORY, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as dump:  # fmt: skip
            replay = subprocess.run(
                [*program, "replay", "-", "--out", str(out), "--no-trust-log", "--json"],
                cwd=REPOSITORY, env=self._env, stdin=dump.stdout, capture_output=True, timeout=REPLAY_TIMEOUT_S,
                check=False,
            )  # fmt: skip
            said = dump.stderr.read() if dump.stderr else b""
        if (dump.returncode, replay.returncode) != (0, 0):
            self.problems.append(
                f"dump {partition} | replay must end with 0, got {dump.returncode} {said!r}, "
                f"{replay.returncode} {replay.stderr!r}"
            )
            return
        self.summaries[partition] = orjson.loads(replay.stdout)
        self.messages[partition] = {t: set((out / FILES[t]).read_bytes().splitlines()) for t in OUTPUTS}

    def of(self, topic: str) -> Iterator[dict[str, Any]]:
        """Return every message of a topic, parsed."""
        for messages in self.messages.values():
            yield from map(orjson.loads, messages[topic])


def live_is_replay(live: Iterable[Message], replay: Replay) -> list[str]:
    """Compare what was sent with what the logs' replay gives: nothing missing, nothing extra, the same bytes."""
    sent: dict[tuple[int, str], set[bytes]] = defaultdict(set)
    for message in live:
        sent[message.partition, message.topic].add(message.value)
    found = list(replay.problems)
    for partition, topics in replay.messages.items():
        for topic, replayed in topics.items():
            from_rooms = {value for value in sent[partition, topic] if not _is_of_bridge(topic, value)}
            for what, values in (("missing", replayed - from_rooms), ("extra", from_rooms - replayed)):
                if values:
                    first = sorted(_named(topic, value) for value in values)[:SHOWN]
                    found.append(f"live must equal replay: {len(values)} {what} in {topic} {partition}, first {first}")
                    other = {_named(topic, value): value for value in (replayed if what == "extra" else from_rooms)}
                    twin = next(((value, other[n]) for value in values if (n := _named(topic, value)) in other), None)
                    if twin and what == "extra":
                        found.append(f"  one id, two contents: sent {twin[0]!r:.1500} replayed {twin[1]!r:.1500}")
    return found


def _is_of_bridge(topic: str, value: bytes) -> bool:
    """Dead letters of controls and answers are the bridge's, which is no function of the log."""
    return topic == ROOM_EVENTS_DLQ and orjson.loads(value)["topic"] != ROOM_EVENTS


def _named(topic: str, value: bytes) -> str:
    message = orjson.loads(value)
    return " ".join(str(message.get(name)) for name in _IDS[topic])


def rejects(load: Load, replay: Replay) -> list[str]:
    """Every malformed element is one dead letter."""
    n = sum(1 for _ in replay.of(ROOM_EVENTS_DLQ))
    return [] if n == load.n_rejects else [f"dead letters must be {load.n_rejects}, got {n}"]


def controls(load: Load, replay: Replay) -> list[str]:
    """Every signed control is in its room's trail once, however often it was sent; an unsigned one never."""
    seen: Counter[str] = Counter()
    for record in replay.of(AUDIT_LOG):
        control_id = str(record["content"].get("control_id", ""))
        if record["kind"] == "control" and control_id.startswith("ctl-"):
            seen[control_id] += 1
    n_partitions = len(replay.messages)
    wanted = Counter({name: n_partitions if room == "*" else 1 for name, room in load.controls.items()})
    return [f"control {name} must be in the trail {wanted[name]} times, got {seen[name]}" for name in seen | wanted
            if seen[name] != wanted[name]]  # fmt: skip


def unsettled(live: Collection[Message], ledger: list[dict[str, Any]]) -> set[str]:
    """Return the commands that a controller may act on and that the ledger does not know."""
    return _meant(live).keys() - {line["command_id"] for line in ledger}


def _meant(live: Iterable[Message]) -> dict[str, dict[str, Any]]:
    found = {}
    for message in live:
        command = orjson.loads(message.value) if message.topic == BID_COMMANDS else {}
        status = command.get("status")
        is_meant = status == "approved" or (command.get("mode"), status) == ("auto", "issued")
        if is_meant and command["action"] in KNOBS:
            found[command["command_id"]] = command
    return found


def commands(live: Collection[Message], replay: Replay, ledger: list[dict[str, Any]]) -> list[str]:
    """Each command that a controller may act on was acted on once, or refused by the ledger with a reason."""
    found = []
    contents: dict[tuple[str, int], set[bytes]] = defaultdict(set)
    meant = _meant(live)
    owners: dict[tuple[str, str, str, int], set[str]] = defaultdict(set)
    for message in live:
        if message.topic != BID_COMMANDS:
            continue
        command = orjson.loads(message.value)
        if command["action"] not in KNOBS:
            continue
        contents[command["command_id"], command["revision"]].add(message.value)
        if command["status"] != "suppressed":
            knob = KNOBS[command["action"]]
            owners[command["room_id"], command["plan_id"], knob, command["seq"]].add(command["command_id"])
    found += [f"command {name} must have one content, got {len(c)}" for name, c in contents.items() if len(c) > 1]
    found += [f"seq of {knob} must name one command, got {sorted(ids)}" for knob, ids in owners.items() if len(ids) > 1]

    in_log = {command["command_id"] for command in replay.of(BID_COMMANDS)}
    times = Counter(line["command_id"] for line in ledger)
    found += [f"command {name} must be settled once, got {n} ledger lines" for name, n in times.items() if n > 1]
    last: dict[str, int] = {}
    for line in ledger:
        if line["what"] == "refused":
            if line["why"] != "expired":
                found.append(f"command must be refused for age alone, got {line}")
            continue
        if line["command_id"] not in in_log:
            found.append(f"effect must follow from the log, got one of no command: {line}")
        if line["seq"] <= last.get(line["knob"], 0):
            found.append(f"seq must rise, got {line['seq']} after {last[line['knob']]} for {line['knob']}")
        last[line["knob"]] = line["seq"]
    left = meant.keys() - times.keys()
    found += [f"command must be acted on or refused, got neither: {meant[name]}" for name in sorted(left)]
    found += [f"ledger must hold commands that were meant, got {name}" for name in times.keys() - meant.keys()]
    return found
