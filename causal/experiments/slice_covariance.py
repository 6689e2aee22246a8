"""How the effects in several slices of the units vary together, and on how much that rests."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from causal.core import inference
from causal.core.frames import Level
from causal.core.gram import Array, Gram, Key
from causal.core.result import Effect
from causal.experiments.cluster_df import ClusterSizes, intraclass_correlation, satterthwaite_df
from causal.experiments.cluster_sums import ClusterRows, Clusters
from causal.experiments.clustering import ClusterSums, cluster_factor, leverage_power
from causal.experiments.comparison import Readout
from causal.experiments.levels import CONTROL, TREATMENT, Levels, welch_satterthwaite


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One comparison in one segment.

    Attributes:
        level: The segment's level.
        raw: Without covariates.
        best: With covariates where the metric has some that vary in the segment, else `raw`.
    """

    level: Level
    raw: Readout
    best: Readout


def absolute(readout: Readout) -> Effect:
    """The effect on the metric's own scale."""
    return readout.effects[0]


@dataclass(frozen=True)
class SliceCovariance:
    """Joint covariance of the effects of s slices.

    Attributes:
        matrix: Shape (s, s).
        independent_dfs: Degrees of freedom of each variance where slices are independent, shape
            (s,); `None`: they share clusters.
        fixed_df: Degrees of freedom of everything (`clusters_minus_one`).
        moment_df: Degrees of freedom of the variance of a contrast, shape (s,), by its moments.
        n_clusters: Clusters behind the covariance, where it sums over clusters.
    """

    matrix: Array
    independent_dfs: Array | None = None
    fixed_df: float | None = None
    moment_df: Callable[[Array], float] | None = None
    n_clusters: int | None = None

    def variance(self, contrast: Array) -> float:
        """Variance of a combination of the effects."""
        return float(contrast @ self.matrix @ contrast)

    def df(self, contrast: Array) -> float:
        """Its degrees of freedom."""
        if self.fixed_df is not None:
            return self.fixed_df
        if self.independent_dfs is not None:
            at = np.flatnonzero(contrast)
            variances = (contrast**2 * np.diag(self.matrix))[at]
            return welch_satterthwaite(list(map(float, variances)), list(self.independent_dfs[at]))
        return math.inf if self.moment_df is None else self.moment_df(contrast)

    def equality(self, estimates: Array) -> tuple[float, float, str]:
        """Test that all effects are equal.

        Args:
            estimates: The effects, shape (s,).

        Returns:
            F, its p-value, and its reference in words.

        Raises:
            InferenceError: The covariance is singular, or has too few degrees of freedom.
        """
        if self.independent_dfs is not None:
            statistic, df, pvalue = inference.welch_test(
                estimates, np.diag(self.matrix), dfs=self.independent_dfs
            )
            return statistic, pvalue, f"Welch's F, {len(estimates) - 1} and {df:.1f} df"
        size = len(estimates) - 1
        contrasts = np.hstack([-np.ones((size, 1)), np.eye(size)])
        gaps, covariance = contrasts @ estimates, contrasts @ self.matrix @ contrasts.T
        if self.fixed_df is not None:
            statistic, pvalue = inference.wald(gaps, covariance, df=self.fixed_df)
            return statistic, pvalue, f"F, {size} and {self.fixed_df:.0f} df"
        least = min(self.df(row) for row in contrasts)
        statistic, pvalue = inference.hotelling(gaps, covariance, df=least)
        return statistic, pvalue, f"Hotelling's T squared, {least:.1f} df"


def independent_slices(slices: Sequence[Slice]) -> SliceCovariance:
    """Slices that share nothing: each with its own variance and degrees of freedom."""
    effects = [absolute(one.best) for one in slices]
    dfs = [math.inf if effect.df is None else effect.df for effect in effects]
    return SliceCovariance(
        np.diag([effect.std_error**2 for effect in effects]), independent_dfs=np.array(dfs)
    )


