"""Least squares of a switchback: fixed effects taken out, errors clustered or serial.

Effects of regions and of seasons (or periods) are taken out of outcome and regressors exactly: the
larger set of dummies is eliminated, the normal equations of the smaller one are solved (Frisch,
Waugh and Lovell). What a cell adds to the coefficients is summed by cluster (Liang and Zeger 1986;
Abadie, Athey, Imbens and Wooldridge 2023: cluster by what was randomised), with what neighbours
share where a wash-out ties them (Conley 1999, distance in time), or weighted by distance
in time with Bartlett's weights within regions (Newey and West 1987) or over all regions of a period
(Driscoll and Kraay 1998). Periods without a cell count as time that passes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.core.inference import cr1_factor
from causal.quasi.synthetic.region_panel import Indices

_RANK = 1e-10


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A weighted least-squares fit with its effects taken out.

    Attributes:
        coefficients: Of the q regressors, shape (q,).
        bread: Inverse of their weighted cross-products, shape (q, q).
        scores: What each cell adds, shape (n, q).
        residuals: Shape (n,).
        rank: Dimension of what was taken out, the constant included.
    """

    coefficients: Array
    bread: Array
    scores: Array
    residuals: Array
    rank: int


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
    columns = np.column_stack([outcome, regressors])
    within, rank = taken_out(columns, weights, groups)
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
    residuals = y - x @ coefficients
    return Fit(
        coefficients=coefficients,
        bread=bread,
        scores=(weights * residuals)[:, None] * x,
        residuals=residuals,
        rank=rank,
    )


def taken_out(columns: Array, weights: Array, groups: tuple[Indices, ...]) -> tuple[Array, int]:
    """Weighted residuals on effects of up to two groupings, and the dimension of these.

    Args:
        columns: Shape (n, c).
        weights: Shape (n,).
        groups: Each of shape (n,).
    """
    centred = columns - (weights @ columns) / weights.sum()
    if not groups:
        return centred, 1
    compact = [np.unique(codes, return_inverse=True)[1] for codes in groups]
    if len(compact) == 1:
        return centred - _means(centred, weights, compact[0])[compact[0]], int(compact[0].max()) + 1
    large, small = sorted(compact, key=lambda codes: -int(codes.max()))
    return _two_ways(centred, weights, large=large, small=small)


def _two_ways(
    columns: Array, weights: Array, *, large: Indices, small: Indices
) -> tuple[Array, int]:
    n_large, n_small = int(large.max()) + 1, int(small.max()) + 1
    both = np.bincount(large * n_small + small, weights, n_large * n_small)
    both = both.reshape(n_large, n_small)
    share = both / both.sum(axis=1)[:, None]
    normal = np.diag(both.sum(axis=0)) - both.T @ share
    within = columns - _means(columns, weights, large)[large]
    sums = np.column_stack([np.bincount(small, weights * x, n_small) for x in within.T])
    values, vectors = np.linalg.eigh(normal)
    kept = values > _RANK * values.max() if values.max() > 0 else np.zeros(n_small, dtype=np.bool_)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    slopes = inverse @ sums
    fitted = slopes[small] - (share @ slopes)[large]
    return np.asarray(within - fitted, dtype=np.float64), n_large + int(kept.sum())


def _means(columns: Array, weights: Array, codes: Indices) -> Array:
    total = np.bincount(codes, weights)
    return np.column_stack([np.bincount(codes, weights * x) / total for x in columns.T])


def clustered(fit: Fit, codes: Indices, *, n: int, k: int) -> tuple[Array, int]:
    """Covariance with cluster sums of scores and the factor of CR1, and the number of clusters."""
    sums = _sums(fit.scores, np.unique(codes, return_inverse=True)[1])
    factor = cr1_factor(n=n, k=k, n_clusters=len(sums))
    return factor * fit.bread @ (sums.T @ sums) @ fit.bread, len(sums)


def shared_by_pairs(fit: Fit, codes: Indices, pairs: NDArray[np.intp], *, n: int, k: int) -> Array:
    """What pairs of clusters share, to be added to the clustered covariance.

    Only variances, and only where they grow: a covariance from few pairs may be negative by chance,
    and what is added is to leave a covariance.

    Args:
        fit: The fit.
        codes: Clusters, shape (n,).
        pairs: Pairs of clusters, shape (p, 2).
        n: Observations that the factor of CR1 counts.
        k: Coefficients.
    """
    size = int(max(codes.max(), pairs.max(initial=0))) + 1
    sums = np.column_stack([np.bincount(codes, column, size) for column in fit.scores.T])
    across = sums[pairs[:, 0]].T @ sums[pairs[:, 1]]
    factor = cr1_factor(n=n, k=k, n_clusters=len(np.unique(codes)))
    shared = factor * fit.bread @ (across + across.T) @ fit.bread
    return np.diag(np.maximum(np.diag(shared), 0.0))


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
    return _sums(scores, (period - period.min()).astype(np.intp))


def _bartlett(sums: Array, *, lags: int) -> Array:
    total = sums.T @ sums
    for lag in range(1, min(lags, len(sums) - 1) + 1):
        across = sums[lag:].T @ sums[:-lag]
        total += (1.0 - lag / (lags + 1)) * (across + across.T)
    return np.asarray(total, dtype=np.float64)


def _sums(scores: Array, codes: Indices) -> Array:
    return np.column_stack([np.bincount(codes, column) for column in scores.T])
