"""Clustered errors of re-randomised experiments: whole clusters change arms with their bucket.

With the corrections that are one factor for all clusters, an arm's sum of squared cluster scores
is a function of a few sums over its clusters, so that buckets keep all it takes.
"""

import numpy as np

from causal.core.gram import Array
from causal.experiments.ab_options import AbOptions
from causal.experiments.arms import Arms
from causal.experiments.bucket_moments import CellsByArm, Pool, Positions, center_of, pooled
from causal.experiments.clustering import ClusterCorrection, Clustering, Way, cluster_factor
from causal.experiments.comparison import Comparison, Readout
from causal.experiments.rerandomisation import ClusterSums, Sample, cluster_meats

_SUMMED = ("cr0", "cr1", "none")
"""Corrections that are one factor for all clusters."""


def why_not(options: AbOptions) -> str | None:
    """Why the clustered errors that were asked for cannot be had from buckets; `None`: they can."""
    if len(options.clusters) > 1:
        return "two kinds of clusters that cross cannot be assigned anew as wholes"
    if options.cluster_correction not in _SUMMED:
        return (
            "corrections of single clusters (cr2, the default, and cr3) cannot be had from sums "
            "over buckets: only cr0 and cr1 with degrees_of_freedom clusters_minus_one"
        )
    if options.degrees_of_freedom != "clusters_minus_one":
        return (
            f"degrees_of_freedom {options.degrees_of_freedom} look at single clusters: only "
            "clusters_minus_one can be had from sums over buckets"
        )
    return None


def cluster_pool(readout: Readout, sums: CellsByArm, arms: Arms, occupied: Positions) -> Pool:
    """Clusters of both arms by bucket; those treated lose the effect of each of their rows.

    Args:
        readout: Tells the comparison and its effect.
        sums: Moments over clusters by arm, of rows and of sums of deviations.
        arms: Moments of all arms.
        occupied: Positions of the buckets that hold units.
    """
    comparison = readout.comparison
    outcome, effect = comparison.metric.quotients[0], readout.effects[0].estimate
    control, treatment = (sums[level][()].within(occupied) for level in comparison.variants)
    center = center_of(comparison.metric, arms)
    # The first term counts rows, the others are sums of deviations from the centre.
    shift = np.eye(1 + len(center))
    if outcome.denominator is None:
        shift[1 + outcome.numerator, 0] -= effect
    else:
        shift[1 + outcome.numerator, 1 + outcome.denominator] -= effect
        shift[1 + outcome.numerator, 0] -= effect * center[outcome.denominator]
    return pooled([control, treatment.transformed(shift)])


def assigned_clusters(
    comparison: Comparison,
    arms: Arms,
    pool: Pool,
    pair: tuple[Sample, Sample],
    assigned: Array,
    *,
    correction: ClusterCorrection,
) -> ClusterSums:
    """What clustered errors need when the buckets of `assigned`, (r, B), are treated.

    Args:
        comparison: The metric and the two arms.
        arms: Moments of all arms.
        pool: Clusters of both arms by bucket.
        pair: Control and treatment in every replicate.
        assigned: Zeros and ones.
        correction: `cr0`, `cr1` or `none`.
    """
    n_clusters = comparison.n_clusters or 0
    return ClusterSums(
        meats=cluster_meats(pool, assigned, pair, center=center_of(comparison.metric, arms)),
        factor=cluster_factor(
            correction, n=sum(gram.n for gram in comparison.moments), k=2, n_clusters=n_clusters
        ),
        df=n_clusters - 1.0,
    )


def clustering_of(
    comparison: Comparison, arms: Arms, clusters: ClusterSums, options: AbOptions, *, at: int
) -> Clustering:
    """What the readout makes of one replicate.

    Args:
        comparison: Names the metric and the two arms.
        arms: Moments of all arms in the replicate.
        clusters: All replicates.
        options: Options of the method.
        at: The replicate.
    """
    size = len(comparison.metric.terms)
    pair = [
        arms.moments[comparison.metric.name][arms.levels.index(level)]
        for level in comparison.variants
    ]
    matrix = np.zeros((2 * size, 2 * size))
    for arm, (gram, meat) in enumerate(zip(pair, clusters.meats, strict=True)):
        block = slice(arm * size, (arm + 1) * size)
        matrix[block, block] = meat[at] / gram.n**2
    n_clusters = comparison.n_clusters or 0
    way = Way(matrix=matrix, between=matrix, n_clusters=n_clusters, arm_clusters=(n_clusters, 0))
    return Clustering(
        ways=(way,),
        correction=options.cluster_correction or "cr1",
        degrees_of_freedom=options.degrees_of_freedom,
        n_units=(pair[0].n, pair[1].n),
    )
