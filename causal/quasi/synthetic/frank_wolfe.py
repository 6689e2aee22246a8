"""Weights of synthetic difference in differences as the authors' R package computes them.

The package `synthdid` minimises the same objective as `simplex_least_squares` by Frank-Wolfe steps
and stops when a step gains little. Published figures (-15.60383 for Proposition 99) are those of
the stopped algorithm, some hundredths away from the minimum; this module follows its definition.
"""

import numpy as np

from causal.core.gram import Array

FIRST_STEPS = 100
MAX_STEPS = 10_000
_SHARE_KEPT = 0.25


def frank_wolfe_weights(
    donors: Array, target: Array, *, zeta: float, min_decrease: float, has_intercept: bool
) -> Array:
    """Frank-Wolfe, small weights set to zero, then Frank-Wolfe again from there.

    Args:
        donors: One column per weight, shape (rows, k).
        target: What they are to match, shape (rows,).
        zeta: Ridge in the unit of the outcome: the penalty is `rows * zeta^2 |w|^2`.
        min_decrease: Stop when the objective per row falls by less than its square in a step.
        has_intercept: Whether columns and target are centred first.

    Returns:
        Weights on the simplex, shape (k,).
    """
    if has_intercept:
        donors, target = donors - donors.mean(axis=0), target - target.mean()
    problem = (donors, target, zeta, min_decrease)
    start = np.full(donors.shape[1], 1.0 / donors.shape[1])
    rough = _descend(*problem, start=start, max_steps=FIRST_STEPS)
    kept = np.where(rough <= rough.max() * _SHARE_KEPT, 0.0, rough)
    return _descend(*problem, start=kept / kept.sum(), max_steps=MAX_STEPS)


def _descend(
    donors: Array,
    target: Array,
    zeta: float,
    min_decrease: float,
    *,
    start: Array,
    max_steps: int,
) -> Array:
    n_rows = len(target)
    penalty = n_rows * zeta**2
    weights, fitted = start.copy(), donors @ start
    before = np.inf
    for _ in range(max_steps):
        weights, fitted = _step(donors, target, penalty, weights=weights, fitted=fitted)
        error = fitted - target
        value = zeta**2 * float(weights @ weights) + float(error @ error) / n_rows
        if before - value <= min_decrease**2:
            break
        before = value
    return weights


def _step(
    donors: Array, target: Array, penalty: float, *, weights: Array, fitted: Array
) -> tuple[Array, Array]:
    """Move towards the vertex along which the objective falls fastest, by the best length."""
    slope = donors.T @ (fitted - target) + penalty * weights
    vertex = int(slope.argmin())
    direction = -weights
    direction[vertex] += 1.0
    change = donors[:, vertex] - fitted
    curvature = float(change @ change) + penalty * float(direction @ direction)
    if curvature == 0.0:
        return weights, fitted
    length = min(1.0, max(0.0, -float(slope @ direction) / curvature))
    return weights + length * direction, fitted + length * change
