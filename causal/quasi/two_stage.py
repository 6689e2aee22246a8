r"""Two stages: unit and period effects from untreated rows, then means of what is left.

Gardner (2021). The first stage fits unit and period effects to the untreated rows alone, the second
regresses the outcome less these effects on the treatment: on one dummy, and on one per event time
from the start on. Under parallel trends and no anticipation the coefficients are mean effects over
the treated rows behind them, however effects differ between cohorts; the points are those of
imputation (Borusyak, Jaravel and Spiess 2024).

What is left of the rows comes from `untreated_fit`. With `r_i` that of unit i, `o_i` the marks of
its rows, `x_c` the T x K regressors of its cohort and `m_c` the 0/1 vector of the periods in which
that is untreated, the influence of the unit on the coefficients, both stages together, is `B` times

    s_i = (x_c' - Q A^- diag(m_c)) r_i - x_c' diag(o_i) x_c b,   B = (sum_i x_c' diag(o_i) x_c)^-1,
    Q   = sum_c x_c' (diag(sum_i o_i) - L_c diag(m_c)).

The covariance is that of Gardner's GMM, `B (sum of s s') B` over clusters of whole units, as in
`did2s`; `small_sample` says by which factor it is multiplied.

`imputation` gives the same effects the errors of Borusyak, Jaravel and Spiess (their section 4.3).
With `v_i` the weights of a unit's rows in an effect, the variance is the sum of

    (sum_t v_it e_it)^2,   e_it the residual of an untreated row, the row's effect less the mean
                           effect of its cohort and period of a treated one,

over units, or of squares of sums over clusters. So `x_c b` gives way to the mean of what is left of
the rows of the cohort and period. The weights are taken as given: effects that differ between
cohorts are no noise. It is conservative where effects differ within a cohort and period. With
`leave_out` the mean effect is that of the other units (clusters) of the cohort.
"""

from collections.abc import Generator, Sequence

import numpy as np
import pandas as pd

from causal.checks import panel_health
from causal.core.errors import DataError
from causal.core.frames import Condition, FrameRequest
from causal.core.gram import Array, Key
from causal.core.readout import Readout, covariance_table
from causal.quasi.credibility.cohorts_left_out import without_each_cohort
from causal.quasi.did_options import DidOptions, DidSpec
from causal.quasi.effects_regression import Regressions, regress_leads
from causal.quasi.event_study import AVERAGE
from causal.quasi.panel import Panel, cohort_means, observe, panel_of_cohorts
from causal.quasi.panel_errors import covariances
from causal.quasi.readout import (
    coefficient_table,
    lead_regressors,
    panel_diagnostics,
    pre_trend,
    regression_effect,
)
from causal.quasi.treated_clusters import ask_lone_effects, ask_treated_clusters
from causal.quasi.treatment_timing import (
    EventWindow,
    Timing,
    event_times,
    event_windows,
    treated_post,
)
from causal.quasi.unit_paths import UnitPaths
from causal.quasi.untreated_fit import UntreatedFit, fit_all_units, fit_complete_units
from causal.quasi.within_fit import Regressor, WithinFit


