"""Published figures of power calculators, and statsmodels' own numbers."""

import math

import pytest
from scipy import stats
from scipy.integrate import quad
from statsmodels.stats.power import NormalIndPower, TTestIndPower
from statsmodels.stats.proportion import proportion_effectsize

from causal.experiments.planned_test import Alternative, PlannedTest, Sampling
from causal.experiments.power import mde, power, rejection, sample_size
from causal.experiments.power_outcome import mean_outcome, proportion_outcome

EXACT = 1e-6
UNIT = mean_outcome(mean=0.0, std=1.0)
R_T = PlannedTest(definition="power.t.test")
R_PROP = PlannedTest(definition="power.prop.test")
SIDES: list[tuple[Alternative, str]] = [
    ("two_sided", "two-sided"),
    ("larger", "larger"),
    ("smaller", "smaller"),
]


def test_power_t_test_examples() -> None:
    """R, help of power.t.test; its sizes come from a root finder that stops at 1.2e-4."""
    one_sided = PlannedTest(definition="power.t.test", alternative="larger")

    assert power(UNIT, R_T, effect=1, n_control=20) == pytest.approx(0.8689528, abs=5e-8)
    assert sample_size(UNIT, R_T, effect=1, power=0.90) == pytest.approx(22.02110, abs=5e-5)
    assert sample_size(UNIT, one_sided, effect=1, power=0.90) == pytest.approx(17.84713, abs=5e-5)


def test_power_prop_test_examples() -> None:
    """R, help of power.prop.test."""
    half = proportion_outcome(share=0.5)

    assert power(half, R_PROP, effect=0.25, n_control=50) == pytest.approx(0.7401659, abs=5e-7)
    assert sample_size(half, R_PROP, effect=0.25, power=0.90) == pytest.approx(76.7, abs=0.05)
    assert 0.5 + mde(half, R_PROP, n_control=50, power=0.90) == pytest.approx(0.8026141, abs=5e-5)
    small = PlannedTest(definition="power.prop.test", alpha=0.05)
    n = sample_size(half, small, effect=0.25, power=0.90)
    assert power(half, small, effect=0.25, n_control=n) == pytest.approx(0.9, abs=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), SIDES)
@pytest.mark.parametrize("d", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("ratio", [1.0, 0.25, 3.0])
@pytest.mark.parametrize("n", [6.0, 40.5, 100.0])
def test_ttest_ind_power(ours: Alternative, theirs: str, d: float, ratio: float, n: float) -> None:
    outcome = mean_outcome(mean=3.0, std=2.5)
    test = PlannedTest(definition="TTestIndPower", alternative=ours, alpha=0.03, ratio=ratio)
    effect = -d if ours == "smaller" else d
    n_control = n * max(1.0, 1.0 / ratio)
    expected = TTestIndPower().power(effect, n_control, 0.03, ratio=ratio, alternative=theirs)
    found = power(outcome, test, effect=effect * 2.5, n_control=n_control)

    assert found == pytest.approx(float(expected), abs=EXACT)


@pytest.mark.parametrize(("ours", "theirs"), SIDES)
@pytest.mark.parametrize("ratio", [1.0, 0.5, 2.0])
def test_suite_with_a_pooled_variance_is_ttest_ind_power(
    ours: Alternative, theirs: str, ratio: float
) -> None:
    test = PlannedTest(variance="pooled", alternative=ours, ratio=ratio)
    effect = -0.4 if ours == "smaller" else 0.4
    expected = TTestIndPower().power(effect, 60, 0.05, ratio=ratio, alternative=theirs)

    assert power(UNIT, test, effect=effect, n_control=60) == pytest.approx(
        float(expected), abs=EXACT
    )


@pytest.mark.parametrize("ratio", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("d", [0.1, 0.5])
def test_sizes_and_effects_are_those_of_statsmodels(ratio: float, d: float) -> None:
    test = PlannedTest(definition="TTestIndPower", ratio=ratio)
    solved = TTestIndPower().solve_power(d, None, 0.05, 0.8, ratio=ratio)
    effect = mde(UNIT, test, n_control=200)
    back = TTestIndPower().power(effect, 200, 0.05, ratio=ratio)

    assert sample_size(UNIT, test, effect=d) == pytest.approx(float(solved), rel=EXACT)
    assert back == pytest.approx(0.8, abs=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), SIDES)
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_normal_ind_power(ours: Alternative, theirs: str, ratio: float) -> None:
    test = PlannedTest(definition="NormalIndPower", alternative=ours, ratio=ratio)
    sign = -1 if ours == "smaller" else 1
    expected = NormalIndPower().power(sign * 0.2, 150, 0.05, ratio=ratio, alternative=theirs)
    h = proportion_effectsize(0.1 + sign * 0.04, 0.1)
    shares = NormalIndPower().power(h, 400, 0.05, ratio=ratio, alternative=theirs)

    assert power(UNIT, test, effect=sign * 0.2, n_control=150) == pytest.approx(expected, abs=EXACT)
    assert power(
        proportion_outcome(share=0.1), test, effect=sign * 0.04, n_control=400
    ) == pytest.approx(float(shares), abs=EXACT)


def test_arcsine_sizes_are_those_of_statsmodels() -> None:
    test = PlannedTest(definition="NormalIndPower", alpha=0.01)
    h = proportion_effectsize(0.12, 0.10)
    expected = NormalIndPower().solve_power(h, None, 0.01, 0.9)
    found = sample_size(proportion_outcome(share=0.10), test, effect=0.02, power=0.9)

    assert found == pytest.approx(float(expected), rel=EXACT)


def test_the_closed_form_of_the_normal_test() -> None:
    """2 (z_alpha + z_beta)^2 / d^2, of which Lehr's rule (1992) makes 16 / d^2."""
    test = PlannedTest(distribution="normal", alternative="larger", alpha=0.025)
    exact = 2 * (1.959963984540054 + 0.8416212335729143) ** 2 / 0.01**2
    found = sample_size(UNIT, test, effect=0.01)

    assert found == pytest.approx(exact, rel=1e-9)
    assert found == pytest.approx(16 / 0.01**2, rel=0.02)


@pytest.mark.parametrize("df", [3.0, 20.5, 300.0, 1e6])
@pytest.mark.parametrize("shift", [-3.0, 0.5, 2.8, 6.0])
def test_the_noncentral_tail_is_the_integral_that_defines_it(df: float, shift: float) -> None:
    cut = float(stats.t.isf(0.025, df))
    low, high = stats.chi2.ppf([1e-14, 1 - 1e-14], df)
    integral, _ = quad(
        lambda u: stats.norm.sf(cut * math.sqrt(u / df) - shift) * stats.chi2.pdf(u, df),
        low,
        high,
        limit=400,
        epsabs=1e-12,
    )
    test = PlannedTest(alternative="larger", alpha=0.025)

    assert rejection(Sampling(shift, 1.0, 1.0, 1.0, df), test) == pytest.approx(integral, abs=1e-9)
