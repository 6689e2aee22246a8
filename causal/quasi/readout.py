"""What the difference-in-differences estimators say of one outcome."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from causal.checks import few_clusters, panel_health, parallel_trends
from causal.core.gram import Array
from causal.core.inference import as_ratio, critical_value, effect
from causal.core.result import Diagnostic, Effect
from causal.quasi.did_options import DidOptions, DidSpec
from causal.quasi.effects_regression import Regressions
from causal.quasi.panel import Panel
from causal.quasi.panel_errors import Estimates
from causal.quasi.row_scores import lag_count
from causal.quasi.treatment_timing import event_times, event_windows, is_lead
from causal.quasi.within_fit import Regressor
from causal.regression.sandwich import is_positive
from causal.regression.wild_bootstrap import bootstrap_test, draw_weights

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
    found = effect(
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
    if spec.options.family == "poisson":
        return as_ratio(replace(found, estimator=f"{found.estimator}_poisson"))
    return _bootstrapped(spec, found, estimates, contrast)


def _bootstrapped(spec: DidSpec, found: Effect, estimates: Estimates, contrast: Array) -> Effect:
    """The effect with the wild bootstrap's p-value and interval, where that is asked for."""
    asked, moments = spec.options.wild_bootstrap, estimates.clusters
    if asked is None or moments is None:
        return found
    everything = np.zeros(len(moments.bread))
    everything[estimates.fit.positions] = contrast
    draws = draw_weights(
        len(moments.scores), kind=asked.weights, n_draws=asked.n_draws, seed=spec.seed
    )
    tested = bootstrap_test(
        moments, everything, estimate=found.estimate, draws=draws, level=spec.confidence_level
    )
    return replace(
        found, estimator=f"{found.estimator}_wild_bootstrap", pvalue=tested.pvalue,
        ci_lower=tested.ci_lower, ci_upper=tested.ci_upper,
    )  # fmt: skip


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
    if options.is_two_way and at and not is_positive(leads.covariance[np.ix_(at, at)]):
        return parallel_trends.untested(
            "no test: the two-way clustered covariance of the leads is not positive"
        )
    return parallel_trends.check(
        names, leads.fit.coefficients[at], leads.covariance[np.ix_(at, at)],
        df=leads.df, kind=options.joint_reference, alpha=alpha,
    )  # fmt: skip


def panel_diagnostics(
    options: DidOptions, panel: Panel, regressions: Regressions
) -> tuple[Diagnostic, ...]:
    """Counts and notes about the panel and the regression."""
    n_units = panel.n + panel.n_incomplete
    found = [
        panel_health.missing_rows(regressions.n_missing),
        panel_health.incomplete_units(
            panel.n_incomplete, n_units=n_units, is_dropped=options.balanced
        ),
    ]
    if regressions.n_silent:
        found.append(panel_health.silent(regressions.n_silent))
    n_clusters, k = regressions.main.n_clusters, len(regressions.main.names)
    if n_clusters is not None:
        found.append(few_clusters.total(n_clusters))
        found += _known(panel_health.few_clusters_for(n_clusters, k=k))
    found += _known(panel_health.period_gaps(panel.periods))
    if regressions.main.fit.dropped:
        found.append(panel_health.dropped_columns(regressions.main.fit.dropped))
    return (*found, *_error_notes(options, panel, regressions), *cohort_notes(options, panel))


def _known(item: Diagnostic | None) -> list[Diagnostic]:
    return [] if item is None else [item]


def _error_notes(options: DidOptions, panel: Panel, regressions: Regressions) -> list[Diagnostic]:
    """What a reader must know of errors that rely on more than many clusters."""
    if options.covariance == "driscoll_kraay":
        n_periods = len(panel.periods)
        lags = lag_count(n_periods, asked=options.lags)
        detail = (
            f"Driscoll-Kraay errors with {lags} lags over {n_periods} periods: they rely on many "
            "periods and tend to be too small with few"
        )
        return [panel_health.note("driscoll_kraay_periods", n_periods, detail)]
    moments = regressions.main.clusters
    if options.wild_bootstrap is None or moments is None:
        return []
    asked, g = options.wild_bootstrap, len(moments.scores)
    draws = draw_weights(g, kind=asked.weights, n_draws=asked.n_draws, seed=0)
    every = "all " if draws.is_complete else ""
    detail = (
        f"p-values and intervals of the effects from {every}{len(draws.values):,} {asked.weights} "
        f"draws over {g} clusters; the smallest p-value there can be is "
        f"{(2 if draws.is_complete else 1) / draws.n_counted:.2g}"
    )
    return [panel_health.note("wild_bootstrap", len(draws.values), detail)]


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
    is_one_average = options.estimator in {"twfe", "event_study"}
    if is_one_average and len(starts) > 1:
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
