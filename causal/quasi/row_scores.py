"""Errors that need the score of each row: two-way clusters, and dependence across units and time.

A panel of regions is small enough to look at row by row: one pass returns what each unit and period
adds to the coefficients. From it follow two-way clustered errors (Cameron, Gelbach and Miller 2011)
and those of Driscoll and Kraay (1998), which allow for any dependence between units and for serial
dependence up to a lag, and rely on many periods.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.errors import DataError, InferenceError
from causal.core.frames import Column, Condition, FrameRequest, GramRequest
from causal.core.gram import Array, grams
from causal.quasi.did_options import DidOptions
from causal.quasi.within_fit import WithinFit

MAX_ROWS = 100_000
"""Rows of a panel of regions."""


@dataclass(frozen=True, kw_only=True)
class RowScores:
    """What each row adds to the coefficients of a regression.

    Attributes:
        scores: Shape (n, K); their columns sum to zero.
        keys: Unit, period and clusters of each row.
    """

    scores: Array
    keys: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class RowCovariance:
    """A covariance from scores by row.

    Attributes:
        matrix: Shape (K, K).
        df: Degrees of freedom of the t reference.
        n_clusters: The smaller number of clusters; `None`: not clustered.
    """

    matrix: Array
    df: int
    n_clusters: int | None


def observe_row_scores(
    options: DidOptions, fits: Sequence[WithinFit], *, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, tuple[RowScores, ...]]:
    """The scores of several regressions on the same rows, in one pass.

    Raises:
        DataError: Too many rows, or a cluster column is null somewhere.
    """
    n = fits[0].n
    if n > MAX_ROWS:
        raise DataError(
            "these errors are for panels of regions: aggregate the rows to regions and periods",
            given=f"{n:,} rows", allowed=f"at most {MAX_ROWS:,}",
        )  # fmt: skip
    sides = [side for fit in fits for score in fit.scores for side in (score.left, score.right)]
    by = tuple(dict.fromkeys([options.unit, options.period, *options.cluster_columns]))
    request = GramRequest(
        terms=tuple(dict.fromkeys(sides)), by=by, where=where,
        weight=None if options.weight is None else Column(options.weight),
    )  # fmt: skip
    cells = {key: cell for key, cell in grams((yield request), request).items() if cell.n > 0}
    lost = sum(cell.n for key, cell in cells.items() if None in key)
    if lost:
        raise DataError(f"{' or '.join(by)} is null in some rows", given=f"{lost} rows")
    if len(cells) != n:
        raise InferenceError("the passes saw different rows", given=f"{len(cells)} and {n}")
    keys = pd.DataFrame(list(cells), columns=list(by))
    values = np.array([cell.mean for cell in cells.values()])
    weights = np.array([cell.sum_weights for cell in cells.values()])
    within = _within(values, weights, _codes(keys, [options.unit]))
    at = {term: j for j, term in enumerate(request.terms)}
    return tuple(
        RowScores(
            scores=np.column_stack(
                [weights * within[:, at[s.left]] * within[:, at[s.right]] for s in fit.scores]
            ),
            keys=keys,
        )
        for fit in fits
    )


def two_way(options: DidOptions, fit: WithinFit, rows: RowScores) -> RowCovariance:
    """Errors clustered by two columns: both, less their combinations.

    Raises:
        InferenceError: A variance is negative, or a column has a single cluster.
    """
    columns = options.cluster_columns
    parts = [(1.0, [name]) for name in columns] + [(-1.0, list(columns))]
    codes = [_codes(rows.keys, names) for _, names in parts]
    counts = [int(code.max()) + 1 for code in codes]
    smallest = min(counts[:-1])
    if smallest <= 1:
        raise InferenceError("clustered errors need two or more clusters", given=smallest)
    k = _counted(options, fit, rows, columns)
    total = np.zeros((len(fit.regressors),) * 2)
    for (sign, _), code, count in zip(parts, codes, counts, strict=True):
        g = smallest if options.factor == "min" else count
        factor = 1.0 if options.factor == "none" else g / (g - 1) * (fit.n - 1) / (fit.n - k)
        sums = _sums(rows.scores, code)
        total += sign * factor * sums.T @ sums
    if (np.diag(total) <= 0).any():
        raise InferenceError(
            "the two-way clustered variance is negative: too few clusters for two ways",
            given=[r.name for r, v in zip(fit.regressors, np.diag(total), strict=True) if v <= 0],
            allowed="one column of clusters, that with the fewer clusters",
        )
    return RowCovariance(matrix=total, df=smallest - 1, n_clusters=smallest)


def driscoll_kraay(options: DidOptions, fit: WithinFit, rows: RowScores) -> RowCovariance:
    """Errors of Driscoll and Kraay with Bartlett weights; lags count observed periods.

    Raises:
        InferenceError: As many lags as periods.
    """
    sums = _sums(rows.scores, _codes(rows.keys, [options.period]))
    n_periods, lags = len(sums), lag_count(len(sums), asked=options.lags)
    if lags >= n_periods:
        raise InferenceError(
            "lags must be fewer than the periods", given=lags, allowed=f"below {n_periods}"
        )
    total = sums.T @ sums
    for lag in range(1, lags + 1):
        across = sums[lag:].T @ sums[:-lag]
        total += (1.0 - lag / (lags + 1)) * (across + across.T)
    factor = 1.0
    if options.factor == "cr1":
        k = fit.k + fit.n_units - 1
        factor = n_periods / (n_periods - 1) * (fit.n - 1) / (fit.n - k)
    return RowCovariance(matrix=factor * total, df=n_periods - 1, n_clusters=None)


def lag_count(n_periods: int, *, asked: int | None) -> int:
    """The lags asked for, or the integer part of `4 (T / 100)^(2/9)` (Newey and West 1994)."""
    return int(4 * (n_periods / 100) ** (2 / 9)) if asked is None else asked


def _counted(options: DidOptions, fit: WithinFit, rows: RowScores, columns: Sequence[str]) -> int:
    """Coefficients that the factor counts: unit effects only if units lie across all clusters."""
    units = rows.keys.groupby(options.unit)
    is_nested = any(name == options.unit or (units[name].nunique() == 1).all() for name in columns)
    return fit.k if is_nested else fit.k + fit.n_units - 1


def _codes(keys: pd.DataFrame, names: Sequence[str]) -> NDArray[np.intp]:
    return np.asarray(keys.groupby(list(names), sort=True).ngroup(), dtype=np.intp)


def _sums(scores: Array, codes: NDArray[np.intp]) -> Array:
    sums = np.zeros((int(codes.max()) + 1, scores.shape[1]))
    np.add.at(sums, codes, scores)
    return sums


def _within(values: Array, weights: Array, codes: NDArray[np.intp]) -> Array:
    """Deviations from each unit's weighted mean."""
    totals = np.bincount(codes, weights)
    safe = np.where(totals > 0, totals, 1.0)
    means = np.column_stack([np.bincount(codes, weights * x) / safe for x in values.T])
    return np.asarray(values - means[codes], dtype=np.float64)
