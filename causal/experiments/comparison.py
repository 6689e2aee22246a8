"""One treatment against control on one metric: raw and covariate-adjusted effects."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from causal.core import inference
from causal.core.errors import DataError
from causal.core.frames import Level
from causal.core.gram import Array, Gram
from causal.core.result import Effect, Estimand, Scale
from causal.experiments.arms import Arms
from causal.experiments.bootstrap_intervals import Draws, summarise
from causal.experiments.clustering import Clustering, Reference
from causal.experiments.levels import (
    CONTROL,
    TREATMENT,
    Estimate,
    Levels,
    Spread,
    Theta,
    covariate_thetas,
    difference,
    joint_spread,
    lift,
    lift_interval,
    metric_levels,
    pooled_spread,
    unit_std,
    welch_satterthwaite,
    welch_spread,
)
from causal.experiments.metrics import Metric

Variance = Literal["welch", "pooled"]
RelativeInterval = Literal["delta", "fieller"]

_NO_VARIANCE = 1e-7
"""A standard error below this share of a raw one is rounding."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How effects are estimated: options of the method that all comparisons share.

    Attributes:
        confidence_level: Nominal coverage of the intervals.
        variance: Of independent units; ignored for clustered comparisons.
        theta: Which covariance the CUPED coefficients come from.
        relative_interval: How the interval of a lift is made.
        population: Size of the finite population of each arm, by the arm's text; empty: infinite.
    """

    confidence_level: float
    variance: Variance = "welch"
    theta: Theta = "total"
    relative_interval: RelativeInterval = "delta"
    population: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Joint uncertainty of both arms' mean vectors where they are not two plain samples.

    Attributes:
        estimator: Name of what this makes of the difference, such as `cluster_robust`.
        parts: Independent parts of the covariance of both mean vectors, each (2p, 2p).
        dfs: Degrees of freedom of each part; empty where they depend on what is estimated.
        clustering: What they then depend on: clusters.
    """

    estimator: str
    parts: tuple[Array, ...]
    dfs: tuple[float, ...] = ()
    clustering: Clustering | None = None

    @property
    def n_clusters(self) -> int | None:
        """Clusters behind it, if there are clusters."""
        return None if self.clustering is None else self.clustering.n_clusters

    def reference(self, gradient: Array, moments: tuple[Gram, Gram]) -> Reference:
        """Degrees of freedom of the parts of a linear combination of both mean vectors.

        Args:
            gradient: Its coefficients, shape (2p,).
            moments: Moments of control and treatment.
        """
        if self.clustering is None:
            return Reference(self.dfs)
        return self.clustering.reference(gradient, moments)

    def df(self, gradient: Array, moments: tuple[Gram, Gram]) -> float:
        """Degrees of freedom of a linear combination; arguments as for `reference`."""
        found = self.reference(gradient, moments)
        variances = [float(gradient @ part @ gradient) for part in self.parts]
        return min(welch_satterthwaite(variances, found.dfs), found.ceiling)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One treatment against control on one metric.

    Attributes:
        metric: The metric.
        variants: Control and treatment.
        moments: Moments of the metric's p terms in control and treatment.
        joint: Uncertainty of both mean vectors; `None`: two samples of independent units.
        segment: The slice of units, such as `tier=gold`; empty: all.
    """

    metric: Metric
    variants: tuple[Level, Level]
    moments: tuple[Gram, Gram]
    joint: Joint | None = None
    segment: str = ""

    @property
    def term(self) -> str:
        """Which arms are compared, and where."""
        within = f" | {self.segment}" if self.segment else ""
        return f"{self.variants[TREATMENT]} - {self.variants[CONTROL]}{within}"

    @property
    def n_clusters(self) -> int | None:
        """Clusters behind the uncertainty."""
        return None if self.joint is None else self.joint.n_clusters


@dataclass(frozen=True)
class Readout:
    """Levels of a comparison, their uncertainty and the effects that follow.

    Attributes:
        comparison: What is compared.
        estimator: How.
        levels: The levels of both arms.
        spread: Their uncertainty.
        effects: On the absolute and, where there is one, the relative scale.
        draws: Bootstrapped levels that intervals and tests are made of; `None`: by formula.
    """

    comparison: Comparison
    estimator: str
    levels: Levels
    spread: Spread
    effects: tuple[Effect, ...]
    draws: Draws | None = None


def comparisons(
    metric: Metric, arms: Arms, clusterings: Sequence[Clustering] | None
) -> list[Comparison]:
    """Every treatment against control.

    Args:
        metric: The metric.
        arms: The moments of all arms.
        clusterings: One for each treatment; `None`: independent units.
    """
    moments = arms.moments[metric.name]
    return [
        Comparison(
            metric=metric,
            variants=(arms.levels[0], arms.levels[arm]),
            moments=(moments[0], moments[arm]),
            joint=None if clusterings is None else _clustered(clusterings[arm - 1]),
        )
        for arm in range(1, len(arms.levels))
    ]


def _clustered(clustering: Clustering) -> Joint:
    return Joint(estimator="cluster_robust", parts=clustering.parts, clustering=clustering)


def raw_readout(comparison: Comparison, how: Inference) -> Readout:
    """Without covariates.

    Raises:
        DataError: The metric does not vary.
    """
    name = how.variance if comparison.joint is None else comparison.joint.estimator
    return _readout(comparison, how, estimator=name, thetas=np.zeros(0))


def adjusted_readout(comparison: Comparison, how: Inference) -> Readout:
    """Adjusted for the metric's covariates (CUPED).

    Raises:
        DataError: A covariate is constant or collinear, or explains the metric exactly.
    """
    control, treatment = comparison.moments
    thetas = covariate_thetas(
        control, treatment, quotients=comparison.metric.quotients, theta=how.theta
    )
    is_plain = comparison.joint is None or comparison.joint.n_clusters is not None
    within = "" if is_plain or comparison.joint is None else f"{comparison.joint.estimator}_"
    return _readout(comparison, how, estimator=f"{within}cuped", thetas=thetas)


def _readout(comparison: Comparison, how: Inference, *, estimator: str, thetas: Array) -> Readout:
    control, treatment = comparison.moments
    levels = metric_levels(control, treatment, quotients=comparison.metric.quotients, thetas=thetas)
    spread = _spread(comparison, levels, how)
    _check_spread(comparison, levels, spread)
    bare = Readout(comparison, estimator, levels, spread, ())
    return dataclasses.replace(bare, effects=effects_of(bare, how))


def effects_of(
    readout: Readout, how: Inference, *, confidence_level: float | None = None
) -> tuple[Effect, ...]:
    """The effects of a readout on the scales that it has.

    Args:
        readout: Levels and their uncertainty.
        how: How intervals are made.
        confidence_level: Coverage of the intervals if another one than that of `how` is wanted.
    """
    level = how.confidence_level if confidence_level is None else confidence_level
    if readout.draws is not None:
        return _bootstrap_effects(readout, readout.draws, level)
    absolute = _effect(readout, "absolute", difference(readout.levels, readout.spread), level)
    if readout.levels.value[CONTROL] == 0:
        return (absolute,)
    lifted = lift(readout.levels, readout.spread)
    if lifted.std_error == 0:
        # The treatment is zero throughout, such as a rare event that no unit had.
        return (absolute,)
    relative = _effect(readout, "relative", lifted, level)
    if how.relative_interval == "delta":
        return absolute, relative
    ends = lift_interval(readout.levels, readout.spread, confidence_level=level)
    if ends is None:
        return (absolute,)
    # Fieller's set inverts the test of the difference, so that is the test to report beside it.
    relative = dataclasses.replace(
        relative,
        ci_lower=ends[0],
        ci_upper=ends[1],
        statistic=absolute.statistic,
        pvalue=absolute.pvalue,
    )
    return absolute, relative


def with_draws(readout: Readout, draws: Draws | None, how: Inference) -> Readout:
    """The same estimates with the uncertainty of a bootstrap.

    Args:
        readout: By formula.
        draws: Bootstrapped levels of both arms; `None`: the readout stays as it is.
        how: How intervals are made.
    """
    if draws is None:
        return readout
    plain = (how.variance, "cluster_robust")
    name = "bootstrap" if readout.estimator in plain else f"{readout.estimator}_bootstrap"
    spread = Spread((draws.covariance,), (math.inf,))
    bare = dataclasses.replace(readout, estimator=name, spread=spread, draws=draws)
    return dataclasses.replace(bare, effects=effects_of(bare, how))


def _bootstrap_effects(readout: Readout, draws: Draws, level: float) -> tuple[Effect, ...]:
    """A lift has no interval where the control level comes to zero in some replicate."""
    control, treatment = map(float, readout.levels.value)
    if not draws.has_variance:
        raise DataError(
            f"{readout.comparison.metric.name}: every replicate has the same difference, so there "
            "is no error to report",
            given=f"{treatment - control:g}",
            allowed="more rows, or for rounded values their resolution",
        )
    scales: list[tuple[Scale, float, Array]] = [("absolute", treatment - control, draws.difference)]
    if draws.has_lift(control):
        scales.append(("relative", treatment / control - 1.0, draws.lift))
    return tuple(
        _bootstrap_effect(readout, scale, (value, replicates), draws, level)
        for scale, value, replicates in scales
    )


def _bootstrap_effect(
    readout: Readout, scale: Scale, found: tuple[float, Array], draws: Draws, level: float
) -> Effect:
    value, replicates = found
    summary = summarise(replicates, value, confidence_level=level, interval=draws.interval)
    plain = _effect(readout, scale, Estimate(value, summary.std_error, math.inf), level)
    return dataclasses.replace(
        plain,
        df=None,
        ci_lower=summary.ci_lower,
        ci_upper=summary.ci_upper,
        pvalue=summary.pvalue,
    )


def _effect(readout: Readout, scale: Scale, found: Estimate, level: float) -> Effect:
    comparison = readout.comparison
    control, treatment = comparison.moments
    estimand: Estimand = "cate" if comparison.segment else "ate"
    return inference.effect(
        estimator=readout.estimator,
        estimand=estimand,
        metric=comparison.metric.name,
        term=comparison.term,
        scale=scale,
        estimate=found.value,
        std_error=found.std_error,
        df=found.df,
        confidence_level=level,
        n_treated=treatment.n,
        n_control=control.n,
        n_clusters=comparison.n_clusters,
    )


def _spread(comparison: Comparison, levels: Levels, how: Inference) -> Spread:
    control, treatment = comparison.moments
    if comparison.joint is not None:
        steps = [levels.gradient(arm) for arm in (CONTROL, TREATMENT)]
        gradient = np.hstack([step[TREATMENT] - step[CONTROL] for step in steps])
        found = comparison.joint.reference(gradient, comparison.moments)
        return joint_spread(levels, comparison.joint.parts, found.dfs, ceiling=found.ceiling)
    unseen = _unseen(comparison, how.population)
    if how.variance == "pooled":
        return pooled_spread(levels, control, treatment, unseen=unseen)
    return welch_spread(levels, control, treatment, unseen=unseen)


def _unseen(comparison: Comparison, population: Mapping[str, int]) -> tuple[float, float]:
    """Share of each arm's finite population that is not in the data."""
    if not population:
        return 1.0, 1.0
    shares = []
    for level, gram in zip(comparison.variants, comparison.moments, strict=True):
        if str(level) not in population:
            raise DataError(
                "this variant has no population size", given=level, allowed=list(population)
            )
        size = population[str(level)]
        if gram.n >= size:
            raise DataError(
                f"the population of variant {level} must be larger than its sample",
                given=f"{size:,} of which {gram.n:,} are observed",
            )
        shares.append(1.0 - gram.n / size)
    return shares[0], shares[1]


