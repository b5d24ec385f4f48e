"""A recording goes out whole, in order, with the stamps a replay gives it, at the pace of its own clock."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.demo.playback import LAST_MS, MAX_PAUSE_S, MAX_STEP_S, Playback
from agents.demo.source import Due
from agents.errors import ProgramError, UsageError
from pipeline import Engine
from schemas.control import is_signed
from schemas.settings import Settings

KEY = b"k" * 32
TS_2019 = 1_557_492_120_000
WALL = 1_780_000_000_000


def comment(ts: int, number: int, room_id: str = "live-1", **more: Any) -> dict[str, Any]:
    return {"type": "comment", "event_id": f"e{number}", "room_id": room_id, "ts": ts, "text": "扣1", **more}


def written(path: Path, *values: Any) -> str:
    lines = [value if isinstance(value, bytes) else orjson.dumps(value) for value in values]
    data = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def played(playback: Playback, step_ms: int = 50, begin_ms: int = WALL) -> list[tuple[int, Due]]:
    """Return each record with the wall time (from the beginning) at which it came."""
    found, wall_ms = [], begin_ms
    while not playback.is_over:
        found += [(wall_ms - begin_ms, due) for due in playback.due(wall_ms)]
        wall_ms += step_ms
    return found


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_every_line_goes_out_once_in_order_whatever_its_year(tmp_path: Path, name: str) -> None:
    events = [comment(TS_2019 + 70 * number, number, f"live-{number % 3}") for number in range(300)]
    found = played(Playback(written(tmp_path / name, *events), 1.0, control_key=KEY))
    assert [orjson.loads(due.value) for _, due in found] == events
    assert [due.stamp_ms for _, due in found] == [event["ts"] for event in events]
    assert [due.room_id for _, due in found] == [event["room_id"] for event in events]


def test_stamps_are_the_largest_accepted_ts_so_far(tmp_path: Path) -> None:
    name = written(
        tmp_path / "log.jsonl",
        comment(TS_2019, 1),
        comment(TS_2019 - 5_000, 2),  # late
        {"type": "comment", "event_id": "e3", "room_id": "live-1", "ts": TS_2019 + 99_000},  # no text: a reject
        [comment(TS_2019 + 200, 4), comment(TS_2019 + 100, 5)],
        b"no json",
        comment(TS_2019 + 150, 6),
    )
    found = [due for _, due in played(Playback(name, 1.0, control_key=KEY))]
    late = [0, 0, 0, 200, 200, 200]
    assert [due.stamp_ms - TS_2019 for due in found] == late
    assert [due.n_events for due in found] == [1, 1, 0, 2, 0, 1]


def test_an_engine_fed_the_playback_counts_what_it_counts_in_the_file(tmp_path: Path) -> None:
    values = [comment(TS_2019 + 997 * number % 20_000 + 40 * number, number) for number in range(200)]
    values += [{"type": "nonsense"}, comment(TS_2019 + 9_000, 7)]
    name = written(tmp_path / "log.jsonl", *values)
    settings = Settings(trust_log=True)
    offline, live = Engine(settings), Engine(settings)
    offline.process([(number, None, orjson.dumps(value)) for number, value in enumerate(values)])
    for number, (_, due) in enumerate(played(Playback(name, 20.0, control_key=KEY))):
        live.process([(number, due.stamp_ms, due.value, due.room_id.encode())])
    counted = [(e.counters.n_events, e.counters.n_duplicates, e.counters.n_late) for e in (offline, live)]
    assert counted[0] == counted[1]
    assert counted[0][:2] == (200, 1)


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_records_come_at_the_pace_of_their_own_time(tmp_path: Path, speed: float) -> None:
    events = [comment(TS_2019 + 300 * number, number) for number in range(20)]
    for came_ms, due in played(Playback(written(tmp_path / "log", *events), speed, control_key=KEY), step_ms=10):
        # Never before its time, and with the first look after it.
        assert 0 <= came_ms - (due.stamp_ms - TS_2019) / speed < 20


def test_a_long_pause_of_the_log_is_cut_short(tmp_path: Path) -> None:
    events = [comment(TS_2019, 1), comment(TS_2019 + 3_600_000, 2)]
    (first, _), (second, _) = played(Playback(written(tmp_path / "log", *events), 1.0, control_key=KEY))
    assert second - first == pytest.approx(MAX_PAUSE_S * 1_000, abs=100)


def test_the_clock_stands_still_while_nobody_asks(tmp_path: Path) -> None:
    events = [comment(TS_2019 + 1_000 * number, number) for number in range(60)]
    playback = Playback(written(tmp_path / "log", *events), 1.0, control_key=KEY)
    assert len(playback.due(WALL)) == 1
    assert playback.due(WALL + 50_000) == []  # fifty seconds without a look bring half a one
    assert playback.clock_ms == TS_2019 + MAX_STEP_S * 1_000


def test_the_clock_never_goes_back_and_ends_after_the_last_emission(tmp_path: Path) -> None:
    events = [comment(TS_2019 + 10 * number, number) for number in range(5_000)]
    playback = Playback(written(tmp_path / "log", *events), 1_000.0, control_key=KEY)
    clocks, wall_ms = [], WALL
    while not playback.is_over:
        playback.due(wall_ms)
        clocks.append(playback.clock_ms or 0)
        wall_ms += 50
    assert clocks == sorted(clocks)
    assert clocks[-1] == events[-1]["ts"] + LAST_MS


def test_the_clock_never_runs_ahead_of_records_that_are_still_to_come(tmp_path: Path) -> None:
    events = [comment(TS_2019 + number, number) for number in range(10_000)]
    playback = Playback(written(tmp_path / "log", *events), 1e6, control_key=KEY)
    n_found, wall_ms = 0, WALL
    while not playback.is_over:
        n_found += len(playback.due(wall_ms))
        if n_found < len(events):
            assert (playback.clock_ms or 0) <= events[n_found]["ts"]
        wall_ms += 50
    assert n_found == len(events)


def test_controls_and_answers_are_signed_anew_and_what_is_for_all_goes_to_all(tmp_path: Path) -> None:
    control = {
        "type": "control", "event_id": "c1", "room_id": "*", "ts": TS_2019, "control_id": "c1", "actor": "op",
        "action": "kill_switch", "args": {"on": True}, "kid": "control", "sig": "of another deployment",
    }  # fmt: skip
    (_, due), _ = played(
        Playback(written(tmp_path / "log", control, comment(TS_2019 + 1, 2)), 1.0, control_key=KEY),
    )
    assert is_signed(orjson.loads(due.value), KEY)
    assert {**orjson.loads(due.value), "sig": ""} == {**control, "sig": ""}
    assert (due.room_id, due.n_events) == ("*", 0)


def test_a_dump_keeps_its_stamps_and_keys(tmp_path: Path) -> None:
    lines = [
        {"offset": 5, "timestamp": TS_2019 + 40, "key": "live-9", "value": comment(TS_2019, 1, "live-9")},
        {"offset": 6, "timestamp": TS_2019 + 30, "key": "live-9", "value": "not json"},
    ]
    found = [due for _, due in played(Playback(written(tmp_path / "log", *lines), 1.0, control_key=KEY))]
    assert [(due.stamp_ms - TS_2019, due.room_id) for due in found] == [(40, "live-9"), (30, "live-9")]
    assert found[1].value == b"not json"


def test_an_empty_file_is_over_at_once_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    playback = Playback(written(tmp_path / "log", b"", b"  "), 1.0, control_key=KEY)
    assert (playback.is_over, playback.clock_ms, playback.due(WALL)) == (True, None, [])
    with pytest.raises(UsageError, match="must be a file that can be read"):
        Playback(str(tmp_path / "none"), 1.0, control_key=KEY)
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b"{}\n" * 50_000)[:60])
    with pytest.raises(ProgramError, match="must be whole"):
        played(Playback(str(tmp_path / "broken.gz"), 1.0, control_key=KEY))
