"""Size and coverage of the method `ab` in repeated experiments with known effects.

Every experiment goes through the same functions of moments as a readout does. Bands follow from
the number of experiments: the nominal rate plus or minus a given number of binomial errors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from causal.checks import srm
from causal.core.frames import Column
from causal.core.gram import Gram
from causal.core.inference import cr1_factor
from causal.experiments.levels import (
    Levels,
    Quotient,
    Spread,
    covariate_thetas,
    difference,
    joint_spread,
    lift,
    metric_levels,
    pooled_spread,
    welch_spread,
)

pytestmark = pytest.mark.slow

N_EXPERIMENTS = 2000
ALPHA = 0.05
ERRORS = 3.0
"""Half-width of a band in binomial standard errors."""

ESTIMATORS = ("welch", "pooled", "cuped", "cuped_within")

Array = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class World:
    """Draws one arm: rows (n, p), effect size as an argument, and what to estimate."""

    draw: Callable[[Rng, int, float], Array]
    quotients: tuple[Quotient, ...]
    truth: Callable[[float], tuple[float, float]]
    n: tuple[int, int] = (400, 600)


def _normal(rng: Rng, n: int, effect: float) -> Array:
    x = rng.normal(5, 2, n)
    return np.column_stack([10 + effect + 0.8 * x + rng.normal(0, 1.5, n), x])


def _proportion(rng: Rng, n: int, effect: float) -> Array:
    before = (rng.random(n) < 0.3).astype(float)
    return np.column_stack([rng.random(n) < 0.1 + 0.2 * before + effect, before])


def _log_normal(rng: Rng, n: int, effect: float) -> Array:
    taste = rng.normal(0, 0.6, n)
    y = (1 + effect) * np.exp(1 + taste + rng.normal(0, 0.5, n))
    return np.column_stack([y, np.exp(taste + rng.normal(0, 0.3, n))])


def _ratio(rng: Rng, n: int, effect: float) -> Array:
    habit = rng.gamma(4.0, 0.25, n)
    taste = rng.beta(6, 14, n)
    sessions = 1 + rng.poisson(4 * habit)
    before = 1 + rng.poisson(4 * habit)
    orders = rng.binomial(sessions, np.clip(taste * (1 + effect), 0, 1))
    return np.column_stack([orders, sessions, rng.binomial(before, taste), before])


_LOG_NORMAL_MEAN = float(np.exp(1 + (0.6**2 + 0.5**2) / 2))
WORLDS = {
    "mean": World(_normal, (Quotient("y", 0), Quotient("x", 1)), lambda e: (e, e / (10 + 0.8 * 5))),
    "proportion": World(_proportion, (Quotient("y", 0), Quotient("x", 1)), lambda e: (e, e / 0.16)),
    "log_normal": World(
        _log_normal,
        (Quotient("y", 0), Quotient("x", 1)),
        lambda e: (e * _LOG_NORMAL_MEAN, e),
        n=(1500, 2000),
    ),
    "ratio": World(
        _ratio, (Quotient("o/s", 0, 1), Quotient("bo/bs", 2, 3)), lambda e: (0.3 * e, e)
    ),
}
EFFECTS = {"mean": 0.7, "proportion": 0.05, "log_normal": 0.15, "ratio": 0.25}


def moments(rows: Array) -> Gram:
    mean = rows.mean(axis=0)
    centred = rows - mean
    terms = tuple(Column(f"c{j}") for j in range(rows.shape[1]))
    return Gram(terms, len(rows), 0, 0, float(len(rows)), mean, centred.T @ centred)


def read(pair: tuple[Gram, Gram], quotients: tuple[Quotient, ...], estimator: str) -> Levels:
    thetas = np.zeros(0)
    if estimator.startswith("cuped"):
        theta = "within" if estimator.endswith("within") else "total"
        thetas = covariate_thetas(*pair, quotients=quotients, theta=theta)
    return metric_levels(*pair, quotients=quotients, thetas=thetas)


def uncertainty(levels: Levels, pair: tuple[Gram, Gram], estimator: str) -> Spread:
    return (pooled_spread if estimator == "pooled" else welch_spread)(levels, *pair)


@cache
def simulate(name: str, effect: float, seed: int) -> dict[str, Array]:
    """p-values of the true effect by estimator, shape (experiments, 2 scales)."""
    world, rng = WORLDS[name], np.random.default_rng(seed)
    truths = world.truth(effect)
    statistics, dfs = np.empty((2, len(ESTIMATORS), N_EXPERIMENTS, 2))
    for row in range(N_EXPERIMENTS):
        pair = (
            moments(world.draw(rng, world.n[0], 0.0).astype(float)),
            moments(world.draw(rng, world.n[1], effect).astype(float)),
        )
        for column, estimator in enumerate(ESTIMATORS):
            levels = read(pair, world.quotients, estimator)
            spread = uncertainty(levels, pair, estimator)
            both = (difference(levels, spread), lift(levels, spread))
            statistics[column, row] = [
                (found.value - truth) / found.std_error
                for found, truth in zip(both, truths, strict=True)
            ]
            dfs[column, row] = [found.df for found in both]
    return dict(zip(ESTIMATORS, 2 * stats.t.sf(np.abs(statistics), dfs), strict=True))


def assert_nominal(pvalues: Array) -> None:
    """As many p-values of the truth below alpha as alpha says, within the Monte Carlo error."""
    band = ERRORS * np.sqrt(ALPHA * (1 - ALPHA) / len(pvalues))
    assert float((pvalues < ALPHA).mean()) == pytest.approx(ALPHA, abs=band)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", list(WORLDS))
def test_false_positives_are_at_the_nominal_rate(name: str, estimator: str) -> None:
    pvalues = simulate(name, 0.0, 20261121)[estimator]
    assert_nominal(pvalues[:, 0])
    assert_nominal(pvalues[:, 1])
    assert stats.kstest(pvalues[:, 0], "uniform").pvalue > 0.01


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name != "pooled"])
@pytest.mark.parametrize("name", list(WORLDS))
def test_intervals_cover_the_true_effect_on_both_scales(name: str, estimator: str) -> None:
    pvalues = simulate(name, EFFECTS[name], 7)[estimator]
    assert_nominal(pvalues[:, 0])
    assert_nominal(pvalues[:, 1])


def test_a_lift_variance_without_the_pooled_covariate_level_undercovers() -> None:
    """The error that this suite must not make, shown where it is large."""
    rng = np.random.default_rng(3)
    full, partial = [], []
    for _ in range(N_EXPERIMENTS):
        rows = []
        for effect in (0.0, 4.0):
            x = rng.gamma(1.0, 1.0, 300)
            y = 1 + effect + x + rng.normal(0, 0.5, 300)
            rows.append(moments(np.column_stack([y, x])))
        levels = read((rows[0], rows[1]), (Quotient("y", 0), Quotient("x", 1)), "cuped_within")
        for out, used in ((full, levels), (partial, _without_shared(levels))):
            found = lift(used, welch_spread(used, rows[0], rows[1]))
            out.append(abs(found.value - 2.0) / found.std_error)
    limit = stats.norm.ppf(1 - ALPHA / 2)
    band = ERRORS * np.sqrt(ALPHA * (1 - ALPHA) / N_EXPERIMENTS)
    assert float((np.array(full) > limit).mean()) == pytest.approx(ALPHA, abs=band)
    assert float((np.array(partial) > limit).mean()) > 2 * ALPHA


def _without_shared(levels: Levels) -> Levels:
    return Levels(
        levels.value, levels.own, np.zeros_like(levels.shared), levels.shares, levels.thetas
    )


@pytest.mark.parametrize("estimator", ["raw", "cuped"])
@pytest.mark.parametrize("effect", [0.0, 0.6])
def test_clustered_intervals_cover(estimator: str, effect: float) -> None:
    rng = np.random.default_rng(19)
    n_clusters, size = 200, 6
    quotients = (Quotient("y", 0), Quotient("x", 1))
    statistics = np.empty((N_EXPERIMENTS, 2))
    for row in range(N_EXPERIMENTS):
        arm = np.repeat(rng.permutation(n_clusters) % 2, size)
        cluster = np.repeat(np.arange(n_clusters), size)
        x = rng.normal(size=n_clusters)[cluster] + rng.normal(size=len(cluster))
        noise = rng.normal(size=n_clusters)[cluster] + rng.normal(size=len(cluster))
        rows = np.column_stack([8 + x + noise + effect * arm, x])
        pair = (moments(rows[arm == 0]), moments(rows[arm == 1]))
        scores = np.hstack([(rows - g.mean) * (arm == a)[:, None] for a, g in enumerate(pair)])
        sums = np.add.reduceat(scores, np.arange(0, len(cluster), size))
        counts = np.repeat([pair[0].n, pair[1].n], 2)
        factor = cr1_factor(n=len(cluster), k=2, n_clusters=n_clusters)
        covariance = factor * (sums.T @ sums) / np.outer(counts, counts)
        levels = read(pair, quotients, estimator)
        spread = joint_spread(levels, (covariance,), (n_clusters - 1.0,))
        for scale, (found, truth) in enumerate(
            ((difference(levels, spread), effect), (lift(levels, spread), effect / 8))
        ):
            statistics[row, scale] = (found.value - truth) / found.std_error
    pvalues = 2 * stats.t.sf(np.abs(statistics), n_clusters - 1)
    assert_nominal(pvalues[:, 0])
    assert_nominal(pvalues[:, 1])


def test_sample_ratio_alarms() -> None:
    """Few false alarms on an even split, and 51 to 49 is seen with 52,260 units."""
    rng = np.random.default_rng(1)
    n, alpha = 52_260, 0.001
    for share, low, high in ((0.5, 0.0, 0.003), (0.51, 0.9, 1.0)):
        treated = rng.binomial(n, share, N_EXPERIMENTS)
        alarms = [
            srm.check({"a": n - k, "b": int(k)}, shares=(0.5, 0.5), alpha=alpha).passed is False
            for k in treated
        ]
        assert low <= float(np.mean(alarms)) <= high
