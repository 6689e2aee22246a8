"""Synthetic control of one region: weights from outcomes, with an intercept, a ridge or a penalty.

Abadie, Diamond and Hainmueller (2010), "Synthetic control methods for comparative case studies";
Doudchenko and Imbens (2016) and Ferman and Pinto (2021) for the intercept (de-meaned) variant;
Ben-Michael, Feller and Rothstein (2021), "The augmented synthetic control method", for the ridge;
Abadie and L'Hour (2021), "A penalized synthetic control estimator for disaggregated data", for the
penalty on the distance of each donor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from causal.core.gram import Array
from causal.quasi.synthetic.region_panel import Indices
from causal.quasi.synthetic.simplex_least_squares import simplex_weights
from causal.quasi.synthetic.simplex_quadratic import quadratic_weights

_N_RIDGES = 20
_SMALLEST_RIDGE = 1e-8
_HELD_OUT_SHARE = 4
_PENALTIES = tuple(10.0 ** (step / 3) for step in range(-15, 7))
"""Multiples of the squared distances, from next to none (1e-5) to next to the nearest donor."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One region to be matched.

    Attributes:
        values: Outcomes of all regions, shape (N, T).
        target: Row of the region.
        donors: Rows of its donors, shape (J,).
        n_pre: Periods before the start.
        matched: Positions of the periods whose outcomes are matched, all before the start.
    """

    values: Array
    target: int
    donors: Indices
    n_pre: int
    matched: Indices

    @property
    def goal(self) -> Array:
        """Outcomes to be matched, shape (M,)."""
        return np.asarray(self.values[self.target, self.matched])

    @property
    def pool(self) -> Array:
        """Outcomes of the donors in the matched periods, one column each, shape (M, J)."""
        return self.values[np.ix_(self.donors, self.matched)].T

    def without(self, *donors: int) -> "Task":
        """The same without some donors (rows of `values`)."""
        return replace(self, donors=self.donors[~np.isin(self.donors, donors)])


@dataclass(frozen=True, kw_only=True)
class DonorFit:
    """Weights of the donors and what they leave unexplained.

    Attributes:
        task: What was matched.
        weights: Shape (J,).
        intercept: Constant added to the donors' weighted path.
        ridge: Penalty of the augmentation, chosen by cross-validation; `None` without.
        penalty: Multiple of the donors' squared distances that was added; `None` without.
        importance: Weights V of the predictors, sum one, shape (K,); empty without predictors.
    """

    task: Task
    weights: Array
    intercept: float = 0.0
    ridge: float | None = None
    penalty: float | None = None
    importance: tuple[float, ...] = ()

    @cached_property
    def synthetic(self) -> Array:
        """The region's path as the donors make it, shape (T,)."""
        path = self.weights @ self.task.values[self.task.donors] + self.intercept
        return np.asarray(path, dtype=np.float64)

    @cached_property
    def gaps(self) -> Array:
        """Observed less synthetic, shape (T,)."""
        return np.asarray(self.task.values[self.task.target] - self.synthetic)

    @property
    def after(self) -> Array:
        """Gaps from the start on."""
        return self.gaps[self.task.n_pre :]

    @cached_property
    def effect(self) -> float:
        """Mean gap from the start on."""
        return float(self.after.mean())

    @cached_property
    def pre_mspe(self) -> float:
        """Mean squared gap in the matched periods."""
        return float((self.gaps[self.task.matched] ** 2).mean())

    @cached_property
    def post_mspe(self) -> float:
        """Mean squared gap from the start on."""
        return float((self.after**2).mean())


FitRule = Callable[[Task], DonorFit]
RefitRule = Callable[[DonorFit, Task], DonorFit]
"""The same region matched by fewer donors, with what was searched for it (importances of
predictors, ridge, penalty) kept."""


def outcome_fit(task: Task) -> DonorFit:
    """Weights on the simplex that match the outcomes before the start best."""
    return DonorFit(task=task, weights=simplex_weights(task.pool, task.goal))


