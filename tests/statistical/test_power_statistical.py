"""Planned power against the share of repeated experiments in which the analysis finds the effect.

What the plan knows comes from one large history through the same functions as a plan's; each
experiment is analysed by the functions of moments that a readout uses.
"""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from causal.core.gram import Gram
from causal.experiments.metrics import Metric
from causal.experiments.planned_test import PlannedTest
from causal.experiments.power import mde, power, sample_size
from causal.experiments.power_family import alpha_per_test, holm_power
from causal.experiments.power_history import Clusters, History, outcome_of
from causal.experiments.power_outcome import mean_outcome, proportion_outcome
from causal.validation.planned_power import WORLDS, is_found, planned_outcome

pytestmark = pytest.mark.slow

N_EXPERIMENTS = 1500
N_MANY_EXPERIMENTS = 20_000
BAND = 0.03
MEAN = Metric(name="m", type="mean", column="y")


def _planned_and_found(name: str, n_experiments: int) -> tuple[float, float]:
    """Planned power, and the share of experiments that find the effect."""
    world = WORLDS[name]
    rng = np.random.default_rng(20261121)
    outcome = planned_outcome(world, rng)
    per_cluster = outcome.units_per_cluster or 1.0
    planned = power(outcome, world.test, effect=world.effect, n_control=world.n * per_cluster)
    return planned, float(np.mean([is_found(world, rng) for _ in range(n_experiments)]))


@pytest.mark.parametrize("name", WORLDS)
def test_planned_power_is_the_share_of_experiments_that_find_it(name: str) -> None:
    planned, found = _planned_and_found(name, N_EXPERIMENTS)

    assert 0.5 < planned < 0.97
    assert found == pytest.approx(planned, abs=BAND)


@pytest.mark.validation
@pytest.mark.parametrize("name", WORLDS)
def test_planned_power_in_many_experiments(name: str) -> None:
    planned, found = _planned_and_found(name, N_MANY_EXPERIMENTS)

    assert found == pytest.approx(planned, abs=BAND / 2)


@pytest.mark.parametrize(
    ("number", "ratio", "spread"),
    [(4, 1.0, 0.0), (4, 1.0, 0.8), (6, 1.0, 0.4), (8, 1.0, 1.2), (12, 0.5, 0.8), (12, 1 / 3, 0.4)],
)
def test_few_clusters_have_the_planned_power(number: int, ratio: float, spread: float) -> None:
    """Gamma-distributed sizes, icc 0.2: an effect planned to be found in 80 % is found so often."""

    def sizes(rng: np.random.Generator, n: int) -> np.ndarray:
        if spread == 0:
            return np.full(n, 50)
        drawn = rng.gamma(spread**-2, 50 * spread**2, n)
        return np.maximum(drawn.round(), 1).astype(int)

    rng = np.random.default_rng(17)
    many = sizes(rng, 100_000)
    outcome = mean_outcome(mean=10.0, std=np.sqrt(5.0)).clustered(
        icc=0.2, mean_size=float(many.mean()), size_cv=float(many.std() / many.mean())
    )
    test = PlannedTest(ratio=ratio)
    effect = mde(outcome, test, n_control=number * float(many.mean()), power=0.8)
    world = dataclasses.replace(
        WORLDS["few clusters of unequal size"], n=number, test=test, effect=effect, sizes=sizes
    )
    found = np.mean([is_found(world, rng) for _ in range(3000)])

    assert found == pytest.approx(0.8, abs=BAND + 0.01)


@pytest.mark.parametrize("n_history", [8, 24])
@pytest.mark.parametrize(("spread", "icc"), [(0.8, 0.2), (0.4, 0.05), (0.8, 0.8)])
def test_a_history_of_few_clusters_plans_their_variance(
    n_history: int, spread: float, icc: float
) -> None:
    """Of the mean of eight clusters of unequal size, against that of many draws of eight."""
    rng = np.random.default_rng(7)

    def drawn(number: int) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.maximum(rng.gamma(spread**-2, 40 * spread**2, number).round(), 1).astype(int)
        cluster = np.repeat(np.arange(number), sizes)
        shocks = rng.normal(0, np.sqrt(icc), number)[cluster]
        return shocks + rng.normal(0, np.sqrt(1 - icc), len(cluster)), cluster

    def planned() -> float:
        y, cluster = drawn(n_history)
        off = y - y.mean()
        totals, sizes = np.bincount(cluster, off), np.bincount(cluster)
        gram = Gram(MEAN.terms, len(y), 0, 0, float(len(y)), y[:1], np.array([[off @ off]]))
        sums = Clusters(
            sums=np.array([[totals @ totals]]), n_clusters=n_history, sizes=tuple(sizes)
        )
        outcome = outcome_of(MEAN, History(n=len(y), moments={"m": gram}, clusters={"m": sums}))
        arm = 8 * (outcome.units_per_cluster or 0.0)
        return outcome.variance / arm * outcome.clusters_of(arm).factor

    true = np.var([drawn(8)[0].mean() for _ in range(8000)])
    assert np.mean([planned() for _ in range(3000)]) == pytest.approx(true, rel=0.07)


