"""Entropy balancing: weights nearest to equal ones that make the means of all columns agree.

The weights are exp(x'b), with b the minimum of a convex function whose gradient and curvature are
one pass of cross-products weighted by exp(x'b) (Hainmueller 2012). For the treated (att) they are
also propensity odds fitted to balance, so the estimate is doubly robust (Zhao and Percival 2017).
"""

from collections.abc import Generator

import numpy as np
import pandas as pd
from scipy import linalg

from causal.core.cross_products import redundant_columns
from causal.core.errors import InferenceError
from causal.core.frames import (
    Clipped,
    Exponential,
    FrameRequest,
    GramRequest,
    Linear,
    Product,
    Term,
)
from causal.core.gram import Array, gram
from causal.observational.study import Study
from causal.observational.weights import (
    ArmWeights,
    Target,
    Weights,
    constant_weights,
    target_arms,
    target_term,
)

MAX_ITERATIONS = 100
_FAR = 300.0
_STEP = 1e-10
_HALVINGS = 30


def entropy_weights(
    study: Study, *, target: Target
) -> Generator[FrameRequest, pd.DataFrame, Weights]:
    """Weights for every arm that is not the population itself.

    Args:
        study: The rows.
        target: The population; not `overlap`.

    Raises:
        InferenceError: No positive weights balance the columns.
    """
    arms = []
    for arm in range(2):
        if target_arms(target) == (arm,):
            arms.append(constant_weights(study))
        else:
            arms.append((yield from _balance(study, arm, target=target)))
    return Weights(target=target, arms=(arms[0], arms[1]), is_of_all_rows=True)


def _balance(
    study: Study, arm: int, *, target: Target
) -> Generator[FrameRequest, pd.DataFrame, ArmWeights]:
    """Weights of one arm by Newton's method on the convex dual."""
    basis = study.basis
    goal = sum(
        (basis.moment(study.arms[at])[:-1, 0] for at in target_arms(target)),
        np.zeros(len(study.columns) + 1),
    )
    own = basis.moment(study.arms[arm])[:-1, :-1]
    found = np.zeros(len(goal))
    found[0] = np.log(goal[0] / own[0, 0])
    information = own * (goal[0] / own[0, 0])
    value = information[0, 0] - goal @ found
    for _ in range(MAX_ITERATIONS):
        change = linalg.solve(information, goal - information[:, 0], assume_a="sym")
        is_last = float(np.abs(change).max()) < _STEP
        slope = float(change @ (goal - information[:, 0]))
        for _ in range(_HALVINGS):
            next_information = yield from _weighted(study, arm, found + change)
            next_value = next_information[0, 0] - goal @ (found + change)
            if is_last or next_value <= value - 1e-4 * slope + 1e-12 * abs(value):
                break
            change, slope = change / 2, slope / 2
        found, information, value = found + change, next_information, next_value
        if redundant_columns(information, tolerance=1e-13):
            break
        if is_last:
            return _arm_weights(study, arm, found, information, target=target)
    at = int(np.argmax(np.abs(goal - information[:, 0])[1:] if len(goal) > 1 else [0]))
    raise InferenceError(
        "no positive weights balance the columns: the arms' means are too far apart",
        given=f"{study.names[at]} cannot be balanced",
        allowed="fewer columns, or rows with a counterpart in the other arm",
    )


def _arm_weights(
    study: Study, arm: int, found: Array, information: Array, *, target: Target
) -> ArmWeights:
    weight = _exponential(study, found)
    weighted = Product((study.is_arm[arm], weight))
    return ArmWeights(
        weight=weight,
        slope=weight,
        sign=1.0,
        residual=Linear((target_term(study, target), weighted), (1.0, -1.0)),
        covariance=linalg.inv(information),
    )


def _weighted(
    study: Study, arm: int, coefficients: Array
) -> Generator[FrameRequest, pd.DataFrame, Array]:
    """Weighted cross-products of (1, columns) in one arm, shape (k + 1, k + 1)."""
    weight = Product((study.is_arm[arm], _exponential(study, coefficients)))
    request = GramRequest(terms=study.terms, weight=weight, where=study.where)
    return study.basis.moment(gram((yield request), request))[:-1, :-1]


def _exponential(study: Study, coefficients: Array) -> Term:
    combination = study.combination(study.basis.matrix @ coefficients)
    return Exponential(Clipped(combination, low=-_FAR, high=_FAR))
