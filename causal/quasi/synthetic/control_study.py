"""Everything a synthetic control finds in one panel: fits, placebos and sensitivity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.quasi.synthetic.control_options import ControlOptions, SyntheticControlSpec
from causal.quasi.synthetic.control_rules import fit_rule, placebo_rule, refit_rule, task_of
from causal.quasi.synthetic.donor_fit import DonorFit, FitRule, RefitRule, Task, outcome_fit
from causal.quasi.synthetic.placebo import (
    Average,
    PermutationTest,
    average,
    permutation_test,
    placebo_sets,
)
from causal.quasi.synthetic.predictor_table import PredictorTable
from causal.quasi.synthetic.region_panel import MIN_PRE_PERIODS, Indices, RegionPanel
from causal.quasi.time_axis import given_label, n_before, shown

_WEIGHTLESS = 1e-6
_HELD_OUT_SHARE = 4


@dataclass(frozen=True, kw_only=True)
class Placebos:
    """Donors in place of the treated regions.

    Attributes:
        fits: By donor and position of the pretended start.
        averages: One per donor or set of donors that is compared.
        is_exhaustive: Whether these are all sets.
        n_left_out: Sets left out for their poor fit before the start.
    """

    fits: Mapping[tuple[int, int], DonorFit]
    averages: tuple[Average, ...]
    is_exhaustive: bool
    n_left_out: int


@dataclass(frozen=True, kw_only=True)
class Study:
    """What was found.

    Attributes:
        panel: The regions.
        fits: One per treated region.
        observed: Their average.
        placebos: The comparison.
        test: What the comparison says.
    """

    panel: RegionPanel
    fits: tuple[DonorFit, ...]
    observed: Average
    placebos: Placebos
    test: PermutationTest

    @property
    def n_cells(self) -> int:
        """Treated region-periods."""
        return sum(len(item.after) for item in self.fits)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """The average effect without one donor."""

    donor: int
    average: Average


def study(
    spec: SyntheticControlSpec, panel: RegionPanel, predictors: PredictorTable | None
) -> Study:
    """Fit the treated regions and the placebos, and compare.

    Raises:
        DataError: Something cannot be matched.
        InferenceError: There are too few donors to compare with.
    """
    options = spec.options
    tasks = treated_tasks(options, panel)
    sets, is_exhaustive = placebo_sets(
        len(panel.donors), [task.n_pre for task in tasks],
        n_sets=options.n_placebos, seed=spec.seed,
    )  # fmt: skip
    rule = fit_rule(options, predictors)
    fits = tuple(rule(task) for task in tasks)
    observed = average(fits)
    found = _placebo_fits(tasks, placebo_rule(options, predictors, fits))
    refit = refit_rule(options, predictors)
    averages = [_set_average(found, refit, tasks, panel.donors[chosen]) for chosen in sets]
    kept = _comparable(averages, observed, limit=options.max_placebo_mspe)
    test = permutation_test(observed, kept, confidence_level=spec.confidence_level)
    placebos = Placebos(
        fits=found, averages=tuple(kept), is_exhaustive=is_exhaustive,
        n_left_out=len(averages) - len(kept),
    )  # fmt: skip
    return Study(panel=panel, fits=fits, observed=observed, placebos=placebos, test=test)


def treated_tasks(options: ControlOptions, panel: RegionPanel) -> tuple[Task, ...]:
    """What is to be matched, one per treated region."""
    return tuple(
        task_of(options, panel, row=int(row), n_pre=int(panel.starts[row]), donors=panel.donors)
        for row in panel.treated
    )


def leave_one_out(found: Study, rule: FitRule) -> tuple[LeftOut, ...]:
    """The average effect without each donor that has weight somewhere."""
    donors = found.panel.donors
    if len(donors) <= 1:
        return ()
    size = np.max([np.abs(item.weights) for item in found.fits], axis=0)
    return tuple(
        LeftOut(
            donor=int(donor),
            average=average([rule(item.task.without(int(donor))) for item in found.fits]),
        )
        for donor in donors[size > _WEIGHTLESS]
    )


def in_time_placebo(
    spec: SyntheticControlSpec, panel: RegionPanel, predictors: PredictorTable | None
) -> tuple[Average, PermutationTest] | None:
    """The effect of a pretended earlier start, on periods before the true one.

    Raises:
        DataError: The pretended start leaves too few periods before it, or none after.
    """
    if spec.options.placebo_period is None:
        return None
    periods = panel.periods
    start = given_label(spec.options.placebo_period, like=periods[0], key="placebo_period")
    position = n_before(periods, start)
    first = int(panel.starts[panel.treated].min())
    if not MIN_PRE_PERIODS <= position < first:
        raise DataError(
            "placebo_period must leave two periods before it and lie before the treatment",
            given=shown(start),
            allowed=f"{shown(periods[MIN_PRE_PERIODS])} to {shown(periods[first - 1])}",
        )
    options = spec.options.model_copy(update={"match_window": None})
    early = replace(panel, values=panel.values[:, :first])
    tasks = [
        task_of(options, early, row=int(row), n_pre=position, donors=panel.donors)
        for row in panel.treated
    ]
    rule = fit_rule(options, predictors, is_clipped=True)
    observed = average([rule(task) for task in tasks])
    found = _placebo_fits(tasks, rule)
    sets, _ = placebo_sets(
        len(panel.donors), [position] * len(tasks), n_sets=options.n_placebos, seed=spec.seed
    )
    refit = refit_rule(options, predictors, is_clipped=True)
    averages = [_set_average(found, refit, tasks, panel.donors[chosen]) for chosen in sets]
    test = permutation_test(observed, averages, confidence_level=spec.confidence_level)
    return observed, test


def held_out_gap(fits: Sequence[DonorFit]) -> tuple[float, float]:
    """Root mean squared gaps in the last quarter of the matched periods, held out, and before it.

    Fits match outcomes on the simplex, whatever the variant.
    """
    parts = [_held_out(item.task) for item in fits]
    later = np.concatenate([part[0] for part in parts])
    earlier = np.concatenate([part[1] for part in parts])
    return float(np.sqrt((later**2).mean())), float(np.sqrt((earlier**2).mean()))


def _held_out(task: Task) -> tuple[Array, Array]:
    n_later = max(1, len(task.matched) // _HELD_OUT_SHARE)
    earlier = task.matched[:-n_later]
    gaps = outcome_fit(replace(task, matched=earlier)).gaps
    return gaps[task.matched[-n_later:]], gaps[earlier]


def _placebo_fits(tasks: Sequence[Task], rule: FitRule) -> dict[tuple[int, int], DonorFit]:
    """Each donor matched by the others, for each start that occurs."""
    by_start = {task.n_pre: task for task in tasks}
    return {
        (int(donor), n_pre): rule(replace(task.without(int(donor)), target=int(donor)))
        for n_pre, task in by_start.items()
        for donor in task.donors
    }


def _set_average(
    found: Mapping[tuple[int, int], DonorFit],
    refit: RefitRule,
    tasks: Sequence[Task],
    rows: Indices,
) -> Average:
    """The average of a set of donors, each matched by the donors outside the set."""
    alone = [found[int(row), task.n_pre] for row, task in zip(rows, tasks, strict=True)]
    if len(alone) == 1:
        return average(alone)
    return average([refit(item, item.task.without(*rows)) for item in alone])


def _comparable(
    averages: Sequence[Average], observed: Average, *, limit: float | None
) -> list[Average]:
    if limit is None:
        return list(averages)
    kept = [item for item in averages if item.pre_mspe <= limit * observed.pre_mspe]
    if not kept:
        raise DataError(
            "max_placebo_mspe leaves no placebo to compare with", given=f"{limit:g}",
            allowed="a larger multiple",
        )  # fmt: skip
    return kept
