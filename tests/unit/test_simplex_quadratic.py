"""Penalised synthetic control: exact weights, its limits, and the choice of the penalty."""

import numpy as np
import pytest

from causal.core.gram import Array
from causal.quasi.synthetic.donor_fit import Task, outcome_fit, penalised_fit
from causal.quasi.synthetic.simplex_least_squares import simplex_weights
from causal.quasi.synthetic.simplex_quadratic import quadratic_weights
from tests.convex_programs import simplex_program


def objective(weights: Array, distances: Array, slopes: Array) -> float:
    return float(((distances @ weights) ** 2).sum() + slopes @ weights)


def regions(seed: int, *, n: int = 16, n_periods: int = 14) -> Array:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(2, n_periods)).cumsum(axis=1)
    return 20 + rng.uniform(0, 2, (n, 2)) @ factors + rng.normal(size=(n, n_periods))


def task(values: Array, *, n_pre: int = 10) -> Task:
    return Task(
        values=values, target=0, donors=np.arange(1, len(values)), n_pre=n_pre,
        matched=np.arange(n_pre),
    )  # fmt: skip


@pytest.mark.parametrize("penalty", [1e-4, 0.01, 0.3, 5.0])
@pytest.mark.parametrize("seed", range(5))
def test_penalised_weights_are_those_of_a_general_solver(seed: int, penalty: float) -> None:
    item = task(regions(seed))
    distances = item.pool - item.goal[:, None]
    slopes = penalty * (distances**2).sum(axis=0)

    found = penalised_fit(item, penalty=penalty).weights
    reference = simplex_program(item.pool, item.goal, slopes=slopes)

    assert objective(found, distances, slopes) <= objective(reference, distances, slopes) + 1e-12
    np.testing.assert_allclose(found, reference, atol=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_the_weights_fulfil_the_conditions_of_a_minimum(seed: int) -> None:
    """More donors than periods, repeated donors, any linear part."""
    rng = np.random.default_rng(seed)
    n_periods, n_donors = rng.integers(1, 9), rng.integers(2, 30)
    distances = rng.normal(size=(n_periods, n_donors))
    distances[:, -1] = distances[:, 0]
    slopes = rng.normal(size=n_donors) * 10.0 ** rng.uniform(-3, 2)

    weights = quadratic_weights(distances, slopes)
    slope = 2 * distances.T @ (distances @ weights) + slopes

    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-13)
    assert slope @ weights - slope.min() < 1e-10 * max(1.0, np.abs(slopes).max())


def test_without_a_linear_part_it_is_least_squares_on_the_simplex() -> None:
    values = regions(7, n=8)
    pool, goal = values[1:].T, values[0]

    found = quadratic_weights(pool - goal[:, None], np.zeros(7))

    np.testing.assert_allclose(found, simplex_weights(pool, goal), atol=1e-10)


def test_no_penalty_is_synthetic_control_and_a_large_one_the_nearest_donor() -> None:
    item = task(regions(3))
    nearest = int(((item.pool - item.goal[:, None]) ** 2).sum(axis=0).argmin())

    np.testing.assert_array_equal(
        penalised_fit(item, penalty=0.0).weights, outcome_fit(item).weights
    )
    assert penalised_fit(item, penalty=1e6).weights[nearest] == 1.0


def test_the_fit_gets_worse_and_the_donors_nearer_as_the_penalty_grows() -> None:
    item = task(regions(4))
    distances = ((item.pool - item.goal[:, None]) ** 2).sum(axis=0)
    fits = [penalised_fit(item, penalty=p) for p in (0.0, 1e-3, 1e-2, 0.1, 1.0, 10.0)]

    assert np.diff([fit.pre_mspe for fit in fits]).min() >= -1e-12
    assert np.diff([distances @ fit.weights for fit in fits]).max() <= 1e-9


def test_the_chosen_penalty_fits_the_held_out_quarter_best() -> None:
    values = regions(5)
    item = task(values)
    early = Task(
        values=values, target=0, donors=item.donors, n_pre=item.n_pre, matched=np.arange(8)
    )
    late = np.arange(8, 10)

    def held_out(penalty: float) -> float:
        return float((penalised_fit(early, penalty=penalty).gaps[late] ** 2).sum())

    chosen = penalised_fit(item).penalty

    assert chosen is not None
    assert held_out(chosen) <= min(held_out(10.0 ** (k / 3)) for k in range(-15, 7)) * (1 + 1e-8)
    np.testing.assert_array_equal(
        penalised_fit(item).weights, penalised_fit(item, penalty=chosen).weights
    )


def test_the_weights_do_not_depend_on_the_unit_of_the_outcome() -> None:
    values = regions(6)

    one, other = penalised_fit(task(values)), penalised_fit(task(values * 1e6))

    assert one.penalty == other.penalty
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-10)
