"""Stopping rules on trial: how often experiments without an effect stop for one, and the power.

Paths of z statistics are drawn as what they are in large samples, a Brownian motion in information;
one scenario draws skewed units and reads every look with the functions that a readout uses.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal.core.frames import Column, Level
from causal.core.gram import Array, Gram, pooled
from causal.experiments.arms import Arms
from causal.experiments.comparison import Inference, comparisons, raw_readout
from causal.experiments.confidence_sequence import log_evalue, radius, tuning
from causal.experiments.group_sequential import (
    Boundaries,
    Rule,
    WangTsiatis,
    boundaries,
    planned_error,
    stopping,
)
from causal.experiments.metrics import Metric
from causal.experiments.sequential_design import fixed_drift
from causal.experiments.spending import Spending
from causal.experiments.stage_wise import tail_above
from causal.validation import rates
from causal.validation.rates import Range, Rate, Subject
from causal.validation.replication import Findings, Size, Workers, generator, spans

STUDY = "stopping_rules"
ALPHA = 0.05
LOOKS = (5, 10, 20)

PEEKING: Mapping[int, float] = {5: 0.142, 10: 0.193, 20: 0.248}
"""What a test at 5 % becomes when it is looked at so often (Armitage, McPherson and Rowe 1969)."""

RULES: Mapping[str, Rule] = {
    "spending, O'Brien-Fleming": Spending(),
    "spending, Pocock": Spending(family="pocock"),
    "spending, Hwang-Shih-DeCani -4": Spending(family="hwang_shih_decani", parameter=-4),
    "spending, power 3": Spending(family="power", parameter=3),
    "O'Brien-Fleming": WangTsiatis(delta=0.0),
    "Pocock": WangTsiatis(delta=0.5),
    "Wang-Tsiatis 0.25": WangTsiatis(delta=0.25),
}

ALWAYS_VALID: Mapping[str, float] = {
    "confidence sequence": 1.0,
    "mSPRT, narrow prior": 0.1,
    "mSPRT, wide prior": 10.0,
}
"""By name: the mixing variance over that which makes the interval narrowest at the last look."""

LEVEL, AT_MOST = Range(lower=0.045, upper=0.055), Range(lower=0.0, upper=0.055)
_PEEKING_SLACK, _POWER_SLACK, _COVERAGE_SLACK = 0.01, 0.01, 0.005
_PLANNED_POWER = 0.8
_PATHS, _SKEWED = 50, 10
"""Experiments in multiples of those of an estimator: paths cost little, units more."""

_SKEWED_LOOKS, _SKEWED_ROWS = 5, 200
_SKEWED_PIECE = 500
_METRIC = Metric(name="spend", type="mean", column="spend")
_HOW = Inference(confidence_level=1 - ALPHA)

_Z = "z statistic"


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """A piece of work: the paths of one number of looks.

    Attributes:
        n_looks: Looks.
        is_even: Whether they come at equal steps of information.
        n_paths: Paths.
        seed: Seed of the study.
    """

    n_looks: int
    is_even: bool
    n_paths: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class SkewedTrial:
    """A piece of work: some experiments on skewed units."""

    numbers: range
    seed: int


def study(size: Size, workers: Workers) -> Findings:
    """Rejection, power, information at the stop and coverage of every rule.

    Args:
        size: How much is simulated.
        workers: Who runs it.
    """
    plans = [
        Monitored(n_looks=n, is_even=is_even, n_paths=_PATHS * size.replications, seed=size.seed)
        for n in LOOKS
        for is_even in (True, False)
    ]
    found = [rate for part in workers(run_paths, plans) for rate in part]
    trials = [
        SkewedTrial(numbers=part, seed=size.seed)
        for part in spans(0, _SKEWED * size.replications, length=_SKEWED_PIECE)
    ]
    z = np.concatenate(list(workers(run_skewed, trials)))
    found += _levels(z, _fractions(_SKEWED_LOOKS), label="exponential units", seed=size.seed)
    return Findings(rates=rates.frame(found))


def run_paths(plan: Monitored) -> list[Rate]:
    """All rates of one number of looks."""
    at = _fractions(plan.n_looks) if plan.is_even else uneven(plan.n_looks, seed=plan.seed)
    kind = "equal" if plan.is_even else "unequal"
    label = f"{plan.n_looks} {kind} looks"
    z = _paths(at, plan, drift=0.0)
    out = _levels(z, at, label=label, seed=plan.seed)
    drift = fixed_drift(alpha=ALPHA / 2, power=_PLANNED_POWER)
    out += _powers(_paths(at, plan, drift=drift), at, drift=drift, label=label, seed=plan.seed)
    if plan.n_looks == LOOKS[0]:
        for shift in (0.0, drift):
            out += _coverages(_paths(at, plan, drift=shift), at, shift, label=label, seed=plan.seed)
    return out


def run_skewed(trial: SkewedTrial) -> Array:
    """Statistics z of experiments on exponential units, shape (experiments, looks)."""
    return np.array([_skewed_path(generator(trial.seed, STUDY, n)) for n in trial.numbers])


def uneven(n_looks: int, *, seed: int) -> Array:
    """Information at looks that come at irregular times."""
    steps = generator(seed, STUDY, "uneven", n_looks).uniform(0.3, 1.7, n_looks)
    at = np.cumsum(steps) / steps.sum()
    at[-1] = 1.0
    return np.asarray(at)


def limits_of(rule: Rule, fractions: Array) -> Boundaries:
    """The two-sided boundaries of a rule at the looks there are.

    A classic test spends at each look what it planned to spend at equal ones.
    """
    planned = fractions if isinstance(rule, Spending) else _fractions(len(fractions))
    error = planned_error(rule, planned, alpha=ALPHA / 2, is_two_sided=True)
    return boundaries(fractions, error, is_two_sided=True)


def _fractions(n_looks: int) -> Array:
    return np.arange(1, n_looks + 1) / n_looks


def _paths(at: Array, plan: Monitored, *, drift: float) -> Array:
    """Statistics z, shape (paths, looks)."""
    rng = generator(plan.seed, STUDY, plan.n_looks, int(plan.is_even), round(100 * drift))
    steps = np.diff(at, prepend=0.0)
    noise = rng.standard_normal((plan.n_paths, len(at))) * np.sqrt(steps)
    return np.asarray(np.cumsum(drift * steps + noise, axis=1) / np.sqrt(at))


def _levels(z: Array, at: Array, *, label: str, seed: int) -> list[Rate]:
    """How often the rules stop for an effect that is not there."""
    found = []
    fixed = -_normal_quantile(ALPHA / 2)
    promised = Range.around(PEEKING[len(at)], slack=_PEEKING_SLACK)
    tests = [("fixed horizon, looked at", np.full(len(at), fixed), promised)]
    tests += [(name, limits_of(rule, at).efficacy, LEVEL) for name, rule in RULES.items()]
    tests += [(name, _always_valid(at, scale), AT_MOST) for name, scale in ALWAYS_VALID.items()]
    for name, limits, target in tests:
        # Of unequal looks nothing is published: closer pairs of looks inflate the level less.
        is_known = name != tests[0][0] or np.allclose(at, _fractions(len(at)))
        subject = _subject(name, f"{label}, no effect", seed)
        crossed = _crossed(z, limits).any(axis=1)
        kept = target if is_known else rates.UNPROMISED
        found.append(rates.share(subject, rates.REJECTION, crossed, promised=kept))
    found += _by_evidence(z, at, label=label, seed=seed)
    return found


def _by_evidence(z: Array, at: Array, *, label: str, seed: int) -> list[Rate]:
    """The test by e-values in place of the interval."""
    ratio = tuning(alpha=ALPHA, is_two_sided=True) * at
    evidence: Array = log_evalue(z, ratio, is_two_sided=True).max(axis=1)
    subject = _subject("e-value", f"{label}, no effect", seed)
    return [rates.share(subject, rates.REJECTION, evidence >= -math.log(ALPHA), promised=AT_MOST)]


def _powers(z: Array, at: Array, *, drift: float, label: str, seed: int) -> list[Rate]:
    """How often, and how early, the rules find an effect that a fixed test finds in 80 %."""
    found: list[Rate] = []
    scenario = f"{label}, effect with power {_PLANNED_POWER:.0%} at a fixed horizon"
    for name, rule in RULES.items():
        limits = limits_of(rule, at)
        foretold = float(stopping(limits, drift=drift).rejection.sum())
        promised = Range.around(foretold, slack=_POWER_SLACK)
        found += _power(z, at, limits.efficacy, _subject(name, scenario, seed), promised)
    for name, scale in ALWAYS_VALID.items():
        subject = _subject(name, scenario, seed)
        found += _power(z, at, _always_valid(at, scale), subject, rates.UNPROMISED)
    return found


def _power(z: Array, at: Array, limits: Array, subject: Subject, promised: Range) -> Iterator[Rate]:
    crossed = _crossed(z, limits)
    stopped = crossed.any(axis=1)
    yield rates.share(subject, rates.POWER, stopped, promised=promised)
    yield rates.mean(subject, rates.INFORMATION, at[_stops(crossed)])


def _coverages(z: Array, at: Array, drift: float, *, label: str, seed: int) -> list[Rate]:
    """Of the stage-wise interval at the stop, and of the plain one beside it."""
    scenario = f"{label}, {'effect' if drift else 'no effect'}, interval at the stop"
    fixed = -_normal_quantile(ALPHA / 2)
    found = []
    for name, rule in RULES.items():
        limits = limits_of(rule, at)
        first = _stops(_crossed(z, limits.efficacy))
        at_stop = z[np.arange(len(z)), first]
        tails = np.empty(len(z))
        for look in range(len(at)):
            here = first == look
            tails[here] = tail_above(limits, at_stop[here], look=look, drift=drift)
        covered = (tails > ALPHA / 2) & (tails < 1 - ALPHA / 2)
        plain = np.abs(at_stop - drift * np.sqrt(at[first])) <= fixed
        promised = Range.around(1 - ALPHA, slack=_COVERAGE_SLACK)
        subject = _subject(f"{name}, stage-wise", scenario, seed)
        found.append(rates.share(subject, rates.COVERAGE, covered, promised=promised))
        found.append(
            rates.share(_subject(f"{name}, unadjusted", scenario, seed), rates.COVERAGE, plain)
        )
    return found


def _crossed(z: Array, limits: Array) -> NDArray[np.bool_]:
    """At which looks each path is at or beyond the limits, shape (paths, looks)."""
    return np.asarray(np.abs(z) >= limits, dtype=np.bool_)


def _stops(crossed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The look at which each path stops; the last one if it never crosses."""
    ends = crossed.copy()
    ends[:, -1] = True
    return np.asarray(np.argmax(ends, axis=1), dtype=np.intp)


