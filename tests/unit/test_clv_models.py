"""The models of purchases against their definitions: integrals, sums and derivatives."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from causal.clv import bg_bb, bg_nbd, gamma_gamma, pareto_nbd
from causal.clv.cells import Cells, cells_of
from causal.clv.gamma_gamma import spend_cells
from causal.clv.models import MODELS
from causal.core.errors import DataError, InferenceError

HISTORIES = cells_of(
    [0, 0, 1, 2, 7, 40, 3, 1],
    [0, 0, 3.5, 20, 38, 30.1, 0.2, 39],
    [0, 39, 39, 38, 38.5, 39, 30, 39],
)
OPPORTUNITIES = cells_of([0, 0, 1, 2, 5, 3, 6], [0, 0, 2, 6, 5, 4, 6], [0, 6, 6, 6, 6, 5, 6])
CONTINUOUS = {"bg_nbd": (0.24, 4.4, 0.8, 2.4), "pareto_nbd": (0.55, 10.6, 0.6, 11.7)}
ALL = {**CONTINUOUS, "bg_bb": (1.2, 0.75, 0.66, 2.8)}
positive = st.floats(0.05, 20)


def cells_for(name: str) -> Cells:
    return OPPORTUNITIES if name == "bg_bb" else HISTORIES


def one(x: float, recency: float, age: float) -> Cells:
    return cells_of([x], [recency], [age])


@pytest.mark.parametrize("name", ALL)
@given(factor=st.tuples(*[st.floats(0.2, 5)] * 4))
def test_gradients_are_the_derivatives(name: str, factor: tuple[float, ...]) -> None:
    model, cells = MODELS[name], cells_for(name)
    logs = np.log(np.array(ALL[name]) * factor)
    _, gradient = model.log_likelihood(np.exp(logs), cells)
    for position, direction in enumerate(np.eye(4) * 1e-5):
        up, down = (
            model.log_likelihood(np.exp(logs + sign * direction), cells)[0] for sign in (1, -1)
        )
        np.testing.assert_allclose(gradient[:, position], (up - down) / 2e-5, rtol=1e-5, atol=1e-6)


def test_gradient_of_gamma_gamma() -> None:
    cells = spend_cells([1, 2, 30], [5.0, 80.0, 31.0])
    logs = np.log([6.25, 3.74, 15.4])
    _, gradient = gamma_gamma.log_likelihood(np.exp(logs), cells)
    for position, direction in enumerate(np.eye(3) * 1e-5):
        up, down = (
            gamma_gamma.log_likelihood(np.exp(logs + sign * direction), cells)[0]
            for sign in (1, -1)
        )
        np.testing.assert_allclose(gradient[:, position], (up - down) / 2e-5, rtol=1e-6)


@given(r=positive, alpha=positive, s=positive, beta=positive, x=st.sampled_from([0, 1, 6, 80]))
def test_pareto_likelihood_is_its_integral(
    r: float, alpha: float, s: float, beta: float, x: int
) -> None:
    recency, age = (0.0 if x == 0 else 7.0), 31.0

    def integrand(u: float) -> float:
        logs = (r + x) * np.log((alpha + u) / (alpha + recency))
        return float(np.exp(-logs - (s + 1) * np.log((beta + u) / (beta + recency))))

    rate = (r + x) / (alpha + recency) + (s + 1) / (beta + recency)
    edges = [recency, *(recency + k / rate for k in (1, 6, 30) if recency + k / rate < age), age]
    inside = sum(
        integrate.quad(integrand, low, high, epsabs=0, epsrel=1e-12)[0]
        for low, high in itertools.pairwise(edges)
    )
    there = -(r + x) * np.log(alpha + age) - s * np.log(beta + age)
    gone = np.log(s * inside) - (r + x) * np.log(alpha + recency) - (s + 1) * np.log(beta + recency)
    expected = (
        special.gammaln(r + x) - special.gammaln(r) + r * np.log(alpha) + s * np.log(beta)
        + np.logaddexp(there, gone)
    )  # fmt: skip
    theta = np.array([r, alpha, s, beta])
    found, _ = pareto_nbd.log_likelihood(theta, one(x, recency, age))
    assert found[0] == pytest.approx(expected, abs=1e-9)
    alive = pareto_nbd.alive(theta, one(x, recency, age))[0]
    assert alive == pytest.approx(special.expit(there - gone), rel=1e-9)


def test_pareto_likelihood_is_that_of_the_hypergeometric_form() -> None:
    r, alpha, s, beta = 0.55, 10.6, 0.61, 11.7
    x, recency, age = 3.0, 12.0, 38.0
    total = r + s + x
    parts = [
        special.hyp2f1(total, r + x, total + 1, (beta - alpha) / (beta + t)) / (beta + t) ** total
        for t in (recency, age)
    ]
    value = (
        special.gammaln(r + x) - special.gammaln(r) + r * np.log(alpha) + s * np.log(beta)
        + np.log((alpha + age) ** -(r + x) * (beta + age) ** -s
                 + s / total * (parts[0] - parts[1]))
    )  # fmt: skip
    found, _ = pareto_nbd.log_likelihood(np.array([r, alpha, s, beta]), one(x, recency, age))
    assert found[0] == pytest.approx(value, abs=1e-11)


def test_bg_nbd_likelihood_is_that_of_the_paper() -> None:
    r, alpha, a, b = 0.24, 4.4, 0.8, 2.4
    x, recency, age = 3.0, 12.0, 38.0
    stays = special.beta(a, b + x) / special.beta(a, b) * (alpha + age) ** -(r + x)
    leaves = special.beta(a + 1, b + x - 1) / special.beta(a, b) * (alpha + recency) ** -(r + x)
    value = np.log(special.gamma(r + x) * alpha**r / special.gamma(r) * (stays + leaves))
    found, _ = bg_nbd.log_likelihood(np.array([r, alpha, a, b]), one(x, recency, age))
    assert found[0] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("x", [0, 1, 5, 60, 500])
@pytest.mark.parametrize("a", [0.1, 0.999999, 1.0, 1.000004, 2.5, 12.0])
def test_bg_nbd_expectation_is_its_integral(x: int, a: float) -> None:
    r, alpha, b, age, t = 0.7, 3.0, 0.4, 20.0, 15.0
    k, reach = r + x, t / (alpha + age)
    y = np.linspace(-60 / min(a, 1), 40 / b, 400_001)
    p = special.expit(y)
    density = np.exp(
        a * special.log_expit(y) + (b + x) * special.log_expit(-y) - special.betaln(a, b + x)
    )
    bought = np.where(p > 1e-290, -np.expm1(-k * np.log1p(p * reach)) / p.clip(1e-290), k * reach)
    integral = np.trapezoid(density * bought, y)
    theta = np.array([r, alpha, a, b])
    cells = one(x, 0 if x == 0 else 18.0, age)
    found = bg_nbd.conditional_purchases(theta, cells, t)[0]
    assert found == pytest.approx(integral * bg_nbd.alive(theta, cells)[0], rel=1e-7)


def test_bg_nbd_expectation_where_a_and_b_add_to_one() -> None:
    near, at = (
        bg_nbd.expected_purchases(np.array([0.3, 4.0, a, 0.6]), np.array([30.0]))[0]
        for a in (0.4 + 3e-5, 0.4)
    )
    assert at == pytest.approx(near, rel=1e-4)


def test_pareto_expectations_are_continuous_where_s_is_one() -> None:
    values = [
        pareto_nbd.conditional_purchases(np.array([0.5, 9.0, s, 12.0]), HISTORIES, 26.0)
        for s in (1 - 1e-9, 1.0, 1 + 1e-9)
    ]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-7)
    np.testing.assert_allclose(values[2], values[1], rtol=1e-7)


@pytest.mark.parametrize("gamma", [0.66, 1.0, 3.0])
def test_bg_bb_is_the_sum_over_every_time_of_leaving(gamma: float) -> None:
    alpha, beta, delta = 1.2, 0.75, 2.8
    x, recency, n, ahead = 2, 3, 6, 4
    theta = np.array([alpha, beta, gamma, delta])

    def lived(periods: int, bought: int) -> float:
        """Buying so often, then leaving right after so many opportunities."""
        return float(
            special.beta(alpha + bought, beta + periods - bought) / special.beta(alpha, beta)
            * special.beta(gamma + 1, delta + periods) / special.beta(gamma, delta)
        )  # fmt: skip

    # Leaving after 3, 4, ... opportunities; the tail beyond n is "still there".
    still = (
        special.beta(alpha + x, beta + n - x) / special.beta(alpha, beta)
        * special.beta(gamma, delta + n) / special.beta(gamma, delta)
    )  # fmt: skip
    likelihood = sum(lived(k, x) for k in range(recency, n)) + still
    found, _ = bg_bb.log_likelihood(theta, one(x, recency, n))
    assert np.exp(found[0]) == pytest.approx(likelihood, rel=1e-12)
    survive = [
        special.beta(gamma, delta + n + k) / special.beta(gamma, delta) for k in range(1, ahead + 1)
    ]
    buys = special.beta(alpha + x + 1, beta + n - x) / special.beta(alpha, beta) / likelihood
    later = bg_bb.conditional_purchases(theta, one(x, recency, n), ahead)[0]
    assert later == pytest.approx(buys * sum(survive), rel=1e-7)
    next_one = bg_bb.alive(theta, one(x, recency, n))[0]
    chance = special.beta(alpha + x, beta + n - x) / special.beta(alpha, beta) / likelihood
    assert next_one == pytest.approx(chance * survive[0], rel=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_probabilities_add_up_and_have_the_expected_mean(name: str) -> None:
    model, theta, t = MODELS[name], np.array(ALL[name]), 12.0
    n_max = 12 if name == "bg_bb" else 600
    chances = model.purchase_probabilities(theta, t, n_max)
    assert chances.sum() == pytest.approx(1, abs=1e-10)
    mean = model.expected_purchases(theta, np.array([t]))[0]
    assert np.arange(n_max + 1) @ chances == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_probabilities_and_likelihood_agree_on_nobody_buying(name: str) -> None:
    model, theta = MODELS[name], np.array(ALL[name])
    none, _ = model.log_likelihood(theta, one(0, 0, 9))
    assert np.exp(none[0]) == pytest.approx(model.purchase_probabilities(theta, 9.0, 0)[0])


@pytest.mark.parametrize("name", ALL)
def test_what_is_expected_of_a_new_customer_is_unconditional(name: str) -> None:
    model, theta = MODELS[name], np.array(ALL[name])
    new = model.conditional_purchases(theta, one(0, 0, 0), 7.0)[0]
    assert new == pytest.approx(model.expected_purchases(theta, np.array([7.0]))[0], rel=1e-9)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_heavy_buyers_overflow_nothing(name: str) -> None:
    model, theta = MODELS[name], np.array(CONTINUOUS[name])
    heavy = cells_of([3000, 900], [364.95, 5.0], [365.0, 365.0])
    value, gradient = model.log_likelihood(theta, heavy)
    later = model.conditional_purchases(theta, heavy, 30.0)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    assert later[1] == pytest.approx(3000 / 365 * 30, rel=0.2)
    assert 0 <= later[0] < 1e-6


def test_spend_has_the_density_of_its_hierarchy() -> None:
    p, q, gamma = 6.25, 3.74, 15.44
    x, mean = 3.0, 30.0

    def joint(nu: float) -> float:
        """The mean of x Gamma(p, nu) purchases is Gamma(p x, nu x)."""
        logs = p * x * np.log(nu * x) + (p * x - 1) * np.log(mean) - nu * x * mean
        prior = q * np.log(gamma) + (q - 1) * np.log(nu) - gamma * nu - special.gammaln(q)
        return float(np.exp(logs - special.gammaln(p * x) + prior))

    density = integrate.quad(joint, 0, 3, epsrel=1e-12, points=[0.2])[0]
    found, _ = gamma_gamma.log_likelihood(np.array([p, q, gamma]), spend_cells([x], [mean]))
    assert np.exp(found[0]) == pytest.approx(density, rel=1e-9)
    posterior = integrate.quad(lambda nu: p / nu * joint(nu), 0, 3, epsrel=1e-12, points=[0.2])[0]
    value = gamma_gamma.conditional_value(np.array([p, q, gamma]), [x], [mean])[0]
    assert value == pytest.approx(posterior / density, rel=1e-8)
    everyone = gamma_gamma.conditional_value(np.array([p, q, gamma]), [0.0], [np.nan])[0]
    assert everyone == pytest.approx(gamma_gamma.population_mean(np.array([p, q, gamma])))


def test_infinite_mean_spend_is_refused() -> None:
    with pytest.raises(InferenceError, match="q <= 1"):
        gamma_gamma.conditional_value(np.array([2.0, 0.9, 10.0]), [0.0], [0.0])


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (([1.5], [1.0], [2.0]), "whole number"),
        (([-1], [0.0], [2.0]), "whole number"),
        (([1], [3.0], [2.0]), "recency must not exceed age"),
        (([0], [1.0], [2.0]), "recency must be 0 without"),
        (([2], [0.0], [2.0]), "recency must be positive"),
        (([2], [1.0], [np.inf]), "finite"),
        (([2], [-1.0], [3.0]), "not be negative"),
        (([1, 2], [1.0, 1.0], [2.0, 2.0], [0.0, 5.0]), "counts"),
        (([], [], []), "no customer"),
    ],
)
def test_impossible_histories_are_refused(history: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cells_of(*history)


@pytest.mark.parametrize(
    ("history", "message"),
    [(([1], [1.5], [2.0]), "whole numbers"), (([3], [2.0], [4.0]), "must not exceed recency")],
)
def test_opportunities_are_counted(history: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        bg_bb.check(cells_of(*history))


@pytest.mark.parametrize(
    ("pair", "message"),
    [(([0], [3.0]), "1 or more"), (([2], [-3.0]), "positive"), (([2], [0.0]), "positive"),
     (([2], [3.0], [0.0]), "counts"), (([], []), "no customer")],
)  # fmt: skip
def test_impossible_spend_is_refused(pair: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        spend_cells(*pair)
