"""Least squares of a switchback: fixed effects taken out, serial errors.

Effects of regions and of seasons (or periods) are taken out of outcome and regressors exactly: the
larger set of dummies is eliminated, the normal equations of the smaller one are solved (Frisch,
Waugh and Lovell). What a cell adds to the coefficients is summed by cluster (`switchback_clusters`;
Abadie, Athey, Imbens and Wooldridge 2023: cluster by what was randomised), with what neighbours
share where a wash-out ties them (Conley 1999, distance in time), or weighted by distance
in time with Bartlett's weights within regions (Newey and West 1987) or over all regions of a period
(Driscoll and Kraay 1998). Periods without a cell count as time that passes.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.quasi.synthetic.region_panel import Indices

_RANK = 1e-10


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Orthonormal columns F of fixed effects, in cells times the root of their weights.

    The dummies of the larger grouping, one of which each cell has, and a few dense columns beside.

    Attributes:
        codes: Number of the dummy of each cell, shape (n,).
        sizes: Value of that dummy, shape (n,).
        dense: The other columns, shape (n, s).
    """

    codes: Indices
    sizes: Array
    dense: Array

    @property
    def rank(self) -> int:
        """Number of columns."""
        return len(np.unique(self.codes)) + int(self.dense.shape[1])

    def residuals(self, columns: Array) -> Array:
        """Columns of shape (n, c) less their projection."""
        size = self.sizes[:, None]
        left = columns - size * sums_by(self.codes, size * columns)[self.codes]
        return np.asarray(left - self.dense @ (self.dense.T @ left), dtype=np.float64)

    def with_columns(self, columns: Array) -> "Basis":
        """The basis with more orthonormal columns."""
        return replace(self, dense=np.column_stack([self.dense, columns]))

    def leverage(self, at: NDArray[np.intp]) -> Array:
        """`F F'` of some cells, those of a cluster together; shape (b, m) gives (b, m, m)."""
        codes, sizes, dense = self.codes[at], self.sizes[at], self.dense[at]
        same = codes[:, :, None] == codes[:, None, :]
        return np.asarray(
            same * sizes[:, :, None] * sizes[:, None, :] + dense @ dense.transpose(0, 2, 1)
        )

    def of(self, at: NDArray[np.intp]) -> Array:
        """`F` of m cells without the columns that are zero in all of them."""
        known, codes = np.unique(self.codes[at], return_inverse=True)
        dummies = np.zeros((len(at), len(known)))
        dummies[np.arange(len(at)), codes] = self.sizes[at]
        return np.column_stack([dummies, self.dense[at]])


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A weighted least-squares fit with its effects taken out.

    Attributes:
        coefficients: Of the q regressors, shape (q,).
        bread: Inverse of their weighted cross-products, shape (q, q).
        regressors: What the effects leave of them, shape (n, q).
        residuals: Shape (n,).
        weights: Shape (n,).
        basis: What was taken out, the constant included.
    """

    coefficients: Array
    bread: Array
    regressors: Array
    residuals: Array
    weights: Array
    basis: Basis

    @property
    def scores(self) -> Array:
        """What each cell adds, shape (n, q)."""
        return np.asarray((self.weights * self.residuals)[:, None] * self.regressors)


def least_squares(
    outcome: Array, regressors: Array, *, weights: Array, groups: tuple[Indices, ...]
) -> Fit:
    """Regress the outcome on regressors and effects of groups.

    Args:
        outcome: Shape (n,).
        regressors: Shape (n, q).
        weights: Positive, shape (n,).
        groups: Numbers of up to two groupings, each of shape (n,); none: a constant.

    Raises:
        InferenceError: The effects explain a regressor.
    """
    basis = effects_basis(weights, groups)
    within = taken_out(np.column_stack([outcome, regressors]), weights, basis)
    y, x = within[:, 0], within[:, 1:]
    cross = x.T @ (weights[:, None] * x)
    size = np.diag(cross)
    spread = weights @ (regressors - regressors.mean(axis=0)) ** 2
    scale = np.sqrt(np.where(size > 0, size, 1.0))
    correlation = cross / np.outer(scale, scale)
    if (size <= _RANK * np.maximum(spread, 1e-300)).any() or (
        np.linalg.matrix_rank(correlation, tol=_RANK * len(size), hermitian=True) < len(size)
    ):
        raise InferenceError(
            "the treatment does not vary beyond the fixed effects", allowed="fewer fixed_effects, "
            "more blocks, or a shorter wash_out",
        )  # fmt: skip
    bread = np.asarray(np.linalg.inv(cross), dtype=np.float64)
    coefficients = bread @ (x.T @ (weights * y))
    return Fit(
        coefficients=coefficients,
        bread=bread,
        regressors=x,
        residuals=y - x @ coefficients,
        weights=weights,
        basis=basis,
    )


def taken_out(columns: Array, weights: Array, basis: Basis) -> Array:
    """Weighted residuals on fixed effects; columns of shape (n, c)."""
    root = np.sqrt(weights)[:, None]
    centred = columns - (weights @ columns) / weights.sum()
    return np.asarray(basis.residuals(root * centred) / root, dtype=np.float64)


def effects_basis(weights: Array, groups: tuple[Indices, ...]) -> Basis:
    """The basis of the effects of up to two groupings; none: of a constant.

    Args:
        weights: Positive, shape (n,).
        groups: Each of shape (n,).
    """
    compact = [np.unique(codes, return_inverse=True)[1] for codes in groups]
    compact.sort(key=lambda codes: -int(codes.max()))
    large = compact[0] if compact else np.zeros(len(weights), dtype=np.intp)
    sizes = np.sqrt(weights / np.bincount(large, weights)[large])
    dense = np.empty((len(weights), 0))
    if len(compact) > 1:
        dense = _beside(weights, large=large, small=compact[1])
    return Basis(codes=large, sizes=sizes, dense=dense)


def _beside(weights: Array, *, large: Indices, small: Indices) -> Array:
    """What dummies of the smaller grouping add to those of the larger, orthonormal."""
    n_large, n_small = int(large.max()) + 1, int(small.max()) + 1
    both = np.bincount(large * n_small + small, weights, n_large * n_small)
    both = both.reshape(n_large, n_small)
    share = both / both.sum(axis=1)[:, None]
    normal = np.diag(both.sum(axis=0)) - both.T @ share
    values, vectors = np.linalg.eigh(normal)
    kept = values > _RANK * values.max() if values.max() > 0 else np.zeros(n_small, dtype=np.bool_)
    turned = vectors[:, kept] / np.sqrt(values[kept])
    return np.asarray(
        np.sqrt(weights)[:, None] * (turned[small] - (share @ turned)[large]), dtype=np.float64
    )


def newey_west(
    fit: Fit, region: Indices, period: NDArray[np.int64], *, lags: int, n: int, k: int
) -> Array:
    """Serial correlation within regions up to a lag; factor `n / (n - k)`."""
    number = np.unique(region, return_inverse=True)[1]
    meat = np.zeros_like(fit.bread)
    for at in range(int(number.max()) + 1):
        inside = number == at
        meat += _bartlett(_by_time(fit.scores[inside], period[inside]), lags=lags)
    return np.asarray(n / (n - k) * fit.bread @ meat @ fit.bread)


def driscoll_kraay(fit: Fit, period: NDArray[np.int64], *, lags: int, n: int, k: int) -> Array:
    """Any correlation within a period, serial up to a lag; factor `T/(T-1) (n-1)/(n-k)`."""
    n_periods = len(np.unique(period))
    meat = _bartlett(_by_time(fit.scores, period), lags=lags)
    factor = n_periods / (n_periods - 1) * (n - 1) / (n - k)
    return np.asarray(factor * fit.bread @ meat @ fit.bread)


def _by_time(scores: Array, period: NDArray[np.int64]) -> Array:
    return sums_by((period - period.min()).astype(np.intp), scores)


def _bartlett(sums: Array, *, lags: int) -> Array:
    total = sums.T @ sums
    for lag in range(1, min(lags, len(sums) - 1) + 1):
        across = sums[lag:].T @ sums[:-lag]
        total += (1.0 - lag / (lags + 1)) * (across + across.T)
    return np.asarray(total, dtype=np.float64)


def sums_by(codes: Indices, columns: Array) -> Array:
    """Sums of columns of shape (n, c) by codes from 0 on, shape (codes, c)."""
    size = int(codes.max()) + 1
    found = [np.bincount(codes, column, size) for column in columns.T]
    return np.column_stack(found) if found else np.empty((size, 0))
