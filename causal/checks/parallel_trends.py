"""Did the groups move in parallel before the treatment?

A joint test that the coefficients of all leads are zero. With a clustered covariance the reference
is that of Hotelling's T squared: referred to F(q, G - 1), five leads of ten clusters are rejected
five times as often as said (Pustejovsky and Tipton 2018). Passing is no proof: the test may lack
power, and conditioning on it distorts inference (Roth 2022, "Pretest with caution").
"""

from collections.abc import Sequence

import numpy as np

from causal.core.gram import Array
from causal.core.inference import JointTest, referred, wald
from causal.core.result import Diagnostic

NAME = "pre_trend"


def check(
    leads: Sequence[str],
    coefficients: Array,
    covariance: Array,
    *,
    df: float,
    kind: JointTest,
    alpha: float,
) -> Diagnostic:
    """F test that all leads are zero.

    Args:
        leads: Names of the q leads.
        coefficients: Their coefficients, shape (q,).
        covariance: Their covariance, shape (q, q).
        df: Degrees of freedom of the covariance.
        kind: The reference.
        alpha: The check fails where the p-value is below this level.
    """
    if not leads:
        return untested("fewer than two periods before the treatment: nothing to compare")
    scale = np.sqrt(np.diag(covariance))
    is_singular = (scale <= 0).any() or _rank(covariance / np.outer(scale, scale)) < len(leads)
    if is_singular or df < len(leads):
        return untested(f"{len(leads)} leads are too many for the clusters: no joint test")
    chi2, _ = wald(coefficients, covariance)
    return tested(
        chi2, len(leads), df=df, kind=kind, alpha=alpha,
        what=f"{', '.join(leads)} are all zero",
    )  # fmt: skip


def tested(
    chi2: float, size: int, *, df: float | None, kind: JointTest, alpha: float, what: str
) -> Diagnostic:
    """The diagnostic of a quadratic form in an estimated covariance.

    Args:
        chi2: `b' V^-1 b`.
        size: Restrictions (or the rank of V).
        df: Degrees of freedom of V; `None`: chi-square.
        kind: The reference.
        alpha: The check fails where the p-value is below this level.
        what: What is tested, after "that".
    """
    from scipy import stats

    if df is None:
        statistic, pvalue = chi2, float(stats.chi2.sf(chi2, size))
        form = f"chi2({size})"
    else:
        statistic, rest = referred(chi2, size=size, df=df, kind=kind)
        pvalue = float(stats.f.sf(statistic, size, rest))
        form = f"F({size}, {rest:g})"
    return Diagnostic(
        name=NAME,
        statistic=statistic,
        pvalue=pvalue,
        passed=pvalue >= alpha,
        detail=f"{form} = {statistic:.3g} that {what}",
    )


def untested(reason: str) -> Diagnostic:
    """The diagnostic where no test is possible, with the reason."""
    return Diagnostic(name=NAME, statistic=None, pvalue=None, passed=None, detail=reason)


def _rank(matrix: Array) -> int:
    return int(np.linalg.matrix_rank(matrix, hermitian=True))
