"""`roompulse simulate` as a person or a script calls it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.broker import EmbeddedBroker
from agents.cli import main
from pipeline.simulate import DEFAULT_START_TS, SCENARIOS, WORLDS, Parameters, World, play, with_values

SHORT = ["simulate", "--scenario", "mixed", "--rooms", "3", "--minutes", "3", "--seed", "5", "--trouble-at-s", "60"]


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        main(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def expected() -> tuple[list[dict[str, Any]], World]:
    world = World("mixed", 3, 5, trouble_at_ms=DEFAULT_START_TS + 60_000)
    return [event for _, _, event in play(world, 3)], world


def test_a_file_holds_the_events_and_the_truth_file_what_was_injected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, truth = tmp_path / "log.jsonl", tmp_path / "truth.jsonl"
    code, said, _ = called(capsys, *SHORT, "--out", str(out), "--truth", str(truth), "--json")
    events, world = expected()
    assert code == 0
    assert [orjson.loads(line) for line in out.read_bytes().splitlines()] == events
    told = [orjson.loads(line) for line in truth.read_bytes().splitlines()]
    assert [line for line in told if line["type"] == "trouble"] == [
        orjson.loads(orjson.dumps(trouble.as_dict())) for trouble in world.truth()
    ]
    assert [line for line in told if line["type"] == "room"] == [
        {"type": "room", **books.as_dict()} for books in world.books().values()
    ]
    summary = orjson.loads(said)
    assert (summary["n_events"], summary["n_bytes"]) == (len(events), out.stat().st_size)
    assert summary["rooms"]["room-001"] == world.books()["room-001"].as_dict()


def test_labels_and_returns_are_those_of_the_world_with_the_parameters_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, returns = tmp_path / "labels.jsonl", tmp_path / "returns.jsonl"
    settings = ["--set", "bots.burst_devices=3", "--set", "size=2"]
    arguments = ["--out", str(tmp_path / "log"), "--labels", str(labels), "--returns", str(returns), *settings]
    assert called(capsys, *SHORT, *arguments)[0] == 0
    parameters = with_values(Parameters(), {"bots.burst_devices": "3", "size": "2"})
    world = World("mixed", 3, 5, trouble_at_ms=DEFAULT_START_TS + 60_000, parameters=parameters, is_labelled=True)
    list(play(world, 3))
    assert len(world.truth()[0].device_ids) == 3
    kept = {label.event_id: label.as_dict() for label in world.labels()}
    written = [orjson.loads(line) for line in labels.read_bytes().splitlines()]
    assert {one["event_id"]: one for one in written} == kept
    assert len(written) == len(kept) > 300
    world.settle()
    expected = [cohort.as_dict() for cohort in world.cohorts()] + [order.as_dict() for order in world.orders()]
    assert [orjson.loads(line) for line in returns.read_bytes().splitlines()] == expected
    assert {one["type"] for one in expected} == {"cohort", "order"}


def test_a_packed_file_is_the_same_bytes_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    for path in (first, second):
        assert called(capsys, *SHORT, "--out", str(path))[0] == 0
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes()).count(b"\n") == len(expected()[0])


def test_the_list_names_every_scenario_and_world_in_both_languages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for lang in ("en", "zh"):
        monkeypatch.setenv("ROOMPULSE_LANG", lang)
        code, said, _ = called(capsys, "simulate", "--list")
        assert code == 0
        named = [line.split()[0] for line in said.splitlines() if line.startswith("  ") and "=" not in line]
        assert named == [*SCENARIOS, *WORLDS]
        assert all(getattr(one, lang) in said for one in (*SCENARIOS.values(), *WORLDS.values()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scenario", "storm"], "scenario must be one of calm, bot_burst"),
        (["--rate", "5"], "--rate must come with --broker"),
        (["--broker", "kafka://127.0.0.1:1", "--out", "x"], "--out and --broker must not both be given"),
        (["--broker", "127.0.0.1:1"], "broker must be kafka://host:port"),
        (["--broker", "kafka://127.0.0.1:1", "--rate", "0"], "--rate must be above 0"),
        (["--broker", "kafka://127.0.0.1:1", "--rate", "nan"], "--rate must be above 0"),
        (["--json"], "--json must come with --out FILE or --broker URL"),
        (["--set", "storm=1"], "parameter storm must name one of size"),
        (["--set", "cart_ratio=2"], "parameter cart_ratio must be in 0..1"),
        (["--set", "size"], "--set must be NAME=VALUE"),
        (["--rooms", "0"], "--rooms"),
        (["--minutes", "nan"], "--minutes"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    code, said, complaint = called(capsys, "simulate", *arguments)
    assert (code, said) == (2, "")
    assert words in complaint
    assert complaint.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--out", "--truth", "--labels", "--returns"):
        code, _, complaint = called(capsys, *SHORT, option, str(tmp_path / "missing" / "x"))
        assert code == 1
        assert f"{option} must be a file that can be written" in complaint
        assert complaint.count("\n") == 1


@pytest.mark.integration
def test_kafka_gets_every_event_under_its_room_in_order_and_with_its_moment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from kafka import KafkaConsumer, TopicPartition  # noqa: PLC0415 - only this test needs a broker

    with EmbeddedBroker(topics=["room.events"]) as broker:
        arguments = ["--broker", broker.url, "--rate", "100000", "--start-ts", str(DEFAULT_START_TS), "--json"]
        code, said, complaint = called(capsys, *SHORT, *arguments)
        assert code == 0, complaint
        consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=50)
        partitions = [TopicPartition("room.events", number) for number in range(4)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        records: dict[bytes, list[Any]] = {}
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for batch in consumer.poll(timeout_ms=1_000).values():
                for record in batch:
                    records.setdefault(record.key, []).append(record)
        consumer.close()
    world = World("mixed", 3, 5, trouble_at_ms=DEFAULT_START_TS + 60_000)
    wanted: dict[bytes, list[tuple[int, bytes]]] = {}
    for arrival_ts, room_id, event in play(world, 3):
        wanted.setdefault(room_id.encode(), []).append((arrival_ts, orjson.dumps(event)))
    assert {key: [(one.timestamp, one.value) for one in found] for key, found in records.items()} == wanted
    assert all(len({one.partition for one in found}) == 1 for found in records.values())
    assert orjson.loads(said)["n_events"] == sum(map(len, wanted.values()))


def test_without_a_broker_it_says_so_and_exits_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.cli.simulate.CONNECT_MS", 200)
    code, _, complaint = called(capsys, *SHORT, "--broker", "kafka://127.0.0.1:1", "--rate", "10")
    assert code == 1
    assert "--broker must answer within" in complaint
    assert complaint.count("\n") == 1
