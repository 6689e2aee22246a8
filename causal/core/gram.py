"""Moments of terms: the sufficient statistics that every linear estimator starts from.

A `Gram` holds a weighted mean vector and a cross-product matrix centred on it. Centring keeps the
digits: with mean 1e8 and standard deviation 1, raw sums of squares give a variance of 2.10 in
place of 1.00. Grams of disjoint rows merge exactly (Chan, Golub and LeVeque 1983, "Algorithms for
computing the sample variance").
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.errors import DataError
from causal.core.frames import (
    Column,
    GramRequest,
    Level,
    Linear,
    PanelGramRequest,
    Term,
    label,
    numeric_columns_of,
    packed_size,
)

Array = NDArray[np.float64]
Key = tuple[Level | None, ...]

HISTOGRAM_COLUMNS = ("n", "n_missing", "bins", "counts", "lowest", "highest")


@dataclass(frozen=True)
class Gram:
    """Weighted mean and centred cross-products of p terms over a set of rows.

    Attributes:
        terms: The p terms.
        n: Rows used.
        n_missing: Rows left out because a term or the weight was null.
        n_units: Absorbed groups; 0 when nothing was absorbed.
        sum_weights: Sum of the weights (n when unweighted).
        mean: Weighted means, shape (p,).
        cross: Centred cross-products `sum w (x - mean)(x - mean)'`, shape (p, p); (0, 0) if the
            request asks for none.
    """

    terms: tuple[Term, ...]
    n: int
    n_missing: int
    n_units: int
    sum_weights: float
    mean: Array
    cross: Array

    @property
    def covariance(self) -> Array:
        """Sample covariance matrix with the divisor `sum_weights - 1`, shape (p, p)."""
        return self.cross / (self.sum_weights - 1.0)

    def index(self, term: Term) -> int:
        """Position of a term."""
        return self.terms.index(term)

    def positions(self, terms: Iterable[Term]) -> list[int]:
        """Positions of several terms."""
        return [self.index(term) for term in terms]

    def subset(self, terms: Sequence[Term]) -> "Gram":
        """The same rows, fewer terms (in the order given)."""
        at = self.positions(terms)
        return Gram(
            tuple(terms), self.n, self.n_missing, self.n_units, self.sum_weights,
            self.mean[at], self.cross[np.ix_(at, at)],
        )  # fmt: skip

    def moment(self) -> Array:
        """Uncentred cross-products `sum w x x'`, shape (p, p)."""
        return self.cross + self.sum_weights * np.outer(self.mean, self.mean)

    def merge(self, other: "Gram") -> "Gram":
        """The Gram of both sets of rows together."""
        if other.n == 0 or self.n == 0:
            kept, empty = (self, other) if other.n == 0 else (other, self)
            return Gram(
                kept.terms, kept.n, kept.n_missing + empty.n_missing, kept.n_units,
                kept.sum_weights, kept.mean, kept.cross,
            )  # fmt: skip
        total = self.sum_weights + other.sum_weights
        share = other.sum_weights / total if total > 0 else 0.0
        step = other.mean - self.mean
        return Gram(
            self.terms,
            self.n + other.n,
            self.n_missing + other.n_missing,
            self.n_units + other.n_units,
            total,
            self.mean + step * share,
            self.cross + other.cross + np.outer(step, step) * (self.sum_weights * share),
        )


def pooled(grams: Iterable[Gram]) -> Gram:
    """All of them merged. Not for within-unit (absorbed) Grams: see `summed`."""
    return functools.reduce(Gram.merge, grams)


def summed(grams: Sequence[Gram]) -> Gram:
    """Within-unit moments of disjoint sets of units together: the cross-products add up."""
    total = sum(gram.sum_weights for gram in grams)
    first = grams[0]
    size = len(first.terms)
    mean = sum((g.sum_weights * g.mean for g in grams), np.zeros(size)) / max(total, 1e-300)
    return Gram(
        first.terms, sum(g.n for g in grams), sum(g.n_missing for g in grams),
        sum(g.n_units for g in grams), total, mean,
        sum((g.cross for g in grams), np.zeros((size, size))),
    )  # fmt: skip


def grams(frame: pd.DataFrame, request: GramRequest) -> dict[Key, Gram]:
    """The answer to a Gram request as one `Gram` per key.

    Raises:
        DataError: A term is infinite or NaN somewhere, or a key column holds both nulls and NaN.
    """
    rows = frame.to_dict("records")
    found = {key_of(row, request.keys): _gram(row, request) for row in rows}
    if len(found) < len(rows):
        raise DataError(
            "a grouping column holds both nulls and NaN, which cannot be told apart",
            given=", ".join(request.by),
            allowed="one of the two",
        )
    return found


def means(frame: pd.DataFrame, request: GramRequest) -> pd.DataFrame:
    """The answer to a Gram request of one term in columns, as it is fast to read for many keys.

    Returns:
        The key columns, n, n_missing, sum_weights and mean, one row per key.

    Raises:
        DataError: As `grams` does.
    """
    first = {name: [part[0] for part in frame[name]] for name in ("mean", "cross")}
    numbers = np.array([frame["sum_weights"], first["mean"], first["cross"]], dtype=np.float64)
    keys = frame[list(request.keys)]
    if keys.isna().any(axis=None) or not (np.isfinite(numbers).all() and (numbers[0] >= 0).all()):
        grams(frame, request)  # says what is wrong with which term or key
    plain: dict[str, Any] = {name: _scalars(frame[name]) for name in request.keys}
    counts = {name: frame[name].to_numpy(dtype=np.int64) for name in ("n", "n_missing")}
    return pd.DataFrame(plain | counts | {"sum_weights": numbers[0], "mean": numbers[1]})


def gram(frame: pd.DataFrame, request: GramRequest) -> Gram:
    """The answer to a Gram request without keys.

    Raises:
        DataError: There is no row, or a term is infinite or NaN somewhere.
    """
    found = grams(frame, request)
    if len(found) != 1:
        raise DataError("the source has no rows after the filters")
    only = next(iter(found.values()))
    if only.n == 0:
        raise DataError(
            "no row has a value for every column of the analysis", given=f"{only.n_missing} rows"
        )
    return only


def meat(frame: pd.DataFrame) -> tuple[Array, int]:
    """The answer to a meat request: the matrix (p, p) and the number of clusters."""
    row = frame.to_dict("records")[0]
    packed = np.asarray(row["cross"], dtype=np.float64)
    size = int((np.sqrt(8 * len(packed) + 1) - 1) / 2 + 0.5)
    matrix = unpack(packed, size)
    if not np.isfinite(matrix).all():
        raise DataError("a score is not finite: the data hold NaN or infinite values")
    return matrix, int(row["n_clusters"])


@dataclass(frozen=True)
class PanelGram:
    """Outcome paths of one cohort of units over T periods.

    Attributes:
        first_treated_period: The cohort; `None` is never treated.
        key: Values of the request's `by` columns.
        periods: The periods, ascending, shape (T,).
        n: Complete units.
        n_incomplete: Units that lack some period; not in the sums.
        n_missing: Rows with a null outcome.
        mean: Mean path, shape (T,); with covariates, means of all S values of the request.
        cross: Centred cross-products, shape (T, T) or (S, S); fewer rows and columns, from the
            first on, if the request asks for fewer.
    """

    first_treated_period: float | None
    key: Key
    periods: Array
    n: int
    n_incomplete: int
    n_missing: int
    mean: Array
    cross: Array

    @property
    def path(self) -> "PanelGram":
        """The same without covariates."""
        size = len(self.periods)
        return replace(self, mean=self.mean[:size], cross=self.cross[:size, :size])


def panel_grams(frame: pd.DataFrame, request: PanelGramRequest) -> tuple[PanelGram, ...]:
    """The answer to a panel request, cohorts ascending, never treated last.

    Raises:
        DataError: The outcome is infinite or NaN somewhere.
    """
    found = [_panel_gram(row, request) for row in frame.to_dict("records")]
    order = sorted(
        found, key=lambda item: (_last_if_none(item.first_treated_period), str(item.key))
    )
    return tuple(order)


def pooled_paths(parts: Iterable[PanelGram]) -> tuple[PanelGram, ...]:
    """Units of the same cohort merged, whatever their key; in the order in which cohorts come."""
    cohorts: dict[float | None, list[PanelGram]] = {}
    for part in parts:
        cohorts.setdefault(part.first_treated_period, []).append(part)
    return tuple(_pooled_cohort(members) for members in cohorts.values())


def _pooled_cohort(members: Sequence[PanelGram]) -> PanelGram:
    counted = [part for part in members if part.n > 0] or list(members[:1])
    counts = np.array([part.n for part in counted], dtype=np.float64)
    total = max(counts.sum(), 1.0)
    means = np.array([part.mean for part in counted])
    mean = counts @ means / total
    size = len(counted[0].cross)
    off = (means - mean)[:, :size]
    return PanelGram(
        first_treated_period=members[0].first_treated_period,
        key=(),
        periods=members[0].periods,
        n=sum(part.n for part in members),
        n_incomplete=sum(part.n_incomplete for part in members),
        n_missing=sum(part.n_missing for part in members),
        mean=mean,
        cross=sum((part.cross for part in counted), np.zeros((size, size)))
        + np.einsum("c,ct,cs->ts", counts, off, off),
    )


def pack(matrix: Array) -> Array:
    """The upper triangle of a symmetric matrix, row by row."""
    return matrix[_upper(matrix.shape[0])]


def unpack(packed: Array, size: int) -> Array:
    """The symmetric matrix of a packed upper triangle."""
    rows, columns = _upper(size)
    matrix = np.zeros((size, size))
    matrix[rows, columns] = packed
    matrix[columns, rows] = packed
    return matrix


@functools.lru_cache(maxsize=16)
def _upper(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the upper triangle is: an answer may hold ten thousand matrices of one size."""
    return np.triu_indices(size)


