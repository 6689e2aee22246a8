"""Several tests at once: adjusted p-values and the intervals that go with them.

A family is a set of m hypotheses that are judged together. Two error rates are offered.

Family-wise error rate: the probability of one or more false rejections. `bonferroni`, `holm`
(Holm 1979, "A simple sequentially rejective multiple test procedure") and `hommel` (Hommel 1988,
"A stagewise rejective multiple test procedure based on a modified Bonferroni test"). The first two
hold under any dependence of the tests; Hommel's needs Simes' inequality, as independent or
positively dependent tests satisfy it.

False discovery rate: the expected share of false ones among the rejections. `benjamini_hochberg`
(1995) for independent or positively dependent tests, `benjamini_yekutieli` (2001) for any.

Intervals: those of `bonferroni`, `holm` and `hommel` are Bonferroni's, each at `1 - alpha / m`, so
all m parameters are covered together with probability `1 - alpha` or more. The stepwise tests of
Holm and Hommel reject more than these intervals show: no two-sided intervals are known that are
simultaneous, bounded and agree with them, and those that take the stepwise levels themselves
(`1 - alpha / (m - i + 1)` for the i-th smallest p-value) do not cover together. With a false
discovery rate the R rejected parameters are covered up to an expected share alpha of misses if
each has the level `1 - R alpha / m` (Benjamini and Yekutieli 2005, "False discovery rate-adjusted
multiple confidence intervals for selected parameters"). The same level is used for the others,
with R = 1 if nothing is rejected; then an interval excludes zero just when its test rejects.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from causal.core.errors import InferenceError
from causal.core.gram import Array

Correction = Literal["bonferroni", "holm", "hommel", "benjamini_hochberg", "benjamini_yekutieli"]

FALSE_DISCOVERY: tuple[Correction, ...] = ("benjamini_hochberg", "benjamini_yekutieli")


def adjusted_pvalues(pvalues: Array, *, correction: Correction) -> Array:
    """P-values that may be compared with alpha as if each were the only one.

    Args:
        pvalues: Two-sided p-values of the m hypotheses of a family, shape (m,), in any order.
        correction: The procedure.

    Returns:
        Shape (m,), in the order of `pvalues`: hypothesis i is rejected at alpha just when its
        adjusted p-value is at most alpha.

    Raises:
        InferenceError: There is no p-value, or one is not between 0 and 1.
    """
    found = np.asarray(pvalues, dtype=np.float64)
    if found.size == 0 or not ((found >= 0) & (found <= 1)).all():
        raise InferenceError("p-values between 0 and 1 are needed", given=found.tolist())
    order = np.argsort(found, kind="stable")
    out = np.empty_like(found)
    out[order] = _PROCEDURES[correction](found[order])
    return np.minimum(out, 1.0)


def interval_levels(pvalues: Array, *, correction: Correction, alpha: float) -> Array:
    """Confidence level of each parameter's own interval, shape (m,).

    Args:
        pvalues: Unadjusted p-values of the family, shape (m,).
        correction: The procedure.
        alpha: Error rate that the family is to keep.
    """
    size = len(pvalues)
    if correction not in FALSE_DISCOVERY:
        return np.full(size, 1.0 - alpha / size)
    n_rejected = int((adjusted_pvalues(pvalues, correction=correction) <= alpha).sum())
    share = max(n_rejected, 1) / size
    if correction == "benjamini_yekutieli":
        share /= _harmonic(size)
    return np.full(size, 1.0 - alpha * share)


def _bonferroni(ascending: Array) -> Array:
    return ascending * len(ascending)


def _holm(ascending: Array) -> Array:
    steps = np.arange(len(ascending), 0, -1)
    return np.maximum.accumulate(ascending * steps)


def _hommel(ascending: Array) -> Array:
    """Wright's algorithm (1992, "Adjusted p-values for simultaneous inference", appendix)."""
    size = len(ascending)
    adjusted = ascending.copy()
    for m in range(size, 1, -1):
        # Simes' p-value of the m - 1 largest bounds what an intersection of m hypotheses gives.
        top = ascending[size - m + 1 :]
        smallest = float((m * top / np.arange(2, m + 1)).min())
        adjusted[size - m + 1 :] = np.maximum(adjusted[size - m + 1 :], smallest)
        low = slice(0, size - m + 1)
        adjusted[low] = np.maximum(adjusted[low], np.minimum(smallest, m * ascending[low]))
    return adjusted


def _benjamini_hochberg(ascending: Array) -> Array:
    size = len(ascending)
    scaled = ascending * size / np.arange(1, size + 1)
    return np.asarray(np.minimum.accumulate(scaled[::-1])[::-1], dtype=np.float64)


def _benjamini_yekutieli(ascending: Array) -> Array:
    return _benjamini_hochberg(ascending) * _harmonic(len(ascending))


def _harmonic(size: int) -> float:
    return float((1.0 / np.arange(1, size + 1)).sum())


_PROCEDURES: Mapping[Correction, Callable[[Array], Array]] = {
    "bonferroni": _bonferroni,
    "holm": _holm,
    "hommel": _hommel,
    "benjamini_hochberg": _benjamini_hochberg,
    "benjamini_yekutieli": _benjamini_yekutieli,
}
