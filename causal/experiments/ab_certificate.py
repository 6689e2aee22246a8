"""The certificate of a readout: which passes it takes and what is reported.

For every metric and treatment the units of the two arms are put together, the estimated effect is
taken out of the treated ones, and they are given to the arms anew in the realised shares. The
estimators of the readout are run on every replicate: as it is (type I error), with the estimated
effect put in (coverage of both intervals), and with effects of other sizes (power).
"""

import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.checks import certificate
from causal.checks.certificate import (
    COVERAGE,
    NAME,
    TYPE_ONE,
    CertificateOptions,
    Rate,
    Subject,
    Tally,
    found_rate,
    promised_rate,
)
from causal.core.frames import FrameRequest, HashBucket, Level
from causal.core.gram import Array, Key
from causal.core.inference import critical_value
from causal.core.result import Diagnostic
from causal.experiments.ab_options import AbOptions, AbSpec
from causal.experiments.ab_replicates import Case, Outcomes, bucket_shift, case_of, replicated
from causal.experiments.arms import Arms, Design
from causal.experiments.bucket_moments import CellsByArm, Positions, ask_cells, ask_cluster_sums
from causal.experiments.cluster_replicates import why_not
from causal.experiments.comparison import Inference, Readout
from causal.experiments.levels import TREATMENT

