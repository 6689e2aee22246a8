"""Linear equations from moments: least squares and the k-class with instruments.

With regressors R, instruments Z (regressors of their own among them), P the projection on Z and
M = I - P, the k-class estimator is `b = Q^-1 R'(I - kappa M) y` with `Q = R'(I - kappa M) R`. Least
squares is Z = R; two-stage least squares is kappa = 1; LIML takes the smallest root of the ratio of
residual cross-products (Anderson and Rubin 1949); Fuller (1977) subtracts `alpha / (n - l)`.

A coefficient moves with a row by `(Q^-1 R'P)_j z_i e_i`: these products are the scores of which the
engine sums the outer products, so that the meat *is* the covariance. Columns are centred first,
which keeps the digits of columns with large levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from causal.core.cross_products import inverse, redundant_columns
from causal.core.errors import DataError, InferenceError
from causal.core.frames import Constant, Linear, Score, Term, label
from causal.core.gram import Array, Gram

FLAT = 1e-12
"""Share of a column's variation below which what an absorbed effect leaves of it is rounding."""
EXACT = 1e-14
"""Share of the outcome's variation below which the residuals are rounding."""


@dataclass(frozen=True)
class Moments:
    """Cross-products of terms about their means (or within absorbed groups, or about zero).

    Attributes:
        gram: The answer of the engine.
        cross: Shape (p, p); columns that do not vary are exactly zero.
        has_intercept: Whether the equations have an intercept.
        n: Rows that count: those with a weight above zero.
    """

    gram: Gram
    cross: Array
    has_intercept: bool
    n: int

    @staticmethod
    def of(
        gram: Gram,
        *,
        intercept: bool,
        spread: Mapping[Term, float] | None = None,
        n_weightless: int = 0,
    ) -> "Moments":
        """The moments of an engine's answer.

        Args:
            gram: The answer.
            intercept: Whether the equations have an intercept; absorbed effects stand for one.
            spread: Sum of squares of columns about their mean over all rows, to tell variation
                within absorbed groups from rounding; columns that are not in it (dummies) are held
                against their size.
            n_weightless: Rows whose weight is zero: they count for nothing.
        """
        is_within = gram.n_units > 0
        cross = gram.cross if is_within or intercept else gram.moment()
        level = gram.sum_weights * gram.mean**2
        if is_within and spread is not None:
            level = np.array(
                [spread.get(t, size) for t, size in zip(gram.terms, level, strict=True)]
            )
        flat = np.diag(cross) <= FLAT * level if is_within else np.diag(cross) <= 0
        cross = np.where(flat[:, None] | flat[None, :], 0.0, cross)
        return Moments(gram, cross, intercept and not is_within, gram.n - n_weightless)

    def block(self, rows: Sequence[Term], columns: Sequence[Term]) -> Array:
        """Cross-products of some terms with others."""
        return self.cross[np.ix_(self.gram.positions(rows), self.gram.positions(columns))]

    def means(self, terms: Sequence[Term]) -> Array:
        """Weighted means."""
        return self.gram.mean[self.gram.positions(terms)]

    def centred(self, terms: Sequence[Term]) -> tuple[Term, ...]:
        """The terms less their means where there is an intercept, else as they are."""
        if not self.has_intercept:
            return tuple(terms)
        return tuple(
            Linear((term, Constant()), (1.0, -float(mean)))
            for term, mean in zip(terms, self.means(terms), strict=True)
        )

    def combined(self, terms: Sequence[Term], weights: Array, *, constant: float = 0.0) -> Linear:
        """A combination of centred terms, and a constant."""
        parts, coefficients = self.centred(terms), [float(value) for value in weights]
        if constant:
            parts, coefficients = (*parts, Constant()), [*coefficients, constant]
        return Linear(parts, tuple(coefficients))

    def regression(self, left: Sequence[Term], right: Sequence[Term]) -> Array:
        """Coefficients of regressions of `left` on `right`, shape (right, left)."""
        return inverse(self.block(right, right), right) @ self.block(right, left)

    def net(self, terms: Sequence[Term], controls: Sequence[Term]) -> Array:
        """Cross-products of residuals of the terms on the controls."""
        across = self.block(controls, terms)
        return self.block(terms, terms) - across.T @ self.regression(terms, controls)


