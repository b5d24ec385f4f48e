"""What was seen: each thing counted once, and only what is about now is the first of its kind."""

from __future__ import annotations

from typing import Any

import pytest

from agents.demo.board import Board

LIVE = 1_780_000_000_000


def live_board() -> Board:
    board = Board()
    board.live_since_ms = LIVE
    return board


def signal(ts: int, room_id: str = "room-001") -> dict[str, Any]:
    return {"room_id": room_id, "ts": ts, "windows": {"session": {}}}


def anomaly(ts: int, status: str = "open", anomaly_id: str = "a-1") -> dict[str, Any]:
    return {"anomaly_id": anomaly_id, "room_id": "room-001", "ts": ts, "status": status}


def command(ts: int, action: str = "set_bid", command_id: str = "c-1", **more: Any) -> dict[str, Any]:
    return {"command_id": command_id, "room_id": "room-001", "ts": ts, "action": action, **more}


def test_the_past_is_counted_but_is_never_the_first_of_anything() -> None:
    board = live_board()
    board.signal(signal(LIVE - 1), 3.0)
    board.anomaly(anomaly(LIVE - 1), 3.0)
    board.command(command(LIVE - 1), 3.0)
    assert (board.n_signals, board.n_anomalies, board.n_moves, board.firsts) == (1, 1, 1, {})
    board.signal(signal(LIVE), 5.0)
    board.anomaly(anomaly(LIVE, anomaly_id="a-2"), 6.0)
    board.command(command(LIVE, command_id="c-2"), 7.0)
    board.command(command(LIVE + 9, command_id="c-3"), 9.0)
    assert board.firsts == {"signal": 5.0, "anomaly": 6.0, "command": 7.0}
    assert set(board.moves) == {"c-2", "c-3"}


def test_holds_and_heartbeats_are_no_first_command() -> None:
    board = live_board()
    board.command(command(LIVE, "heartbeat"), 1.0)
    board.command(command(LIVE, "hold", "c-0"), 2.0)
    assert (board.firsts, board.n_moves, board.n_commands["hold"], list(board.commands)) == ({}, 0, 1, [])
    assert board.holds["room-001"]["command_id"] == "c-0"


def test_a_later_revision_takes_its_commands_place_and_counts_once() -> None:
    board = live_board()
    board.command(command(LIVE, status="pending_approval", revision=1), 1.0)
    board.command(command(LIVE, command_id="c-2", status="issued", revision=1), 1.0)
    board.command(command(LIVE, status="approved", revision=2), 2.0)
    assert [(one["command_id"], one["status"]) for one in board.commands] == [("c-2", "issued"), ("c-1", "approved")]
    assert (board.n_moves, board.moves["c-1"]["status"]) == (2, "approved")


def test_an_anomaly_is_one_from_open_to_resolved_and_opens_again_as_itself() -> None:
    board = live_board()
    for place, status in enumerate(("open", "update", "acked", "resolved", "open")):
        board.anomaly(anomaly(LIVE + place, status), 1.0)
        assert len(board.open_anomalies()) == (status != "resolved")
    assert (board.n_anomalies, board.opened["a-1"]["ts"], board.anomalies["a-1"]["ts"]) == (1, LIVE, LIVE + 4)


def test_a_rooms_older_signals_do_not_replace_newer_ones() -> None:
    board = live_board()
    board.signal(signal(LIVE + 2_000), 1.0)
    board.signal(signal(LIVE + 1_000), 1.1)
    assert board.signals["room-001"]["ts"] == LIVE + 2_000


def test_the_lag_is_from_the_moments_record_in_the_log_to_its_signal() -> None:
    board = live_board()
    for step in range(30_000):  # more than are remembered
        board.wrote_up_to(LIVE + 100 * step, 0.1 * step)
    board.signal(signal(LIVE + 100 * 29_900), 0.1 * 29_900 + 0.3)
    assert board.delay_s() == pytest.approx(0.3)
    board.signal(signal(LIVE + 100 * 29_999 + 1), 3_100.0)  # a moment that was not told
    assert board.delay_s() == pytest.approx(0.3)
    assert board.delay_s(since_s=2_995.0) is None


def test_the_rate_is_that_of_the_last_seconds() -> None:
    board = live_board()
    board.events(1_000_000, 1.0)
    for step in range(10):
        board.events(30, 10.0 + step / 2)
    assert board.events_per_s(14.6) == pytest.approx(60.0)
    assert board.n_events == 1_000_300
    assert board.events_per_s(100.0) == 0.0
