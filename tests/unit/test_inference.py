"""Intervals, p-values and joint tests."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multivariate import test_mvmean as mean_vector_test
from statsmodels.stats.oneway import anova_oneway

from causal.core.errors import InferenceError
from causal.core.inference import (
    critical_value,
    effect,
    hotelling,
    two_sided_pvalue,
    wald,
    welch_test,
)
from causal.core.result import Effect


def made(
    *, estimate: float = 2.0, std_error: float = 0.5, df: float | None = None, level: float = 0.95
) -> Effect:
    return effect(
        estimator="ols", estimand="ate", metric="minutes", term="treatment - control",
        estimate=estimate, std_error=std_error, confidence_level=level, df=df,
        n_treated=10, n_control=12,
    )  # fmt: skip


@pytest.mark.parametrize("df", [None, 1.0, 3.5, 40.0])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_the_interval_is_scipys(df: float | None, level: float) -> None:
    found = made(df=df, level=level)
    reference = stats.norm(2.0, 0.5) if df is None else stats.t(df, 2.0, 0.5)

    assert (found.ci_lower, found.ci_upper) == pytest.approx(reference.interval(level), rel=1e-12)
    assert found.statistic == 4.0
    assert found.pvalue == pytest.approx(two_sided_pvalue(4.0, df=df), rel=1e-12)
    assert found.df == df


def test_pvalue_and_interval_agree_about_zero() -> None:
    half = critical_value(0.95, df=7)

    assert made(estimate=half * 1.001, std_error=1.0, df=7).pvalue < 0.05
    assert made(estimate=half * 0.999, std_error=1.0, df=7).pvalue > 0.05


def test_a_tiny_pvalue_keeps_its_digits() -> None:
    assert two_sided_pvalue(30.0) == pytest.approx(2 * stats.norm.sf(30.0), rel=1e-12)
    assert 0 < two_sided_pvalue(-30.0) < 1e-190


@pytest.mark.parametrize(
    ("estimate", "std_error"),
    [(1.0, 0.0), (0.0, 0.0), (1.0, math.nan), (math.nan, 1.0), (math.inf, 1.0), (1.0, -1.0)],
)
def test_no_inference_without_a_standard_error(estimate: float, std_error: float) -> None:
    with pytest.raises(InferenceError, match="minutes: the standard error of treatment - control"):
        made(estimate=estimate, std_error=std_error)


@pytest.fixture(scope="module")
def model() -> sm.regression.linear_model.RegressionResults:
    rng = np.random.default_rng(3)
    design = sm.add_constant(rng.normal(size=(80, 3)))
    return sm.OLS(design @ [1, 0.2, 0, -0.3] + rng.normal(size=80), design).fit()


@pytest.mark.parametrize("use_f", [True, False], ids=["F", "chi-square"])
def test_wald_is_that_of_statsmodels(
    model: sm.regression.linear_model.RegressionResults, *, use_f: bool
) -> None:
    peer = model.wald_test(np.eye(4)[1:], use_f=use_f, scalar=True)
    statistic, pvalue = wald(
        np.asarray(model.params)[1:],
        np.asarray(model.cov_params())[1:, 1:],
        df=model.df_resid if use_f else None,
    )

    assert statistic == pytest.approx(float(peer.statistic), rel=1e-9)
    assert pvalue == pytest.approx(float(peer.pvalue), rel=1e-9)


def test_wald_of_one_is_the_square_of_t() -> None:
    statistic, pvalue = wald(np.array([2.0]), np.array([[0.25]]), df=9)

    assert statistic == pytest.approx(16.0)
    assert pvalue == pytest.approx(two_sided_pvalue(4.0, df=9), rel=1e-12)


def test_wald_refuses_a_singular_covariance() -> None:
    with pytest.raises(InferenceError, match="singular; given: 2"):
        wald(np.array([1.0, 2.0]), np.array([[1.0, 1.0], [1.0, 1.0]]))


def test_hotelling_is_the_test_of_a_mean_vector() -> None:
    rows = np.random.default_rng(6).normal(0.3, 1, (15, 3))
    peer = mean_vector_test(rows)
    statistic, pvalue = hotelling(rows.mean(axis=0), np.cov(rows.T) / 15, df=14)

    assert statistic == pytest.approx(peer.statistic, rel=1e-9)
    assert pvalue == pytest.approx(peer.pvalue, rel=1e-9)


def test_hotelling_of_one_is_the_square_of_t_and_needs_degrees() -> None:
    statistic, pvalue = hotelling(np.array([2.0]), np.array([[0.25]]), df=2.5)

    assert statistic == pytest.approx(16.0)
    assert pvalue == pytest.approx(two_sided_pvalue(4.0, df=2.5), rel=1e-12)
    with pytest.raises(InferenceError, match="too few degrees of freedom"):
        hotelling(np.ones(3), np.eye(3), df=2)


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_welchs_test_is_that_of_statsmodels(unit: float) -> None:
    rng = np.random.default_rng(9)
    groups = [unit * rng.normal(0.2 * at, 1 + at, 4 + 3 * at) for at in range(5)]
    peer = anova_oneway(groups, use_var="unequal", welch_correction=True)
    statistic, df, pvalue = welch_test(
        np.array([group.mean() for group in groups]),
        np.array([group.var(ddof=1) / len(group) for group in groups]),
        dfs=np.array([len(group) - 1.0 for group in groups]),
    )

    assert statistic == pytest.approx(peer.statistic, rel=1e-9)
    assert df == pytest.approx(peer.df_denom, rel=1e-9)
    assert pvalue == pytest.approx(peer.pvalue, rel=1e-9)


def test_welchs_test_of_two_is_the_square_of_welchs_t() -> None:
    a, b = np.random.default_rng(2).normal(0, (1, 3), (9, 2)).T
    peer = stats.ttest_ind(a, b, equal_var=False)
    found = welch_test(
        np.array([a.mean(), b.mean()]), np.array([a.var(ddof=1), b.var(ddof=1)]) / 9,
        dfs=np.array([8.0, 8.0]),
    )  # fmt: skip

    assert found == pytest.approx((peer.statistic**2, peer.df, peer.pvalue), rel=1e-9)
    with pytest.raises(InferenceError, match="positive variances"):
        welch_test(np.array([1.0, 2.0]), np.array([0.0, 1.0]), dfs=np.array([3.0, 3.0]))
