"""Power, sample size and detectable effects agree with each other and with the suite's errors."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from causal.core.errors import CausalError, InferenceError, SpecError
from causal.core.frames import Column
from causal.core.gram import Gram
from causal.core.result import Scale
from causal.experiments.comparison import Variance
from causal.experiments.levels import (
    Quotient,
    covariate_thetas,
    difference,
    lift,
    metric_levels,
    pooled_spread,
    welch_spread,
)
from causal.experiments.lift_edges import edge_errors
from causal.experiments.planned_test import Alternative, PlannedTest, overlap, sampling
from causal.experiments.power import mde, power, sample_size, smallest_margin, smallest_size
from causal.experiments.power_outcome import (
    Outcome,
    arm_moments,
    design_effect,
    estimate_variances,
    mean_outcome,
    planned_evenness,
    proportion_outcome,
    ratio_outcome,
)

N = 20_000


def gram(mean: list[float], covariance: list[list[float]], n: int) -> Gram:
    terms = tuple(Column(f"x{i}") for i in range(len(mean)))
    cross = np.array(covariance) * (n - 1)
    return Gram(terms, n, 0, 0, float(n), np.array(mean), cross)


OUTCOMES = {
    "mean": mean_outcome(mean=20.0, std=35.0),
    "multiplied": mean_outcome(mean=20.0, std=35.0, response="multiplicative"),
    "proportion": proportion_outcome(share=0.07),
    "ratio": ratio_outcome(
        numerator_mean=1.2,
        denominator_mean=6.0,
        numerator_variance=2.0,
        denominator_variance=9.0,
        covariance=2.5,
    ),
    "cuped": mean_outcome(mean=20.0, std=35.0).adjusted(0.6),
    "clustered": proportion_outcome(share=0.3).clustered(icc=0.05, mean_size=12, size_cv=0.7),
}
every_outcome = pytest.mark.parametrize("name", OUTCOMES)


@every_outcome
@pytest.mark.parametrize("scale", ["absolute", "relative"])
@pytest.mark.parametrize("alternative", ["two_sided", "larger", "smaller"])
@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_size_power_and_effect_lead_back(
    name: str, scale: Scale, alternative: Alternative, ratio: float
) -> None:
    outcome = OUTCOMES[name]
    test = PlannedTest(scale=scale, alternative=alternative, ratio=ratio, alpha=0.04)
    effect = 0.06 * (outcome.level if scale == "absolute" else 1.0)
    effect = -effect if alternative == "smaller" else effect
    n = sample_size(outcome, test, effect=effect, power=0.85)

    assert power(outcome, test, effect=effect, n_control=n) == pytest.approx(0.85, abs=1e-9)
    assert mde(outcome, test, n_control=n, power=0.85) == pytest.approx(effect, rel=1e-7)


DESIGNS = st.fixed_dictionaries(
    {
        "level": st.floats(0.5, 50),
        "spread": st.floats(0.05, 4),
        "effect": st.floats(0.005, 0.4),
        "power": st.floats(0.55, 0.99),
        "alpha": st.floats(0.001, 0.2),
        "ratio": st.floats(0.1, 10),
        "inflation": st.floats(1, 1.5),
        "r_squared": st.floats(0, 0.95),
        "scale": st.sampled_from(["absolute", "relative"]),
        "direction": st.sampled_from(["increase", "decrease"]),
    }
)


@settings(max_examples=40)
@given(design=DESIGNS)
def test_round_trips(design: dict[str, Any]) -> None:
    level, scale, target = design["level"], design["scale"], design["power"]
    outcome = mean_outcome(mean=level, std=level * design["spread"]).adjusted(design["r_squared"])
    test = PlannedTest(
        alpha=design["alpha"], ratio=design["ratio"], inflation=design["inflation"], scale=scale
    )
    sign = -1.0 if design["direction"] == "decrease" else 1.0
    effect = sign * design["effect"] * (1.0 if scale == "relative" else level)
    n = sample_size(outcome, test, effect=effect, power=target)
    assume(n > smallest_size(outcome, test) * 1.0001)

    assert power(outcome, test, effect=effect, n_control=n) == pytest.approx(target, abs=1e-8)
    found = mde(outcome, test, n_control=n, power=target, direction=design["direction"])
    assert found == pytest.approx(effect, rel=1e-6)
    assert power(outcome, test, effect=effect, n_control=2 * n) > target


@settings(max_examples=40)
@given(
    share=st.floats(0.02, 0.9),
    margin=st.floats(0.002, 0.05),
    target=st.floats(0.55, 0.99),
    side=st.sampled_from([-1.0, 1.0]),
    scale=st.sampled_from(["absolute", "relative"]),
)
def test_margins_lead_back(
    share: float, margin: float, target: float, side: float, scale: Scale
) -> None:
    outcome = proportion_outcome(share=share)
    test = PlannedTest(
        alpha=0.025,
        alternative="smaller" if side > 0 else "larger",
        null=side * margin,
        scale=scale,
    )
    n = sample_size(outcome, test, effect=0.0, power=target)
    assume(n > 3)

    assert power(outcome, test, effect=0.0, n_control=n) == pytest.approx(target, abs=1e-8)
    assert smallest_margin(outcome, test, n_control=n, power=target) == pytest.approx(
        margin, rel=1e-6
    )


@pytest.mark.parametrize("ratio", [1.0, 0.5, 4.0])
@pytest.mark.parametrize("delta", [0.0, 0.1, -0.3])
@pytest.mark.parametrize("variance", ["welch", "pooled"])
def test_the_errors_are_those_of_the_analysis(
    ratio: float, delta: float, variance: Variance
) -> None:
    """A ratio with a ratio covariate and a mean one, on both scales, as `ab` computes them."""
    base = [1.2, 6.0, 1.1, 5.5, 3.0]
    root = np.random.default_rng(5).normal(size=(5, 5)) + 2 * np.eye(5)
    covariance = (root @ root.T).tolist()
    quotients = (Quotient("y", 0, 1), Quotient("x", 2, 3), Quotient("z", 4))
    n_treated = int(N * ratio)
    control = gram(base, covariance, N)
    thetas = covariate_thetas(control, control, quotients=quotients, theta="within")
    # The treated numerator moves with its denominator, so its linearised variance stays the same.
    shift = delta * base[0] / base[1]
    mixing = np.eye(5)
    mixing[0, 1] = shift
    treated = gram(
        list(mixing @ np.array(base)),
        (mixing @ np.array(covariance) @ mixing.T).tolist(),
        n_treated,
    )
    spread = welch_spread if variance == "welch" else pooled_spread
    for size in (0, 2):
        levels = metric_levels(control, treated, quotients=quotients, thetas=thetas[:size])
        gradients = np.array([q.gradient(control.mean) for q in quotients])
        second = gradients @ np.array(covariance) @ gradients.T
        theta = thetas if size else np.zeros(2)
        outcome = Outcome(
            level=0.2,
            variance=float(second[0, 0]),
            covariance=float(theta @ second[1:, 0]),
            predicted=float(theta @ second[1:, 1:] @ theta),
        )
        reads: list[tuple[Scale, Any]] = [("absolute", difference), ("relative", lift)]
        for scale, read in reads:
            expected = read(levels, spread(levels, control, treated))
            test = PlannedTest(scale=scale, ratio=ratio, variance=variance)
            found = sampling(outcome, test, effect=expected.value, n_control=N)
            a, b = estimate_variances(
                arm_moments(outcome, delta),
                level=outcome.level,
                lift=delta,
                scale=scale,
                control_share=test.control_share,
            )
            assert math.sqrt(a / N + b / n_treated) == pytest.approx(expected.std_error, rel=1e-9)
            if scale == "absolute":
                assert found.upper == pytest.approx(expected.std_error, rel=1e-9)
                assert found.df == pytest.approx(expected.df, rel=1e-9)


@pytest.mark.parametrize("null", [0.0, -0.2, 0.1])
@pytest.mark.parametrize("critical", [1.6, 1.96, 3.0])
def test_at_its_edges_a_lift_is_just_rejected(null: float, critical: float) -> None:
    """The lift that is the critical value times its own error away from the null, both sides."""
    outcome = mean_outcome(mean=2.0, std=3.0).adjusted(0.4)

    def variance(lift: float) -> float:
        a, b = estimate_variances(
            arm_moments(outcome, 0.0), level=2.0, lift=lift, scale="relative", control_share=0.4
        )
        return a / 100 + b / 150

    upper, lower = edge_errors(variance, null=null, critical=critical)
    assert upper == pytest.approx(math.sqrt(variance(null + critical * upper)), rel=1e-9)
    assert lower == pytest.approx(math.sqrt(variance(null - critical * lower)), rel=1e-9)
    assert edge_errors(variance, null=null, critical=10.0) == (math.inf, math.inf)


def test_covariates_save_what_they_explain() -> None:
    raw = mean_outcome(mean=10, std=4)
    test = PlannedTest(distribution="normal")
    share = sample_size(raw.adjusted(0.7), test, effect=0.1) / sample_size(raw, test, effect=0.1)

    assert share == pytest.approx(0.3, rel=1e-9)


def test_clusters_cost_the_design_effect() -> None:
    assert design_effect(icc=0.05, mean_size=20) == pytest.approx(1 + 19 * 0.05)
    assert design_effect(icc=0.05, mean_size=20, size_cv=0.5) == pytest.approx(1 + 24 * 0.05)
    raw = mean_outcome(mean=10, std=4)
    test = PlannedTest(distribution="normal")
    alone = sample_size(raw, test, effect=0.1)
    even = raw.clustered(icc=0.05, mean_size=20)
    grown = raw.clustered(icc=0.05, mean_size=20, size_cv=0.5)

    assert sample_size(even, test, effect=0.1) / alone == pytest.approx(1.95, rel=1e-9)
    # Thousands of clusters of unequal size come near the formula for endlessly many.
    assert sample_size(grown, test, effect=0.1) / alone == pytest.approx(2.2, rel=1e-4)


@pytest.mark.parametrize("number", [4, 6, 40])
def test_few_clusters_of_unequal_size_vary_as_expected(number: int) -> None:
    """Against clusters drawn with gamma-distributed sizes."""
    cv, icc, mean_size = 0.7, 0.3, 50.0
    outcome = mean_outcome(mean=10, std=4).clustered(icc=icc, mean_size=mean_size, size_cv=cv)
    few = outcome.clusters_of(number * mean_size)
    sizes = np.random.default_rng(8).gamma(1 / cv**2, mean_size * cv**2, (200_000, number))
    shares = sizes / sizes.sum(axis=1, keepdims=True)
    level = icc * (shares**2).sum(axis=1) + (1 - icc) / sizes.sum(axis=1)

    assert 16 * level.mean() == pytest.approx(
        outcome.variance / (number * mean_size) * few.factor, rel=0.01
    )
    assert outcome.clusters_of(1e9).factor == pytest.approx(1.0)
    assert few.worth - 1 == pytest.approx(_drawn_df(sizes[:3000], icc), rel=0.06)


def test_effects_of_few_clusters_share_what_control_varies() -> None:
    """Correlation of effects that share a control, of clusters with gamma-distributed sizes."""
    cv, icc, mean_size = 0.9, 0.3, 50.0
    outcome = mean_outcome(mean=10, std=4).clustered(icc=icc, mean_size=mean_size, size_cv=cv)
    test = PlannedTest(ratio=0.4, inflation=1.25)
    rng = np.random.default_rng(9)

    def variance(number: int) -> float:
        sizes = rng.gamma(1 / cv**2, mean_size * cv**2, (200_000, number))
        shares = sizes / sizes.sum(axis=1, keepdims=True)
        return float((icc * (shares**2).sum(axis=1) + (1 - icc) / sizes.sum(axis=1)).mean())

    control, treatment = variance(20), variance(8)
    found = overlap(outcome, test, effect=0.0, n_control=20 * mean_size * 1.25)
    assert found == pytest.approx(control / (control + treatment), rel=0.005)
    many = overlap(outcome, test, effect=0.0, n_control=1e9)
    assert many == pytest.approx(0.4 / 1.4, rel=1e-6)
    assert found > many * 1.02


@pytest.mark.parametrize("icc", [0.0, 0.02, 1 - 1e-15, 1.0])
@pytest.mark.parametrize("mean_size", [1.0, 1.3, 1e5])
@pytest.mark.parametrize("size_cv", [0.0, 1.5, 6.0])
def test_extreme_clusters_have_a_plan(icc: float, mean_size: float, size_cv: float) -> None:
    outcome = mean_outcome(mean=10, std=4).clustered(icc=icc, mean_size=mean_size, size_cv=size_cv)
    test = PlannedTest(ratio=0.5)
    for effect in (1.0, 40.0):
        n = sample_size(outcome, test, effect=effect)
        assert power(outcome, test, effect=effect, n_control=n) >= 0.8 - 1e-6


def _drawn_df(sizes: np.ndarray, icc: float) -> float:
    """Mean of `tr(M)^2 / tr(M^2)`, M the covariance of CR2's contributions, written out."""
    found = []
    for units in sizes:
        share = units / units.sum()
        noise = np.diag(icc * share**2 + (1 - icc) * share / units.sum())
        off = (np.eye(len(units)) - np.outer(share, np.ones(len(units)))) / np.sqrt(1 - share)[
            :, None
        ]
        moved = off @ noise @ off.T
        found.append(np.trace(moved) ** 2 / (moved**2).sum())
    return float(np.mean(found))


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_clusters_have_the_degrees_of_freedom_of_the_analysis(ratio: float) -> None:
    """Welch's formula with each arm's clusters less one; unequal sizes are worth fewer.

    The arms' shares of the variance are estimated: squared ones are larger by their own variance.
    """
    outcome = mean_outcome(mean=10, std=4).clustered(icc=0.05, mean_size=20)
    found = sampling(outcome, PlannedTest(ratio=ratio), effect=0.5, n_control=400).df
    shares = np.array([1.0, 1.0 / ratio]) / (1.0 + 1.0 / ratio)
    dfs = np.array([19, 20 * ratio - 1])
    product = shares.prod()
    noise = product / (1 + 1 / (product * (2 / dfs).sum()))
    expected = 1.0 / ((shares**2 + noise) / dfs).sum()
    assert found == pytest.approx(expected, rel=1e-9)
    # A treatment that multiplies units makes its arm vary more: its few clusters weigh more.
    grown = dataclasses.replace(outcome, response="multiplicative")
    more = sampling(grown, PlannedTest(ratio=ratio), effect=10.0, n_control=400).df
    assert more is not None
    assert found is not None
    assert more < found
    uneven = mean_outcome(mean=10, std=4).clustered(icc=0.05, mean_size=20, size_cv=0.8)
    fewer = sampling(uneven, PlannedTest(ratio=ratio), effect=0.5, n_control=400).df
    assert fewer is not None
    assert fewer < found


