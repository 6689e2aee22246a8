"""Size and coverage of structural time series over many small worlds without an effect.

An effect moves the outcome after the start only, which the fit never sees: an interval covers any
effect exactly as often as it covers none.
"""

import math

import numpy as np
import pytest
from scipy import stats

from causal.core.gram import Array
from causal.quasi.structural.bsts_options import BstsOptions
from causal.quasi.structural.impact import impact
from causal.quasi.structural.time_series import TimeSeries

pytestmark = pytest.mark.slow

N_PRE, N_POST, N_COVARIATES = 60, 20, 4
KINDS = ("steady", "wandering", "autocorrelated")


def make_world(rng: np.random.Generator, *, kind: str) -> TimeSeries:
    """Two of four covariates matter; the rest of the outcome is noise of a kind.

    The level stands still, or wanders by a tenth of the noise in each period, or the noise is
    autocorrelated (0.5).
    """
    n = N_PRE + N_POST
    covariates = rng.normal(size=(n, N_COVARIATES)) + 0.7 * rng.normal(size=(n, 1))
    noise = rng.normal(size=n)
    if kind == "autocorrelated":
        for at in range(1, n):
            noise[at] = 0.5 * noise[at - 1] + math.sqrt(0.75) * noise[at]
    step = 0.1 if kind == "wandering" else 0.0
    level = (step * rng.normal(size=n)).cumsum()
    return TimeSeries(
        labels=tuple(float(at) for at in range(n)),
        outcome=50 + level + covariates @ np.array([1.0, 0.6, 0.0, 0.0]) + noise,
        covariates=covariates, names=("a", "b", "c", "d"), n_pre=N_PRE,
    )  # fmt: skip


def studied(kind: str, *, n_worlds: int, n_draws: int, seed: int) -> tuple[Array, Array, Array]:
    """Whether 95 % intervals cover, tail probabilities, and estimates in posterior deviations."""
    rng = np.random.default_rng(seed)
    options = BstsOptions(
        period="t", outcome="y", treatment_period=float(N_PRE), n_draws=n_draws, placebo=False
    )
    covered, tails, scores = [], [], []
    for number in range(n_worlds):
        found = impact(make_world(rng, kind=kind), options, seed=number)
        low, high = np.quantile(found.average, [0.025, 0.975])
        covered.append(low <= 0 <= high)
        tails.append(found.tail_probability())
        scores.append(found.estimate / found.average.std(ddof=1))
    return np.array(covered), np.array(tails), np.array(scores)


def check_steady(*, n_worlds: int, n_draws: int, seed: int, certainty: float) -> None:
    covered, tails, scores = studied("steady", n_worlds=n_worlds, n_draws=n_draws, seed=seed)
    low, high = stats.binom.interval(certainty, n_worlds, 0.95)

    print(f"steady: {covered.mean():.3f}, tail <= 0.025 in {(tails <= 0.025).mean():.3f}")  # noqa: T201
    # The prior of the level lets it wander, so intervals err on the side of width.
    assert covered.sum() >= low
    assert covered.mean() <= max(high / n_worlds, 0.985)
    assert abs(scores.mean()) < 4 / math.sqrt(n_worlds)
    assert (tails <= 0.025).mean() <= 1 - low / n_worlds + 0.01
    # One-sided, without an effect: below 0.05 one time in ten.
    low, high = stats.binom.interval(certainty, n_worlds, 0.10)
    assert low <= (tails <= 0.05).sum() <= high


def test_intervals_cover_where_the_level_stands_still() -> None:
    check_steady(n_worlds=60, n_draws=150, seed=31, certainty=0.999)


@pytest.mark.validation
def test_intervals_cover_in_many_worlds() -> None:
    check_steady(n_worlds=1_000, n_draws=400, seed=32, certainty=0.999)


@pytest.mark.validation
@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_the_default_prior_costs_elsewhere(kind: str) -> None:
    """The default prior believes in a quiet level; where it is not quiet, intervals are short."""
    covered, tails, _ = studied(kind, n_worlds=1_000, n_draws=400, seed=33)

    print(f"{kind}: {covered.mean():.3f}, tail <= 0.025 in {(tails <= 0.025).mean():.3f}")  # noqa: T201
    assert 0.5 < covered.mean() < 0.97
