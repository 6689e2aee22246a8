"""Did the groups move in parallel before the treatment?

A joint Wald test that the coefficients of all leads are zero. Passing is no proof: the test may
lack power, and conditioning on it distorts inference (Roth 2022, "Pretest with caution").
"""

from collections.abc import Sequence

import numpy as np

from causal.core.gram import Array
from causal.core.inference import wald
from causal.core.result import Diagnostic

NAME = "pre_trend"


def check(
    leads: Sequence[str], coefficients: Array, covariance: Array, *, df: float, alpha: float
) -> Diagnostic:
    """F test that all leads are zero.

    Args:
        leads: Names of the q leads.
        coefficients: Their coefficients, shape (q,).
        covariance: Their covariance, shape (q, q).
        df: Denominator degrees of freedom.
        alpha: The check fails where the p-value is below this level.
    """
    if not leads:
        return untested("fewer than two periods before the treatment: nothing to compare")
    scale = np.sqrt(np.diag(covariance))
    if (scale <= 0).any() or _rank(covariance / np.outer(scale, scale)) < len(leads):
        return untested(f"{len(leads)} leads are too many for the clusters: no joint test")
    statistic, pvalue = wald(coefficients, covariance, df=df)
    return Diagnostic(
        name=NAME,
        statistic=statistic,
        pvalue=pvalue,
        passed=pvalue >= alpha,
        detail=f"F({len(leads)}, {df:g}) = {statistic:.3g} that {', '.join(leads)} are all zero",
    )


def untested(reason: str) -> Diagnostic:
    """The diagnostic where no test is possible, with the reason."""
    return Diagnostic(name=NAME, statistic=None, pvalue=None, passed=None, detail=reason)


def _rank(matrix: Array) -> int:
    return int(np.linalg.matrix_rank(matrix, hermitian=True))
