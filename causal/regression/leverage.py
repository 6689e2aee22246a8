"""HC2, HC3, CR2 and CR3: errors that allow for the leverage of rows and clusters, from aggregates.

Rows. HC2 and HC3 (MacKinnon and White 1985) divide a residual by `(1 - h)^(1/2)` or `1 - h`, `h`
being the leverage of its row, a quadratic form of the regressors. No aggregate divides row by row,
but `(1 - h)^-a` is a power series, so that a polynomial in `h` does; its degree follows from a
bound on the largest leverage, `max h <= (sum h^8)^(1/8)`, which is an aggregate as well. What is
left out is below `PRECISION`; leverages too close to 1 for that are refused.

Clusters. With `A` the cross-products of a cluster's regressors, `s` its score and `M` the inverse
of the cross-products of all rows, `X'(I - X M X')^-1 e = (I - A M)^-1 s`: the k x k moments by
cluster suffice for CR3, which is the jackknife over clusters, and for CR2 (Bell and McCaffrey 2002)
with the inverse square root.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb, log

import numpy as np
from numpy.typing import NDArray

from causal.core.errors import InferenceError
from causal.core.frames import Constant, GramRequest, Linear, Product, Score, Term
from causal.core.gram import Array, Gram
from causal.regression.equation import Equation
from causal.regression.sandwich import Rows

PRECISION = 1e-13
"""Relative error of the series for `(1 - h)^-a`."""
MAX_DEGREE = 255
SINGULAR = 1e-9
"""Share of a direction's information that must remain when a cluster is left out."""
_POWER = 8


def leverage(fit: Equation, weight: Term | None) -> Term:
    """The leverage of a row, `w x' (X'WX)^-1 x`, as a term."""
    design, n_first = fit.moments, fit.n_first
    root = np.linalg.cholesky(fit.bread[n_first:, n_first:])
    squares = [
        Product((part, part))
        for part in (design.combined(fit.regressors, column) for column in root.T)
    ]
    constant = 1.0 / design.gram.sum_weights if n_first else 0.0
    total = Linear((Constant(), *squares), (constant, *(1.0 for _ in squares)))
    return total if weight is None else Product((weight, total))


