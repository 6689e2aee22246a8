"""The cohorts of a staggered design: who is estimated, who can only compare, who is left out."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Column,
    Condition,
    Constant,
    FrameRequest,
    GramRequest,
    PanelGramRequest,
    Term,
    linear,
)
from causal.core.gram import Array, Gram, Key, PanelGram, grams, panel_grams, pooled_paths
from causal.quasi.influence import Moments
from causal.quasi.staggered_options import StaggeredOptions
from causal.quasi.treatment_timing import event_times

_MIN_PERIODS = 2


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Counts of what is not used, or not as it stands.

    Attributes:
        n_missing: Rows without an outcome.
        n_incomplete: Units that lack some period.
        n_units: Units, complete or not.
        n_already_treated: Units treated (or anticipating) in the first period.
        n_late: Units that start after the data end; they count as never treated.
        empty: Starts of cohorts without a complete unit.
        small: Starts of cohorts with too few clusters or units to estimate an effect.
        last: Start of the last cohort where it serves as comparison only, as nobody is never
            treated.
    """

    n_missing: int
    n_incomplete: int
    n_units: int
    n_already_treated: int
    n_late: int
    empty: tuple[float, ...]
    small: tuple[float, ...]
    last: float | None


@dataclass(frozen=True, kw_only=True)
class Design:
    """The cohorts that are used.

    Attributes:
        periods: The T periods, ascending, shape (T,).
        moments: Moments of the C cohorts, ascending by start, never treated last, and by cluster.
        treated: Positions of the cohorts whose effects can be estimated.
        clusters: Of each cohort, the clusters in which its units lie; empty without clusters.
        left_out: What is not used.
        n_covariates: Covariates whose products the moments hold.
        level: What was taken from every outcome before its products were summed.
        request: What the moments answer.
        influence: Moments of the units' influences on the effects, where it takes a pass of its
            own to sum them.
    """

    periods: Array
    moments: Moments
    treated: tuple[int, ...]
    clusters: tuple[frozenset[Key], ...]
    left_out: LeftOut
    n_covariates: int = 0
    level: float = 0.0
    request: PanelGramRequest | None = None
    influence: Moments | None = None

    @property
    def paths(self) -> tuple[PanelGram, ...]:
        """The cohorts' outcomes as they stand in the table, without covariates."""
        paths = [cohort.path for cohort in self.moments.cohorts]
        return tuple(replace(path, mean=path.mean + self.level) for path in paths)

    @property
    def starts(self) -> tuple[float | None, ...]:
        """First treated period of each cohort."""
        return tuple(cohort.first_treated_period for cohort in self.moments.cohorts)

    def n_units(self, at: Sequence[int]) -> int:
        """Units of some cohorts."""
        return sum(self.moments.cohorts[c].n for c in at)

    def n_independent(self, at: Sequence[int]) -> int:
        """Clusters over which some cohorts spread, or their units where there are none."""
        if not self.clusters:
            return self.n_units(at)
        return len(frozenset[Key]().union(*(self.clusters[c] for c in at)))


def observe(
    options: StaggeredOptions, *, outcome: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Design]:
    """Ask for the cohorts' moments and check that they can carry the design.

    One pass; with covariates one before it, which tells their means and spreads.

    Args:
        options: The analysis.
        outcome: The outcome column.
        where: Conditions on the rows.

    Raises:
        DataError: Fewer than two periods, no complete units, nobody treated within the data,
            everybody treated from the first period, or no comparison units.
    """
    column = options.cluster_column
    y: Term = Column(outcome)
    covariates: tuple[Term, ...] = ()
    level = 0.0
    if options.covariates or options.weights:
        level, covariates = yield from _level(options, outcome=outcome, where=where)
        y = linear([(y, 1.0), (Constant(), -level)])
    request = PanelGramRequest(
        unit=str(options.unit),
        period=options.period,
        outcome=y,
        first_treated_period=options.first_treated_period,
        by=() if column is None else (column,),
        covariates=covariates,
        crossed="all"
        if options.cluster_column is None and not options.has_unit_influence
        else "paths",
        where=where,
    )
    found = panel_grams((yield request), request)
    if not found:
        raise DataError("the source has no rows after the filters")
    check_known(found, column)
    check_periods(found[0].periods, options)
    answer = design(found, options)
    p = len(options.covariates)
    return replace(answer, n_covariates=p, level=level, request=request)


