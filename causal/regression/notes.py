"""What stands beside the coefficients of a regression: tables and notes about rows and clusters."""

from collections.abc import Sequence

import pandas as pd

from causal.checks import few_clusters
from causal.checks.panel_health import dropped_columns, missing_rows, note
from causal.core.gram import Array
from causal.core.inference import critical_value, two_sided_pvalue
from causal.core.result import Diagnostic
from causal.regression.data import RegressionData
from causal.regression.options import RegressionOptions
from causal.regression.sandwich import Errors, is_positive


def coefficient_table(
    names: Sequence[str],
    coefficients: Array,
    errors: Errors,
    *,
    metric: str,
    confidence_level: float,
) -> pd.DataFrame:
    """All coefficients with errors, tests and intervals, one row each."""
    dfs = [errors.df_of([j]) for j in range(len(names))]
    half = [critical_value(confidence_level, df=df) for df in dfs] * errors.std_errors
    statistics = coefficients / errors.std_errors
    return pd.DataFrame(
        {
            "metric": metric,
            "term": list(names),
            "estimate": coefficients,
            "std_error": errors.std_errors,
            "statistic": statistics,
            "df": dfs,
            "pvalue": [
                two_sided_pvalue(float(value), df=df)
                for value, df in zip(statistics, dfs, strict=True)
            ],
            "ci_lower": coefficients - half,
            "ci_upper": coefficients + half,
        }
    )


def data_notes(
    options: RegressionOptions, data: RegressionData, errors: Errors, *, k: int
) -> list[Diagnostic]:
    """Notes about rows left out, columns left out, weights and clusters."""
    found = [missing_rows(data.n_missing)]
    if data.rows.n_weightless:
        n = data.rows.n_weightless
        found.append(note("zero_weight", n, f"{n:,} rows with weight 0 count for nothing"))
    if data.dropped:
        found.append(dropped_columns(data.dropped))
    if errors.n_clusters is not None:
        is_corrected = errors.dfs is not None
        found.append(few_clusters.total(errors.n_clusters, is_corrected=is_corrected))
        found += _against_clusters(errors.n_clusters, k)
    if options.is_two_way and not is_positive(errors.covariance):
        found.append(
            Diagnostic(
                name="two_way_covariance", statistic=None, pvalue=None, passed=False,
                detail="the two-way clustered covariance has negative variance in some direction: "
                "joint tests are not reported; cluster by the column with fewer clusters",
            )
        )  # fmt: skip
    return found


def _against_clusters(n_clusters: int, k: int) -> list[Diagnostic]:
    if n_clusters > k:
        return []
    return [
        Diagnostic(
            name="clusters_against_coefficients", statistic=float(n_clusters), pvalue=None,
            passed=False,
            detail=f"{k} coefficients and only {n_clusters} clusters: the covariance has rank "
            f"{n_clusters - 1} at most and its errors are too small; use fewer regressors or "
            "other clusters",
        )
    ]  # fmt: skip
