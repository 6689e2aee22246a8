"""The simplex weights are those of a quadratic program, to the last digits that matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal.core.gram import Array
from causal.quasi.synthetic.frank_wolfe import frank_wolfe_weights
from causal.quasi.synthetic.simplex_least_squares import is_unique, simplex_weights
from tests.convex_programs import simplex_program


def problem(seed: int, *, n_rows: int, n_donors: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    donors = rng.normal(size=(n_rows, n_donors)).cumsum(axis=0)
    target = donors @ rng.dirichlet(np.ones(n_donors)) + 0.3 * rng.normal(size=n_rows)
    return donors, target


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_weights_are_those_of_a_quadratic_program(seed: int, ridge: float) -> None:
    donors, target = problem(seed, n_rows=20, n_donors=12)
    weights = simplex_weights(donors, target, ridge=ridge)

    np.testing.assert_allclose(weights, simplex_program(donors, target, ridge=ridge), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_an_intercept_is_a_free_constant_of_the_program(seed: int) -> None:
    donors, target = problem(seed, n_rows=20, n_donors=12)
    weights = simplex_weights(donors, target + 50.0, has_intercept=True)
    program = simplex_program(donors, target + 50.0, has_intercept=True)

    np.testing.assert_allclose(weights, program, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000), n_rows=st.integers(2, 30), n_donors=st.integers(1, 40),
    scale=st.sampled_from([1e-6, 1.0, 1e8]), ridge=st.sampled_from([0.0, 1e-9, 1.0]),
)  # fmt: skip
def test_no_direction_improves_on_the_weights(
    seed: int, n_rows: int, n_donors: int, scale: float, ridge: float
) -> None:
    """The conditions of Karush, Kuhn and Tucker."""
    donors, target = problem(seed, n_rows=n_rows, n_donors=n_donors)
    weights = simplex_weights(donors * scale, target * scale, ridge=ridge * scale**2)
    distances = donors - target[:, None]
    slopes = distances.T @ (distances @ weights) + ridge * weights
    size = max(1.0, float(np.abs(distances.T @ distances).max()))

    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert slopes.min() >= slopes @ weights - 1e-9 * size


def test_a_donor_that_equals_the_target_takes_all_weight() -> None:
    donors, _ = problem(3, n_rows=10, n_donors=5)

    np.testing.assert_allclose(simplex_weights(donors, donors[:, 2]), np.eye(5)[2], atol=1e-12)


def test_a_target_outside_the_hull_takes_the_nearest_vertex() -> None:
    donors = np.array([[1.0, 2.0], [1.0, 3.0]])

    np.testing.assert_allclose(simplex_weights(donors, np.array([9.0, 9.0])), [0.0, 1.0])


def test_two_equal_donors_leave_a_choice() -> None:
    donors, target = problem(4, n_rows=15, n_donors=4)
    twice = np.column_stack([donors, donors[:, np.argmax(simplex_weights(donors, target))]])

    assert is_unique(simplex_weights(donors, target), donors, target, has_intercept=False)
    assert not is_unique(simplex_weights(twice, target), twice, target, has_intercept=False)


def test_frank_wolfe_approaches_the_exact_weights() -> None:
    donors, target = problem(5, n_rows=40, n_donors=6)
    exact = simplex_weights(donors, target, ridge=40 * 0.8**2, has_intercept=True)
    stopped = frank_wolfe_weights(donors, target, zeta=0.8, min_decrease=1e-7, has_intercept=True)

    np.testing.assert_allclose(stopped, exact, atol=1e-3)
