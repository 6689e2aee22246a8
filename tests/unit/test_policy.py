"""Allocation under a budget against exact solvers, and values of policies."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, stats

from causal.core.errors import CausalError
from causal.uplift.policy import (
    Evaluation,
    allocate,
    best_treatment,
    doubly_robust_scores,
    policy_value,
)


def solved(gain: Any, cost: Any, budget: float, *, whole: bool) -> float:
    """The best gain by HiGHS: whole treatments, or shares of them."""
    n, m = gain.shape
    one_each = np.kron(np.eye(n), np.ones(m))
    found = optimize.milp(
        -gain.ravel(),
        constraints=[
            optimize.LinearConstraint(one_each, ub=1.0),
            optimize.LinearConstraint(
                np.broadcast_to(cost, gain.shape).ravel()[None, :], ub=budget
            ),
        ],
        bounds=optimize.Bounds(0.0, 1.0),
        integrality=np.full(n * m, int(whole)),
    )
    return float(-found.fun)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("per_unit", [False, True])
def test_allocation_is_the_relaxed_optimum_up_to_one_step(seed: int, *, per_unit: bool) -> None:
    rng = np.random.default_rng(seed)
    gain = rng.normal(0.5, 1.0, (25, 3))
    cost = rng.uniform(0.2, 2.0, gain.shape if per_unit else 3)
    for budget in (0.0, 3.0, 11.0, 500.0):
        found = allocate(gain, cost=cost, budget=budget)
        at = np.arange(25)[found.treatment > 0]
        chosen = (at, found.treatment[at] - 1)
        costs = np.broadcast_to(cost, gain.shape)

        assert found.cost <= budget + 1e-9
        assert found.gain == pytest.approx(gain[chosen].sum())
        assert found.cost == pytest.approx(costs[chosen].sum())
        assert found.bound == pytest.approx(solved(gain, cost, budget, whole=False), abs=1e-7)
        exact = solved(gain, cost, budget, whole=True)
        assert found.gain <= exact + 1e-7
        assert exact - found.gain <= gain.max() + 1e-9


def test_the_price_is_the_rule_for_other_units() -> None:
    rng = np.random.default_rng(4)
    gain, cost = rng.normal(0.3, 1.0, (4000, 5)), np.array([1.0, 0.5, 2.0, 0.2, 0.0])
    found = allocate(gain, cost=cost, budget=700.0)
    ruled = best_treatment(gain, cost=cost, price=found.price)

    assert (ruled != found.treatment).sum() <= 1
    assert found.n_units.sum() == 4000
    free = allocate(gain, cost=cost)
    assert free.price == 0.0
    assert free.gain == pytest.approx(np.maximum(gain.max(axis=1), 0).sum())


def test_nobody_is_treated_at_a_loss() -> None:
    found = allocate(np.full((4, 2), -1.0), cost=np.array([1.0, 0.0]), budget=10.0)
    assert found.treatment.tolist() == [0, 0, 0, 0]
    assert (found.gain, found.cost, found.bound) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cost": np.array([1.0, -1.0])}, "not negative"),
        ({"cost": np.array([1.0])}, "one per treatment"),
        ({"cost": np.array([1.0, np.nan])}, "finite"),
        ({"cost": np.array([1.0, 1.0]), "budget": -1.0}, "budget"),
    ],
)
def test_odd_costs_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CausalError, match=message):
        allocate(np.ones((3, 2)), **arguments)


def logged(rng: np.random.Generator, *, n: int) -> tuple[dict[str, Any], Any]:
    """Three arms, chosen with chances that depend on x; arm 1 is good where x is positive."""
    x = rng.normal(size=n)
    odds = np.exp(np.column_stack([np.zeros(n), 0.6 * x, -0.4 * x]))
    chances = odds / odds.sum(axis=1, keepdims=True)
    t = (rng.uniform(size=n)[:, None] > np.cumsum(chances, axis=1)).sum(axis=1)
    means = np.column_stack([x, x + np.where(x > 0, 1.0, -1.0), x + 0.2])
    y = means[np.arange(n), t] + rng.normal(size=n)
    rough = np.column_stack([0.8 * x, 0.8 * x, 0.8 * x])  # wrong, as models are
    given = {"outcome": y, "treatment": t, "predictions": rough, "propensities": chances}
    return given, x


def test_intervals_of_a_policys_value_cover_it() -> None:
    """E[x + 1{x > 0}] - 0.1 / 2 = 0.45 for the policy that gives arm 1 where x is positive."""
    rng = np.random.default_rng(12)
    n_draws, covered, gaps, estimates = 300, 0, 0, []
    cost = np.array([0.1, 0.3])
    for _ in range(n_draws):
        given, x = logged(rng, n=400)
        rows = Evaluation(scores=doubly_robust_scores(**given), cost=cost)
        policy = (x > 0).astype(np.int64)
        found = policy_value(rows, policy)
        more = policy_value(rows, policy, against=np.full(len(x), 2))
        covered += found.ci_lower < 0.45 < found.ci_upper
        gaps += more.ci_lower < 0.45 - (0.2 - 0.3) < more.ci_upper
        estimates.append(found.estimate)

    assert stats.binomtest(covered, n_draws, 0.95).pvalue > 1e-3
    assert stats.binomtest(gaps, n_draws, 0.95).pvalue > 1e-3
    assert np.mean(estimates) == pytest.approx(0.45, abs=4 * np.std(estimates) / n_draws**0.5)


def test_errors_are_those_of_a_regression_on_a_constant() -> None:
    given, x = logged(np.random.default_rng(3), n=600)
    scores = doubly_robust_scores(**given)
    policy = (x > 0).astype(np.int64)
    values = scores[np.arange(600), policy]
    weights, groups = np.random.default_rng(4).uniform(0.5, 2, 600), np.arange(600) % 40
    plain = sm.OLS(values, np.ones(600)).fit()
    weighed = sm.WLS(values, np.ones(600), weights=weights).fit(cov_type="HC1")
    grouped = sm.WLS(values, np.ones(600), weights=weights).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )

    for rows, fit in (
        (Evaluation(scores=scores), plain),
        (Evaluation(scores=scores, weights=weights), weighed),
        (Evaluation(scores=scores, weights=weights, clusters=groups), grouped),
    ):
        found = policy_value(rows, policy)
        assert found.estimate == pytest.approx(fit.params[0], rel=1e-10)
        assert found.std_error == pytest.approx(fit.bse[0], rel=1e-10)
    assert [found.ci_lower, found.ci_upper] == pytest.approx(grouped.conf_int()[0], rel=1e-10)


def test_chances_are_policies_too() -> None:
    given, x = logged(np.random.default_rng(5), n=300)
    rows = Evaluation(scores=doubly_robust_scores(**given))
    arms = np.random.default_rng(6).integers(0, 3, 300)

    assert policy_value(rows, np.eye(3)[arms]) == policy_value(rows, arms)
    assert policy_value(rows, arms, against=arms).estimate == 0.0
    mixed = policy_value(rows, np.full((300, 3), 1 / 3)).estimate
    each = [policy_value(rows, np.full(len(x), arm)).estimate for arm in range(3)]
    assert mixed == pytest.approx(np.mean(each))


def test_exact_predictions_or_exact_chances_are_enough() -> None:
    """Doubly robust: unbiased where the predictions are right and the chances are not."""
    rng = np.random.default_rng(7)
    n = 40_000
    x = rng.normal(size=n)
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-x))).astype(np.int64)
    y = x + t * x**2 + rng.normal(size=n)
    right = {
        "predictions": np.column_stack([x, x + x**2]),
        "propensities": np.column_stack([1 / (1 + np.exp(x)), 1 / (1 + np.exp(-x))]),
    }
    wrong = {"predictions": np.zeros((n, 2)), "propensities": np.full((n, 2), 0.5)}
    for name in right:
        given = {**right, name: wrong[name]}
        scores = doubly_robust_scores(outcome=y, treatment=t, **given)
        found = policy_value(Evaluation(scores=scores), np.ones(n, dtype=np.int64))
        assert abs(found.estimate - 1.0) < 4 * found.std_error, name
    scores = doubly_robust_scores(outcome=y, treatment=t, **wrong)
    both = policy_value(Evaluation(scores=scores), np.ones(n, dtype=np.int64))
    assert abs(both.estimate - 1.0) > 4 * both.std_error


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (np.array([0, 1, 3]), "no score"),
        (np.array([0.0, 1.0, 1.0]), "arm number"),
        (np.full((3, 3), 0.5), "sum to 1"),
        (np.array([0, 1]), "arm number"),
    ],
)
def test_policies_that_do_not_fit_are_refused(policy: Any, message: str) -> None:
    with pytest.raises(CausalError, match=message):
        policy_value(Evaluation(scores=np.ones((3, 3))), policy)


def test_chances_of_zero_are_refused() -> None:
    given, _ = logged(np.random.default_rng(5), n=50)
    given["propensities"] = np.zeros((50, 3))
    with pytest.raises(CausalError, match="above 0"):
        doubly_robust_scores(**given)


def test_the_frame_of_a_policy() -> None:
    """Segments are reported by the rows of the segment."""
    given, x = logged(np.random.default_rng(9), n=400)
    scores = doubly_robust_scores(**given)
    table = pd.DataFrame({"is_high": x > 0, "value": scores[:, 1] - scores[:, 0]})
    means = table.groupby("is_high")["value"].mean()
    for is_high in (False, True):
        own = (x > 0) == is_high
        rows = Evaluation(scores=scores[own])
        ones, zeros = np.ones(own.sum(), dtype=np.int64), np.zeros(own.sum(), dtype=np.int64)
        assert policy_value(rows, ones, against=zeros).estimate == pytest.approx(means[is_high])
