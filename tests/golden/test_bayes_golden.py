"""Posteriors against public figures: closed forms, GrowthBook's fixtures, and exact fractions."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causal.experiments.arm_contrasts import Difference, closed_form, probability_greater
from causal.experiments.arm_posteriors import Beta, BetaPrior, beta_posterior
from causal.experiments.bayes import (
    ArmLevel,
    NormalPosterior,
    NormalPrior,
    PosteriorSummary,
    lift_posterior,
    normal_posterior,
    summarise,
)

SCRIPT = "causalimpact_bandit_clv_seq_bayes"


@pytest.fixture(scope="module")
def targets(validation_data: Path) -> pd.DataFrame:
    """Figures of the cases BY1 and BY2 with their tolerances."""
    table = pd.read_csv(validation_data.parent / "targets.csv")
    return table[table["case"].str.startswith("BY")].set_index(["case", "figure"])


def assert_target(targets: pd.DataFrame, case: str, figure: str, found: float) -> None:
    row = targets.loc[(case, figure)]
    assert found == pytest.approx(row["target"], abs=row["abs_tolerance"])


def share(successes: int, n: int) -> ArmLevel:
    """A proportion with the binomial error that GrowthBook uses."""
    mean = successes / n
    return ArmLevel(mean=mean, std_error=np.sqrt(mean * (1 - mean) / n))


def level(*, total: float, squares: float, n: int) -> ArmLevel:
    variance = (squares - total**2 / n) / (n - 1)
    return ArmLevel(mean=total / n, std_error=np.sqrt(variance / n))


def growthbook(control: ArmLevel, treatment: ArmLevel, **prior: float) -> PosteriorSummary:
    return summarise(lift_posterior(control, treatment, prior=NormalPrior(**prior)))


def test_every_bayesian_target_is_tested(targets: pd.DataFrame) -> None:
    assert sorted(targets.index) == [
        ("BY1 Hillstrom W conversion", "P(T>C), Beta(1,1)"),
        ("BY2 49/100 vs 51/100", "exact beta-binomial"),
        ("BY2 GrowthBook fixture", "chance to win"),
        ("BY2 GrowthBook fixture", "relative lift"),
        ("BY2 GrowthBook fixture", "sd"),
    ]


def test_by1_hillstrom_conversion(validation_data: Path, targets: pd.DataFrame) -> None:
    rows = pd.read_csv(validation_data / "hillstrom.csv")
    counts = rows.groupby("segment")["conversion"].agg(["sum", "count"])
    treatment = beta_posterior(
        *counts.loc["Womens E-Mail", ["sum"]], n=counts.loc["Womens E-Mail", "count"]
    )
    control = beta_posterior(*counts.loc["No E-Mail", ["sum"]], n=counts.loc["No E-Mail", "count"])
    assert (treatment, control) == (Beta(190.0, 21199.0), Beta(123.0, 21185.0))
    case = ("BY1 Hillstrom W conversion", "P(T>C), Beta(1,1)")
    assert_target(targets, *case, probability_greater(treatment, control))
    assert_target(targets, *case, Difference(control, treatment).sf(0.0))
    assert probability_greater(treatment, control) == pytest.approx(0.9999238490, abs=5e-11)


def test_by2_exact(targets: pd.DataFrame) -> None:
    found = probability_greater(beta_posterior(51, n=100), beta_posterior(49, n=100))
    assert_target(targets, "BY2 49/100 vs 51/100", "exact beta-binomial", found)


def test_by2_growthbook(targets: pd.DataFrame) -> None:
    found = growthbook(share(49, 100), share(51, 100))
    case = "BY2 GrowthBook fixture"
    assert_target(targets, case, "relative lift", found.mean)
    assert_target(targets, case, "sd", found.sd)
    assert_target(targets, case, "chance to win", found.prob_positive)
    assert (found.ci_lower, found.ci_upper) == pytest.approx((-0.24779, 0.32943), abs=5e-6)
    assert found.loss_control == pytest.approx(0.0814, abs=5e-6)
    assert found.loss_treatment == pytest.approx(0.04058, abs=5e-6)


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ({}, (0.05, 0.03572, -0.02, 0.12, 0.91923, 0.05131, 0.00131)),
        (
            {"mean": 0.1, "sd": 0.1**0.5},
            (0.05063, 0.03549, -0.01893, 0.12019, 0.92315, 0.05186, 0.00123),
        ),
    ],
)
def test_growthbook_means(prior: dict[str, float], expected: tuple[float, ...]) -> None:
    """GrowthBook's stored tests of means, flat and with a normal prior (variance 0.1)."""
    control = level(total=100, squares=1002.25, n=10)
    treatment = level(total=105, squares=1111.5, n=10)
    found = growthbook(control, treatment, **prior)
    assert (
        found.mean, found.sd, found.ci_lower, found.ci_upper, found.prob_positive,
        found.loss_control, found.loss_treatment,
    ) == pytest.approx(expected, abs=5.1e-6)  # fmt: skip


