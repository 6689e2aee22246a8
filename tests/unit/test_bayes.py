"""Posteriors of an effect: against scipy's integrals, and what they refuse."""

import doctest
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from causal.core.errors import InferenceError, SpecError
from causal.core.inference import effect
from causal.core.spec import validate
from causal.experiments import bayes
from causal.experiments.bayes import (
    FLAT,
    ArmLevel,
    NormalMixture,
    NormalPosterior,
    NormalPrior,
    Posterior,
    StudentPosterior,
    effect_posterior,
    highest_density_interval,
    lift_posterior,
    normal_posterior,
    student_posterior,
    summarise,
)
from causal.experiments.double_exponential import panel_nodes, unit_nodes

T_PRIOR = NormalPrior(mean=0.3, sd=0.9)


def posteriors() -> list[Posterior]:
    return [
        NormalPosterior(0.4, 0.7),
        StudentPosterior(0.4, 0.7, 5.0),
        student_posterior(1.2, std_error=0.7, df=4, prior=T_PRIOR),
        NormalMixture(np.array([0.3, 0.7]), np.array([0.0, 0.5]), np.array([1.0, 0.6])),
    ]


@pytest.mark.parametrize("posterior", posteriors(), ids=lambda item: type(item).__name__)
def test_a_posterior_agrees_with_its_density(posterior: Posterior) -> None:
    def integral(function: object, low: float, high: float) -> float:
        return float(integrate.quad(function, low, high, epsabs=1e-12, limit=200)[0])

    def density(x: float) -> float:
        return float(posterior.pdf(np.array(x)))

    low, high = -12.0, 12.0
    heavy = isinstance(posterior, StudentPosterior)
    assert posterior.cdf(0.1) == pytest.approx(integral(density, -np.inf, 0.1), abs=1e-9)
    assert posterior.cdf(0.1) + posterior.sf(0.1) == pytest.approx(1.0, abs=1e-14)
    if not heavy:
        mean = integral(lambda x: x * density(x), low, high)
        assert posterior.mean == pytest.approx(mean, abs=1e-9)
        second = integral(lambda x: (x - mean) ** 2 * density(x), low, high)
        assert posterior.sd**2 == pytest.approx(second, abs=1e-8)
    treatment, control = posterior.losses()
    assert treatment == pytest.approx(integral(lambda x: -x * density(x), -np.inf, 0), abs=1e-8)
    assert control == pytest.approx(integral(lambda x: x * density(x), 0, np.inf), abs=1e-8)
    assert control - treatment == pytest.approx(posterior.mean, abs=1e-12)
    for p in (0.001, 0.3, 0.5, 0.975):
        assert posterior.cdf(posterior.quantile(p)) == pytest.approx(p, abs=1e-12)


def test_student_moments() -> None:
    assert StudentPosterior(0.0, 2.0, 5.0).sd == pytest.approx(stats.t(5, 0, 2.0).std())
    assert math.isinf(StudentPosterior(0.0, 2.0, 2.0).sd)
    assert StudentPosterior(0.0, 2.0, 1.0).losses() == (math.inf, math.inf)


def test_a_normal_prior_under_a_t_likelihood_is_their_product() -> None:
    posterior = student_posterior(1.2, std_error=0.7, df=4, prior=T_PRIOR)

    def product(x: float) -> float:
        return float(stats.t.pdf((x - 1.2) / 0.7, 4) * stats.norm.pdf(x, 0.3, 0.9))

    total = integrate.quad(product, -20, 20, epsabs=1e-14)[0]
    for x in (-1.0, 0.0, 0.5, 2.5):
        below = integrate.quad(product, -20, x, epsabs=1e-14)[0] / total
        assert posterior.cdf(x) == pytest.approx(below, abs=1e-12)
        assert float(posterior.pdf(np.array(x))) == pytest.approx(product(x) / total, rel=1e-10)


@pytest.mark.parametrize("df", [3.0, 30.0, 4e4])
def test_a_vague_prior_gives_the_t_distribution(df: float) -> None:
    vague = student_posterior(0.2, std_error=0.1, df=df, prior=NormalPrior(sd=1e7))
    for x in (-0.2, 0.0, 0.5):
        assert vague.cdf(x) == pytest.approx(stats.t.cdf(x, df, 0.2, 0.1), abs=1e-10)


def test_precisions_add() -> None:
    found = normal_posterior(0.05, std_error=0.02, prior=NormalPrior(mean=0.01, sd=0.03))
    precision = 1 / 0.02**2 + 1 / 0.03**2
    assert found.mean == pytest.approx((0.05 / 0.02**2 + 0.01 / 0.03**2) / precision)
    assert found.sd == pytest.approx(precision**-0.5)