def moments_of(
    design: Design, options: StaggeredOptions, values: Sequence[Term], *, is_crossed: bool
) -> Generator[FrameRequest, pd.DataFrame, Moments]:
    """Moments of other values of the design's units, its cohorts in the same order; one pass.

    Args:
        design: The cohorts.
        options: The analysis.
        values: The S values, terms of a unit's outcomes and covariates.
        is_crossed: Whether cross-products are wanted; by cluster they never are.
    """
    if design.request is None:
        raise ValueError("the design was not observed")
    request = replace(
        design.request, values=tuple(values), crossed="all" if is_crossed else "none",
    )  # fmt: skip
    return moments_of_parts(panel_grams((yield request), request), options)


def moments_of_parts(found: Sequence[PanelGram], options: StaggeredOptions) -> Moments:
    """Moments of the cohorts that a design uses.

    Args:
        found: By cohort as it stands in the table, and by cluster if asked for.
        options: The analysis.
    """
    return _moments(used_parts(found, options), options)


def used_parts(found: Sequence[PanelGram], options: StaggeredOptions) -> list[PanelGram]:
    """Those that start within the data or later, `None` being their start in that case."""
    return _by_time(_coded(found, options), found[0].periods, options)[1]


def sums_of(
    design: Design, options: StaggeredOptions, values: Sequence[Term]
) -> Generator[FrameRequest, pd.DataFrame, Array]:
    """Sums of values over the units of each cohort, shape (C, S); one pass.

    Args:
        design: The cohorts.
        options: The analysis.
        values: The S values.
    """
    if design.request is None:
        raise ValueError("the design was not observed")
    plain = replace(design, request=replace(design.request, by=()))
    moments = yield from moments_of(plain, options, values, is_crossed=False)
    means = np.array([cohort.mean for cohort in moments.cohorts])
    return np.asarray(moments.counts[:, None] * means, dtype=np.float64)


def _level(
    options: StaggeredOptions, *, outcome: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, tuple[float, tuple[Term, ...]]]:
    """The outcome's mean, and the covariates as `standardised` gives them.

    After these the weight, if there is one, with mean one. Effects depend on neither; sums of
    products keep their digits.
    """
    names = (outcome, *options.covariates)
    weight = None if options.weights is None else Column(options.weights)
    terms_ = tuple(Column(name) for name in names)
    request = GramRequest(terms=terms_, weight=weight, where=where)
    gram = grams((yield request), request)[()]
    if gram.n == 0:
        raise DataError("no row has an outcome and all covariates", given=f"{gram.n_missing} rows")
    if not gram.sum_weights > 0:
        raise DataError(f"the weights {options.weights} are zero in every row")
    terms = standardised(options.covariates, gram)
    if weight is not None:
        terms = (*terms, linear([(weight, gram.n / gram.sum_weights)]))
    return float(gram.mean[0]), terms


def standardised(names: Sequence[str], gram: Gram) -> tuple[Term, ...]:
    """Columns with mean zero and variance one over the rows of a Gram.

    Raises:
        DataError: One of them does not vary.
    """
    found = []
    for name in names:
        at = gram.index(Column(name))
        width, mean = np.sqrt(gram.cross[at, at] / gram.sum_weights), gram.mean[at]
        if not width > 0:
            raise DataError(f"the covariate {name} has the same value in every row")
        found.append(linear([(Column(name), 1.0 / width), (Constant(), -mean / width)]))
    return tuple(found)


def design(found: Sequence[PanelGram], options: StaggeredOptions) -> Design:
    """Sort cohorts into treated, comparison only and left out.

    Args:
        found: Moments by cohort as it stands in the table, and by cluster if asked for.
        options: The analysis.

    Raises:
        DataError: As in `observe`.
    """
    periods = found[0].periods
    end = periods[-1] + options.anticipation
    coded = _coded(found, options)
    event_times(periods, [part.first_treated_period for part in coded])
    late = sum(p.n + p.n_incomplete for p in coded if _start(p) > end and np.isfinite(_start(p)))
    early, later = _by_time(coded, periods, options)
    parts = [*early, *later]
    _check_arms(early, later, options)
    pooled = sorted(pooled_paths(later), key=_start)
    moments = _moments(later, options)
    cohorts = moments.cohorts
    clusters = _clusters(moments.parts, cohorts) if options.cluster_column is not None else ()
    last = _last(pooled)
    at = [
        c
        for c, cohort in enumerate(cohorts)
        if np.isfinite(_start(cohort)) and _start(cohort) != last
    ]
    sizes = [len(clusters[c]) if clusters else cohorts[c].n for c in range(len(cohorts))]
    small = tuple(_start(cohorts[c]) for c in at if sizes[c] < options.min_cohort_size)
    answer = Design(
        periods=periods,
        moments=moments,
        treated=tuple(c for c in at if sizes[c] >= options.min_cohort_size),
        clusters=clusters,
        left_out=LeftOut(
            n_missing=sum(part.n_missing for part in parts),
            n_incomplete=sum(part.n_incomplete for part in parts),
            n_units=sum(part.n + part.n_incomplete for part in parts),
            n_already_treated=sum(part.n + part.n_incomplete for part in early),
            n_late=late,
            empty=tuple(_start(cohort) for cohort in pooled if cohort.n == 0),
            small=small,
            last=last,
        ),
    )
    _check_estimable(answer, options)
    return answer


