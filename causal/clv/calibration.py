"""Does a fitted purchase model describe the customers: expected beside actual."""

import numpy as np
import pandas as pd

from causal.clv.cells import Cells
from causal.clv.fitting import Holdout
from causal.clv.maximum_likelihood import Fit, propagate
from causal.clv.models import MODELS
from causal.core.errors import DataError
from causal.core.gram import Array
from causal.core.result import Diagnostic

_MIN_EXPECTED = 5.0


def frequency_table(fit: Fit, cells: Cells, *, n_max: int = 7) -> pd.DataFrame:
    """Customers by number of repeat purchases: actual, and expected given each customer's age.

    Args:
        fit: A fitted purchase model.
        cells: The cells it was fitted on.
        n_max: The last row holds this many purchases or more.

    Returns:
        Columns `frequency` (0..n_max), `actual`, `expected`.
    """
    model = MODELS[fit.model]
    ages, at = np.unique(cells.age, return_inverse=True)
    counts = np.bincount(at.ravel(), cells.count)
    expected = np.zeros(n_max + 1)
    for age, count in zip(ages, counts, strict=True):
        chances = model.purchase_probabilities(fit.parameters, float(age), n_max - 1)
        expected += count * np.append(chances, max(0.0, 1.0 - chances.sum()))
    actual = np.bincount(
        cells.frequency.clip(max=n_max).astype(np.int64), cells.count, minlength=n_max + 1
    )
    return pd.DataFrame({"frequency": np.arange(n_max + 1), "actual": actual, "expected": expected})


def goodness_of_fit(fit: Fit, cells: Cells, *, n_max: int = 7) -> Diagnostic:
    """Chi-square of the frequency table; rows that expect fewer than 5 are pooled with the last.

    The degrees of freedom are rows less 1 less parameters, as is usual for these models. The fit
    uses more than this table (times of purchases), so the p-value is approximate.

    Raises:
        DataError: Too few rows are left for a test.
    """
    from scipy import stats

    table = frequency_table(fit, cells, n_max=n_max)
    actual, expected = table["actual"].to_numpy(), table["expected"].to_numpy()
    while len(expected) > 1 and expected[-1] < _MIN_EXPECTED:
        actual = np.append(actual[:-2], actual[-2:].sum())
        expected = np.append(expected[:-2], expected[-2:].sum())
    df = len(expected) - 1 - len(fit.names)
    if df < 1:
        raise DataError(
            "too few rows of the frequency table expect 5 customers: raise n_max",
            given=f"{len(expected)} rows, {len(fit.names)} parameters",
        )
    statistic = float(((actual - expected) ** 2 / expected).sum())
    return Diagnostic(
        name=f"{fit.model}.goodness_of_fit",
        statistic=statistic,
        pvalue=float(stats.chi2.sf(statistic, df)),
        passed=None,
        detail=f"chi-square {statistic:.2f} with {df} degrees of freedom over frequencies",
    )


def holdout_table(fit: Fit, cells: Cells, holdout: Holdout, *, n_max: int = 7) -> pd.DataFrame:
    """Mean purchases in the holdout period by purchases before it: actual and expected.

    The figure of conditional expectations of Fader, Hardie and Lee (2005).

    Args:
        fit: A fitted purchase model.
        cells: The cells it was fitted on.
        holdout: Their later purchases.
        n_max: The last row holds customers with this many purchases or more.

    Returns:
        Columns `frequency`, `n`, `actual`, `expected`, `std_error` (of the expectation); only rows
        with customers.
    """
    group = cells.frequency.clip(max=n_max).astype(np.int64)
    n = np.bincount(group, cells.count, minlength=n_max + 1)
    shown = np.flatnonzero(n > 0)
    model = MODELS[fit.model]

    def means(parameters: Array) -> Array:
        each = model.conditional_purchases(parameters, cells, holdout.length)
        return np.asarray(
            np.bincount(group, cells.count * each, minlength=n_max + 1)[shown] / n[shown]
        )

    expected = propagate([fit], means)
    actual = np.bincount(group, cells.count * holdout.purchases, minlength=n_max + 1)
    return pd.DataFrame(
        {
            "frequency": shown,
            "n": n[shown],
            "actual": actual[shown] / n[shown],
            "expected": expected.estimate,
            "std_error": expected.std_error,
        }
    )


def cumulative_purchases(fit: Fit, cells: Cells, *, times: Array) -> Array:
    """Expected cumulative repeat purchases of all customers by calendar time.

    Args:
        fit: A fitted purchase model.
        cells: The customers; the calendar starts `max(age)` before the end of observation, so that
            a customer arrives at `max(age) - age`.
        times: Calendar times, shape (k,); those beyond `max(age)` are forecasts.

    Returns:
        Shape (k,).
    """
    ages, at = np.unique(cells.age, return_inverse=True)
    counts = np.bincount(at.ravel(), cells.count)
    arrivals = ages.max() - ages
    since = (np.asarray(times, dtype=np.float64)[:, None] - arrivals).clip(min=0.0)
    return np.asarray(
        MODELS[fit.model].expected_purchases(fit.parameters, since) @ counts, dtype=np.float64
    )
