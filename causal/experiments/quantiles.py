"""Quantiles of a metric by arm, with an error, from histograms and moments of an indicator.

The quantile is the inverse of the distribution function F of an arm's rows. Its error is that of F
at the quantile over the density there: `F(q)` is a mean of indicators `1{y <= q}`, so its variance
is that of any other mean, clustered if clusters were randomised. The density comes as
in Woodruff's interval from the distance between the quantiles at `p - z s` and `p + z s`, s being
the error of F.

Rows need not be the units of randomisation. Latencies of pages are rows whose number per user
varies; clustered by user, `F(q)` is the ratio of two sums over users and its variance that of the
delta method.

Sources: Woodruff (1952), "Confidence intervals for medians and other position measures"; Francisco
and Fuller (1991), "Quantile estimation with a complex survey design"; Deng, Knoblich and Lu (2018),
"Applying the delta method in metric analytics: a practical guide with novel ideas".
"""

import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import PrivateAttr

from causal.core.errors import DataError
from causal.core.frames import Between, Column, Condition, FrameRequest, Level, Term, linear
from causal.core.gram import Array, Gram, Key
from causal.core.inference import critical_value
from causal.experiments.arms import (
    MIN_UNITS,
    Arms,
    Design,
    ask_moments,
)
from causal.experiments.cluster_sums import Clusterings, Clusters, ask_clustering
from causal.experiments.clustering import Clustering
from causal.experiments.comparison import Comparison, comparisons
from causal.experiments.influence import moments_of, named
from causal.experiments.metrics import Metric
from causal.experiments.order_statistics import (
    Histogram,
    OrderStatistic,
    Values,
    ask_histogram,
    ask_order_statistics,
    rank_of,
)

ESTIMATOR = "quantile"

_REACH = critical_value(0.95)
"""Standard errors of F around the quantile within which the arm must have rows."""

_WIDTH = 1.3
"""Standard errors of F on either side over which the density is taken.

Woodruff's interval has 1.96. In the tail, where the distance between quantiles grows, that is too
wide: of 600 Pareto rows the 99th percentile's intervals at 95 % then cover 99 %, here 97 %; with
2,000 rows, 96.8 % and 96 %. In the middle of a distribution the width hardly matters.
"""

_ON_GRID = 1e-6


@dataclass(frozen=True, kw_only=True)
class Position:
    """A point of an arm's distribution function.

    Attributes:
        share: F at the point.
        value: The point.
        held: Value of the rows that it was found at.
        weight: Share of the rows at `held` that are counted as below the point.
        tied: Share of all rows that have the value `held`.
    """

    share: float
    value: float
    held: float
    weight: float
    tied: float


def position(found: OrderStatistic, *, n: int, share: float, resolution: float | None) -> Position:
    """A quantile from the order statistic at its rank.

    Args:
        found: The order statistic.
        n: Rows with a value.
        share: The share wanted.
        resolution: Step to which values were rounded. A value v then stands for the values between
            half a step below and above, spread evenly, and the quantile of these is taken (as
            `statistics.median_grouped` does for the median). `None`: values are what they are.
    """
    tied = found.n_equal / n
    if resolution is None:
        rank = rank_of(share, n)
        return Position(share=rank / n, value=found.value, held=found.value, weight=1.0, tied=tied)
    weight = (n * share - found.n_below) / found.n_equal
    value = found.value + resolution * (weight - 0.5)
    return Position(share=share, value=value, held=found.value, weight=weight, tied=tied)


def slope(lower: Position, upper: Position) -> float:
    """Change of the quantile per share: one over the density between two points."""
    return (upper.value - lower.value) / (upper.share - lower.share)


def share_variance(at: Position, *, share: float, n: int) -> float:
    """Variance of F at a quantile over independent rows, whose value there is the share.

    Rows that are counted in part (rounded values) vary less than those counted whole.
    """
    return (share * (1.0 - share) - at.weight * (1.0 - at.weight) * at.tied) / n


def ends(share: float, std_error: float, n: int) -> tuple[float, float] | None:
    """Shares between which the density is taken; `None`: too near to the end of the data."""
    reach = _REACH * std_error
    if not ((share - reach) * n > 1.0 and (1.0 - share - reach) * n > 0.0):
        return None
    return share - _WIDTH * std_error, share + _WIDTH * std_error


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """What the quantile metrics add to an experiment.

    Attributes:
        moments: By metric, one Gram per arm: its mean is the quantile, its covariance that of the
            rows' influence on the quantile.
        comparisons: By metric, every treatment against control.
        clusterings: By metric, the clustered uncertainty of every comparison.
    """

    moments: Mapping[str, tuple[Gram, ...]]
    comparisons: Mapping[str, list[Comparison]]
    clusterings: Clusterings


