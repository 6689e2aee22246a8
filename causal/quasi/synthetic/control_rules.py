"""From the options of a synthetic control to the function that fits one region."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.quasi.synthetic.control_options import ControlOptions
from causal.quasi.synthetic.donor_fit import (
    DonorFit,
    FitRule,
    RefitRule,
    Task,
    demeaned_fit,
    outcome_fit,
    penalised_fit,
    ridge_fit,
)
from causal.quasi.synthetic.predictor_fit import (
    Search,
    cross_validated_fit,
    equal_fit,
    fixed_fit,
    nested_fit,
    scaled_predictors,
)
from causal.quasi.synthetic.predictor_table import PredictorTable
from causal.quasi.synthetic.region_panel import MIN_PRE_PERIODS, Indices, RegionPanel
from causal.quasi.time_axis import Periods, between, given_label, label_of, n_before, shown

_OUTCOME_RULES = {
    "standard": outcome_fit,
    "demeaned": demeaned_fit,
    "ridge_augmented": ridge_fit,
}


def task_of(
    options: ControlOptions, panel: RegionPanel, *, row: int, n_pre: int, donors: Indices
) -> Task:
    """A region with its start, its donors and the periods to be matched.

    Raises:
        DataError: Fewer than two periods are matched, or some from the start on.
    """
    return Task(
        values=panel.values,
        target=row,
        donors=donors[donors != row],
        n_pre=n_pre,
        matched=matched_periods(options, panel, n_pre=n_pre),
    )


def matched_periods(options: ControlOptions, panel: RegionPanel, *, n_pre: int) -> Indices:
    """Positions of the periods whose outcomes are matched.

    Raises:
        DataError: They are fewer than two, or reach beyond the start.
    """
    if options.match_window is None:
        return np.arange(n_pre)
    periods = panel.periods
    is_within = between(
        *options.match_window, like=periods[0], keys=("match_window", "match_window")
    )
    inside = np.flatnonzero([is_within(period) for period in periods])
    if len(inside) < MIN_PRE_PERIODS or inside[-1] >= n_pre:
        low, high = map(label_of, options.match_window)
        raise DataError(
            "match_window must hold two periods or more, all before the start",
            given=f"{shown(low)} to {shown(high)}, {len(inside)} periods",
            allowed=f"{shown(periods[0])} to {shown(periods[n_pre - 1])}",
        )
    return inside


def fit_rule(
    options: ControlOptions, predictors: PredictorTable | None, *, is_clipped: bool = False
) -> FitRule:
    """How one region is fitted.

    Args:
        options: The options.
        predictors: What is matched beside the outcome.
        is_clipped: Whether predictors pass over periods from the task's start on.
    """
    if predictors is None:
        if options.variant == "penalised":
            return partial(penalised_fit, penalty=options.penalty)
        return _OUTCOME_RULES[options.variant]
    if options.importance == "cross_validated":
        return _cross_validated(options, predictors)
    matrix = _cached(predictors, is_clipped=is_clipped)

    def rule(task: Task) -> DonorFit:
        scaled = scaled_predictors(matrix(task.n_pre), task, predictors.names)
        if options.importance == "equal":
            return equal_fit(task, scaled)
        search: Search = "global" if options.importance == "global" else "local"
        return nested_fit(task, scaled, search=search)

    return rule


def placebo_rule(
    options: ControlOptions, predictors: PredictorTable | None, fits: tuple[DonorFit, ...]
) -> FitRule:
    """How placebos are fitted, given the fits of the treated regions."""
    if predictors is None or options.placebo_importance == "refit":
        return fit_rule(options, predictors)
    importance = np.mean([item.importance for item in fits], axis=0)
    matrix = _cached(predictors, is_clipped=False)

    def rule(task: Task) -> DonorFit:
        scaled = scaled_predictors(matrix(task.n_pre), task, predictors.names)
        return fixed_fit(task, scaled, importance=importance)

    return rule


def refit_rule(
    options: ControlOptions, predictors: PredictorTable | None, *, is_clipped: bool = False
) -> RefitRule:
    """How a fitted region is matched by fewer donors.

    Args:
        options: The options.
        predictors: What is matched beside the outcome.
        is_clipped: As for `fit_rule`.
    """
    if predictors is not None:
        return _refit_on_predictors(options, predictors, is_clipped=is_clipped)
    if options.variant == "ridge_augmented":
        return lambda fit, task: ridge_fit(task, ridge=fit.ridge)
    if options.variant == "penalised":
        return lambda fit, task: penalised_fit(task, penalty=fit.penalty)
    rule = _OUTCOME_RULES[options.variant]
    return lambda _, task: rule(task)


def _refit_on_predictors(
    options: ControlOptions, predictors: PredictorTable, *, is_clipped: bool
) -> RefitRule:
    matrix = _cached(predictors, is_clipped=is_clipped)

    @cache
    def late(n_pre: int, middle: int) -> Array:
        return _late(predictors, n_pre=n_pre, middle=middle)

    def rule(fit: DonorFit, task: Task) -> DonorFit:
        if options.importance == "cross_validated":
            middle = _validation_start(options, task, predictors.panel.periods)
            values = late(task.n_pre, middle)
        else:
            values = matrix(task.n_pre)
        scaled = scaled_predictors(values, fit.task, predictors.names)
        kept = scaled.of(np.isin(fit.task.donors, task.donors))
        return fixed_fit(task, kept, importance=np.array(fit.importance))

    return rule


def _late(predictors: PredictorTable, *, n_pre: int, middle: int) -> Array:
    """Predictors of the validation periods."""
    periods = predictors.panel.periods
    window = (periods[middle], periods[n_pre - 1])
    return predictors.matrix(start=periods[n_pre], window=window)


def _cached(predictors: PredictorTable, *, is_clipped: bool) -> Callable[[int], Array]:
    @cache
    def matrix(n_pre: int) -> Array:
        start = predictors.panel.periods[n_pre]
        return predictors.matrix(start=start, is_clipped=is_clipped)

    return matrix


def _cross_validated(options: ControlOptions, predictors: PredictorTable) -> FitRule:
    periods = predictors.panel.periods

    def rule(task: Task) -> DonorFit:
        middle = _validation_start(options, task, periods)
        start = periods[task.n_pre]
        early = (periods[0], periods[middle - 1])
        late = _late(predictors, n_pre=task.n_pre, middle=middle)
        names = predictors.names
        held_out = Task(
            values=task.values, target=task.target, donors=task.donors, n_pre=task.n_pre,
            matched=np.arange(middle, task.n_pre),
        )  # fmt: skip
        return cross_validated_fit(
            task,
            training=scaled_predictors(predictors.matrix(start=start, window=early), task, names),
            validation=scaled_predictors(late, task, names),
            held_out=held_out,
        )

    return rule


def _validation_start(options: ControlOptions, task: Task, periods: Periods) -> int:
    """Position of the first validation period."""
    if options.validation_start is None:
        return task.n_pre // 2
    start = given_label(options.validation_start, like=periods[0], key="validation_start")
    middle = n_before(periods, start)
    if not 0 < middle < task.n_pre:
        raise DataError(
            "validation_start must leave periods before it and up to the treatment",
            given=shown(start),
            allowed=f"after {shown(periods[0])}, before {shown(periods[task.n_pre])}",
        )
    return middle
