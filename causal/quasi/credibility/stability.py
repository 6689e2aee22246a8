r"""Placebos, cohorts left out in turn and the other comparison group in a staggered design.

Every variant is an average of group-time effects of the same cohorts as the analysis itself,
weighted by cohort size. So all of them, and their differences from the analysis, are combinations
of the same influence functions: no further pass over the data, and standard errors of differences
that know how much the variants have in common.

A placebo has no effect by construction: only periods before the true start of each cohort (less the
anticipation) enter. It differs from zero where trends were not parallel.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.quasi.credibility.stability_options import Check
from causal.quasi.group_time import GroupTime, comparisons, effects
from causal.quasi.group_time_averages import Effects, Shares, average
from causal.quasi.influence import Estimates, stacked
from causal.quasi.staggered_options import StaggeredOptions
from causal.quasi.staggered_panel import Design
from causal.quasi.treatment_timing import level


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An average of group-time effects.

    Attributes:
        check: What it belongs to; `analysis` for that of the analysis itself.
        name: Which one it is.
        cells: Its comparisons.
        is_placebo: Whether its effect is zero by construction.
    """

    check: Check | str
    name: str
    cells: tuple[GroupTime, ...]
    is_placebo: bool = False


def variants(design: Design, options: StaggeredOptions, asked: Sequence[Check]) -> list[Variant]:
    """The analysis, then every variant that the design allows.

    Args:
        design: The cohorts.
        options: The analysis.
        asked: The checks.
    """
    cells = _after(comparisons(design, options)[0], options)
    found = [Variant(check="analysis", name="as analysed", cells=cells)]
    for check in asked:
        found += [item for item in _CHECKS[check](design, options, cells) if item.cells]
    return found


def averages(design: Design, options: StaggeredOptions, items: Sequence[Variant]) -> Estimates:
    """The variants' averages; then, in the same order, their differences from the first one.

    Args:
        design: The cohorts.
        options: The analysis.
        items: V variants.

    Returns:
        2 V estimates.
    """
    parts = stacked([_average(design, options, item.cells) for item in items])
    n = len(items)
    less = np.eye(n)
    less[:, 0] -= 1.0
    return parts.combined(np.vstack([np.eye(n), less]))


def _average(design: Design, options: StaggeredOptions, cells: tuple[GroupTime, ...]) -> Estimates:
    base = Effects(
        cells=cells, estimates=effects(design, cells),
        shares=Shares.of_units(design.moments.counts), periods=design.periods,
    )  # fmt: skip
    return average(base, "simple", options).overall


def _after(cells: Sequence[GroupTime], options: StaggeredOptions) -> tuple[GroupTime, ...]:
    """The comparisons that the overall average of the analysis is made of."""
    high = np.inf if options.max_event_time is None else options.max_event_time
    return tuple(cell for cell in cells if 0 <= cell.event_time <= high)


def _without_each(
    design: Design, options: StaggeredOptions, cells: tuple[GroupTime, ...]
) -> Iterator[Variant]:
    cohorts = sorted({cell.cohort for cell in cells})
    for left in cohorts if len(cohorts) > 1 else ():
        kept = []
        for cell in cells:
            pool = tuple(c for c in cell.controls if c != left)
            if cell.cohort != left and _is_enough(design, options, pool):
                kept.append(replace(cell, controls=pool, n_control=design.n_units(pool)))
        start = design.starts[left]
        name = f"without the cohort of {level(start or 0.0)}"
        yield Variant(check="leave_one_cohort_out", name=name, cells=tuple(kept))


def _other_group(
    design: Design, options: StaggeredOptions, cells: tuple[GroupTime, ...]
) -> Iterator[Variant]:
    del cells
    is_never = options.control_group == "never_treated"
    other = "not_yet_treated" if is_never else "never_treated"
    try:
        found, _ = comparisons(design, options.model_copy(update={"control_group": other}))
    except DataError:
        return  # nobody is in the other group
    yield Variant(check="control_group", name=other, cells=_after(found, options))


def _earlier(
    design: Design, options: StaggeredOptions, cells: tuple[GroupTime, ...]
) -> Iterator[Variant]:
    """Every cohort k periods early: anticipated by k more, the effects in the periods between."""
    del cells
    asked = 1 if options.stability is None else options.stability.placebo_periods
    found: list[GroupTime] = []
    for cohort in design.treated:
        start = design.starts[cohort]
        if start is not None:
            early = start - options.anticipation - asked
            until = start - options.anticipation
            found += _pretended(design, options, cohort=cohort, start=early, until=until)
    yield Variant(
        check="placebo_time", name=f"{asked} earlier", cells=tuple(found), is_placebo=True
    )


def _as_earlier_cohorts(
    design: Design, options: StaggeredOptions, cells: tuple[GroupTime, ...]
) -> Iterator[Variant]:
    """Later cohorts pretended to start with each earlier one, while they are untreated."""
    del cells
    starts = [(c, s) for c, s in enumerate(design.starts) if s is not None]
    for early in design.treated:
        first = design.starts[early]
        if first is None:
            continue
        found: list[GroupTime] = []
        for cohort, start in starts:
            if start > first:
                until = start - options.anticipation
                found += _pretended(design, options, cohort=cohort, start=first, until=until)
        yield Variant(
            check="placebo_cohorts", name=f"later cohorts from {level(first)} on",
            cells=tuple(found), is_placebo=True,
        )  # fmt: skip


_CHECKS: Mapping[
    Check, Callable[[Design, StaggeredOptions, tuple[GroupTime, ...]], Iterator[Variant]]
] = MappingProxyType(
    {
        "leave_one_cohort_out": _without_each,
        "control_group": _other_group,
        "placebo_time": _earlier,
        "placebo_cohorts": _as_earlier_cohorts,
    }
)


def _pretended(
    design: Design, options: StaggeredOptions, *, cohort: int, start: float, until: float
) -> Iterator[GroupTime]:
    """Comparisons of a cohort that is pretended to start, in the periods before `until`."""
    periods: Array = design.periods
    before = np.flatnonzero(periods < start)
    if len(before) == 0 or not _is_enough(design, options, (cohort,)):
        return
    base = int(before[-1])
    for at in np.flatnonzero((periods >= start) & (periods < until)).tolist():
        pool = _untreated(design, options, cohort=cohort, until=float(periods[at]))
        if _is_enough(design, options, pool):
            yield GroupTime(
                cohort=cohort, start=start, at=at, base=base, period=float(periods[at]),
                base_period=float(periods[base]), controls=pool,
                n_treated=design.n_units([cohort]), n_control=design.n_units(pool),
            )  # fmt: skip


def _untreated(
    design: Design, options: StaggeredOptions, *, cohort: int, until: float
) -> tuple[int, ...]:
    """Other cohorts that are neither treated nor anticipate it up to a period."""
    is_never = options.control_group == "never_treated"
    return tuple(
        c
        for c, start in enumerate(design.starts)
        if c != cohort
        and (start is None or (not is_never and start > until + options.anticipation))
    )


def _is_enough(design: Design, options: StaggeredOptions, pool: tuple[int, ...]) -> bool:
    return design.n_independent(pool) >= max(options.min_cohort_size, 1)
