"""Fits models of purchases and of spend from a table of customers: one aggregation for each.

The plan asks for counts by (frequency, recency, age), and by (frequency, spend) for the Gamma-Gamma
model, so the driver sees distinct histories, not customers. Where recency and age are so fine that
nearly every customer is a cell, name coarser key columns (`recency_cell`, `age_cell`,
`monetary_cell`, such as a day in place of a second): each cell then holds its customers' means, and
the effect of that on the parameters is counted in the diagnostic `rounding`.

A fitted model has parameters and predictions, not a contrast of two arms, so the plan returns a
`ClvFit` and not the `Result` of the registered methods.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from causal.clv import gamma_gamma
from causal.clv.cells import Cells, check, numbers
from causal.clv.gamma_gamma import SpendCells
from causal.clv.maximum_likelihood import Fit, maximise, shift
from causal.clv.models import MODELS, ModelName, fit_purchases
from causal.core.errors import DataError
from causal.core.frames import Column, Condition, FrameRequest, GramRequest, Term
from causal.core.gram import Array, unpack
from causal.core.result import Diagnostic
from causal.core.spec import COLUMN_PATTERN, Part

_TOLERATED_SHIFT = 0.1
_WEAK = 1.0


class ClvOptions(Part):
    """What to fit, and where it stands in a table with one row per customer.

    Attributes:
        model: `bg_nbd`, `pareto_nbd`, or `bg_bb` for opportunities that come one by one.
        frequency: Column of repeat purchases (the first purchase is not counted).
        recency: Column of the time from first to last purchase, 0 without repeat purchases.
        age: Column of the time from first purchase to the end of observation, same unit.
        monetary_value: Column of mean spend per repeat purchase; with it Gamma-Gamma is fitted.
        recency_cell: Column with a coarser recency to form cells by; needs `age_cell`.
        age_cell: Column with a coarser age to form cells by; needs `recency_cell`.
        monetary_cell: Column with a coarser spend to form cells by; needs `monetary_value`.
        holdout: Column of purchases in a later period that the fit does not see.
        holdout_length: Length of that period; needs `holdout`.
    """

    model: ModelName = "bg_nbd"
    frequency: str = Field(pattern=COLUMN_PATTERN)
    recency: str = Field(pattern=COLUMN_PATTERN)
    age: str = Field(pattern=COLUMN_PATTERN)
    monetary_value: str | None = Field(default=None, pattern=COLUMN_PATTERN)
    recency_cell: str | None = Field(default=None, pattern=COLUMN_PATTERN)
    age_cell: str | None = Field(default=None, pattern=COLUMN_PATTERN)
    monetary_cell: str | None = Field(default=None, pattern=COLUMN_PATTERN)
    holdout: str | None = Field(default=None, pattern=COLUMN_PATTERN)
    holdout_length: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _pairs(self) -> "ClvOptions":
        if (self.recency_cell is None) != (self.age_cell is None):
            raise ValueError("recency_cell and age_cell must be given together")
        if self.model == "bg_bb" and self.recency_cell is not None:
            raise ValueError("bg_bb counts opportunities; its cells need no coarser columns")
        if self.monetary_cell is not None and self.monetary_value is None:
            raise ValueError("monetary_cell needs monetary_value")
        if (self.holdout is None) != (self.holdout_length is None):
            raise ValueError("holdout and holdout_length must be given together")
        return self

    @property
    def is_coarse(self) -> bool:
        """Whether cells of histories hold means."""
        return self.recency_cell is not None


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """What customers bought after the end of observation.

    Attributes:
        purchases: Mean purchases of each cell's customers, shape (c,).
        length: Length of the period.
    """

    purchases: Array
    length: float


@dataclass(frozen=True, kw_only=True)
class ClvFit:
    """Fitted models of a customer base.

    Attributes:
        purchases: The purchase model.
        cells: What it was fitted on.
        spend: The Gamma-Gamma model, if spend was given.
        spend_cells: What that was fitted on.
        holdout: Later purchases by cell, if given.
        diagnostics: Counts and checks.
    """

    purchases: Fit
    cells: Cells
    spend: Fit | None
    spend_cells: SpendCells | None
    holdout: Holdout | None
    diagnostics: tuple[Diagnostic, ...]

    def to_frame(self, confidence_level: float = 0.95) -> pd.DataFrame:
        """Parameters with standard errors and intervals, one row each."""
        fits = [self.purchases, *([] if self.spend is None else [self.spend])]
        return pd.concat([_rows(fit, confidence_level) for fit in fits], ignore_index=True)


def fit(
    options: ClvOptions, *, where: tuple[Condition, ...] = ()
) -> Generator[FrameRequest, pd.DataFrame, ClvFit]:
    """A plan that fits the models; run it with `causal.core.plan.run`.

    Args:
        options: What to fit.
        where: Conditions that rows must meet.

    Raises:
        DataError: A history is impossible; the message counts the customers.
        InferenceError: A likelihood has no maximum inside.

    Example:
        >>> import pandas as pd
        >>> from causal.core.pandas_engine import PandasEngine
        >>> from causal.core.plan import run
        >>> customers = pd.DataFrame(
        ...     {
        ...         "x": [0] * 60 + [1] * 10 + [2] * 6 + [6] * 4,
        ...         "t_x": [0.0] * 60 + [4.0, 9.0] * 5 + [7.0, 28.0] * 3 + [12.0, 29.0] * 2,
        ...         "T": [30.0] * 80,
        ...     }
        ... )
        >>> options = ClvOptions(frequency="x", recency="t_x", age="T")
        >>> fitted = run(fit(options), PandasEngine(customers))
        >>> fitted.purchases.n, fitted.purchases.n_cells
        (80, 7)
    """
    request = _history_request(options, where)
    cells, holdout, missing = _histories((yield request), options)
    purchases = fit_purchases(options.model, cells)
    diagnostics = [
        missing,
        _size(purchases),
        _convergence(purchases),
        _identification(purchases),
        *_history_rounding(purchases, cells, options),
    ]
    spend, spends = None, None
    if options.monetary_value is not None:
        answer = yield _spend_request(options, where)
        spends, missing = _spends(answer, options)
        spend = fit_spend(spends)
        diagnostics += [
            missing,
            _size(spend),
            _convergence(spend),
            _identification(spend),
            _independence(spends),
            *_spend_rounding(spend, spends),
        ]
    return ClvFit(
        purchases=purchases,
        cells=cells,
        spend=spend,
        spend_cells=spends,
        holdout=holdout,
        diagnostics=tuple(diagnostics),
    )


def fit_spend(cells: SpendCells) -> Fit:
    """The Gamma-Gamma model fitted on cells.

    Raises:
        DataError: Spend or frequency is impossible.
        InferenceError: The likelihood has no maximum inside, or the fit did not converge.
    """
    gamma_gamma.check(cells)
    return maximise(
        lambda parameters: gamma_gamma.log_likelihood(parameters, cells),
        count=cells.count,
        starts=gamma_gamma.starts(cells),
        model=gamma_gamma.NAME,
        names=gamma_gamma.PARAMETERS,
    )


def _history_request(options: ClvOptions, where: tuple[Condition, ...]) -> GramRequest:
    terms: list[Term] = []
    by = (options.frequency, options.recency, options.age)
    if options.recency_cell is not None and options.age_cell is not None:
        terms += [Column(options.recency), Column(options.age)]
        by = (options.frequency, options.recency_cell, options.age_cell)
    if options.holdout is not None:
        terms.append(Column(options.holdout))
    return GramRequest(terms=tuple(terms), by=by, where=where)


def _spend_request(options: ClvOptions, where: tuple[Condition, ...]) -> GramRequest:
    value = str(options.monetary_value)
    if options.monetary_cell is None:
        return GramRequest(terms=(), by=(options.frequency, value), where=where)
    return GramRequest(
        terms=(Column(value),), by=(options.frequency, options.monetary_cell), where=where
    )


def _histories(
    frame: pd.DataFrame, options: ClvOptions
) -> tuple[Cells, Holdout | None, Diagnostic]:
    keys = [numbers(frame.iloc[:, position]) for position in range(3)]
    counts = np.asarray(frame["n"], dtype=np.float64)
    is_known = ~np.isnan(np.column_stack(keys)).any(axis=1)
    is_used = is_known & (counts > 0)
    n_missing = float(frame["n_missing"].sum() + counts[~is_known].sum())
    frequency, recency, age = (key[is_used] for key in keys)
    mean, covariance = _moments(frame[is_used])
    spread = None
    if options.is_coarse:
        recency, age, spread = mean[:, 0], mean[:, 1], covariance[:, :2, :2]
        recency = np.where(frequency > 0, np.minimum(recency, age), recency)
    cells = Cells(
        frequency=frequency, recency=recency, age=age, count=counts[is_used], spread=spread
    )
    check(cells)
    holdout = None
    if options.holdout_length is not None:
        holdout = Holdout(purchases=mean[:, -1], length=options.holdout_length)
    return cells, holdout, _missing(n_missing, "missing_rows", "a purchase history")


def _spends(frame: pd.DataFrame, options: ClvOptions) -> tuple[SpendCells, Diagnostic]:
    frequency, spend = (numbers(frame.iloc[:, position]) for position in range(2))
    counts = np.asarray(frame["n"], dtype=np.float64)
    is_repeat = frequency > 0
    is_used = is_repeat & ~np.isnan(spend) & (counts > 0)
    n_missing = float(
        np.asarray(frame["n_missing"], dtype=np.float64)[is_repeat].sum()
        + counts[is_repeat & np.isnan(spend)].sum()
    )
    value, spread = spend[is_used], None
    if options.monetary_cell is not None:
        mean, covariance = _moments(frame[is_used])
        value, spread = mean[:, 0], covariance[:, 0, 0]
    cells = SpendCells(
        frequency=frequency[is_used], monetary_value=value, count=counts[is_used], spread=spread
    )
    gamma_gamma.check(cells)
    return cells, _missing(n_missing, "missing_spend", "their spend, though they bought again")


def _moments(frame: pd.DataFrame) -> tuple[Array, Array]:
    """Means (c, p) and within-cell covariances (c, p, p) of a Gram frame's terms."""
    if frame.empty:
        raise DataError("no customer has a complete history")
    mean = np.array([np.asarray(row, dtype=np.float64) for row in frame["mean"]])
    mean = mean.reshape(len(frame), -1)
    size = mean.shape[1]
    cross = np.array([unpack(np.asarray(row, dtype=np.float64), size) for row in frame["cross"]])
    if not (np.isfinite(mean).all() and np.isfinite(cross).all()):
        raise DataError("some rows hold NaN or infinite values")
    n = np.asarray(frame["n"], dtype=np.float64)
    return mean, cross.reshape(len(frame), size, size) / n[:, None, None]