def estimate(spec: DidSpec, *, outcome: str) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    """The effects by event time, and that over all treated unit-periods, for one outcome.

    `average post` is Gardner's static estimate: its errors allow for effects that differ between
    event times and cohorts, which the averages of `etwfe` take as given.

    Raises:
        DataError: A cohort without untreated periods, a period without untreated units, or no
            treated row that an effect can be told of.
    """
    options, where = spec.options, spec.source.conditions
    everyone = yield from observe(options, outcome=outcome, where=where, by_cluster=True)
    panel = panel_of_cohorts(options, everyone)
    timing = panel.timing
    if timing is None:
        raise DataError(f"{options.estimator} needs first_treated_period or group")
    first = yield from _first_stage(options, panel, timing, outcome=outcome, where=where)
    windows = _seen(_windows(options, panel), panel, first)
    whole = _second_stage(options, panel, timing, first, [treated_post(options.anticipation)])
    by_time = _second_stage(options, panel, timing, first, windows)
    own = _seen(_by_cohort(options, panel), panel, first)
    by_cohort = _second_stage(options, panel, timing, first, own)
    static, study, apart = yield from covariances(options, [whole, by_time, by_cohort], where=where)
    left_out = without_each_cohort(
        apart, dict(zip(apart.names, _rows_of(own, panel, first), strict=True)),
        metric=outcome, confidence_level=spec.confidence_level,
        std_error=float(static.std_errors[0]),
    )  # fmt: skip
    leads = yield from regress_leads(
        _of_leads(options), lead_regressors(options, panel),
        outcome=outcome, panel=panel, where=where,
    )  # fmt: skip
    units = first.units()
    sides = yield from ask_treated_clusters(options, panel, units=units, where=where)
    rows = dict(zip(windows, _rows_of(windows, panel, first), strict=True))
    sides += yield from ask_lone_effects(options, panel, rows, units=units, where=where)
    n_treated, n_control = panel.n_units(units)
    found, events = (
        Regressions(
            main=estimates, leads=leads, n_treated=n_treated, n_control=n_control,
            n_missing=panel.n_missing, cells=first.cells, units=units,
        )
        for estimates in (static, study)
    )  # fmt: skip
    (only,) = static.names
    return Readout(
        effects=(
            regression_effect(spec, found, metric=outcome, term=AVERAGE, weights={only: 1.0}),
            *(regression_effect(spec, events, metric=outcome, term=w.name) for w in windows),
        ),
        diagnostics=(
            pre_trend(options, leads, alpha=1 - spec.confidence_level),
            *panel_diagnostics(options, everyone, found),
            *([panel_health.only_treated(lost)] if (lost := first.n_only_treated) else []),
            *left_out.diagnostics,
            *sides,
        ),
        params={"n_rows": whole.n, "n_units": whole.n_units},
        tables={
            "cohort_means": cohort_means(first.cells, metric=outcome),
            "event_study": coefficient_table(
                study, metric=outcome, confidence_level=spec.confidence_level
            ).assign(event_time=np.array([w.low for w in windows]), n=list(rows.values())),
            "covariance": covariance_table(study.names, study.covariance, metric=outcome),
            **left_out.tables,
        },
    )


def _of_leads(options: DidOptions) -> DidOptions:
    """Leads are an ordinary regression: they have a factor also where effects have none."""
    if options.estimator != "imputation" or options.small_sample is not None:
        return options
    return options.model_copy(update={"small_sample": "cr1"})


def _first_stage(
    options: DidOptions,
    panel: Panel,
    timing: Timing,
    *,
    outcome: str,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, UntreatedFit]:
    """What untreated rows leave of all rows: from the cohorts' moments, or three passes."""
    if not panel.n_incomplete:
        return fit_complete_units(
            panel, anticipation=options.anticipation, cluster=options.clusters
        )
    paths = UnitPaths(options=options, panel=panel, timing=timing, outcome=outcome, where=where)
    return (yield from fit_all_units(paths, anticipation=options.anticipation))


def _windows(options: DidOptions, panel: Panel) -> tuple[EventWindow, ...]:
    """One window for each event time in which units are treated, or anticipate it."""
    starts = [start for start in panel.starts if start <= panel.periods[-1]]
    times = [
        time for time in event_times(panel.periods, starts) if time >= -options.anticipation
    ]  # fmt: skip
    return event_windows(times, reference=min(times) - 1)


def _by_cohort(options: DidOptions, panel: Panel) -> tuple[EventWindow, ...]:
    """One window for each treated cohort, from its start on."""
    return tuple(
        EventWindow(f"cohort={start:g}", -options.anticipation, None, cohort=start)
        for start in panel.starts
        if start - options.anticipation <= panel.periods[-1]
    )


def _regressors(windows: Sequence[EventWindow], panel: Panel) -> Array:
    """The windows' dummies by cohort, shape (C, T, K)."""
    return np.array(
        [
            np.column_stack([w.path(panel.periods, c.first_treated_period) for w in windows])
            for c in panel.cohorts
        ]
    )


def _rows_of(windows: Sequence[EventWindow], panel: Panel, first: UntreatedFit) -> list[int]:
    """Rows used in each window."""
    counts, _ = first.totals()
    inside = np.einsum("ctk,ct->k", _regressors(windows, panel), counts)
    return [round(float(n)) for n in inside]


def _seen(
    windows: Sequence[EventWindow], panel: Panel, first: UntreatedFit
) -> tuple[EventWindow, ...]:
    """The windows in which rows are used.

    Raises:
        DataError: There is none.
    """
    counts = _rows_of(windows, panel, first)
    found = tuple(w for w, n in zip(windows, counts, strict=True) if n > 0)
    if not found:
        raise DataError("no treated unit is seen both untreated and treated")
    return found