def _coded(found: Sequence[PanelGram], options: StaggeredOptions) -> list[PanelGram]:
    """The parts with `None` for never treated, however the table says so."""
    timing = options.timing
    return [
        replace(p, first_treated_period=timing.first_treated(p.first_treated_period)) for p in found
    ]


def _by_time(
    coded: Sequence[PanelGram], periods: Array, options: StaggeredOptions
) -> tuple[list[PanelGram], list[PanelGram]]:
    """Those treated from the first period on, and the others; starts after the end are never."""
    first, end = periods[0] + options.anticipation, periods[-1] + options.anticipation
    parts = [replace(p, first_treated_period=None) if _start(p) > end else p for p in coded]
    return [p for p in parts if _start(p) <= first], [p for p in parts if _start(p) > first]


def _moments(later: Sequence[PanelGram], options: StaggeredOptions) -> Moments:
    """The cohorts that have complete units, by start, and their parts by cluster."""
    pooled = sorted(pooled_paths(later), key=_start)
    cohorts = tuple(cohort for cohort in pooled if cohort.n > 0)
    has_clusters = options.cluster_column is not None
    return Moments(
        cohorts=cohorts,
        parts=tuple(part for part in later if part.n > 0) if has_clusters else (),
    )


def _start(cohort: PanelGram) -> float:
    first = cohort.first_treated_period
    return np.inf if first is None else first


def _last(pooled: Sequence[PanelGram]) -> float | None:
    """Start of the last cohort where nobody is never treated: none is left to compare it with."""
    starts = [_start(cohort) for cohort in pooled if cohort.n > 0]
    return None if not starts or not np.isfinite(max(starts)) else max(starts)


def _clusters(
    parts: Sequence[PanelGram], cohorts: Sequence[PanelGram]
) -> tuple[frozenset[Key], ...]:
    found: Mapping[float, set[Key]] = {_start(cohort): set() for cohort in cohorts}
    for part in parts:
        found[_start(part)].add(part.key)
    return tuple(frozenset(found[_start(cohort)]) for cohort in cohorts)


def check_known(found: Sequence[PanelGram], column: str | None) -> None:
    """No used row lacks its cluster.

    Raises:
        DataError: Some do.
    """
    if column is None:
        return
    n_units = sum(part.n for part in found if part.key == (None,))
    if n_units:
        raise DataError(f"{column} is null in some rows", given=f"{n_units} units")


def check_periods(periods: Array, options: StaggeredOptions) -> None:
    """There are two periods or more, all of them numbers.

    Raises:
        DataError: There are not.
    """
    if not np.isfinite(periods).all():
        raise DataError(f"{options.period} is null or not finite in some rows")
    if len(periods) < _MIN_PERIODS:
        raise DataError("two or more periods are needed", given=periods)


def _check_arms(
    early: Sequence[PanelGram], later: Sequence[PanelGram], options: StaggeredOptions
) -> None:
    if not later:
        raise DataError(
            "all units are treated in the first period already: they have no before",
            given=f"{sum(p.n + p.n_incomplete for p in early)} units",
        )
    if not np.isfinite([_start(part) for part in later]).any():
        more = ": those that are have no period before" if early else ""
        raise DataError(f"no unit starts its treatment within the data{more}")
    if not any(part.n > 0 for part in later):
        raise DataError("no unit is observed in every period")
    has_never = any(part.first_treated_period is None and part.n > 0 for part in later)
    if options.control_group == "never_treated" and not has_never:
        raise DataError(
            "there is no comparison group: no complete unit is never treated",
            given="control_group: never_treated",
            allowed="control_group: not_yet_treated",
        )


def _check_estimable(found: Design, options: StaggeredOptions) -> None:
    if found.treated:
        return
    if found.left_out.small:
        kind = "units" if options.cluster_column is None else "clusters"
        raise DataError(
            f"every cohort has fewer than {options.min_cohort_size} {kind} (min_cohort_size): the "
            "variance of an effect cannot be estimated",
            given=[f"{start:g}" for start in found.left_out.small],
        )
    raise DataError(
        "all units are treated from the same period on: there is no comparison group",
        given=[f"{start:g}" for start in found.starts if start is not None],
    )