def _check_spread(comparison: Comparison, levels: Levels, spread: Spread) -> None:
    """A standard error that is rounding only is no uncertainty to report."""
    found = difference(levels, spread)
    raw = [unit_std(gram, comparison.metric.quotients[0]) for gram in comparison.moments]
    smallest = max(raw) * _NO_VARIANCE / np.sqrt(sum(gram.n for gram in comparison.moments))
    if not found.std_error > smallest:
        raise DataError(
            f"{comparison.metric.name}: {comparison.term} has no variance left: "
            f"{_why_no_variance(levels, spread)}"
        )


def _why_no_variance(levels: Levels, spread: Spread) -> str:
    if spread.variance(np.array([-1.0, 1.0])) < 0:
        return "the two-way clustered variance is negative, there are too few clusters for it"
    return "the covariates explain it exactly" if len(levels.thetas) else "zero variance"


def thetas(comparison: Comparison, readout: Readout) -> dict[str, float]:
    """The coefficients of the covariates, named for a result's parameters."""
    names = [quotient.name for quotient in comparison.metric.quotients[1:]]
    return {
        f"theta.{comparison.metric.name}.{comparison.variants[TREATMENT]}.{name}": float(theta)
        for name, theta in zip(names, readout.levels.thetas, strict=True)
    }


def arm_rows(
    comparison: Comparison, raw: Readout, adjusted: Readout | None
) -> list[dict[str, object]]:
    """Level of each arm of a comparison; without covariates the adjusted level is the raw one."""
    best = adjusted or raw
    outcome = comparison.metric.quotients[0]
    return [
        {
            "metric": comparison.metric.name,
            "term": comparison.term,
            "variant": str(comparison.variants[arm]),
            "n": comparison.moments[arm].n,
            "mean": float(raw.levels.value[arm]),
            "std": unit_std(comparison.moments[arm], outcome),
            "std_error": _level_error(raw, arm),
            "adjusted_mean": float(best.levels.value[arm]),
            "adjusted_std_error": _level_error(best, arm),
        }
        for arm in (CONTROL, TREATMENT)
    ]


def _level_error(readout: Readout, arm: int) -> float:
    """Standard error of one arm's level; two-way clusters may leave it none."""
    variance = float(readout.spread.covariance[arm, arm])
    return math.sqrt(variance) if variance >= 0 else math.nan
