"""The benchmark of the signals: every family of bots is in one group, every aim is read the right way round."""

from __future__ import annotations

import math

import pytest

from benchmarks.signals import aims, quality, returns_simulated
from benchmarks.signals.quality_calibration import CONSTANTS, Constant, chosen, moved, present
from benchmarks.signals.spread import one_by_one, spread
from pipeline.simulate import WORLDS
from pipeline.simulate.truth import BOT_KINDS, CROWD_KINDS
from schemas.settings import QualitySettings


def test_every_family_of_bots_is_either_calibrated_on_or_held_out() -> None:
    assert sorted((*quality.CALIBRATED, *quality.HELD_OUT)) == sorted(BOT_KINDS)
    assert set(CROWD_KINDS) <= set(quality.LOOK_ALIKES)
    assert sorted(kind for kinds in quality.GROUPS.values() for kind in kinds) == sorted(BOT_KINDS)
    assert not set(quality.CALIBRATION_SEEDS) & set(quality.TEST_SEEDS)


def test_the_worlds_that_are_looked_at_are_the_simulators() -> None:
    assert set(quality.OTHER_WORLDS) <= set(WORLDS)
    assert {setting.world for setting in returns_simulated.ALL.values()} <= set(WORLDS)


@pytest.mark.parametrize(
    ("figure", "least", "most", "is_met", "aim"),
    [
        (0.95, 0.95, None, True, ">= 0.95"),
        (0.9499, 0.95, None, False, ">= 0.95"),
        (0.03, None, 0.03, True, "<= 0.03"),
        (0.0301, None, 0.03, False, "<= 0.03"),
        (0.9, 0.88, 0.92, True, "0.88..0.92"),
        (0.97, 0.88, 0.92, False, "0.88..0.92"),
        (0.0, None, 0.01, True, "<= 0.01"),
        (None, 0.9, None, None, ">= 0.9"),
    ],
)
def test_an_aim_is_met_inside_its_bounds_and_unknown_without_a_figure(
    figure: float | None, least: float | None, most: float | None, is_met: bool | None, aim: str
) -> None:
    row = aims.Row("a figure", figure, least, most)
    assert row.as_dict() == {"what": "a figure", "figure": figure, "aim": aim, "is_met": is_met}


def test_every_family_and_look_alike_has_an_aim_and_nothing_measured_meets_none() -> None:
    rows = list(aims.rows({}))
    assert all(row.is_met is None for row in rows)
    names = [row.what for row in rows]
    assert len(set(names)) == len(names)
    for kind in (*BOT_KINDS, *CROWD_KINDS):
        assert any(kind in name for name in names), kind


def test_an_aim_reads_the_figure_of_its_own_family() -> None:
    found = {"quality": {"held_out_scripted": {"device_farm": {"f1": 0.9, "attacked_error_mean": 0.01}}}}
    told = {row.what: row.is_met for row in aims.rows(found) if row.figure is not None}
    assert told == {
        "traffic, held_out_scripted: F1 of device_farm": False,
        "traffic, held_out_scripted: error of the share where device_farm is on, mean": True,
    }


def test_several_processes_find_what_one_does_and_tell_of_each_task() -> None:
    said: list[str] = []
    tasks = [float(n) for n in range(9)]
    with spread(2, said.append) as each:
        found = each("roots", math.sqrt, tasks)
    assert found == one_by_one("roots", math.sqrt, tasks)
    assert [line.split(",")[0] for line in said] == [f"roots: {n} of 9" for n in range(1, 10)]


def row(f1: float, wrong: float = 0.0, **of: float) -> dict[str, float]:
    return dict.fromkeys(quality.CALIBRATED, f1) | dict.fromkeys(quality.LOOK_ALIKES, -wrong) | of


def test_a_constant_is_moved_for_what_is_clearly_better_and_marks_no_crowd() -> None:
    assert chosen({"6": row(0.90), "8": row(0.95)}, "6") == "8"
    assert chosen({"6": row(0.90), "8": row(0.9015)}, "6") == "6"
    assert chosen({"6": row(0.90), "8": row(0.95, wrong=0.006)}, "6") == "6"


def test_a_constant_that_fits_one_family_alone_is_not_chosen_without_it() -> None:
    rows = {"6": row(0.90), "8": row(0.90, bot_burst=1.0)}
    assert chosen(rows, "6") == "8"
    assert chosen(rows, "6", without="bot_burst") == "6"
    assert chosen(rows, "6", without="script_comments") == "8"


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda constant: constant.name)
def test_a_constant_that_was_moved_is_put_back(constant: Constant) -> None:
    before = present(constant)
    other = constant.others[0]
    with moved(constant, other) as settings:
        now = present(constant) if constant.module else getattr(settings.quality, constant.name)
        assert now == other
    assert present(constant) == before
    assert QualitySettings().evidence_nats == 6.0
