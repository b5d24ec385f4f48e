"""Named worlds: whatever is broken in one, the truth about it is exact."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.cli import main
from pipeline import Engine
from pipeline.simulate import (
    DEFAULT_START_TS,
    WORLDS,
    Parameters,
    UnknownWorldError,
    World,
    parameters_of,
    play,
    world_named,
)
from pipeline.simulate.counted import SUMMED
from pipeline.simulate.settings import names
from pipeline.simulate.timeline import consents
from schemas.settings import Settings

ROOT = Path(__file__).parents[3]
MINUTE_MS = 60_000
MONEY = (
    "n_enters", "n_orders_created", "n_orders_paid", "n_refunds", "gmv_minor", "refund_minor", "spend_minor",
    "gift_minor", "impressions", "clicks",
)  # fmt: skip


def early(world: str, scenario: str = "mixed", n_rooms: int = 10, seed: int = 23) -> World:
    """Return a world whose troubles last from minute 2 to minute 7."""
    return World(
        scenario, n_rooms, seed, trouble_at_ms=DEFAULT_START_TS + 2 * MINUTE_MS, parameters=parameters_of(world)
    )


def sessions(lines: list[bytes]) -> dict[str, dict[str, Any]]:
    """Return what the engine counts in each room's session, the log being all there is."""
    engine = Engine(Settings(trust_log=True))
    engine.process([(n, None, line) for n, line in enumerate(lines)])
    engine.flush()
    return {room_id: room["session"] for room_id, room in engine.summary()["rooms"].items()}


@pytest.mark.parametrize("name", WORLDS)
def test_the_truth_files_totals_are_what_the_log_says(name: str, tmp_path: Path) -> None:
    log, truth = tmp_path / "log.jsonl", tmp_path / "truth.jsonl"
    arguments = ["--rooms", "6", "--minutes", "6", "--seed", "31", "--trouble-at-s", "120", "--world", name]
    main(["simulate", *arguments, "--out", str(log), "--truth", str(truth)])
    books = {
        line["room_id"]: line for line in map(orjson.loads, truth.read_bytes().splitlines()) if line["type"] == "room"
    }
    counted = sessions(log.read_bytes().splitlines())
    assert len(books) == 6
    for room_id, room in books.items():
        assert {field: counted[room_id].get(field, 0) for field in MONEY} == {field: room[field] for field in MONEY}
    assert sum(room["gmv_minor"] for room in books.values()) > 0


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_differs_from_the_default_in_what_it_says_and_in_nothing_else(name: str) -> None:
    world = world_named(name)
    assert set(world.values) <= set(names())
    before, after = Parameters(), parameters_of(name)
    changed = {path for path in names() if value_of(before, path) != value_of(after, path)}
    assert changed == set(world.values)


def value_of(parameters: Parameters, path: str) -> Any:
    part: Any = parameters
    for name in path.split("."):
        part = part[name] if isinstance(part, dict) else getattr(part, name)
    return part


def test_no_two_worlds_send_the_same_records() -> None:
    # A world of other bots shows where there are some, one of weekends where one is on: 2025-06-01 is a Sunday.
    logs = {name: orjson.dumps([event for _, _, event in play(early(name, n_rooms=3), 7)]) for name in WORLDS}
    assert len(set(logs.values())) == len(WORLDS)


def test_an_unknown_world_is_refused_with_the_names_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownWorldError, match=r"world must be one of as-is, slow-delay, .*, got 'mars'"):
        world_named("mars")
    with pytest.raises(SystemExit) as stop:
        main(["simulate", "--world", "mars"])
    assert stop.value.code == 2
    assert "world must be one of as-is" in capsys.readouterr().err


def test_the_manual_names_every_world_and_all_that_it_sets() -> None:
    rows = {
        cells[1].strip().strip("`"): cells
        for line in (ROOT / "docs" / "simulator.md").read_text("utf-8").splitlines()
        if len(cells := line.split("|")) == 5
    }
    for world in WORLDS.values():
        told = rows[world.name][3].replace("`", "")
        assert {part.strip() for part in told.split(";") if part.strip()} == {
            f"{name}={value}" for name, value in world.values.items()
        }


