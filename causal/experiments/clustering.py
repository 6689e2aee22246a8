"""The clustered covariance of two arms' mean vectors, and the reference that fits it.

Four corrections of one sum of squares. With `p` a cluster's share of its arm, `cr2` divides a
cluster's contribution by `sqrt(1 - p)` and `cr3` by `1 - p`; `cr1` multiplies the whole by
`G/(G-1) (N-1)/(N-k)`, G, N and k of the two arms compared, as in a regression on one dummy. That
factor is next to nothing where one arm has many clusters and the other two, and the other arm's
variance then comes out at half its size: `cr2` is unbiased arm by arm.

Sources: Liang and Zeger (1986); Bell and McCaffrey (2002); Cameron, Gelbach and Miller (2011),
"Robust inference with multiway clustering"; MacKinnon, Nielsen and Webb (2023), "Fast and reliable
jackknife and bootstrap methods for cluster-robust inference". For the degrees of freedom see
`cluster_df`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal.core.gram import Array, Gram
from causal.core.inference import cr1_factor
from causal.experiments.cluster_df import (
    ClusterSizes,
    intraclass_correlation,
    leverage_scale,
    satterthwaite_df,
)
from causal.experiments.levels import welch_satterthwaite

ClusterCorrection = Literal["cr0", "cr1", "cr2", "cr3", "none"]
DegreesOfFreedom = Literal["satterthwaite", "bell_mccaffrey", "clusters_minus_one"]

_SIGNS = (1.0, 1.0, -1.0)
"""Of two one-way covariances and that of the combinations of both."""
_TWO = 2


def leverage_power(correction: ClusterCorrection) -> float:
    """Power of `1 - p` that divides a cluster's contribution."""
    return {"cr2": 0.5, "cr3": 1.0}.get(correction, 0.0)


def cluster_factor(correction: ClusterCorrection, *, n: int, k: int, n_clusters: int) -> float:
    """What the correction multiplies the whole covariance with.

    Args:
        correction: The correction.
        n: Units.
        k: Means that were estimated.
        n_clusters: Clusters.
    """
    if correction == "cr1":
        return cr1_factor(n=n, k=k, n_clusters=n_clusters)
    return (n_clusters - 1) / n_clusters if correction == "cr3" else 1.0


@dataclass(frozen=True)
class Reference:
    """Degrees of freedom of each independent part of a variance, and the most they make together.

    Attributes:
        dfs: Of each part, for Satterthwaite's formula with the parts' estimated variances.
        ceiling: Those under the working model, where both arms' units vary alike.
    """

    dfs: tuple[float, ...]
    ceiling: float = math.inf


