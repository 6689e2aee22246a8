"""Planned power against the share of repeated experiments in which the analysis finds the effect.

What the plan knows comes from one large history through the same functions as a plan's; each
experiment is analysed by the functions of moments that a readout uses.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import block_diag

from causal.core.frames import Column
from causal.core.gram import Gram
from causal.experiments.cluster_df import ClusterSizes
from causal.experiments.clustering import Clustering, ClusterSums, one_way
from causal.experiments.levels import (
    Estimate,
    Levels,
    Spread,
    covariate_thetas,
    difference,
    joint_spread,
    lift,
    metric_levels,
    welch_spread,
)
from causal.experiments.metrics import Metric
from causal.experiments.planned_test import PlannedTest
from causal.experiments.power import power, sample_size
from causal.experiments.power_family import alpha_per_test, holm_power
from causal.experiments.power_history import Clusters, History, outcome_of
from causal.experiments.power_outcome import Outcome, Response, mean_outcome, proportion_outcome

pytestmark = pytest.mark.slow

N_EXPERIMENTS = 1500
N_MANY_EXPERIMENTS = 20_000
N_HISTORY = 200_000
BAND = 0.03

Array = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class World:
    """Draws units (n, p), or whole clusters of them, under an effect on the test's scale.

    Attributes:
        metric: The metric; its terms are the p columns.
        draw: Units of one arm.
        test: How they are tested.
        effect: The true effect.
        n: Units (or clusters) in control.
        response: Of the units to the treatment.
        sizes: Draws cluster sizes; `None`: independent units.
    """

    metric: Metric
    draw: Callable[[Rng, int, float], Array]
    test: PlannedTest
    effect: float
    n: int
    response: Response = "additive"
    sizes: Callable[[Rng, int], NDArray[np.int64]] | None = field(default=None)


def _mean(*covariates: str) -> Metric:
    return Metric(name="m", type="mean", column="y", covariates=covariates)


def _spend(rng: Rng, n: int, effect: float) -> Array:
    """Heavy-tailed, multiplied by the treatment, winsorised at a cap fixed before."""
    return np.minimum(rng.lognormal(2.0, 1.0, n), 60.0)[:, None] * (1 + effect)


def _bought(rng: Rng, n: int, effect: float) -> Array:
    return (rng.random(n) < 0.12 + effect).astype(float)[:, None]


def _bought_relative(rng: Rng, n: int, effect: float) -> Array:
    return (rng.random(n) < 0.3 * (1 + effect)).astype(float)[:, None]


def _spend_per_session(rng: Rng, n: int, effect: float) -> Array:
    sessions = 1 + rng.negative_binomial(2, 0.3, n)
    spend = rng.gamma(1.5 * sessions) * rng.lognormal(0.0, 0.4, n)
    return np.column_stack([spend * (1 + effect), sessions])


def _orders_with_history(rng: Rng, n: int, effect: float) -> Array:
    taste = np.clip(0.3 + 0.15 * rng.normal(size=n), 0.02, 0.9)
    before, sessions = 1 + rng.poisson(15, n), 1 + rng.poisson(15, n)
    return np.column_stack(
        [
            rng.binomial(sessions, np.clip(taste + effect, 0, 1)),
            sessions,
            rng.binomial(before, taste),
            before,
        ]
    ).astype(float)


def _with_covariate(rng: Rng, n: int, effect: float) -> Array:
    x = rng.gamma(4.0, 2.0, n)
    return np.column_stack([2.0 + 1.5 * x + rng.normal(0, 3.0, n) + 14.0 * effect, x])


def _few(rng: Rng, n: int, effect: float) -> Array:
    x = rng.normal(8.0, 2.0, n)
    return np.column_stack([x + rng.normal(effect, 2.0, n), x])


def _household(rng: Rng, n: int, effect: float) -> Array:
    return 10.0 + effect + rng.normal(0, 2.0, n)[:, None]


def _sizes(rng: Rng, n: int) -> NDArray[np.int64]:
    return 1 + rng.poisson(8.0, n) + 10 * (rng.random(n) < 0.2)


RATIO = Metric(name="m", type="ratio", numerator="orders", denominator="sessions")
RATIO_CUPED = Metric(
    name="m",
    type="ratio",
    numerator="orders",
    denominator="sessions",
    covariates=({"numerator": "pre_orders", "denominator": "pre_sessions"},),
)
BOUGHT = Metric(name="m", type="proportion", column="y")

WORLDS = {
    "winsorised mean, relative, unequal arms": World(
        metric=_mean(),
        draw=_spend,
        test=PlannedTest(scale="relative", ratio=0.5),
        effect=0.25,
        n=500,
        response="multiplicative",
    ),
    "mean, small arms": World(
        metric=_mean("x"),
        draw=_few,
        test=PlannedTest(alpha=0.1),
        effect=1.3,
        n=30,
    ),
    "proportion, one-sided": World(
        metric=BOUGHT,
        draw=_bought,
        test=PlannedTest(alternative="larger"),
        effect=0.035,
        n=900,
    ),
    "proportion, decrease, relative, three per one": World(
        metric=BOUGHT,
        draw=_bought_relative,
        test=PlannedTest(scale="relative", ratio=3.0),
        effect=-0.25,
        n=350,
    ),
    "proportion, non-inferiority": World(
        metric=BOUGHT,
        draw=_bought_relative,
        test=PlannedTest(scale="relative", alternative="larger", alpha=0.025, null=-0.15),
        effect=0.0,
        n=1300,
    ),
    "ratio, relative": World(
        metric=RATIO,
        draw=_spend_per_session,
        test=PlannedTest(scale="relative"),
        effect=0.13,
        n=400,
        response="multiplicative",
    ),
    "ratio, non-inferiority of a decrease": World(
        metric=RATIO,
        draw=_spend_per_session,
        test=PlannedTest(alternative="smaller", alpha=0.025, null=0.21),
        effect=0.0,
        n=400,
    ),
    "ratio with a ratio covariate": World(
        metric=RATIO_CUPED,
        draw=_orders_with_history,
        test=PlannedTest(),
        effect=0.025,
        n=350,
    ),
    "cuped, relative, large lift": World(
        metric=_mean("x"),
        draw=_with_covariate,
        test=PlannedTest(scale="relative", ratio=2.0, null=0.3, alternative="larger"),
        effect=0.42,
        n=80,
    ),
    "clusters of unequal size": World(
        metric=_mean(),
        draw=_household,
        test=PlannedTest(),
        effect=0.9,
        n=50,
        sizes=_sizes,
    ),
    "few clusters of unequal size": World(
        metric=_mean(),
        draw=_household,
        test=PlannedTest(ratio=0.5),
        effect=2.6,
        n=12,
        sizes=_sizes,
    ),
}


def _planned(world: World, rng: Rng) -> Outcome:
    """The outcome as a plan learns it from its history."""
    history, clusters = _arm(world, rng, n=N_HISTORY if world.sizes is None else 30_000, effect=0.0)
    gram = _gram(world, history)
    sums = {}
    if clusters is not None:
        gradient = world.metric.quotients[0].gradient(gram.mean)
        totals = np.bincount(clusters, (history - gram.mean) @ gradient)
        sizes = tuple(map(int, np.bincount(clusters)))
        sums["m"] = Clusters(
            sums=np.array([[totals @ totals]]), n_clusters=len(totals), sizes=sizes
        )
    found = History(n=gram.n, moments={"m": gram}, clusters=sums)
    return outcome_of(world.metric, found, response=world.response)


def _arm(
    world: World, rng: Rng, *, n: int, effect: float
) -> tuple[Array, NDArray[np.int64] | None]:
    """Rows of an arm of n units, or n clusters with a shared shock each."""
    if world.sizes is None:
        return world.draw(rng, n, effect), None
    clusters = np.repeat(np.arange(n), world.sizes(rng, n))
    rows = world.draw(rng, len(clusters), effect)
    return rows + rng.normal(0, 1.0, n)[clusters][:, None], clusters


def _gram(world: World, rows: Array) -> Gram:
    mean = rows.mean(axis=0)
    off = rows - mean
    terms = world.metric.terms
    return Gram(terms, len(rows), 0, 0, float(len(rows)), mean, off.T @ off)


def _is_found(world: World, rng: Rng) -> bool:
    """One experiment, analysed."""
    n_treated = round(world.n * world.test.ratio)
    control, first = _arm(world, rng, n=world.n, effect=0.0)
    treated, second = _arm(world, rng, n=n_treated, effect=world.effect)
    grams = (_gram(world, control), _gram(world, treated))
    quotients = world.metric.quotients
    thetas = covariate_thetas(*grams, quotients=quotients)
    levels = metric_levels(*grams, quotients=quotients, thetas=thetas)
    spread = welch_spread(levels, *grams)
    if first is not None and second is not None:
        spread = _clustered(levels, (control, treated), (first, second))
    read = difference if world.test.scale == "absolute" else lift
    return _rejects(read(levels, spread), world.test)


def _clustered(
    levels: Levels,
    rows: tuple[Array, Array],
    clusters: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Spread:
    """What the method `ab` makes of whole clusters of a mean."""
    grams, counts, gaps = [], [], []
    for part, labels in zip(rows, clusters, strict=True):
        y = part[:, 0]
        off = y - y.mean()
        n = float(len(y))
        grams.append(Gram((Column("y"),), len(y), 0, 0, n, y[:1] * 0, np.array([[off @ off]])))
        counts.append(np.bincount(labels).astype(float))
        gaps.append(np.bincount(labels, off) / n)
    units, contributions = (block_diag(*item) for item in (counts, gaps))
    sizes = ClusterSizes(units, units / units.sum(axis=1, keepdims=True))
    clustering = Clustering(
        ways=(one_way(ClusterSums(sizes, contributions[:, :, None]), "cr2"),), correction="cr2",
        degrees_of_freedom="satterthwaite", n_units=(grams[0].n, grams[1].n),
    )  # fmt: skip
    found = clustering.reference(np.array([-1.0, 1.0]), (grams[0], grams[1]))
    return joint_spread(levels, clustering.parts, found.dfs, ceiling=found.ceiling)


def _rejects(found: Estimate, test: PlannedTest) -> bool:
    statistic = (found.value - test.null) / found.std_error
    if test.alternative == "two_sided":
        return bool(2 * stats.t.sf(abs(statistic), found.df) < test.alpha)
    sign = 1.0 if test.alternative == "larger" else -1.0
    return bool(stats.t.sf(sign * statistic, found.df) < test.alpha)


def _planned_and_found(name: str, n_experiments: int) -> tuple[float, float]:
    """Planned power, and the share of experiments that find the effect."""
    world = WORLDS[name]
    rng = np.random.default_rng(20261121)
    outcome = _planned(world, rng)
    per_cluster = outcome.units_per_cluster or 1.0
    planned = power(outcome, world.test, effect=world.effect, n_control=world.n * per_cluster)
    return planned, float(np.mean([_is_found(world, rng) for _ in range(n_experiments)]))


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
    by_sums = _planned(world, rng)

    assert by_sums.variance == pytest.approx(by_icc.variance, rel=0.03)
    assert by_sums.units_per_cluster == pytest.approx(by_icc.units_per_cluster, rel=0.02)