def bound_request(h: Term, rows: Rows) -> GramRequest:
    """Asks for the sum of the eighth powers of the leverages of the rows of a fit."""
    return GramRequest(terms=(_power(h, _POWER // 2), *rows.marker), where=rows.where)


def largest_leverage(gram: Gram) -> float:
    """Upper bound on the largest leverage."""
    return float(gram.moment()[0, 0] ** (1.0 / _POWER))


def corrected_scores(
    fit: Equation, positions: Sequence[int], *, h: Term, bound: float, kind: str
) -> tuple[Score, ...]:
    """Scores of HC2 or HC3.

    Args:
        fit: The regression.
        positions: The coefficients.
        h: The leverage.
        bound: Upper bound on it.
        kind: `HC2` or `HC3`.

    Raises:
        InferenceError: Some row determines its own fitted value, or nearly so.
    """
    factor = series(h, exponent=1.0 if kind == "HC3" else 0.5, bound=bound, kind=kind)
    return tuple(Score(Product((left, factor)), fit.residual) for left in fit.lefts(positions))


def series(h: Term, *, exponent: float, bound: float, kind: str) -> Term:
    """`(1 - h)^-exponent` as a polynomial that is right to `PRECISION` for `0 <= h <= bound`."""
    size = degree(bound)
    if size is None:
        raise InferenceError(
            f"some rows have so much leverage that {kind} cannot be had from aggregates",
            given=f"largest leverage up to {min(bound, 1.0):.3g}",
            allowed="HC1, or clusters",
        )
    if exponent == 1.0:
        return _polynomial(h, [1.0] * (size + 1))
    return _polynomial(h, [comb(2 * j, j) / 4.0**j for j in range(size + 1)])


def degree(bound: float) -> int | None:
    """Degree that the series needs; `None` if it would be too high."""
    if not 0.0 < bound < 1.0:
        return None
    needed = log(PRECISION * (1.0 - bound)) / log(bound)
    whole = max(1, int(np.ceil(needed)))
    return whole if whole <= MAX_DEGREE else None


def _polynomial(h: Term, coefficients: Sequence[float]) -> Term:
    """Split in halves, so that the nesting grows with the logarithm of the degree."""
    if len(coefficients) == 1:
        return Constant(coefficients[0])
    half = 1
    while 2 * half < len(coefficients):
        half *= 2
    low = _polynomial(h, coefficients[:half])
    high = _polynomial(h, coefficients[half:])
    return Linear((low, Product((_power(h, half), high))), (1.0, 1.0))


def _power(h: Term, exponent: int) -> Term:
    """`h` to a power of two, by repeated squaring."""
    while exponent > 1:
        h, exponent = Product((h, h)), exponent // 2
    return h


@dataclass(frozen=True)
class ClusterMoments:
    """Cross-products of the design and scores of each cluster, in centred columns.

    Attributes:
        designs: Shape (G, k, k).
        scores: Shape (G, k).
        bread: Inverse of the summed designs, shape (k, k).
        to_coefficients: From centred coordinates to the coefficients, shape (k, k).
    """

    designs: Array
    scores: Array
    bread: Array
    to_coefficients: Array

    @cached_property
    def rotated(self) -> tuple[Array, Array, Array]:
        """Where the summed designs are one: `I` less each cluster's share of them.

        The coordinates, shape (k, k); eigenvalues, shape (G, k), and eigenvectors.
        """
        root = np.linalg.cholesky(self.bread)
        shares = np.einsum("ji,gjk,kl->gil", root, self.designs, root)
        rest = np.eye(len(root)) - (shares + shares.transpose(0, 2, 1)) / 2
        values, vectors = np.linalg.eigh(rest)
        return np.asarray(root, dtype=np.float64), values, vectors


def cluster_moments(fit: Equation, clusters: Sequence[Gram]) -> ClusterMoments:
    """Moments by cluster in the coordinates of a fit.

    Args:
        fit: The regression on all clusters.
        clusters: Grams with the terms of the fit's own, one per cluster.
    """
    gram, n_first = fit.moments.gram, fit.n_first
    x = gram.positions(fit.regressors)
    contrast = np.zeros(len(gram.terms))
    contrast[gram.index(fit.outcome)] = 1.0
    contrast[x] -= fit.coefficients[n_first:]
    designs, scores = [], []
    for part in clusters:
        if gram.n_units:
            cross = part.cross
        else:
            off = part.mean - gram.mean if n_first else part.mean
            cross = part.cross + part.sum_weights * np.outer(off, off)
        design, score = cross[np.ix_(x, x)], cross[x] @ contrast
        if n_first:
            mean = part.sum_weights * (part.mean - gram.mean)
            edge = mean[x][None, :]
            design = np.block([[np.array([[part.sum_weights]]), edge], [edge.T, design]])
            score = np.concatenate([[mean @ contrast], score])
        designs.append(design)
        scores.append(score)
    k = fit.k
    inner = fit.bread[n_first:, n_first:]
    bread, to_coefficients = inner, np.eye(k)
    if n_first:
        bread = np.zeros((k, k))
        bread[0, 0], bread[1:, 1:] = 1.0 / gram.sum_weights, inner
        to_coefficients[0, 1:] = -fit.moments.means(fit.regressors)
    return ClusterMoments(np.array(designs), np.array(scores), bread, to_coefficients)


def leave_out_covariance(
    moments: ClusterMoments, *, kind: str, wanted: Sequence[int] | None = None
) -> Array:
    """The covariance CR2 or CR3 without small-sample factor, shape (k, k).

    CR2 takes the Moore-Penrose inverse square root, so that directions that a cluster determines
    alone count for nothing (Pustejovsky and Tipton 2018).

    Args:
        moments: Moments by cluster.
        kind: `CR2` or `CR3`.
        wanted: The coefficients that will be used; all of them if left out. The others, period
            effects that only one cluster has, may be lost with a cluster.

    Raises:
        InferenceError: For CR3, leaving a cluster out leaves a wanted coefficient unidentified.
    """
    root, values, vectors = moments.rotated
    lost = values <= SINGULAR
    to_coefficients = moments.to_coefficients @ root
    if kind == "CR3" and lost.any():
        n_lost = _n_unidentified(to_coefficients, vectors, lost, wanted=wanted)
        if n_lost:
            raise InferenceError(
                "CR3 leaves each cluster out in turn, and without some of them a coefficient is "
                "not identified",
                given=f"{n_lost} such clusters",
                allowed="errors that leave none out, such as CR1 (covariance: cluster)",
            )
    power = -1.0 if kind == "CR3" else -0.5
    weights = np.where(lost, 0.0, np.where(lost, 1.0, values) ** power)
    rotated = np.einsum("gij,gi->gj", vectors, np.einsum("ji,gj->gi", root, moments.scores))
    adjusted = np.einsum("gij,gj->gi", vectors, weights * rotated)
    influence = adjusted @ to_coefficients.T
    return np.asarray(influence.T @ influence, dtype=np.float64)


def bell_mccaffrey_dfs(moments: ClusterMoments) -> Array:
    """Degrees of freedom of each coefficient's CR2 variance, shape (k,).

    The variance is a quadratic form of the errors, `sum_g (q_g' u)^2` with `q_g` the residual maker
    times `(I - H_gg)^-1/2 X_g M c`. Where errors are independent and of one variance (of the
    weighted equation), Satterthwaite's degrees of freedom are `tr(G)^2 / tr(G^2)` with `G` the
    cross-products of the `q_g` (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018). With one row
    per cluster they are those that Imbens and Kolesar (2016) recommend for HC2.

    Args:
        moments: Moments by cluster.

    Returns:
        NaN for a coefficient that is not identified without one of the clusters: that cluster's
        share of its variance is unknown.
    """
    root, values, vectors = moments.rotated
    lost = values <= SINGULAR
    power = np.where(lost, 0.0, np.where(lost, 1.0, values) ** -0.5)
    contrasts = moments.to_coefficients @ root
    rotated = np.einsum("cj,gjl->gcl", contrasts, vectors) * power[:, None, :]
    own = np.einsum("gcl,gl->gc", rotated**2, 1.0 - values)
    shared = np.einsum("gcl,gil->gci", rotated * (1.0 - values)[:, None, :], vectors)
    total = own.sum(axis=0) - (shared**2).sum(axis=(0, 2))
    inner = np.einsum("gci,gcj->cij", shared, shared)
    squares = (
        (own**2).sum(axis=0)
        - 2.0 * np.einsum("gc,gci->c", own, shared**2)
        + (inner**2).sum(axis=(1, 2))
    )
    alone = _is_moved(contrasts, vectors, lost).any(axis=0)
    return np.where(alone, np.nan, total**2 / squares)


def cluster_covariance(moments: ClusterMoments) -> Array:
    """The covariance CR0, shape (k, k)."""
    influence = moments.scores @ moments.bread @ moments.to_coefficients.T
    return np.asarray(influence.T @ influence, dtype=np.float64)


def _n_unidentified(
    to_coefficients: Array, vectors: Array, lost: NDArray[np.bool_], *, wanted: Sequence[int] | None
) -> int:
    """Clusters without which a wanted coefficient moves along a lost direction."""
    at = list(range(len(to_coefficients))) if wanted is None else list(wanted)
    return int(_is_moved(to_coefficients[at], vectors, lost).any(axis=1).sum())


def _is_moved(to_coefficients: Array, vectors: Array, lost: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a coefficient moves along a direction that a cluster alone holds, shape (G, p)."""
    size = np.sqrt(np.sum(to_coefficients**2, axis=1))
    moves = np.abs(np.einsum("ij,gjl->gil", to_coefficients / size[:, None], vectors))
    return np.asarray(((moves > np.sqrt(SINGULAR)) & lost[:, None, :]).any(axis=2))