def clustered_slices(
    slices: Sequence[Slice], rows: ClusterRows, clusters: Clusters
) -> SliceCovariance:
    """Slices whose clusters are at hand.

    Where no cluster has units in two slices they are independent, each with its own clustered
    error if it has one. Otherwise the covariance sums the clusters' contributions to all effects,
    corrected as those of one comparison are.

    Args:
        slices: Slices of one comparison.
        rows: Moments by arm, segment and cluster.
        clusters: Correction and degrees of freedom.
    """
    metric = slices[0].best.comparison.metric
    moments: dict[Key, Gram] = {
        (variant, one.level): gram
        for one in slices
        for variant, gram in zip(
            one.best.comparison.variants, one.best.comparison.moments, strict=True
        )
    }
    sums = rows.sums(metric, moments)
    is_satterthwaite = clusters.degrees_of_freedom == "satterthwaite"
    is_shared = any(len({cell // 2 for cell in group}) > 1 for group in sums.sizes.cells)
    has_errors = all(one.best.comparison.joint is not None for one in slices)
    if is_satterthwaite and has_errors and not is_shared:
        return independent_slices(slices)
    gradients = np.array([row for one in slices for row in _gradients(one.best.levels)])
    effects = np.einsum("cgp,cp->cg", sums.scaled(clusters.correction), gradients)
    by_slice = effects.reshape(len(slices), 2, -1).sum(axis=1)
    n_clusters = by_slice.shape[1]
    factor = cluster_factor(
        clusters.correction,
        n=sum(gram.n for gram in moments.values()),
        k=len(moments),
        n_clusters=n_clusters,
    )
    matrix = factor * by_slice @ by_slice.T
    if clusters.degrees_of_freedom == "clusters_minus_one":
        return SliceCovariance(matrix, fixed_df=n_clusters - 1.0, n_clusters=n_clusters)
    icc = 0.0
    if is_satterthwaite:
        plain = np.einsum("cgp,cp->cg", sums.contributions, gradients)
        icc = _icc(plain, gradients, [gram.cross for gram in moments.values()], sums)
    power = leverage_power(clusters.correction)

    def moment_df(contrast: Array) -> float:
        return _contrast_df(
            contrast, effects if is_satterthwaite else None, sums.sizes, power=power, icc=icc
        )

    return SliceCovariance(matrix, moment_df=moment_df, n_clusters=n_clusters)


def _gradients(levels: Levels) -> tuple[Array, Array]:
    """The effect as a linear combination of control's and of treatment's mean vector."""
    steps = [levels.gradient(arm) for arm in (CONTROL, TREATMENT)]
    first, second = (step[TREATMENT] - step[CONTROL] for step in steps)
    return first, second


def _icc(plain: Array, gradients: Array, crosses: Sequence[Array], sums: ClusterSums) -> float:
    totals = sums.sizes.units.sum(axis=1)
    between = float((totals**2 * (plain**2).sum(axis=1)).sum())
    within = sum(float(g @ cross @ g) for g, cross in zip(gradients, crosses, strict=True))
    return intraclass_correlation(between, within, sizes=sums.sizes)


def _contrast_df(
    contrast: Array, effects: Array | None, sizes: ClusterSizes, *, power: float, icc: float
) -> float:
    """As for one comparison: the fewer of the model's and of those with estimated variances."""
    weights = np.repeat(contrast, 2)
    used = tuple(map(int, np.flatnonzero(weights)))
    signs = weights * np.tile([-1.0, 1.0], len(contrast))

    def model(cells: tuple[int, ...]) -> float:
        return satterthwaite_df(sizes.of(cells), signs=signs[list(cells)], power=power, icc=icc)

    if effects is None:
        return model(used)
    groups = [tuple(used[cell] for cell in group) for group in sizes.of(used).cells]
    variances = [
        float(((weights[list(group)] @ effects[list(group)]) ** 2).sum()) for group in groups
    ]
    return min(welch_satterthwaite(variances, [model(group) for group in groups]), model(used))
