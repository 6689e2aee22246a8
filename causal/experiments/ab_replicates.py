"""The estimators of a readout over its re-randomised units, checked against the readout's own code.

One replicate of every comparison goes through the functions that made the readout and must give
the same digits; otherwise nothing is counted. So what is certified is the estimator that was used,
also after its formula changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal.core.errors import InferenceError
from causal.core.gram import Array, Gram, Key
from causal.experiments import strata
from causal.experiments.ab_options import AbOptions
from causal.experiments.arms import Arms
from causal.experiments.bucket_moments import CellsByArm, Pool, Positions, pooled
from causal.experiments.cluster_moments import stacked_clusters
from causal.experiments.cluster_replicates import Clustered, assigned_clusters, clustering_of
from causal.experiments.comparison import (
    Comparison,
    Inference,
    Readout,
    adjusted_readout,
    comparisons,
    raw_readout,
)
from causal.experiments.complete_randomisation import assignments
from causal.experiments.levels import TREATMENT, Quotient
from causal.experiments.metrics import Metric
from causal.experiments.rerandomisation import (
    Estimates,
    Replicates,
    Sample,
    estimates,
    samples,
)

BLOCK = 5000
"""Replicates whose moments are held at a time."""
_SAME = 1e-8


@dataclass(frozen=True, kw_only=True)
class Case:
    """One metric of one comparison, with the estimated effect taken out.

    Attributes:
        readout: The best readout.
        options: Options of the method.
        arms: Moments of all arms.
        keys: The strata.
        pools: Control and treatment together by bucket, one per stratum.
        clusters: Their clusters, where errors are clustered.
    """

    readout: Readout
    options: AbOptions
    arms: Arms
    keys: tuple[Key, ...]
    pools: tuple[Pool, ...]
    clusters: Clustered | None

    @property
    def metric(self) -> Metric:
        """The metric."""
        return self.readout.comparison.metric

    @property
    def outcome(self) -> Quotient:
        """The metric's outcome as a function of a mean vector."""
        return self.metric.quotients[0]

    @property
    def effect(self) -> float:
        """The estimated effect, which was taken out."""
        return self.readout.effects[0].estimate

    @property
    def mean(self) -> Array:
        """Mean vector of all units without the effect, shape (p,)."""
        counts = np.array([pool.n.sum() for pool in self.pools])
        return np.asarray(
            counts @ np.array([pool.center for pool in self.pools]) / counts.sum(), dtype=np.float64
        )

    @property
    def level(self) -> float:
        """Level of all units without the effect: the control level of every replicate."""
        return self.outcome.value(self.mean)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """One estimator in every usable replicate.

    Attributes:
        estimator: Its name in the readout.
        is_headline: Whether the readout leads with it.
        pvalues: Of the difference, no effect, shape (r,).
        lift_pvalues: Of the lift, no effect, shape (r,).
        is_covered: Whether the interval holds the estimated effect that was put in, shape (r,).
        is_lift_covered: The same of the lift, shape (r,).
        has_lift: Whether there is an interval of the lift, shape (r,).
        is_found: Whether an effect is found, one row per effect of interest, shape (k, r).
        variance: Squared standard error, no effect, shape (r,).
        df: Degrees of freedom, no effect, shape (r,).
        n_unusable: Replicates without a result.
    """

    estimator: str
    is_headline: bool
    pvalues: Array
    lift_pvalues: Array
    is_covered: NDArray[np.bool_]
    is_lift_covered: NDArray[np.bool_]
    has_lift: NDArray[np.bool_]
    is_found: NDArray[np.bool_]
    variance: Array
    df: Array
    n_unusable: int


def case_of(
    readout: Readout,
    cells: CellsByArm,
    clusters: Clustered | None,
    *,
    arms: Arms,
    options: AbOptions,
    occupied: Positions,
) -> Case:
    """The units of a comparison by bucket.

    Args:
        readout: The best readout of the comparison.
        cells: Moments by arm, stratum and bucket.
        clusters: The clusters, where errors are clustered.
        arms: Moments of all arms.
        options: Options of the method.
        occupied: Positions of the buckets that hold units.
    """
    effect = readout.effects[0].estimate
    outcome = readout.comparison.metric.quotients[0]
    control, treatment = (cells[level] for level in readout.comparison.variants)
    keys = sorted({key for by in (control, treatment) for key in by}, key=str)
    pools = []
    for key in keys:
        parts = [control[key]] if key in control else []
        parts += [treatment[key].without(effect, outcome)] if key in treatment else []
        pools.append(pooled([part.within(occupied) for part in parts]))
    is_held = [pool.n.sum() > 0 for pool in pools]
    return Case(
        readout=readout,
        options=options,
        arms=arms,
        keys=tuple(key for key, held in zip(keys, is_held, strict=True) if held),
        pools=tuple(pool for pool, held in zip(pools, is_held, strict=True) if held),
        clusters=clusters,
    )


