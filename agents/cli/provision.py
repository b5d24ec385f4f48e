"""`roompulse provision`: the topics, as the pipeline needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from agents import kafka
from agents.config import load_settings
from agents.errors import ProgramError
from agents.words import pick
from schemas.base import Lang

_STATUS_ZH: Final = {"present": "已有", "created": "已创建", "missing": "缺失", "differs": "不符"}


def run(
    check: Annotated[bool, typer.Option("--check", help="Only look; make nothing.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings (else ROOMPULSE_CONFIG).")] = None,
) -> None:
    """Make the topics that are missing and check the others; nothing that exists is changed.

    Exit code 1 when a topic is missing or not as the settings want it.
    """
    settings = load_settings(config)
    cluster = kafka.inspect(settings, create=not check)
    if json_:
        topics = [topic._asdict() for topic in cluster.topics]
        sys.stdout.write(f"{orjson.dumps({'embedded': cluster.embedded, 'topics': topics}).decode()}\n")
    else:
        for topic in cluster.topics:
            sys.stdout.write(f"{_line(topic, settings.lang)}\n")
    wrong = [f"{topic.name}: {', '.join(topic.differences)}" for topic in cluster.topics if topic.differences]
    if cluster.problems or wrong:
        msg = f"{'; '.join([*cluster.problems, *wrong])}: change the topic with Kafka's tools, or the settings"
        if any("partitions must be" in words for words in wrong) or len({t.n_partitions for t in cluster.topics}) > 1:
            msg = f"{msg}; partitions with roompulse migrate alone"
        if check and not wrong and any(topic.status == "missing" for topic in cluster.topics):
            msg = f"{'; '.join(cluster.problems)}: run roompulse provision without --check"
        raise ProgramError(msg)


def _line(topic: kafka.TopicState, lang: Lang) -> str:
    status = pick(lang, topic.status, _STATUS_ZH[topic.status])
    n_partitions = pick(lang, f"{topic.n_partitions} partitions", f"{topic.n_partitions} 个分区")
    return f"{topic.name:<32} {status:<8} {n_partitions}"
