"""Tests of instruments and of exogeneity: Sargan, Hansen, Wu-Hausman, canonical correlations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.cross_products import redundant_columns
from causal.core.errors import InferenceError
from causal.core.frames import Score, Term
from causal.core.gram import Array
from causal.instruments.first_stage import Stage, canonical_shares, solved
from causal.regression.equation import Equation, Moments


@dataclass(frozen=True)
class Statistic:
    """A test statistic.

    Attributes:
        statistic: Its value.
        pvalue: Its p-value.
        df: Its degrees of freedom; two of them for an F.
    """

    statistic: float
    pvalue: float
    df: tuple[float, ...]


def sargan(fit: Equation, *, n_treatments: int) -> Statistic:
    """Sargan's (1958) test of over-identification, `n` times the R^2 of residuals on instruments.

    Args:
        fit: The instrumental-variable regression.
        n_treatments: Endogenous regressors.
    """
    from scipy import stats

    moments, every = fit.moments, (fit.outcome, *fit.regressors)
    weights = np.concatenate([[1.0], -fit.coefficients[fit.n_first :]])
    with_instruments = moments.block(fit.instruments, every) @ weights
    inner = moments.block(fit.instruments, fit.instruments)
    explained = float(with_instruments @ solved(inner, with_instruments))
    df = _n_excess(fit, n_treatments)
    statistic = fit.n * explained / fit.rss
    return Statistic(statistic, float(stats.chi2.sf(statistic, df)), (float(df),))


def instrument_scores(fit: Equation) -> tuple[tuple[Score, ...], Array]:
    """Scores of (1, instruments) times the residual, and the scale of each instrument's column.

    The instruments are divided by their spread, so that the summed outer products invert well.
    """
    moments = fit.moments
    spread = np.sqrt(np.diag(moments.block(fit.instruments, fit.instruments)) / fit.n)
    size = len(fit.instruments)
    lefts = [moments.combined(fit.instruments, np.eye(size)[j] / spread[j]) for j in range(size)]
    if moments.has_intercept:
        lefts.insert(0, moments.combined((), np.zeros(0), constant=1.0))
        spread = np.concatenate([[1.0], spread])
    return tuple(Score(left, fit.residual) for left in lefts), spread


def hansen(fit: Equation, middle: Array, spread: Array, *, n_treatments: int) -> Statistic:
    """Hansen's (1982) J at the two-step efficient estimate.

    Args:
        fit: The two-stage least squares of the first step.
        middle: Summed outer products of `instrument_scores`, without factors.
        spread: The scales that came with these.
        n_treatments: Endogenous regressors.

    Raises:
        InferenceError: The middle is singular: fewer clusters than instruments, say.
    """
    from scipy import stats

    moments, n_first = fit.moments, fit.n_first
    left = moments.block(fit.instruments, fit.regressors)
    right = moments.block(fit.instruments, [fit.outcome])[:, 0]
    if n_first:
        total = np.array([[moments.gram.sum_weights]])
        left = np.block([[total, np.zeros((1, left.shape[1]))], [np.zeros((len(left), 1)), left]])
        right = np.concatenate([[0.0], right])
    left, right = left / spread[:, None], right / spread
    size = np.sqrt(np.einsum("ij,ij->j", left, left))
    left = left / size
    weighted = np.column_stack([solved(middle, column) for column in left.T])
    slopes = solved(left.T @ weighted, weighted.T @ right)
    moment = right - left @ slopes
    statistic = float(moment @ solved(middle, moment))
    df = _n_excess(fit, n_treatments)
    return Statistic(statistic, float(stats.chi2.sf(statistic, df)), (float(df),))


@dataclass(frozen=True)
class Augmented:
    """The regression with first-stage residuals added, of Wu (1973) and Hausman (1978).

    Attributes:
        coefficients: Coefficients of the first-stage residuals, shape (m,).
        bread: Inverse of the cross-products of these residuals net of all regressors, (m, m).
        rss: Residual sum of squares.
        df_resid: Rows less all coefficients.
        scores: Scores whose summed outer products are the covariance of the coefficients.
    """

    coefficients: Array
    bread: Array
    rss: float
    df_resid: int
    scores: tuple[Score, ...]


def augmented(
    moments: Moments,
    *,
    outcome: Term,
    treatments: Sequence[Term],
    controls: Sequence[Term],
    instruments: Sequence[Term],
) -> Augmented:
    """Least squares of the outcome on treatments, covariates and first-stage residuals.

    Raises:
        InferenceError: The first stage fits exactly, so that there are no residuals.
    """
    every = (outcome, *treatments, *instruments, *controls)
    cross = moments.block(every, every)
    m, size = len(treatments), len(every)
    exogenous = list(range(1 + m, size))
    first = moments.regression(treatments, every[1 + m :])
    to_columns = np.zeros((1 + 2 * m + len(controls), size))
    to_columns[: 1 + m, : 1 + m] = np.eye(1 + m)
    to_columns[1 + m : 1 + m + len(controls), size - len(controls) :] = np.eye(len(controls))
    to_columns[-m:, 1 : 1 + m] = np.eye(m)
    to_columns[np.ix_(range(len(to_columns) - m, len(to_columns)), exogenous)] = -first.T
    inner = to_columns @ cross @ to_columns.T
    design = inner[1:, 1:]
    if redundant_columns(design):
        raise InferenceError("the first stage leaves no residual to test with")
    scale = 1.0 / np.sqrt(np.diag(design))
    bread = np.linalg.inv(design * np.outer(scale, scale)) * np.outer(scale, scale)
    slopes = bread @ inner[1:, 0]
    rss = float(inner[0, 0] - slopes @ inner[1:, 0])
    residual = moments.combined(every, np.concatenate([[1.0], -slopes]) @ to_columns)
    lefts = [moments.combined(every, row @ to_columns[1:]) for row in bread[-m:]]
    first_count = 1 if moments.has_intercept else 0
    df = moments.n - len(design) - first_count - moments.gram.n_units
    return Augmented(
        coefficients=slopes[-m:], bread=bread[-m:, -m:], rss=rss, df_resid=df,
        scores=tuple(Score(left, residual) for left in lefts),
    )  # fmt: skip


def underidentification(stage: Stage, *, n: int) -> Statistic:
    """Anderson's (1951) canonical correlation test that the equation is not identified."""
    from scipy import stats

    statistic = n * float(canonical_shares(stage)[0])
    df = stage.q - stage.m + 1
    return Statistic(statistic, float(stats.chi2.sf(statistic, df)), (float(df),))


def cragg_donald(stage: Stage, *, df_resid: float) -> float:
    """The Cragg-Donald (1993) F: the first-stage F in the direction in which it is weakest."""
    smallest = float(canonical_shares(stage)[0])
    return smallest / (1.0 - smallest) * df_resid / stage.q


def _n_excess(fit: Equation, n_treatments: int) -> int:
    """Instruments beyond those that identify."""
    return len(fit.instruments) - (len(fit.regressors) - n_treatments) - n_treatments
