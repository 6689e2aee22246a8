"""Fits regressions with unit and period effects by the cheapest exact path."""

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from causal.core.errors import DataError, InferenceError
from causal.core.frames import (
    Column,
    Condition,
    FrameRequest,
    GramRequest,
    Indicator,
    Product,
    Term,
)
from causal.core.gram import Gram, Key, grams, summed
from causal.quasi.did_options import DidOptions
from causal.quasi.panel import (
    Cell,
    Panel,
    UnitCount,
    complete_cells,
    observe_cells,
    of_a_unit,
    panel_of_cohorts,
)
from causal.quasi.panel_errors import Estimates, check_blocks, covariances
from causal.quasi.poisson_fit import Telling, ask_telling, fit_poisson, fit_poisson_on_all
from causal.quasi.treatment_timing import level
from causal.quasi.unit_paths import CellSums, UnitPaths
from causal.quasi.within_fit import FLAT, Regressor, WithinFit, fit_complete, fit_rows


@dataclass(frozen=True, kw_only=True)
class Regressions:
    """The regression of the analysis and, beside it, one on leads and lags, on the same rows.

    Attributes:
        main: The regression of the analysis.
        leads: The regression on leads and lags; `None`: not asked for, or not identified.
        n_treated: Units treated within the data (rows under treatment without cohorts).
        n_control: The other units (rows without treatment).
        n_missing: Rows left out because a column was null.
        cells: Mean outcome by cohort and period over the rows used.
        units: The units used.
        n_silent: Units that tell nothing and are not counted.
    """

    main: Estimates
    leads: Estimates | None
    n_treated: int
    n_control: int
    n_missing: int
    cells: tuple[Cell, ...]
    units: tuple[UnitCount, ...]
    n_silent: int = 0


def regress(
    options: DidOptions,
    regressors: Sequence[Regressor],
    *,
    leads: Sequence[Regressor],
    outcome: str,
    panel: Panel,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, Regressions]:
    """Fit a model with unit and period effects, and beside it one on leads and lags.

    An event time in which no row is observed (gaps may swallow it whole) has no coefficient; it is
    left out and counted among the dropped columns.

    Args:
        options: The analysis.
        regressors: Regressors of interest of the analysis.
        leads: Regressors of the auxiliary model of the pre-trend test; may be empty.
        outcome: The outcome column.
        panel: What was observed of the panel.
        where: Conditions on the rows.
    """
    y = Column(outcome)
    blocks: tuple[Gram, ...] = ()
    units, n_silent = panel.units(), 0
    if options.family == "poisson":
        panel = panel_of_cohorts(options, panel)
        paths = _paths(options, panel, outcome=outcome, where=where)
        telling = yield from ask_telling(paths)
        units, n_silent = telling.units, panel.n + panel.n_incomplete - telling.n_units
        fits, cells = yield from _poisson_fits(paths, telling, regressors, leads)
        n_treated, n_control = panel.n_units(units)
        n_missing = panel.n_missing
    elif is_closed_form(options, panel):
        fits = [fit_complete(panel, regressors, outcome=y)]
        fits += _if_identified(lambda: fit_complete(panel, leads, outcome=y), leads)
        n_treated, n_control = panel.n_units(units)
        cells, n_missing = complete_cells(panel), panel.n_missing
    else:
        controls = yield from _controls(options, panel, where)
        observed = controls.observed(outcome)
        survey = yield from observe_cells(options, terms=observed, where=where)
        cells, n_missing, spread = survey.cells, survey.n_missing, survey.spread()
        terms = _unique([y, *(r.term for r in (*regressors, *leads)), *controls.terms])
        found = yield from _within(options, terms, panel=panel, where=where)
        gram, blocks, n_treated, n_control = found.gram, found.blocks, *found.n_units
        if options.treatment is not None:
            n_treated, n_control = yield from _treated_rows(options, observed, where)
        seen = _with_rows(regressors, gram)
        empty = tuple(r.name for r in regressors if r not in seen)
        main = controls.fit(gram, seen, outcome=y, spread=spread)
        fits = [replace(main, dropped=(*main.dropped, *empty))]
        leads = _with_rows(leads, gram)
        fits += _if_identified(lambda: controls.fit(gram, leads, outcome=y, spread=spread), leads)
    estimates = yield from covariances(options, fits, where=where, blocks=blocks)
    return Regressions(
        main=estimates[0],
        leads=estimates[1] if len(estimates) > 1 else None,
        n_treated=n_treated,
        n_control=n_control,
        n_missing=n_missing,
        cells=cells,
        units=units,
        n_silent=n_silent,
    )