def replicated(
    cases: Sequence[Case],
    how: Inference,
    *,
    rng: np.random.Generator,
    treated: Mapping[Key, int],
    effects: Sequence[Sequence[float]],
) -> list[list[Outcomes]]:
    """Every estimator of every case of one comparison, over the same re-randomisations.

    Args:
        cases: Metrics of one treatment against control, over the same buckets.
        how: How effects are estimated.
        rng: Source of randomness.
        treated: Buckets to treat in each stratum.
        effects: Effects of interest of each case.

    Returns:
        For each case its estimators, the headline first.

    Raises:
        InferenceError: A replicate does not give the digits of the readout's own functions.
    """
    parts: list[list[list[Outcomes]]] = [[] for _ in cases]
    replications = replications_of(cases[0].options)
    for start in range(0, replications, BLOCK):
        blocks = _blocks(cases, rng, size=min(BLOCK, replications - start), treated=treated)
        for case, block, wanted, found in zip(cases, blocks, effects, parts, strict=True):
            names = reproduced(case, block, how)
            found.append(
                [
                    _outcomes(case, one, block, how, effects=wanted)
                    for one in estimators_of(case, names)
                ]
            )
    return [[_joined(group) for group in zip(*found, strict=True)] for found in parts]


def replications_of(options: AbOptions) -> int:
    """How many re-randomisations are asked for."""
    return 0 if options.certificate is None else options.certificate.replications


@dataclass(frozen=True)
class Estimator:
    """One of the estimators of a readout.

    Attributes:
        name: Its name in the readout.
        is_stratified: Whether strata are weighed alike.
        is_adjusted: Whether covariates are used.
        is_headline: Whether the readout leads with it.
    """

    name: str
    is_stratified: bool
    is_adjusted: bool
    is_headline: bool

    def of(self, replicates: Replicates) -> Replicates:
        """The replicates as it sees them."""
        return replicates if self.is_stratified else replicates.plain


def estimators_of(case: Case, names: Sequence[str] = ("", "", "")) -> list[Estimator]:
    """The estimators that the readout reports, the headline first, with these names."""
    has_strata, has_covariates = case.options.strata is not None, bool(case.metric.covariates)
    kinds = [(has_strata, has_covariates), (has_strata, False), (False, False)]
    return [
        Estimator(names[position], is_stratified, is_adjusted, is_headline=position == 0)
        for position, (is_stratified, is_adjusted) in enumerate(dict.fromkeys(kinds))
    ]


def _blocks(
    cases: Sequence[Case], rng: np.random.Generator, *, size: int, treated: Mapping[Key, int]
) -> list[Replicates]:
    n_buckets = len(cases[0].pools[0].n)
    chunks: list[list[Replicates]] = [[] for _ in cases]
    draws = assignments(rng, n_buckets=n_buckets, replications=size, treated=set(treated.values()))
    for assigned in draws:
        for case, found in zip(cases, chunks, strict=True):
            found.append(replicates_of(case, assigned, treated))
    return [stacked(found) for found in chunks]


def replicates_of(
    case: Case, assigned: Mapping[int, Array], treated: Mapping[Key, int]
) -> Replicates:
    """The replicates of a case when these buckets are treated.

    Args:
        case: The units by bucket.
        assigned: By number of treated buckets, zeros and ones of shape (r, B).
        treated: Buckets to treat in each stratum.
    """
    pairs = [
        samples(pool, assigned[treated[key]])
        for key, pool in zip(case.keys, case.pools, strict=True)
    ]
    clusters = None
    if case.clusters is not None:
        first = assigned[treated[case.keys[0]]]
        clusters = assigned_clusters(case.clusters, pairs[0], first)
    return Replicates(
        control=tuple(control for control, _ in pairs),
        treatment=tuple(treatment for _, treatment in pairs),
        clusters=clusters,
        is_sampled=case.options.strata is not None
        and case.options.stratification == "post_stratified",
    )


