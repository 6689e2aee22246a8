"""Coverage of the intervals of purchase and spend models in worlds of their own making."""

import numpy as np
import pytest

from causal.clv.cells import cells_of, rows_of
from causal.clv.fitting import fit_spend
from causal.clv.gamma_gamma import spend_cells
from causal.clv.lifetime_value import total_purchases
from causal.clv.maximum_likelihood import Fit, observed_information
from causal.clv.models import MODELS, ModelName, fit_purchases
from tests import purchase_worlds

TRUTHS: dict[ModelName, list[float]] = {
    "bg_nbd": [0.6, 5.0, 0.9, 2.5],
    "pareto_nbd": [0.8, 6.0, 0.7, 9.0],
    "bg_bb": [1.2, 0.75, 0.66, 2.8],
}
SPEND = np.array([6.0, 4.0, 15.0])
ERRORS = 3.5
"""Half-width of a band in binomial standard errors."""


def in_band(covered: np.ndarray, level: float = 0.95) -> bool:
    """Every column's share is within the binomial band around the nominal level."""
    share = covered.mean(axis=0)
    half = ERRORS * np.sqrt(level * (1 - level) / len(covered))
    return bool((np.abs(share - level) <= half).all())


def covers(fit: Fit, truth: np.ndarray) -> np.ndarray:
    ends = fit.interval(0.95)
    return np.asarray((ends[:, 0] <= truth) & (truth <= ends[:, 1]))


def purchase_coverage(name: ModelName, *, n_worlds: int, n: int, seed: int) -> np.ndarray:
    """Whether the intervals of parameters and of expected later purchases hold the truth."""
    rng = np.random.default_rng(seed)
    truth = np.array(TRUTHS[name])
    rows = []
    for _ in range(n_worlds):
        age = rng.integers(8, 13, n) * 1.0 if name == "bg_bb" else rng.integers(26, 53, n) * 1.0
        cells = cells_of(*purchase_worlds.WORLDS[name](rng, truth, age))
        fit = fit_purchases(name, cells)
        later = total_purchases(fit, cells, t=10.0)
        expected = cells.count @ MODELS[name].conditional_purchases(truth, cells, 10.0)
        is_inside = later.ci_lower[0] <= expected <= later.ci_upper[0]
        rows.append([*covers(fit, truth), is_inside])
    return np.array(rows)


def spend_coverage(*, n_worlds: int, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n_worlds):
        frequency = rng.integers(1, 7, n) * 1.0
        fit = fit_spend(spend_cells(frequency, purchase_worlds.spend(rng, SPEND, frequency)))
        rows.append(covers(fit, SPEND))
    return np.array(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("bg_nbd", 400_000), ("bg_bb", 100_000)])
def test_scores_are_centred_and_their_spread_is_the_information(name: ModelName, n: int) -> None:
    """At the truth: what makes the likelihood's maximum and its errors right in large samples."""
    rng = np.random.default_rng(77)
    truth = np.array(TRUTHS[name])
    age = rng.integers(8, 13, n) * 1.0 if name == "bg_bb" else rng.integers(26, 53, n) * 1.0
    rows = rows_of(*purchase_worlds.WORLDS[name](rng, truth, age))
    _, gradient = MODELS[name].log_likelihood(truth, rows)
    spread = gradient.T @ gradient
    information = observed_information(
        lambda theta: MODELS[name].log_likelihood(theta, rows), np.log(truth), count=rows.count
    )

    assert (np.abs(gradient.sum(axis=0)) < 4 * np.sqrt(np.diag(spread))).all()
    np.testing.assert_allclose(information, spread, rtol=0.05)


@pytest.mark.validation
@pytest.mark.parametrize("name", ["bg_nbd", "bg_bb"])
def test_intervals_of_purchase_models_hold_the_truth(name: ModelName) -> None:
    """With a few thousand customers the normal intervals of a, b and r still fall short."""
    assert in_band(purchase_coverage(name, n_worlds=200, n=30_000, seed=11))


@pytest.mark.slow
def test_intervals_of_spend_hold_the_truth() -> None:
    assert in_band(spend_coverage(n_worlds=60, n=1500, seed=12))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bg_nbd", "pareto_nbd", "bg_bb"])
def test_many_customers_recover_the_parameters(name: ModelName) -> None:
    rng = np.random.default_rng(13)
    truth = np.array(TRUTHS[name])
    n = 10_000
    age = rng.integers(8, 13, n) * 1.0 if name == "bg_bb" else rng.integers(20, 53, n) * 1.0
    frequency, recency, age = purchase_worlds.WORLDS[name](rng, truth, age)
    if name != "bg_bb":
        recency = np.minimum(np.ceil(recency * 7) / 7, age)
    fit = fit_purchases(name, cells_of(frequency, recency, age))
    assert (np.abs(fit.parameters - truth) < 4 * fit.std_errors).all()
    assert (fit.std_errors < 0.35 * truth).all()


@pytest.mark.validation
def test_intervals_of_spend_hold_the_truth_in_many_worlds() -> None:
    assert in_band(spend_coverage(n_worlds=2000, n=2000, seed=22))