def demeaned_fit(task: Task) -> DonorFit:
    """The same with an intercept: a lasting difference in level needs not be matched."""
    weights = simplex_weights(task.pool, task.goal, has_intercept=True)
    return DonorFit(
        task=task, weights=weights, intercept=float((task.goal - task.pool @ weights).mean())
    )


def ridge_fit(task: Task, *, ridge: float | None = None) -> DonorFit:
    """Simplex weights corrected by a ridge regression on the imbalance they leave.

    The correction may make weights negative: it extrapolates where the region lies outside the
    donors' hull.

    Args:
        task: What is matched.
        ridge: The penalty; `None` takes the largest whose cross-validated error (each matched
            period left out in turn) lies within one standard error of the smallest.
    """
    chosen = _chosen_ridge(task) if ridge is None else ridge
    return DonorFit(task=task, weights=_augmented(task.pool, task.goal, (chosen,))[0], ridge=chosen)


def penalised_fit(task: Task, *, penalty: float | None = None) -> DonorFit:
    """Weights on the simplex that match the outcomes with donors that are like the region.

    Minimises `|goal - pool w|^2 + penalty * sum_j w_j |goal - pool_j|^2`: without a penalty the
    synthetic control, with a large one the nearest donor. With any penalty the weights are unique
    (donors in general position), also where many mixtures would fit alike.

    Args:
        task: What is matched.
        penalty: The multiple; `None` takes the one, of 22 from 1e-5 to 100, whose weights from
            the earlier matched periods leave the smallest squared gap in their last quarter (the
            hold-out of section 4 of the paper), the largest among equals.
    """
    chosen = _held_out_penalty(task) if penalty is None else penalty
    return DonorFit(task=task, weights=_penalised(task.pool, task.goal, chosen), penalty=chosen)


def _penalised(pool: Array, goal: Array, penalty: float) -> Array:
    distances = pool - goal[:, None]
    if penalty == 0.0:
        return simplex_weights(pool, goal)
    return quadratic_weights(distances, penalty * (distances**2).sum(axis=0))


def _held_out_penalty(task: Task) -> float:
    pool, goal = task.pool, task.goal
    n_later = max(1, len(goal) // _HELD_OUT_SHARE)
    early, late = slice(None, -n_later), slice(-n_later, None)
    errors = np.array(
        [
            ((goal[late] - pool[late] @ _penalised(pool[early], goal[early], item)) ** 2).sum()
            for item in _PENALTIES
        ]
    )
    ties = np.flatnonzero(errors <= errors.min() * (1.0 + 1e-9))
    return float(_PENALTIES[int(ties.max())])


def _augmented(pool: Array, goal: Array, penalties: Sequence[float]) -> Array:
    """Augmented weights under each penalty, shape (len(penalties), J)."""
    weights = simplex_weights(pool, goal)
    centre = pool.mean(axis=1)
    left, values, right = np.linalg.svd(pool - centre[:, None], full_matrices=False)
    imbalance = left.T @ (goal - pool @ weights)
    shrunk = [values / (values**2 + penalty) * imbalance for penalty in penalties]
    return np.asarray(weights + np.array(shrunk) @ right, dtype=np.float64)


def _chosen_ridge(task: Task) -> float:
    pool, goal = task.pool, task.goal
    largest = float(np.linalg.norm(pool - pool.mean(axis=1)[:, None], ord=2) ** 2)
    penalties = largest * _SMALLEST_RIDGE ** (np.arange(_N_RIDGES + 1) / _N_RIDGES)
    if largest == 0.0:
        return 1.0
    errors = np.array([_held_out(pool, goal, penalties, period) for period in range(len(goal))])
    mean, spread = errors.mean(axis=0), errors.std(axis=0, ddof=1) / np.sqrt(len(goal))
    best = int(mean.argmin())
    return float(penalties[mean <= mean[best] + spread[best]].max())


def _held_out(pool: Array, goal: Array, penalties: Array, period: int) -> Array:
    kept = np.delete(np.arange(len(goal)), period)
    weights = _augmented(pool[kept], goal[kept], tuple(penalties))
    return np.asarray((goal[period] - weights @ pool[period]) ** 2, dtype=np.float64)
