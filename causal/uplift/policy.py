"""Who gets which treatment under a budget, and what such a policy is worth.

Allocation is a knapsack with one choice per unit. Its linear relaxation is solved exactly by taking
steps along each unit's concave hull of (cost, gain) in the order of gain per cost (Sinha and
Zoltners 1979), so all units but the one at the margin get a whole treatment, and the same choice is
made by a rule that scales to any table: the treatment with the largest `gain - price * cost`.

The value of a policy is the mean of doubly robust scores of the arms that it chooses, on rows that
it was not learned from (Dudik, Langford and Li 2011; Athey and Wager 2021).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal.core.errors import DataError, InferenceError, SpecError
from causal.core.gram import Array
from causal.core.inference import critical_value

Codes = NDArray[np.int64]

CONTROL = 0
_MIN_ROWS = 2


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """A treatment for every unit.

    Attributes:
        treatment: 0 for none, 1 to m, shape (n,).
        gain: Sum of the gains.
        cost: Sum of the costs.
        price: Gain per cost of the first step that the budget did not allow; 0 if all were taken.
        bound: Gain that no allocation within the budget exceeds.
        n_units: Units by treatment, none first, shape (m + 1,).
    """

    treatment: Codes
    gain: float
    cost: float
    price: float
    bound: float
    n_units: Codes


def allocate(gain: Array, *, cost: Array, budget: float | None = None) -> Allocation:
    """The treatments with the largest sum of gains whose costs stay within the budget.

    A treatment is given only where its gain is positive. To maximise profit, hand in gains less
    costs. The gain falls short of the best possible by at most that of one step.

    Args:
        gain: Gain of every treatment over none, in one unit, shape (n, m).
        cost: Cost of every treatment, shape (m,) or (n, m).
        budget: Largest sum of costs; `None`: no limit.

    Raises:
        SpecError: The budget is negative.
        DataError: Shapes differ, or gains or costs are not finite, or a cost is negative.

    Example:
        >>> found = allocate(
        ...     np.array([[3.0, 4.0], [1.0, 5.0]]), cost=np.array([1.0, 2.0]), budget=3.0
        ... )
        >>> found.treatment.tolist(), found.gain, found.cost
        ([1, 2], 8.0, 3.0)
    """
    costs = _costs(gain, cost)
    if budget is not None and not budget >= 0:
        raise SpecError("a budget is not negative", given=budget)
    steps = _steps(gain, costs)
    # Steps of one unit come in falling order of gain per cost; a stable sort keeps them in order.
    order = np.argsort(-steps.ratio, kind="stable")
    spent = np.cumsum(steps.cost[order])
    limit = np.inf if budget is None else float(budget)
    # A sum of costs may pass the budget by rounding alone.
    n_taken = int(np.searchsorted(spent, limit * (1.0 + 1e-12), side="right"))
    taken = order[:n_taken]
    treatment = np.zeros(len(gain), dtype=np.int64)
    treatment[steps.unit[taken]] = steps.treatment[taken]
    total, price, rest = float(steps.gain[taken].sum()), 0.0, 0.0
    if n_taken < len(order):
        at = order[n_taken]
        price = float(steps.ratio[at])
        before = float(spent[n_taken - 1]) if n_taken else 0.0
        rest = price * max(limit - before, 0.0)
    return Allocation(
        treatment=treatment,
        gain=total,
        cost=float(steps.cost[taken].sum()),
        price=price,
        bound=total + rest,
        n_units=np.bincount(treatment, minlength=gain.shape[1] + 1),
    )


def best_treatment(gain: Array, *, cost: Array, price: float) -> Codes:
    """The rule of an allocation, for units that it did not see: the largest gain less priced cost.

    Args:
        gain: Shape (n, m).
        cost: Shape (m,) or (n, m).
        price: That of the allocation.

    Returns:
        0 for none, 1 to m, shape (n,).
    """
    net = gain - price * _costs(gain, cost)
    best = np.argmax(net, axis=1)
    is_worth_it = net[np.arange(len(net)), best] > 0
    return np.where(is_worth_it, best + 1, CONTROL).astype(np.int64)


@dataclass(frozen=True)
class _Steps:
    """Steps along the units' hulls: to a treatment, by how much cost and gain, shapes (s,)."""

    unit: Codes
    treatment: Codes
    cost: Array
    gain: Array
    ratio: Array


