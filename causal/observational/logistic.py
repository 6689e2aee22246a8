"""Logistic regression from aggregates: one pass of weighted cross-products per iteration.

Iteratively reweighted least squares is Newton's method: an iteration needs the cross-products of
the columns and of the working residual, weighted by p (1 - p), and nothing else of the rows. The
first iteration needs no pass of its own, because all weights are equal there. The maximum of the
likelihood is that of any other exact program (McCullagh and Nelder 1989, chapter 4).
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
from scipy import linalg

from causal.core.cross_products import redundant_columns
from causal.core.errors import InferenceError
from causal.core.frames import (
    Clipped,
    Constant,
    Exponential,
    FrameRequest,
    GramRequest,
    Linear,
    Logistic,
    Product,
    Term,
)
from causal.core.gram import Array, Gram, gram
from causal.observational.study import CONTROL, TREATED, Arms, Basis, Study

MAX_ITERATIONS = 50
_STEP = 1e-10
"""The last step in standard deviations of the columns; the error left is about its square."""
_FORETOLD = 1e-11
"""The next step is left out if the last two foretell that it is shorter than this."""
_QUADRATIC = 0.1
"""Below this each of Newton's steps is a constant times the square of the one before it."""
_ROUNDING = 1e-7
"""A step that no longer shrinks is rounding if it is below this."""
_FAR = 300.0
"""Linear predictors are cut off here: beyond it a probability is 0 or 1 to 130 digits."""
_ESCAPING = 16
"""So many steps of one length in one direction mean that the maximum is at infinity.

Each adds about one to the largest log odds, so columns that tell the arms apart with a few
exceptions take some as well: eight were seen where 1 row in 200 is an exception."""
_HALVINGS = 20
_BINARY = 1e-9


class Propensity(Protocol):
    """The probability p of treatment as terms."""

    @property
    def log_odds(self) -> Term:
        """log(p / (1 - p))."""

    @property
    def probability(self) -> Term:
        """P."""

    @property
    def complement(self) -> Term:
        """1 - p."""

    @property
    def odds(self) -> Term:
        """P / (1 - p)."""

    @property
    def inverse_odds(self) -> Term:
        """(1 - p) / p."""


@dataclass(frozen=True, kw_only=True)
class LogisticFit:
    """A fitted logistic regression of being treated.

    Attributes:
        names: Names of the k columns.
        regressors: The k columns.
        coefficients: Intercept first, shape (k + 1,).
        basis: The basis in which it was fitted.
        standard_covariance: Inverse of the information matrix of the coefficients of the basis,
            shape (k + 1, k + 1), at the coefficients before the last step.
        score_norm: Newton decrement at the last iteration but one, in log-likelihood.
        n_iterations: Iterations.
    """

    names: tuple[str, ...]
    regressors: tuple[Term, ...]
    coefficients: Array
    basis: Basis
    standard_covariance: Array
    score_norm: float
    n_iterations: int

    @property
    def covariance(self) -> Array:
        """Covariance of the coefficients, shape (k + 1, k + 1)."""
        matrix = self.basis.matrix
        return np.asarray(matrix @ self.standard_covariance @ matrix.T, dtype=np.float64)

    @property
    def log_odds(self) -> Term:
        """The linear predictor."""
        return _predictor(self.regressors, self.coefficients, sign=1.0)

    @property
    def probability(self) -> Term:
        """The propensity p."""
        return Logistic(self.log_odds)

    @property
    def complement(self) -> Term:
        """1 - p, with all its digits where p is near 1."""
        return Logistic(_predictor(self.regressors, self.coefficients, sign=-1.0))

    @property
    def odds(self) -> Term:
        """The odds p / (1 - p)."""
        return Exponential(self.log_odds)

    @property
    def inverse_odds(self) -> Term:
        """The odds of the control arm, (1 - p) / p."""
        return Exponential(_predictor(self.regressors, self.coefficients, sign=-1.0))


def fit_logistic(
    study: Study,
    *,
    keep: Term | None = None,
    arms: Arms | None = None,
    is_point_estimate: bool = False,
) -> Generator[FrameRequest, pd.DataFrame, LogisticFit]:
    """Maximum likelihood of being treated given the columns of the study.

    Args:
        study: The rows, with their first moments.
        keep: Weight of a row (0 leaves it out).
        arms: Moments by arm with that weight; the unweighted ones of the study if left out.
        is_point_estimate: Whether the coefficients alone are wanted: they are exact one pass before
            the information matrix is.

    Raises:
        InferenceError: A column separates the arms, so that no maximum exists.
    """
    arms = study.arms if arms is None else arms
    check_separation(study, arms)
    matrix = study.basis.matrix
    step = _first_step(study, arms)
    reference = step.information
    found = step.start
    merit = step.merit(reference)
    history: list[Array] = []
    for n_iterations in range(1, MAX_ITERATIONS + 1):
        change = step.newton()
        history.append(change)
        if is_escaping(history):
            break
        if is_done(history) or (is_point_estimate and is_foretold(history)):
            decrement = float(change @ step.information @ change)
            return LogisticFit(
                names=study.names,
                regressors=study.covariates,
                coefficients=matrix @ (found + change),
                basis=study.basis,
                standard_covariance=linalg.inv(step.information),
                score_norm=decrement,
                n_iterations=n_iterations,
            )
        for _ in range(_HALVINGS):
            request = _request(study, matrix @ (found + change), keep=keep)
            next_step = _step(study, gram((yield request), request), found + change)
            if next_step.merit(reference) < merit and next_step.is_regular:
                break
            change = change / 2
        else:
            break
        found, step, merit = found + change, next_step, next_step.merit(reference)
    raise _separated(study, history[-1])