@dataclass(frozen=True, kw_only=True)
class Equation:
    """A fitted equation.

    Attributes:
        outcome: The outcome.
        regressors: The slopes' columns.
        instruments: What the scores are made of: the regressors themselves, or the instruments.
        coefficients: Shape (k,); the intercept, if any, comes first.
        bread: `Q^-1`, shape (k, k).
        influence: How each coefficient moves with (1, centred instruments) times the residual,
            shape (k, l); without an intercept there is no leading 1.
        residual: The residual.
        rss: Weighted sum of squared residuals.
        tss: Weighted sum of squares of the outcome about its mean (or within groups, about zero).
        n: Rows.
        n_absorbed: Absorbed effects.
        moments: What it was fitted from.
        kappa: The k of the k-class; 1 for two-stage and ordinary least squares.
    """

    outcome: Term
    regressors: tuple[Term, ...]
    instruments: tuple[Term, ...]
    coefficients: Array
    bread: Array
    influence: Array
    residual: Term
    rss: float
    tss: float
    n: int
    n_absorbed: int
    moments: Moments
    kappa: float = 1.0

    @property
    def k(self) -> int:
        """Coefficients, absorbed effects not counted."""
        return len(self.coefficients)

    @property
    def df_resid(self) -> int:
        """Rows less all coefficients, absorbed effects counted."""
        return self.n - self.k - self.n_absorbed

    @property
    def n_first(self) -> int:
        """1 if there is an intercept before the slopes, else 0."""
        return 1 if self.moments.has_intercept else 0

    def lefts(self, positions: Sequence[int]) -> tuple[Linear, ...]:
        """What multiplies the residual in the influence on some coefficients."""
        return tuple(
            self.moments.combined(
                self.instruments,
                self.influence[j, self.n_first :],
                constant=float(self.influence[j, 0]) if self.n_first else 0.0,
            )
            for j in positions
        )

    def scores(self, positions: Sequence[int]) -> tuple[Score, ...]:
        """Scores whose summed outer products are the covariance of some coefficients."""
        return tuple(Score(left, self.residual) for left in self.lefts(positions))

    def classical(self, *, divisor: float) -> Array:
        """Covariance under independent errors of equal variance, shape (k, k)."""
        return self.bread * (self.rss / divisor)


def least_squares(moments: Moments, *, outcome: Term, regressors: Sequence[Term]) -> Equation:
    """Ordinary or weighted least squares.

    Raises:
        InferenceError: Collinear regressors, too few rows, or an exact fit.
        DataError: The outcome does not vary.
    """
    return k_class(moments, outcome=outcome, regressors=regressors, instruments=regressors)


def k_class(
    moments: Moments,
    *,
    outcome: Term,
    regressors: Sequence[Term],
    instruments: Sequence[Term],
    kappa: float = 1.0,
) -> Equation:
    """An estimator of the k-class; with instruments = regressors, least squares.

    Args:
        moments: Hold all terms.
        outcome: The outcome.
        regressors: The k slopes' columns.
        instruments: All l instruments, regressors that are their own instruments among them.
        kappa: 1 is two-stage least squares, 0 least squares.

    Raises:
        InferenceError: Collinear columns, an unidentified model, too few rows, or an exact fit.
        DataError: The outcome does not vary.
    """
    is_own = tuple(regressors) == tuple(instruments)
    first = np.eye(len(regressors)) if is_own else moments.regression(regressors, instruments)
    projected = moments.block(regressors, instruments) @ first
    own, y = moments.block(regressors, [outcome])[:, 0], moments.block([outcome], [outcome])[0, 0]
    _check_outcome(moments, outcome, float(y))
    q = (1.0 - kappa) * moments.block(regressors, regressors) + kappa * projected
    q = (q + q.T) / 2
    inner = inverse(q, regressors) if kappa <= 1.0 else _inverse_indefinite(q)
    slopes = inner @ (
        (1.0 - kappa) * own + kappa * first.T @ moments.block(instruments, [outcome])[:, 0]
    )
    rss = float(y - 2 * slopes @ own + slopes @ moments.block(regressors, regressors) @ slopes)
    coefficients, bread, influence = slopes, inner, inner @ first.T
    if moments.has_intercept:
        means = moments.means(regressors)
        total = moments.gram.sum_weights
        shift = inner @ means
        coefficients = np.concatenate([moments.means([outcome]) - slopes @ means, slopes])
        corner = np.array([[1.0 / total + means @ shift]])
        bread = np.block([[corner, -shift[None, :]], [-shift[:, None], inner]])
        first_row = np.concatenate([[1.0 / total], -means @ influence])
        influence = np.vstack([first_row, np.column_stack([np.zeros(len(slopes)), influence])])
    residual = moments.combined((outcome, *regressors), np.array([1.0, *(-slopes)]))
    fit = Equation(
        outcome=outcome, regressors=tuple(regressors), instruments=tuple(instruments),
        coefficients=coefficients, bread=bread, influence=influence, residual=residual,
        rss=max(rss, 0.0), tss=float(y), n=moments.n, n_absorbed=moments.gram.n_units,
        moments=moments, kappa=kappa,
    )  # fmt: skip
    return _checked(fit)


