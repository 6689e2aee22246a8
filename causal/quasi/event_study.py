"""Event study: one coefficient per event time beside unit and period effects.

The coefficient of event time k compares treated units k periods after their start (before it,
where k is negative) with the reference period and with units not treated then. Under parallel
trends and no anticipation the leads are zero. With several cohorts whose effects differ, a
coefficient mixes effects of other event times (Sun and Abraham 2021).
"""

from collections.abc import Generator, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from causal.core.errors import DataError, InferenceError
from causal.core.frames import FrameRequest
from causal.core.readout import Readout, covariance_table
from causal.core.result import Effect
from causal.quasi.credibility.readout import Checks, Study, event_study_checks
from causal.quasi.did_options import DidOptions, DidSpec
from causal.quasi.effects_regression import Regressions, regress
from causal.quasi.panel import Cell, Panel, cohort_means, observe
from causal.quasi.readout import (
    panel_diagnostics,
    pre_trend,
    regression_effect,
)
from causal.quasi.treated_clusters import ask_lone_effects, ask_treated_clusters
from causal.quasi.treatment_timing import EventWindow, event_times, event_windows, is_post
from causal.quasi.within_fit import Regressor

AVERAGE = "average post"


def estimate(spec: DidSpec, *, outcome: str) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    """The event-study estimates for one outcome.

    The effect `average post` weighs the coefficients at and after the start by the number of
    treated unit-periods behind each: the mean effect per treated unit and period.
    """
    options, where = spec.options, spec.source.conditions
    panel = yield from observe(options, outcome=outcome, where=where, by_cluster=True)
    regressors = _regressors(options, panel)
    found = yield from regress(
        options, regressors, leads=(), outcome=outcome, panel=panel, where=where
    )
    windows = [r.window for r in found.main.fit.regressors if r.window is not None]
    shares = _post_shares(windows, found.cells)
    average = regression_effect(spec, found, metric=outcome, term=AVERAGE, weights=shares)
    each = [regression_effect(spec, found, metric=outcome, term=window.name) for window in windows]
    sides = yield from ask_treated_clusters(options, panel, units=found.units, where=where)
    rows = {window: count_rows(window, found.cells) for window in windows}
    sides += yield from ask_lone_effects(options, panel, rows, units=found.units, where=where)
    checks = Checks()
    if options.family == "linear":
        checks = event_study_checks(
            _study(options, found), options.sensitivity,
            metric=outcome, confidence_level=spec.confidence_level,
        )  # fmt: skip
    return Readout(
        effects=(average, *each),
        diagnostics=(
            pre_trend(options, found.main, alpha=1 - spec.confidence_level),
            *panel_diagnostics(options, panel, found),
            *checks.diagnostics,
            *sides,
        ),
        params={
            "n_rows": found.main.fit.n,
            "n_units": found.main.fit.n_units,
            "reference_period": options.reference,
        },
        tables={
            "cohort_means": cohort_means(found.cells, metric=outcome),
            "event_study": _event_table(spec, found, each, windows=windows),
            "covariance": covariance_table(found.main.names, found.main.covariance, metric=outcome),
            **checks.tables,
        },
    )


def _study(options: DidOptions, found: Regressions) -> Study:
    """The coefficients of single event times; bins stand for several and are left out."""
    main = found.main
    windows = [(k, r.window) for k, r in enumerate(main.fit.regressors) if r.window is not None]
    at = [k for k, window in windows if window.low == window.high]
    times = [window.low for _, window in windows if window.low == window.high]
    return Study(
        times=np.array(times, dtype=np.float64), estimates=main.fit.coefficients[at],
        covariance=main.covariance[np.ix_(at, at)], anticipation=options.anticipation,
        reference=options.reference, n_binned=len(windows) - len(at), df=main.df,
        joint_test=options.joint_reference,
    )  # fmt: skip


def _regressors(options: DidOptions, panel: Panel) -> tuple[Regressor, ...]:
    timing = panel.timing
    if timing is None:
        raise DataError("an event study needs first_treated_period or group")
    times = event_times(panel.periods, panel.starts)
    if options.reference not in times:
        raise DataError(
            "no treated unit is observed in the reference period",
            given=options.reference, allowed=times,
        )  # fmt: skip
    windows = event_windows(
        times,
        reference=options.reference,
        low=options.min_event_time,
        high=options.max_event_time,
    )
    _check_trend(panel, windows)
    return tuple(Regressor(w.name, timing.term(w, panel.periods), w) for w in windows)


def _check_trend(panel: Panel, windows: Sequence[EventWindow]) -> None:
    """Something tells the coefficients from a trend.

    In rows of treated units a line through the event times is a line through the periods less a
    constant of the unit.

    Raises:
        InferenceError: All units are treated at some time, and each event time has a coefficient.
    """
    if not panel.has_never_treated and all(window.low == window.high for window in windows):
        raise InferenceError(
            "there are no never-treated units, so a trend fits all leads and lags as well",
            given=f"cohorts {', '.join(f'{start:g}' for start in panel.starts)}",
            allowed="min_event_time or max_event_time, which bin the ends, or estimator: two_stage "
            "without the periods in which everybody is treated",
        )


def _post_shares(windows: Sequence[EventWindow], cells: Sequence[Cell]) -> dict[str, float]:
    """Share of each post-treatment window in the treated unit-periods."""
    post = [window for window in windows if is_post(window)]
    counts = {window.name: float(count_rows(window, cells)) for window in post}
    total = sum(counts.values())
    if total == 0:
        raise DataError("no treated unit is observed at or after its start")
    return {name: count / total for name, count in counts.items()}


def count_rows(window: EventWindow, cells: Sequence[Cell]) -> int:
    """Rows inside a window."""
    return sum(
        cell.n
        for cell in cells
        if cell.period is not None
        and window.path(np.array([cell.period]), cell.first_treated_period)[0] > 0
    )


def _event_table(
    spec: DidSpec, found: Regressions, each: Sequence[Effect], *, windows: Sequence[EventWindow]
) -> pd.DataFrame:
    """The coefficients with their event times, and the reference period at zero.

    Columns: metric, term, estimate, std_error, ci_lower, ci_upper, event_time, n (treated rows).
    """
    outcome = each[0].metric
    columns = ["metric", "term", "estimate", "std_error", "ci_lower", "ci_upper"]
    table = pd.DataFrame([asdict(item) for item in each], columns=columns)
    table["event_time"] = [_position(window) for window in windows]
    table["n"] = [count_rows(window, found.cells) for window in windows]
    reference = spec.options.reference
    zero = EventWindow(f"event_time={reference}", reference, reference)
    row = {
        "term": zero.name, "metric": outcome, "estimate": 0.0, "std_error": 0.0, "ci_lower": 0.0,
        "ci_upper": 0.0, "event_time": reference, "n": count_rows(zero, found.cells),
    }  # fmt: skip
    full = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
    return full.sort_values("event_time", ignore_index=True)


def _position(window: EventWindow) -> int:
    """Where a window stands on the axis: its bound next to the reference."""
    bound = window.high if window.low is None else window.low
    if bound is None:
        raise ValueError(f"{window.name} is open on both sides")
    return bound
