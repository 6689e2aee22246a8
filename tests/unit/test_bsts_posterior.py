"""The sampler of structural time series against exact answers: statsmodels, scipy, enumeration."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother
from statsmodels.tsa.statespace.structural import UnobservedComponents

from causal.core.gram import Array
from causal.quasi.structural.convergence import effective_size, split_rhat
from causal.quasi.structural.forecast import forecast
from causal.quasi.structural.gibbs import Draws, Model, Run, sample
from causal.quasi.structural.spike_slab import CoefficientPrior, SpikeSlab
from causal.quasi.structural.state_model import Components, StateModel, initial_mean, matrices
from causal.quasi.structural.variance import VariancePrior, log_mass_below

LEVEL = VariancePrior(guess=0.01, df=32.0, upper=1.0)
RESIDUAL = VariancePrior(guess=0.2**0.5, df=50.0, upper=1.2)
SLAB = CoefficientPrior(expected_size=3.0, information=0.01, diagonal_shrinkage=0.5)


def components(*, has_slope: bool = False, seasons: tuple[tuple[int, int], ...] = ()) -> Components:
    return Components(
        has_slope=has_slope, seasons=seasons, level=LEVEL, slope=LEVEL, seasonal=LEVEL
    )


def wandering(rng: np.random.Generator, n: int, *, step: float = 0.2) -> Array:
    values = (step * rng.normal(size=n)).cumsum() + 0.6 * rng.normal(size=n)
    return np.asarray((values - values.mean()) / values.std(ddof=1))


STRUCTURES = {
    "level": ({}, [0.4, 0.2**2]),
    "slope": ({"has_slope": True}, [0.4, 0.2**2, 0.05**2]),
    "seasons": ({"seasons": ((4, 1),)}, [0.4, 0.2**2, 0.05**2]),
    "both": ({"has_slope": True, "seasons": ((4, 1),)}, [0.4, 0.2**2, 0.05**2, 0.07**2]),
}


@pytest.mark.parametrize(("shape", "variances"), STRUCTURES.values(), ids=STRUCTURES.keys())
def test_states_are_those_of_statsmodels(shape: dict, variances: list[float]) -> None:
    series = wandering(np.random.default_rng(1), 40)
    parts = components(**shape)
    model = StateModel(series, parts)
    reference = UnobservedComponents(
        series,
        level="local linear trend" if parts.has_slope else "local level",
        seasonal=4 if parts.seasons else None,
    )
    p = len(model.matrices.design)
    reference.ssm.initialize_known(initial_mean(parts, series, n_states=p), np.eye(p))
    reference.ssm.tolerance = 0  # or it takes the gain for constant once it nearly is
    expected = reference.smooth(variances)
    sigma, steps = np.sqrt(variances[0]), np.sqrt(variances[1:])
    errors, error_variances = model.one_step(np.zeros(40), sigma=sigma, steps=steps)

    np.testing.assert_allclose(
        model.smoothed(np.zeros(40), sigma=sigma, steps=steps), expected.smoothed_state.T,
        rtol=1e-10, atol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(errors, expected.forecasts_error[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(error_variances, expected.forecasts_error_cov[0, 0], rtol=1e-10)


@pytest.mark.parametrize(("shape", "variances"), STRUCTURES.values(), ids=STRUCTURES.keys())
def test_forecasts_are_those_of_statsmodels(shape: dict, variances: list[float]) -> None:
    """With variances known, means and variances of the path follow from the filter alone."""
    series, n_draws, n_later = wandering(np.random.default_rng(2), 40), 20_000, 9
    parts = components(**shape)
    p = len(matrices(parts).design)
    reference = UnobservedComponents(
        series,
        level="local linear trend" if parts.has_slope else "local level",
        seasonal=4 if parts.seasons else None,
    )
    reference.ssm.initialize_known(initial_mean(parts, series, n_states=p), np.eye(p))
    expected = reference.smooth(variances).get_forecast(n_later)
    results = reference.smooth(variances)
    rng = np.random.default_rng(3)
    last = rng.multivariate_normal(
        results.smoothed_state[:, -1], results.smoothed_state_cov[:, :, -1], size=n_draws
    )
    draws = Draws(
        coefficients=np.empty((n_draws, 0)), sigma=np.full(n_draws, np.sqrt(variances[0])),
        steps=np.tile(np.sqrt(variances[1:]), (n_draws, 1)), fitted=np.zeros((n_draws, 40)),
        last_state=last, n_chains=1,
    )  # fmt: skip
    found = forecast(draws, parts, np.empty((n_later, 0)), rng=rng)
    deviation = np.sqrt(expected.var_pred_mean)

    assert found.path.shape == (n_draws, 40 + n_later)
    error = found.path[:, 40:].mean(axis=0) - expected.predicted_mean
    assert np.abs(error / deviation).max() < 4.5 / np.sqrt(n_draws)
    np.testing.assert_allclose(
        found.path[:, 40:].var(axis=0), expected.var_pred_mean, rtol=5 * np.sqrt(2 / n_draws)
    )


def test_drawn_states_have_the_smoothers_moments() -> None:
    series, explained = wandering(np.random.default_rng(4), 15), 0.1 * np.arange(15.0)
    model = StateModel(series, components(seasons=((3, 1),)))
    rng = np.random.default_rng(5)
    settings = {"sigma": 0.5, "steps": [0.3, 0.2]}
    draws = np.array([model.draw(explained, rng=rng, **settings) for _ in range(2_000)])
    mean, spread = model.smoothed(explained, **settings), draws.std(axis=0)

    assert np.abs((draws.mean(axis=0) - mean) / spread).max() < 4.5 / np.sqrt(2_000)
    reference = UnobservedComponents(series - explained, level="local level", seasonal=3)
    reference.ssm.initialize_known(initial_mean(model.components, series, n_states=3), np.eye(3))
    variances = reference.smooth([0.5**2, 0.3**2, 0.2**2]).smoothed_state_cov
    expected = np.sqrt(np.array([np.diag(variances[:, :, at]) for at in range(15)]))
    np.testing.assert_allclose(spread, expected, rtol=5 / np.sqrt(2 * 2_000))


def test_seasons_that_last() -> None:
    """With steps of zero, effects repeat by cycle, last as long as they should and sum to zero."""
    parts = components(seasons=((3, 2),))
    system = matrices(parts)
    state, seen = np.array([0.0, 1.0, 2.0]), []
    for at in range(12):
        seen.append(float(system.design @ state))
        state = system.transition_at(at) @ state

    assert seen == [1, 1, -3, -3, 2, 2, 1, 1, -3, -3, 2, 2]
    model = StateModel(np.array(seen) + 0.01 * np.random.default_rng(0).normal(size=12), parts)
    smoothed = model.smoothed(np.zeros(12), sigma=0.01, steps=[1e-6, 1e-6])
    np.testing.assert_allclose(smoothed @ system.design, seen, atol=0.05)
    sums, counts = model.steps(smoothed)
    assert counts.tolist() == [11, 5]
    assert (sums < 1e-8).all()


def test_probabilities_of_sets_are_those_of_a_multivariate_t() -> None:
    """Integrated over coefficients and variance, the target has a multivariate t distribution."""
    rng = np.random.default_rng(6)
    X, target = rng.normal(size=(30, 4)), rng.normal(size=30)  # noqa: N806
    free = VariancePrior(guess=0.5, df=6.0, upper=1e6)
    regression = SpikeSlab(X, prior=SLAB, residual=free, max_flips=None)
    precision, share = SLAB.precision(X), SLAB.inclusion_probability(4)
    ours, expected = [], []
    for combination in product([False, True], repeat=4):
        flags = np.array(combination)
        block = np.linalg.inv(precision[np.ix_(flags, flags)])
        spread = 0.5**2 * (np.eye(30) + X[:, flags] @ block @ X[:, flags].T)
        density = stats.multivariate_t.logpdf(target, loc=np.zeros(30), shape=spread, df=6)
        n_in = flags.sum()
        expected.append(density + n_in * np.log(share) + (4 - n_in) * np.log1p(-share))
        ours.append(regression.log_probability(target, flags))

    np.testing.assert_allclose(
        np.array(ours) - ours[0], np.array(expected) - expected[0], rtol=1e-9, atol=1e-9
    )


def test_odds_of_flips_are_those_of_the_sets() -> None:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(25, 9))  # noqa: N806
    X[:, 3] = X[:, 1] + 0.01 * rng.normal(size=25)
    target = X[:, 0] - X[:, 5] + 0.5 * rng.normal(size=25)
    regression = SpikeSlab(X, prior=SLAB, residual=RESIDUAL, max_flips=None)
    for flags in (np.zeros(9, bool), np.ones(9, bool), np.arange(9) % 2 == 0):
        found = regression.log_odds_of_flips(target, flags)
        for at in range(9):
            flipped = flags.copy()
            flipped[at] = not flags[at]
            change = regression.log_probability(target, flipped) - regression.log_probability(
                target, flags
            )
            assert found[at] == pytest.approx(change, rel=1e-8, abs=1e-8)


def test_inclusion_frequencies_are_those_of_enumeration() -> None:
    rng = np.random.default_rng(8)
    X = rng.normal(size=(40, 5))  # noqa: N806
    X[:, 1] = 0.8 * X[:, 0] + 0.6 * X[:, 1]
    target = 0.28 * X[:, 0] + 0.22 * X[:, 2] + 0.6 * rng.normal(size=40)
    regression = SpikeSlab(X, prior=SLAB, residual=RESIDUAL, max_flips=None)
    sets = [np.array(item) for item in product([False, True], repeat=5)]
    logs = np.array([regression.log_probability(target, flags) for flags in sets])
    weights = np.exp(logs - logs.max())
    expected = weights @ np.array(sets, dtype=float) / weights.sum()
    flags, drawn = regression.first_flags(), []
    for _ in range(4_000):
        flags, draw = regression.draw(target, flags, rng)
        drawn.append(draw.values != 0)

    assert ((expected > 0.02) & (expected < 0.98)).sum() >= 3
    np.testing.assert_allclose(np.mean(drawn, axis=0), expected, atol=0.05)


def test_standard_deviations_follow_a_truncated_inverse_gamma() -> None:
    prior = VariancePrior(guess=0.8, df=5.0, upper=1.0)
    rng = np.random.default_rng(9)
    draws = np.array([prior.draw(rng, n=10, sum_of_squares=12.0) for _ in range(4_000)])
    law = stats.invgamma(7.5, scale=(5 * 0.64 + 12.0) / 2)

    assert draws.max() <= 1.0
    assert stats.kstest(draws**2, lambda v: law.cdf(v) / law.cdf(1.0)).pvalue > 1e-3


def test_draws_far_beyond_the_limit_stay_at_the_limit() -> None:
    prior = VariancePrior(guess=1.0, df=2.0, upper=1.0)
    rng = np.random.default_rng(10)
    draws = [prior.draw(rng, n=20, sum_of_squares=5_000.0) for _ in range(200)]

    assert 0.99 < min(draws) <= max(draws) <= 1.0
    # The density of 1 / sigma^2 falls by e in 1 / (rate - shape + 1) from the limit on.
    excess = np.array(draws) ** -2.0 - 1.0
    assert excess.mean() == pytest.approx(1 / (2_501 - 10), rel=0.3)
    rates = np.array([500.0, 600.0, 700.0, 730.0])
    logs = log_mass_below(1.0, shape=11.0, rates=rates)
    expected = stats.gamma.logsf(1.0, 11.0, scale=1 / rates)
    np.testing.assert_allclose(logs, expected, atol=0.03)


def test_the_posterior_is_that_of_numerical_integration() -> None:
    """One covariate, always included: over both deviations on a grid, the rest in closed form."""
    rng = np.random.default_rng(11)
    n, n_later = 40, 12
    x = rng.normal(size=n + n_later)
    x = (x - x[:n].mean()) / x[:n].std(ddof=1)
    y = (0.15 * rng.normal(size=n)).cumsum() + 0.5 * x[:n] + 0.5 * rng.normal(size=n)
    y = (y - y.mean()) / y.std(ddof=1)
    loose = VariancePrior(guess=0.1, df=8.0, upper=1.0)
    parts = Components(has_slope=False, seasons=(), level=loose, slope=LEVEL, seasonal=LEVEL)
    mean, deviation = integrated(y, x, parts=parts, n=n, n_later=n_later)
    draws = sample(
        y, x[:n, None], model=Model(components=parts, coefficients=SLAB, residual=RESIDUAL),
        run=Run(n_draws=4_200, n_burnt=200, n_chains=1, seed=3),
    )  # fmt: skip
    found = forecast(draws, parts, x[n:, None], rng=rng).path[:, n:].mean(axis=1)
    effective = effective_size(found[None, :])

    assert effective > 500
    assert abs(found.mean() - mean) < 4 * deviation / np.sqrt(effective)
    assert found.std() == pytest.approx(deviation, rel=4 / np.sqrt(2 * effective))


def integrated(
    y: Array, x: Array, *, parts: Components, n: int, n_later: int
) -> tuple[float, float]:
    """Posterior mean and deviation of the average of the later path."""
    precision = float(SLAB.precision(x[:n, None])[0, 0])
    grid = [(s, q) for s in np.geomspace(0.25, 1.2, 24) for q in np.geomspace(0.015, 0.7, 30)]
    logs, means, variances = [], [], []
    for sigma, step in grid:
        space = KalmanSmoother(k_endog=1, k_states=3, k_posdef=1)
        space.bind(np.append(y, np.full(n_later, np.nan))[:, None])
        # The third state adds up the later levels and covariates.
        is_later = (np.arange(n + n_later) >= n) / n_later
        space["design"] = np.vstack([np.ones_like(x), x, np.zeros_like(x)])[None]
        transition = np.tile(np.eye(3)[:, :, None], n + n_later)
        transition[2, 0], transition[2, 1] = is_later, is_later * x
        space["transition"] = transition
        space["selection"] = np.array([[1.0], [0.0], [0.0]])
        space["obs_cov"], space["state_cov"] = np.array([[sigma**2]]), np.array([[step**2]])
        space.initialize_known(np.array([y[0], 0, 0]), np.diag([1.0, sigma**2 / precision, 0.0]))
        found = space.filter()
        means.append(found.predicted_state[2, -1])
        variances.append(found.predicted_state_cov[2, 2, -1] + sigma**2 / n_later)
        level, residual = parts.level, RESIDUAL
        logs.append(
            found.llf_obs[:n].sum()
            # Densities of the variances times those of the grid's logs.
            + stats.invgamma.logpdf(step**2, level.df / 2, scale=level.df * level.guess**2 / 2)
            + stats.invgamma.logpdf(sigma**2, residual.df / 2, scale=residual.df * 0.2 / 2)
            + 2 * np.log(sigma * step)
        )
    weights = np.exp(np.array(logs) - max(logs))
    weights /= weights.sum()
    mean = float(weights @ means)
    return mean, float(np.sqrt(weights @ (np.array(variances) + (np.array(means) - mean) ** 2)))


def test_effective_size_of_an_autoregression() -> None:
    rng = np.random.default_rng(12)
    chain = np.zeros((4, 5_000))
    for at in range(1, 5_000):
        chain[:, at] = 0.6 * chain[:, at - 1] + rng.normal(size=4)

    assert effective_size(chain) == pytest.approx(20_000 * 0.4 / 1.6, rel=0.15)
    assert split_rhat(chain) == pytest.approx(1.0, abs=0.01)
    assert effective_size(rng.normal(size=(2, 2_000))) > 3_000
    assert split_rhat(rng.normal([[0.0], [3.0]], size=(2, 500))) > 1.5
    assert split_rhat(np.concatenate([np.zeros((1, 50)), np.ones((1, 50))], axis=1)) == np.inf
