"""Clustered errors of a switchback that allow for few clusters: CR1, or CR2 with its own df.

Residuals of a cluster are too small by what the cluster itself did to the fit. CR2 (Bell and
McCaffrey 2002) multiplies them by the symmetric inverse square root of `I - H_gg`, the leverage of
the cluster, which makes the variance unbiased where errors are independent with variances inverse
to the weights. What a cluster then adds to a coefficient is `u_g = a_g' e_g`; under the same
errors `u` has the covariance `M = diag(a_g'a_g) - F'F` with `F` what the fit takes out of the
clusters' `a`. A variance `u'Bu` is like `chi2(df) / df` with `df = tr(BM)^2 / tr(BMBM)`, `B` the
identity, with ones where neighbouring clusters are added (Pustejovsky and Tipton 2018).
Directions that a cluster determines alone count for nothing (Moore-Penrose).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.core.inference import cr1_factor
from causal.quasi.geo.switchback_fit import Basis, Fit, sums_by
from causal.quasi.synthetic.region_panel import Indices

SINGULAR = 1e-9
"""Share of a direction's information that must remain when a cluster is left out."""
_LARGEST = 1_000
_NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Clusters of the n cells of a fit.

    Attributes:
        codes: Number of the cluster of each cell, from 0 without gaps, shape (n,).
        pairs: Pairs of clusters whose products are added, shape (p, 2).
    """

    codes: Indices
    pairs: NDArray[np.intp]

    @property
    def n(self) -> int:
        """How many there are."""
        return int(self.codes.max()) + 1


def clusters(codes: Indices, pairs: NDArray[np.intp] | None = None) -> Clusters:
    """Clusters from any numbers, with those pairs of which both have cells."""
    known, compact = np.unique(codes, return_inverse=True)
    if pairs is None or not len(pairs):
        return Clusters(codes=compact, pairs=np.empty((0, 2), dtype=np.intp))
    held = np.isin(pairs, known).all(axis=1)
    return Clusters(codes=compact, pairs=np.searchsorted(known, pairs[held]))


def pooled(fit: Fit, found: Clusters, *, n: int, k: int) -> tuple[Array, Array]:
    """CR1: the covariance, shape (q, q), and G - 1 degrees of freedom each, shape (q,)."""
    factor = cr1_factor(n=n, k=k, n_clusters=found.n)
    added = np.sqrt(factor) * sums_by(found.codes, fit.scores) @ fit.bread
    shared = _shared(added, found)
    covariance = added.T @ added + np.diag(shared)
    return covariance, np.full(len(covariance), found.n - 1.0)


def bias_reduced(fit: Fit, found: Clusters) -> tuple[Array, Array]:
    """CR2: the covariance, shape (q, q), and degrees of freedom by coefficient, shape (q,).

    Raises:
        InferenceError: There are fewer than two clusters, or one is too large for its leverage; or
            every cluster determines a coefficient alone.
    """
    if found.n < 2:  # noqa: PLR2004
        raise InferenceError("clustered errors need two or more clusters", given=found.n)
    root = np.sqrt(fit.weights)[:, None]
    within = root * fit.regressors
    basis = fit.basis.with_columns(within @ np.linalg.cholesky(fit.bread))
    adjusted = _adjusted(basis, within @ fit.bread, found.codes)
    added = sums_by(found.codes, adjusted * root * fit.residuals[:, None])
    shared = _shared(added, found)
    dfs = [
        _degrees_of_freedom(basis, column, found, is_paired=extra > 0)
        for column, extra in zip(adjusted.T, shared, strict=True)
    ]
    return added.T @ added + np.diag(shared), np.array(dfs)


def _shared(added: Array, found: Clusters) -> Array:
    """What pairs of clusters add to the variances, shape (q,).

    Only variances, and only where they grow: a covariance from few pairs may be negative by chance,
    and what is added is to leave a covariance.
    """
    first, second = found.pairs.T
    across = np.einsum("pq,pq->q", added[first], added[second])
    return np.asarray(np.maximum(2.0 * across, 0.0), dtype=np.float64)


def _adjusted(basis: Basis, columns: Array, codes: Indices) -> Array:
    """`(I - H_gg)^(-1/2)` of each cluster times its part of the columns, shape (n, q)."""
    found = np.empty_like(columns)
    for at in _batches(codes):
        size = at.shape[1]
        n_codes = len(np.unique(basis.codes[at])) if len(at) == 1 else size
        if n_codes + basis.dense.shape[1] < size:
            found[at[0]] = _through_columns(basis.of(at[0]), columns[at[0]])
            continue
        if size > _LARGEST:
            raise InferenceError(
                "CR2 needs the leverage of each cluster, and one is too large for it",
                given=f"{size:,} periods in a cluster, with effects of each period",
                allowed="cluster_correction: cr1, or fixed_effects: [region, season]",
            )
        values, vectors = np.linalg.eigh(np.eye(size) - basis.leverage(at))
        powers = np.where(values > SINGULAR, np.maximum(values, SINGULAR) ** -0.5, 0.0)
        rotated = powers[:, :, None] * np.einsum("bij,biq->bjq", vectors, columns[at])
        found[at] = np.einsum("bij,bjq->biq", vectors, rotated)
    return found


def _batches(codes: Indices) -> Iterator[NDArray[np.intp]]:
    """Positions of clusters of one size, some at a time, each of shape (b, m)."""
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    starts = np.cumsum(sizes) - sizes
    for size in np.unique(sizes):
        own = starts[sizes == size]
        step = 1 if size > _LARGEST // 4 else max(1, int(_NUMBERS_AT_ONCE // size**2))
        for low in range(0, len(own), step):
            yield order[own[low : low + step, None] + np.arange(size)]


def _through_columns(columns: Array, values: Array) -> Array:
    """`(I - F F')^(-1/2)` times values for a cluster with more cells than F has columns."""
    shares, vectors = np.linalg.eigh(columns.T @ columns)
    left = 1.0 - shares
    powers = np.where(left > SINGULAR, np.maximum(left, SINGULAR) ** -0.5, 0.0)
    known = shares > SINGULAR
    scale = np.where(known, (powers - 1.0) / np.where(known, shares, 1.0), 0.5)
    return np.asarray(
        values + columns @ (vectors @ (scale[:, None] * (vectors.T @ (columns.T @ values)))),
        dtype=np.float64,
    )


def _degrees_of_freedom(basis: Basis, column: Array, found: Clusters, *, is_paired: bool) -> float:
    """`tr(BM)^2 / tr(BMBM)` with `M = D - F'F`, of which neither is made where it would be large.

    Args:
        basis: Orthonormal columns of all that the regression has.
        column: Adjusted weights of the cells, shape (n,).
        found: The clusters.
        is_paired: Whether pairs are added: then B has ones beside its diagonal.
    """
    from scipy import sparse

    diagonal = np.bincount(found.codes, column**2, found.n)
    taken = _taken(basis, column, found)
    form: Any = sparse.eye_array(found.n, format="csr")
    if is_paired:
        ones = sparse.csr_array(
            (np.ones(len(found.pairs)), (found.pairs[:, 0], found.pairs[:, 1])),
            shape=(found.n, found.n),
        )
        form = form + ones + ones.T
    own = (form * diagonal[None, :]).tocsr()
    applied = taken @ form
    trace = float(own.diagonal().sum() - (applied * taken).sum())
    square = float((own * own.T).sum() - 2.0 * ((applied * diagonal[None, :]) * applied).sum())
    product = (applied @ taken.T if taken.shape[0] < found.n else form @ (taken.T @ taken)).tocsr()
    square += float((product * product.T).sum())
    return trace**2 / square


def _taken(basis: Basis, column: Array, found: Clusters) -> Any:
    """`F' a` by cluster: sparse, shape (columns of the basis, G)."""
    from scipy import sparse

    n_codes = int(basis.codes.max()) + 1
    dummies = sparse.csr_array(
        (column * basis.sizes, (basis.codes, found.codes)), shape=(n_codes, found.n)
    )
    dense = sums_by(found.codes, column[:, None] * basis.dense).T
    return sparse.vstack([dummies, sparse.csr_array(dense)], format="csr")
