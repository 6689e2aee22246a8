"""What a certificate assigns anew: the randomised clusters themselves, or random buckets.

Clusters that come to the driver one by one are assigned one by one. Units, and clusters of which
there are too many, are parted at random into buckets that change arms as wholes.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.checks.certificate import CertificateOptions
from causal.core.frames import FrameRequest, HashBucket, Level
from causal.core.gram import Array, Key
from causal.experiments.ab_options import AbOptions, AbSpec
from causal.experiments.arms import Arms, Design
from causal.experiments.bucket_moments import (
    Cell,
    CellsByArm,
    Positions,
    ask_cells,
    ask_cluster_sums,
    ask_clusters,
    center_of,
)
from causal.experiments.cluster_replicates import is_one_by_one, sums_of, why_not
from causal.experiments.comparison import Readout
from causal.experiments.levels import CONTROL, TREATMENT

MAX_CELLS = 400_000
"""Arms x strata x buckets that may be asked for."""
MIN_BUCKETS = 2000
MIN_ASSIGNMENTS = 10_000
"""Ways to give clusters to two arms below which a rate is not one of many assignments."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The units by what is assigned.

    Attributes:
        column: Column of the clusters, or what was hashed to buckets.
        n_parts: Clusters or buckets.
        is_single: Whether they are single clusters.
        cells: Moments by metric, arm and stratum, one position per part.
        sums: Moments over clusters by metric and arm; empty for independent units.
    """

    column: str
    n_parts: int
    is_single: bool
    cells: Mapping[str, CellsByArm]
    sums: Mapping[str, CellsByArm]

    def held(self, level: Level) -> NDArray[np.bool_]:
        """Whether a part holds units of an arm, whether or not a metric is missing, shape (B,)."""
        by_arms = next(iter(self.cells.values()))
        counts = np.sum([_rows(cell) for cell in by_arms[level].values()], axis=0)
        return np.asarray(counts > 0, dtype=np.bool_)

    def occupied(self, variants: Sequence[Level]) -> Positions:
        """Positions of the parts that hold units of these arms."""
        return np.flatnonzero(np.any([self.held(level) for level in variants], axis=0))


def ask_parts(
    spec: AbSpec, design: Design, arms: Arms, readouts: Sequence[Readout]
) -> Generator[FrameRequest, pd.DataFrame, Parts | str]:
    """The moments by what is assigned, or why they cannot be had.

    Args:
        spec: The analysis, with a certificate.
        design: Who was randomised to what.
        arms: Moments of all units.
        readouts: The best readout of each metric and treatment.
    """
    options = spec.options
    is_held = _is_held(readouts)
    reason = _impossible(options, is_held=is_held)
    if reason is not None:
        return reason
    if is_one_by_one(options, is_held=is_held):
        return (yield from _ask_single(options, design, arms, readouts))
    return (yield from _ask_buckets(spec, design, arms, readouts))


def treated_parts(
    parts: Parts, arms: Arms, variants: tuple[Level, Level], *, options: AbOptions
) -> dict[Key, int]:
    """How many parts to treat by stratum.

    Of clusters as many as in the data; of buckets the realised share of what was assigned, in each
    block its own.
    """
    if parts.is_single:
        return {(): int(parts.held(variants[TREATMENT]).sum())}
    n_parts = len(parts.occupied(variants))
    counts = {level: float(arms.counts[level]) for level in variants}
    for by_arm in list(parts.sums.values())[:1]:
        counts = {level: float(by_arm[level][()].n.sum()) for level in variants}
    is_blocked = options.stratification == "blocked"
    shares: dict[Key, float] = {}
    for name, by_arm in parts.cells.items():
        keys = {key for level in variants for key in by_arm[level]}
        for key in keys:
            pair = [counts[level] for level in variants]
            if is_blocked and len(keys) > 1:
                pair = [_n_units(arms, name, level, key) for level in variants]
            if sum(pair) > 0:
                shares.setdefault(key, pair[TREATMENT] / sum(pair))
    return {key: min(max(round(share * n_parts), 1), n_parts - 1) for key, share in shares.items()}


def _n_units(arms: Arms, name: str, level: Level, key: Key) -> float:
    gram = arms.cells[name][level].get(key)
    return 0.0 if gram is None else float(gram.n)


def _is_held(readouts: Sequence[Readout]) -> bool:
    """Whether clusters came to the driver one by one."""
    joint = readouts[0].comparison.joint
    clustering = None if joint is None else joint.clustering
    return clustering is not None and clustering.ways[0].sizes is not None


def _impossible(options: AbOptions, *, is_held: bool) -> str | None:
    """Why no certificate can be made, as far as is known before any pass."""
    if options.population_sizes is not None:
        return "assigning the units anew does not show how they were sampled from a population"
    if options.time_since_exposure is not None:
        return "units with a row in each of several periods are not assigned anew"
    return why_not(options, is_held=is_held) if options.clusters else None


def _ask_single(
    options: AbOptions, design: Design, arms: Arms, readouts: Sequence[Readout]
) -> Generator[FrameRequest, pd.DataFrame, Parts | str]:
    column = options.clusters[0]
    cells = yield from ask_clusters(design, options.moment_metrics, arms, cluster=column)
    sums = {
        metric.name: sums_of(cells[metric.name], center_of(metric, arms))
        for metric in options.moment_metrics
    }
    n_parts = len(next(iter(cells[readouts[0].comparison.metric.name].values()))[()].n) - 1
    parts = Parts(column=column, n_parts=n_parts, is_single=True, cells=cells, sums=sums)
    n_lost = max(_n_lost(by_arm) for by_arm in cells.values())
    if n_lost:
        return f"{n_lost:,.0f} rows have no {column}, by which they were assigned"
    for variants in dict.fromkeys(item.comparison.variants for item in readouts):
        control, treatment = (parts.held(level) for level in variants)
        if (control & treatment).any():
            return _SPREAD
        counts = [int(held.sum()) for held in (control, treatment)]
        n_ways = math.comb(sum(counts), counts[CONTROL])
        if n_ways < MIN_ASSIGNMENTS:
            return (
                f"{counts[TREATMENT]} and {counts[CONTROL]} clusters can be assigned in "
                f"{n_ways:,} ways only, at least {MIN_ASSIGNMENTS:,} are needed"
            )
    return parts


_SPREAD = "some clusters lie in several arms or buckets, not in one as wholes"


def _ask_buckets(
    spec: AbSpec, design: Design, arms: Arms, readouts: Sequence[Readout]
) -> Generator[FrameRequest, pd.DataFrame, Parts | str]:
    options = spec.options
    bucket = _bucket(spec, arms)
    if bucket.n_buckets < MIN_BUCKETS:
        return f"with so many arms and strata only {bucket.n_buckets:,} buckets fit"
    cells = yield from ask_cells(design, options.moment_metrics, arms, bucket=bucket)
    n_lost = max(_n_lost(by_arm) for by_arm in cells.values())
    if n_lost:
        return f"{n_lost:,.0f} rows have no {bucket.column}, by which they were assigned"
    sums: dict[str, CellsByArm] = {}
    for metric in options.moment_metrics if options.clusters else ():
        by_arm = yield from ask_cluster_sums(
            design, metric, arms, bucket=bucket, cluster=options.clusters[0]
        )
        if any(
            _n_clusters(by_arm, item) != item.comparison.n_clusters
            for item in readouts
            if item.comparison.metric is metric
        ):
            return _SPREAD
        sums[metric.name] = by_arm
    return Parts(
        column=bucket.column, n_parts=bucket.n_buckets, is_single=False, cells=cells, sums=sums
    )


def _bucket(spec: AbSpec, arms: Arms) -> HashBucket:
    options = spec.options.certificate or CertificateOptions()
    column = options.assigned_by or (spec.options.clusters or (spec.options.unit,))[0]
    n_strata = max(len(cells) for by_arm in arms.cells.values() for cells in by_arm.values())
    n_buckets = min(options.buckets, MAX_CELLS // (len(arms.levels) * n_strata))
    return HashBucket(column, n_buckets, salt=seed_of(spec))


def seed_of(spec: AbSpec) -> int:
    """Seed of the buckets and the re-randomisations."""
    options = spec.options.certificate
    return spec.seed if options is None or options.seed is None else options.seed


def _n_clusters(by_arm: CellsByArm, readout: Readout) -> int:
    """Clusters of two arms, counted in every arm and bucket in which they have rows."""
    pair = [by_arm[level] for level in readout.comparison.variants]
    return round(sum(float(cell.n.sum()) for arm in pair for cell in arm.values()))


def _n_lost(by_arm: CellsByArm) -> float:
    """Rows without a part: they have the last position."""
    cells = [cell for by_stratum in by_arm.values() for cell in by_stratum.values()]
    return sum(float(_rows(cell)[-1]) for cell in cells)


def _rows(cell: Cell) -> Array:
    return cell.n + cell.n_missing
