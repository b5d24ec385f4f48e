"""`roompulse replay`: whatever way a log comes in, the same bytes come out; whatever is wrong with it, one line."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agents.cli import main
from agents.cli.replay import FILES, SUMMARY
from tests.scenario import Line, dump_lines, scenario
from tests.strategies import EXAMPLES, START_MS

ROOT = Path(__file__).resolve().parents[3]
LINES = scenario(11, 500)
PLAIN = [line for line in LINES if b"\n" not in line.value and line.value.strip()]
TIMES = ("elapsed_s", "events_per_s")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine the tests run on."""
    for name in [name for name in os.environ if name.startswith("ROOMPULSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROOMPULSE_CURRENCY__RATES", '{"USD:CNY": "7.13"}')


def replay(*arguments: str | Path) -> int:
    """Run the command in this process; return its exit code."""
    try:
        main(["replay", *map(str, arguments)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def output_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every output file, the two times of the summary taken out."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    summary = json.loads(files[SUMMARY])
    for name in TIMES:
        assert summary.pop(name) >= 0
    # Order and spelling of what stays count as well.
    assert list(json.loads(files[SUMMARY])) == [*summary, *TIMES]
    files[SUMMARY] = json.dumps(summary).encode()
    return files


def values(lines: list[Line] = PLAIN) -> bytes:
    return b"".join(line.value + b"\n" for line in lines)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A dumped log in a file."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(dump_lines(LINES))
    return path


@pytest.fixture
def expected(log: Path, tmp_path: Path) -> Iterator[dict[str, bytes]]:
    """What the dumped log gives."""
    assert replay(log, "--out", tmp_path / "expected") == 0
    files = output_of(tmp_path / "expected")
    assert set(files) == {*FILES.values(), SUMMARY}
    assert min(len(files[name]) for name in ("signals.jsonl", "dlq.jsonl", "commands.jsonl", "audit.jsonl")) > 500
    yield files


class _Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BufferedReader(io.BytesIO(content))


@pytest.mark.parametrize(
    "way", ["gz", "gz without the name", "stdin", "gz on stdin", "two files", "blank lines", "CRLF"]
)
def test_every_way_in_gives_the_same_bytes(
    way: str, log: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, other, out = log.read_bytes(), tmp_path / "other.jsonl", tmp_path / "out"
    names: list[str | Path] = [other]
    if way == "gz":
        names = [tmp_path / "log.jsonl.gz"]
        (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(content))
    elif way == "gz without the name":
        # Two members, as appending to a .gz makes them.
        half = content.index(b"\n", len(content) // 2) + 1
        other.write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))
    elif way in ("stdin", "gz on stdin"):
        monkeypatch.setattr(sys, "stdin", _Stdin(gzip.compress(content) if "gz" in way else content))
        names = ["-"]
    elif way == "two files":
        half = content.index(b"\n", len(content) // 2) + 1
        other.write_bytes(content[:half])
        (tmp_path / "second.jsonl").write_bytes(content[half:])
        names = [other, tmp_path / "second.jsonl"]
    elif way == "blank lines":
        other.write_bytes(content.replace(b"\n", b"\n\n  \t\n") + b"\n\n")
    else:
        other.write_bytes(content.replace(b"\n", b"\r\n"))
    assert replay(*names, "--out", out) == 0
    assert output_of(out) == expected


@pytest.mark.parametrize("chunk", [1, 10_000])
def test_the_chunk_changes_nothing(chunk: int, log: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    assert replay(log, "--out", tmp_path / "out", "--chunk", str(chunk)) == 0
    assert output_of(tmp_path / "out") == expected


def test_neither_the_hash_seed_nor_the_time_zone_nor_the_pipe_changes_anything(
    log: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    processes = []
    for seed, zone in (("1", "Asia/Shanghai"), ("2", "America/New_York")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C"}
        command = [sys.executable, "-m", "agents", "replay", "-", "--out", str(tmp_path / seed)]
        with log.open("rb") as file:
            process = subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, cwd=ROOT, env=environment)
        processes.append((seed, process))
    for seed, process in processes:
        told, _ = process.communicate(timeout=90)
        assert process.returncode == 0
        assert told.count(b"\n") == 1
        assert output_of(tmp_path / seed) == expected


# -- what a line may be -----------------------------------------------------------------------------------------


def dumped(line: Line, form: str) -> bytes:
    """Return a dump line in one of the forms that a value may take."""
    head: dict[str, Any] = {"offset": line.offset, "timestamp": line.timestamp}
    if form == "text":
        return json.dumps({**head, "value": line.value.decode()}).encode()
    if form == "base64":
        return json.dumps({**head, "value_b64": base64.b64encode(line.value).decode()}).encode()
    if form == "value first, in 中文":
        return b'{"value": ' + line.value + b', "timestamp": %d, "offset": %d}' % (line.timestamp, line.offset)
    return json.dumps(head).encode()[:-1] + b', "value": ' + line.value + b"}"


@pytest.mark.parametrize("form", ["text", "base64", "object", "value first, in 中文"])
def test_every_form_of_a_dump_line_is_the_same_record(form: str, tmp_path: Path) -> None:
    good = [line for line in LINES if not line.bad]
    for name, made in (("one", form), ("other", "base64")):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(dumped(line, made) + b"\n" for line in good))
        assert replay(tmp_path / f"{name}.jsonl", "--out", tmp_path / name) == 0
    assert output_of(tmp_path / "one") == output_of(tmp_path / "other")


def test_a_dump_line_names_offset_key_and_partition_of_dead_letters(tmp_path: Path) -> None:
    bad = {"offset": 70, "timestamp": START_MS, "value": "no json", "key": "room-9", "partition": 5}
    foreign = {**bad, "offset": 71, "value": [EXAMPLES["view"]]}
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in (bad, foreign)))
    assert replay(path, "--out", tmp_path / "out") == 0
    letters = [json.loads(line) for line in (tmp_path / "out" / "dlq.jsonl").read_bytes().splitlines()]
    told = [(letter["offset"], letter["partition"], letter["reason"], letter.get("index")) for letter in letters]
    assert told == [(70, 5, "not_json", None), (71, 5, "foreign_room", 0)]
    assert letters[0]["ts"] == START_MS


def test_a_plain_lines_offset_is_its_number_blank_lines_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n" + json.dumps(EXAMPLES["view"]).encode() + b"\n\n\nnonsense\n[]")
    assert replay(path, "--out", tmp_path / "out") == 0
    letters = [json.loads(line) for line in (tmp_path / "out" / "dlq.jsonl").read_bytes().splitlines()]
    assert [letter["offset"] for letter in letters] == [5, 6]
    assert json.loads((tmp_path / "out" / SUMMARY).read_bytes())["n_records"] == 3


def test_an_event_with_an_offset_and_a_timestamp_of_its_own_is_an_event(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(json.dumps({**EXAMPLES["view"], "offset": "x", "timestamp": "y"}).encode())
    assert replay(path, "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / SUMMARY).read_bytes())["n_events"] == 1


def test_lines_without_timestamps_get_a_last_evaluation_and_dumped_ones_do_not(tmp_path: Path) -> None:
    event = {**EXAMPLES["order"], "ts": START_MS}
    plain, dump = tmp_path / "plain.jsonl", tmp_path / "dump.jsonl"
    plain.write_bytes(json.dumps(event).encode())
    dump.write_bytes(json.dumps({"offset": 1, "timestamp": START_MS, "value": event}).encode())
    for path in (plain, dump):
        assert replay(path, "--out", tmp_path / path.stem) == 0
    signals = [json.loads(line) for line in (tmp_path / "plain" / "signals.jsonl").read_bytes().splitlines()]
    assert [message["ts"] for message in signals] == [START_MS + 500]
    assert signals[0]["windows"]["60"]["gmv_minor"] == event["amount_minor"]
    assert (tmp_path / "dump" / "signals.jsonl").read_bytes() == b""
    # The summary tells what has come in, evaluated or not.
    for path in (plain, dump):
        summary = json.loads((tmp_path / path.stem / SUMMARY).read_bytes())
        assert summary["rooms"]["room-1"]["session"]["gmv_minor"] == event["amount_minor"]


def test_a_log_without_a_line_gives_empty_files_and_a_summary(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"\n \n")
    assert replay(tmp_path / "log.jsonl", "--out", tmp_path / "out") == 0
    files = output_of(tmp_path / "out")
    assert all(files[name] == b"" for name in FILES.values())
    assert json.loads(files[SUMMARY])["rooms"] == {}


# -- the summary ------------------------------------------------------------------------------------------------


def test_the_summary_has_the_fields_of_the_contract_and_they_add_up(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(values())
    assert replay(path, "--out", tmp_path / "out", "--json") == 0
    told = capsys.readouterr()
    assert told.err == ""
    summary = json.loads(told.out)
    assert summary == json.loads((tmp_path / "out" / SUMMARY).read_bytes())
    assert {"n_records", "n_events", "n_duplicates", "n_rejects", "n_late", *TIMES, "versions", "rooms"} <= set(summary)
    n_elements = 0
    for line in PLAIN:
        value = [] if None in line.bad else json.loads(line.value)
        n_elements += len(value) if isinstance(value, list) and value else 1
    assert summary["n_records"] == len(PLAIN)
    assert summary["n_events"] + summary["n_duplicates"] + summary["n_rejects"] == n_elements
    assert min(summary["n_events"], summary["n_duplicates"], summary["n_rejects"], summary["n_late"]) > 0
    files = output_of(tmp_path / "out")
    assert files["dlq.jsonl"].count(b"\n") == summary["n_rejects"]
    commands = [json.loads(line) for line in files["commands.jsonl"].splitlines()]
    opened = {
        (a["room_id"], a["anomaly_id"]): a["severity"]
        for a in map(json.loads, files["anomalies.jsonl"].splitlines())
        if a["status"] == "open"
    }
    for room_id, room in summary["rooms"].items():
        assert set(room) == {"session", "n_anomalies", "n_commands"}
        assert list(room["n_anomalies"]) == ["S1", "S2", "S3", "S4"]
        assert sum(room["n_anomalies"].values()) == sum(name == room_id for name, _ in opened)
        assert sum(room["n_commands"].values()) == sum(c["room_id"] == room_id and c["revision"] == 1 for c in commands)
    assert {"engine", "policy", "roompulse"} <= set(summary["versions"])


def test_without_json_one_line_for_people(log: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    assert replay(log, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.count("\n") == 1
    monkeypatch.setenv("ROOMPULSE_LANG", "zh")
    assert replay(log, "--out", tmp_path / "out") == 0
    assert "直播间" in capsys.readouterr().out


# -- policy -----------------------------------------------------------------------------------------------------


def control(n: int, **policy: Any) -> bytes:
    event = {
        "type": "control",
        "event_id": f"c{n}",
        "control_id": f"c{n}",
        "room_id": "*",
        "ts": START_MS,
        "actor": "w",
    }
    args = {"policy": policy, "versions": {}}
    event |= {"action": "update_settings", "args": args}
    return json.dumps({"offset": n, "timestamp": START_MS, "value": event}).encode() + b"\n"


def event_line(n: int) -> bytes:
    event = {**EXAMPLES["view"], "event_id": f"e{n}", "ts": START_MS + n * 100}
    return json.dumps({"offset": n, "timestamp": START_MS + n * 100, "value": event}).encode() + b"\n"


def emission_gaps(folder: Path) -> set[int]:
    moments = [json.loads(line)["ts"] for line in (folder / "signals.jsonl").read_bytes().splitlines()]
    return {later - earlier for earlier, later in pairwise(moments)}


def test_the_logs_own_policy_holds_unless_one_is_given(tmp_path: Path) -> None:
    path, policy = tmp_path / "log.jsonl", tmp_path / "policy.toml"
    events = b"".join(event_line(n) for n in range(2, 400))
    path.write_bytes(control(1, engine={"emit_interval_ms": 10_000}) + events)
    policy.write_text("[engine]\nemit_interval_ms = 2000\n")
    assert replay(path, "--out", tmp_path / "own") == 0
    assert replay(path, "--out", tmp_path / "given", "--policy", policy) == 0
    assert emission_gaps(tmp_path / "own") == {10_000}
    assert emission_gaps(tmp_path / "given") == {2_000}
    versions = [json.loads((tmp_path / name / SUMMARY).read_bytes())["versions"]["policy"] for name in ("own", "given")]
    assert versions[0] != versions[1]
    # The trail still tells that the log named another.
    assert b"update_settings" in (tmp_path / "given" / "audit.jsonl").read_bytes()


def test_unsigned_controls_are_refused_when_the_file_is_not_to_be_trusted(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(control(1, engine={"emit_interval_ms": 10_000}))
    assert replay(path, "--out", tmp_path / "out", "--no-trust-log") == 0
    (letter,) = (tmp_path / "out" / "dlq.jsonl").read_bytes().splitlines()
    assert json.loads(letter)["reason"] == "unsigned"


# -- what may be wrong ------------------------------------------------------------------------------------------


def wrong(tmp_path: Path, name: str) -> tuple[list[str | Path], int]:
    """Return the arguments of a call that must fail, and its exit code."""
    path, out = tmp_path / "log.jsonl", tmp_path / "out"
    path.write_bytes(values(PLAIN[:50]))
    zipped = gzip.compress(values())
    head = b'{"offset": 1, "timestamp": 5, '
    contents = {
        "a gz cut short": zipped[: len(zipped) // 2],
        "a gz with a damaged middle": zipped[:200] + b"\0" * 50 + zipped[250:],
        "a gz with something after it": zipped + b"more",
        "a gz of two bytes": b"\x1f\x8b",
        "a dump line without a number for an offset": b'{"offset": "1", "timestamp": 5, "value": {}}',
        "a dump line with an offset below zero": b'{"offset": -1, "timestamp": 5, "value": {}}',
        "a dump line with a broken base64": head + b'"value_b64": "%%%"}',
        "a dump line with neither value nor value_b64": head + b'"key": "room-1"}',
    }
    if name in contents:
        path.write_bytes(contents[name])
        return [path, "--out", out], 1
    if name == "a file that is missing":
        return [tmp_path / "nowhere.jsonl", "--out", out], 2
    if name == "a folder for a file":
        return [tmp_path, "--out", out], 2
    if name == "a second file that is missing":
        return [path, tmp_path / "nowhere.jsonl", "--out", out], 2
    if name == "an out that is a file":
        return [path, "--out", path], 2
    if name == "an out below a file":
        return [path, "--out", path / "out"], 2
    if name == "no out":
        return [path], 2
    if name == "no file":
        return ["--out", out], 2
    if name == "a chunk of nothing":
        return [path, "--out", out, "--chunk", "0"], 2
    if name == "a policy that is missing":
        return [path, "--out", out, "--policy", tmp_path / "nowhere.toml"], 2
    (tmp_path / "policy.toml").write_text("[engine]\nemit_intervall_ms = 2000\n")
    return [path, "--out", out, "--policy", tmp_path / "policy.toml"], 2


WRONG = [
    "a gz cut short", "a gz with a damaged middle", "a gz with something after it", "a gz of two bytes",
    "a dump line without a number for an offset", "a dump line with an offset below zero",
    "a dump line with a broken base64", "a dump line with neither value nor value_b64",
    "a file that is missing", "a folder for a file", "a second file that is missing", "an out that is a file",
    "an out below a file", "no out", "no file", "a chunk of nothing", "a policy that is missing",
    "a policy with a misspelt name",
]  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_one_line(name: str, tmp_path: Path, capsys: Any) -> None:
    arguments, code = wrong(tmp_path, name)
    assert replay(*arguments) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("roompulse: ")
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    # A folder without a summary says that it is not whole.
    assert not (tmp_path / "out" / SUMMARY).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_out_that_cannot_be_written_is_told_in_one_line(log: Path, tmp_path: Path, capsys: Any) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert replay(log, "--out", closed / "out") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_summary_of_a_former_run_does_not_outlive_a_failed_one(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert replay(log, "--out", out) == 0
    damaged = tmp_path / "damaged.jsonl.gz"
    damaged.write_bytes(gzip.compress(log.read_bytes())[:-50])
    assert replay(damaged, "--out", out) == 1
    assert not (out / SUMMARY).exists()