MAX_CELLS = 400_000
"""Arms x strata x buckets that may be asked for."""
MIN_BUCKETS = 2000
MIN_USABLE = 0.9
"""Share of the replicates in which the estimator must have a result."""
_MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Effects of the power curve, as multiples of the one that is to be found with planned power."""
_PLANNED = _MULTIPLES.index(1.0)


@dataclass(frozen=True, kw_only=True)
class Certified:
    """What the certificate adds to a result."""

    diagnostics: tuple[Diagnostic, ...]
    tables: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Subjects:
    """What the readout found, which is to be certified.

    Attributes:
        arms: Moments of all arms.
        readouts: The best readout of each metric and treatment.
    """

    arms: Arms
    readouts: tuple[Readout, ...]


@dataclass(frozen=True, kw_only=True)
class _Buckets:
    """The units by bucket.

    Attributes:
        bucket: How they were parted.
        cells: Moments by metric, arm and stratum.
        sums: Moments over clusters by metric and arm; empty for independent units.
    """

    bucket: HashBucket
    cells: Mapping[str, CellsByArm]
    sums: Mapping[str, CellsByArm]


def ask_certificate(
    spec: AbSpec, design: Design, subjects: Subjects, how: Inference
) -> Generator[FrameRequest, pd.DataFrame, Certified]:
    """Certify the best readout of every metric and treatment.

    Args:
        spec: The analysis; without the option `certificate` nothing is asked.
        design: Who was randomised to what.
        subjects: What was found.
        how: How effects were estimated.

    Raises:
        InferenceError: The replicates do not give the digits of the readout's own functions.
    """
    options = spec.options.certificate
    if options is None:
        return Certified(diagnostics=(), tables={})
    if not subjects.readouts:
        return _without("quantiles and retention cannot be had from sums over buckets")
    bucket = _bucket(spec, options, subjects.arms)
    reason = _impossible(spec.options, bucket)
    if reason is not None:
        return _without(reason)
    metrics = spec.options.moment_metrics
    cells = yield from ask_cells(design, metrics, subjects.arms, bucket=bucket)
    n_lost = max(_n_lost(by_arm) for by_arm in cells.values())
    if n_lost:
        return _without(f"{n_lost:,.0f} rows have no {bucket.column}, by which they were assigned")
    sums: dict[str, CellsByArm] = {}
    for metric in metrics if spec.options.clusters else ():
        by_arm = yield from ask_cluster_sums(
            design, metric, subjects.arms, bucket=bucket, cluster=spec.options.clusters[0]
        )
        if any(
            _n_clusters(by_arm, item) != item.comparison.n_clusters
            for item in subjects.readouts
            if item.comparison.metric is metric
        ):
            return _without("some clusters lie in several arms or buckets, not in one as wholes")
        sums[metric.name] = by_arm
    return _certified(spec, options, subjects, how, _Buckets(bucket=bucket, cells=cells, sums=sums))


def _n_clusters(by_arm: CellsByArm, readout: Readout) -> int:
    """Clusters of two arms, counted in every arm and bucket in which they have rows."""
    pair = [by_arm[level] for level in readout.comparison.variants]
    return round(sum(float(cell.n.sum()) for arm in pair for cell in arm.values()))


def _bucket(spec: AbSpec, options: CertificateOptions, arms: Arms) -> HashBucket:
    column = options.assigned_by or (spec.options.clusters or (spec.options.unit,))[0]
    n_strata = max(len(cells) for by_arm in arms.cells.values() for cells in by_arm.values())
    n_buckets = min(options.buckets, MAX_CELLS // (len(arms.levels) * n_strata))
    return HashBucket(column, n_buckets, salt=_seed(spec, options))


def _seed(spec: AbSpec, options: CertificateOptions) -> int:
    return spec.seed if options.seed is None else options.seed


def _impossible(options: AbOptions, bucket: HashBucket) -> str | None:
    """Why no certificate can be made, as far as is known before any pass."""
    if options.population_sizes is not None:
        return "assigning the units anew does not show how they were sampled from a population"
    if options.time_since_exposure is not None:
        return "units with a row in each of several periods are not assigned anew"
    if options.clusters and (reason := why_not(options)) is not None:
        return reason
    if bucket.n_buckets < MIN_BUCKETS:
        return f"with so many arms and strata only {bucket.n_buckets:,} buckets fit"
    return None


def _n_lost(by_arm: CellsByArm) -> float:
    """Rows without a bucket: they have the last position."""
    cells = [cell for by_stratum in by_arm.values() for cell in by_stratum.values()]
    return sum(float(cell.n[-1] + cell.n_missing[-1]) for cell in cells)


def _without(reason: str) -> Certified:
    return Certified(diagnostics=(certificate.not_certified("all metrics", reason),), tables={})


def _certified(
    spec: AbSpec,
    options: CertificateOptions,
    subjects: Subjects,
    how: Inference,
    buckets: _Buckets,
) -> Certified:
    checks: list[Diagnostic] = []
    rates: list[Rate] = []
    pvalues: list[pd.DataFrame] = []
    cases: list[Case] = []
    for arm, treatment in enumerate(subjects.arms.levels[1:], start=1):
        group = _cases(spec.options, subjects, buckets, treatment)
        effects = [_effects(case, options, power=spec.options.power) for case in group]
        found = replicated(
            group,
            how,
            rng=np.random.default_rng([_seed(spec, options), arm]),
            treated=_treated(
                group, subjects, buckets, is_blocked=spec.options.stratification == "blocked"
            ),
            effects=effects,
        )
        for case, wanted, outcomes in zip(group, effects, found, strict=True):
            for one in outcomes:
                judged = _judged(case, one, wanted, how, options)
                checks += judged.checks if one.is_headline else []
                rates += judged.rates
                pvalues += judged.pvalues
        cases += group
    checks.append(_parting(cases, subjects, buckets.bucket, how, options))
    checks += _left_out(spec.options)
    tables = {NAME: certificate.rates_frame(rates)}
    if pvalues:
        tables[f"{NAME}_pvalues"] = pd.concat(pvalues, ignore_index=True)
    return Certified(diagnostics=tuple(checks), tables=tables)


def _cases(
    options: AbOptions, subjects: Subjects, buckets: _Buckets, treatment: Level
) -> list[Case]:
    readouts = [
        item for item in subjects.readouts if item.comparison.variants[TREATMENT] == treatment
    ]
    occupied = _occupied(buckets.cells, readouts[0].comparison.variants)
    return [
        case_of(
            readout,
            buckets.cells[readout.comparison.metric.name],
            buckets.sums.get(readout.comparison.metric.name),
            arms=subjects.arms,
            options=options,
            occupied=occupied,
        )
        for readout in readouts
    ]


def _occupied(cells: Mapping[str, CellsByArm], variants: Sequence[Level]) -> Positions:
    """Buckets that hold units of these arms, whether or not a metric is missing."""
    first = next(iter(cells.values()))
    counts = [cell.n + cell.n_missing for level in variants for cell in first[level].values()]
    return np.flatnonzero(np.sum(counts, axis=0))


def _treated(
    cases: Sequence[Case], subjects: Subjects, buckets: _Buckets, *, is_blocked: bool
) -> dict[Key, int]:
    """How many buckets to treat: the realised share of what was assigned, in each block its own."""
    control, treatment = cases[0].readout.comparison.variants
    counts = {level: float(count) for level, count in subjects.arms.counts.items()}
    sums = buckets.sums.get(cases[0].metric.name)
    if sums is not None:
        counts = {level: float(sums[level][()].n.sum()) for level in sums}
    n_buckets = len(cases[0].pools[0].n)
    shares: dict[Key, float] = {}
    for case in cases:
        cells = subjects.arms.cells[case.metric.name]
        for key in case.keys:
            pair = [counts[control], counts[treatment]]
            if is_blocked and len(case.keys) > 1:
                pair = [cells[level][key].n for level in (control, treatment)]
            shares.setdefault(key, pair[1] / sum(pair))
    return {
        key: min(max(round(share * n_buckets), 1), n_buckets - 1) for key, share in shares.items()
    }


def _effects(case: Case, options: CertificateOptions, *, power: float) -> list[float]:
    """The effects to put in: around the one to be found with the planned power, then those asked.

    Those asked are shares of the control level, so a level of zero has none.
    """
    from scipy import special

    effect = case.readout.effects[0]
    df = math.inf if effect.df is None else effect.df
    reach = critical_value(effect.confidence_level, df=effect.df) + special.stdtrit(df, power)
    sign = 1.0 if case.metric.direction == "increase" else -1.0
    smallest = sign * float(reach) * effect.std_error
    asked = [share * abs(case.level) for share in options.effects] if case.level else []
    return [*(multiple * smallest for multiple in _MULTIPLES), *asked]


@dataclass(frozen=True)
class _Judged:
    checks: list[Diagnostic]
    rates: list[Rate]
    pvalues: list[pd.DataFrame]


def _judged(
    case: Case,
    one: Outcomes,
    effects: Sequence[float],
    how: Inference,
    options: CertificateOptions,
) -> _Judged:
    """The rates of one estimator; checks are made of those of the headline."""
    comparison = case.readout.comparison
    subject = Subject(
        metric=case.metric.name,
        term=comparison.term,
        estimator=one.estimator,
        scale="absolute",
        is_headline=one.is_headline,
    )
    n_all = one.n_unusable + len(one.pvalues)
    if len(one.pvalues) < MIN_USABLE * n_all:
        why = f"the estimator has no result in {one.n_unusable:,} of {n_all:,} re-randomisations"
        what = f"{case.metric.name}.{comparison.term}"
        return _Judged([certificate.not_certified(what, why)], [], [])
    promise = _Promise(
        how.confidence_level, options.tolerance, case.effect, _share(case, case.effect)
    )
    rates = promise.rates(subject, one.pvalues, one.is_covered, n_unusable=one.n_unusable)
    held = one.has_lift
    if len(case.readout.effects) > 1 and case.level and held.mean() >= MIN_USABLE:
        rates += promise.rates(
            dataclasses.replace(subject, scale="relative"),
            one.lift_pvalues[held],
            one.is_lift_covered[held],
            n_unusable=one.n_unusable + int((~held).sum()),
        )
    power = [
        found_rate(
            subject,
            Tally(
                hits=hits,
                effect=effect,
                effect_share=_share(case, effect),
                n_unusable=one.n_unusable,
            ),
            foretold=_foretold(one, effect, how),
        )
        for effect, hits in zip(effects, one.is_found, strict=True)
    ]
    shown = [rate for rate in rates if (rate.scale, rate.quantity) != ("relative", TYPE_ONE)]
    shown += [power[_PLANNED], *power[len(_MULTIPLES) :]]
    checks = [certificate.rate_check(rate) for rate in shown]
    checks.append(certificate.uniform_check(subject, one.pvalues))
    return _Judged(checks, [*rates, *power], [certificate.pvalues_frame(subject, one.pvalues)])


@dataclass(frozen=True)
class _Promise:
    """What an estimator promises, and the estimated effect on which its intervals are tried."""

    confidence_level: float
    tolerance: float
    effect: float
    effect_share: float

    def rates(
        self,
        subject: Subject,
        pvalues: Array,
        is_covered: NDArray[np.bool_],
        *,
        n_unusable: int,
    ) -> list[Rate]:
        """Tests of no effect, and intervals of the estimated effect when it is put in."""
        alpha = 1.0 - self.confidence_level
        none = Tally(hits=pvalues < alpha, n_unusable=n_unusable)
        put_in = Tally(
            hits=is_covered,
            effect=self.effect,
            effect_share=self.effect_share,
            n_unusable=n_unusable,
        )
        slack = self.tolerance * alpha
        return [
            promised_rate(subject, TYPE_ONE, none, promised=alpha, slack=slack),
            promised_rate(subject, COVERAGE, put_in, promised=1.0 - alpha, slack=slack),
        ]


def _share(case: Case, effect: float) -> float:
    """An effect as a share of the control level."""
    return effect / case.level if case.level else math.nan


def _foretold(one: Outcomes, effect: float, how: Inference) -> float:
    """Power at an effect by the noncentral t distribution with the estimator's own errors."""
    from scipy import special

    std_error, df = math.sqrt(float(np.mean(one.variance))), float(np.mean(one.df))
    critical = critical_value(how.confidence_level, df=df)
    center = abs(effect) / std_error
    found = 1 - special.nctdtr(df, center, critical) + special.nctdtr(df, center, -critical)
    return float(found)


