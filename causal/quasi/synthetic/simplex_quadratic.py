"""A convex quadratic with a linear part over the simplex, minimised exactly.

`min |distances w|^2 + slopes' w` with `w >= 0`, `sum w = 1`. A linear part that reaches outside the
row space of `distances` has no form as least squares (`simplex_least_squares`), so the weights are
found by an active set: a donor enters where the slope says that it helps, weights move to the
minimum over the donors in use or to where the first of them turns zero, and that one leaves
(Wolfe 1959, "The simplex method for quadratic programming"; Nocedal and Wright 2006, section
16.5). The objective falls with each step, so the algorithm ends; its weights are exact.
"""

from dataclasses import dataclass

import numpy as np

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.quasi.synthetic.region_panel import Indices

_STEPS_PER_DONOR = 60
_SLOPE = 1e-12
_DEPENDENT = 1e-10


@dataclass(frozen=True)
class _Problem:
    """The problem, in units in which its numbers are of size one."""

    columns: Array
    slopes: Array

    def gradient(self, weights: Array) -> Array:
        return np.asarray(2.0 * self.columns.T @ (self.columns @ weights) + self.slopes)

    def minimum(self, support: Indices) -> Array:
        """Weights of some donors that minimise under the sum constraint alone, of any sign."""
        base = self.columns[:, support[0]]
        if len(support) == 1:
            return np.ones(1)
        left, right = np.linalg.qr(self.columns[:, support[1:]] - base[:, None])
        change = (self.slopes[support[1:]] - self.slopes[support[0]]) / 2.0
        shares = np.linalg.solve(right, -left.T @ base - np.linalg.solve(right.T, change))
        return np.concatenate([[1.0 - shares.sum()], shares])

    def way_out(self, support: Indices, entering: int) -> Array | None:
        """The direction that keeps `columns w`, if the new donor is a mixture of those in use."""
        base = self.columns[:, support[0]]
        others = self.columns[:, support[1:]] - base[:, None]
        wanted = self.columns[:, entering] - base
        shares = np.linalg.lstsq(others, wanted, rcond=None)[0]
        left = wanted - others @ shares
        if len(support) <= len(base) and np.abs(left).max() > _DEPENDENT:
            return None
        return np.concatenate([[shares.sum() - 1.0], -shares, [1.0]])


def quadratic_weights(distances: Array, slopes: Array) -> Array:
    """Minimise `|distances w|^2 + slopes' w` over the simplex.

    Args:
        distances: One column per donor, shape (T, J).
        slopes: The linear part, shape (J,).

    Returns:
        Weights, shape (J,): not negative, sum one.

    Raises:
        InferenceError: The active set did not settle (values beyond floating point, say).
    """
    squares = (distances**2).sum(axis=0)
    unit = float(max(squares.max(), np.abs(slopes).max()))
    if unit == 0.0:
        return np.full(len(slopes), 1.0 / len(slopes))
    problem = _Problem(distances / np.sqrt(unit), slopes / unit)
    weights = np.zeros(len(slopes))
    weights[int((squares / unit + problem.slopes).argmin())] = 1.0
    for _ in range(_STEPS_PER_DONOR * len(slopes)):
        entering = _entering(problem, weights)
        if entering is None:
            return weights
        moved = _entered(problem, weights, entering)
        if (moved == weights).all():
            # The donor that should enter left at once: what its slope promised was rounding.
            return weights
        weights = moved
    raise InferenceError("the donor weights did not settle", given=f"{len(slopes)} donors")


def _entering(problem: _Problem, weights: Array) -> int | None:
    """The donor without weight whose weight should grow most, if any should."""
    slope = problem.gradient(weights)
    outside = np.where(weights > 0, np.inf, slope)
    best = int(outside.argmin())
    return best if outside[best] < slope @ weights - _SLOPE else None


def _entered(problem: _Problem, weights: Array, entering: int) -> Array:
    """The weights with one more donor, and without those that it makes superfluous."""
    used = np.flatnonzero(weights > 0)
    support = np.append(used, entering)
    way = problem.way_out(used, entering)
    current = weights[support]
    if way is not None:
        current, support = _moved(current, way, support, is_bounded=False)
    while True:
        current, kept = _moved(current, problem.minimum(support) - current, support)
        if len(kept) == len(support):
            break
        support = kept
    found = np.zeros_like(weights)
    found[support] = current / current.sum()
    return found


def _moved(
    current: Array, way: Array, support: Indices, *, is_bounded: bool = True
) -> tuple[Array, Indices]:
    """A step along a way, at most to its end, and the donors that still have weight then."""
    falling = way < 0
    limits = np.where(falling, current / np.where(falling, -way, 1.0), np.inf)
    blocking = int(limits.argmin())
    if is_bounded and limits[blocking] >= 1.0:
        return current + way, support
    reached = np.maximum(current + limits[blocking] * way, 0.0)
    reached[blocking] = 0.0
    kept = reached > 0
    return reached[kept], support[kept]
