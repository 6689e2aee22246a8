"""Clustered errors of re-randomised experiments: whole clusters change arms.

Clusters that come to the driver one by one are assigned one by one, so that every correction and
the degrees of freedom can look at them. Where there are too many they change arms with their random
bucket. An arm's sum of squared cluster scores is then a function of a few sums over its clusters,
which is all it takes for the corrections that are one factor for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causal.core.gram import Array, Gram, Key
from causal.experiments.ab_options import AbOptions
from causal.experiments.arms import Arms
from causal.experiments.bucket_moments import (
    Cell,
    CellsByArm,
    Pool,
    Positions,
    center_of,
    pooled,
    shift_matrix,
)
from causal.experiments.cluster_moments import ClusterSums, meats, products
from causal.experiments.cluster_sums import ClusterRows
from causal.experiments.clustering import (
    Clustering,
    Way,
    cluster_factor,
    leverage_power,
    one_way,
)
from causal.experiments.comparison import Readout
from causal.experiments.levels import CONTROL, TREATMENT
from causal.experiments.replicated_df import Sizes, size_sums, squared_corrections
from causal.experiments.rerandomisation import Sample


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """The clusters of one comparison without the estimated effect.

    Attributes:
        readout: The best readout.
        clustering: Its clusters.
        center: What sums of deviations are from, shape (p,).
        pool: Clusters of both arms by what is assigned, terms `(rows, sums of deviations)`.
        units: Units by what is assigned, shape (B,).
        means: Means by the same, shape (B, p).
        sizes: Of each cluster, where they are assigned one by one.
    """

    readout: Readout
    clustering: Clustering
    center: Array
    pool: Pool
    units: Array
    means: Array
    sizes: Sizes | None


def why_not(options: AbOptions, *, is_held: bool) -> str | None:
    """Why the clustered errors that were asked for cannot be certified; `None`: they can.

    Args:
        options: Options of the method.
        is_held: Whether the clusters are few enough to be looked at one by one.
    """
    if len(options.clusters) > 1:
        return "two kinds of clusters that cross cannot be assigned anew as wholes"
    if not is_held or is_one_by_one(options, is_held=is_held):
        return None
    column = options.certificate and options.certificate.assigned_by
    if options.cluster_correction not in {"cr0", "cr1", "none"}:
        return (
            "corrections of single clusters (cr2, the default, and cr3) cannot be had where groups "
            f"of them are assigned by {column}: only cr0 and cr1 with degrees_of_freedom "
            "clusters_minus_one"
        )
    if options.degrees_of_freedom != "clusters_minus_one":
        return (
            f"degrees_of_freedom {options.degrees_of_freedom} look at single clusters, but groups "
            f"of them are assigned by {column}: only clusters_minus_one"
        )
    return None


def is_one_by_one(options: AbOptions, *, is_held: bool) -> bool:
    """Whether single clusters are assigned anew, and not random buckets of what was assigned."""
    assigned_by = None if options.certificate is None else options.certificate.assigned_by
    return is_held and len(options.clusters) == 1 and assigned_by in {None, options.clusters[0]}


def sums_of(cells: CellsByArm, center: Array) -> CellsByArm:
    """Single clusters as `ask_cluster_sums` gives buckets of them.

    Args:
        cells: Moments of the p terms by arm and cluster.
        center: What deviations are from, shape (p,).
    """
    return {
        level: {
            key: Cell(
                n=(cell.n > 0).astype(np.float64),
                mean=np.column_stack([cell.n, cell.n[:, None] * (cell.mean - center)]),
                cross=np.zeros((len(cell.n), len(center) + 1, len(center) + 1)),
                n_missing=cell.n_missing,
            )
            for key, cell in by_key.items()
        }
        for level, by_key in cells.items()
    }


def clustered(
    readout: Readout,
    cells: CellsByArm,
    sums: CellsByArm,
    *,
    arms: Arms,
    occupied: Positions,
    is_single: bool,
) -> Clustered:
    """The clusters of a comparison; those treated lose the effect of each of their rows.

    Args:
        readout: Tells the comparison and its effect.
        cells: Moments by arm and what is assigned.
        sums: Moments over clusters by the same, of rows and of sums of deviations.
        arms: Moments of all arms.
        occupied: Positions of the buckets or clusters that hold units.
        is_single: Whether single clusters are assigned.
    """
    comparison = readout.comparison
    clustering = None if comparison.joint is None else comparison.joint.clustering
    if clustering is None:
        raise ValueError("the comparison is not clustered")
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
    pair = [cells[level][()].within(occupied) for level in comparison.variants]
    rows = pooled([pair[CONTROL], pair[TREATMENT].without(effect, outcome)])
    return Clustered(
        readout=readout,
        clustering=clustering,
        center=center,
        pool=pooled([control, treatment.transformed(shift)]),
        units=rows.n,
        means=rows.center + rows.first / np.maximum(rows.n, 1.0)[:, None],
        sizes=_sizes(pair, outcome.denominator) if is_single else None,
    )


def assigned_clusters(
    clusters: Clustered, pair: tuple[Sample, Sample], assigned: Array
) -> ClusterSums:
    """What clustered errors need when the clusters or buckets of `assigned`, (r, B), are treated.

    Args:
        clusters: The clusters.
        pair: Control and treatment in every replicate.
        assigned: Zeros and ones.
    """
    clustering, pool = clusters.clustering, clusters.pool
    moments = np.column_stack([pool.n, products(pool)])
    treated = assigned @ moments
    both = (moments.sum(axis=0) - treated, treated)
    steps = [arm.mean - clusters.center for arm in pair]
    control, treatment = (meats(part[:, 1:], step) for part, step in zip(both, steps, strict=True))
    sums = ClusterSums(
        meats=(control, treatment),
        between=(control, treatment),
        n_clusters=(both[CONTROL][:, 0], both[TREATMENT][:, 0]),
        factor=cluster_factor(
            clustering.correction,
            n=sum(clustering.n_units),
            k=2,
            n_clusters=clustering.n_clusters,
        ),
        degrees_of_freedom=clustering.degrees_of_freedom,
    )
    if clusters.sizes is None:
        return sums
    return _one_by_one(clusters, clusters.sizes, sums, steps, assigned)


def _one_by_one(
    clusters: Clustered, sizes: Sizes, sums: ClusterSums, steps: Sequence[Array], assigned: Array
) -> ClusterSums:
    """With the corrections of single clusters, and what the degrees of freedom need."""
    power = leverage_power(clusters.clustering.correction)
    moments = products(clusters.pool)
    corrected, spread = [], []
    for in_arm, step in zip((1.0 - assigned, assigned), steps, strict=True):
        corrections = squared_corrections(in_arm, sizes, power=power)
        corrected.append(meats(corrections @ moments, step))
        spread.append(size_sums(in_arm, corrections, sizes))
    return replace(
        sums,
        meats=(corrected[CONTROL], corrected[TREATMENT]),
        sizes=(spread[CONTROL], spread[TREATMENT]),
        assigned=np.packbits(assigned > 0, axis=1),
    )


def clustering_of(clusters: Clustered, arms: Arms, sums: ClusterSums, *, at: int) -> Clustering:
    """What the readout makes of one replicate with the estimated effect put in.

    Args:
        clusters: The clusters.
        arms: Moments of all arms in the replicate.
        sums: All replicates.
        at: The replicate.
    """
    comparison = clusters.readout.comparison
    name = comparison.metric.name
    moments = {level: arms.moments[name][arms.levels.index(level)] for level in comparison.variants}
    if sums.assigned is None:
        way = _summed_way(list(moments.values()), sums, at=at)
    else:
        keyed: dict[Key, Gram] = {(level,): gram for level, gram in moments.items()}
        rows = _rows(clusters, sums.assigned[at])
        way = one_way(rows.sums(comparison.metric, keyed), clusters.clustering.correction)
    counts = [gram.n for gram in moments.values()]
    return replace(clusters.clustering, ways=(way,), n_units=(counts[CONTROL], counts[TREATMENT]))


def _summed_way(pair: Sequence[Gram], sums: ClusterSums, *, at: int) -> Way:
    """Clusters of which only sums of squares are known."""
    size = len(pair[0].terms)
    matrix = np.zeros((2 * size, 2 * size))
    for arm, (gram, meat) in enumerate(zip(pair, sums.meats, strict=True)):
        block = slice(arm * size, (arm + 1) * size)
        matrix[block, block] = meat[at] / gram.n**2
    control, treatment = (round(float(count[at])) for count in sums.n_clusters)
    return Way(
        matrix=matrix,
        between=matrix,
        n_clusters=control + treatment,
        arm_clusters=(control, treatment),
    )


def _rows(clusters: Clustered, assigned: NDArray[np.uint8]) -> ClusterRows:
    """The clusters of one replicate as the readout gets them."""
    comparison, effect = clusters.readout.comparison, clusters.readout.effects[0].estimate
    means = clusters.means.copy()
    is_treated = np.unpackbits(assigned, count=len(means)).astype(bool)
    outcome = comparison.metric.quotients[0]
    means[is_treated] @= shift_matrix(effect, outcome, size=means.shape[1]).T
    if outcome.denominator is None:
        means[is_treated, outcome.numerator] += effect
    held = np.flatnonzero(clusters.units > 0)
    control, treatment = comparison.variants
    return ClusterRows(
        terms=comparison.metric.terms,
        cells=tuple((treatment if found else control,) for found in is_treated[held]),
        clusters=held.astype(np.float64),
        n=clusters.units[held],
        means=means[held],
    )


def _sizes(pair: Sequence[Cell], denominator: int | None) -> Sizes:
    """As `ClusterRows.sums` weighs clusters: by units where a denominator is negative."""
    units = np.sum([cell.n for cell in pair], axis=0)
    if denominator is None:
        return Sizes(units, units)
    weights = np.sum([cell.n * cell.mean[:, denominator] for cell in pair], axis=0)
    return Sizes(units, units if (weights < 0).any() else weights)
