"""The Poisson bootstrap on aggregates: thousands of replicates, without touching the data again.

A replicate of the Poisson bootstrap gives every unit a weight, Poisson with mean 1, in place of a
number of draws with replacement. Here units (or clusters, as wholes) are parted by a hash into
buckets, whose moments by arm and stratum are aggregated once, and a bucket's weight is that of all
its units: a replicate is a weighted sum of the buckets' moments, and thousands of them are one
matrix product. Metrics see the same weights, and so do both arms, for a cluster may lie in both.

What the parting costs: the buckets' sums have the variance of the units' sums, but only B of them
are there to estimate it from. A variance is off by about `sqrt(2 / B)` of itself, a standard error
by half of that, whatever the number of units; there is no bias beyond the factor `1 - 1/B` that
the bootstrap of B items has.

Slopes of covariates, weights of strata and quantiles are found anew in every replicate.

Sources: Chamandy, Muralidharan, Najmi and Naidu (2012), "Estimating uncertainty for massive data
streams" (Google); Hanley and MacGibbon (2006), "Creating non-parametric bootstrap samples using
Poisson frequencies"; Oza and Russell (2001), "Online bagging and boosting".
"""

import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.checks.panel_health import note
from causal.core.errors import DataError, InferenceError
from causal.core.frames import FrameRequest, HashBucket, Level
from causal.core.gram import Array
from causal.core.result import Diagnostic
from causal.experiments import strata
from causal.experiments.arms import Arms, Design
from causal.experiments.bootstrap_intervals import BootstrapInterval, BootstrapOptions, Draws
from causal.experiments.bucket_moments import CellsByArm, Pool, ask_cells, pooled
from causal.experiments.comparison import Inference, Readout, with_draws
from causal.experiments.levels import TREATMENT
from causal.experiments.metrics import Metric
from causal.experiments.rerandomisation import (
    CHUNK_BYTES,
    Replicates,
    Sample,
    estimates,
    weighed,
)

MIN_PARTS = 50
"""Buckets that must hold units of an arm: with fewer the bootstrap's error is too small."""
MAX_UNUSABLE = 0.01
"""Share of the replicates that may lack a result."""
_DOUBLE = 8


@dataclass(frozen=True)
class Kind:
    """Which of the readouts of a comparison is meant.

    Attributes:
        metric: Name of the metric.
        treatment: The treatment.
        is_stratified: Whether strata are weighed alike.
        is_adjusted: Whether covariates are used.
    """

    metric: str
    treatment: Level
    is_stratified: bool = False
    is_adjusted: bool = False

    @classmethod
    def of(cls, readout: Readout) -> "Kind":
        """The kind of a readout."""
        comparison = readout.comparison
        joint = comparison.joint
        return cls(
            comparison.metric.name,
            comparison.variants[TREATMENT],
            is_stratified=joint is not None and joint.estimator in {"post_stratified", "blocked"},
            is_adjusted=len(readout.levels.thetas) > 0,
        )


