"""Exact contrasts of two arms: against double integrals, closed forms and limits."""

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from causal.core.errors import DataError, SpecError
from causal.experiments import arm_contrasts
from causal.experiments.arm_contrasts import (
    Difference,
    Lift,
    Questions,
    closed_form,
    compare,
    probability_best,
    probability_greater,
)
from causal.experiments.arm_posteriors import (
    Beta,
    BetaPrior,
    Gamma,
    GammaPrior,
    beta_posterior,
    gamma_posterior,
)
from causal.experiments.bayes import summarise
from jobs.runtime import places

JEFFREYS = BetaPrior(alpha=0.5, beta=0.5)
PAIRS = [
    (Beta(6.0, 20.0), Beta(3.0, 17.0)),
    (Beta(2.5, 9.5), Beta(4.5, 30.5)),
    (Beta(0.5, 10.5), Beta(1.5, 12.5)),
    (Beta(30.5, 0.5), Beta(25.0, 2.0)),
]


def density(arm: Beta, x: float) -> float:
    return float(stats.beta.pdf(x, arm.alpha, arm.beta))


def by_areas(
    treatment: Beta, control: Beta, *, slope: float, shift: float, precision: float
) -> float:
    """P(treatment <= slope * control + shift) by a double integral of both densities.

    Substituted so that roots and poles at the ends of the unit interval are smooth.
    """

    def unit(arm: Beta, angle: float) -> float:
        x = math.sin(angle) ** 2
        return density(arm, x) * math.sin(2 * angle)

    def upper(angle: float) -> float:
        limit = min(max(slope * math.sin(angle) ** 2 + shift, 0.0), 1.0)
        return math.asin(math.sqrt(limit))

    kinks = [value for value in (-shift / slope, (1 - shift) / slope) if 0 < value < 1]
    ends = [0.0, *sorted(math.asin(math.sqrt(value)) for value in kinks), math.pi / 2]
    total = 0.0
    for low, high in itertools.pairwise(ends):
        total += integrate.dblquad(
            lambda inner, outer: unit(treatment, inner) * unit(control, outer),
            low, high, 0.0, upper, epsabs=precision, epsrel=1e-10,
        )[0]  # fmt: skip
    return total


def assert_double_integrals(
    treatment: Beta, control: Beta, *, at: tuple[float, float], precision: float
) -> None:
    difference, lift = Difference(control, treatment), Lift(control, treatment)
    d, r = at
    expected = by_areas(treatment, control, slope=1.0, shift=d, precision=precision)
    assert difference.cdf(d) == pytest.approx(expected, abs=10 * precision)
    expected = by_areas(treatment, control, slope=1 + r, shift=0.0, precision=precision)
    assert lift.cdf(r) == pytest.approx(expected, abs=10 * precision)


@pytest.mark.parametrize(("treatment", "control"), PAIRS[1:3])
def test_distribution_functions_equal_double_integrals(treatment: Beta, control: Beta) -> None:
    assert_double_integrals(treatment, control, at=(0.02, -0.2), precision=1e-7)


@pytest.mark.validation
@pytest.mark.parametrize("at", [(-0.07, 0.3), (0.02, -0.2)])
@pytest.mark.parametrize(("treatment", "control"), PAIRS)
def test_distribution_functions_equal_fine_double_integrals(
    treatment: Beta, control: Beta, at: tuple[float, float]
) -> None:
    assert_double_integrals(treatment, control, at=at, precision=1e-10)


@pytest.mark.parametrize(("treatment", "control"), PAIRS)
def test_both_tails_make_a_whole(treatment: Beta, control: Beta) -> None:
    difference, lift = Difference(control, treatment), Lift(control, treatment)
    for x in (-0.2, -0.07, 0.02, 0.3):
        assert difference.cdf(x) + difference.sf(x) == pytest.approx(1, abs=1e-13)
        assert lift.cdf(x) + lift.sf(x) == pytest.approx(1, abs=1e-13)
    assert difference.sf(0.0) == pytest.approx(lift.sf(0.0), abs=1e-13)
    assert (lift.cdf(-1.0), lift.sf(-1.0), lift.cdf(-2.0)) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("contrast", [Difference, Lift])
@pytest.mark.parametrize(("treatment", "control"), PAIRS[:2])
def test_density_moments_and_losses_agree_with_the_distribution(
    contrast: type[Difference] | type[Lift], treatment: Beta, control: Beta
) -> None:
    posterior = contrast(control, treatment)
    h = 1e-5
    for x in (-0.1, 0.15):
        slope = (posterior.cdf(x + h) - posterior.cdf(x - h)) / (2 * h)
        assert posterior.pdf(np.array([x]))[0] == pytest.approx(slope, rel=1e-6)
    treatment_loss, control_loss = posterior.losses()
    expected = integrate.quad(posterior.cdf, -1, 0, epsabs=1e-12)[0]
    assert treatment_loss == pytest.approx(expected, abs=1e-10)
    assert control_loss - treatment_loss == pytest.approx(posterior.mean, abs=1e-12)