@pytest.mark.parametrize("icc", [0.0, 0.05, 1.0])
def test_evenness_is_that_of_gamma_sizes(icc: float) -> None:
    rng = np.random.default_rng(4)
    cv = 0.6
    sizes = rng.gamma(1 / cv**2, 20 * cv**2, 400_000)
    added = sizes * (1 + (sizes - 1) * icc)
    found = planned_evenness(icc=icc, mean_size=20, size_cv=cv)
    assert found == pytest.approx(added.mean() ** 2 / (added**2).mean(), rel=0.05)
    assert planned_evenness(icc=icc, mean_size=20, size_cv=0.0) == pytest.approx(1.0)


def test_an_inflation_factor_multiplies_the_sample() -> None:
    outcome = mean_outcome(mean=10, std=4)
    fixed = sample_size(outcome, PlannedTest(), effect=0.2)

    assert sample_size(outcome, PlannedTest(inflation=1.028), effect=0.2) == pytest.approx(
        1.028 * fixed, rel=1e-9
    )


def test_a_ratio_is_linearised() -> None:
    outcome = OUTCOMES["ratio"]

    assert outcome.level == pytest.approx(0.2)
    assert outcome.variance == pytest.approx((2.0 - 0.4 * 2.5 + 0.04 * 9.0) / 36.0)


