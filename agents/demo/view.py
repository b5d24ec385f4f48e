"""The demo as people see it: a live view on a terminal, one line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agents.demo.session import Demo
from agents.words import MODES, STATUSES, amount, anomaly_words, command_words, of, pick, reason_words
from schemas.base import MODE_RANK, Lang

REFRESH_S: Final = 0.25
PLAIN_EVERY_S: Final = 5.0
FEW_LINES, MANY_LINES = 3, 8
"""Anomalies and commands shown, on a small terminal and on a large one."""
HEADS: Final = 8
"""Lines that are neither a room, an anomaly nor a command."""
HOLD_MS: Final = 90_000
"""A hold that goes on is told every minute; an older one is over."""
WIDE: Final = 110
"""Columns from which there is room for every word of what became of a command."""
SEVERITY_STYLES: Final = {"S1": "bold red", "S2": "red", "S3": "yellow", "S4": "cyan"}
MODE_STYLES: Final = {"auto": "bold green", "approve": "cyan", "shadow": "dim", "off": "red"}

Message = Mapping[str, Any]


def moment(ts: int) -> str:
    """Return the time of day, as the terminal's own clock shows it."""
    return f"{datetime.fromtimestamp(ts / 1_000, UTC).astimezone():%H:%M:%S}"


def lag_words(demo: Demo, lang: Lang) -> str:
    """Return how long after the moment it tells of a signal is here."""
    delay_s = demo.board.delay_s(demo.elapsed_s - 5.0)
    if delay_s is None:
        return pick(lang, "lag -", "延迟 -")
    return pick(lang, f"lag {delay_s:.1f} s", f"延迟 {delay_s:.1f} 秒")


def numbers(demo: Demo, lang: Lang) -> str:
    """Return the counts so far in one line."""
    board = demo.board
    elapsed_s = demo.elapsed_s
    rate = board.events_per_s(elapsed_s)
    return pick(
        lang,
        f"{elapsed_s:.0f} s  {board.n_events:,} events ({rate:,.0f}/s)  {board.n_signals:,} signals  "
        f"{board.n_anomalies} anomalies  {board.n_moves} commands  {board.n_rejects} rejects  {lag_words(demo, lang)}",
        f"{elapsed_s:.0f} 秒  事件 {board.n_events:,}（{rate:,.0f} 条/秒）  信号 {board.n_signals:,}  "
        f"异常 {board.n_anomalies}  指令 {board.n_moves}  拒收 {board.n_rejects}  {lag_words(demo, lang)}",
    )


def state(demo: Demo, lang: Lang) -> str:
    """Return what the demo is doing now."""
    if demo.is_draining:
        return pick(lang, "ending: the worker finishes its work", "正在结束：等待处理完剩余数据")
    if not demo.is_catching_up:
        return pick(lang, "live", "实时")
    if demo.rooms is None:
        return pick(lang, "starting the worker", "正在启动处理进程")
    if not demo.rooms.is_live:
        return pick(lang, "writing the rooms' past", "正在写入历史数据")
    return pick(lang, "the worker learns the rooms' past", "正在学习历史基线")


class PlainView:
    """One line every few seconds, for files and pipes."""

    def __init__(self, lang: Lang) -> None:
        self._lang: Lang = lang
        self._due_s = time.monotonic() + PLAIN_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, demo: Demo) -> None:
        """Write a line when it is time."""
        if time.monotonic() >= self._due_s:
            self._due_s += PLAIN_EVERY_S
            sys.stdout.write(f"{numbers(demo, self._lang)}  {state(demo, self._lang)}\n")
            sys.stdout.flush()