def _outcomes(
    case: Case,
    one: Estimator,
    replicates: Replicates,
    how: Inference,
    *,
    effects: Sequence[float],
) -> Outcomes:
    alpha = 1.0 - how.confidence_level
    seen = one.of(replicates)

    def at(effect: float) -> Estimates:
        moved = seen if effect == 0 else seen.moved(effect, case.outcome)
        return estimates(moved, case.metric.quotients, how, is_adjusted=one.is_adjusted)

    null, true = at(0.0), at(case.effect)
    usable = null.is_usable & true.is_usable
    lift = case.effect / case.level if case.level else np.nan
    has_lift, lift_pvalues, is_lift_covered = _lifts(null, true, how, lift=lift)
    covered = beside(true.difference - case.effect, true.std_error, true.df, alpha=alpha) >= alpha
    found = [beside(e.difference, e.std_error, e.df, alpha=alpha) < alpha for e in map(at, effects)]
    pvalues = two_sided(null.difference, null.std_error, null.df)
    return Outcomes(
        estimator=one.name,
        is_headline=one.is_headline,
        pvalues=pvalues[usable],
        lift_pvalues=lift_pvalues[usable],
        is_covered=covered[usable],
        is_lift_covered=is_lift_covered[usable],
        has_lift=has_lift[usable],
        is_found=np.reshape(found, (len(effects), len(usable)))[:, usable],
        variance=null.variance[usable],
        df=null.df[usable],
        n_unusable=int((~usable).sum()),
    )


def _lifts(
    null: Estimates, true: Estimates, how: Inference, *, lift: float
) -> tuple[NDArray[np.bool_], Array, NDArray[np.bool_]]:
    """Where there is an interval of the lift, the test of none, and whether it holds `lift`."""
    alpha = 1.0 - how.confidence_level
    if how.relative_interval == "delta":
        null_pvalues = two_sided(null.lift, null.lift_error, null.df)
        true_pvalues = beside(true.lift - lift, true.lift_error, true.df, alpha=alpha)
        return np.isfinite(true_pvalues), null_pvalues, true_pvalues >= alpha
    # Fieller's set is an interval where the control level differs from zero.
    is_bounded = beside(true.control, true.control_error, true.df, alpha=alpha) < alpha
    gap = true.treatment - (1.0 + lift) * true.control
    null_pvalues = two_sided(null.difference, null.std_error, null.df)
    covered = beside(gap, true.error_at(lift), true.df, alpha=alpha) >= alpha
    return is_bounded, null_pvalues, covered


def two_sided(gap: Array, std_error: Array, df: Array) -> Array:
    """P-values of `gap / std_error` in every replicate; NaN where there is no error."""
    from scipy import special

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(2 * special.stdtr(df, -np.abs(gap / std_error)), dtype=np.float64)


def beside(gap: Array, std_error: Array, df: Array, *, alpha: float) -> Array:
    """P-values that are only compared with `alpha`: exact near it, else 0 or 1; NaN without one.

    A tail of Student's t takes longer than all else in a replicate, and few replicates are near.
    """
    from scipy import special

    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.abs(gap / std_error)
    tail = 1.0 - alpha / 2
    least, most = special.ndtri(tail), special.stdtrit(np.fmin.reduce(df), tail)
    is_near = (size > (1.0 - _SAME) * least) & ~(size > (1.0 + _SAME) * most)
    pvalues = np.where(np.isnan(size) | ~(df > 0), np.nan, (size < least).astype(np.float64))
    pvalues[is_near] = two_sided(gap[is_near], std_error[is_near], df[is_near])
    return pvalues


def _joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Blocks of replicates of one estimator put together."""
    if len(parts) == 1:
        return parts[0]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=-1)
        for name in Outcomes.__annotations__
        if name not in {"estimator", "is_headline", "n_unusable"}
    }
    return Outcomes(
        **arrays,
        estimator=parts[0].estimator,
        is_headline=parts[0].is_headline,
        n_unusable=sum(part.n_unusable for part in parts),
    )


def reproduced(case: Case, replicates: Replicates, how: Inference) -> list[str]:
    """The first usable replicate through the functions that made the readout.

    Returns:
        What the readout calls each of its estimators; empty where no replicate is usable.

    Raises:
        InferenceError: They give other digits, so the replicates are not of this estimator.
    """
    moved = replicates.moved(case.effect, case.outcome)
    names = []
    for one in estimators_of(case):
        found = estimates(one.of(moved), case.metric.quotients, how, is_adjusted=one.is_adjusted)
        # The readout refuses a lift without an error, so a replicate that has one is no test.
        has_lift = (found.lift_error > 0) | (found.control == 0)
        usable = np.flatnonzero(found.is_usable & has_lift)
        if not len(usable):
            names.append("")
            continue
        expected = _read(case, moved, one, how, at=int(usable[0]))
        _compare(found, expected, at=int(usable[0]))
        names.append(expected.estimator)
    return names


def _compare(found: Estimates, expected: Readout, *, at: int) -> None:
    scales = [(found.difference, found.std_error), (found.lift, found.lift_error)]
    for (value, std_error), effect in zip(scales, expected.effects, strict=False):
        pairs = {
            "estimate": (value[at], effect.estimate, effect.std_error),
            "standard error": (std_error[at], effect.std_error, 0.0),
            "degrees of freedom": (found.df[at], effect.df or np.nan, 0.0),
        }
        for name, (ours, theirs, slack) in pairs.items():
            if not abs(ours - theirs) <= _SAME * (abs(theirs) + slack):
                raise InferenceError(
                    f"{effect.metric}: the certificate does not reproduce the {name} of "
                    f"{effect.estimator}, {effect.scale}",
                    given=f"{ours:.12g} for {theirs:.12g}",
                )


def _read(
    case: Case, replicates: Replicates, one: Estimator, how: Inference, *, at: int
) -> Readout:
    """One replicate as the readout's functions see it."""
    comparison = _comparison(case, replicates, one, at=at)
    return adjusted_readout(comparison, how) if one.is_adjusted else raw_readout(comparison, how)