def _paths(
    options: DidOptions, panel: Panel, *, outcome: str, where: tuple[Condition, ...]
) -> UnitPaths:
    if panel.timing is None:
        raise ValueError("a panel without cohorts has no paths by cohort")
    return UnitPaths(
        options=options, panel=panel, timing=panel.timing, outcome=outcome, where=where
    )


def _poisson_fits(
    paths: UnitPaths,
    telling: Telling,
    regressors: Sequence[Regressor],
    leads: Sequence[Regressor],
) -> Generator[FrameRequest, pd.DataFrame, tuple[list[WithinFit], tuple[Cell, ...]]]:
    """The regression of the analysis and, where identified, that on leads; mean outcomes."""
    panel = paths.panel
    if not panel.n_incomplete:
        fits = [fit_poisson(panel, regressors, telling)]
        fits += _if_identified(lambda: fit_poisson(panel, leads, telling), leads)
        return fits, complete_cells(panel)
    sums = yield from paths.cells()
    seen, empty = _with_cells(paths, sums, regressors)
    main = yield from fit_poisson_on_all(paths, seen, sums, telling)
    fits = [replace(main, dropped=tuple(r.name for r in empty))]
    if leads:
        with contextlib.suppress(InferenceError):
            some, _ = _with_cells(paths, sums, leads)
            fits.append((yield from fit_poisson_on_all(paths, some, sums, telling)))
    return fits, sums.survey.cells


def _with_cells(
    paths: UnitPaths, sums: CellSums, regressors: Sequence[Regressor]
) -> tuple[list[Regressor], list[Regressor]]:
    """The regressors with rows, and those without."""
    panel = paths.panel
    starts = [cohort.first_treated_period for cohort in panel.cohorts]
    parts: tuple[list[Regressor], list[Regressor]] = ([], [])
    for regressor in regressors:
        window = regressor.window
        if window is not None:
            inside = np.array([window.path(panel.periods, start) for start in starts])
            parts[int((inside * sums.counts).sum() == 0)].append(regressor)
    return parts


def regress_leads(
    options: DidOptions,
    leads: Sequence[Regressor],
    *,
    outcome: str,
    panel: Panel,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, Estimates | None]:
    """The model on leads and lags alone; `None` where the data do not identify it."""
    y = Column(outcome)
    if is_closed_form(options, panel):
        fits = _if_identified(lambda: fit_complete(panel, leads, outcome=y), leads)
    else:
        controls = yield from _controls(options, panel, where)
        terms = _unique([y, *(r.term for r in leads), *controls.terms])
        gram = (yield from _within(options, terms, panel=panel, where=where)).gram
        leads = _with_rows(leads, gram)
        fits = _if_identified(lambda: controls.fit(gram, leads, outcome=y, spread={}), leads)
    found = yield from covariances(options, fits, where=where)
    return found[0] if found else None


def is_closed_form(options: DidOptions, panel: Panel) -> bool:
    """Whether the cohorts' moments alone determine the regression."""
    is_told = not (options.needs_blocks or options.needs_row_scores)
    return panel.n_incomplete == 0 and options.has_cohorts_only and is_told


