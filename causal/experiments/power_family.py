"""Several hypotheses in one plan: the size at which each is tested, and what Holm makes of it.

Sources: Holm (1979), "A simple sequentially rejective multiple test procedure"; Dunnett (1955), "A
multiple comparison procedure for comparing several treatments with a control" (treatments that
share a control are correlated).
"""

import math
from typing import Literal

import numpy as np

from causal.core.errors import SpecError
from causal.core.gram import Array

Correction = Literal["none", "bonferroni", "holm"]

_NODES = 64


def alpha_per_test(alpha: float, *, n_tests: int, correction: Correction) -> float:
    """Size of each test of a family whose error rate is `alpha`.

    Holm's first step is Bonferroni's, and a hypothesis is sure of that step only, so a plan that
    must hold whatever the other hypotheses are takes the same size for both.

    Raises:
        SpecError: There is no test.
    """
    if n_tests < 1:
        raise SpecError("a family has at least one test", given=n_tests)
    return alpha if correction == "none" else alpha / n_tests


def holm_power(noncentrality: float, *, n_treatments: int, alpha: float, overlap: float) -> float:
    """Expected share of true effects that Holm's procedure finds, treatments alike, two-sided.

    Given control's error the treatments are independent, so the step-down procedure is a Markov
    chain over its steps; control's error is integrated out by Gauss-Hermite quadrature. Normal
    reference.

    Args:
        noncentrality: Effect of every treatment in standard errors.
        n_treatments: Treatments compared with one control, all with this effect.
        alpha: Error rate of the family.
        overlap: Control's share of the variance of a difference; the correlation of two of them.

    Raises:
        SpecError: There is no treatment, or the overlap is out of range.
    """
    if n_treatments < 1:
        raise SpecError("a family has at least one test", given=n_treatments)
    if not 0 <= overlap < 1:
        raise SpecError("overlap must be at least 0 and below 1", given=overlap)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    found = [
        _expected_rejections(_hit_rates(noncentrality, float(node), n_treatments, alpha, overlap))
        for node in nodes
    ]
    return float(weights @ np.array(found) / weights.sum() / n_treatments)


def _hit_rates(shift: float, shared: float, n: int, alpha: float, overlap: float) -> Array:
    """Given control's error: chance of a p-value below `alpha / (n - j)`, j = 0..n-1."""
    from scipy import stats

    cuts = stats.norm.isf(alpha / 2 / np.arange(n, 0, -1))
    middle, spread = shift + math.sqrt(overlap) * shared, math.sqrt(1 - overlap)
    above = stats.norm.sf((cuts - middle) / spread)
    return np.asarray(above + stats.norm.cdf((-cuts - middle) / spread), dtype=np.float64)


def _expected_rejections(rates: Array) -> float:
    """Expected rejections of the step-down procedure for independent, equal p-values.

    Step j passes when more than j p-values lie below its cut; `passed[k]` is the chance of having
    passed all steps so far with k below the last cut.
    """
    from scipy import stats

    n = len(rates)
    passed = np.zeros(n + 1)
    passed[0] = 1.0
    expected, before = 0.0, 0.0
    for step, rate in enumerate(rates):
        share = (rate - before) / (1.0 - before) if before < 1.0 else 0.0
        moved = np.zeros(n + 1)
        for below in range(n + 1):
            left = n - below
            moved[below:] += passed[below] * stats.binom.pmf(np.arange(left + 1), left, share)
        moved[: step + 1] = 0.0
        expected += float(moved.sum())
        passed, before = moved, float(rate)
    return expected