def combine(gram_: Gram, terms: Sequence[Linear]) -> Gram:
    """The Gram of linear combinations of a Gram's terms.

    Args:
        gram_: Holds every term that the combinations use.
        terms: q combinations; a term of them may be a constant.
    """
    weights = np.zeros((len(terms), len(gram_.terms)))
    for row, combination in enumerate(terms):
        for term, coefficient in zip(combination.terms, combination.coefficients, strict=True):
            weights[row, gram_.index(term)] += coefficient
    return Gram(
        tuple(terms), gram_.n, gram_.n_missing, gram_.n_units, gram_.sum_weights,
        weights @ gram_.mean, weights @ gram_.cross @ weights.T,
    )  # fmt: skip


def key_of(row: Mapping[Any, Any], by: tuple[str, ...]) -> Key:
    """The key of an answer's row; null and NaN are `None`."""
    return tuple(_scalar(row[name]) for name in by)


def _scalars(values: "pd.Series[Any]") -> NDArray[np.object_]:
    """The levels of a key column; each distinct one is looked at once."""
    codes, found = pd.factorize(values, use_na_sentinel=False)
    levels = np.empty(len(found), dtype=object)
    levels[:] = [_scalar(value) for value in found]
    return np.asarray(levels[codes], dtype=object)


def _scalar(value: Any) -> Level | None:
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NaT:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, str | int | float | bool) else str(value)


