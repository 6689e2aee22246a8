"""The average effect of a regression with one coefficient per cohort, without each in turn.

The coefficients and their covariance are at hand, so every such average and its difference from the
whole one are linear combinations of them: no further pass, and errors of differences that know what
both have in common. The cohort left out stays a comparison while it is untreated.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from causal.core.gram import Array
from causal.core.inference import critical_value, two_sided_pvalue
from causal.core.result import Diagnostic
from causal.quasi.credibility.readout import Checks
from causal.quasi.panel_errors import Estimates

NAME = "leave_one_cohort_out"


def without_each_cohort(
    estimates: Estimates,
    rows: Mapping[str, int],
    *,
    metric: str,
    confidence_level: float,
    std_error: float | None = None,
) -> Checks:
    """The averages as a table, and the one that differs most as a diagnostic.

    Nothing where there is one cohort.

    Args:
        estimates: The coefficients; their windows say whose they are.
        rows: Treated rows behind each coefficient of the average, by name.
        metric: The outcome.
        confidence_level: Of the intervals.
        std_error: That of the whole average as it is reported, where that is another than the
            coefficients give it.

    Returns:
        A table with the columns metric, check, variant, is_placebo, estimate, std_error, ci_lower,
        ci_upper, pvalue, difference, difference_std_error and difference_pvalue, the whole average
        first.
    """
    cohorts = _cohorts(estimates)
    counts = np.array([rows.get(name, 0) for name in estimates.names], dtype=np.float64)
    present = np.unique(cohorts[counts > 0])
    if len(present) <= 1:
        return Checks()
    whole = counts / counts.sum()
    names = [("analysis", "as analysed", whole)]
    for start in present:
        kept = np.where(cohorts == start, 0.0, counts)
        names.append((NAME, f"without the cohort of {start:g}", kept / kept.sum()))
    half = critical_value(confidence_level, df=estimates.df)
    found = []
    for check, variant, weights in names:
        value, error = _combined(estimates, weights)
        if std_error is not None and check != NAME:
            error = std_error
        moved, moved_error = _combined(estimates, weights - whole)
        is_variant = check == NAME
        found.append(
            {
                "metric": metric, "check": check, "variant": variant, "is_placebo": False,
                "estimate": value, "std_error": error, "ci_lower": value - half * error,
                "ci_upper": value + half * error, "pvalue": _pvalue(value, error, estimates.df),
                "difference": moved if is_variant else np.nan,
                "difference_std_error": moved_error if is_variant else np.nan,
                "difference_pvalue": _pvalue(moved, moved_error, estimates.df)
                if is_variant else np.nan,
            }
        )  # fmt: skip
    table = pd.DataFrame(found)
    return Checks(diagnostics=(_said(table),), tables={"stability": table})


def _cohorts(estimates: Estimates) -> Array:
    """First treated period behind each coefficient, NaN where there is none, shape (K,)."""
    windows = [regressor.window for regressor in estimates.fit.regressors]
    starts = [None if window is None else window.cohort for window in windows]
    return np.array([np.nan if start is None else start for start in starts], dtype=np.float64)


def _combined(estimates: Estimates, weights: Array) -> tuple[float, float]:
    variance = float(weights @ estimates.covariance @ weights)
    return float(weights @ estimates.fit.coefficients), float(np.sqrt(max(variance, 0.0)))


def _pvalue(value: float, error: float, df: float) -> float:
    return two_sided_pvalue(value / error, df=df) if error > 0 else float("nan")


def _said(table: pd.DataFrame) -> Diagnostic:
    whole = float(table["estimate"].iloc[0])
    rows = table[table["check"] == NAME]
    far = rows.loc[rows["difference"].abs().idxmax()]
    signs = int((np.sign(rows["estimate"]) != np.sign(whole)).sum())
    turned = f"; the sign turns in {signs} of {len(rows)}" if signs else ""
    return Diagnostic(
        name=NAME, statistic=float(far["difference"]), pvalue=None, passed=None,
        detail=f"the average effect moves most {far['variant']}: {far['estimate']:.4g} instead of "
        f"{whole:.4g}{turned}",
    )  # fmt: skip
