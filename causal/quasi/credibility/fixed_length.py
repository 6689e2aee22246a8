r"""The shortest interval of fixed length when the trend may bend by at most M per period.

The difference in trends delta lies in the smoothness set: its second differences are at most M in
absolute value, `|delta_{t+1} - 2 delta_t + delta_{t-1}| <= M`, with delta zero in the reference
period. An estimator `l' b_post + v' b_pre` that cancels every straight line is off by at most M
times the absolute sum of its weights on the second differences. Among them the one with the
shortest interval `estimate +- c(bias / sd) sd` is taken, c(t) being the quantile of |N(t, 1)|.
Rambachan and Roth (2023), "A more credible approach to parallel trends", Review of Economic
Studies 90, section 4; Armstrong and Kolesar (2018).

The pairs (bias, sd) worth considering do not depend on M. With u the weights on the K - 1 second
differences before the reference, they minimise `variance(u) / 2 + p |u|_1` for some p >= 0: a
lasso, whose solution is piecewise linear in p and is followed exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from causal.core.gram import Array
from causal.quasi.credibility.event_path import EventPath

_TINY = 1e-12
"""A coefficient that has just left does not enter again at once."""
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A straight piece of the path of weights, from `start` to `end`, each of shape (K - 1,)."""

    start: Array
    end: Array


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Estimators of one quantity that no other beats in both bias and variance.

    Attributes:
        path: The event study.
        weights: Weights of the quantity on the estimates after the reference, shape (n_post,).
        bias_after: Worst bias at M = 1 that comes from bends at or after the reference.
        fixed: Weights on the estimates before the reference at u = 0, shape (n_pre,).
        moving: How they change with u, shape (n_pre, n_pre - 1).
        segments: The path of u, from least bias to least variance.
    """

    path: EventPath
    weights: Array
    bias_after: float
    fixed: Array
    moving: Array
    segments: tuple[Segment, ...]

    def estimator(self, u: Array) -> Array:
        """Weights on all estimates, shape (n,)."""
        return np.concatenate([self.fixed + self.moving @ u, self.weights])


@dataclass(frozen=True, kw_only=True)
class FixedLength:
    """An interval of fixed length.

    Attributes:
        estimate: Its middle.
        half_length: Half its length.
        bias: The worst bias of the middle.
        std_error: Standard deviation of the middle.
        weights: Weights on the estimates of the event study, shape (n,).
    """

    estimate: float
    half_length: float
    bias: float
    std_error: float
    weights: Array

    @property
    def ci_lower(self) -> float:
        """Lower end."""
        return self.estimate - self.half_length

    @property
    def ci_upper(self) -> float:
        """Upper end."""
        return self.estimate + self.half_length


def frontier(path: EventPath, weights: Array) -> Frontier:
    """The estimators to choose from.

    Args:
        path: The event study.
        weights: Weights of the quantity of interest, shape (n_post,).
    """
    k, at = path.n_pre, path.n_pre
    ahead = np.arange(1.0, path.n_post + 1)
    slope = float(ahead @ weights)
    after = sum(abs(float(np.clip(ahead - j, 0.0, None) @ weights)) for j in range(path.n_post))
    # Before the reference, periods back are 1..K and estimates run from the most distant one on.
    back = np.arange(float(k), 0.0, -1.0)
    bends = np.array([np.clip(back - j, 0.0, None) for j in range(1, k)]).reshape(k - 1, k)
    inverse = np.linalg.inv(np.vstack([back, bends]))
    fixed, moving = inverse[:, 0] * slope, inverse[:, 1:]
    pre, cross = path.covariance[:at, :at], path.covariance[:at, at:] @ weights
    quadratic = moving.T @ pre @ moving
    linear = moving.T @ (pre @ fixed + cross)
    return Frontier(
        path=path, weights=weights, bias_after=after, fixed=fixed, moving=moving,
        segments=tuple(_lasso_path(quadratic, linear)),
    )  # fmt: skip


def fixed_length(found: Frontier, bend: float, *, confidence_level: float) -> FixedLength:
    """The shortest interval that covers at least at the stated level whatever the bends.

    Args:
        found: The estimators to choose from.
        bend: M, the largest change of the trend's slope from one period to the next.
        confidence_level: Of the interval.
    """
    from scipy import optimize

    def half(u: Array) -> float:
        bias, std_error = _bias_and_error(found, u, bend)
        return std_error * folded_quantile(bias / std_error, confidence_level=confidence_level)

    best = found.segments[-1].end if bend == 0 else found.segments[0].start
    shortest = half(best)
    # Without any bend the least variance wins; then there is nothing to search.
    for piece in found.segments if bend > 0 else ():
        step = piece.end - piece.start

        def along(share: float, piece: Segment = piece, step: Array = step) -> float:
            return half(piece.start + share * step)

        inner = optimize.minimize_scalar(
            along, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-9}
        )
        for share in (float(inner.x), 1.0):
            length = along(share)
            if length < shortest:
                shortest, best = length, piece.start + share * step
    weights = found.estimator(best)
    bias, std_error = _bias_and_error(found, best, bend)
    return FixedLength(
        estimate=float(weights @ found.path.estimates), half_length=shortest, bias=bias,
        std_error=std_error, weights=weights,
    )  # fmt: skip


def folded_quantile(mean: float, *, confidence_level: float) -> float:
    """Quantile of |N(mean, 1)|, for a mean that is not negative."""
    from scipy import optimize, special

    low = mean + float(special.ndtri(confidence_level))
    # At a mean of zero the upper bound is the quantile itself, up to rounding.
    high = mean + float(special.ndtri(0.5 + confidence_level / 2)) + _ROUNDING

    def missing(x: float) -> float:
        return float(special.ndtr(x - mean) - special.ndtr(-x - mean)) - confidence_level

    if missing(low) >= 0:
        return low
    return float(optimize.brentq(missing, low, high, xtol=1e-13))


def _bias_and_error(found: Frontier, u: Array, bend: float) -> tuple[float, float]:
    weights = found.estimator(u)
    variance = float(weights @ found.path.covariance @ weights)
    return bend * (found.bias_after + float(np.abs(u).sum())), float(np.sqrt(variance))


def _lasso_path(quadratic: Array, linear: Array) -> Iterator[Segment]:
    """Minimisers of `u' Q u / 2 + q' u + p |u|_1` as p falls from where u is zero to zero.

    Osborne, Presnell and Turlach (2000), "A new approach to variable selection in least squares
    problems": a coefficient enters where its gradient reaches the penalty and leaves where it
    reaches zero.

    Args:
        quadratic: Q, positive definite, shape (m, m).
        linear: q, shape (m,).
    """
    u, signs = np.zeros(len(linear)), np.zeros(len(linear))
    penalty = float(np.abs(linear).max(initial=0.0))
    if penalty == 0.0:
        yield Segment(start=u, end=u)
        return
    first = int(np.abs(linear).argmax())
    signs[first] = -np.sign(linear[first])
    left: int | None = None
    while True:
        active = np.flatnonzero(signs)
        # On the active set Q u + q = -p s, so that u moves by Q^-1 s per unit that p falls.
        direction = np.zeros(len(u))
        direction[active] = np.linalg.solve(quadratic[np.ix_(active, active)], signs[active])
        falls = _falls(u, direction, quadratic @ u + linear, quadratic @ direction, signs, penalty)
        if left is not None:
            falls[1:, left][falls[1:, left] < _TINY * penalty] = np.inf
        kind, event = np.unravel_index(int(falls.argmin()), falls.shape)
        fall = min(float(falls[kind, event]), penalty)
        new = u + fall * direction
        is_last = fall >= penalty
        if not is_last:
            signs[event] = (0.0, 1.0, -1.0)[kind]
            left = int(event) if kind == 0 else None
            new[event] = 0.0
        yield Segment(start=u, end=new)
        if is_last:
            return
        u, penalty = new, penalty - fall


def _falls(
    u: Array, direction: Array, gradient: Array, change: Array, signs: Array, penalty: float
) -> Array:
    """By how much the penalty falls until each coefficient leaves, enters above, enters below.

    Returns:
        Shape (3, m), infinite where it never does.
    """
    inside = signs != 0
    with np.errstate(divide="ignore", invalid="ignore"):
        leaves = np.where(inside & (u * direction < 0), -u / direction, np.inf)
        above = np.where(inside, np.inf, -(gradient + penalty) / (change - 1.0))
        below = np.where(inside, np.inf, -(gradient - penalty) / (change + 1.0))
    falls = np.array([leaves, above, below])
    falls[~(falls >= 0)] = np.inf
    return falls
