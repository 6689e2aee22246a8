"""Inference after a group sequential test has stopped, and repeated inference while it runs.

A statistic that stopped a test early is no draw from a normal law: its p-value, estimate and
interval must count the looks. Outcomes are ordered by look first and statistic second
(Siegmund 1978; Tsiatis, Rosner and Mehta 1984): among those that stopped upwards the earlier is the
more extreme. The estimate is median-unbiased, the interval has its nominal coverage, and it
excludes the null value exactly when the boundary was crossed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.experiments.crossing import START, Interval, Running, above, advance
from causal.experiments.group_sequential import Boundaries, boundaries

_WIDEST = 60.0
_TOLERANCE = 1e-11
_SMALLEST, _LARGEST = 1e-16, 0.5 - 1e-9


@dataclass(frozen=True, kw_only=True)
class StageWise:
    """Inference at the stop, on the scale of the drift (mean of z at fraction 1).

    Attributes:
        pvalue_above: One-sided p-value against drifts above 0.
        median: Median-unbiased estimate.
        ci_lower: Lower end of the interval.
        ci_upper: Upper end of the interval.
    """

    pvalue_above: float
    median: float
    ci_lower: float
    ci_upper: float


def tail_above(limits: Boundaries, z: Array | float, *, look: int, drift: float) -> Array:
    """Probability of an outcome at least as high in the stage-wise order.

    Args:
        limits: The boundaries; only those before `look` count. Futility stops count when they are
            binding; otherwise the order ignores them, which keeps the level whether or not they
            are obeyed.
        z: Statistics with which the test stopped at `look`, any shape.
        look: The look of the stop, counted from 0.
        drift: Mean of z at fraction 1.

    Returns:
        The shape of `z`; it grows with the drift.

    Raises:
        InferenceError: Binding futility in a two-sided test: its outcomes have no such order.
    """
    if limits.is_two_sided and limits.is_binding:
        raise InferenceError(
            "outcomes of a two-sided test with binding futility have no stage-wise order",
            allowed="non-binding futility, or a one-sided test",
        )
    at = limits.fractions
    running: Running = START
    earlier = 0.0
    for before in range(look):
        efficacy = float(limits.efficacy[before])
        earlier += float(above(running, efficacy, fraction=at[before], drift=drift))
        go_on: tuple[Interval, ...] = limits.go_on(before, heeds_futility=limits.is_binding)
        running = advance(
            running, go_on, fraction=at[before], next_fraction=at[before + 1], drift=drift
        )
    return earlier + above(running, z, fraction=at[look], drift=drift)


def stage_wise(limits: Boundaries, z: float, *, look: int, alpha: float) -> StageWise:
    """p-value, median-unbiased estimate and interval of a test that stopped.

    Args:
        limits: The boundaries up to the stop at least.
        z: The statistic at the stop.
        look: The look of the stop, counted from 0.
        alpha: Error of each side of the interval.
    """

    def tail(drift: float) -> float:
        return float(tail_above(limits, z, look=look, drift=drift))

    naive = z / float(np.sqrt(limits.fractions[look]))
    width = 2.0 / float(np.sqrt(limits.fractions[0]))
    return StageWise(
        pvalue_above=tail(0.0),
        median=_solve(tail, 0.5, start=naive, width=width),
        ci_lower=_solve(tail, alpha, start=naive, width=width),
        ci_upper=_solve(tail, 1 - alpha, start=naive, width=width),
    )


def repeated_pvalues(z: Array, limits: Boundaries, *, error_at: Callable[[float], Array]) -> Array:
    """By look, the smallest level of one side at which the test would have rejected by then.

    Valid at every look, whether or not the test stops there (Jennison and Turnbull 1989, "Interim
    analyses: the repeated confidence interval approach").

    Args:
        z: Statistics, shape (K,); evidence for an effect upwards is above 0.
        limits: The boundaries of the test, for its fractions and binding futility.
        error_at: Cumulative error of one side by look when the level of one side is the argument.

    Returns:
        Shape (K,), non-increasing; 1 as long as a level of a half would not have rejected.
    """
    out = np.ones(len(z))
    smallest, following = _LARGEST, 0
    while following < len(z):
        # One pass at the smallest level so far shows which look, if any, is the next to beat it.
        efficacy = _efficacy(limits, error_at(smallest))
        beaten = np.flatnonzero(z[following:] > efficacy[following:])
        if not len(beaten) or smallest <= _SMALLEST:
            break
        look = following + int(beaten[0])
        smallest = _level(float(z[look]), limits, look=look, error_at=error_at, highest=smallest)
        out[look:] = smallest
        following = look + 1
    return out


def _level(
    z: float,
    limits: Boundaries,
    *,
    look: int,
    error_at: Callable[[float], Array],
    highest: float,
) -> float:
    """The level of one side at which z is the critical value of a look."""
    from scipy import optimize

    def excess(log_alpha: float) -> float:
        error = error_at(float(np.exp(log_alpha)))[: look + 1]
        return min(float(_efficacy(limits, error)[look]), _WIDEST) - z

    low = float(np.log(_SMALLEST))
    if excess(low) <= 0:
        return _SMALLEST
    return float(np.exp(optimize.brentq(excess, low, float(np.log(highest)), xtol=1e-9)))


def _efficacy(limits: Boundaries, error: Array) -> Array:
    """Critical values of the same test when it spends another error."""
    n_looks = len(error)
    floor = None
    if limits.is_binding and limits.futility is not None:
        floor = limits.futility[:n_looks]
    try:
        found = boundaries(
            limits.fractions[:n_looks], error, is_two_sided=limits.is_two_sided, floor=floor
        )
    except InferenceError:
        # At so large a level every path has stopped before: whatever is found would reject.
        return np.full(n_looks, -_WIDEST)
    return found.efficacy


def _solve(tail: Callable[[float], float], wanted: float, *, start: float, width: float) -> float:
    """The drift at which the tail probability, which grows with the drift, has a given value."""
    from scipy import optimize

    low, high = start - width, start + width
    while tail(low) > wanted:
        low -= width
        width *= 2
        if width > _WIDEST * _WIDEST:
            return -np.inf
    while tail(high) < wanted:
        high += width
        width *= 2
        if width > _WIDEST * _WIDEST:
            return np.inf
    return float(optimize.brentq(lambda drift: tail(drift) - wanted, low, high, xtol=_TOLERANCE))
