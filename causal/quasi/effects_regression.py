"""Fits regressions with unit and period effects by the cheapest exact path, with covariances."""

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
    MeatRequest,
    Product,
    Term,
)
from causal.core.gram import Array, Gram, grams, meat, summed
from causal.core.inference import cr1_factor
from causal.quasi.did_options import DidOptions
from causal.quasi.panel import Cell, Panel, complete_cells, observe_cells
from causal.quasi.treatment_timing import level
from causal.quasi.within_fit import FLAT, Regressor, WithinFit, fit_complete, fit_rows


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """Coefficients of interest with their covariance.

    Attributes:
        fit: The regression.
        covariance: Shape (K, K).
        df: Degrees of freedom of the t reference.
        n_clusters: Clusters behind the covariance; `None`: not clustered.
    """

    fit: WithinFit
    covariance: Array
    df: float
    n_clusters: int | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients."""
        return tuple(regressor.name for regressor in self.fit.regressors)

    @property
    def std_errors(self) -> Array:
        """Standard errors, shape (K,)."""
        return np.sqrt(np.diag(self.covariance))

    def positions(self, names: Sequence[str]) -> list[int]:
        """Indices of coefficients."""
        return [self.names.index(name) for name in names]


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
    """

    main: Estimates
    leads: Estimates | None
    n_treated: int
    n_control: int
    n_missing: int
    cells: tuple[Cell, ...]


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
    if is_closed_form(options, panel):
        fits = [fit_complete(panel, regressors, outcome=y)]
        fits += _if_identified(lambda: fit_complete(panel, leads, outcome=y), leads)
        n_treated, n_control = panel.n_units()
        cells, n_missing = complete_cells(panel), panel.n_missing
    else:
        controls = yield from _controls(options, panel, where)
        observed = controls.observed(outcome)
        survey = yield from observe_cells(options, terms=observed, where=where)
        cells, n_missing, spread = survey.cells, survey.n_missing, survey.spread()
        terms = _unique([y, *(r.term for r in (*regressors, *leads)), *controls.terms])
        gram, n_treated, n_control = yield from _within(options, terms, panel=panel, where=where)
        if options.treatment is not None:
            n_treated, n_control = yield from _treated_rows(options, observed, where)
        seen = _with_rows(regressors, gram)
        empty = tuple(r.name for r in regressors if r not in seen)
        main = controls.fit(gram, seen, outcome=y, spread=spread)
        fits = [replace(main, dropped=(*main.dropped, *empty))]
        leads = _with_rows(leads, gram)
        fits += _if_identified(lambda: controls.fit(gram, leads, outcome=y, spread=spread), leads)
    estimates = yield from covariances(options, fits, where=where)
    return Regressions(
        main=estimates[0],
        leads=estimates[1] if len(estimates) > 1 else None,
        n_treated=n_treated,
        n_control=n_control,
        n_missing=n_missing,
        cells=cells,
    )


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
        gram, _, _ = yield from _within(options, terms, panel=panel, where=where)
        leads = _with_rows(leads, gram)
        fits = _if_identified(lambda: controls.fit(gram, leads, outcome=y, spread={}), leads)
    found = yield from covariances(options, fits, where=where)
    return found[0] if found else None


def is_closed_form(options: DidOptions, panel: Panel) -> bool:
    """Whether the cohorts' moments alone determine the regression."""
    return panel.n_incomplete == 0 and options.has_cohorts_only


def covariances(
    options: DidOptions, fits: Sequence[WithinFit], *, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, tuple[Estimates, ...]]:
    """Covariances of several fits on the same rows, with at most one more pass."""
    if not fits:
        return ()
    if options.covariance == "classical":
        return tuple(
            Estimates(
                fit=fit, covariance=fit.bread * (fit.rss / fit.df_resid), df=fit.df_resid,
                n_clusters=None,
            )
            for fit in fits
        )  # fmt: skip
    known = [fit.known[options.clusters] for fit in fits if options.clusters in fit.known]
    if len(known) == len(fits):
        return tuple(
            clustered(options, fit, matrix, n_clusters=n_clusters)
            for fit, (matrix, n_clusters) in zip(fits, known, strict=True)
        )
    request = MeatRequest(
        scores=tuple(score for fit in fits for score in fit.scores),
        cluster=(options.clusters,),
        weight=None if options.weight is None else Column(options.weight),
        absorb=options.unit,
        where=where,
    )
    frame = yield request
    matrix, n_clusters = meat(frame)
    _check_same_rows(frame, fits[0], options)
    ends = np.cumsum([len(fit.regressors) for fit in fits])
    return tuple(
        clustered(
            options, fit, matrix[end - len(fit.regressors) : end, end - len(fit.regressors) : end],
            n_clusters=n_clusters,
        )
        for fit, end in zip(fits, ends, strict=True)
    )  # fmt: skip


def clustered(
    options: DidOptions, fit: WithinFit, covariance: Array, *, n_clusters: int
) -> Estimates:
    """Estimates with the clustered covariance and the small-sample factor asked for."""
    factor = cr1_factor(n=fit.n, k=fit.k, n_clusters=n_clusters)
    if options.small_sample == "none":
        factor = 1.0
    return Estimates(
        fit=fit, covariance=factor * (covariance + covariance.T) / 2, df=n_clusters - 1,
        n_clusters=n_clusters,
    )  # fmt: skip


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
    treatment = () if options.treatment is None else (Column(options.treatment),)
    later = [Indicator(options.period, level(period)) for period in panel.periods[1:]]
    if options.period_effects_by is None:
        effects = tuple(Regressor(f"{options.period}={term.level}", term) for term in later)
        return _Controls(covariates=covariates, period_effects=effects, markers=treatment)
    by = options.period_effects_by
    request = GramRequest(terms=(), by=(by,), where=where)
    levels = [key[0] for key in grams((yield request), request) if key[0] is not None]
    if not levels:
        raise DataError(f"{by} is null in every row")
    kinds = [Indicator(by, value) for value in sorted(levels, key=str)]
    effects = tuple(
        Regressor(f"{by}={kind.level} x {options.period}={term.level}", Product((kind, term)))
        for kind in kinds
        for term in later
    )
    return _Controls(
        covariates=covariates,
        period_effects=effects,
        markers=(*treatment, kinds[0]),
        kinds=tuple(Regressor(f"{by}={kind.level}", kind) for kind in kinds[1:]),
    )


def _within(
    options: DidOptions,
    terms: Sequence[Term],
    *,
    panel: Panel,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, tuple[Gram, int, int]]:
    """Within-unit moments over all rows, and how many units (or rows) are treated and not."""
    timing = options.timing
    request = GramRequest(
        terms=tuple(terms),
        by=() if timing is None else (timing.cohort,),
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
    if timing is None:
        return total, total.n, 0
    starts = {key: timing.first_treated(None if key[0] is None else float(key[0])) for key in found}
    treated = [
        key for key, start in starts.items() if start is not None and start <= panel.periods[-1]
    ]
    n_treated = sum(found[key].n_units for key in treated)
    return total, n_treated, total.n_units - n_treated


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


def _check_same_rows(frame: pd.DataFrame, fit: WithinFit, options: DidOptions) -> None:
    n_used = int(frame["n"].iloc[0])
    if n_used < fit.n:
        raise DataError(
            f"{options.clusters} is null in some rows",
            given=f"{fit.n - n_used} rows",
        )
    if n_used != fit.n:
        raise InferenceError("the passes saw different rows", given=f"{n_used} and {fit.n}")


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