def _parting(
    cases: Sequence[Case],
    subjects: Subjects,
    bucket: HashBucket,
    how: Inference,
    options: CertificateOptions,
) -> Diagnostic:
    """How the units were parted, and by how much that moves the rates."""
    n_units = sum(subjects.arms.counts.values())
    made = (
        f"{n_units:,} units in {bucket.n_buckets:,} buckets by {bucket.column}, assigned anew "
        f"{options.replications:,} times"
    )
    unit, clusters = cases[0].options.unit, cases[0].options.clusters
    if bucket.column != (clusters or (unit,))[0]:
        return certificate.information("buckets", None, made)
    shifts = [bucket_shift(case, alpha=1.0 - how.confidence_level) for case in cases]
    largest = max(shifts, key=abs)
    return certificate.information(
        "buckets", largest, f"{made}; the buckets move a rejection rate by up to {largest:+.2%}"
    )


def _left_out(options: AbOptions) -> list[Diagnostic]:
    """Effects of the readout that have no certificate."""
    has = {
        "segments": options.segments is not None,
        "interaction": options.interaction is not None,
        "multiplicity": options.multiplicity is not None,
    }
    names = [name for name, is_there in has.items() if is_there]
    others = [metric.name for metric in options.metrics if not metric.is_moment]
    why = {
        "the certificate is of the effects over all units, one by one": names,
        "quantiles and retention cannot be had from sums over buckets": others,
    }
    return [
        certificate.not_certified(", ".join(what), reason) for reason, what in why.items() if what
    ]