@pytest.mark.parametrize(("treatment", "control"), PAIRS[:2])
def test_moments_of_a_lift(treatment: Beta, control: Beta) -> None:
    lift = Lift(control, treatment)
    inverse = [
        integrate.quad(lambda x, k=k: density(control, x) / x**k, 0, 1, epsabs=1e-13)[0]
        for k in (1, 2)
    ]
    square = treatment.variance + treatment.mean**2
    assert lift.mean == pytest.approx(treatment.mean * inverse[0] - 1, rel=1e-9)
    expected = square * inverse[1] - (treatment.mean * inverse[0]) ** 2
    assert lift.sd**2 == pytest.approx(expected, rel=1e-8)


def test_a_lift_over_a_control_that_may_be_zero_has_no_mean() -> None:
    lift = Lift(Beta(0.5, 50.5), Beta(3.5, 47.5))
    treatment_loss, control_loss = lift.losses()
    assert (lift.mean, lift.sd, control_loss) == (math.inf, math.inf, math.inf)
    expected = integrate.quad(lift.cdf, -1, 0, epsabs=1e-12)[0]
    assert treatment_loss == pytest.approx(expected, abs=1e-9)
    assert math.isinf(Lift(Beta(1.5, 9.0), Beta(3.0, 9.0)).sd)
    summary = summarise(lift)
    assert 0 < summary.prob_positive < 1
    assert summary.ci_lower < summary.median < summary.ci_upper


def test_gamma_ratios_have_a_closed_form() -> None:
    control, treatment = Gamma(20.5, 900.0), Gamma(30.5, 1000.0)
    lift = Lift(control, treatment)
    for ratio in (0.7, 1.0, 1.9):
        share = treatment.rate * ratio / (treatment.rate * ratio + control.rate)
        expected = stats.beta.cdf(share, treatment.shape, control.shape)
        assert lift.cdf(ratio - 1) == pytest.approx(expected, abs=1e-12)
    assert probability_greater(treatment, control) == pytest.approx(lift.sf(0.0), abs=1e-12)
    # The ratio of two gammas is a multiple of an F.
    scale = (30.5 / 1000) / (20.5 / 900)
    moments = stats.f(2 * 30.5, 2 * 20.5)
    assert lift.mean == pytest.approx(scale * moments.mean() - 1, rel=1e-12)
    assert lift.sd == pytest.approx(scale * moments.std(), rel=1e-10)
    assert lift.quantile(0.9) == pytest.approx(scale * moments.ppf(0.9) - 1, abs=1e-9)
    difference = Difference(control, treatment)
    assert difference.sf(0.0) == pytest.approx(lift.sf(0.0), abs=1e-12)
    assert difference.pdf(np.array([0.0]))[0] > 0
    assert difference.losses()[1] - difference.losses()[0] == pytest.approx(difference.mean)


@pytest.mark.parametrize("n", [1e6, 1e8])
def test_millions_of_units_agree_with_the_normal_limit(n: float) -> None:
    control = beta_posterior(0.1 * n, n=n)
    treatment = beta_posterior(0.1 * n + 0.4 * math.sqrt(n), n=n)
    difference = Difference(control, treatment)
    z = difference.mean / difference.sd
    assert difference.sf(0.0) == pytest.approx(stats.norm.cdf(z), abs=2 / math.sqrt(n))
    assert probability_greater(treatment, control) == difference.sf(0.0)
    assert difference.cdf(0.0) + difference.sf(0.0) == pytest.approx(1, abs=1e-9)


def test_intervals_of_a_million_units_agree_with_the_normal_limit() -> None:
    difference = Difference(beta_posterior(100_000, n=10**6), beta_posterior(100_400, n=10**6))
    summary = summarise(difference)
    half = stats.norm.ppf(0.975) * difference.sd
    assert summary.ci_upper == pytest.approx(difference.mean + half, abs=0.01 * difference.sd)
    assert summary.hdi_lower == pytest.approx(difference.mean - half, abs=0.01 * difference.sd)


def test_arms_of_very_different_size_and_level() -> None:
    narrow, wide = beta_posterior(375_000, n=1_000_000), beta_posterior(3, n=8)
    x = narrow.mean
    assert Difference(wide, narrow).cdf(0.0) == pytest.approx(float(wide.sf(np.array(x))), abs=1e-6)
    assert Difference(narrow, wide).sf(0.0) == pytest.approx(float(wide.sf(np.array(x))), abs=1e-6)
    apart = compare(beta_posterior(3, n=10**6), beta_posterior(5 * 10**5, n=10**6))
    assert (apart.prob_greater, apart.absolute.prob_worse) == (0.0, pytest.approx(1.0))
    assert apart.relative.loss_treatment == pytest.approx(-apart.relative.mean)


