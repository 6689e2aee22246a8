"""Planning an experiment on the user's own history: sample size, duration, detectable effects.

A plan is not an estimate: its result has no effects but tables. `plan` has one row per metric,
treatment and estimator; `power_by_size` and `mde_by_duration` hold what the figures draw. The
history has one row per unit, measured as the experiment will measure it (same window, same
winsorisation), from units that nobody treated.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from causal.core.errors import CausalError
from causal.core.frames import FrameRequest, Level
from causal.core.registry import Plan
from causal.core.result import Diagnostic, Result
from causal.experiments.duration import WEEK, Arrivals, Calendar, duration, enrolled, steady
from causal.experiments.planned_test import overlap, sampling
from causal.experiments.power_checks import (
    arrival_checks,
    binding_check,
    history_checks,
    scale_checks,
    time_checks,
    total_of,
)
from causal.experiments.power_family import holm_power
from causal.experiments.power_history import ArrivalHistory, History, ask_arrivals, ask_history
from causal.experiments.power_options import PlannedArrivals, PowerOptions, PowerSpec
from causal.experiments.power_questions import Question, questions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = PowerSpec

_COUNTS = (
    "n_control",
    "n_treated",
    "n_total",
    "n_clusters",
    "enrolment_days",
    "total_days",
    "units",
)
_SIZES = 33
_SIZE_SPAN = 8.0


def estimate(spec: PowerSpec) -> Plan:
    """Plan every treatment of every metric from the history.

    Raises:
        DataError: The history cannot carry the plan; the message names the metric.
        SpecError: The tests that were asked for do not fit the metrics.
        InferenceError: No sample size finds an effect.

    Example:
        >>> import pandas as pd
        >>> from causal.core.pandas_engine import PandasEngine
        >>> from causal.core.plan import run
        >>> from causal.core.spec import validate
        >>> history = pd.DataFrame({"user_id": range(100), "bought": [0, 0, 0, 1] * 25})
        >>> spec = validate(
        ...     PowerSpec,
        ...     {
        ...         "name": "checkout",
        ...         "source": {"table": "users"},
        ...         "options": {
        ...             "unit": "user_id",
        ...             "metrics": [
        ...                 {
        ...                     "name": "conversion",
        ...                     "type": "proportion",
        ...                     "column": "bought",
        ...                     "mde": 0.02,
        ...                 },
        ...             ],
        ...         },
        ...     },
        ... )
        >>> int(run(estimate(spec), PandasEngine(history)).params["n_total"])
        15056
    """
    options, where = spec.options, spec.source.conditions
    history = yield from ask_history(
        options.metrics, unit=options.unit, cluster=options.cluster, where=where
    )
    arrivals, checks = None, history_checks(options, history)
    if options.arrivals is not None:
        found = yield from _ask_arrivals(options.arrivals, spec)
        arrivals = found.arrivals
        checks += arrival_checks(found)
    return _result(spec, _all_questions(options, history), arrivals, checks)


def figures(result: Result) -> Mapping[str, "Figure"]:
    """Power by sample size, and detectable effect by weeks."""
    from causal.experiments import power_figures

    return power_figures.figures(result)


def _all_questions(options: PowerOptions, history: History) -> list[Question]:
    out = []
    for position, metric in enumerate(options.metrics):
        try:
            out += questions(metric, history, options)
        except CausalError as error:
            raise error.located(key=f"options.metrics.{position}") from error
    return out


def _ask_arrivals(
    asked: PlannedArrivals, spec: PowerSpec
) -> Generator[FrameRequest, pd.DataFrame, ArrivalHistory]:
    if asked.day is None:
        return ArrivalHistory(steady(asked.per_day or 0.0), 0)
    return (
        yield from ask_arrivals(day=asked.day, is_new=asked.is_new, where=spec.source.conditions)
    )


def _result(
    spec: PowerSpec,
    asked: Sequence[Question],
    arrivals: Arrivals | None,
    checks: Sequence[Diagnostic],
) -> Result:
    options = spec.options
    calendar = None if options.arrivals is None else _calendar(options.arrivals)
    rows = [_row(question, options, arrivals, calendar) for question in asked]
    tables = {"plan": pd.DataFrame(rows).astype(dict.fromkeys(_COUNTS, "Int64"))}
    by_size = [row for question in asked for row in _power_rows(question, options.units)]
    if by_size:
        tables["power_by_size"] = pd.DataFrame(by_size)
    if arrivals is not None and calendar is not None:
        by_week = [row for item in asked for row in _week_rows(item, arrivals, calendar)]
        tables["mde_by_duration"] = pd.DataFrame(by_week)
    deciding = _deciding(asked, rows)
    found = [*checks, *scale_checks(asked, rows), *time_checks(rows, options)]
    if deciding is not None:
        found.append(binding_check(deciding))
    params = {"n_history": float(checks[0].statistic or 0.0)} | _params(deciding, options)
    return Result(effects=(), diagnostics=tuple(found), params=params, tables=tables)


def _row(
    question: Question,
    options: PowerOptions,
    arrivals: Arrivals | None,
    calendar: Calendar | None,
) -> dict[str, object]:
    """One row of the table `plan`; null where something was not asked or cannot be had."""
    exact = question.total_size()
    sizes = None if exact is None else _whole(exact, options)
    total = None if sizes is None else sum(sizes.values())
    lasting = None
    if arrivals is not None and calendar is not None and total is not None:
        lasting = duration(arrivals, calendar, n_units=total)
    per_cluster = question.outcome.units_per_cluster
    metric, units = question.metric, options.units
    return {
        **_head(question),
        "role": metric.role,
        "term": f"{question.treatment} - {options.control}",
        "scale": question.test.scale,
        "level": question.outcome.level,
        "std": question.std,
        "variance_kept": question.variance_kept,
        "design_effect": question.design_effect,
        "alpha": question.test.alpha,
        "power": question.power,
        "mde": metric.mde,
        "margin": metric.margin,
        "n_control": None if sizes is None else sizes[options.control],
        "n_treated": None if sizes is None else sizes[question.treatment],
        "n_total": total,
        "n_clusters": None
        if total is None or per_cluster is None
        else math.ceil(total / per_cluster),
        "enrolment_days": None if lasting is None else lasting.enrolment_days,
        "total_days": None if lasting is None else lasting.total_days,
        "holm_power": _holm(question, options, total),
        "units": units,
        "power_with_units": None if units is None else question.power_with(units),
        "detectable_with_units": None if units is None else question.detectable_with(units),
    }


def _whole(total: float, options: PowerOptions) -> dict[Level, int]:
    """Whole units in every arm."""
    # A size that is whole up to rounding must not become one more.
    return {
        level: math.ceil(total * share - 1e-9 * total)
        for level, share in options.normalised_shares.items()
    }


def _holm(question: Question, options: PowerOptions, total: int | None) -> float | None:
    """Expected share of treatments found when all have the effect and the family is theirs."""
    n_treatments = len(options.treatments)
    shares = {options.normalised_shares[level] for level in options.treatments}
    fits = (
        options.correction == "holm"
        and options.family_size == n_treatments > 1
        and len(shares) == 1
        and question.test.alternative == "two_sided"
        and question.test.definition == "suite"
    )
    if not fits or total is None or question.effect is None:
        return None
    n_control = total * question.control_share
    found = sampling(question.outcome, question.test, effect=question.effect, n_control=n_control)
    return holm_power(
        found.distance / found.std_error,
        n_treatments=n_treatments,
        alpha=options.alpha,
        overlap=overlap(
            question.outcome, question.test, effect=question.effect, n_control=n_control
        ),
    )


def _power_rows(question: Question, units: int | None) -> list[dict[str, object]]:
    needed = question.total_size()
    if needed is None:
        return []
    largest = max(needed * _SIZE_SPAN / 2, float(units or 0))
    sizes = np.geomspace(needed / _SIZE_SPAN, largest, _SIZES)
    found = [(float(size), question.power_with(float(size))) for size in sizes]
    return [
        {**_head(question), "n_total": size, "power": value}
        for size, value in found
        if value is not None
    ]


def _week_rows(
    question: Question, arrivals: Arrivals, calendar: Calendar
) -> list[dict[str, object]]:
    """Detectable effect, and power of the planned one, after every whole week of enrolment."""
    by_day = enrolled(arrivals, calendar)
    out = []
    for week in range(1, calendar.max_days // WEEK + 1):
        total = float(by_day[week * WEEK - 1])
        detectable = question.detectable_with(total)
        level = question.outcome.level
        relative = detectable if question.test.scale == "relative" else None
        if relative is None and detectable is not None and level != 0:
            relative = detectable / level
        out.append(
            {
                **_head(question),
                "weeks": week,
                "total_days": week * WEEK + calendar.follow_up_days,
                "n_total": total,
                "scale": question.test.scale,
                "detectable": detectable,
                "detectable_relative": relative,
                "power": question.power_with(total),
            }
        )
    return out


def _head(question: Question) -> dict[str, object]:
    return {
        "metric": question.metric.name,
        "treatment": str(question.treatment),
        "estimator": question.estimator,
        "question": "non_inferiority" if question.metric.is_non_inferiority else "difference",
    }


def _calendar(asked: PlannedArrivals) -> Calendar:
    return Calendar(
        enrolled_share=asked.enrolled_share,
        follow_up_days=asked.follow_up_days,
        is_whole_weeks=asked.whole_weeks,
        max_days=asked.max_weeks * WEEK,
    )


def _deciding(
    asked: Sequence[Question], rows: Sequence[Mapping[str, object]]
) -> Mapping[str, object] | None:
    """The row that needs most units: of each metric the best estimator, secondary ones aside."""
    first: dict[str, Mapping[str, object]] = {}
    for question, row in zip(asked, rows, strict=True):
        if row["n_total"] is not None:
            first.setdefault(question.name, row)
    found = [row for row in first.values() if row["role"] != "secondary"] or list(first.values())
    return max(found, key=total_of, default=None)


def _params(row: Mapping[str, object] | None, options: PowerOptions) -> dict[str, float]:
    """What the experiment needs as a whole."""
    if row is None:
        return {}
    total = total_of(row)
    out: dict[str, float] = {"n_total": float(total)}
    shares = options.normalised_shares
    out |= {f"n.{level}": float(math.ceil(total * share)) for level, share in shares.items()}
    for name in ("enrolment_days", "total_days", "n_clusters"):
        value = row[name]
        if isinstance(value, int):
            out[name] = float(value)
    return out
