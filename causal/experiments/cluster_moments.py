"""Clustered errors over replicates: squares of cluster sums in each arm, and their reference.

What `clustering` makes of one comparison, over a first axis of `r` re-randomised experiments. Whole
clusters change arms, so none lies in both and the arms are independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causal.core.gram import Array
from causal.experiments.bucket_moments import Pool
from causal.experiments.clustering import DegreesOfFreedom
from causal.experiments.levels import TREATMENT
from causal.experiments.replicated_df import (
    SizeSums,
    intraclass_correlations,
    satterthwaite_dfs,
    stacked_sizes,
)

Pair = tuple[Array, Array]


@dataclass(frozen=True, kw_only=True)
class ClusterSums:
    """What clustered errors need of control and treatment in every replicate.

    Attributes:
        meats: Outer products of clusters' sums of deviations from the arm's mean, with the
            correction of single clusters, each (r, p, p).
        between: The same without it.
        n_clusters: Clusters of each arm, each (r,).
        factor: What multiplies the whole variance.
        degrees_of_freedom: How they are found.
        sizes: How the arms spread over their clusters; `None`: clusters are known in groups only.
        assigned: Which clusters are treated, packed bits of shape (r, ceil(G / 8)), with `sizes`.
    """

    meats: Pair
    between: Pair
    n_clusters: Pair
    factor: float
    degrees_of_freedom: DegreesOfFreedom
    sizes: tuple[SizeSums, SizeSums] | None = None
    assigned: NDArray[np.uint8] | None = None

    def moved(self, shift: Array) -> "ClusterSums":
        """The same clusters with the treated units' values multiplied by a matrix, (p, p)."""
        meats_, between = (
            (control, shift @ treatment @ shift.T)
            for control, treatment in (self.meats, self.between)
        )
        return replace(self, meats=meats_, between=between)


@dataclass(frozen=True)
class Pieces:
    """Independent parts of a variance in every replicate.

    Attributes:
        variances: One per part, each (r,).
        dfs: Their degrees of freedom, each (r,).
        ceiling: Degrees of freedom that they do not exceed together, (r,); `None`: no such bound.
    """

    variances: list[Array]
    dfs: list[Array]
    ceiling: Array | None = None


def products(pool: Pool) -> Array:
    """Packed products of `(rows, sums of deviations)` around zero by position, (B, q(q+1)/2).

    They are sums of scores, so they are not taken around the clusters' mean.
    """
    middle = np.einsum("bi,j->bij", pool.first, pool.center)
    raw = pool.second + middle + middle.transpose(0, 2, 1)
    raw += np.einsum("b,i,j->bij", pool.n, pool.center, pool.center)
    rows, columns = np.triu_indices(len(pool.center))
    return np.asarray(raw[:, rows, columns], dtype=np.float64)


def meats(sums: Array, step: Array) -> Array:
    """Products of clusters' sums of deviations from the arm's mean, shape (r, p, p).

    Args:
        sums: Sums of `products` over the arm's clusters, shape (r, (p+1)(p+2)/2).
        step: The arm's mean less the value that the deviations are from, shape (r, p).
    """
    size = step.shape[1] + 1
    rows, columns = np.triu_indices(size)
    matrix = np.zeros((len(sums), size, size))
    matrix[:, rows, columns] = sums
    matrix[:, columns, rows] = sums
    eye = np.broadcast_to(np.eye(size - 1), (len(sums), size - 1, size - 1))
    left = np.concatenate([-step[:, :, None], eye], axis=2)
    return np.asarray(left @ matrix @ left.transpose(0, 2, 1), dtype=np.float64)


def clustered_pieces(
    clusters: ClusterSums,
    slopes: Sequence[Array],
    counts: Sequence[Array],
    crosses: Sequence[Array],
) -> Pieces:
    """The variance of a linear combination of both mean vectors.

    Args:
        clusters: The clusters.
        slopes: Its derivative in the mean of control and of treatment, each (r, p).
        counts: Units of each arm, each (r,).
        crosses: Centred cross-products of each arm, each (r, p, p).
    """
    found = [
        clusters.factor * quadratic_forms(slope, meat) / n**2
        for slope, meat, n in zip(slopes, clusters.meats, counts, strict=True)
    ]
    total = [found[0] + found[1]]
    if clusters.degrees_of_freedom == "clusters_minus_one":
        return Pieces(total, [clusters.n_clusters[0] + clusters.n_clusters[1] - 1.0])
    if clusters.sizes is None:
        return Pieces(found, [count - 1.0 for count in clusters.n_clusters])
    if clusters.degrees_of_freedom == "bell_mccaffrey":
        return Pieces(total, [satterthwaite_dfs(clusters.sizes, np.zeros(len(total[0])))])
    between, within = (
        np.sum([quadratic_forms(*pair) for pair in zip(slopes, matrices, strict=True)], axis=0)
        for matrices in (clusters.between, crosses)
    )
    icc = intraclass_correlations(between, within, clusters.sizes)
    dfs = [satterthwaite_dfs([arm], icc) for arm in clusters.sizes]
    return Pieces(found, dfs, satterthwaite_dfs(clusters.sizes, icc))


def stacked_clusters(parts: Sequence[ClusterSums]) -> ClusterSums | None:
    """Chunks of replicates put together."""
    if not parts:
        return None

    def pair(name: str) -> Pair:
        control, treatment = (
            np.concatenate([getattr(part, name)[arm] for part in parts]) for arm in (0, TREATMENT)
        )
        return control, treatment

    sizes = [part.sizes for part in parts if part.sizes is not None]
    assigned = [part.assigned for part in parts if part.assigned is not None]
    return replace(
        parts[0],
        meats=pair("meats"),
        between=pair("between"),
        n_clusters=pair("n_clusters"),
        sizes=(
            (stacked_sizes([c for c, _ in sizes]), stacked_sizes([t for _, t in sizes]))
            if sizes
            else None
        ),
        assigned=np.concatenate(assigned) if assigned else None,
    )


def quadratic_forms(vectors: Array, matrices: Array) -> Array:
    """`v' M v` in every replicate, shape (r,)."""
    return np.asarray(np.einsum("ri,rij,rj->r", vectors, matrices, vectors), dtype=np.float64)