def _steps(gain: Array, cost: Array) -> _Steps:
    """All steps, those of a unit in falling order of gain per cost."""
    n, m = gain.shape
    here_cost, here_gain = np.zeros(n), np.zeros(n)
    found = []
    for _ in range(m):
        more_gain, more_cost = gain - here_gain[:, None], cost - here_cost[:, None]
        is_step = (more_gain > 0) & (more_cost >= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(is_step, more_gain / more_cost, -np.inf)
        steepest = ratio.max(axis=1)
        # Of steps that are equally steep the longest: it passes over the others.
        length = np.where(is_step & (ratio == steepest[:, None]), more_gain, -np.inf)
        to = length.argmax(axis=1)
        unit = np.flatnonzero(steepest > -np.inf)
        if len(unit) == 0:
            break
        chosen = to[unit]
        found.append(
            (unit, chosen + 1, more_cost[unit, chosen], more_gain[unit, chosen], steepest[unit])
        )
        here_cost[unit], here_gain[unit] = cost[unit, chosen], gain[unit, chosen]
    if not found:
        none = np.zeros(0)
        return _Steps(none.astype(np.int64), none.astype(np.int64), none, none, none)
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return _Steps(columns[0], columns[1], columns[2], columns[3], columns[4])


def _costs(gain: Array, cost: Array) -> Array:
    if gain.ndim != 2 or cost.shape not in {gain.shape, gain.shape[1:]}:  # noqa: PLR2004
        raise DataError(
            "gains are units x treatments, costs the same or one per treatment",
            given=[list(gain.shape), list(cost.shape)],
        )
    if not (np.isfinite(gain).all() and np.isfinite(cost).all()):
        raise DataError("gains and costs must be finite")
    if (cost < 0).any():
        raise DataError("a cost is not negative", given=float(cost.min()))
    return np.broadcast_to(cost, gain.shape)


def doubly_robust_scores(
    *, outcome: Array, treatment: Codes, predictions: Array, propensities: Array
) -> Array:
    """What every arm would have been worth in every row, right on average, shape (n, m + 1).

    `g_a(x) + 1{arm = a} (y - g_a(x)) / e_a(x)`.

    Args:
        outcome: Shape (n,).
        treatment: The arm that a row was in, 0 to m, shape (n,).
        predictions: Outcome in every arm by models that had no part of the row, shape (n, m + 1).
        propensities: Chance of every arm: logged, known, or by such models, shape (n, m + 1).

    Raises:
        DataError: Shapes differ, or a chance of the arm that a row was in is not positive.
    """
    n = len(outcome)
    shapes = {predictions.shape, propensities.shape}
    if len(shapes) > 1 or predictions.shape[0] != n or len(treatment) != n:
        raise DataError("predictions and propensities are rows x arms")
    if treatment.min() < 0 or treatment.max() >= predictions.shape[1]:
        raise DataError("an arm has no column", given=[int(treatment.min()), int(treatment.max())])
    at = np.arange(n)
    chance = propensities[at, treatment]
    if not ((chance > 0) & (chance <= 1)).all():
        raise DataError("a chance of an arm lies above 0 and at most at 1")
    scores = predictions.astype(np.float64)
    scores[at, treatment] += (outcome - predictions[at, treatment]) / chance
    return scores


@dataclass(frozen=True, kw_only=True)
class PolicyValue:
    """The mean outcome under a policy, or the difference of two policies', per unit.

    Attributes:
        estimate: The value, costs taken off.
        std_error: Its standard error.
        ci_lower: Lower end of the interval.
        ci_upper: Upper end of the interval.
        confidence_level: Nominal coverage.
        mean_cost: Mean cost (or difference of mean costs).
        n: Rows.
        n_clusters: Clusters; `None`: rows are independent.
    """

    estimate: float
    std_error: float
    ci_lower: float
    ci_upper: float
    confidence_level: float
    mean_cost: float
    n: int
    n_clusters: int | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The rows that policies are valued on.

    Attributes:
        scores: Doubly robust scores, shape (n, m + 1).
        cost: Cost of every treatment, shape (m,) or (n, m); `None`: outcomes as they are.
        weights: Rows of the population that a row stands for; `None`: equally many.
        clusters: Cluster of each row, shape (n,); `None`: rows are independent.
        confidence_level: Nominal coverage.
    """

    scores: Array
    cost: Array | None = None
    weights: Array | None = None
    clusters: NDArray[np.generic] | None = None
    confidence_level: float = 0.95

    @property
    def costs(self) -> Array:
        """Cost of every arm in every row, shape (n, m + 1)."""
        out = np.zeros(self.scores.shape)
        if self.cost is not None:
            out[:, 1:] = _costs(self.scores[:, 1:], self.cost)
        return out


def policy_value(
    rows: Evaluation, policy: NDArray[np.generic], *, against: NDArray[np.generic] | None = None
) -> PolicyValue:
    """The value of a policy, or how much more it is worth than another one, with an interval.

    The rows must not have been used to learn the policy or the models of the scores. A weighted
    mean; its errors allow for unequal variances, or for clusters with G/(G-1) and t on G - 1.

    Args:
        rows: The rows.
        policy: The arm of each row, shape (n,), or chances of all arms, shape (n, m + 1).
        against: A policy to compare with.

    Raises:
        DataError: A policy does not fit the rows.
        InferenceError: There are too few rows or clusters.
    """
    chances = _chances(policy, rows.scores.shape)
    if against is not None:
        chances = chances - _chances(against, rows.scores.shape)
    n = len(chances)
    weights = np.ones(n) if rows.weights is None else rows.weights
    spent = (chances * rows.costs).sum(axis=1)
    values = (chances * rows.scores).sum(axis=1) - spent
    estimate = float(weights @ values / weights.sum())
    influence = weights * (values - estimate) / weights.sum()
    df, n_clusters, count = None, None, n
    if rows.clusters is not None:
        names, groups = np.unique(rows.clusters, return_inverse=True)
        influence = np.bincount(groups.ravel(), influence, len(names))
        n_clusters = count = len(names)
        df = float(count - 1)
    if count < _MIN_ROWS:
        raise InferenceError("an interval needs two or more rows or clusters", given=count)
    std_error = float(np.sqrt((influence**2).sum() * count / (count - 1)))
    half = critical_value(rows.confidence_level, df=df) * std_error
    return PolicyValue(
        estimate=estimate,
        std_error=std_error,
        ci_lower=estimate - half,
        ci_upper=estimate + half,
        confidence_level=rows.confidence_level,
        mean_cost=float(weights @ spent / weights.sum()),
        n=n,
        n_clusters=n_clusters,
    )


def _chances(policy: NDArray[np.generic], shape: tuple[int, ...]) -> Array:
    if policy.shape == shape:
        chances = policy.astype(np.float64)
        if (chances < 0).any() or not np.allclose(chances.sum(axis=1), 1.0, atol=1e-9):
            raise DataError("chances of the arms are not negative and sum to 1 in every row")
        return chances
    if policy.shape != shape[:1] or not np.issubdtype(policy.dtype, np.integer):
        raise DataError(
            "a policy is an arm number for each row, or chances of all arms",
            given=list(policy.shape), allowed=[list(shape[:1]), list(shape)],
        )  # fmt: skip
    if policy.min() < 0 or policy.max() >= shape[1]:
        raise DataError("a policy gives an arm that has no score", given=int(policy.max()))
    return np.eye(shape[1])[policy.astype(np.intp)]
