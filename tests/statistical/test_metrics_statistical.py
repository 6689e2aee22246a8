"""Size and coverage of trends and bands over periods, of retention, and of bounds from the data."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from causal.core.simultaneous import gaussian_critical_value
from causal.experiments.novelty import trend
from causal.experiments.order_statistics import rank_of
from causal.experiments.retention import log_log_interval, survival

pytestmark = pytest.mark.slow

Array = NDArray[np.float64]
ERRORS = 3.5
"""Half-width of a band in binomial standard errors."""

SIZES = [
    pytest.param(1_000, id="quick"),
    pytest.param(20_000, id="long", marks=pytest.mark.validation),
]


def assert_rate(found: list[bool] | Array, rate: float, *, slack: float = 0.0) -> None:
    band = slack + ERRORS * math.sqrt(rate * (1 - rate) / len(found))
    assert float(np.mean(found)) == pytest.approx(rate, abs=band)


@pytest.mark.parametrize("n_experiments", SIZES)
@pytest.mark.parametrize("slope", [0.0, -0.2])
def test_trends_and_bands_of_correlated_effects(n_experiments: int, slope: float) -> None:
    """Effects of ten days of the same units, later ones of fewer."""
    rng = np.random.default_rng(1)
    periods = np.arange(10.0)
    errors = 0.5 + 0.05 * periods
    covariance = np.outer(errors, errors) * (0.6 + 0.4 * np.eye(len(periods)))
    truth = 3.0 + slope * periods
    width = gaussian_critical_value(covariance, confidence_level=0.95, rng=rng, n_draws=200_000)
    draws = rng.multivariate_normal(truth, covariance, n_experiments)
    lines = [trend(periods, effects, covariance) for effects in draws]
    covered = [abs(line.slope - slope) <= 1.96 * line.std_error for line in lines]
    held = (np.abs(draws - truth) <= width * errors).all(axis=1)

    assert_rate(covered, 0.95)
    assert_rate(held, 0.95, slack=0.002)


@pytest.mark.parametrize("n_experiments", SIZES)
def test_retention_of_units_that_enter_over_time(n_experiments: int) -> None:
    """A third is not followed to the horizon; the effect at day 14 and each arm's own share."""
    rng = np.random.default_rng(2)
    n, horizon = 300, 14
    stay = (0.97, 0.98)
    truth = [share ** (horizon + 1) for share in stay]
    covered, inside = [], []
    for _ in range(n_experiments):
        found = []
        for share in stay:
            leaves = rng.geometric(1 - share, n) - 1.0
            followed = rng.integers(0, 43, n).astype(float)
            left = leaves <= followed
            curve = survival(np.minimum(leaves, followed), left.astype(float), np.ones(n))
            found.append(curve.at(horizon))
        error = math.hypot(found[0][1], found[1][1])
        covered.append(abs(found[1][0] - found[0][0] - truth[1] + truth[0]) <= 1.96 * error)
        low, high = log_log_interval(*found[0], confidence_level=0.95)
        inside.append(low <= truth[0] <= high)

    assert_rate(covered, 0.95, slack=0.005)
    assert_rate(inside, 0.95, slack=0.005)


def _limited_mean(bound: float, mean: float, spread: float) -> float:
    """Expectation of `min(X, bound)` for lognormal X."""
    z = (math.log(bound) - mean) / spread
    low = math.exp(mean + spread**2 / 2) * stats.norm.cdf(z - spread)
    return float(low + bound * stats.norm.sf(z))


@pytest.mark.parametrize("n_experiments", SIZES)
def test_the_bounds_error_does_not_cost_coverage(n_experiments: int) -> None:
    """A lift of a fifth, winsorised at the 99 % quantile of both arms, found on 2 x 800 units."""
    rng = np.random.default_rng(3)
    n, spread, lift = 800, 1.2, math.log(1.2)
    bound = optimize.brentq(
        lambda b: sum(stats.norm.cdf((math.log(b) - m) / spread) for m in (0, lift)) / 2 - 0.99,
        0.1, 1e4,
    )  # fmt: skip
    truth = _limited_mean(bound, lift, spread) - _limited_mean(bound, 0.0, spread)
    covered = []
    for _ in range(n_experiments):
        arms = [np.exp(mean + spread * rng.normal(size=n)) for mean in (0.0, lift)]
        high = np.sort(np.concatenate(arms))[rank_of(0.99, 2 * n) - 1]
        control, treatment = (np.minimum(arm, high) for arm in arms)
        error = math.sqrt(control.var(ddof=1) / n + treatment.var(ddof=1) / n)
        covered.append(abs(treatment.mean() - control.mean() - truth) <= 1.96 * error)

    assert_rate(covered, 0.95, slack=0.005)