def _gram(row: Mapping[Any, Any], request: GramRequest) -> Gram:
    size = len(request.terms)
    mean = np.asarray(row["mean"], dtype=np.float64).reshape(size)
    n_crossed = size if request.crossed == "all" else 0
    packed = np.asarray(row["cross"], dtype=np.float64).reshape(packed_size(n_crossed))
    cross = unpack(packed, n_crossed)
    _check_finite(mean, cross, request.terms)
    if row["sum_weights"] < 0 or not np.isfinite(row["sum_weights"]):
        raise DataError("weights must be finite and not negative", given=row["sum_weights"])
    return Gram(
        request.terms, int(row["n"]), int(row["n_missing"]), int(row["n_units"]),
        float(row["sum_weights"]), mean, cross,
    )  # fmt: skip


def _check_finite(mean: Array, cross: Array, terms: Sequence[Term]) -> None:
    bad = ~np.isfinite(mean)
    bad[: len(cross)] |= ~np.isfinite(np.diag(cross))
    if bad.any():
        raise DataError("some rows hold NaN or infinite values", given=_suspects(terms, bad))


def _suspects(terms: Sequence[Term], bad: NDArray[np.bool_]) -> list[str]:
    """The columns behind terms that are not finite: no term that is finite is made of them.

    What is made of a column is bad because the column is, so that one goes before others. Terms
    are named where all their columns are in a finite one, as 0 times a column of large numbers is.
    """
    found = [term for term, is_bad in zip(terms, bad, strict=True) if is_bad]
    plain = [term.name for term in found if isinstance(term, Column)]
    fine = {
        name
        for term, is_bad in zip(terms, bad, strict=True)
        if not is_bad
        for name in numeric_columns_of(term)
    }
    made = dict.fromkeys(name for term in found for name in sorted(numeric_columns_of(term) - fine))
    return plain or list(made) or [label(term) for term in found]


def _panel_gram(row: Mapping[Any, Any], request: PanelGramRequest) -> PanelGram:
    periods = np.asarray(row["periods"], dtype=np.float64)
    mean = np.asarray(row["mean"], dtype=np.float64)
    cross = unpack(np.asarray(row["cross"], dtype=np.float64), request.n_crossed(len(periods)))
    if not (np.isfinite(mean).all() and np.isfinite(cross).all()):
        terms = (request.outcome, *request.covariates)
        named = dict.fromkeys(name for term in terms for name in sorted(numeric_columns_of(term)))
        raise DataError("some rows hold NaN or infinite values", given=", ".join(named))
    first = _scalar(row["first_treated_period"])
    return PanelGram(
        None if first is None else float(first), key_of(row, request.by), periods, int(row["n"]),
        int(row["n_incomplete"]), int(row["n_missing"]), mean, cross,
    )  # fmt: skip


def _last_if_none(value: float | None) -> float:
    return np.inf if value is None else value
