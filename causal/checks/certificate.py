"""The certificate of an experiment: what its estimator does when no, or a known, effect is there.

The units of the analysis are randomised anew thousands of times and the estimator that was used is
run on each. With no effect, its test should reject as often as it says; with an effect put in, its
interval should hold that effect as often as it says, and its test should find it as often as was
planned. These are counts, so each has a binomial interval (Clopper and Pearson 1934).

A rate fails when its whole interval lies beyond the tolerated band around what was promised and the
estimator is surer than it may be: it rejects too often, or covers too seldom. An interval on the
other side of the band is a note with its figure: wide intervals cost power, not truth.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from causal.core.gram import Array
from causal.core.result import Diagnostic, Scale
from causal.core.spec import COLUMN_PATTERN, Part

NAME = "certificate"
TYPE_ONE, COVERAGE, POWER, PVALUES = "type_one_error", "coverage", "power", "uniform_pvalues"

_INTERVAL = 0.95
_KS_ALPHA, _KS_DISTANCE = 0.001, 0.03
"""P-values are not uniform when their distance from it is both certain and at least this large."""
_LEVELS = 0.2

_GRID = np.linspace(0.0, 1.0, 201)


class CertificateOptions(Part):
    """How the certificate of an experiment is made.

    Attributes:
        replications: Re-randomisations.
        buckets: Random parts of the units that are re-assigned as wholes. Parting moves a
            realised rate: its error at the 5 % level is about `0.16 / sqrt(buckets)`.
        effects: Effects to put in, as shares of the control level.
        assigned_by: Column of what was assigned to the arms; the cluster where there is one, else
            the unit. Name it when whole groups were assigned but the analysis takes units as
            independent: the certificate then shows what that costs.
        tolerance: Share of the promised error rate by which the realised one may miss it.
        seed: Of buckets and re-randomisations; that of the spec if left out.
    """

    replications: int = Field(default=5000, ge=1000, le=100_000, strict=True)
    buckets: int = Field(default=10_000, ge=2000, le=100_000, strict=True)
    effects: tuple[float, ...] = ()
    assigned_by: str | None = Field(default=None, pattern=COLUMN_PATTERN)
    tolerance: float = Field(default=0.2, gt=0, lt=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63, strict=True)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a rate is of.

    Attributes:
        metric: The metric.
        term: The comparison.
        estimator: The estimator.
        scale: Scale of the effect.
        is_headline: Whether this is the estimate that the result leads with.
    """

    metric: str
    term: str
    estimator: str
    scale: Scale
    is_headline: bool


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of the replicates beside what was promised; a row of the table `certificate`.

    Attributes:
        metric: The metric.
        term: The comparison.
        estimator: The estimator.
        scale: Scale of the effect.
        is_headline: Whether this is the estimate that the result leads with.
        quantity: `type_one_error`, `coverage` or `power`.
        effect: The effect that was put in, in the metric's unit.
        effect_share: The same as a share of the control level; NaN where that is zero.
        rate: Share of the replicates.
        ci_lower: Lower end of the binomial interval.
        ci_upper: Upper end of the binomial interval.
        nominal: What was promised; of power, what the standard error of the result foretells.
        band_lower: Lower end of the tolerated band; NaN for power.
        band_upper: Upper end of the tolerated band; NaN for power.
        n_replications: Replicates behind the rate.
        n_unusable: Replicates in which the estimator has no result, left out.
        passed: Whether interval and band meet; `None` for power, and beyond the band on the safe
            side.
    """

    metric: str
    term: str
    estimator: str
    scale: Scale
    is_headline: bool
    quantity: str
    effect: float
    effect_share: float
    rate: float
    ci_lower: float
    ci_upper: float
    nominal: float
    band_lower: float
    band_upper: float
    n_replications: int
    n_unusable: int
    passed: bool | None


def binomial_interval(
    count: float, n: int, *, confidence_level: float = _INTERVAL
) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934); the count need not be whole."""
    from scipy import special

    tail = (1 - confidence_level) / 2
    lower = 0.0 if count == 0 else float(special.betaincinv(count, n - count + 1, tail))
    upper = 1.0 if count == n else float(special.betaincinv(count + 1, n - count, 1 - tail))
    return lower, upper


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What happened in every replicate.

    Attributes:
        hits: Whether it did, in each usable replicate, shape (r,).
        effect: The effect put in, in the metric's unit.
        effect_share: The same as a share of the control level.
        n_unusable: Replicates without a result.
    """

    hits: NDArray[np.bool_]
    effect: float = 0.0
    effect_share: float = 0.0
    n_unusable: int = 0


def promised_rate(
    subject: Subject, quantity: str, tally: Tally, *, promised: float, slack: float
) -> Rate:
    """A realised rate against a promised one.

    Args:
        subject: What it is of.
        quantity: Which rate.
        tally: What happened.
        promised: The promised rate.
        slack: How far from it the realised rate may lie.
    """
    band = (max(promised - slack, 0.0), min(promised + slack, 1.0))
    rate = _rate(subject, quantity, tally, nominal=promised, band=band)
    meets = rate.ci_upper >= band[0] and rate.ci_lower <= band[1]
    return dataclasses.replace(rate, passed=True if meets else False if _is_loose(rate) else None)


def found_rate(subject: Subject, tally: Tally, *, foretold: float) -> Rate:
    """The realised power at an effect.

    Args:
        subject: What it is of.
        tally: What happened.
        foretold: Power that the standard error foretells.
    """
    return _rate(subject, POWER, tally, nominal=foretold, band=(math.nan, math.nan))


def _rate(
    subject: Subject, quantity: str, tally: Tally, *, nominal: float, band: tuple[float, float]
) -> Rate:
    count, n = int(tally.hits.sum()), len(tally.hits)
    lower, upper = binomial_interval(count, n)
    return Rate(
        **asdict(subject),
        quantity=quantity,
        effect=tally.effect,
        effect_share=tally.effect_share,
        rate=count / n,
        ci_lower=lower,
        ci_upper=upper,
        nominal=nominal,
        band_lower=band[0],
        band_upper=band[1],
        n_replications=n,
        n_unusable=tally.n_unusable,
        passed=None,
    )


def rate_check(rate: Rate) -> Diagnostic:
    """A rate as a check."""
    scale = ".relative" if rate.scale == "relative" else ""
    words = {
        TYPE_ONE: "with no effect the test rejects in",
        COVERAGE: f"the interval of an effect of {rate.effect:.4g} holds it in",
        POWER: f"an effect of {_effect(rate)} is found in",
    }[rate.quantity]
    side = "promised" if rate.quantity != POWER else "foretold by the standard error:"
    unusable = f"; {rate.n_unusable:,} without a result left out" if rate.n_unusable else ""
    return Diagnostic(
        name=f"{NAME}.{rate.quantity}.{rate.metric}.{rate.term}{scale}",
        statistic=rate.rate,
        pvalue=None,
        passed=rate.passed,
        detail=(
            f"{rate.metric} ({rate.estimator}): {words} {rate.rate:.2%} "
            f"[{rate.ci_lower:.2%}, {rate.ci_upper:.2%}] of {rate.n_replications:,} "
            f"re-randomisations, {side} {rate.nominal:.3g}{_verdict(rate)}{unusable}"
        ),
    )


def _effect(rate: Rate) -> str:
    share = f" ({rate.effect_share:+.2%})" if math.isfinite(rate.effect_share) else ""
    return f"{rate.effect:.4g}{share}"


def _verdict(rate: Rate) -> str:
    if rate.passed or rate.quantity == POWER:
        return ""
    why = (
        "its intervals are too short for these units"
        if _is_loose(rate)
        else "on the safe side, its intervals are wider than these units need"
    )
    return f", tolerated {rate.band_lower:.3g} to {rate.band_upper:.3g}: {why}"


def _is_loose(rate: Rate) -> bool:
    """Whether the estimator is surer than it may be."""
    is_high = rate.rate > rate.nominal
    return is_high if rate.quantity == TYPE_ONE else not is_high


def uniform_check(subject: Subject, pvalues: Array) -> Diagnostic:
    """Are the p-values uniform when there is no effect? Kolmogorov's distance.

    They fail where too many are small, up to the levels at which anyone tests; else that is said.

    Args:
        subject: What they are of.
        pvalues: One per usable replicate, shape (r,).
    """
    from scipy import special

    above, _ = ks_distances(pvalues, level=_LEVELS)
    distance = max(ks_distances(pvalues))
    pvalue = float(special.kolmogorov(math.sqrt(len(pvalues)) * distance))
    is_far = pvalue < _KS_ALPHA and distance >= _KS_DISTANCE
    is_loose = above >= _KS_DISTANCE and special.kolmogorov(math.sqrt(len(pvalues)) * above) < (
        _KS_ALPHA
    )
    safe = (
        ": on the safe side, small ones are no more than they should be"
        if is_far and not is_loose
        else ""
    )
    return Diagnostic(
        name=f"{NAME}.{PVALUES}.{subject.metric}.{subject.term}",
        statistic=distance,
        pvalue=pvalue,
        passed=False if is_loose else None if is_far else True,
        detail=(
            f"{subject.metric} ({subject.estimator}): with no effect the p-values are at most "
            f"{distance:.3f} away from uniform, p = {pvalue:.3g}{safe}"
        ),
    )


def ks_distances(pvalues: Array, *, level: float = 1.0) -> tuple[float, float]:
    """How far the p-values' distribution lies above the uniform one at most, and how far below.

    Args:
        pvalues: Shape (r,).
        level: Only p-values up to this one count.
    """
    ordered, n = np.sort(pvalues), len(pvalues)
    steps, kept = np.arange(n + 1) / n, ordered <= level
    above, below = (steps[1:] - ordered)[kept], (ordered - steps[:-1])[kept]
    return float(above.max(initial=0.0)), float(below.max(initial=0.0))


def information(what: str, statistic: float | None, detail: str) -> Diagnostic:
    """A fact about the certificate."""
    return Diagnostic(
        name=f"{NAME}.{what}", statistic=statistic, pvalue=None, passed=None, detail=detail
    )


def not_certified(what: str, why: str) -> Diagnostic:
    """What has no certificate, and why."""
    return Diagnostic(
        name=f"{NAME}.none.{what}",
        statistic=None,
        pvalue=None,
        passed=None,
        detail=f"{what}: not certified: {why}",
    )


def rates_frame(rates: Sequence[Rate]) -> pd.DataFrame:
    """The rates as a table."""
    frame = pd.DataFrame([asdict(rate) for rate in rates], columns=list(Rate.__annotations__))
    return frame.astype({"passed": object})


def pvalues_frame(subject: Subject, pvalues: Array) -> pd.DataFrame:
    """Share of p-values up to each value of a grid, for a figure."""
    shares = np.searchsorted(np.sort(pvalues), _GRID, side="right") / len(pvalues)
    held = {name: value for name, value in asdict(subject).items() if name != "scale"}
    return pd.DataFrame({"pvalue": _GRID, "share": shares, "n_replications": len(pvalues)}).assign(
        **held
    )