def _second_stage(
    options: DidOptions,
    panel: Panel,
    timing: Timing,
    first: UntreatedFit,
    windows: Sequence[EventWindow],
) -> WithinFit:
    """What is left of the outcome, regressed on dummies of event times that exclude each other.

    Raises:
        DataError: Errors of imputation are asked for, and rows of a treated cohort and period lie
            in one cluster.
    """
    x = _regressors(windows, panel)
    counts, sums = first.totals()
    if options.estimator == "imputation":
        _check_shared(options, first, counts * x.any(axis=2))
    bread: Array = np.asarray(np.linalg.inv(np.einsum("ct,ctk,ctl->kl", counts, x, x)))
    b = bread @ np.einsum("ctk,ct->k", x, sums)
    meat, n_clusters = _meat(options, first, x, b=b)
    return WithinFit(
        regressors=tuple(Regressor(w.name, timing.term(w, panel.periods), w) for w in windows),
        coefficients=b,
        bread=bread,
        rss=None,
        n=round(float(counts.sum())),
        n_units=sum(part.n for part in first.parts),
        n_nuisance=len(panel.periods) - 1,
        scores=(),
        known={options.clusters: (bread @ meat @ bread, n_clusters)},
    )


def _meat(options: DidOptions, first: UntreatedFit, x: Array, *, b: Array) -> tuple[Array, int]:
    """Sum over units (clusters) of outer products of their influences, and the number of these.

    Args:
        options: The analysis.
        first: The first stage.
        x: Regressors, shape (C, T, K).
        b: Coefficients, shape (K,).
    """
    counts, sums = first.totals()
    slopes = np.swapaxes(x, 1, 2) - _first_stage_slopes(first, x, counts)
    if options.estimator == "imputation":
        centres = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    else:
        centres = x @ b
    if options.clusters == options.unit:
        if options.leave_out:
            # Less the mean of the others, a row deviates n / (n - 1) times as much.
            more = 1.0 / np.maximum(counts - 1.0, 1.0)
            slopes = slopes + np.swapaxes(x, 1, 2) * more[:, None, :]
            centres = centres * (1.0 + more)
        both = np.concatenate([slopes, -np.swapaxes(x * centres[:, :, None], 1, 2)], axis=2)
        parts = [(both[part.at], part.moments) for part in first.parts]
        meats = [slope @ moment @ slope.T for slope, moment in parts if moment is not None]
        return np.asarray(np.sum(meats, axis=0)), sum(part.n for part in first.parts)
    scores: dict[Key, Array] = {}
    for part in first.parts:
        centre, own = centres[part.at], x[part.at]
        if options.leave_out:
            others = counts[part.at] - part.counts
            centre = (sums[part.at] - part.sums) / np.where(others > 0, others, 1.0)
        score = slopes[part.at] @ part.sums - own.T @ (centre * part.counts)
        scores[part.key] = scores.get(part.key, np.zeros(len(b))) + score
    stacked = np.array(list(scores.values()))
    return stacked.T @ stacked, len(stacked)


def _first_stage_slopes(first: UntreatedFit, x: Array, counts: Array) -> Array:
    """How period effects move the coefficients with what is left of untreated rows, (C, K, T)."""
    effects = first.effects
    reach = np.einsum("ctk,ct->kt", x, counts)
    reach = reach - np.einsum("ctk,cts,cs->ks", x, effects.links, effects.untreated)
    return np.asarray((reach @ effects.inverse)[None] * effects.untreated[:, None, :])


def _check_shared(options: DidOptions, first: UntreatedFit, treated: Array) -> None:
    """Rows of a treated cohort and period lie in two units (clusters) or more.

    Those of one alone have no spread around their mean.

    Args:
        options: The analysis.
        first: The first stage.
        treated: Rows by cohort and period where these are treated, else 0, shape (C, T).

    Raises:
        DataError: Some do not.
    """
    holders = treated
    if options.clusters != options.unit:
        holders = np.zeros_like(treated)
        for part in first.parts:
            holders[part.at] += (part.counts > 0) & (treated[part.at] > 0)
    alone = np.argwhere(holders == 1)
    if len(alone):
        starts = dict.fromkeys(first.effects.starts[c] for c, _ in alone)
        raise DataError(
            "errors of imputation need two units (clusters) or more in every treated cohort, in "
            "each of its periods",
            given=f"one in the cohort of {', '.join(f'{start:g}' for start in starts)}",
            allowed="estimator: two_stage, or source.where without these cohorts",
        )