class LiveView:
    """The rooms, what is wrong with them and what was done, on the whole terminal."""

    def __init__(self, lang: Lang, console: Console | None = None) -> None:
        self._lang: Lang = lang
        self._console = console or Console()
        self._live = Live(console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop")
        self._due_s = 0.0

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, demo: Demo) -> None:
        """Draw it anew when it is time."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + REFRESH_S
            self._live.update(picture(demo, self._lang, self._console.size), refresh=True)


def picture(demo: Demo, lang: Lang, size: ConsoleDimensions) -> RenderableType:
    """Return everything, cut to the size of a terminal."""
    n_lines = max(FEW_LINES, min(MANY_LINES, (size.height - HEADS) // 4))
    n_rooms = max(FEW_LINES, size.height - HEADS - 2 * n_lines)
    return Group(
        _head(demo, lang),
        _rooms(demo, lang, n_rooms),
        Text(pick(lang, " anomalies, newest first", " 异常（最新在上）"), style="bold reverse"),
        _anomalies(demo, lang, n_lines),
        Text(pick(lang, " bid commands, newest first", " 出价指令（最新在上）"), style="bold reverse"),
        _commands(demo, lang, n_lines, outcome_width=27 if size.width >= WIDE else 14),
    )


def _grid(*columns: tuple[str, int | None]) -> Table:
    """Return a table without lines whose columns of unknown width share what is left."""
    grid = Table.grid(padding=(0, 1), expand=True)
    for style, width in columns:
        grid.add_column(style=style, width=width, no_wrap=True, overflow="ellipsis", ratio=1 if width is None else None)
    return grid


def _head(demo: Demo, lang: Lang) -> RenderableType:
    options = demo.options
    what = pick(lang, f"seed {options.seed}, ", f"种子 {options.seed}，") if options.file is None else ""
    name = options.scenario if options.file is None else f"{options.file} x{options.speed:g}"
    title = Text.assemble(
        (" roompulse demo ", "bold reverse"),
        f"  {name}, {what}{state(demo, lang)}",
        (pick(lang, "   Ctrl-C ends it", "   Ctrl-C 结束"), "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )
    return Group(title, Text(f" {numbers(demo, lang)}", no_wrap=True, overflow="ellipsis"))


def _rooms(demo: Demo, lang: Lang, n_rooms: int) -> RenderableType:
    table = Table(box=None, padding=(0, 1), expand=True, header_style="bold")
    table.add_column(pick(lang, "room", "直播间"), no_wrap=True, overflow="ellipsis")
    table.add_column(pick(lang, "mode", "模式"), no_wrap=True)
    for en, zh in (
        ("online", "在线"),
        ("spend", "消耗"),
        ("GMV", "成交额"),
        ("ROAS", "ROAS"),
        ("quality", "质量"),
        ("mood", "情绪"),
    ):
        table.add_column(pick(lang, en, zh), justify="right", no_wrap=True)
    table.add_column(
        pick(lang, "open anomalies, or why no bid moves", "未恢复异常，或不调价的原因"),
        no_wrap=True,
        overflow="ellipsis",
        ratio=1,
    )
    wrong: dict[str, list[Message]] = {}
    for anomaly in demo.board.open_anomalies():
        wrong.setdefault(anomaly["room_id"], []).append(anomaly)
    signals = sorted(demo.board.signals.values(), key=lambda signal: _rank(signal, wrong))
    for signal in signals[:n_rooms]:
        room_id = signal["room_id"]
        table.add_row(*_row(signal, wrong.get(room_id, []), demo.board.holds.get(room_id), lang))
    return table


def _rank(signal: Message, wrong: Mapping[str, list[Message]]) -> tuple[int, int, int, str]:
    """Order rooms: trouble first, then those that act by themselves, then the ones that spend most."""
    spend = signal["windows"]["session"].get("spend_minor", 0)
    return (-len(wrong.get(signal["room_id"], [])), -MODE_RANK[signal["mode"]], -spend, signal["room_id"])


def _row(signal: Message, wrong: list[Message], hold: Message | None, lang: Lang) -> list[RenderableType]:
    windows, currency = signal["windows"], signal.get("currency")
    session, five = windows["session"], windows.get("300", {})
    quality, mood = five.get("quality_score"), five.get("sentiment_mean")
    roas = session.get("roas_mature", session.get("roas"))
    marks = Text(no_wrap=True, overflow="ellipsis")
    for anomaly in wrong:
        marks.append(f"{anomaly['severity']} {anomaly['metric']} ", SEVERITY_STYLES[anomaly["severity"]])
    if not wrong and hold is not None and hold["ts"] > signal["ts"] - HOLD_MS:
        marks.append(reason_words(hold, lang), "dim")
    return [
        Text(signal["room_id"]),
        Text(of(MODES, signal["mode"], lang), MODE_STYLES[signal["mode"]]),
        _number(session.get("n_online"), "{:,}"),
        Text("-" if session.get("spend_minor") is None else amount(session["spend_minor"], currency)),
        Text("-" if session.get("gmv_minor") is None else amount(session["gmv_minor"], currency)),
        _number(roas, "{:.2f}"),
        _number(quality, "{:.0f}", low=60, high=80),
        _number(mood, "{:+.2f}", low=-0.2, high=0.2),
        marks,
    ]


def _number(value: float | None, form: str, *, low: float | None = None, high: float | None = None) -> Text:
    """Return a value, red below `low` and green above `high`."""
    if value is None:
        return Text("-", "dim")
    style = "red" if low is not None and value < low else "green" if high is not None and value >= high else ""
    return Text(form.format(value), style)


def _anomalies(demo: Demo, lang: Lang, n_lines: int) -> RenderableType:
    grid = _grid(("dim", 8), ("", 2), ("", 14), ("", None), ("dim", 9))
    for anomaly in list(demo.board.anomalies.values())[: -n_lines - 1 : -1]:
        severity, signal = anomaly["severity"], demo.board.signals.get(anomaly["room_id"], {})
        grid.add_row(
            moment(anomaly["ts"]),
            Text(severity, SEVERITY_STYLES[severity]),
            anomaly["room_id"],
            anomaly_words(anomaly, lang, signal.get("currency")),
            of(STATUSES, anomaly["status"], lang),
        )
    return _filled(grid, n_lines)


def _commands(demo: Demo, lang: Lang, n_lines: int, *, outcome_width: int) -> RenderableType:
    grid = _grid(("dim", 8), ("", 12), ("bold", 21), ("", None), ("dim", outcome_width))
    for command in list(demo.board.commands)[: -n_lines - 1 : -1]:
        grid.add_row(
            moment(command["ts"]),
            command["plan_id"],
            command_words(command, lang),
            reason_words(command, lang),
            outcome_words(command, demo.board.answers.get(command["command_id"]), lang),
        )
    return _filled(grid, n_lines)


def outcome_words(command: Message, answer: str | None, lang: Lang) -> str:
    """Return in which mode a command was given and what became of it."""
    mode = of(MODES, command["mode"], lang)
    if command["mode"] == "shadow":
        return pick(lang, f"{mode}: nobody acts", f"{mode}：不执行")
    became = of(STATUSES, command["status"] if answer is None else answer, lang)
    return pick(lang, f"{mode}: {became}", f"{mode}：{became}")


def _filled(grid: Table, n_lines: int) -> Table:
    """Return the table with empty lines below, so that nothing under it moves."""
    for _ in range(n_lines - grid.row_count):
        grid.add_row("")
    return grid
