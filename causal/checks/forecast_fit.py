"""Plain statements about a model of a series: its fit before the start, and its draws."""

import math

import numpy as np

from causal.checks.panel_health import note
from causal.core.gram import Array
from causal.core.inference import critical_value
from causal.core.result import Diagnostic

_STRICT = 0.01
_MAX_LAGS = 10
_PER_LAG = 5
_LOOSE_RHAT = 1.1
_FEW_DRAWS = 100.0
_MAX_SHOWN = 8


def one_step_error(errors: Array, outcome: Array) -> Diagnostic:
    """How far the predictions from the periods before were off, before the start.

    Args:
        errors: Observed less predicted, shape (n,).
        outcome: Observed, shape (n,).
    """
    size, spread = float(np.sqrt((errors**2).mean())), float(outcome.std(ddof=1))
    text = f"one-step predictions before the start are off by {size:.4g}, {size / spread:.1%} of "
    text += "the spread of the series"
    if np.abs(outcome).min() > 0:
        text += f", {np.abs(errors / outcome).mean():.2%} of its value on average"
    return note("one_step_error", size / spread, text)


def one_step_coverage(errors: Array, deviations: Array, *, confidence_level: float) -> Diagnostic:
    """Share of the periods before the start inside their one-step prediction intervals.

    Args:
        errors: Observed less predicted, shape (n,).
        deviations: Their standard deviations, shape (n,).
        confidence_level: Nominal coverage.
    """
    from scipy import stats

    inside = int((np.abs(errors) <= critical_value(confidence_level) * deviations).sum())
    share, n = inside / len(errors), len(errors)
    pvalue = float(stats.binomtest(inside, n, confidence_level, alternative="less").pvalue)
    return Diagnostic(
        name="one_step_coverage", statistic=share, pvalue=pvalue, passed=pvalue >= _STRICT,
        detail=f"{inside} of {n} periods before the start ({share:.1%}) lie inside their "
        f"{confidence_level:.0%} one-step prediction intervals",
    )  # fmt: skip


def residual_autocorrelation(standardised: Array) -> Diagnostic:
    """Ljung-Box test of the one-step errors: what the model leaves unexplained over time.

    Args:
        standardised: Errors in units of their standard deviations, shape (n,).
    """
    from scipy import stats

    n = len(standardised)
    n_lags = min(_MAX_LAGS, n // _PER_LAG)
    if n_lags == 0:
        return note("autocorrelation", None, f"{n} periods are too few to see autocorrelation")
    centred = standardised - standardised.mean()
    lags = np.arange(1, n_lags + 1)
    correlations = np.array([centred[lag:] @ centred[:-lag] for lag in lags]) / (centred @ centred)
    statistic = float(n * (n + 2) * (correlations**2 / (n - lags)).sum())
    pvalue = float(stats.chi2.sf(statistic, n_lags))
    return Diagnostic(
        name="autocorrelation", statistic=statistic, pvalue=pvalue, passed=pvalue >= _STRICT,
        detail=f"one-step errors have autocorrelation {correlations[0]:+.2f} at lag 1; Ljung-Box "
        f"over {n_lags} lags: p = {pvalue:.3g}",
    )  # fmt: skip


def convergence(*, rhat: float, effective: float, n_draws: int) -> Diagnostic:
    """Whether the draws of the average effect can be trusted.

    Args:
        rhat: Largest split R-hat of what is reported.
        effective: Smallest effective number of draws.
        n_draws: Draws kept.
    """
    is_good = rhat < _LOOSE_RHAT and effective >= _FEW_DRAWS
    advice = "" if is_good else ": raise n_draws or n_chains"
    return Diagnostic(
        name="convergence", statistic=rhat if math.isfinite(rhat) else None, pvalue=None,
        passed=is_good,
        detail=f"R-hat {rhat:.3f}; the {n_draws} draws of the average effect and of the residual "
        f"are worth {effective:.0f} independent ones{advice}",
    )  # fmt: skip


def outside_range(shares: dict[str, float]) -> Diagnostic:
    """Covariates that leave the range seen before the start: the regression extrapolates.

    Args:
        shares: Share of the later periods outside the earlier range, by covariate.
    """
    beyond = {name: share for name, share in shares.items() if share > 0}
    if not beyond:
        return note("extrapolation", 0.0, "covariates stay in the range they had before the start")
    worst = sorted(beyond, key=lambda name: -beyond[name])[:_MAX_SHOWN]
    shown = ", ".join(f"{name} in {beyond[name]:.0%} of the periods" for name in worst)
    return note(
        "extrapolation", float(len(beyond)),
        f"{len(beyond)} covariates leave the range they had before the start: {shown}",
    )  # fmt: skip


def untouched_covariates(n_covariates: int) -> Diagnostic:
    """The assumption that no data can test."""
    if n_covariates == 0:
        detail = "no covariates: anything else that changed at the start is taken for the effect"
    else:
        detail = (
            "assumed, not testable: the treatment does not move the covariates, and their relation "
            "to the outcome stays as it was"
        )
    return note("covariates_untouched", float(n_covariates), detail)