def test_a_flat_prior_repeats_the_confidence_interval() -> None:
    for df in (None, 7.5):
        found = effect(
            estimator="welch", estimand="ate", metric="m", term="t", estimate=0.3, std_error=0.2,
            confidence_level=0.9, n_treated=5, n_control=5, df=df,
        )  # fmt: skip
        summary = summarise(effect_posterior(found), confidence_level=0.9)
        assert summary.ci_lower == pytest.approx(found.ci_lower, abs=1e-12)
        assert summary.ci_upper == pytest.approx(found.ci_upper, abs=1e-12)
        assert 2 * min(summary.prob_positive, 1 - summary.prob_positive) == pytest.approx(
            found.pvalue
        )
        assert (summary.hdi_lower, summary.hdi_upper) == (summary.ci_lower, summary.ci_upper)


def test_questions_of_a_summary() -> None:
    summary = summarise(NormalPosterior(0.01, 0.01), worse_than=0.005, rope=(-0.005, 0.005))
    assert summary.prob_worse == pytest.approx(stats.norm.cdf(-1.5))
    assert summary.prob_rope == pytest.approx(stats.norm.cdf(-0.5) - stats.norm.cdf(-1.5))
    assert summary.prob_positive == pytest.approx(stats.norm.sf(-1.0))
    far = summarise(NormalPosterior(-1.0, 0.1), rope=(0.0, 0.1))
    assert far.prob_rope == pytest.approx(stats.norm.sf(10) - stats.norm.sf(11), rel=1e-10)


@settings(max_examples=25)
@given(
    first=st.floats(0.2, 0.8), shift=st.floats(-1, 1), spread=st.floats(1.0, 1.6),
    level=st.sampled_from([0.5, 0.9, 0.95]),
)  # fmt: skip
def test_no_interval_of_its_probability_is_shorter(
    first: float, shift: float, spread: float, level: float
) -> None:
    posterior = NormalMixture(
        np.array([first, 1 - first]), np.array([0.0, shift]), np.array([1.0, spread])
    )
    lower, upper = highest_density_interval(posterior, level=level)
    assert posterior.cdf(upper) - posterior.cdf(lower) == pytest.approx(level, abs=1e-8)
    for below in np.linspace(0.02, 0.98, 7) * (1 - level):
        other = posterior.quantile(below + level) - posterior.quantile(below)
        assert upper - lower <= other + 1e-8


def test_lift_needs_a_positive_control_level() -> None:
    for mean in (0.0, -1.0):
        with pytest.raises(InferenceError, match="control level above zero"):
            lift_posterior(ArmLevel(mean=mean, std_error=1.0), ArmLevel(mean=1.0, std_error=1.0))


def test_what_has_no_meaning_is_refused() -> None:
    for estimate, std_error in ((0.1, 0.0), (0.1, -1.0), (math.nan, 1.0), (0.1, math.inf)):
        with pytest.raises(InferenceError, match="positive standard error"):
            normal_posterior(estimate, std_error=std_error)
        with pytest.raises(InferenceError, match="positive standard error"):
            student_posterior(estimate, std_error=std_error, df=3)
    with pytest.raises(InferenceError, match="degrees of freedom"):
        student_posterior(0.1, std_error=0.1, df=0)
    posterior = NormalPosterior(0.0, 1.0)
    with pytest.raises(SpecError, match="confidence_level"):
        summarise(posterior, confidence_level=1.0)
    with pytest.raises(SpecError, match="worse_than"):
        summarise(posterior, worse_than=-0.1)
    with pytest.raises(SpecError, match="rope"):
        summarise(posterior, rope=(0.1, -0.1))
    mixture = posteriors()[-1]
    with pytest.raises(SpecError, match="between 0 and 1"):
        mixture.quantile(1.0)


def test_a_prior_is_checked_in_one_line() -> None:
    assert validate(NormalPrior, {"sd": 0.1}) == NormalPrior(sd=0.1)
    with pytest.raises(SpecError, match="a prior mean needs a prior sd"):
        validate(NormalPrior, {"mean": 0.1})
    with pytest.raises(SpecError, match="unknown key"):
        validate(NormalPrior, {"sigma": 0.1})


def test_summaries_are_frozen_and_pickle() -> None:
    summary = summarise(normal_posterior(0.1, std_error=0.1, prior=FLAT))
    assert pickle.loads(pickle.dumps(summary)) == summary  # noqa: S301 - made in this line
    with pytest.raises(AttributeError):
        summary.mean = 0.0  # type: ignore[misc]


@pytest.mark.parametrize("power", [-0.9, -0.5, 0.0, 3.5])
def test_the_quadrature_bears_powers_at_the_ends(power: float) -> None:
    nodes, complements, weights = unit_nodes()
    assert np.allclose(nodes + complements, 1.0, rtol=0, atol=1e-15)
    assert weights @ nodes**power == pytest.approx(1 / (power + 1), rel=1e-11)
    at, left, panel = panel_nodes(np.array([0.0, 0.3, 0.3, 1.0]))
    assert np.allclose(at + left, 1.0, rtol=0, atol=1e-15)
    assert panel @ left**power == pytest.approx(1 / (power + 1), rel=1e-11)


def test_the_examples_run() -> None:
    found = doctest.testmod(bayes)
    assert found.attempted > 0
    assert found.failed == 0