def test_planned_sizes_have_the_power() -> None:
    """From the closed forms of a share and of a mean, at sizes that the calculator chose."""
    rng = np.random.default_rng(5)
    n_runs, test = 4000, PlannedTest()
    n = int(np.ceil(sample_size(proportion_outcome(share=0.08), test, effect=0.02, power=0.85)))
    shares = [rng.binomial(n, share, n_runs) / n for share in (0.08, 0.10)]
    errors = np.sqrt(sum(share * (1 - share) / n for share in shares))
    pvalues = 2 * stats.norm.sf(np.abs(shares[1] - shares[0]) / errors)
    assert np.mean(pvalues < 0.05) == pytest.approx(0.85, abs=BAND)

    n = int(np.ceil(sample_size(mean_outcome(mean=10.0, std=6.0), test, effect=4.0, power=0.85)))
    arms = [10 + effect + 6 * rng.standard_normal((n_runs, n)) for effect in (0.0, 4.0)]
    pvalues = stats.ttest_ind(*arms, axis=1, equal_var=False).pvalue
    assert n < 50
    assert np.mean(pvalues < 0.05) == pytest.approx(0.85, abs=BAND)


@pytest.mark.parametrize(("n_treatments", "ratio"), [(2, 1.0), (4, 1.0), (3, 0.5)])
def test_several_treatments_share_a_control(n_treatments: int, ratio: float) -> None:
    """Bonferroni's power of each, and Holm's of all of them, with correlated estimates."""
    rng = np.random.default_rng(11)
    n, effect, n_runs = 200, 0.33, 6000
    n_treated = int(n * ratio)
    control = rng.standard_normal((n_runs, n)).mean(axis=1)
    treated = rng.standard_normal((n_runs, n_treatments)) / np.sqrt(n_treated) + effect
    error = np.sqrt(1 / n + 1 / n_treated)
    pvalues = 2 * stats.norm.sf(np.abs((treated - control[:, None]) / error))
    alpha = alpha_per_test(0.05, n_tests=n_treatments, correction="bonferroni")
    test = PlannedTest(alpha=alpha, ratio=ratio, distribution="normal")
    planned = power(mean_outcome(mean=0.0, std=1.0), test, effect=effect, n_control=n)
    steps = np.sort(pvalues, axis=1) < 0.05 / np.arange(n_treatments, 0, -1)
    holm = np.cumprod(steps, axis=1).sum(axis=1).mean() / n_treatments
    share = (1 / n) / error**2

    assert np.mean(pvalues < alpha) == pytest.approx(planned, abs=0.015)
    assert holm == pytest.approx(
        holm_power(effect / error, n_treatments=n_treatments, alpha=0.05, overlap=share), abs=0.015
    )
    assert holm > planned


def test_the_design_effect_by_icc_is_the_one_of_the_cluster_sums() -> None:
    """Shocks of variance 1 on noise of variance 4: icc 0.2, sizes as in the world."""
    rng = np.random.default_rng(3)
    world = WORLDS["clusters of unequal size"]
    assert world.sizes is not None
    sizes = world.sizes(rng, 400_000)
    by_icc = mean_outcome(mean=10.0, std=np.sqrt(5.0)).clustered(
        icc=0.2, mean_size=float(sizes.mean()), size_cv=float(sizes.std() / sizes.mean())
    )
    by_sums = planned_outcome(world, rng)

    assert by_sums.variance == pytest.approx(by_icc.variance, rel=0.03)
    assert by_sums.units_per_cluster == pytest.approx(by_icc.units_per_cluster, rel=0.02)