def _rows(fitted: Fit, confidence_level: float) -> pd.DataFrame:
    interval = fitted.interval(confidence_level)
    return pd.DataFrame(
        {
            "model": fitted.model,
            "parameter": list(fitted.names),
            "estimate": fitted.parameters,
            "std_error": fitted.std_errors,
            "ci_lower": interval[:, 0],
            "ci_upper": interval[:, 1],
            "confidence_level": confidence_level,
        }
    )


def _diagnostic(name: str, statistic: float, detail: str, passed: bool | None = None) -> Diagnostic:  # noqa: FBT001
    return Diagnostic(
        name=name, statistic=float(statistic), pvalue=None, passed=passed, detail=detail
    )


def _missing(n_missing: float, name: str, what: str) -> Diagnostic:
    return _diagnostic(name, n_missing, f"{n_missing:,.0f} customers lack {what} and are left out")


def _size(fitted: Fit) -> Diagnostic:
    return _diagnostic(
        f"{fitted.model}.cells",
        fitted.n_cells,
        f"{fitted.n:,} customers in {fitted.n_cells:,} distinct cells",
    )


def _convergence(fitted: Fit) -> Diagnostic:
    return _diagnostic(
        f"{fitted.model}.converged",
        fitted.remaining,
        f"another Newton step would gain {fitted.remaining:.1e} of log-likelihood",
        passed=True,
    )


