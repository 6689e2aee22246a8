"""What the difference-in-differences estimators say of one outcome."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from causal.checks import few_clusters, panel_health, parallel_trends
from causal.core.inference import critical_value, effect
from causal.core.result import Diagnostic, Effect
from causal.quasi.did_options import DidOptions, DidSpec
from causal.quasi.effects_regression import Estimates, Regressions
from causal.quasi.panel import Panel
from causal.quasi.treatment_timing import event_times, event_windows, is_lead
from causal.quasi.within_fit import Regressor

MAX_WINDOW = 8
"""Leads and lags of the auxiliary pre-trend regression beyond this event time are binned."""


def regression_effect(
    spec: DidSpec,
    regressions: Regressions,
    *,
    metric: str,
    term: str,
    weights: Mapping[str, float] | None = None,
) -> Effect:
    """A coefficient, or a weighted average of coefficients, as an effect.

    Args:
        spec: The analysis.
        regressions: The regression.
        metric: The outcome.
        term: Name of the effect; the name of the coefficient where there are no weights.
        weights: Weight of each coefficient in the average.
    """
    estimates = regressions.main
    shares = {term: 1.0} if weights is None else weights
    contrast = np.array([shares.get(name, 0.0) for name in estimates.names])
    return effect(
        estimator=spec.options.estimator,
        estimand="att",
        metric=metric,
        term=term,
        estimate=float(contrast @ estimates.fit.coefficients),
        std_error=float(np.sqrt(contrast @ estimates.covariance @ contrast)),
        confidence_level=spec.confidence_level,
        df=estimates.df,
        n_treated=regressions.n_treated,
        n_control=regressions.n_control,
        n_clusters=estimates.n_clusters,
    )


def lead_regressors(options: DidOptions, panel: Panel) -> tuple[Regressor, ...]:
    """Leads and lags around the last period before treatment, for the pre-trend test.

    Empty where no cohort has two periods before it.
    """
    if panel.timing is None:
        return ()
    times = event_times(panel.periods, panel.starts) if _is_whole(panel) else ()
    before = [time for time in times if time < -options.anticipation]
    if len(before) <= 1:
        return ()
    windows = event_windows(
        times, reference=max(before), low=min(-MAX_WINDOW, max(before) - 1), high=MAX_WINDOW
    )
    return tuple(Regressor(w.name, panel.timing.term(w, panel.periods), w) for w in windows)


def pre_trend(options: DidOptions, leads: Estimates | None, *, alpha: float) -> Diagnostic:
    """The joint test of the leads of a regression on leads and lags."""
    if options.treatment is not None:
        return parallel_trends.untested("a treatment column tells no start: no leads to test")
    if leads is None:
        return parallel_trends.untested(
            "no test: fewer than two periods before the treatment, or leads not identified"
        )
    names = [
        regressor.name
        for regressor in leads.fit.regressors
        if regressor.window is not None
        and is_lead(regressor.window, anticipation=options.anticipation)
    ]
    at = leads.positions(names)
    return parallel_trends.check(
        names, leads.fit.coefficients[at], leads.covariance[np.ix_(at, at)],
        df=leads.df, alpha=alpha,
    )  # fmt: skip


def panel_diagnostics(
    options: DidOptions, panel: Panel, regressions: Regressions
) -> tuple[Diagnostic, ...]:
    """Counts and notes about the panel and the regression."""
    n_units = panel.n + panel.n_incomplete
    found = [
        panel_health.missing_rows(regressions.n_missing),
        panel_health.incomplete_units(panel.n_incomplete, n_units=n_units),
    ]
    if regressions.main.n_clusters is not None:
        found.append(few_clusters.total(regressions.main.n_clusters))
    if regressions.main.fit.dropped:
        found.append(panel_health.dropped_columns(regressions.main.fit.dropped))
    return (*found, *cohort_notes(options, panel))


def cohort_notes(options: DidOptions, panel: Panel) -> tuple[Diagnostic, ...]:
    """Notes about when the cohorts start."""
    if panel.timing is None:
        return ()
    first = panel.periods[0] + options.anticipation
    early = sum(
        c.n + c.n_incomplete
        for c in panel.cohorts
        if c.first_treated_period is not None and c.first_treated_period <= first
    )
    starts = {start for start in panel.starts if first < start <= panel.periods[-1]}
    found = []
    if early:
        found.append(panel_health.already_treated(early))
    if not panel.has_never_treated:
        found.append(panel_health.no_never_treated())
    if len(starts) > 1:
        found.append(panel_health.staggered(len(starts)))
    return tuple(found)


def coefficient_table(
    estimates: Estimates, *, metric: str, confidence_level: float
) -> pd.DataFrame:
    """All coefficients of interest: metric, term, estimate, std_error, ci_lower, ci_upper."""
    half = critical_value(confidence_level, df=estimates.df) * estimates.std_errors
    return pd.DataFrame(
        {
            "metric": metric,
            "term": list(estimates.names),
            "estimate": estimates.fit.coefficients,
            "std_error": estimates.std_errors,
            "ci_lower": estimates.fit.coefficients - half,
            "ci_upper": estimates.fit.coefficients + half,
        }
    )


def _is_whole(panel: Panel) -> bool:
    times = [*panel.periods, *panel.starts]
    return all(float(time).is_integer() for time in times)