counts = st.integers(0, 60)


@settings(max_examples=40)
@given(first=counts, second=counts, prior=st.sampled_from([BetaPrior(), JEFFREYS]))
@example(first=0, second=2, prior=JEFFREYS)
def test_symmetries(first: int, second: int, prior: BetaPrior) -> None:
    a, b = (beta_posterior(k, n=60, prior=prior) for k in (first, second))
    forward, backward = probability_greater(a, b), probability_greater(b, a)
    assert forward + backward == pytest.approx(1.0, abs=1e-11)
    mirrored = probability_greater(Beta(b.beta, b.alpha), Beta(a.beta, a.alpha))
    assert mirrored == pytest.approx(forward, abs=1e-11)
    assert Difference(b, a).sf(0.0) == pytest.approx(forward, abs=1e-11)
    if first > second:
        assert forward > 0.5


def test_hdi_of_a_skewed_contrast_is_shortest() -> None:
    lift = Lift(beta_posterior(12, n=200), beta_posterior(20, n=200))
    summary = summarise(lift)
    assert lift.cdf(summary.hdi_upper) - lift.cdf(summary.hdi_lower) == pytest.approx(0.95)
    ends = lift.pdf(np.array([summary.hdi_lower, summary.hdi_upper]))
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)
    assert summary.hdi_upper - summary.hdi_lower < summary.ci_upper - summary.ci_lower
    falling = Lift(Beta(40.5, 60.5), Beta(0.5, 100.5))
    lower, upper = summarise(falling).hdi_lower, summarise(falling).hdi_upper
    assert lower == pytest.approx(-1.0, abs=1e-6)
    assert falling.cdf(upper) == pytest.approx(0.95, abs=1e-6)


def test_probability_best() -> None:
    arms = [beta_posterior(k, n=500) for k in (50, 60, 61)]
    found = probability_best(arms)
    assert sum(found) == pytest.approx(1.0, abs=1e-12)
    assert probability_best(arms[:2])[1] == pytest.approx(probability_greater(arms[1], arms[0]))
    assert sorted(found) == list(found)
    twins = probability_best([arms[0]] * 4)
    assert twins == pytest.approx((0.25,) * 4)
    with pytest.raises(SpecError, match="at least two arms"):
        probability_best(arms[:1])


def test_the_closed_form_declines_what_it_cannot_sum() -> None:
    assert closed_form(Beta(5.5, 6.5), Beta(7.5, 8.5)) is None
    assert closed_form(Beta(2e6, 2e6), Beta(2e6, 2e6)) is None


def test_questions_on_both_scales() -> None:
    treatment, control = beta_posterior(60, n=500), beta_posterior(50, n=500)
    found = compare(
        treatment,
        control,
        confidence_level=0.9,
        absolute=Questions(worse_than=0.01, rope=(-0.01, 0.01)),
        relative=Questions(worse_than=0.1),
    )
    difference, lift = Difference(control, treatment), Lift(control, treatment)
    assert found.absolute.prob_worse == difference.cdf(-0.01)
    assert found.absolute.prob_rope == pytest.approx(difference.cdf(0.01) - difference.cdf(-0.01))
    assert found.relative.prob_worse == lift.cdf(-0.1)
    assert (found.relative.prob_rope, found.relative.confidence_level) == (0.0, 0.9)


@pytest.mark.parametrize(
    ("successes", "n"), [(5, 4), (-1, 10), (0, 0), (math.nan, 10), (1, math.inf)]
)
def test_counts_that_cannot_be(successes: float, n: float) -> None:
    with pytest.raises(DataError, match="successes from 0 to n"):
        beta_posterior(successes, n=n)


def test_improper_posteriors_are_refused() -> None:
    nothing = BetaPrior(alpha=0, beta=0)
    assert beta_posterior(3, n=10, prior=nothing) == Beta(3.0, 7.0)
    with pytest.raises(DataError, match="a prior of at least"):
        beta_posterior(0, n=10, prior=nothing)
    with pytest.raises(DataError, match="a prior shape of at least"):
        gamma_posterior(0, exposure=10, prior=GammaPrior(shape=0))
    with pytest.raises(DataError, match="positive exposure"):
        gamma_posterior(3, exposure=0)
    assert gamma_posterior(3, exposure=10) == Gamma(3.5, 10.0)


def test_the_example_runs() -> None:
    found = doctest.testmod(arm_contrasts)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_example_of_the_documents_runs() -> None:
    page = places.root() / "docs" / "methods" / "bayes.md"
    found = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert found.attempted > 0
    assert found.failed == 0