def _comparison(case: Case, replicates: Replicates, one: Estimator, *, at: int) -> Comparison:
    name, variants = case.metric.name, case.readout.comparison.variants
    whole = [item[0] for item in replicates.plain.arms]
    pair = {level: _gram(case, item, at) for level, item in zip(variants, whole, strict=True)}
    moments = tuple(
        pair.get(level, gram)
        for level, gram in zip(case.arms.levels, case.arms.moments[name], strict=True)
    )
    cells = {
        level: {key: _gram(case, item, at) for key, item in zip(case.keys, arm, strict=True)}
        for level, arm in zip(variants, replicates.arms, strict=True)
    }
    arms = Arms(
        levels=case.arms.levels,
        counts=case.arms.counts,
        n_other=0,
        moments={name: moments},
        cells={name: cells},
    )
    if one.is_stratified:
        pair_only = Arms(
            levels=variants, counts=arms.counts, n_other=0, moments={}, cells=arms.cells
        )
        return strata.stratified(
            case.metric,
            pair_only,
            stratification=case.options.stratification,
            strata=case.options.strata or (),
        )[0]
    clustering = None
    if case.clusters is not None and replicates.clusters is not None:
        clustering = clustering_of(case.clusters, arms, replicates.clusters, at=at)
    position = case.arms.levels.index(variants[TREATMENT])
    joint = None if clustering is None else [clustering] * (len(arms.levels) - 1)
    return comparisons(case.metric, arms, joint)[position - 1]


def _gram(case: Case, sample: Sample, at: int) -> Gram:
    n = round(float(sample.n[at]))
    return Gram(case.metric.terms, n, 0, 0, float(n), sample.mean[at], sample.cross[at])


def stacked(parts: Sequence[Replicates]) -> Replicates:
    """Chunks of replicates of one case put together."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Replicates(
        control=_stacked_samples([part.control for part in parts]),
        treatment=_stacked_samples([part.treatment for part in parts]),
        clusters=stacked_clusters([part.clusters for part in parts if part.clusters is not None]),
        is_sampled=first.is_sampled,
    )


def _stacked_samples(parts: Sequence[tuple[Sample, ...]]) -> tuple[Sample, ...]:
    return tuple(
        Sample(*(np.concatenate([getattr(item, name) for item in chunk]) for name in _FIELDS))
        for chunk in zip(*parts, strict=True)
    )


_FIELDS = ("n", "mean", "cross")


def bucket_shift(case: Case, *, alpha: float) -> float:
    """By how much parting the units into buckets moves the rejection rate of this metric.

    The bucketed difference has the variance `sum_b T_b^2` of the buckets' sums in place of
    `sum_g T_g^2` of what was assigned (units, or clusters). Their ratio is known exactly and is
    `1 +- sqrt(2 / B)`, whatever the tails; a test of normal size alpha changes by
    `z phi(z) (ratio - 1)`.
    """
    from scipy import special

    gradient = _slope(case)
    ones = np.ones((1, len(case.pools[0].n)))
    off = [pool.center - case.mean for pool in case.pools]
    sums = np.sum(
        [
            (pool.first + pool.n[:, None] * step) @ gradient
            for pool, step in zip(case.pools, off, strict=True)
        ],
        axis=0,
    )
    if case.clusters is not None:
        whole = samples(case.pools[0], ones)
        middle = assigned_clusters(case.clusters, whole, ones).between[TREATMENT][0]
    else:
        middle = np.sum(
            [
                pool.second.sum(axis=0) + pool.n.sum() * np.outer(step, step)
                for pool, step in zip(case.pools, off, strict=True)
            ],
            axis=0,
        )
    ratio = float(sums @ sums) / float(gradient @ middle @ gradient)
    z = float(special.ndtri(1 - alpha / 2))
    return z * float(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)) * (ratio - 1.0)


def _slope(case: Case) -> Array:
    return case.outcome.gradient(case.mean)
