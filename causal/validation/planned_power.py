"""The power calculator on trial: planned power against the share of experiments that find it.

What a plan knows comes from one large history through the same functions as a plan's; each
experiment is analysed by the functions of moments that a readout uses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from causal.core.frames import Column
from causal.core.gram import Array, Gram
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
from causal.experiments.metrics import ColumnRatio, Metric
from causal.experiments.planned_test import PlannedTest
from causal.experiments.power import power
from causal.experiments.power_history import Clusters, History, outcome_of
from causal.experiments.power_outcome import Outcome, Response
from causal.validation import rates
from causal.validation.rates import Range, Rate, Subject
from causal.validation.replication import Findings, Size, Workers, generator, spans

STUDY = "planned_power"
SLACK = 0.03
"""How far planned power may lie from that found."""

Rng = np.random.Generator
Labels = NDArray[np.int64]

_N_HISTORY, _N_HISTORY_CLUSTERS = 200_000, 30_000
_EXPERIMENTS = 2
_PIECE = 250
_LARGE_SHARE = 0.2


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
    sizes: Callable[[Rng, int], Labels] | None = field(default=None)


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


def _sizes(rng: Rng, n: int) -> Labels:
    return 1 + rng.poisson(8.0, n) + 10 * (rng.random(n) < _LARGE_SHARE)


RATIO = Metric(name="m", type="ratio", numerator="orders", denominator="sessions")
RATIO_CUPED = Metric(
    name="m",
    type="ratio",
    numerator="orders",
    denominator="sessions",
    covariates=(ColumnRatio(numerator="pre_orders", denominator="pre_sessions"),),
)
BOUGHT = Metric(name="m", type="proportion", column="y")

WORLDS: Mapping[str, World] = {
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


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A piece of work: some experiments of a world.

    Attributes:
        world: Name of the world.
        numbers: Numbers of the experiments.
        seed: Seed of the study.
    """

    world: str
    numbers: range
    seed: int


def study(size: Size, workers: Workers) -> Findings:
    """Planned and found power of every world.

    Args:
        size: How much is simulated.
        workers: Who runs it.
    """
    trials = [
        Trial(world=name, numbers=part, seed=size.seed)
        for name in WORLDS
        for part in spans(0, _EXPERIMENTS * size.replications, length=_PIECE)
    ]
    found: dict[str, list[NDArray[np.bool_]]] = {}
    for trial, part in zip(trials, workers(run_trial, trials), strict=True):
        found.setdefault(trial.world, []).append(part)
    planned = workers(foretold, [(name, size.seed) for name in WORLDS])
    return Findings(
        rates=rates.frame(
            [
                _rate(name, np.concatenate(found[name]), expected, seed=size.seed)
                for name, expected in zip(WORLDS, planned, strict=True)
            ]
        )
    )


def run_trial(trial: Trial) -> NDArray[np.bool_]:
    """Whether each of some experiments finds the effect."""
    world = WORLDS[trial.world]
    return np.array(
        [
            is_found(world, generator(trial.seed, STUDY, trial.world, number))
            for number in trial.numbers
        ]
    )


def foretold(named: tuple[str, int]) -> float:
    """The power that is planned for a world from its history; its name and the study's seed."""
    name, seed = named
    world = WORLDS[name]
    outcome = planned_outcome(world, generator(seed, STUDY, name, "history"))
    n_control = world.n * (outcome.units_per_cluster or 1.0)
    return power(outcome, world.test, effect=world.effect, n_control=n_control)


def _rate(name: str, found: NDArray[np.bool_], expected: float, *, seed: int) -> Rate:
    world = WORLDS[name]
    scale, metric = world.test.scale, world.metric
    subject = Subject(
        study=STUDY, metric_type=metric.type, estimator="cuped" if metric.covariates else "raw",
        scenario=f"{name}; effect {world.effect:g} ({scale}), planned power {expected:.1%}",
        seed=seed,
    )  # fmt: skip
    promised = Range.around(expected, slack=SLACK)
    return rates.share(subject, rates.POWER, found, promised=promised)


def planned_outcome(world: World, rng: Rng) -> Outcome:
    """The outcome as a plan learns it from its history.

    Args:
        world: The world.
        rng: Draws the history: 200,000 units, or 30,000 clusters.
    """
    n = _N_HISTORY if world.sizes is None else _N_HISTORY_CLUSTERS
    history, clusters = _arm(world, rng, n=n, effect=0.0)
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


def _arm(world: World, rng: Rng, *, n: int, effect: float) -> tuple[Array, Labels | None]:
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


def is_found(world: World, rng: Rng) -> bool:
    """Whether one experiment, drawn and analysed, finds the effect."""
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
    clusters: tuple[Labels, Labels],
) -> Spread:
    """What the method `ab` makes of whole clusters of a mean."""
    from scipy.linalg import block_diag

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
    from scipy import stats

    if test.alternative == "two_sided":
        return bool(2 * stats.t.sf(abs(statistic), found.df) < test.alpha)
    sign = 1.0 if test.alternative == "larger" else -1.0
    return bool(stats.t.sf(sign * statistic, found.df) < test.alpha)