def check_separation(study: Study, arms: Arms) -> None:
    """A 0/1 column that never varies within an arm predicts the other arm without error.

    Raises:
        InferenceError: There is one; it is named.
    """
    total = arms[CONTROL].merge(arms[TREATED])
    for at, name in enumerate(study.names):
        if not is_binary(total, at):
            continue
        for arm, label_ in ((arms[TREATED], "treated"), (arms[CONTROL], "control")):
            mean = float(arm.mean[at])
            if min(mean, 1.0 - mean) <= _BINARY:
                raise InferenceError(
                    f"{name} separates the arms: it has one value in all {label_} rows, so the "
                    "propensity of the other value is 0 or 1",
                    given=f"{name} is {round(mean)} in {arm.n:,} {label_} rows",
                    allowed="leave out the column or the rows with the other value",
                )


def is_binary(moments: Gram, at: int) -> bool:
    """Whether a term is 0 or 1 in every row: its sum is its sum of squares."""
    mean = float(moments.mean[at])
    square = float(moments.cross[at, at]) / moments.sum_weights + mean**2
    return square > 0 and abs(square - mean) <= _BINARY * square


@dataclass(frozen=True)
class _Step:
    """Score and information at `start`, for standardised columns with an intercept.

    Attributes:
        start: The coefficients, shape (k + 1,).
        score: Shape (k + 1,).
        information: Shape (k + 1, k + 1).
    """

    start: Array
    score: Array
    information: Array

    @property
    def is_regular(self) -> bool:
        return bool(np.isfinite(self.information).all()) and not redundant_columns(
            self.information, tolerance=1e-14
        )

    def newton(self) -> Array:
        return np.asarray(linalg.solve(self.information, self.score, assume_a="sym"))

    def merit(self, reference: Array) -> float:
        """Squared length of the score; it falls along every Newton step that is short enough."""
        return float(self.score @ linalg.solve(reference, self.score, assume_a="pos"))


def _first_step(study: Study, arms: Arms) -> _Step:
    """At the share of treated rows, where all weights are equal: no pass is needed."""
    control, treated = (study.basis.moment(arm)[:-1, :-1] for arm in arms)
    share = treated[0, 0] / (treated[0, 0] + control[0, 0])
    start = np.zeros(len(control))
    start[0] = np.log(share / (1.0 - share))
    score = (1.0 - share) * treated[0] - share * control[0]
    return _Step(start, score, share * (1.0 - share) * (control + treated))


def _step(study: Study, moments: Gram, start: Array) -> _Step:
    """From moments of the columns and the working residual, weighted by p (1 - p)."""
    sums = replace(study.basis, level=0.0).moment(moments)
    return _Step(start, sums[:-1, -1], sums[:-1, :-1])


def _request(study: Study, coefficients: Array, *, keep: Term | None) -> GramRequest:
    control, treated = study.is_arm
    plus = _predictor(study.covariates, coefficients, sign=1.0)
    minus = _predictor(study.covariates, coefficients, sign=-1.0)
    one = Constant()
    residual = Linear(
        (
            Product((treated, Linear((one, Exponential(minus)), (1.0, 1.0)))),
            Product((control, Linear((one, Exponential(plus)), (1.0, 1.0)))),
            study.marker,
        ),
        (1.0, -1.0, 0.0),
    )
    weights = (Logistic(plus), Logistic(minus), *(() if keep is None else (keep,)))
    return GramRequest(
        terms=(*study.covariates, residual), weight=Product(weights), where=study.where
    )


def _predictor(regressors: Sequence[Term], coefficients: Array, *, sign: float) -> Term:
    combination = Linear(
        (Constant(), *regressors), tuple(float(sign * value) for value in coefficients)
    )
    return Clipped(combination, low=-_FAR, high=_FAR)


def is_done(history: Sequence[Array]) -> bool:
    """Whether the last Newton step is so short that the maximum is reached with it.

    Args:
        history: Steps so far, in standard deviations of the columns.
    """
    size = float(np.abs(history[-1]).max())
    if size < _STEP:
        return True
    return len(history) > 1 and size < _ROUNDING and size >= float(np.abs(history[-2]).max()) / 2


def is_foretold(history: Sequence[Array]) -> bool:
    """Whether the last Newton step is the last but for one that changes nothing.

    The last two tell the constant that a step near the maximum is of the square of the one before.

    Args:
        history: Steps so far, in standard deviations of the columns.
    """
    if len(history) == 1:
        return False
    before, size = (float(np.abs(step).max()) for step in history[-2:])
    return size < before < _QUADRATIC and size**3 < _FORETOLD * before**2


def is_escaping(history: Sequence[Array]) -> bool:
    """Steps of one length in one direction, as towards a maximum at infinity."""
    if len(history) <= _ESCAPING:
        return False
    last = np.array(history[-_ESCAPING - 1 :])
    lengths = np.linalg.norm(last, axis=1)
    if lengths[-1] == 0:
        return False
    turns = (last[1:] * last[:-1]).sum(axis=1) / (lengths[1:] * lengths[:-1])
    growth = lengths[1:] / lengths[:-1]
    return bool((turns > 0.99).all() and (growth > 0.7).all() and lengths[-1] > 0.1)  # noqa: PLR2004


def _separated(study: Study, change: Array) -> InferenceError:
    at = int(np.argmax(np.abs(change[1:])))
    return InferenceError(
        "the columns separate the arms: some rows are treated (or not) with certainty, and the "
        "propensity has no maximum of the likelihood",
        given=f"the coefficient of {study.names[at]} grows without bound",
        allowed="leave out that column, or rows without a counterpart in the other arm",
    )
