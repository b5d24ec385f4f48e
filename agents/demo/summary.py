"""What a demo comes to: what was put in, what of it was found, and the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from agents.demo.session import Demo
from agents.words import anomaly_words, pick, share
from pipeline.simulate import SCENARIOS, Trouble
from schemas.base import Lang

AFTERMATH_MS: Final = 60_000
"""An anomaly that opens within it after a trouble's end is still about it: windows take time to forget."""

Message = Mapping[str, Any]


class Finding(NamedTuple):
    """One injected trouble, and the first anomaly that names it by its cause; None when there was none.

    An innocent one has no cause to name: any anomaly about it is a false alarm.
    """

    trouble: Trouble
    anomaly: Message | None
    n_commands: int

    @property
    def delay_s(self) -> float | None:
        """Seconds from the trouble's beginning to the anomaly."""
        return None if self.anomaly is None else (self.anomaly["ts"] - self.trouble.start_ts) / 1_000


def is_about(anomaly: Message, trouble: Trouble) -> bool:
    """Tell whether an anomaly opened in the room and time of a trouble."""
    in_time = trouble.start_ts <= anomaly["ts"] < trouble.end_ts + AFTERMATH_MS
    return bool(anomaly["room_id"] == trouble.room_id and in_time)


def findings(demo: Demo) -> list[Finding]:
    """Return what became of each trouble, in the order in which they began."""
    found = []
    opened = list(demo.board.opened.values())
    for trouble in sorted([] if demo.rooms is None else demo.rooms.truth(), key=lambda trouble: trouble.start_ts):
        about = [anomaly for anomaly in opened if is_about(anomaly, trouble)]
        named = next((anomaly for anomaly in about if trouble.innocent or anomaly["cause"] == trouble.cause), None)
        ids = {anomaly["anomaly_id"] for anomaly in about}
        n_commands = sum(bool(ids & set(command.get("anomaly_ids") or ())) for command in demo.board.moves.values())
        found.append(Finding(trouble, named, n_commands))
    return found


def strays(demo: Demo) -> list[Message]:
    """Return live anomalies that no injected trouble explains; in a recording, where nobody knows, none."""
    if demo.rooms is None:
        return []
    truth = [trouble for trouble in demo.rooms.truth() if not trouble.innocent]
    live = [anomaly for anomaly in demo.board.opened.values() if demo.board.is_live(anomaly)]
    return [anomaly for anomaly in live if not any(is_about(anomaly, trouble) for trouble in truth)]


def numbers(demo: Demo) -> dict[str, Any]:
    """Return the summary as `--json` prints it."""
    board, options = demo.board, demo.options
    told: dict[str, Any] = {
        "events": board.n_events,
        "signals": board.n_signals,
        "anomalies": board.n_anomalies,
        "commands": board.n_moves,
        "holds": board.n_commands["hold"],
        "answers": board.n_answers,
        "rejects": board.n_rejects,
        "lag": demo.n_behind,
        "lag_s": _rounded(board.delay_s()),
        "rooms": len(board.signals),
        "elapsed_s": round(demo.elapsed_s, 1),
    }
    for name in ("signal", "anomaly", "command"):
        told[f"first_{name}_s"] = _rounded(board.firsts.get(name))
    if options.file is None:
        found = [finding for finding in findings(demo) if not finding.trouble.innocent]
        told |= {
            "scenario": options.scenario,
            "seed": options.seed,
            "troubles": len(found),
            "found": sum(finding.anomaly is not None for finding in found),
            "strays": len(strays(demo)),
        }
    return told


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def words(demo: Demo, lang: Lang) -> str:
    """Return the summary for a person."""
    told = numbers(demo)
    lines = [
        pick(
            lang,
            f"{told['events']:,} events of {told['rooms']} rooms in {told['elapsed_s']:g} s: {told['signals']:,} "
            f"signals, {told['anomalies']} anomalies, {told['commands']} bid commands and {told['holds']} holds, "
            f"{told['rejects']} rejects; {told['lag']} records not worked off.",
            f"{told['elapsed_s']:g} 秒内 {told['rooms']} 个直播间共 {told['events']:,} 条事件：信号 "
            f"{told['signals']:,}，异常 {told['anomalies']}，调价指令 {told['commands']}，保持 {told['holds']}，"
            f"拒收 {told['rejects']}；未处理 {told['lag']} 条。",
        )
    ]
    firsts = [(name, told[f"first_{name}_s"]) for name in ("signal", "anomaly", "command")]
    names = {"signal": ("signal", "信号"), "anomaly": ("anomaly", "异常"), "command": ("bid command", "调价指令")}
    shown = [f"{pick(lang, *names[name])} {'-' if at_s is None else f'{at_s:.1f} s'}" for name, at_s in firsts]
    lines.append(pick(lang, f"First live {', '.join(shown)} after the start.", f"启动后首个实时{'、'.join(shown)}。"))
    found = findings(demo)
    if found:
        lines.append(pick(lang, "Injected, and what was found of it:", "注入的异常与检出结果："))
        lines += [f"  {_finding(finding, lang)}" for finding in found]
    stray = strays(demo)
    if demo.rooms is not None and not stray:
        lines.append(pick(lang, "No alarm without an injected trouble.", "没有误报。"))
    for anomaly in stray:
        said = anomaly_words(anomaly, lang)
        lines.append(
            pick(lang, f"  Not injected: {anomaly['room_id']}, {said}", f"  未注入却告警：{anomaly['room_id']}，{said}")
        )
    return "\n".join(lines) + "\n"


def _finding(finding: Finding, lang: Lang) -> str:
    trouble, anomaly = finding.trouble, finding.anomaly
    scenario = SCENARIOS[trouble.kind]
    what = f"{trouble.room_id}  {pick(lang, scenario.en, scenario.zh)}"
    if trouble.enters_ratio is not None:
        part = share(trouble.enters_ratio)
        what += pick(lang, f" ({part} of that channel's enters)", f"（占该渠道进房 {part}）")
    if trouble.innocent:
        rightly, falsely = pick(lang, ": rightly no alarm", "：未误报"), pick(lang, ": false alarm", "：误报")
        return what + (rightly if anomaly is None else falsely)
    if anomaly is None:
        return what + pick(lang, ": not found yet", "：尚未检出")
    after = pick(
        lang,
        f"found after {finding.delay_s:.0f} s as {anomaly['severity']}",
        f"{finding.delay_s:.0f} 秒后检出，{anomaly['severity']}",
    )
    if finding.n_commands:
        after += pick(lang, f", {finding.n_commands} emergency commands", f"，紧急指令 {finding.n_commands} 条")
    return what + pick(lang, f": {after}", f"：{after}")