@dataclass(frozen=True, kw_only=True)
class _Controls:
    """Columns beside the regressors of interest, and what marks a row as complete.

    Attributes:
        covariates: Time-varying columns held fixed.
        period_effects: Dummies of the periods but the first, by kind where they differ by kind.
        kinds: Dummies of the kinds but one: unit effects hold them unless units change their kind.
        markers: Terms that are null in rows that cannot be used.
    """

    covariates: tuple[Regressor, ...]
    period_effects: tuple[Regressor, ...]
    markers: tuple[Term, ...]
    kinds: tuple[Regressor, ...] = ()

    @property
    def terms(self) -> tuple[Term, ...]:
        return tuple(r.term for r in (*self.covariates, *self.period_effects, *self.kinds))

    def observed(self, outcome: str) -> tuple[Term, ...]:
        """The outcome, and terms that are null in the rows that the regression cannot use."""
        return (Column(outcome), *(r.term for r in self.covariates), *self.markers)

    def fit(
        self,
        gram: Gram,
        regressors: Sequence[Regressor],
        *,
        outcome: Term,
        spread: Mapping[Term, float],
    ) -> WithinFit:
        """The regression on these regressors and the controls."""
        changing = [r for r in self.kinds if _varies_within(gram, r.term)]
        return fit_rows(
            gram, regressors, outcome=outcome,
            optional=self.covariates, nuisance=(*self.period_effects, *changing), spread=spread,
        )  # fmt: skip


def _controls(
    options: DidOptions, panel: Panel, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, _Controls]:
    covariates = tuple(Regressor(name, Column(name)) for name in options.covariates)
    given = options.treatment or options.dose
    always = (of_a_unit(options), *([] if given is None else [Column(given)]))
    later = [Indicator(options.period, level(period)) for period in panel.periods[1:]]
    if not options.period_effect_columns:
        effects = tuple(Regressor(f"{options.period}={term.level}", term) for term in later)
        return _Controls(covariates=covariates, period_effects=effects, markers=always)
    kinds: list[Indicator] = []
    markers: list[Term] = [*always]
    crossed: list[Indicator] = []
    for by in options.period_effect_columns:
        request = GramRequest(terms=(), by=(by,), where=where)
        levels = [key[0] for key in grams((yield request), request) if key[0] is not None]
        if not levels:
            raise DataError(f"{by} is null in every row")
        own = [Indicator(by, value) for value in sorted(levels, key=str)]
        markers.append(own[0])
        kinds += own[1:]
        # The period effects of all levels of the first column add up to those of any other one.
        crossed += own[1:] if crossed else own
    return _Controls(
        covariates=covariates,
        period_effects=tuple(
            Regressor(
                f"{kind.column}={kind.level} x {options.period}={term.level}", Product((kind, term))
            )
            for kind in crossed
            for term in later
        ),
        markers=tuple(markers),
        kinds=tuple(Regressor(f"{kind.column}={kind.level}", kind) for kind in kinds),
    )


def observed_terms(
    options: DidOptions, panel: Panel, *, outcome: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, tuple[Term, ...]]:
    """The outcome, and terms that are null in the rows that the regression cannot use.

    Args:
        options: The analysis.
        panel: What was observed of the panel.
        outcome: The outcome column.
        where: Conditions on the rows.
    """
    controls = yield from _controls(options, panel, where)
    return controls.observed(outcome)


@dataclass(frozen=True, kw_only=True)
class _Within:
    """Within-unit moments over all rows.

    Attributes:
        gram: The moments.
        blocks: The same by cluster, where the covariance needs them.
        n_units: How many units (without cohorts: rows) are treated and how many are not.
    """

    gram: Gram
    blocks: tuple[Gram, ...]
    n_units: tuple[int, int]