def test_more_units_more_power_less_effect() -> None:
    outcome, test = OUTCOMES["mean"], PlannedTest()
    powers = [power(outcome, test, effect=1.0, n_control=n) for n in (100, 1000, 10_000, 1e6)]
    effects = [mde(outcome, test, n_control=n) for n in (100, 1000, 10_000, 1e6)]

    assert powers == sorted(powers)
    assert effects == sorted(effects, reverse=True)


def test_without_an_effect_the_power_is_alpha() -> None:
    for distribution in ("t", "normal"):
        test = PlannedTest(alpha=0.03, distribution=distribution)
        assert power(OUTCOMES["mean"], test, effect=0.0, n_control=50) == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: mean_outcome(mean=1, std=0), "variance"),
        (lambda: mean_outcome(mean=math.nan, std=1), "level"),
        (lambda: proportion_outcome(share=1.0), "between 0 and 1"),
        (lambda: mean_outcome(mean=1, std=1).adjusted(1.0), "r_squared"),
        (lambda: mean_outcome(mean=1, std=1).adjusted(-0.1), "r_squared"),
        (lambda: design_effect(icc=1.2, mean_size=3), "icc"),
        (lambda: design_effect(icc=0.1, mean_size=0.5), "at least one unit"),
        (lambda: design_effect(icc=0.1, mean_size=3, size_cv=-1), "size_cv"),
        (lambda: OUTCOMES["clustered"].clustered(icc=0.1, mean_size=3), "clustered already"),
        (lambda: PlannedTest(alpha=0), "alpha"),
        (lambda: PlannedTest(ratio=0), "ratio"),
        (lambda: PlannedTest(ratio=math.inf), "ratio"),
        (lambda: PlannedTest(inflation=0.9), "inflation"),
        (lambda: PlannedTest(null=math.nan), "null"),
        (lambda: PlannedTest(definition="power.t.test", ratio=2), "equal arms"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        make()


@pytest.mark.parametrize(
    ("outcome", "test", "says"),
    [
        ("mean", PlannedTest(definition="power.prop.test"), "proportions only"),
        ("proportion", PlannedTest(definition="power.t.test"), "takes no proportion"),
        ("proportion", PlannedTest(definition="TTestIndPower"), "takes no proportion"),
        ("clustered", PlannedTest(definition="NormalIndPower"), "independent units"),
        ("proportion", PlannedTest(definition="NormalIndPower", null=-0.01), "no margin"),
        ("mean", PlannedTest(alternative="smaller"), "side of the null"),
        ("mean", PlannedTest(alternative="larger", null=0.2), "side of the null"),
        ("mean", PlannedTest(null=0.1), "side of the null"),
    ],
)
def test_tests_that_do_not_fit_are_refused(outcome: str, test: PlannedTest, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        sample_size(OUTCOMES[outcome], test, effect=0.1)


def test_numbers_out_of_range_are_refused() -> None:
    outcome, test = OUTCOMES["proportion"], PlannedTest()
    calls = {
        "out of its range": lambda: sample_size(outcome, test, effect=0.95),
        "power must be above alpha": lambda: sample_size(outcome, test, effect=0.01, power=0.04),
        "too few units": lambda: power(outcome, test, effect=0.01, n_control=1.0),
        "lift needs a control level": lambda: sample_size(
            mean_outcome(mean=-1, std=1), PlannedTest(scale="relative"), effect=0.1
        ),
        "tested on one side": lambda: smallest_margin(outcome, test, n_control=100),
    }
    for says, call in calls.items():
        with pytest.raises(CausalError, match=says):
            call()


def test_an_effect_that_no_sample_of_this_size_finds_is_no_number() -> None:
    """The error of a lift grows with it, and a proportion ends at one."""
    with pytest.raises(InferenceError, match="no effect is found"):
        mde(mean_outcome(mean=1, std=10), PlannedTest(scale="relative"), n_control=50)
    with pytest.raises(InferenceError, match="no effect is found"):
        mde(proportion_outcome(share=0.01), PlannedTest(), n_control=50, direction="decrease")
    with pytest.raises(InferenceError, match="no sample is large enough"):
        sample_size(mean_outcome(mean=1, std=1), PlannedTest(), effect=1e-9)


def test_an_outcome_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        OUTCOMES["mean"].level = 1.0
