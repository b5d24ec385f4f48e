"""`roompulse migrate`: the deployment's rooms over more partitions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from agents.config import load_settings
from agents.errors import UsageError
from agents.migration import Migration, Plan, Result
from agents.words import pick
from schemas.base import Lang


def run(
    to: Annotated[int, typer.Option(min=1, max=10_000, help="Partitions that every topic shall have.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings (else ROOMPULSE_CONFIG).")] = None,
) -> None:
    """Spread the rooms over more partitions; all workers and producers must be stopped meanwhile.

    Reads room.events to its end, moves every room's snapshot to its new partition and lets the topics grow, since Kafka
    can only add partitions. One that was cut short is finished by running it again; no worker starts before that.
    """
    settings = load_settings(config)
    with Migration(settings, to, _tell) as migration:
        plan = migration.plan()
        if plan.is_done:
            _say(Result(to, to, 0, 0, 0), settings.lang, json_=json_, is_done=True)
            return
        _tell(_plan(plan, settings.lang))
        if not yes:
            if not sys.stdin.isatty():
                msg = "--yes must be given where nobody can be asked, got none: see above what would be done"
                raise UsageError(msg)
            typer.confirm(pick(settings.lang, "Go on?", "继续？"), abort=True, err=True)
        _say(migration.run(plan), settings.lang, json_=json_)


def _tell(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def _plan(plan: Plan, lang: Lang) -> str:
    before = plan.layout.n_partitions
    again = pick(lang, " (it was begun before)", "（之前已开始）") if plan.layout.to is not None else ""
    return pick(
        lang,
        f"{before} -> {plan.to} partitions{again}; {plan.n_left} records left to read; "
        "workers and producers must be stopped until this is done",
        f"{before} -> {plan.to} 个分区{again}；还有 {plan.n_left} 条记录待读；完成前所有 worker 和生产者必须停止",
    )


def _say(result: Result, lang: Lang, *, json_: bool, is_done: bool = False) -> None:
    if json_:
        sys.stdout.write(f"{orjson.dumps({**result._asdict(), 'was_done': is_done}).decode()}\n")
        return
    if is_done:
        words = pick(
            lang,
            f"nothing to do: rooms are over {result.n_partitions} partitions",
            f"无需操作：房间已分布在 {result.n_partitions} 个分区",
        )
    else:
        words = pick(
            lang,
            f"{result.n_before} -> {result.n_partitions} partitions: {result.n_rooms} rooms, {result.n_moved} of them "
            f"moved; set ROOMPULSE_KAFKA__PARTITIONS={result.n_partitions}, then start the workers",
            f"{result.n_before} -> {result.n_partitions} 个分区：共 {result.n_rooms} 个房间，移动 {result.n_moved} 个；"
            f"请设置 ROOMPULSE_KAFKA__PARTITIONS={result.n_partitions}，然后启动 worker",
        )
    sys.stdout.write(f"{words}\n")