def _within(
    options: DidOptions,
    terms: Sequence[Term],
    *,
    panel: Panel,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, _Within]:
    timing = options.timing
    yield from check_blocks(options, where)
    cohorts = () if timing is None else (timing.cohort,)
    clusters = (options.clusters,) if options.needs_blocks else ()
    request = GramRequest(
        terms=tuple(terms),
        by=tuple(dict.fromkeys([*cohorts, *clusters])),
        weight=None if options.weight is None else Column(options.weight),
        absorb=options.unit,
        where=where,
    )
    found = grams((yield request), request)
    total = summed(list(found.values()))
    if total.n == 0:
        raise DataError(
            "no row has a value for every column of the analysis", given=f"{total.n_missing} rows"
        )
    if total.sum_weights <= 0:
        raise DataError(f"{options.weight} is 0 in every row that can be used: no row counts")
    blocks = _by_cluster(found, request.by.index(clusters[0]), clusters[0]) if clusters else ()
    if timing is None:
        return _Within(gram=total, blocks=blocks, n_units=(total.n, 0))
    starts = {key: timing.first_treated(None if key[0] is None else float(key[0])) for key in found}
    treated = [
        key for key, start in starts.items() if start is not None and start <= panel.periods[-1]
    ]
    n_treated = sum(found[key].n_units for key in treated)
    return _Within(gram=total, blocks=blocks, n_units=(n_treated, total.n_units - n_treated))


def _by_cluster(found: Mapping[Key, Gram], at: int, name: str) -> tuple[Gram, ...]:
    parts: dict[str, list[Gram]] = {}
    for key, gram in found.items():
        if gram.n > 0:
            if key[at] is None:
                raise DataError(f"{name} is null in some rows", given=f"{gram.n} rows")
            parts.setdefault(str(key[at]), []).append(gram)
    if len(parts) <= 1:
        raise InferenceError("clustered errors need two or more clusters", given=len(parts))
    return tuple(summed(parts[cluster]) for cluster in sorted(parts))


def _treated_rows(
    options: DidOptions, terms: Sequence[Term], where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, tuple[int, int]]:
    """Rows with a treatment other than zero, and rows with zero, among the rows used.

    Moments tell them for a 0/1 (or boolean) treatment; a dose takes one more pass.
    """
    treatment = Column(str(options.treatment))
    weight = () if options.weight is None else (Column(options.weight),)
    request = GramRequest(terms=_unique([treatment, *terms, *weight]), where=where)
    gram = grams((yield request), request)[()]
    if gram.cross[0, 0] <= 0:
        raise DataError(
            f"{treatment.name} has the same value in every row: one arm only",
            given=float(gram.mean[0]),
        )
    total = gram.n * float(gram.mean[0])
    if np.isclose(gram.moment()[0, 0], total, rtol=1e-9):
        return round(total), gram.n - round(total)
    dose = replace(request, terms=(Indicator(treatment.name, 0), *request.terms))
    n_control = round(gram.n * float(grams((yield dose), dose)[()].mean[0]))
    return gram.n - n_control, n_control


def _if_identified(
    fit: Callable[[], WithinFit], regressors: Sequence[Regressor]
) -> list[WithinFit]:
    """The fit of an auxiliary model, or nothing where the data do not identify it."""
    if not regressors:
        return []
    try:
        return [fit()]
    except InferenceError:
        return []


def _with_rows(regressors: Sequence[Regressor], gram: Gram) -> list[Regressor]:
    """The regressors without event windows that no row lies in."""
    return [r for r in regressors if r.window is None or gram.mean[gram.index(r.term)] > 0]


def _varies_within(gram: Gram, dummy: Term) -> bool:
    """Whether a 0/1 column changes within some unit, beyond rounding."""
    at = gram.index(dummy)
    return bool(gram.cross[at, at] > FLAT * gram.sum_weights * gram.mean[at] ** 2)


def _unique(terms: Sequence[Term]) -> tuple[Term, ...]:
    return tuple(dict.fromkeys(terms))