def liml_kappa(
    moments: Moments,
    *,
    outcome: Term,
    endogenous: Sequence[Term],
    exogenous: Sequence[Term],
    instruments: Sequence[Term],
) -> float:
    """The smallest root of the variance ratio of Anderson and Rubin (1949).

    Args:
        moments: Hold all terms.
        outcome: The outcome.
        endogenous: Regressors that need instruments.
        exogenous: Regressors that are their own instruments.
        instruments: Excluded instruments.
    """
    inner = [outcome, *endogenous]
    _check_outcome(moments, outcome, float(moments.block([outcome], [outcome])[0, 0]))
    without = moments.net(inner, exogenous)
    within = moments.net(inner, [*instruments, *exogenous])
    scale = 1.0 / np.sqrt(np.diag(within))
    if not np.isfinite(scale).all() or redundant_columns(within):
        raise InferenceError("the instruments explain the treatment or the outcome exactly")
    roots = linalg.eigh(
        without * np.outer(scale, scale), within * np.outer(scale, scale), eigvals_only=True
    )
    return float(roots[0])


def redundant_names(
    moments: Moments, terms: Sequence[Term], names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns without a value other than zero, and columns that those before them explain."""
    at = moments.gram.positions(terms)
    size = np.diag(moments.gram.moment())[at]
    empty = tuple(name for name, value in zip(names, size, strict=True) if value == 0.0)
    kept = [j for j, name in enumerate(names) if name not in empty]
    cross = moments.block([terms[j] for j in kept], [terms[j] for j in kept])
    return empty, tuple(names[kept[j]] for j in redundant_columns(cross))


def _check_outcome(moments: Moments, outcome: Term, total: float) -> None:
    level = moments.gram.sum_weights * float(moments.means([outcome])[0]) ** 2
    noise = 64 * np.finfo(np.float64).eps ** 2 * moments.gram.n * level
    if total <= noise:
        within = " within the absorbed groups" if moments.gram.n_units else ""
        raise DataError(f"{label(outcome)} does not vary{within}: there is nothing to explain")


def _checked(fit: Equation) -> Equation:
    if fit.df_resid <= 0:
        raise InferenceError(
            "too few rows for this model",
            given=f"{fit.n} rows, {fit.n - fit.df_resid} coefficients",
        )
    if fit.rss <= EXACT * fit.tss:
        raise InferenceError(
            f"the regressors explain {label(fit.outcome)} exactly: no errors to learn from"
        )
    return fit


def _inverse_indefinite(matrix: Array) -> Array:
    """Inverse of a symmetric matrix that need not be positive definite, on a common scale."""
    scale = 1.0 / np.sqrt(np.maximum(np.abs(np.diag(matrix)), np.finfo(np.float64).tiny))
    scaled = matrix * np.outer(scale, scale)
    if np.linalg.cond(scaled) > 1.0 / np.finfo(np.float64).eps:
        raise InferenceError("the k-class equations are singular: the model is not identified")
    return np.asarray(np.linalg.inv(scaled) * np.outer(scale, scale), dtype=np.float64)
