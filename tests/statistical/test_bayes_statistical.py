"""Calibration of posteriors when effects come from the prior; error rates of the decision rule.

Bands follow from the number of draws: the exact rate plus or minus three binomial errors.
"""

import numpy as np
import pytest
from scipy import stats

from causal.core.inference import effect
from causal.core.result import Effect, Result, Scale
from causal.experiments.arm_contrasts import Difference, Lift
from causal.experiments.arm_posteriors import BetaPrior, GammaPrior, beta_posterior, gamma_posterior
from causal.experiments.bayes import NormalPrior, effect_posterior, normal_posterior, summarise
from causal.experiments.decision import decide
from causal.experiments.decision_rule import DecisionRule, Guardrail, Primary

pytestmark = pytest.mark.slow

TERM = "treatment - control"
STD_ERROR, WORSE_THAN, MARGIN = 0.004, 0.005, 0.01
RULE = DecisionRule(
    primary=Primary(metric="profit"),
    guardrails=(Guardrail(metric="refunds", margin=MARGIN, direction="decrease"),),
)


def assert_rate(hits: np.ndarray, rate: float) -> None:
    band = 3 * np.sqrt(rate * (1 - rate) / len(hits))
    assert float(np.mean(hits)) == pytest.approx(rate, abs=band)


def assert_calibrated(ranks: np.ndarray) -> None:
    """The truth lies anywhere in its posterior: ranks are uniform, intervals hold their level."""
    assert stats.kstest(ranks, "uniform").pvalue > 0.01
    assert_rate((ranks > 0.025) & (ranks < 0.975), 0.95)


def made(metric: str, estimate: float, std_error: float, *, scale: Scale) -> Effect:
    return effect(
        estimator="cuped", estimand="ate", metric=metric, term=TERM, scale=scale,
        estimate=estimate, std_error=std_error, confidence_level=0.95, n_treated=1, n_control=1,
    )  # fmt: skip


def test_normal_posteriors_are_calibrated() -> None:
    rng, n = np.random.default_rng(1), 4000
    prior = NormalPrior(mean=0.01, sd=0.02)
    truth = rng.normal(0.01, 0.02, n)
    errors = rng.uniform(0.005, 0.05, n)
    estimates = rng.normal(truth, errors)
    found = [
        normal_posterior(estimate, std_error=error, prior=prior)
        for estimate, error in zip(estimates, errors, strict=True)
    ]
    assert_calibrated(np.array([item.cdf(x) for item, x in zip(found, truth, strict=True)]))
    flat = [normal_posterior(e, std_error=s) for e, s in zip(estimates, errors, strict=True)]
    chosen = estimates > 0.05
    shrunk = np.array([item.mean for item in found])[chosen] - truth[chosen]
    raw = np.array([item.mean for item in flat])[chosen] - truth[chosen]
    assert abs(shrunk.mean()) < 4 * shrunk.std() / np.sqrt(chosen.sum())
    assert raw.mean() > 10 * abs(shrunk.mean()), "selection makes unshrunk estimates too large"


def test_intervals_of_few_degrees_of_freedom_cover() -> None:
    rng, n, size = np.random.default_rng(2), 2000, 5
    rows = rng.normal(0.3, 2.0, (n, size))
    means, errors = rows.mean(axis=1), rows.std(axis=1, ddof=1) / np.sqrt(size)
    ranks = []
    for mean, error in zip(means, errors, strict=True):
        found = effect(
            estimator="welch", estimand="ate", metric="m", term=TERM, estimate=mean,
            std_error=error, confidence_level=0.95, n_treated=size, n_control=0, df=size - 1,
        )  # fmt: skip
        ranks.append(effect_posterior(found).cdf(0.3))
    assert_calibrated(np.array(ranks))


@pytest.mark.parametrize("n", [40, 3000])
def test_posteriors_of_proportions_are_calibrated(n: int) -> None:
    rng, n_draws = np.random.default_rng(3), 600
    prior = BetaPrior(alpha=2, beta=18)
    truth = rng.beta(2, 18, (n_draws, 2))
    successes = rng.binomial(n, truth)
    differences, lifts = [], []
    for (p, q), (k, m) in zip(truth, successes, strict=True):
        control, treatment = (beta_posterior(x, n=n, prior=prior) for x in (k, m))
        differences.append(Difference(control, treatment).cdf(q - p))
        lifts.append(Lift(control, treatment).cdf(q / p - 1))
    assert_calibrated(np.array(differences))
    assert_calibrated(np.array(lifts))


def test_posteriors_of_rates_are_calibrated() -> None:
    rng, n_draws = np.random.default_rng(4), 600
    prior = GammaPrior(shape=3, rate=2)
    truth = rng.gamma(3, 1 / 2, (n_draws, 2))
    events = rng.poisson(truth * [20, 30])
    ranks = []
    for (p, q), (k, m) in zip(truth, events, strict=True):
        control = gamma_posterior(k, exposure=20, prior=prior)
        treatment = gamma_posterior(m, exposure=30, prior=prior)
        ranks.append(Difference(control, treatment).cdf(q - p))
    assert_calibrated(np.array(ranks))


