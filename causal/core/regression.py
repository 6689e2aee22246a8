"""Least squares and two-stage least squares from moments, with sandwich covariances.

Coefficients come from a `Gram`; robust and clustered covariances need one more answer, the meat
`sum_g s_g s_g'` of the scores that a fit hands out. Nothing here sees a row.

Sources: White (1980); MacKinnon and White (1985) for HC1; Liang and Zeger (1986) and Stata's CR1
factor `G/(G-1) * (n-1)/(n-k)`; Wooldridge (2010), chapter 5, for two-stage least squares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import linalg

from causal.core.errors import InferenceError
from causal.core.frames import Constant, Linear, Score, Term, label
from causal.core.gram import Array, Gram

Covariance = Literal["classical", "HC0", "HC1", "cluster"]

COLLINEAR = 1e-10
"""Share of a column's variance that must remain after the columns before it are projected out."""


@dataclass(frozen=True)
class LinearFit:
    """A fitted linear model.

    Attributes:
        outcome: The outcome.
        regressors: The k regressors; the intercept, if any, is `Constant()` and comes first.
        projected: What multiplies the residual in the scores: the regressors themselves, or their
            projections on the instruments.
        coefficients: Shape (k,).
        bread: Inverse of the weighted cross-product of `projected`, shape (k, k).
        rss: Weighted residual sum of squares.
        n: Rows.
        df_model: Estimated coefficients including absorbed unit effects.
    """

    outcome: Term
    regressors: tuple[Term, ...]
    projected: tuple[Term, ...]
    coefficients: Array
    bread: Array
    rss: float
    n: int
    df_model: int

    @property
    def k(self) -> int:
        """Number of coefficients, absorbed effects not counted."""
        return len(self.regressors)

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom."""
        return self.n - self.df_model

    @property
    def residual(self) -> Linear:
        """The residual as a combination of the outcome and the regressors."""
        return Linear(
            (self.outcome, *self.regressors), (1.0, *(-float(b) for b in self.coefficients))
        )

    def scores(self) -> tuple[Score, ...]:
        """The k scores whose clustered or row-wise cross-products are the meat."""
        return tuple(Score(left, self.residual) for left in self.projected)

    def position(self, term: Term) -> int:
        """Index of a regressor in `coefficients`."""
        return self.regressors.index(term)


def ols(
    gram: Gram, *, outcome: Term, regressors: Sequence[Term], intercept: bool = True
) -> LinearFit:
    """Ordinary or weighted least squares.

    Args:
        gram: Holds the outcome and the regressors; weighted if the fit is to be; within units if
            unit effects are absorbed (then there is no intercept).
        outcome: The outcome.
        regressors: The regressors without the intercept.
        intercept: Whether the model has one; ignored for a within-unit Gram.

    Raises:
        InferenceError: The regressors are collinear or there are too few rows.
    """
    design = _Design.of(gram, intercept=intercept)
    x, y = gram.positions(regressors), gram.index(outcome)
    inner = inverse(design.cross[np.ix_(x, x)], regressors)
    slopes = inner @ design.cross[x, y]
    contrast = np.zeros(len(gram.terms))
    contrast[y] = 1.0
    contrast[x] -= slopes
    return design.fit(
        outcome=outcome, regressors=tuple(regressors), projected=tuple(regressors),
        slopes=slopes, inner=inner, contrast=contrast,
    )  # fmt: skip


def two_stage(
    gram: Gram,
    *,
    outcome: Term,
    endogenous: Sequence[Term],
    exogenous: Sequence[Term],
    instruments: Sequence[Term],
    intercept: bool = True,
) -> LinearFit:
    """Two-stage least squares.

    Args:
        gram: Holds all the terms.
        outcome: The outcome.
        endogenous: Regressors that need instruments; their coefficients come first after the
            intercept.
        exogenous: Regressors that are their own instruments.
        instruments: Excluded instruments, at least as many as `endogenous`.
        intercept: Whether the model has one; ignored for a within-unit Gram.

    Raises:
        InferenceError: Fewer instruments than endogenous regressors, or collinear columns.
    """
    if len(instruments) < len(endogenous):
        raise InferenceError(
            "the model is not identified: fewer instruments than endogenous regressors",
            given=f"{len(instruments)} instruments for {len(endogenous)}",
        )
    design = _Design.of(gram, intercept=intercept)
    regressors = (*endogenous, *exogenous)
    exogenous_all = (*instruments, *exogenous)
    x, z, y = gram.positions(regressors), gram.positions(exogenous_all), gram.index(outcome)
    first = inverse(design.cross[np.ix_(z, z)], exogenous_all) @ design.cross[np.ix_(z, x)]
    inner = inverse(design.cross[np.ix_(x, z)] @ first, regressors)
    slopes = inner @ (first.T @ design.cross[z, y])
    contrast = np.zeros(len(gram.terms))
    contrast[y] = 1.0
    contrast[x] -= slopes
    constants = gram.mean[x] - gram.mean[z] @ first if design.has_intercept else np.zeros(len(x))
    projected = tuple(
        Linear((Constant(), *exogenous_all), (float(constant), *map(float, first[:, j])))
        for j, constant in enumerate(constants)
    )
    return design.fit(
        outcome=outcome, regressors=regressors, projected=projected,
        slopes=slopes, inner=inner, contrast=contrast,
    )  # fmt: skip


@dataclass(frozen=True)
class _Design:
    """The cross-products that identify the slopes, and how an intercept is put back."""

    gram: Gram
    cross: Array
    has_intercept: bool

    @staticmethod
    def of(gram: Gram, *, intercept: bool) -> "_Design":
        if gram.n_units > 0:
            return _Design(gram, gram.cross, has_intercept=False)
        if intercept:
            return _Design(gram, gram.cross, has_intercept=True)
        return _Design(gram, gram.moment(), has_intercept=False)

    def fit(
        self,
        *,
        outcome: Term,
        regressors: tuple[Term, ...],
        projected: tuple[Term, ...],
        slopes: Array,
        inner: Array,
        contrast: Array,
    ) -> LinearFit:
        rss = float(contrast @ self.cross @ contrast)
        if self.has_intercept:
            means = self.gram.mean[self.gram.positions(regressors)]
            constant = float(self.gram.mean @ contrast)
            slopes = np.concatenate([[constant], slopes])
            inner = _with_intercept(inner, means, self.gram.sum_weights)
            regressors, projected = (Constant(), *regressors), (Constant(), *projected)
        df_model = len(regressors) + self.gram.n_units
        if self.gram.n <= df_model:
            raise InferenceError(
                "too few rows for this model", given=f"{self.gram.n} rows, {df_model} coefficients"
            )
        return LinearFit(
            outcome, regressors, projected, slopes, inner, max(rss, 0.0), self.gram.n, df_model
        )


def _with_intercept(inner: Array, means: Array, sum_weights: float) -> Array:
    """Inverse of the full cross-product matrix from the inverse of the centred one."""
    shift = inner @ means
    corner = 1.0 / sum_weights + means @ shift
    return np.block([[np.array([[corner]]), -shift[None, :]], [-shift[:, None], inner]])


def inverse(matrix: Array, terms: Sequence[Term]) -> Array:
    """Inverse of a positive definite cross-product matrix.

    Args:
        matrix: Shape (k, k).
        terms: What the rows stand for, for the message.

    Raises:
        InferenceError: A column is constant or a combination of the ones before it.
    """
    redundant = redundant_columns(matrix)
    if redundant:
        raise InferenceError(
            "these columns are constant or collinear with the others",
            given=[label(terms[j]) for j in redundant],
        )
    if len(matrix) == 0:
        return np.zeros((0, 0))
    scale = 1.0 / np.sqrt(np.diag(matrix))
    factor = linalg.cho_factor(matrix * np.outer(scale, scale), lower=True)
    inner = linalg.cho_solve(factor, np.eye(len(matrix)))
    return np.asarray((inner + inner.T) / 2 * np.outer(scale, scale), dtype=np.float64)


def redundant_columns(matrix: Array, *, tolerance: float = COLLINEAR) -> list[int]:
    """Columns of a cross-product matrix that the columns before them explain, in order."""
    diagonal = np.diag(matrix)
    positive = diagonal > 0
    scale = np.where(positive, 1.0 / np.sqrt(np.where(positive, diagonal, 1.0)), 0.0)
    work = matrix * np.outer(scale, scale)
    found = []
    for j in range(len(work)):
        pivot = work[j, j]
        if pivot <= tolerance:
            found.append(j)
            continue
        work = work - np.outer(work[:, j], work[j, :]) / pivot
    return found


def classical(fit: LinearFit, *, divisor: Literal["n-k", "n"] = "n-k") -> Array:
    """Covariance under homoskedastic errors, shape (k, k).

    Args:
        fit: The fit.
        divisor: Degrees of freedom of the error variance; "n" is the large-sample definition.
    """
    return fit.bread * (fit.rss / (fit.df_resid if divisor == "n-k" else fit.n))


def sandwich(fit: LinearFit, meat: Array, *, factor: float = 1.0) -> Array:
    """Covariance `factor * bread meat bread`, shape (k, k)."""
    return np.asarray(factor * fit.bread @ meat @ fit.bread, dtype=np.float64)


def hc1_factor(*, n: int, k: int) -> float:
    """Small-sample factor of HC1: `n / (n - k)`."""
    return n / (n - k)


def cr1_factor(*, n: int, k: int, n_clusters: int) -> float:
    """Small-sample factor of CR1: `G/(G-1) * (n-1)/(n-k)`.

    Raises:
        InferenceError: There are fewer than two clusters.
    """
    if n_clusters < 2:  # noqa: PLR2004
        raise InferenceError("clustered errors need two or more clusters", given=n_clusters)
    return n_clusters / (n_clusters - 1) * (n - 1) / (n - k)
