"""Least squares over the simplex: weights that are not negative and sum to one, solved exactly.

With `D = donors - target` the problem `min |donors w - target|^2` on the simplex is
`min |D w|^2`, homogeneous in `w`. Dropping the sum constraint and asking for
`min |D u|^2 + (sum u - 1)^2` over `u >= 0` gives `u = t w` with the same direction: for a fixed
direction the best `t` is `1 / (1 + q)` and the value `q / (1 + q)`, which grows with `q = |D w|^2`.
Non-negative least squares (Lawson and Hanson 1974, "Solving least squares problems", chapter 23)
is a finite algorithm, so the weights are exact and the same on each run.
"""

import numpy as np

from causal.core.errors import InferenceError
from causal.core.gram import Array

_STEPS_PER_DONOR = 30


def simplex_weights(
    donors: Array, target: Array, *, ridge: float = 0.0, has_intercept: bool = False
) -> Array:
    """Minimise `|donors w + c - target|^2 + ridge |w|^2` over the simplex.

    Where the minimum is reached by many weights (a perfect fit without a ridge), the algorithm
    returns one with few donors; `is_unique` tells.

    Args:
        donors: One column per donor, shape (T, J).
        target: What they are to match, shape (T,).
        ridge: Penalty on the sum of squared weights, in squared units of the outcome.
        has_intercept: Whether a constant `c` is fitted along with the weights.

    Returns:
        Weights, shape (J,): not negative, sum one.

    Raises:
        InferenceError: The active set did not settle (values beyond floating point, say).
    """
    distances = _distances(donors, target, ridge=ridge, has_intercept=has_intercept)
    n_donors = distances.shape[1]
    scale = float(np.sqrt((distances**2).sum() / n_donors))
    if n_donors == 1 or scale == 0.0:
        return np.full(n_donors, 1.0 / n_donors)
    return _polished(distances / scale, _cone_solution(distances / scale))


def objective(weights: Array, donors: Array, target: Array, *, ridge: float = 0.0) -> float:
    """`|donors w - target|^2 + ridge |w|^2`."""
    return float(((donors @ weights - target) ** 2).sum() + ridge * (weights**2).sum())


def is_unique(weights: Array, donors: Array, target: Array, *, has_intercept: bool) -> bool:
    """Whether no other weights without a ridge fit as well.

    A donor outside the support with zero slope, or dependent donors inside it, leave a choice.
    """
    distances = _distances(donors, target, ridge=0.0, has_intercept=has_intercept)
    scale = np.abs(distances).max()
    if scale == 0.0:
        return len(weights) == 1
    distances = distances / scale
    fitted = distances @ weights
    slopes = distances.T @ fitted - fitted @ fitted
    tied = slopes <= 1e-9 * max(1.0, float(np.abs(slopes).max()))
    columns = np.vstack([distances[:, tied], np.ones(int(tied.sum()))])
    return bool(np.linalg.matrix_rank(columns, tol=1e-9) == columns.shape[1])


def _distances(donors: Array, target: Array, *, ridge: float, has_intercept: bool) -> Array:
    """`donors - target`, centred by period if there is an intercept, with rows for the ridge."""
    distances = donors - target[:, None]
    if has_intercept:
        distances = distances - distances.mean(axis=0)
    if ridge == 0.0:
        return np.asarray(distances, dtype=np.float64)
    return np.vstack([distances, np.sqrt(ridge) * np.eye(distances.shape[1])])


def _cone_solution(distances: Array) -> Array:
    from scipy.optimize import nnls

    size, n_donors = distances.shape
    system = np.vstack([distances, np.ones(n_donors)])
    wanted = np.zeros(size + 1)
    wanted[-1] = 1.0
    try:
        cone, _ = nnls(system, wanted, maxiter=_STEPS_PER_DONOR * n_donors)
    except RuntimeError as error:
        raise InferenceError("the donor weights did not settle", given=str(error)) from error
    return np.asarray(cone / cone.sum(), dtype=np.float64)


def _polished(distances: Array, weights: Array) -> Array:
    """The same support solved once more under the sum constraint, which restores last digits."""
    support = np.flatnonzero(weights > 0)
    lead = support[np.argmax(weights[support])]
    others = support[support != lead]
    if len(others) == 0:
        return weights
    base = distances[:, lead]
    shares = np.linalg.lstsq(distances[:, others] - base[:, None], -base, rcond=None)[0]
    polished = np.zeros_like(weights)
    polished[others] = shares
    polished[lead] = 1.0 - shares.sum()
    is_better = (polished >= 0).all() and _square(distances @ polished) <= _square(
        distances @ weights
    )
    return polished if is_better else weights


def _square(values: Array) -> float:
    return float(values @ values)