def ask_quantiles(
    design: Design,
    arms: Arms,
    metrics: Sequence[Metric],
    *,
    clusters: Clusters | None,
) -> Generator[FrameRequest, pd.DataFrame, Quantiles]:
    """The quantiles of every arm and their covariance.

    Args:
        design: Who was randomised to what.
        arms: The arms that are compared.
        metrics: The quantile metrics.
        clusters: What was randomised, if not the rows.

    Raises:
        DataError: An arm's rows cannot carry the quantile.
    """
    moments: dict[str, tuple[Gram, ...]] = {}
    pairs: dict[str, list[Comparison]] = {}
    clusterings: dict[str, tuple[Clustering, ...]] = {}
    for metric in metrics:
        search = QuantileSearch(design, arms, metric)
        start = yield from search.ask_start()
        if clusters is not None:
            found, variances, clusterings[metric.name] = yield from _ask_clustered(
                search, start, clusters=clusters
            )
        else:
            found, variances = yield from _ask_independent(search, start)
        moments[metric.name] = tuple(
            moments_of(
                metric,
                point.value,
                variance=float(variance),
                n=start[level,].n,
                n_missing=start[level,].n_missing,
            )
            for level, point, variance in zip(arms.levels, found, variances, strict=True)
        )
        mine = dataclasses.replace(arms, moments={metric.name: moments[metric.name]})
        pairs[metric.name] = [
            named(item, ESTIMATOR)
            for item in comparisons(metric, mine, clusterings.get(metric.name))
        ]
    return Quantiles(moments=moments, comparisons=pairs, clusterings=clusterings)


@dataclass(frozen=True)
class QuantileSearch:
    """Where the quantiles of one metric are looked for.

    Attributes:
        design: Who was randomised to what.
        arms: The arms that are compared.
        metric: The metric.
    """

    design: Design
    arms: Arms
    metric: Metric

    @property
    def share(self) -> float:
        """Which quantile."""
        return float(self.metric.quantile or 0.5)

    @property
    def values(self) -> Values:
        """The rows of the arms."""
        return Values(
            term=Column(str(self.metric.column)),
            by=(self.design.variant,),
            where=(*self.design.where, Condition(self.design.variant, self.arms.levels)),
        )

    def ask_start(self) -> Generator[FrameRequest, pd.DataFrame, dict[Key, Histogram]]:
        """Rows and range of every arm."""
        start = yield from ask_histogram(self.values)
        for level in self.arms.levels:
            arm = start[level,]
            if arm.n < MIN_UNITS:
                raise DataError(
                    f"{self.metric.name}: variant {level} has fewer than {MIN_UNITS} rows with a "
                    "value",
                    given=f"{arm.n} used, {arm.n_missing} missing",
                )
        return start

    def ask(
        self, start: Mapping[Key, Histogram], shares: Mapping[Level, Sequence[float]]
    ) -> Generator[FrameRequest, pd.DataFrame, dict[Level, list[Position]]]:
        """The quantiles at some shares of each arm."""
        ranks: dict[Key, list[int]] = {
            (level,): [rank_of(share, start[level,].n) for share in some]
            for level, some in shares.items()
        }
        found = yield from ask_order_statistics(self.values, ranks, start=start)
        out: dict[Level, list[Position]] = {}
        for level, some in shares.items():
            n = start[level,].n
            held = [found[(level,), rank_of(share, n)] for share in some]
            self._check_grid([item.value for item in held])
            out[level] = [
                position(item, n=n, share=share, resolution=self.metric.resolution)
                for item, share in zip(held, some, strict=True)
            ]
        return out

    def slopes(
        self,
        found: Mapping[Level, Position],
        outer: Mapping[Level, list[Position]],
        errors: Mapping[Level, float],
    ) -> Array:
        """Change of each arm's quantile per share, shape (k,)."""
        out = []
        for level in self.arms.levels:
            lower, upper = outer[level]
            self._check_ties(level, found[level], errors[level])
            out.append(slope(lower, upper))
        return np.array(out)

    def ends(self, level: Level, std_error: float, n: int) -> tuple[float, float]:
        """Shares between which an arm's density is taken."""
        found = ends(self.share, std_error, n)
        if found is None:
            raise DataError(
                f"{self.metric.name}: variant {level} has too few rows beyond its quantile "
                f"{self.share:g} for an error",
                given=f"{n:,} rows, F known to ± {_REACH * std_error:.2g}",
                allowed="more rows, or a quantile nearer to the median",
            )
        return found

    def _check_ties(self, level: Level, at: Position, std_error: float) -> None:
        if self.metric.resolution is None and at.tied > std_error:
            raise DataError(
                f"{self.metric.name}: values of variant {level} are rounded, so its quantile "
                "moves in steps and has no standard error",
                given=f"{at.tied:.2%} of the rows are {at.held:g}",
                allowed="resolution: the step that values are rounded to",
            )

    def _check_grid(self, values: Sequence[float]) -> None:
        if self.metric.resolution is None:
            return
        steps = np.array(values) / self.metric.resolution
        off = np.abs(steps - np.round(steps)) > _ON_GRID * np.maximum(np.abs(steps), 1.0)
        if off.any():
            raise DataError(
                f"{self.metric.name}: values are no multiples of the resolution",
                given=f"{np.array(values)[off][0]:g}",
                allowed=f"multiples of {self.metric.resolution:g}",
            )