def _always_valid(at: Array, scale: float) -> Array:
    ratio = scale * tuning(alpha=ALPHA, is_two_sided=True) * at
    return radius(ratio, alpha=ALPHA, is_two_sided=True)


def _skewed_path(rng: np.random.Generator) -> Array:
    """The statistic z at every look of an experiment, from readouts of the rows so far."""
    rows = rng.exponential(size=(2, _SKEWED_LOOKS, _SKEWED_ROWS))
    so_far: list[list[Gram]] = [[], []]
    z = np.empty(_SKEWED_LOOKS)
    for look in range(_SKEWED_LOOKS):
        for arm, batches in enumerate(so_far):
            batches.append(_moments(rows[arm, look]))
        z[look] = _statistic([pooled(batches) for batches in so_far])
    return z


def _moments(values: Array) -> Gram:
    mean, n = float(values.mean()), len(values)
    cross = float(((values - mean) ** 2).sum())
    return Gram((Column("spend"),), n, 0, 0, float(n), np.array([mean]), np.array([[cross]]))


def _statistic(grams: Sequence[Gram]) -> float:
    counts: dict[Level, int] = {name: gram.n for name, gram in zip(("c", "t"), grams, strict=True)}
    arms = Arms(
        levels=("c", "t"), counts=counts, n_other=0, moments={_METRIC.name: tuple(grams)}, cells={}
    )
    effect = raw_readout(comparisons(_METRIC, arms, None)[0], _HOW).effects[0]
    return effect.estimate / effect.std_error


def _normal_quantile(share: float) -> float:
    from scipy import special

    return float(special.ndtri(share))


def _subject(estimator: str, scenario: str, seed: int) -> Subject:
    return Subject(study=STUDY, metric_type=_Z, estimator=estimator, scenario=scenario, seed=seed)
