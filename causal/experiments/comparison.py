"""One treatment against control on one metric: raw and covariate-adjusted effects."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal.core import inference
from causal.core.errors import DataError
from causal.core.frames import Level
from causal.core.gram import Array, Gram
from causal.core.result import Effect, Scale
from causal.experiments.arms import Arms, Clustering
from causal.experiments.levels import (
    CONTROL,
    TREATMENT,
    Estimate,
    Levels,
    Spread,
    Theta,
    clustered_spread,
    covariate_thetas,
    difference,
    lift,
    metric_levels,
    pooled_spread,
    unit_std,
    welch_spread,
)
from causal.experiments.metrics import Metric

Variance = Literal["welch", "pooled"]

_NO_VARIANCE = 1e-7
"""A standard error below this share of a raw one is rounding."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How effects are estimated: options of the method that all comparisons share.

    Attributes:
        confidence_level: Nominal coverage of the intervals.
        variance: Of independent units; ignored for clustered comparisons.
        theta: Which covariance the CUPED coefficients come from.
    """

    confidence_level: float
    variance: Variance = "welch"
    theta: Theta = "total"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One treatment against control on one metric.

    Attributes:
        metric: The metric.
        variants: Control and treatment.
        moments: Moments of the metric's p terms in control and treatment.
        covariance: Clustered covariance of both mean vectors (2p, 2p); `None`: independent units.
        n_clusters: Clusters behind it.
    """

    metric: Metric
    variants: tuple[Level, Level]
    moments: tuple[Gram, Gram]
    covariance: Array | None
    n_clusters: int | None

    @property
    def term(self) -> str:
        """Which arms are compared."""
        return f"{self.variants[TREATMENT]} - {self.variants[CONTROL]}"


@dataclass(frozen=True)
class Readout:
    """Levels of a comparison, their uncertainty and the effects that follow."""

    levels: Levels
    spread: Spread
    effects: tuple[Effect, ...]


def comparisons(metric: Metric, arms: Arms, clustering: Clustering | None) -> list[Comparison]:
    """Every treatment against control.

    Args:
        metric: The metric.
        arms: The moments of all arms.
        clustering: Clustered covariance of the arms' means; `None`: independent units.
    """
    moments = arms.moments[metric.name]
    return [
        Comparison(
            metric=metric,
            variants=(arms.levels[0], arms.levels[arm]),
            moments=(moments[0], moments[arm]),
            covariance=None if clustering is None else clustering.pair(arm),
            n_clusters=None if clustering is None else clustering.n_clusters,
        )
        for arm in range(1, len(arms.levels))
    ]


def raw_readout(comparison: Comparison, how: Inference) -> Readout:
    """Without covariates.

    Raises:
        DataError: The metric does not vary.
    """
    name = "cluster_robust" if comparison.covariance is not None else how.variance
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
    return _readout(comparison, how, estimator="cuped", thetas=thetas)


def _readout(comparison: Comparison, how: Inference, *, estimator: str, thetas: Array) -> Readout:
    control, treatment = comparison.moments
    levels = metric_levels(control, treatment, quotients=comparison.metric.quotients, thetas=thetas)
    spread = _spread(comparison, levels, how)
    _check_spread(comparison, levels, spread)
    found: list[tuple[Scale, Estimate]] = [("absolute", difference(levels, spread))]
    if levels.value[CONTROL] != 0:
        found.append(("relative", lift(levels, spread)))
    effects = tuple(
        inference.effect(
            estimator=estimator,
            estimand="ate",
            metric=comparison.metric.name,
            term=comparison.term,
            scale=scale,
            estimate=item.value,
            std_error=item.std_error,
            df=item.df,
            confidence_level=how.confidence_level,
            n_treated=treatment.n,
            n_control=control.n,
            n_clusters=comparison.n_clusters,
        )
        for scale, item in found
    )
    return Readout(levels, spread, effects)


def _spread(comparison: Comparison, levels: Levels, how: Inference) -> Spread:
    control, treatment = comparison.moments
    if comparison.covariance is not None and comparison.n_clusters is not None:
        return clustered_spread(levels, comparison.covariance, n_clusters=comparison.n_clusters)
    if how.variance == "pooled":
        return pooled_spread(levels, control, treatment)
    return welch_spread(levels, control, treatment)


def _check_spread(comparison: Comparison, levels: Levels, spread: Spread) -> None:
    """A standard error that is rounding only is no uncertainty to report."""
    found = difference(levels, spread)
    raw = [unit_std(gram, comparison.metric.quotients[0]) for gram in comparison.moments]
    smallest = max(raw) * _NO_VARIANCE / np.sqrt(sum(gram.n for gram in comparison.moments))
    if not found.std_error > smallest:
        what = "the covariates explain it exactly" if len(levels.thetas) else "zero variance"
        raise DataError(f"{comparison.metric.name}: {comparison.term} has no variance left: {what}")


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
            "std_error": float(np.sqrt(raw.spread.covariance[arm, arm])),
            "adjusted_mean": float(best.levels.value[arm]),
            "adjusted_std_error": float(np.sqrt(best.spread.covariance[arm, arm])),
        }
        for arm in (CONTROL, TREATMENT)
    ]
