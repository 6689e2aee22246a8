"""Critical values of simultaneous bands."""

import numpy as np
import pytest
from scipy import stats

from causal.core.simultaneous import gaussian_critical_value, multiplier_critical_value

N_DRAWS = 200_000


def critical(covariance: np.ndarray, *, level: float = 0.95, df: float | None = None) -> float:
    return gaussian_critical_value(
        covariance, confidence_level=level, rng=np.random.default_rng(1), n_draws=N_DRAWS, df=df
    )


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("size", [2, 7])
def test_independent_estimates_have_the_sidak_value(level: float, size: int) -> None:
    sidak = stats.norm.ppf((1 + level ** (1 / size)) / 2)

    assert critical(np.diag(np.arange(1.0, size + 1)), level=level) == pytest.approx(
        sidak, rel=0.01
    )


def test_perfectly_correlated_estimates_have_the_pointwise_value() -> None:
    scale = np.array([1.0, 5.0, 0.01])

    assert critical(np.outer(scale, scale)) == pytest.approx(stats.norm.ppf(0.975), rel=0.01)
    assert critical(np.array([[4.0]])) == stats.norm.ppf(0.975)


def test_correlation_lies_between() -> None:
    value = critical(np.array([[1.0, 0.9], [0.9, 1.0]]))
    exact = stats.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]])
    inside = exact.cdf([value, value], lower_limit=[-value, -value])

    assert inside == pytest.approx(0.95, abs=0.003)


def test_a_joint_t_reference() -> None:
    """Independent given the common scale: integrate the normal probability over it."""
    value = critical(np.eye(4), df=6.0)
    scales = np.sqrt(stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, 6) / 6)
    inside = (2 * stats.norm.cdf(value * scales) - 1) ** 4

    assert inside.mean() == pytest.approx(0.95, abs=0.003)


def test_rounding_does_not_change_the_draws() -> None:
    root = np.random.default_rng(2).normal(size=(6, 6))
    matrix = root @ root.T
    noise = np.random.default_rng(4).normal(size=(6, 6))
    nudged = matrix * (1 + 1e-14 * (noise + noise.T))

    assert critical(nudged) == pytest.approx(critical(matrix), rel=1e-9)


def test_random_signs_of_many_clusters_are_normal() -> None:
    sums = np.random.default_rng(3).normal(size=(400, 3))
    found = multiplier_critical_value(
        sums, confidence_level=0.95, rng=np.random.default_rng(1), n_draws=50_000
    )

    assert found == pytest.approx(critical(sums.T @ sums), rel=0.02)
