r"""Group-time average treatment effects, ATT(g,t), from means and cross-products of cohorts.

The effect on the cohort that starts in g, in period t, is the change of its mean outcome since a
base period less the same change of a comparison group:

    ATT(g,t) = (mean_g,t - mean_g,b) - (mean_C,t - mean_C,b).

It needs parallel trends between the cohort and the comparison group, and no anticipation beyond
the stated one; effects may differ by cohort and time. Callaway and Sant'Anna (2021),
"Difference-in-differences with multiple time periods", Journal of Econometrics 225.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.errors import DataError
from causal.quasi.influence import Estimates, Moments
from causal.quasi.outcome_regression import Layout, adjusted
from causal.quasi.staggered_options import StaggeredOptions
from causal.quasi.staggered_panel import Design

MAX_CELLS = 5_000
"""More effects than these have a covariance that should not be on the driver."""


@dataclass(frozen=True, kw_only=True)
class GroupTime:
    """One comparison.

    Attributes:
        cohort: Position of the treated cohort.
        start: Its first treated period.
        at: Position of the period.
        base: Position of the base period; `at` itself for the reference of a universal base.
        period: The period.
        base_period: The base period.
        controls: Positions of the cohorts of the comparison group.
        n_treated: Units of the cohort.
        n_control: Units of the comparison group.
    """

    cohort: int
    start: float
    at: int
    base: int
    period: float
    base_period: float
    controls: tuple[int, ...]
    n_treated: int
    n_control: int

    @property
    def event_time(self) -> int:
        """Time since the start."""
        return round(self.period - self.start)

    @property
    def is_reference(self) -> bool:
        """Whether the period is compared with itself."""
        return self.at == self.base


def comparisons(
    design: Design,
    options: StaggeredOptions,
    *,
    is_seen: Callable[[GroupTime], bool] = lambda _: True,
) -> tuple[tuple[GroupTime, ...], int]:
    """All comparisons that the design allows, by cohort and period, and how many it does not.

    A comparison is not possible where its comparison group has fewer than `min_cohort_size`
    clusters or units.

    Args:
        design: The cohorts.
        options: The analysis.
        is_seen: Whether both sides of a comparison are seen in both periods.

    Raises:
        DataError: None is possible, or they are too many.
    """
    found = [item for cohort in design.treated for item in _of_cohort(design, options, cohort)]
    possible = [
        item
        for item in found
        if design.n_independent(item.controls) >= max(options.min_cohort_size, 1) and is_seen(item)
    ]
    if not any(item.period >= item.start for item in possible):
        raise DataError("no effect after the start of a treatment has a comparison group")
    if len(possible) > MAX_CELLS:
        raise DataError(
            "too many cohorts and periods: coarsen the periods or filter the rows",
            given=f"{len(possible)} effects",
            allowed=f"at most {MAX_CELLS}",
        )
    return tuple(possible), len(found) - len(possible)


def effects(design: Design, cells: tuple[GroupTime, ...]) -> Estimates:
    """The K effects and how each unit moves them.

    A treated unit moves an effect by its own change less the cohort's mean change, over the number
    of treated units; a comparison unit by minus the same, with all comparison units as one group.
    With covariates see `outcome_regression`.

    Args:
        design: The cohorts.
        cells: The K comparisons.
    """
    moments = design.moments
    counts, means = moments.counts, np.array([cohort.mean for cohort in moments.cohorts])
    values = np.zeros(len(cells))
    slopes = np.zeros((len(cells), *means.shape))
    offsets = np.zeros((len(cells), len(means)))
    layout = Layout(len(design.periods), design.n_covariates)
    for k, cell in enumerate(cells):
        if cell.is_reference:
            continue
        pool = list(cell.controls)
        if design.n_covariates:
            found = adjusted(
                moments.cohorts[cell.cohort], [moments.cohorts[c] for c in pool], layout,
                at=cell.at, base=cell.base,
            )  # fmt: skip
            values[k] = found.value
            slopes[k, cell.cohort], slopes[k, pool] = found.treated, found.control
            offsets[k, pool] = means[pool] @ found.control + found.constant
            continue
        change = means[:, cell.at] - means[:, cell.base]
        share = counts[pool] / counts[pool].sum()
        untreated = float(share @ change[pool])
        values[k] = change[cell.cohort] - untreated
        weights = np.zeros(len(means))
        weights[cell.cohort] = 1.0 / counts[cell.cohort]
        weights[pool] = -1.0 / counts[pool].sum()
        slopes[k, :, cell.at], slopes[k, :, cell.base] = weights, -weights
        offsets[k, pool] = weights[pool] * (change[pool] - untreated)
    return Estimates(values=values, slopes=slopes, offsets=offsets)


def effects_with_influence(
    cells: Sequence[GroupTime], found: Sequence[float], moments: Moments
) -> Estimates:
    """Effects where the values of a unit are its influences, in the cohorts that are compared.

    Args:
        cells: The K comparisons.
        found: The effects of those that are no reference.
        moments: Of the influences on them, one value each.
    """
    means = np.array([cohort.mean for cohort in moments.cohorts])
    values = np.zeros(len(cells))
    slopes = np.zeros((len(cells), *means.shape))
    offsets = np.zeros((len(cells), len(means)))
    estimated = iter(enumerate(found))
    for k, cell in enumerate(cells):
        if cell.is_reference:
            continue
        at, values[k] = next(estimated)
        members = [cell.cohort, *cell.controls]
        slopes[k, members, at] = 1.0
        offsets[k, members] = means[members, at]
    return Estimates(values=values, slopes=slopes, offsets=offsets)


def _of_cohort(design: Design, options: StaggeredOptions, cohort: int) -> Iterator[GroupTime]:
    start = design.starts[cohort]
    if start is None:
        raise ValueError("the never treated have no effect")
    periods = design.periods
    last_before = int(np.flatnonzero(periods + options.anticipation < start)[-1])
    first = 0 if options.base_period == "universal" else 1
    for at in range(first, len(periods)):
        is_varying = options.base_period == "varying" and periods[at] < start
        base = at - 1 if is_varying else last_before
        controls = _controls(design, options, cohort=cohort, until=float(periods[max(at, base)]))
        yield GroupTime(
            cohort=cohort,
            start=start,
            at=at,
            base=base,
            period=float(periods[at]),
            base_period=float(periods[base]),
            controls=controls,
            n_treated=design.n_units([cohort]),
            n_control=design.n_units(controls),
        )


def _controls(
    design: Design, options: StaggeredOptions, *, cohort: int, until: float
) -> tuple[int, ...]:
    """Cohorts that are not treated, and do not anticipate it, up to a period."""
    if options.control_group == "never_treated":
        return tuple(c for c, start in enumerate(design.starts) if start is None)
    return tuple(
        c
        for c, start in enumerate(design.starts)
        if c != cohort and (start is None or start > until + options.anticipation)
    )