@pytest.mark.validation
def test_highest_density_intervals_hold_their_probability() -> None:
    rng, n_draws = np.random.default_rng(6), 1000
    prior, inside = BetaPrior(alpha=2, beta=18), []
    for p, q in rng.beta(2, 18, (n_draws, 2)):
        control, treatment = (
            beta_posterior(rng.binomial(60, x), n=60, prior=prior) for x in (p, q)
        )
        summary = summarise(Lift(control, treatment), confidence_level=0.8)
        inside.append(summary.hdi_lower < q / p - 1 < summary.hdi_upper)
    assert_rate(np.array(inside), 0.8)


def verdicts(profit: float, refunds: float, *, n: int, seed: int) -> np.ndarray:
    """Verdicts on experiments with known effects on both metrics."""
    rng = np.random.default_rng(seed)
    guardrail_error = 0.3 * MARGIN
    found = []
    for gain, harm in zip(
        rng.normal(profit, STD_ERROR, n), rng.normal(refunds, guardrail_error, n), strict=True
    ):
        effects = (
            made("profit", gain, STD_ERROR, scale="relative"),
            made("refunds", harm, guardrail_error, scale="absolute"),
        )
        found.append(decide(Result(effects=effects), RULE).decisions[0].verdict)
    return np.array(found)


def exact_rates(profit: float, refunds: float) -> dict[str, float]:
    """The rule's probabilities by hand: both estimates are normal and independent."""
    z95, z975 = stats.norm.ppf([0.95, 0.975])
    guardrail_error = 0.3 * MARGIN
    clear = stats.norm.cdf((MARGIN - refunds) / guardrail_error - z95)
    breach = stats.norm.sf(max(z975, MARGIN / guardrail_error - z95) - refunds / guardrail_error)
    limit = max(0.0, z95 * STD_ERROR - WORSE_THAN)
    harm = stats.norm.cdf(-z975 - profit / STD_ERROR)
    return {
        "ship": stats.norm.sf((limit - profit) / STD_ERROR) * clear,
        "roll_back": 1 - (1 - harm) * (1 - breach),
    }


def assert_rates(profit: float, refunds: float, *, n: int, seed: int) -> dict[str, float]:
    found, exact = verdicts(profit, refunds, n=n, seed=seed), exact_rates(profit, refunds)
    for verdict, rate in exact.items():
        assert_rate(found == verdict, rate)
    return exact


@pytest.mark.parametrize(
    ("profit", "refunds", "most"),
    [
        (0.0, 0.0, {"roll_back": 0.05}),
        (-WORSE_THAN, 0.0, {"ship": 0.05}),
        (0.01, MARGIN, {"ship": 0.05}),
    ],
    ids=["nothing changes", "profit falls by what is tolerated", "refunds rise by their margin"],
)
def test_error_rates_of_the_checkout_rule(
    profit: float, refunds: float, most: dict[str, float]
) -> None:
    exact = assert_rates(profit, refunds, n=700, seed=8)
    for verdict, rate in most.items():
        assert exact[verdict] <= rate + 1e-12


@pytest.mark.validation
@pytest.mark.parametrize("profit", [-0.02, -0.01, -0.005, 0.0, 0.005, 0.01, 0.02])
@pytest.mark.parametrize("refunds", [0.0, 0.5 * MARGIN, MARGIN, 2 * MARGIN])
def test_error_rates_over_a_grid_of_truths(profit: float, refunds: float) -> None:
    assert_rates(profit, refunds, n=6000, seed=9)


@pytest.mark.validation
@pytest.mark.parametrize(
    "counts", [((49, 100), (51, 100)), ((122, 21306), (189, 21387)), ((0, 50), (2, 60))]
)
def test_quadrature_agrees_with_simulation(counts: tuple[tuple[int, int], tuple[int, int]]) -> None:
    rng, n = np.random.default_rng(10), 4_000_000
    control, treatment = (beta_posterior(k, n=m) for k, m in counts)
    c = rng.beta(control.alpha, control.beta, n)
    t = rng.beta(treatment.alpha, treatment.beta, n)
    for posterior, draws in (
        (Difference(control, treatment), t - c),
        (Lift(control, treatment), t / c - 1),
    ):
        summary = summarise(posterior)
        error = 4 / np.sqrt(n)
        assert np.mean(draws > 0) == pytest.approx(summary.prob_positive, abs=error)
        for lower, upper in (
            (summary.ci_lower, summary.ci_upper),
            (summary.hdi_lower, summary.hdi_upper),
        ):
            assert np.mean((draws > lower) & (draws < upper)) == pytest.approx(0.95, abs=error)
        assert np.mean(np.maximum(-draws, 0)) == pytest.approx(
            summary.loss_treatment, abs=4 * draws.clip(max=0).std() / np.sqrt(n)
        )
