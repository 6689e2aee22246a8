"""Size and coverage of structural time series over many small worlds without an effect.

An effect moves the outcome after the start only, which the fit never sees: an interval covers any
effect exactly as often as it covers none.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from causal.core.gram import Array
from causal.quasi.structural.bsts_options import BstsOptions
from causal.quasi.structural.impact import impact
from causal.quasi.structural.time_series import TimeSeries

pytestmark = pytest.mark.slow

N_PRE, N_POST = 60, 20
COEFFICIENTS = np.array([1.0, 0.6, 0.0, 0.0])
SHARED = 0.49
"""Covariance of each two covariates; each has variance 1 + SHARED."""


@dataclass(frozen=True, kw_only=True)
class World:
    """How worlds are made, beside the two of four covariates that matter.

    Attributes:
        explained: Share of the variance that the covariates explain.
        step: Standard deviation of a step of the level, in units of the outcome's.
        memory: Autocorrelation of the noise.
    """

    explained: float
    step: float
    memory: float = 0.0


WORLDS = {
    "as_the_priors_believe": World(explained=0.8, step=0.01),
    "weak_covariates": World(explained=0.4, step=0.01),
    "wandering_level": World(explained=0.8, step=0.05),
    "autocorrelated_noise": World(explained=0.8, step=0.01, memory=0.5),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """By world: whether the 95 % interval covers, the two-sided p-value, the estimate in errors."""

    covered: Array
    pvalues: Array
    scores: Array

    @property
    def rejected(self) -> Array:
        """Where the effect that is not there is significant."""
        return self.pvalues < 0.05

    def __str__(self) -> str:
        return (
            f"{len(self.covered)} worlds: coverage {self.covered.mean():.3f}, rejected "
            f"{self.rejected.mean():.3f}, spread of estimates {self.scores.std():.2f} errors"
        )


def make_series(rng: np.random.Generator, world: World) -> TimeSeries:
    """A series without an effect."""
    n = N_PRE + N_POST
    covariates = rng.normal(size=(n, 4)) + math.sqrt(SHARED) * rng.normal(size=(n, 1))
    signal = float(COEFFICIENTS @ COEFFICIENTS + SHARED * COEFFICIENTS.sum() ** 2)
    noise = rng.normal(size=n)
    for at in range(1, n):
        noise[at] = world.memory * noise[at - 1] + math.sqrt(1 - world.memory**2) * noise[at]
    noise *= math.sqrt(signal * (1 / world.explained - 1))
    level = (world.step * math.sqrt(signal / world.explained) * rng.normal(size=n)).cumsum()
    return TimeSeries(
        labels=tuple(float(at) for at in range(n)),
        outcome=50 + level + covariates @ COEFFICIENTS + noise,
        covariates=covariates, names=("a", "b", "c", "d"), n_pre=N_PRE,
    )  # fmt: skip


def studied(name: str, *, n_worlds: int, n_draws: int, seed: int) -> Study:
    """The method on many worlds."""
    rng = np.random.default_rng(seed)
    options = BstsOptions(
        period="t", outcome="y", treatment_period=float(N_PRE), n_draws=n_draws, placebo=False
    )
    covered, pvalues, scores = [], [], []
    for number in range(n_worlds):
        found = impact(make_series(rng, WORLDS[name]), options, seed=number)
        low, high = np.quantile(found.average, [0.025, 0.975])
        covered.append(low <= 0 <= high)
        pvalues.append(min(1.0, 2 * found.tail_probability()))
        scores.append(found.estimate / found.average.std(ddof=1))
    return Study(covered=np.array(covered), pvalues=np.array(pvalues), scores=np.array(scores))


def check(study: Study) -> None:
    """Coverage and size as far as this many worlds can tell; a little too wide is no error."""
    n = len(study.covered)
    low, high = stats.binom.interval(0.999, n, 0.95)

    assert low <= study.covered.sum() <= max(high, 0.985 * n)
    assert study.rejected.sum() <= n - low
    assert abs(study.scores.mean()) < 4 / math.sqrt(n)
    assert 0.8 < study.scores.std(ddof=1) < 1 + 4 / math.sqrt(2 * n)


def test_intervals_cover_where_the_priors_are_right() -> None:
    study = studied("as_the_priors_believe", n_worlds=80, n_draws=200, seed=31)

    print(study)  # noqa: T201 - the study's finding
    check(study)


@pytest.mark.validation
def test_intervals_cover_in_many_worlds() -> None:
    study = studied("as_the_priors_believe", n_worlds=1_000, n_draws=400, seed=32)

    print(study)  # noqa: T201 - the study's finding
    check(study)


@pytest.mark.validation
@pytest.mark.parametrize("name", list(WORLDS)[1:])
def test_what_the_default_priors_cost_elsewhere(name: str) -> None:
    """Where the priors are wrong intervals are short, and by no more than the page says."""
    study = studied(name, n_worlds=1_000, n_draws=400, seed=33)

    print(name, study)  # noqa: T201 - the study's finding
    assert 0.6 < study.covered.mean() < 0.95
