"""What people see: it fits the terminal, in both languages, and tells what the board has."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from agents.demo.session import Demo, Options
from agents.demo.summary import findings, numbers, strays, words
from agents.demo.view import PlainView, picture
from agents.demo.view import numbers as numbers_line
from pipeline.simulate import Trouble
from schemas.base import Lang
from schemas.settings import Settings

LIVE = 1_780_000_000_000


class FewRooms:
    """Stands for the simulated rooms where only their truth matters."""

    is_live = True

    def __init__(self, *truth: Trouble) -> None:
        self._truth = list(truth)

    def truth(self) -> list[Trouble]:
        return self._truth


def trouble(kind: Any, room_id: str, cause: str | None, *, innocent: bool = False) -> Trouble:
    begin_ts, end_ts = LIVE + 3_000, LIVE + 60_000
    return Trouble(kind, room_id, None, begin_ts, end_ts, 1.0, innocent, cause)


def signal(room_id: str, **session: Any) -> dict[str, Any]:
    five = {"quality_score": 47.4, "sentiment_mean": -0.31}
    windows = {"300": five, "session": {"spend_minor": 123_456, "gmv_minor": 987_654, "roas": 8.0, **session}}
    return {"room_id": room_id, "ts": LIVE + 5_000, "currency": "CNY", "mode": "auto", "windows": windows}


def opened(room_id: str, cause: str, ts: int = LIVE + 12_000, anomaly_id: str = "a-1") -> dict[str, Any]:
    return {
        "anomaly_id": anomaly_id, "room_id": room_id, "ts": ts, "status": "open", "severity": "S2",
        "metric": "ivt_ratio", "observed": 0.43, "expected": 0.011, "cause": cause,
    }  # fmt: skip


def cut(room_id: str, *anomaly_ids: str) -> dict[str, Any]:
    return {
        "command_id": f"c-{room_id}", "revision": 1, "room_id": room_id, "plan_id": f"{room_id}-cpa",
        "ts": LIVE + 13_000, "action": "set_bid", "prev_value": 3_600, "value": 2_880, "unit": "minor:CNY",
        "mode": "auto", "status": "issued", "reason": {"code": "emergency_cut", "params": {"cause": "ivt"}},
        "anomaly_ids": list(anomaly_ids),
    }  # fmt: skip


def demo_with(*truth: Trouble, n_rooms: int = 20) -> Demo:
    demo = Demo(Options(), Settings(), PlainView("en"))
    demo.rooms = FewRooms(*truth)  # type: ignore[assignment]  # only its truth is asked for
    demo.board.live_since_ms = LIVE
    for number in range(n_rooms):
        demo.board.signal(signal(f"room-{number + 1:03d}"), 5.0)
    demo.board.anomaly(opened("room-002", "ivt"), 12.0)
    demo.board.command(cut("room-002", "a-1"), 13.0)
    demo.board.answer({"command_id": "c-room-002", "status": "applied"})
    return demo


def drawn(demo: Demo, lang: Lang, width: int, height: int) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(picture(demo, lang, console.size))
    return capture.get().rstrip("\n").split("\n")


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (124, 44), (200, 60)])
def test_the_picture_fits_the_terminal(lang: Lang, width: int, height: int) -> None:
    lines = drawn(demo_with(n_rooms=60), lang, width, height)
    assert len(lines) <= height


def test_the_picture_names_rooms_money_anomalies_and_commands_with_their_reasons() -> None:
    text = "\n".join(drawn(demo_with(), "en", 140, 44))
    for part in ("room-020", "1,234.56", "9,876.54", "8.00", "47", "-0.31", "S2 ivt_ratio", "bid 36.00 → 28.80"):
        assert part in text
    assert "invalid traffic 43%, usually 1.1%: bots or paid viewers" in text
    assert "emergency cut: bots or paid viewers" in text
    assert "auto: applied" in text
    assert "紧急降价：机器人或刷量" in "\n".join(drawn(demo_with(), "zh", 140, 44))


def test_rooms_in_trouble_come_first_so_that_a_small_terminal_shows_them() -> None:
    lines = drawn(demo_with(n_rooms=60), "en", 100, 24)
    assert lines[3].split()[0] == "room-002"


def test_a_room_without_trouble_says_why_no_bid_moves_until_the_hold_is_old() -> None:
    demo = demo_with()
    hold = {**cut("room-001"), "action": "hold", "value": None, "ts": LIVE, "reason": {"code": "no_budget"}}
    demo.board.command(hold, 14.0)
    assert "the room has no budget" in "\n".join(drawn(demo, "en", 140, 44))
    demo.board.signal({**signal("room-001"), "ts": LIVE + 100_000}, 100.0)
    assert "the room has no budget" not in "\n".join(drawn(demo, "en", 140, 44))


def test_unknown_numbers_are_dashes_and_an_empty_board_draws() -> None:
    demo = Demo(Options(file="log.jsonl", speed=4.0), Settings(), PlainView("en"))
    assert "log.jsonl x4" in drawn(demo, "en", 100, 30)[0]
    demo.board.signal({"room_id": "r", "ts": 1, "mode": "shadow", "windows": {"session": {}}}, 1.0)
    row = next(line for line in drawn(demo, "en", 100, 30) if line.strip().startswith("r "))
    assert row.split() == ["r", "shadow", *["-"] * 6]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_line_of_numbers_is_one_line(lang: Lang) -> None:
    assert "\n" not in numbers_line(demo_with(), lang)


def test_the_summary_says_what_was_found_of_what_was_injected() -> None:
    demo = demo_with(
        trouble("bot_burst", "room-002", "ivt"),
        trouble("cost_rise", "room-003", "auction_pressure"),
        trouble("crowd_echo", "room-004", None, innocent=True),
    )
    bots, cost, echo = findings(demo)
    assert (bots.delay_s, bots.n_commands) == (9.0, 1)
    assert (cost.anomaly, echo.anomaly, strays(demo)) == (None, None, [])
    told = numbers(demo)
    assert (told["troubles"], told["found"], told["strays"]) == (2, 1, 0)
    assert (told["first_signal_s"], told["first_anomaly_s"], told["first_command_s"]) == (5.0, 12.0, 13.0)
    text = words(demo, "en")
    assert "found after 9 s as S2, 1 emergency commands" in text
    assert "not found yet" in text
    assert "rightly no alarm" in text
    assert "9 秒后检出" in words(demo, "zh")


def test_an_alarm_of_another_cause_room_or_time_finds_nothing() -> None:
    demo = demo_with(trouble("bot_burst", "room-009", "ivt"), trouble("crowd_echo", "room-002", None, innocent=True))
    demo.board.anomaly(opened("room-009", "content", anomaly_id="a-2"), 14.0)
    demo.board.anomaly(opened("room-009", "ivt", LIVE + 1_000, "a-3"), 15.0)
    demo.board.anomaly(opened("room-009", "ivt", LIVE + 120_000, "a-4"), 16.0)
    bots, echo = sorted(findings(demo), key=lambda finding: finding.trouble.innocent)
    assert bots.anomaly is None
    assert echo.anomaly is not None
    assert {anomaly["anomaly_id"] for anomaly in strays(demo)} == {"a-1", "a-3", "a-4"}
    assert "false alarm" in words(demo, "en")


def test_a_recording_has_no_truth_to_compare_with() -> None:
    demo = demo_with()
    demo.rooms, demo.options = None, Options(file="log.jsonl")
    assert (findings(demo), strays(demo)) == ([], [])
    assert "seed" not in numbers(demo)
    assert "njected" not in words(demo, "en")