@dataclass(frozen=True, kw_only=True)
class Bootstraps:
    """The replicates of all metrics that are bootstrapped.

    Attributes:
        draws: Levels of both arms by readout.
        diagnostics: What was resampled.
    """

    draws: Mapping[Kind, Draws] = dataclasses.field(default_factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()

    def joined(self, other: "Bootstraps") -> "Bootstraps":
        """Those of other metrics as well."""
        return Bootstraps(
            draws={**self.draws, **other.draws},
            diagnostics=(*self.diagnostics, *other.diagnostics),
        )

    def read(self, readout: Readout, how: Inference) -> Readout:
        """The readout with bootstrapped uncertainty, if its metric was bootstrapped."""
        return with_draws(readout, self.draws.get(Kind.of(readout)), how)


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """What is resampled, and how.

    Attributes:
        bucket: How units are parted.
        replications: Replicates.
        interval: Which interval is made of them.
        seed: Of the weights.
    """

    bucket: HashBucket
    replications: int
    interval: BootstrapInterval
    seed: int

    @classmethod
    def of(cls, options: BootstrapOptions, *, column: str, seed: int) -> "Resampling":
        """From the options.

        Args:
            options: The options.
            column: What is resampled: the unit or the cluster.
            seed: Of the spec.
        """
        chosen = seed if options.seed is None else options.seed
        return cls(
            bucket=HashBucket(column, options.buckets, salt=chosen),
            replications=options.replications,
            interval=options.interval,
            seed=chosen,
        )

    def weights(self) -> Iterator[Array]:
        """Weights of the buckets, (r, B + 1), in chunks; the last position is no bucket's."""
        rng = np.random.default_rng([self.seed, self.bucket.n_buckets])
        size = self.bucket.n_buckets + 1
        chunk = max(1, CHUNK_BYTES // (_DOUBLE * size))
        for start in range(0, self.replications, chunk):
            shape = (min(chunk, self.replications - start), size)
            yield rng.poisson(1.0, shape).astype(np.float64)

    def draws(self, levels: Array, metric: str) -> Draws:
        """Replicates as draws, those without a result left out.

        Args:
            levels: Shape (r, 2), NaN where there is no result.
            metric: For the message.

        Raises:
            InferenceError: Too many have none.
        """
        is_usable = np.isfinite(levels).all(axis=1)
        if is_usable.mean() < 1.0 - MAX_UNUSABLE:
            raise InferenceError(
                f"{metric}: the estimate does not exist in many bootstrap replicates",
                given=f"{int((~is_usable).sum()):,} of {len(levels):,}",
                allowed="larger strata, or fewer covariates",
            )
        return Draws(levels[is_usable], self.interval)

    def said(self, metric: str, n_parts: int) -> Diagnostic:
        """What was resampled.

        Args:
            metric: Name of the metric.
            n_parts: Buckets that hold units, of the arm with the fewest.
        """
        error = 0.5 * float(np.sqrt(2.0 / n_parts))
        return note(
            f"bootstrap.{metric}",
            error,
            f"{metric}: {self.replications:,} replications over {self.bucket.n_buckets:,} buckets "
            f"of {self.bucket.column}, {n_parts:,} of them with rows in the smaller arm; the "
            f"buckets move a standard error by about {error:.1%}",
        )


def ask_bootstraps(
    design: Design,
    arms: Arms,
    metrics: Sequence[Metric],
    how: Inference,
    *,
    resampling: Resampling,
    stratification: strata.Stratification,
) -> Generator[FrameRequest, pd.DataFrame, Bootstraps]:
    """Replicates of metrics that are functions of means: raw, stratified and adjusted.

    Args:
        design: Who was randomised to what.
        arms: Moments of all arms.
        metrics: The metrics; none: nothing is asked.
        how: How effects are estimated.
        resampling: What is resampled.
        stratification: Whether shares of strata are resampled (`post_stratified`) or given.

    Raises:
        DataError: An arm has too few units or clusters, or a stratum too few units.
        InferenceError: The estimate does not exist in many replicates.
    """
    if not metrics:
        return Bootstraps()
    cells = yield from ask_cells(design, metrics, arms, bucket=resampling.bucket)
    notes = []
    cases = []
    for metric in metrics:
        if design.strata:
            # Says which strata are too thin.
            strata.stratified(metric, arms, stratification=stratification, strata=design.strata)
        n_parts = check_parts(metric.name, _occupied(cells[metric.name], arms), resampling)
        notes.append(resampling.said(metric.name, n_parts))
        cases += [
            _Case.of(metric, (arms.levels[0], treatment), cells[metric.name], design.strata)
            for treatment in arms.levels[1:]
        ]
    found: dict[Kind, list[Array]] = {}
    for weights in resampling.weights():
        for case in cases:
            for kind, levels in _levels(case, weights, how, stratification=stratification):
                found.setdefault(kind, []).append(levels)
    draws = {
        kind: resampling.draws(np.concatenate(parts), kind.metric) for kind, parts in found.items()
    }
    return Bootstraps(draws=draws, diagnostics=tuple(notes))


@dataclass(frozen=True)
class _Case:
    """One metric of one comparison by bucket.

    Attributes:
        metric: The metric.
        treatment: The treatment.
        pools: Of control and treatment, one per stratum.
        has_strata: Whether there are strata.
    """

    metric: Metric
    treatment: Level
    pools: tuple[tuple[Pool, ...], tuple[Pool, ...]]
    has_strata: bool

    @classmethod
    def of(
        cls,
        metric: Metric,
        variants: tuple[Level, Level],
        cells: CellsByArm,
        columns: Sequence[str],
    ) -> "_Case":
        by_arm = [cells[level] for level in variants]
        keys = sorted({key for arm in by_arm for key in arm if arm[key].n.any()}, key=str)
        control, treatment = (tuple(pooled([arm[key]]) for key in keys) for arm in by_arm)
        return cls(metric, variants[TREATMENT], (control, treatment), bool(columns))


def _levels(
    case: _Case, weights: Array, how: Inference, *, stratification: strata.Stratification
) -> Iterator[tuple[Kind, Array]]:
    """Levels of both arms, (r, 2), of every readout of a comparison."""
    control, treatment = (tuple(weighed(pool, weights) for pool in arm) for arm in case.pools)
    free = Replicates(control=control, treatment=treatment)
    has_covariates = bool(case.metric.covariates)
    kinds = [(case.has_strata, has_covariates), (case.has_strata, False), (False, False)]
    for is_stratified, is_adjusted in dict.fromkeys(kinds):
        seen = free if is_stratified else free.plain
        if is_stratified and stratification == "blocked":
            seen = _with_fixed_shares(free, case)
        found = estimates(seen, case.metric.quotients, how, is_adjusted=is_adjusted)
        kind = Kind(
            case.metric.name, case.treatment, is_stratified=is_stratified, is_adjusted=is_adjusted
        )
        yield kind, np.column_stack([found.control, found.treatment])


def _with_fixed_shares(replicates: Replicates, case: _Case) -> Replicates:
    """Strata of the sizes that they have, whatever the weights."""
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    for pools, samples in zip(
        zip(*case.pools, strict=True), zip(*replicates.arms, strict=True), strict=True
    ):
        size = sum(float(pool.n.sum()) for pool in pools)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = size / np.sum([sample.n for sample in samples], axis=0)
        for sample, side in zip(samples, sides, strict=True):
            side.append(dataclasses.replace(sample, n=sample.n * factor))
    return Replicates(control=tuple(sides[0]), treatment=tuple(sides[1]))


def _occupied(cells: CellsByArm, arms: Arms) -> dict[Level, int]:
    """Buckets that hold rows of each arm."""
    n = {level: np.sum([cell.n for cell in cells[level].values()], axis=0) for level in arms.levels}
    return {level: int(np.count_nonzero(counts[:-1])) for level, counts in n.items()}


def check_parts(metric: str, occupied: Mapping[Level, int], resampling: Resampling) -> int:
    """The fewest occupied buckets of an arm.

    Raises:
        DataError: They are too few for a bootstrap.
    """
    level = min(occupied, key=lambda item: occupied[item])
    if occupied[level] < MIN_PARTS:
        raise DataError(
            f"{metric}: too few values of {resampling.bucket.column} in variant {level} for a "
            "bootstrap",
            given=f"{occupied[level]} distinct buckets of them",
            allowed=f"at least {MIN_PARTS}, or inference: formula",
        )
    return occupied[level]
