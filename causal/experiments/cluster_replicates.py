"""Clustered errors of re-randomised experiments: whole clusters change arms with their bucket.

With the corrections that are one factor for all clusters, an arm's sum of squared cluster scores
is a function of a few sums over its clusters, so that buckets keep all it takes.
"""

import numpy as np
import pandas as pd

from causal.core.errors import InferenceError
from causal.core.gram import Array, pack
from causal.core.regression import cr1_factor
from causal.experiments.ab_options import AbOptions
from causal.experiments.arms import Arms, ClusterCorrection, Clustering, Design, ask_clustering
from causal.experiments.bucket_moments import CellsByArm, Pool, Positions, center_of, pooled
from causal.experiments.comparison import Comparison, Readout
from causal.experiments.rerandomisation import ClusterSums, Sample, cluster_meats


def why_not(options: AbOptions) -> str | None:
    """Why the clustered errors that were asked for cannot be had from buckets; `None`: they can."""
    if len(options.clusters) > 1:
        return "two kinds of clusters that cross cannot be assigned anew as wholes"
    if options.cluster_correction == "cr3":
        return "the cluster jackknife (cr3) cannot be had from sums over buckets"
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
    moments, n_clusters = arms.moments[comparison.metric.name], comparison.n_clusters or 0
    factor = cr1_factor(n=sum(gram.n for gram in moments), k=len(moments), n_clusters=n_clusters)
    return ClusterSums(
        meats=cluster_meats(pool, assigned, pair, center=center_of(comparison.metric, arms)),
        factor=factor if correction == "cr1" else 1.0,
        df=n_clusters - 1.0,
    )


def clustering_of(
    comparison: Comparison, arms: Arms, clusters: ClusterSums, options: AbOptions, *, at: int
) -> Clustering:
    """What the readout makes of one replicate; arms that are not compared keep any meat.

    Args:
        comparison: Names the metric and the two arms.
        arms: Moments of all arms in the replicate.
        clusters: All replicates.
        options: Options of the method.
        at: The replicate.

    Raises:
        InferenceError: The readout's errors take more passes than one.
    """
    name, size = comparison.metric.name, len(comparison.metric.terms)
    found = dict(zip(comparison.variants, clusters.meats, strict=True))
    matrix = np.zeros((len(arms.levels) * size,) * 2)
    for position, level in enumerate(arms.levels):
        block = slice(position * size, (position + 1) * size)
        own = arms.moments[name][position].cross
        matrix[block, block] = found[level][at] if level in found else own
    design = Design(unit=options.unit, variant=options.variant, control=options.control)
    asked = ask_clustering(
        design,
        (comparison.metric,),
        arms,
        cluster=options.clusters,
        correction=options.cluster_correction,
    )
    next(asked)
    row = {
        "n": sum(gram.n for gram in arms.moments[name]), "n_missing": 0,
        "n_clusters": comparison.n_clusters, "cross": pack(matrix),
    }  # fmt: skip
    try:
        asked.send(pd.DataFrame([row]))
    except StopIteration as stop:
        found_: dict[str, Clustering] = stop.value
        return found_[name]
    raise InferenceError("clustered errors take more than one pass: they cannot be certified")