# -- consent ----------------------------------------------------------------------------------------------------------


@given(user=st.text(min_size=1, max_size=20), low=st.floats(0.0, 1.0), high=st.floats(0.0, 1.0))
def test_who_consents_at_a_ratio_does_at_every_higher_one(user: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert consents(user, 1.0)
    assert not consents(user, 0.0)
    assert consents(user, high) or not consents(user, low)


@pytest.mark.parametrize(("name", "share"), [("as-is", 1.0), ("half-consent", 0.5), ("no-consent", 0.0)])
def test_a_user_consents_always_or_never_and_as_many_do_as_the_world_says(name: str, share: float) -> None:
    said: dict[str, set[bool]] = defaultdict(set)
    for _, _, event in play(early(name), 8):
        if "user_id" in event:
            said[event["user_id"]].add(event.get("consent", True))
    assert all(len(answers) == 1 for answers in said.values())
    consenting = sum(True in answers for answers in said.values())
    # Binomial: four standard deviations of some 2,000 users are 4.5 points.
    assert len(said) > 1_000
    assert abs(consenting / len(said) - share) <= (0.045 if 0 < share < 1 else 0.0)


def test_consent_changes_nothing_but_the_word_for_it() -> None:
    plain = [event for _, _, event in play(early("as-is"), 6)]
    without = [event for _, _, event in play(early("no-consent"), 6)]
    assert [{k: v for k, v in event.items() if k != "consent"} for event in without] == plain
    assert all(event["consent"] is False for event in without if "user_id" in event)


# -- a platform that tells sums ---------------------------------------------------------------------------------------


def test_a_platform_of_sums_tells_no_single_viewer() -> None:
    kinds = Counter(event["type"] for _, _, event in play(early("counts-only"), 9))
    assert not SUMMED & set(kinds)
    assert min(kinds["counts"], kinds["presence"], kinds["order"], kinds["spend"]) > 0


def test_sums_come_each_ten_seconds_by_channel_and_lie_inside_their_step() -> None:
    seen: dict[tuple[str, str], int] = {}
    for _, room_id, event in play(early("counts-only", n_rooms=3), 9):
        if event["type"] != "counts":
            continue
        step, rest = divmod(event["ts"] - DEFAULT_START_TS, 10_000)
        assert rest == 9_999
        assert seen.get((room_id, event["channel"]), -1) < step
        seen[room_id, event["channel"]] = step
        assert all(n > 0 for name, n in event.items() if name.startswith("n_"))


def test_a_heartbeat_of_sums_promises_no_step_that_has_not_arrived() -> None:
    promised: dict[str, int] = {}
    n_promises = 0
    for _, room_id, event in play(early("counts-only", n_rooms=3), 9):
        if event.get("feed") == "view":
            promised[room_id] = event["complete_through_ts"]
            n_promises += 1
        elif event["type"] == "counts":
            assert event["ts"] >= promised.get(room_id, 0)
        assert event.get("feed") != "comment"
    assert n_promises > 3 * 50
    assert max(promised.values()) > DEFAULT_START_TS + 8 * MINUTE_MS


@settings(max_examples=10, deadline=None)
@given(steps=st.lists(st.integers(1, 40_000), min_size=1, max_size=40))
def test_the_size_of_steps_does_not_show_in_sums(steps: list[int]) -> None:
    stepped, whole = (early("counts-only", n_rooms=2) for _ in range(2))
    now = DEFAULT_START_TS
    records = []
    for step in steps:
        now += step
        records += stepped.advance(now)
    assert records == whole.advance(now)


def test_what_a_label_is_of_is_in_the_log_also_where_sums_are_told() -> None:
    world = World(
        "mixed",
        4,
        3,
        trouble_at_ms=DEFAULT_START_TS + 2 * MINUTE_MS,
        parameters=parameters_of("counts-only"),
        is_labelled=True,
    )
    sent = {event["event_id"] for _, _, event in play(world, 25)}
    labels = world.labels()
    assert all(label.event_id in sent for label in labels if label.ts < DEFAULT_START_TS + 20 * MINUTE_MS)
    assert all(label.feeling is None for label in labels)
