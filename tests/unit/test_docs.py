"""The documentation says what the code is: settings, topics, causes, gates, metrics, and links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from agents.cli import COMMANDS
from pipeline.bidding import GATES
from pipeline.detect import WATCHED
from schemas.anomalies import Cause
from schemas.control import ARGUMENTS
from schemas.feedback import AudienceFeedback, SegmentOutcome
from schemas.settings import Settings
from schemas.signals import Crowded, Metrics
from schemas.topics import DAY_MS, TOPICS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OURS = ("how-it-works.md", "operating.md", "runbook.md", "segments.md")
PAGES = [*(DOCS / name for name in OURS), ROOT / "benchmarks" / "README.md"]


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def anchor(heading: str) -> str:
    """Return a heading's anchor as Markdown renderers make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(markdown: str) -> list[str]:
    return [anchor(heading) for heading in re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)]


def rows(markdown: str) -> list[list[str]]:
    """Return the cells of every table row."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def defaults() -> dict[str, Any]:
    """Return every setting by its dotted name."""
    found: dict[str, Any] = {}
    for name, info in Settings.model_fields.items():
        if isinstance(info.default, BaseModel):
            found |= {f"{name}.{inner}": value for inner, value in info.default}
        else:
            found[name] = info.default
    return found


def shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value) or "empty"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "empty"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else f"`{value}`"


def test_every_setting_is_in_the_operating_page_with_its_default_and_no_other_is() -> None:
    section = text("operating.md").partition("\n## Settings\n")[2]
    table = {cells[0].strip("`"): cells[1] for cells in rows(section)[2:]}  # below the head
    assert table == {name: shown(value) for name, value in defaults().items()}


def test_every_environment_variable_that_is_shown_is_one_or_is_shown_as_a_mistake() -> None:
    known = {f"ROOMPULSE_{name.replace('.', '__')}".upper() for name in defaults()} | {"ROOMPULSE_CONFIG"}
    named = {name for page in PAGES for name in re.findall(r"ROOMPULSE_[A-Z_]+[A-Z]", page.read_text(encoding="utf-8"))}
    assert named - known == {"ROOMPULSE_BIDING__STEP_RATIO"}


def test_every_topic_is_in_the_operating_page_with_the_time_it_is_kept() -> None:
    table = {cells[0].strip("`"): cells[1] for cells in rows(text("operating.md")) if len(cells) == 4}
    for topic in TOPICS:
        days = topic.retention_ms // DAY_MS
        expected = "for ever" if topic.retention_ms < 0 else f"{days} day{'s' * (days > 1)}"
        assert table[topic.name].partition(",")[0] == expected, topic.name


def test_every_action_of_an_operator_is_in_the_operating_page_with_its_arguments() -> None:
    table = {name: cells[1] for cells in rows(text("operating.md")) for name in re.findall(r"`(\w+)`", cells[0])}
    for action, model in ARGUMENTS.items():
        required = [name for name, info in model.model_fields.items() if info.is_required()]
        assert all(f"{name}=" in table[action] for name in required), action


@pytest.mark.parametrize("cause", get_args(Cause))
def test_the_runbook_has_a_heading_for_each_cause_with_a_first_look_and_what_to_do(cause: str) -> None:
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text("runbook.md"), re.MULTILINE | re.DOTALL))
    by_anchor = {anchor(heading): body for heading, body in sections.items()}
    for part in ("**First look**", "**By itself**", "**You**"):
        assert part in by_anchor[cause]


def test_what_the_runbook_says_of_causes_that_are_opened_is_what_is_opened() -> None:
    opened = {watched.cause for watched in WATCHED} | {"tracking", "delivery_stopped"}
    sentence = re.search(r"This version opens anomalies for (.+?)\.", text("runbook.md"), re.DOTALL)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) == opened


def test_the_gates_of_a_bid_stand_in_their_order_and_with_what_an_emergency_passes() -> None:
    table = [(cells[0].strip("`"), cells[2]) for cells in rows(text("how-it-works.md")) if len(cells) == 3]
    names = {gate.name for gate in GATES}
    expected = [(gate.name, "yes" if gate.emergency_passes else "no") for gate in GATES]
    assert [row for row in table if row[0] in names] == expected


def test_the_metrics_under_watch_stand_with_their_window_direction_minimum_and_cause() -> None:
    table = {
        match[1]: cells
        for cells in rows(text("how-it-works.md"))
        if len(cells) == 7 and (match := re.match(r"`(\w+)`", cells[0]))
    }
    for watched in WATCHED:
        _, window, worse, rests_on, floor, level, cause = table[watched.metric]
        assert (window, worse, cause) == (f"{watched.window_s} s", watched.worse, f"`{watched.cause}`")
        assert rests_on.startswith(f"{watched.min_n:,} ")
        assert float(floor.split()[0]) == watched.floor
        assert level == f"{watched.floor_ratio:.0%}".replace("%", " %")


def test_every_field_of_the_signals_is_explained() -> None:
    page = text("how-it-works.md")
    patterns = [name.replace("*", r"\w*") for name in re.findall(r"`([\w*]+)`", page)]
    unexplained = [name for name in Metrics.model_fields if not any(re.fullmatch(p, name) for p in patterns)]
    assert unexplained == []


@pytest.mark.parametrize(
    ("page", "model"),
    [("segments.md", AudienceFeedback), ("segments.md", SegmentOutcome), ("sentiment.md", Crowded)],
)
def test_every_field_of_what_is_told_of_segments_and_complaints_is_explained(page: str, model: type[BaseModel]) -> None:
    named = set(re.findall(r"`(\w+)`", text(page)))
    assert set(model.model_fields) <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, fragment = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (fragment and fragment not in anchors(path.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_are_commands_of_the_program(page: Path) -> None:
    shown_commands = set(
        re.findall(r"^(?:\$ )?(?:\w+=\S+ )*roompulse (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert shown_commands <= set(COMMANDS)