def _identification(fitted: Fit) -> Diagnostic:
    errors = np.sqrt(np.diag(fitted.covariance))
    worst = int(errors.argmax())
    return _diagnostic(
        f"{fitted.model}.identified",
        errors[worst],
        f"the least certain parameter, {fitted.names[worst]}, is known to a factor of "
        f"{np.exp(errors[worst]):.3g} (one standard error)",
        passed=bool(errors[worst] < _WEAK),
    )


def _independence(cells: SpendCells) -> Diagnostic:
    weights = cells.count
    pair = np.array([cells.frequency, cells.monetary_value])
    off = pair - np.average(pair, axis=1, weights=weights)[:, None]
    (var_x, cov), (_, var_m) = (off * weights) @ off.T
    correlation = cov / np.sqrt(var_x * var_m) if var_x > 0 and var_m > 0 else 0.0
    return _diagnostic(
        "spend_independence",
        correlation,
        f"frequency and mean spend correlate {correlation:+.3f} among customers who bought again; "
        "the Gamma-Gamma model assumes 0",
    )


def _history_rounding(fitted: Fit, cells: Cells, options: ClvOptions) -> Sequence[Diagnostic]:
    if cells.spread is None:
        return ()
    finer = cells.finer()
    model = MODELS[options.model]
    moved = shift(fitted, lambda theta: model.log_likelihood(theta, finer), count=finer.count)
    return (_rounding(fitted, moved),)


def _spend_rounding(fitted: Fit, cells: SpendCells) -> Sequence[Diagnostic]:
    if cells.spread is None:
        return ()
    finer = cells.finer()
    moved = shift(fitted, lambda theta: gamma_gamma.log_likelihood(theta, finer), count=finer.count)
    return (_rounding(fitted, moved),)


def _rounding(fitted: Fit, to_finer: Array) -> Diagnostic:
    moved = -to_finer
    worst = int(np.abs(moved).argmax())
    return _diagnostic(
        f"{fitted.model}.rounding",
        moved[worst],
        f"coarse cells move {fitted.names[worst]} by {moved[worst]:+.3f} standard errors, "
        "the others by less",
        passed=bool(abs(moved[worst]) <= _TOLERATED_SHIFT),
    )
