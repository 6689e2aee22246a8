"""Rosenbaum's bounds where partners differ in their odds of treatment by a known factor."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from causal.observational.sensitivity import rosenbaum_bounds, rosenbaum_gamma

ALPHA = 0.05
N_PAIRS = 200

Numbers = NDArray[np.float64]


def pairs(rng: np.random.Generator, odds: Numbers) -> Numbers:
    """Treated less control without an effect: who of a pair has more is treated with these odds.

    Some pairs do not differ, some differ by as much as others.
    """
    sizes = np.round(rng.gamma(1.5, 2.0, len(odds)), 1)
    return np.where(rng.uniform(size=len(odds)) < odds / (1.0 + odds), sizes, -sizes)


def rejections(gamma: float, *, tested: list[float], n_draws: int) -> Numbers:
    """Share of draws under the greatest bias that gamma allows in which each gamma is refuted."""
    rng = np.random.default_rng(20261122)
    odds = np.full(N_PAIRS, gamma)
    found = [
        rosenbaum_bounds(pairs(rng, odds), gamma=tested).pvalue_upper < ALPHA
        for _ in range(n_draws)
    ]
    return np.mean(found, axis=0)


def check(gamma: float, *, n_draws: int) -> None:
    """The sum of ranks leans to the left, so that its normal law rejects a little too seldom."""
    shares = rejections(gamma, tested=[1.0, gamma, 1.5 * gamma], n_draws=n_draws)
    band = 3.5 * np.sqrt(ALPHA * (1 - ALPHA) / n_draws)

    assert 0.85 * ALPHA - band < shares[1] < ALPHA + band
    assert shares[2] < ALPHA / 2
    assert shares[0] > 0.9, "without room for a bias there is an effect"


@pytest.mark.parametrize("gamma", [2.0, 4.0])
def test_the_test_at_the_gamma_of_the_world_has_its_level(gamma: float) -> None:
    check(gamma, n_draws=1000)


@pytest.mark.validation
@pytest.mark.parametrize("gamma", [2.0, 4.0])
def test_the_test_has_its_level_in_many_worlds(gamma: float) -> None:
    check(gamma, n_draws=20_000)


def test_a_smaller_bias_is_found_less_often() -> None:
    rng = np.random.default_rng(7)
    gamma, n_draws = 3.0, 1000
    found = 0
    for _ in range(n_draws):
        odds = np.exp(rng.uniform(-np.log(gamma), np.log(gamma), N_PAIRS))
        found += rosenbaum_gamma(pairs(rng, odds), alpha=ALPHA) > gamma

    assert found <= n_draws * ALPHA / 10


def test_the_gamma_of_an_analysis_exceeds_that_of_the_world_as_often_as_the_level() -> None:
    rng = np.random.default_rng(8)
    gamma, n_draws = 2.5, 1000
    odds = np.full(N_PAIRS, gamma)
    beyond = sum(rosenbaum_gamma(pairs(rng, odds), alpha=ALPHA) > gamma for _ in range(n_draws))

    assert stats.binomtest(beyond, n_draws, ALPHA).pvalue > 1e-3