@dataclass(frozen=True)
class ClusterSums:
    """What each cluster adds to the mean vectors of c cells.

    Attributes:
        sizes: How the cells' units spread over the G clusters.
        contributions: `n_g (m_g - m) / n`, shape (c, G, p).
    """

    sizes: ClusterSizes
    contributions: Array

    def scaled(self, correction: ClusterCorrection) -> Array:
        """The contributions with the correction of single clusters, shape (c, G, p)."""
        scale = leverage_scale(self.sizes.shares, power=leverage_power(correction))
        return np.asarray(self.contributions * scale[:, :, None], dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Way:
    """Two arms clustered in one way.

    Attributes:
        matrix: Sum over clusters of the outer products of their (corrected) contributions to
            control's and treatment's mean vectors, shape (2p, 2p).
        between: The same of the contributions as they are, shape (2p, 2p).
        n_clusters: Clusters with units of either arm.
        arm_clusters: Clusters with units of control, of treatment.
        sizes: How the arms spread over the clusters; `None`: there are too many to look at.
    """

    matrix: Array
    between: Array
    n_clusters: int
    arm_clusters: tuple[int, int]
    sizes: ClusterSizes | None = None

    @property
    def is_nested(self) -> bool:
        """Whether each cluster lies in one arm, so that the arms are independent."""
        return sum(self.arm_clusters) == self.n_clusters

    def effective_clusters(
        self, gradient: Array, moments: tuple[Gram, Gram], *, correction: ClusterCorrection
    ) -> tuple[float, ...] | None:
        """Clusters of one size that each arm is worth; together if some hold both arms.

        Args:
            correction: Of the covariance whose degrees of freedom say so.
            gradient: Coefficients of the mean vectors in what is estimated, shape (2p,).
            moments: Moments of control and treatment.

        Returns:
            One number per arm, or one for both; `None`: there are too many clusters to look at.
        """
        if self.sizes is None:
            return None
        icc = _icc(self, gradient, moments)
        power = leverage_power(correction)
        return tuple(1.0 + _model_df(self.sizes.of(group), power, icc) for group in _groups(self))


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """Clustered uncertainty of one treatment against control on one metric.

    Attributes:
        ways: One way of clustering, or both and that of their combinations.
        correction: Of the covariance.
        degrees_of_freedom: How they are found.
        n_units: Units of control and treatment.
    """

    ways: tuple[Way, ...]
    correction: ClusterCorrection
    degrees_of_freedom: DegreesOfFreedom
    n_units: tuple[int, int]

    @property
    def one_ways(self) -> tuple[Way, ...]:
        """The ways without that of the combinations."""
        return self.ways[:_TWO]

    @property
    def n_clusters(self) -> int:
        """Clusters of the two arms, of the column that has fewer."""
        return min(way.n_clusters for way in self.one_ways)

    @property
    def covariance(self) -> Array:
        """Of both mean vectors, shape (2p, 2p)."""
        pieces = [
            sign * self._factor(way) * way.matrix
            for sign, way in zip(_SIGNS, self.ways, strict=False)
        ]
        return np.asarray(sum(pieces), dtype=np.float64)

    @property
    def parts(self) -> tuple[Array, ...]:
        """The covariance as a sum of independent parts: the arms where no cluster is in both."""
        is_split = self.degrees_of_freedom == "satterthwaite" and len(self.ways) == 1
        return _parts(self.covariance, is_split=is_split and self.ways[0].is_nested)

    def reference(self, gradient: Array, moments: tuple[Gram, Gram]) -> Reference:
        """The degrees of freedom of a linear combination of both mean vectors.

        Args:
            gradient: Its coefficients, shape (2p,).
            moments: Moments of control and treatment.
        """
        if self.degrees_of_freedom == "clusters_minus_one":
            return Reference((self.n_clusters - 1.0,))
        if len(self.ways) == 1:
            return self._reference(self.ways[0], gradient, moments)
        return Reference((min(self._df(way, gradient, moments) for way in self.one_ways),))

    def _factor(self, way: Way) -> float:
        return cluster_factor(
            self.correction, n=sum(self.n_units), k=_TWO, n_clusters=way.n_clusters
        )

    def _df(self, way: Way, gradient: Array, moments: tuple[Gram, Gram]) -> float:
        found = self._reference(way, gradient, moments)
        variances = [
            float(gradient @ part @ gradient)
            for part in _parts(way.matrix, is_split=len(found.dfs) > 1)
        ]
        return min(welch_satterthwaite(variances, found.dfs), found.ceiling)

    def _reference(self, way: Way, gradient: Array, moments: tuple[Gram, Gram]) -> Reference:
        if way.sizes is None:
            if way.is_nested:
                return Reference(tuple(count - 1.0 for count in way.arm_clusters))
            return Reference((way.n_clusters - 1.0,))
        power = leverage_power(self.correction)
        if self.degrees_of_freedom == "bell_mccaffrey":
            return Reference((_model_df(way.sizes, power, 0.0),))
        icc = _icc(way, gradient, moments)
        dfs = tuple(_model_df(way.sizes.of(group), power, icc) for group in _groups(way))
        return Reference(dfs, _model_df(way.sizes, power, icc))


def one_way(sums: ClusterSums, correction: ClusterCorrection) -> Way:
    """Two arms with the contributions of all their clusters at hand."""
    plain, scaled = (
        np.hstack(list(item)) for item in (sums.contributions, sums.scaled(correction))
    )
    counts = (sums.sizes.units > 0).sum(axis=1)
    return Way(
        matrix=scaled.T @ scaled,
        between=plain.T @ plain,
        n_clusters=sums.sizes.units.shape[1],
        arm_clusters=(int(counts[0]), int(counts[1])),
        sizes=sums.sizes,
    )


def _parts(covariance: Array, *, is_split: bool) -> tuple[Array, ...]:
    if not is_split:
        return (covariance,)
    size = len(covariance) // 2
    out = []
    for arm in range(_TWO):
        at = slice(arm * size, (arm + 1) * size)
        part = np.zeros_like(covariance)
        part[at, at] = covariance[at, at]
        out.append(part)
    return tuple(out)


def _groups(way: Way) -> tuple[tuple[int, ...], ...]:
    return ((0,), (1,)) if way.is_nested else ((0, 1),)


def _model_df(sizes: ClusterSizes, power: float, icc: float) -> float:
    signs = np.array([-1.0, 1.0])[: len(sizes.units)]
    return satterthwaite_df(sizes, signs=signs, power=power, icc=icc)


def _icc(way: Way, gradient: Array, moments: tuple[Gram, Gram]) -> float:
    """Of the residuals of a linear combination, over both arms."""
    if way.sizes is None:
        return 0.0
    size = len(gradient) // 2
    between = within = 0.0
    for arm, gram in enumerate(moments):
        at = slice(arm * size, (arm + 1) * size)
        between += gram.n**2 * float(gradient[at] @ way.between[at, at] @ gradient[at])
        within += float(gradient[at] @ gram.cross @ gradient[at])
    return intraclass_correlation(between, within, sizes=way.sizes)
