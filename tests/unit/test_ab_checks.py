"""The checks of an experiment: sample ratio, guardrails, balance."""

import numpy as np
import pytest
from scipy import stats

from causal.checks import covariate_balance, guardrail, srm
from causal.core.errors import DataError
from causal.core.inference import effect
from causal.core.result import Effect


def make_effect(estimate: float, std_error: float, *, df: float | None = 100.0) -> Effect:
    return effect(
        estimator="welch", estimand="ate", metric="refunds", term="a - b", estimate=estimate,
        std_error=std_error, df=df, confidence_level=0.95, n_treated=50, n_control=50,
    )  # fmt: skip


def test_sample_ratio_is_pearsons_test() -> None:
    found = srm.check({"a": 5200, "b": 4800}, shares=(0.5, 0.5), alpha=0.0005)
    reference = stats.chisquare([5200, 4800])
    assert found.statistic == pytest.approx(reference.statistic)
    assert found.pvalue == pytest.approx(reference.pvalue)
    assert found.passed is False
    assert "do not trust" in found.detail
    assert srm.check({"a": 5200, "b": 4800}, shares=(0.52, 0.48), alpha=0.0005).passed is True


def test_sample_ratio_says_that_equal_shares_were_assumed() -> None:
    found = srm.check({"a": 90, "b": 10}, shares=(0.5, 0.5), alpha=0.0005, is_assumed=True)
    assert "state expected_shares" in found.detail
    assert "assumed 50.00%" in found.detail


def test_clustered_sample_ratio_of_single_units_is_pearsons_test_at_the_plan() -> None:
    counts = {"a": 480, "b": 520, "c": 1000}
    shares = np.array([0.25, 0.25, 0.5])
    covariance = 2000 * (np.diag(shares) - np.outer(shares, shares))[1:, 1:]
    found = srm.check_clustered(counts, covariance, shares=tuple(shares), alpha=0.0005)
    reference = stats.chisquare([480, 520, 1000], 2000 * shares)
    assert found.statistic == pytest.approx(reference.statistic, rel=1e-9)
    assert found.pvalue == pytest.approx(reference.pvalue, rel=1e-9)


def test_sample_ratio_of_clusters_that_hold_every_arm_alike_has_nothing_to_test() -> None:
    found = srm.check_clustered(
        {"a": 10, "b": 10}, np.zeros((1, 1)), shares=(0.5, 0.5), alpha=0.0005
    )
    assert (found.passed, found.pvalue) == (None, None)


def test_planned_shares_are_those_of_the_compared_arms() -> None:
    assert srm.planned_shares(("a", "b"), None) == (0.5, 0.5)
    assert srm.planned_shares(("a", "b"), {"a": 1, "b": 3, "c": 4}) == (0.25, 0.75)
    assert srm.planned_shares((0, 1), {"0": 1, "1": 3}) == (0.25, 0.75)
    with pytest.raises(DataError, match="no expected share"):
        srm.planned_shares(("a", "d"), {"a": 1.0})


@pytest.mark.parametrize(
    ("estimate", "std_error", "passed"),
    [
        (0.0, 0.001, True),
        (0.003, 0.0005, True),
        (0.0, 0.01, None),
        (0.006, 0.001, False),
        (0.006, 0.01, None),
        (-0.05, 0.001, True),
    ],
)
@pytest.mark.parametrize("direction", ["decrease", "increase"])
def test_guardrail_is_non_inferiority(
    estimate: float, std_error: float, direction: guardrail.Direction, *, passed: bool | None
) -> None:
    sign = 1 if direction == "decrease" else -1
    found = guardrail.check(
        make_effect(sign * estimate, std_error), direction=direction, margin=0.005
    )
    assert found.passed is passed
    assert found.statistic == pytest.approx((0.005 - estimate) / std_error)
    assert found.pvalue is not None
    assert (found.pvalue < 0.025) is (passed is True)


def test_guardrail_without_margin_can_only_show_harm() -> None:
    harmed = guardrail.check(make_effect(-1.0, 0.1), direction="increase", margin=None)
    fine = guardrail.check(make_effect(1.0, 0.1, df=None), direction="increase", margin=None)
    assert (harmed.passed, fine.passed) == (False, None)
    assert "no margin" in fine.detail


def test_balance_is_a_joint_wald_test() -> None:
    found = covariate_balance.check(
        np.array([3.0, 0.0]), np.eye(2), covariates=["a", "b"], subject="m", alpha=0.001
    )
    assert found.statistic == pytest.approx(9.0)
    assert found.pvalue == pytest.approx(stats.chi2.sf(9.0, 2))
    assert found.passed is True


def test_balance_that_cannot_be_tested_says_so() -> None:
    found = covariate_balance.check(
        np.array([3.0, 3.0]), np.ones((2, 2)), covariates=["a", "b"], subject="m", alpha=0.001
    )
    assert found.passed is None
    assert found.pvalue is None
    assert "cannot be tested" in found.detail
