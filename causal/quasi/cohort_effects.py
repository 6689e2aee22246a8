"""One coefficient per cohort and event time beside unit and period effects, and their averages.

`sun_abraham` (Sun and Abraham 2021) gives every cohort its leads and lags around one reference
period, so that the never treated are the comparison. `etwfe` (Wooldridge 2021) has lags only: all
periods before the start, of every cohort, are the comparison; in a balanced panel its averages are
those of imputation (Borusyak, Jaravel and Spiess 2024) and of two stages (Gardner 2021). The
coefficients of an event time are averaged with the cohorts' shares in its treated unit-periods.
Under parallel trends and no anticipation the averages are effects of that event time alone, however
effects differ between cohorts.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from causal.checks import parallel_trends
from causal.core.errors import DataError
from causal.core.frames import FrameRequest, Indicator, Product
from causal.core.gram import Array
from causal.core.inference import critical_value
from causal.core.readout import Readout, covariance_table
from causal.core.result import Diagnostic
from causal.quasi.credibility.cohorts_left_out import without_each_cohort
from causal.quasi.credibility.readout import Checks, Study, event_study_checks
from causal.quasi.did_options import DidOptions, DidSpec
from causal.quasi.effects_regression import Regressions, regress
from causal.quasi.event_study import AVERAGE, count_rows
from causal.quasi.panel import Cell, Panel, cohort_means, observe
from causal.quasi.panel_errors import Estimates
from causal.quasi.readout import coefficient_table, panel_diagnostics, regression_effect
from causal.quasi.treated_clusters import ask_lone_effects, ask_treated_clusters
from causal.quasi.treatment_timing import EventWindow, Timing, event_times, level
from causal.quasi.within_fit import Regressor

Weights = Mapping[str, float]
"""Weight of each coefficient in an average."""


def estimate(spec: DidSpec, *, outcome: str) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    """The averages by event time, and over all treated unit-periods, for one outcome.

    The shares are those of the rows used and count as fixed, as in fixest's `sunab` and
    pyfixest's saturated event study: the errors leave out that a cohort's size is random.

    Raises:
        DataError: No cohort, no unit untreated throughout, or a cohort without the periods that
            its effects are compared with.
    """
    options, where = spec.options, spec.source.conditions
    panel = yield from observe(options, outcome=outcome, where=where, by_cluster=True)
    regressors, leads = _models(options, panel)
    found = yield from regress(
        options, regressors, leads=leads, outcome=outcome, panel=panel, where=where
    )
    times = _by_event_time(found.main, found.cells)
    post = [weights for time, weights in times.items() if time >= 0]
    if not post:
        raise DataError("no treated unit is observed at or after its start")
    rows = {name: n for counts in post for name, n in counts.items()}
    n_post = _shares(rows)
    average = regression_effect(spec, found, metric=outcome, term=AVERAGE, weights=n_post)
    shares = {time: _shares(counts) for time, counts in times.items()}
    each = [
        regression_effect(spec, found, metric=outcome, term=f"event_time={time}", weights=weights)
        for time, weights in shares.items()
    ]
    sides = yield from ask_treated_clusters(options, panel, units=found.units, where=where)
    windows = [r.window for r in found.main.fit.regressors if r.window is not None]
    behind = {window: count_rows(window, found.cells) for window in windows}
    sides += yield from ask_lone_effects(options, panel, behind, units=found.units, where=where)
    checks = _checks(spec, found, times, outcome=outcome)
    left_out = without_each_cohort(
        found.main, rows, metric=outcome, confidence_level=spec.confidence_level
    )
    return Readout(
        effects=(average, *each),
        diagnostics=(
            _pre_trend(options, found, alpha=1 - spec.confidence_level),
            *checks.diagnostics,
            *left_out.diagnostics,
            *panel_diagnostics(options, panel, found),
            *sides,
        ),
        params={
            "n_rows": found.main.fit.n,
            "n_units": found.main.fit.n_units,
            "n_coefficients": len(found.main.names),
            "reference_period": options.reference,
        },
        tables={
            "cohort_means": cohort_means(found.cells, metric=outcome),
            "coefficients": coefficient_table(
                found.main, metric=outcome, confidence_level=spec.confidence_level
            ),
            "event_study": _event_table(spec, found, times, outcome=outcome),
            "covariance": covariance_table(found.main.names, found.main.covariance, metric=outcome),
            **checks.tables,
            **left_out.tables,
        },
    )


def _checks(
    spec: DidSpec, found: Regressions, times: Mapping[int, Mapping[str, int]], *, outcome: str
) -> Checks:
    """Power of the pre-test and sensitivity; lags alone have nothing before the treatment."""
    options = spec.options
    if options.estimator != "sun_abraham":
        return Checks()
    estimates, covariance = _averages(found.main, [_shares(counts) for counts in times.values()])
    study = Study(
        times=np.array(list(times), dtype=np.float64), estimates=estimates, covariance=covariance,
        anticipation=options.anticipation, reference=options.reference,
        df=found.main.df, joint_test=options.joint_reference,
    )  # fmt: skip
    return event_study_checks(
        study, options.sensitivity, metric=outcome, confidence_level=spec.confidence_level
    )


def _models(
    options: DidOptions, panel: Panel
) -> tuple[tuple[Regressor, ...], tuple[Regressor, ...]]:
    """The regressors of the analysis, and those of a second model that tests the leads.

    One regressor per treated cohort and period: all but the cohort's reference period, or those
    from the start (less the anticipation) on.
    """
    timing = panel.timing
    if timing is None:
        raise DataError(f"{options.estimator} needs first_treated_period or group")
    if not panel.has_never_treated:
        last = max(panel.starts)
        raise DataError(
            f"{options.estimator} compares with units that stay untreated, and there are none: "
            f"keep the periods before {last:g}, when the last cohort starts (source.where)",
            given=f"cohorts {', '.join(f'{start:g}' for start in panel.starts)}",
        )
    treated = [start for start in panel.starts if start <= panel.periods[-1]]
    event_times(panel.periods, treated)
    cells = [(start, period) for start in treated for period in panel.periods]
    whole = [cell for cell in cells if cell[1] - cell[0] != options.reference]
    around = tuple(_regressor(timing, *cell) for cell in whole)
    without = [start for start in treated if start + options.reference not in panel.periods]
    if options.estimator == "sun_abraham":
        if without:
            raise DataError(
                f"the cohort of {without[0]:g} is not observed in its reference period: leave it "
                "out (source.where), or choose another reference_period",
                given=f"event time {options.reference}",
            )
        return around, ()
    for start in treated:
        if start - options.anticipation <= panel.periods[0]:
            raise DataError(
                f"the cohort of {start:g} is treated in every period: leave it out (source.where)",
                given=f"first period {panel.periods[0]:g}, anticipation {options.anticipation}",
            )
    lags = [cell for cell in cells if cell[1] - cell[0] >= -options.anticipation]
    return tuple(_regressor(timing, *cell) for cell in lags), () if without else around


def _regressor(timing: Timing, start: float, period: float) -> Regressor:
    """1 for one cohort in one period: only this cohort has this event time in this period."""
    time = int(period - start)
    name = f"cohort={start:g} x event_time={time}"
    window = EventWindow(name, time, time, cohort=start)
    inside = timing.term(replace(window, cohort=None), np.array([period]))
    return Regressor(name, Product((Indicator(timing.period, level(period)), inside)), window)


def _by_event_time(estimates: Estimates, cells: Sequence[Cell]) -> dict[int, dict[str, int]]:
    """Rows behind each coefficient, by event time, ascending."""
    rows = _rows(cells)
    times: dict[int, dict[str, int]] = {}
    for regressor in estimates.fit.regressors:
        window = regressor.window
        if window is None or window.low is None:
            continue
        n = rows.get((window.cohort, window.low), 0)
        if n > 0:
            times.setdefault(window.low, {})[regressor.name] = n
    return dict(sorted(times.items()))


def _rows(cells: Sequence[Cell]) -> dict[tuple[float | None, int], int]:
    found: dict[tuple[float | None, int], int] = {}
    for cell in cells:
        start = cell.first_treated_period
        if start is not None and cell.period is not None:
            found[start, int(cell.period - start)] = cell.n
    return found


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: n / total for name, n in counts.items()}


def _averages(estimates: Estimates, shares: Sequence[Weights]) -> tuple[Array, Array]:
    """Weighted averages of the coefficients, shape (J,), and their covariance, shape (J, J)."""
    names = estimates.names
    weights = np.array([[share.get(name, 0.0) for name in names] for share in shares])
    weights = weights.reshape(len(shares), len(names))
    return weights @ estimates.fit.coefficients, weights @ estimates.covariance @ weights.T


def _pre_trend(options: DidOptions, found: Regressions, *, alpha: float) -> Diagnostic:
    """The joint test that the averages of all event times before the start are zero."""
    model = found.main if options.estimator == "sun_abraham" else found.leads
    if model is None:
        return parallel_trends.untested("no test: the leads are not identified")
    times = _by_event_time(model, found.cells)
    leads = {time: _shares(n) for time, n in times.items() if time < -options.anticipation}
    if not leads:
        return parallel_trends.untested("no test: one period before the treatment")
    estimates, covariance = _averages(model, list(leads.values()))
    names = [f"event_time={time}" for time in leads]
    return parallel_trends.check(
        names, estimates, covariance, df=model.df, kind=options.joint_reference, alpha=alpha
    )


def _event_table(
    spec: DidSpec, found: Regressions, times: Mapping[int, Mapping[str, int]], *, outcome: str
) -> pd.DataFrame:
    """The averages with their event times, and the reference period at zero where there is one.

    Columns: metric, term, estimate, std_error, ci_lower, ci_upper, event_time, n (treated rows).
    """
    estimates, covariance = _averages(found.main, [_shares(counts) for counts in times.values()])
    errors = np.sqrt(np.diag(covariance))
    half = critical_value(spec.confidence_level, df=found.main.df) * errors
    reference = spec.options.reference
    rows = pd.DataFrame(
        {
            "metric": outcome,
            "term": [f"event_time={time}" for time in times],
            "estimate": estimates,
            "std_error": errors,
            "ci_lower": estimates - half,
            "ci_upper": estimates + half,
            "event_time": list(times),
            "n": [sum(counts.values()) for counts in times.values()],
        }
    )
    if spec.options.estimator != "sun_abraham":
        return rows
    n_reference = sum(n for (_, time), n in _rows(found.cells).items() if time == reference)
    zero = pd.DataFrame(
        {
            "metric": outcome, "term": [f"event_time={reference}"], "estimate": 0.0,
            "std_error": 0.0, "ci_lower": 0.0, "ci_upper": 0.0, "event_time": reference,
            "n": n_reference,
        }
    )  # fmt: skip
    return pd.concat([rows, zero]).sort_values("event_time", ignore_index=True)
