"""Realised rates beside promised ones, and when a promise counts as kept or broken.

A rate of simulated experiments is a count, so it has a binomial interval (Clopper and Pearson
1934). A promise is a range. It is kept if the rate lies in the range, broken if even the 99.9 %
interval lies outside of it, and open in between: that many experiments cannot tell.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from causal.checks.certificate import binomial_interval, ks_distances
from causal.core.gram import Array

REJECTION, COVERAGE, POWER = "rejection", "coverage", "power"
UNIFORMITY, INFORMATION = "uniform_pvalues", "mean_information"

_SURE = 0.999
"""Coverage of the interval that decides: among hundreds of rates some 95 % ones lie apart."""

KS_ALPHA = 0.01
"""p-values are uniform if Kolmogorov's test of them is not this small."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """What was promised.

    Attributes:
        lower: Smallest value that keeps the promise.
        upper: Largest value that keeps it.
    """

    lower: float
    upper: float

    @classmethod
    def around(cls, value: float, *, slack: float) -> "Range":
        """A value give or take a slack, as a range of shares."""
        return cls(lower=max(value - slack, 0.0), upper=min(value + slack, 1.0))


UNPROMISED = Range(lower=math.nan, upper=math.nan)
"""A rate that is shown, and of which nothing was promised."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a rate is of.

    Attributes:
        study: The study.
        metric_type: Type of the metric, or what stands in its place.
        estimator: The estimator or the rule.
        scenario: What was simulated.
        seed: Seed of the study.
    """

    study: str
    metric_type: str
    estimator: str
    scenario: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A realised rate; a row of the result of every study.

    Attributes:
        study: The study.
        metric_type: Type of the metric, or what stands in its place.
        estimator: The estimator or the rule.
        scenario: What was simulated.
        n_replications: Simulated experiments behind the rate.
        quantity: `rejection` of a true null hypothesis (or alarm), `coverage` of the true effect,
            `power`, `uniform_pvalues` (the p-value of Kolmogorov's test, see `uniformity`) or
            `mean_information` at the stop, as a share of the planned maximum.
        estimate: The rate.
        ci_lower: Lower end of its 95 % interval; NaN for `uniform_pvalues`.
        ci_upper: Upper end.
        target_lower: Smallest value that keeps the promise; NaN where nothing is promised.
        target_upper: Largest value that keeps it.
        passed: Kept, broken, or `None`: nothing promised, or open.
        seed: Seed of the study.
    """

    study: str
    metric_type: str
    estimator: str
    scenario: str
    n_replications: int
    quantity: str
    estimate: float
    ci_lower: float
    ci_upper: float
    target_lower: float
    target_upper: float
    passed: bool | None
    seed: int

    @property
    def is_open(self) -> bool:
        """Whether something was promised and these experiments cannot tell."""
        return self.passed is None and not math.isnan(self.target_upper)


def share(
    subject: Subject, quantity: str, hits: ArrayLike, *, promised: Range = UNPROMISED
) -> Rate:
    """The share of experiments in which something happened.

    Args:
        subject: What it is of.
        quantity: What happened.
        hits: Whether it did, in each experiment, shape (n,).
        promised: What was promised of the share.
    """
    happened = np.asarray(hits, dtype=np.bool_)
    count, n = int(happened.sum()), len(happened)
    lower, upper = binomial_interval(count, n)
    sure = binomial_interval(count, n, confidence_level=_SURE)
    return Rate(
        **asdict(subject), n_replications=n, quantity=quantity, estimate=count / n,
        ci_lower=lower, ci_upper=upper, target_lower=promised.lower, target_upper=promised.upper,
        passed=verdict(count / n, sure, promised),
    )  # fmt: skip


def mean(subject: Subject, quantity: str, values: Array) -> Rate:
    """A mean over experiments, of which nothing is promised; its interval is the normal one.

    Args:
        subject: What it is of.
        quantity: What is averaged.
        values: One per experiment, shape (n,).
    """
    value = float(values.mean())
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Rate(
        **asdict(subject), n_replications=len(values), quantity=quantity, estimate=value,
        ci_lower=value - half, ci_upper=value + half, target_lower=UNPROMISED.lower,
        target_upper=UNPROMISED.upper, passed=None,
    )  # fmt: skip


def uniformity(subject: Subject, pvalues: Array, *, n_tests: int, n_promised: int) -> Rate:
    """Are the p-values of true null hypotheses uniform? Kolmogorov's test.

    No approximate test has exactly uniform p-values, so enough experiments reject any: uniformity
    is promised of a number of experiments. Where there are several times as many, they are as many
    samples of that number, and the median of their p-values counts.

    Among many tests of uniform p-values some come out small by chance. One below `KS_ALPHA` is
    open, one below `KS_ALPHA` over the number of tests (Bonferroni) is a broken promise.

    Args:
        subject: What they are of.
        pvalues: One per experiment, shape (n,).
        n_tests: Tests of uniformity that are made together.
        n_promised: Experiments of which uniformity is promised.
    """
    from scipy import special

    n = len(pvalues)
    samples = np.array_split(pvalues, max(1, n // n_promised))
    distances = np.array([math.sqrt(len(part)) * max(ks_distances(part)) for part in samples])
    found = float(np.median(special.kolmogorov(distances)))
    passed = True if found > KS_ALPHA else None if found > KS_ALPHA / n_tests else False
    return Rate(
        **asdict(subject), n_replications=n, quantity=UNIFORMITY, estimate=found,
        ci_lower=math.nan, ci_upper=math.nan, target_lower=KS_ALPHA, target_upper=1.0,
        passed=passed,
    )  # fmt: skip


def frame(rates: Sequence[Rate]) -> pd.DataFrame:
    """The rates as a table, one row each."""
    table = pd.DataFrame([asdict(rate) for rate in rates], columns=list(Rate.__annotations__))
    return table.astype({"passed": object})


def verdict(value: float, interval: tuple[float, float], promised: Range) -> bool | None:
    """Kept, broken, or `None`: nothing promised, or open.

    Args:
        value: The rate.
        interval: Where it surely is.
        promised: What was promised of it.
    """
    if math.isnan(promised.upper):
        return None
    if promised.lower <= value <= promised.upper:
        return True
    is_apart = interval[0] > promised.upper or interval[1] < promised.lower
    return False if is_apart else None