def _ask_independent(
    search: QuantileSearch, start: Mapping[Key, Histogram]
) -> Generator[FrameRequest, pd.DataFrame, tuple[list[Position], Array]]:
    """Quantiles and their variances over independent rows, control first."""
    levels, share = search.arms.levels, search.share
    sizes = {level: start[level,].n for level in levels}
    errors = {level: math.sqrt(share * (1.0 - share) / n) for level, n in sizes.items()}
    outer = {level: search.ends(level, errors[level], n) for level, n in sizes.items()}
    wanted = {level: [share, *outer[level]] for level in levels}
    points = yield from search.ask(start, wanted)
    found = {level: points[level][0] for level in levels}
    slopes = search.slopes(found, {level: points[level][1:] for level in levels}, errors)
    variances = [share_variance(found[level], share=share, n=sizes[level]) for level in levels]
    return list(found.values()), slopes**2 * np.array(variances)


class _Below(Metric):
    """The share of rows below each arm's quantile: one indicator per arm, a metric of moments."""

    _indicators: tuple[Term, ...] = PrivateAttr(default=())

    @property
    def terms(self) -> tuple[Term, ...]:
        """The indicators."""
        return self._indicators

    @property
    def _outcome_terms(self) -> tuple[Term, ...]:
        return self._indicators[:1]

    @classmethod
    def of(cls, metric: Metric, points: Sequence[Position]) -> "_Below":
        """The indicators of arms' quantiles, in the order of the arms."""
        column = Column(str(metric.column))
        out = cls(name=metric.name, type="mean", column=metric.column)
        half = (metric.resolution or 0.0) / 2.0
        # A resolution's step lies half above and half below the value that rows hold.
        terms = [
            linear(
                [
                    (Between(column, high=point.held + half), point.weight),
                    (Between(column, high=point.held - half), 1.0 - point.weight),
                ]
            )
            if half
            else Between(column, high=point.held)
            for point in points
        ]
        out._indicators = tuple(dict.fromkeys(terms))
        return out


def _ask_clustered(
    search: QuantileSearch,
    start: Mapping[Key, Histogram],
    *,
    clusters: Clusters,
) -> Generator[FrameRequest, pd.DataFrame, tuple[list[Position], Array, tuple[Clustering, ...]]]:
    """Quantiles where clusters were randomised, control first, and their clustered uncertainty.

    The variances beside them are those of independent rows: with the clusters' sums they tell how
    much rows of a cluster have in common.
    """
    levels, share = search.arms.levels, search.share
    points = yield from search.ask(start, {level: [share] for level in levels})
    found = {level: points[level][0] for level in levels}
    below = _Below.of(search.metric, list(found.values()))
    wanted = dataclasses.replace(search.design, treatments=levels[1:], strata=())
    arms = yield from ask_moments(wanted, [below])
    clusterings = (yield from ask_clustering(wanted, [below], arms, clusters=clusters))[
        search.metric.name
    ]
    terms = [_Below.of(search.metric, [point]).terms[0] for point in found.values()]
    at = [below.terms.index(term) for term in terms]
    size = len(below.terms)
    own = [clusterings[0].covariance[at[0], at[0]]]
    own += [
        item.covariance[size + place, size + place]
        for item, place in zip(clusterings, at[1:], strict=True)
    ]
    errors = dict(zip(levels, np.sqrt(np.maximum(own, 0.0)), strict=True))
    outer = yield from search.ask(
        start, {level: search.ends(level, errors[level], start[level,].n) for level in levels}
    )
    slopes = search.slopes(found, outer, errors)
    variances = slopes**2 * [
        share_variance(point, share=share, n=start[level,].n) for level, point in found.items()
    ]
    joint = []
    for arm, item in enumerate(clusterings, start=1):
        steps = np.zeros((2, 2 * size))
        steps[0, at[0]], steps[1, size + at[arm]] = slopes[0], slopes[arm]
        joint.append(_transformed(item, steps))
    return list(found.values()), variances, tuple(joint)


def _transformed(clustering: Clustering, steps: Array) -> Clustering:
    """The same clusters' uncertainty of linear combinations of the mean vectors."""
    ways = tuple(
        dataclasses.replace(
            way, matrix=steps @ way.matrix @ steps.T, between=steps @ way.between @ steps.T
        )
        for way in clustering.ways
    )
    return dataclasses.replace(clustering, ways=ways)