def test_growthbook_risk() -> None:
    """The risk of GrowthBook's stability test, to ten digits, and its limits far from zero."""
    treatment, control = normal_posterior(0.1, std_error=0.05).losses()
    assert control == pytest.approx(0.1004245351308, abs=5e-11)
    assert treatment == pytest.approx(0.0004245351308, abs=5e-11)
    assert NormalPosterior(0.01, 4.5e-9).losses() == (0.0, 0.01)
    assert NormalPosterior(-0.01, 4.5e-9).losses() == (0.01, 0.0)


@pytest.mark.parametrize(
    ("priors", "expected"),
    [
        ((BetaPrior(), BetaPrior()), (0.03872, 0.01912)),
        ((BetaPrior(alpha=0, beta=0), BetaPrior(alpha=100, beta=100)), (0.03025, 0.01692)),
    ],
)
def test_growthbook_beta_risk(
    priors: tuple[BetaPrior, BetaPrior], expected: tuple[float, float]
) -> None:
    """Expected losses of two betas, from the tests of GrowthBook's former beta-binomial engine."""
    control = beta_posterior(49, n=100, prior=priors[0])
    treatment = beta_posterior(51, n=100, prior=priors[1])
    loss_treatment, loss_control = Difference(control, treatment).losses()
    assert (loss_control, loss_treatment) == pytest.approx(expected, abs=5.1e-6)


def exact(treatment: Beta, control: Beta) -> float:
    """P(treatment > control) in integers of 3,000 bits: the finite sum without rounding."""
    a, b = int(control.alpha), int(control.beta)
    c, d = int(treatment.alpha), int(treatment.beta)
    one = 1 << 3000
    numerator = denominator = 1
    for k in range(a):
        numerator *= b + k
        denominator *= b + d + k
    term = one * numerator // denominator
    total = term
    for i in range(c - 1):
        term = term * (a + i) * (d + i) // ((1 + i) * (a + b + d + i))
        total += term
    return float(Fraction(total, one))


@pytest.mark.parametrize(
    ("treatment", "control", "tolerance"),
    [
        (Beta(52.0, 50.0), Beta(50.0, 52.0), 1e-13),
        (Beta(5.0, 30.0), Beta(3.0, 40.0), 1e-13),
        (Beta(1.0, 1001.0), Beta(2.0, 900.0), 1e-13),
        (Beta(700.0, 300.0), Beta(650.0, 380.0), 1e-13),
        (Beta(301.0, 999_701.0), Beta(281.0, 999_721.0), 2e-11),
        (Beta(900.0, 1e6), Beta(950.0, 1.05e6), 2e-11),
        (Beta(400.0, 3e5), Beta(9000.0, 6.5e6), 2e-11),
    ],
)
def test_exact_fractions(treatment: Beta, control: Beta, tolerance: float) -> None:
    truth = exact(treatment, control)
    assert closed_form(treatment, control) == pytest.approx(truth, abs=tolerance)
    assert Difference(control, treatment).sf(0.0) == pytest.approx(truth, abs=tolerance)
    assert closed_form(control, treatment) == pytest.approx(1 - truth, abs=tolerance)
