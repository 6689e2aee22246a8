"""The programs that donor weights solve, written as in their papers and given to cvxpy."""

from typing import Any

import cvxpy
import numpy as np

from causal.core.gram import Array


def simplex_program(
    donors: Array,
    target: Array,
    *,
    ridge: float = 0.0,
    slopes: Array | None = None,
    has_intercept: bool = False,
) -> Array:
    """`||intercept + donors w - target||^2 + ridge ||w||^2 + slopes'w` over the simplex.

    Args:
        donors: Shape (rows, donors).
        target: Shape (rows,).
        ridge: Weight of the squared weights.
        slopes: A linear part, shape (donors,).
        has_intercept: Whether a free constant is fitted.
    """
    scale = float(np.abs(donors).max())
    weights = cvxpy.Variable(donors.shape[1], nonneg=True)
    constant: Any = cvxpy.Variable() if has_intercept else 0.0
    loss = cvxpy.sum_squares(constant + donors / scale @ weights - target / scale)
    penalty = ridge / scale**2 * cvxpy.sum_squares(weights)
    linear = 0.0 if slopes is None else (slopes / scale**2) @ weights
    program = cvxpy.Problem(cvxpy.Minimize(loss + penalty + linear), [cvxpy.sum(weights) == 1])
    tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-13)
    program.solve(solver=cvxpy.CLARABEL, **tolerances)
    return np.asarray(weights.value)
