"""Conformal inference for synthetic control: permute periods instead of regions.

Chernozhukov, Wuthrich and Zhu (2021), "An exact and robust conformal inference method for
counterfactual and synthetic controls". Under the null effects are known, so the treated region's
untreated path is too; the weights are fitted on all periods under the null, and the residuals after
the start are compared with those of every cyclic shift of time. Valid, in approximation, where the
gaps are stationary; one treated region and few donors are enough.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from causal.core.gram import Array
from causal.quasi.synthetic.donor_fit import FitRule, Task
from causal.quasi.synthetic.region_panel import Indices

_N_STEPS = 40
_WIDEST = 1e6
_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True)
class PointwiseIntervals:
    """Intervals of the effect in each period from the start on.

    Attributes:
        lower: Shape (T - n_pre,); minus infinity where periods are too few to reject anything.
        upper: Shape (T - n_pre,).
        pvalue: Of no effect in any period.
    """

    lower: Array
    upper: Array
    pvalue: float


def conformal_intervals(
    task: Task, rule: FitRule, *, confidence_level: float
) -> PointwiseIntervals:
    """Intervals by period and a joint test, by moving blocks.

    Args:
        task: The treated region and its donors.
        rule: How weights are fitted to outcomes.
        confidence_level: Nominal coverage of each interval.
    """
    after = range(task.n_pre, task.values.shape[1])
    ends = [_interval(task, rule, period, confidence_level) for period in after]
    return PointwiseIntervals(
        lower=np.array([low for low, _ in ends]),
        upper=np.array([high for _, high in ends]),
        pvalue=joint_pvalue(task, rule),
    )


def joint_pvalue(task: Task, rule: FitRule) -> float:
    """P-value of no effect in any period from the start on."""
    n_post = task.values.shape[1] - task.n_pre
    return _pvalue(np.abs(_residuals(task, rule, np.arange(task.values.shape[1]))), n_post)


def _interval(
    task: Task, rule: FitRule, period: int, confidence_level: float
) -> tuple[float, float]:
    """The effects in one period that are not rejected: bisection outwards from the estimate."""
    kept = np.array([*range(task.n_pre), period])
    if 1.0 / len(kept) > 1.0 - confidence_level + _EPSILON:
        return -np.inf, np.inf
    fitted = rule(task)
    centre = float(fitted.gaps[period])
    spread = float(np.abs(fitted.gaps[: task.n_pre]).max()) or float(np.ptp(task.goal)) or 1.0

    def is_accepted(effect: float) -> bool:
        values = task.values.copy()
        values[task.target, period] -= effect
        residuals = _residuals(replace(task, values=values), rule, kept)
        return _pvalue(np.abs(residuals), 1) > 1.0 - confidence_level + _EPSILON

    return (
        _edge(is_accepted, centre, -spread),
        _edge(is_accepted, centre, spread),
    )


def _edge(is_accepted: Callable[[float], bool], centre: float, step: float) -> float:
    """Where acceptance ends, going from the centre in the direction of a step."""
    outside = step
    while is_accepted(centre + outside):
        outside *= 2.0
        if abs(outside) > _WIDEST * abs(step):
            return float(np.sign(step)) * np.inf
    inside = 0.0
    for _ in range(_N_STEPS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_accepted(centre + middle) else (inside, middle)
    return centre + outside


def _residuals(task: Task, rule: FitRule, periods: Indices) -> Array:
    """Gaps in the given periods when all of them are matched."""
    values = task.values[:, periods]
    size = len(periods)
    whole = replace(task, values=values, n_pre=size, matched=np.arange(size))
    return rule(whole).gaps


def _pvalue(sizes: Array, n_post: int) -> float:
    """Share of cyclic shifts whose last `n_post` residuals are at least as large in the mean."""
    shifted = np.array([np.roll(sizes, shift)[-n_post:].mean() for shift in range(len(sizes))])
    return float((shifted >= shifted[0] * (1.0 - _EPSILON)).mean())
