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
from causal.core.frames import FrameRequest, Level
from causal.core.gram import Array
from causal.core.inference import critical_value
from causal.core.result import Diagnostic
from causal.core.threads import one_thread
from causal.experiments.ab_options import AbOptions, AbSpec
from causal.experiments.ab_replicates import Case, Outcomes, bucket_shift, case_of, replicated
from causal.experiments.arms import Arms, Design
from causal.experiments.assigned_parts import Parts, ask_parts, seed_of, treated_parts
from causal.experiments.cluster_replicates import clustered
from causal.experiments.comparison import Inference, Readout
from causal.experiments.levels import TREATMENT

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
    parts = yield from ask_parts(spec, design, subjects.arms, subjects.readouts)
    if isinstance(parts, str):
        return _without(parts)
    return _certified(spec, subjects, how, parts)


def _without(reason: str) -> Certified:
    return Certified(diagnostics=(certificate.not_certified("all metrics", reason),), tables={})


def _certified(spec: AbSpec, subjects: Subjects, how: Inference, parts: Parts) -> Certified:
    options = spec.options.certificate or CertificateOptions()
    checks: list[Diagnostic] = []
    rates: list[Rate] = []
    pvalues: list[pd.DataFrame] = []
    cases: list[Case] = []
    for arm, treatment in enumerate(subjects.arms.levels[1:], start=1):
        group = _cases(spec.options, subjects, parts, treatment)
        effects = [_effects(case, options, power=spec.options.power) for case in group]
        treated = treated_parts(
            parts, subjects.arms, group[0].readout.comparison.variants, options=spec.options
        )
        rng = np.random.default_rng([seed_of(spec), arm])
        with one_thread():
            found = replicated(group, how, rng=rng, treated=treated, effects=effects)
        for case, wanted, outcomes in zip(group, effects, found, strict=True):
            for one in outcomes:
                judged = _judged(case, one, wanted, how, options)
                checks += judged.checks if one.is_headline else []
                rates += judged.rates
                pvalues += judged.pvalues
        cases += group
    checks.append(_parting(cases, subjects, parts, how, options))
    checks += _left_out(spec.options)
    tables = {NAME: certificate.rates_frame(rates)}
    if pvalues:
        tables[f"{NAME}_pvalues"] = pd.concat(pvalues, ignore_index=True)
    return Certified(diagnostics=tuple(checks), tables=tables)


def _cases(options: AbOptions, subjects: Subjects, parts: Parts, treatment: Level) -> list[Case]:
    readouts = [
        item for item in subjects.readouts if item.comparison.variants[TREATMENT] == treatment
    ]
    occupied = parts.occupied(readouts[0].comparison.variants)
    cases = []
    for readout in readouts:
        name = readout.comparison.metric.name
        clusters = None
        if name in parts.sums:
            clusters = clustered(
                readout,
                parts.cells[name],
                parts.sums[name],
                arms=subjects.arms,
                occupied=occupied,
                is_single=parts.is_single,
            )
        cases.append(
            case_of(
                readout,
                parts.cells[name],
                clusters,
                arms=subjects.arms,
                options=options,
                occupied=occupied,
            )
        )
    return cases


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
    parts: Parts,
    how: Inference,
    options: CertificateOptions,
) -> Diagnostic:
    """How the units were parted, and by how much that moves the rates."""
    n_units = sum(subjects.arms.counts.values())
    what = "clusters" if parts.is_single else "buckets"
    made = (
        f"{n_units:,} units in {parts.n_parts:,} {what} by {parts.column}, assigned anew "
        f"{options.replications:,} times"
    )
    unit, clusters = cases[0].options.unit, cases[0].options.clusters
    if parts.is_single:
        return certificate.information(what, None, f"{made}, as many to each arm as in the data")
    if parts.column != (clusters or (unit,))[0]:
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
