"""Chance has the moments it claims, and depends on nothing but its key."""

from __future__ import annotations

import statistics

import pytest

from pipeline.simulate.dice import Dice, Weighted

N = 40_000


def test_the_same_key_draws_the_same_and_another_key_does_not() -> None:
    first, second, other = Dice(1, 2), Dice(1, 2), Dice(1, 3)
    drawn = [first.uniform() for _ in range(9_000)]
    assert drawn == [second.uniform() for _ in range(9_000)]
    assert drawn != [other.uniform() for _ in range(9_000)]


@pytest.mark.parametrize("lam", [0.1, 3.0, 49.0, 200.0])
def test_poisson_has_its_mean_and_the_same_variance(lam: float) -> None:
    dice = Dice(5)
    drawn = [dice.poisson(lam) for _ in range(N)]
    # Five standard errors of the mean, and of the variance.
    assert statistics.fmean(drawn) == pytest.approx(lam, abs=5 * (lam / N) ** 0.5)
    assert statistics.variance(drawn) == pytest.approx(lam, abs=5 * ((lam + 2 * lam * lam) / N) ** 0.5)


@pytest.mark.parametrize("lam", [0.0, -1.0])
def test_no_rate_gives_no_event(lam: float) -> None:
    assert Dice(1).poisson(lam) == 0


def test_the_mean_of_a_factor_is_one_and_of_a_wait_its_own() -> None:
    dice = Dice(8)
    assert statistics.fmean(dice.factor(0.5) for _ in range(N)) == pytest.approx(1.0, abs=5 * 0.54 / N**0.5)
    assert statistics.fmean(dice.exponential(7.0) for _ in range(N)) == pytest.approx(7.0, abs=5 * 7.0 / N**0.5)


def test_both_ends_of_a_range_come_up_and_nothing_beyond() -> None:
    dice = Dice(3)
    assert {dice.between(4, 6) for _ in range(200)} == {4, 5, 6}


def test_a_weighted_choice_keeps_its_weights() -> None:
    dice, weighted = Dice(4), Weighted({"a": 3.0, "b": 1.0, "never": 0.0})
    drawn = [weighted.draw(dice) for _ in range(N)]
    assert drawn.count("a") / N == pytest.approx(0.75, abs=0.012)
    assert "never" not in drawn
