"""Effects by time since exposure against statsmodels on the unit-days."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from causal.core.errors import CausalError, DataError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.experiments import ab
from causal.experiments.novelty import trend

SPEND = {"name": "spend", "type": "mean", "column": "spend"}
N_DAYS = 6
REGRESSION = {"cluster_correction": "cr1", "degrees_of_freedom": "clusters_minus_one"}


def unit_days(*, seed: int, n: int = 400, fade: float = 0.3, lift: float = 2.0) -> pd.DataFrame:
    """Unit-days whose effect of `lift` falls by `fade` a day; units miss days at random."""
    rng = np.random.default_rng(seed)
    unit, day = np.repeat(np.arange(n), N_DAYS), np.tile(np.arange(N_DAYS), n)
    treated = (rng.permutation(n) % 2)[unit]
    spend = 10 + rng.normal(size=n)[unit] + treated * (lift - fade * day)
    frame = pd.DataFrame(
        {
            "unit": unit, "day": day, "treated": treated,
            "variant": np.where(treated == 1, "treatment", "control"),
            "spend": spend + rng.normal(size=len(unit)),
            "before": rng.normal(size=n)[unit],
            "orders": rng.poisson(2, len(unit)), "visits": 1 + rng.poisson(3, len(unit)),
        }
    )  # fmt: skip
    return frame[rng.random(len(frame)) < 0.9].reset_index(drop=True)


def spec_data(*metrics: dict[str, Any], **options: Any) -> dict[str, Any]:
    base = {
        "unit": "unit", "variant": "variant", "control": "control", "metrics": list(metrics),
        "time_since_exposure": "day",
    }  # fmt: skip
    return {
        "name": "n", "source": {"table": "t"}, "method": "ab", "seed": 3,
        "options": {**base, **options},
    }  # fmt: skip


def analyse(frame: pd.DataFrame, *metrics: dict[str, Any], **options: Any) -> Result:
    spec = validate(ab.SPEC, spec_data(*metrics, **options))
    return run(ab.estimate(spec), PandasEngine(frame))


@pytest.fixture(scope="module")
def days() -> pd.DataFrame:
    return unit_days(seed=1)


def test_effects_by_period_are_those_of_one_clustered_regression(days: pd.DataFrame) -> None:
    """Of spend on day dummies and their products with the arm, clustered by unit."""
    fit = smf.ols("spend ~ C(day) + C(day):treated - 1", days).fit(
        cov_type="cluster", cov_kwds={"groups": days["unit"]}, use_t=True
    )
    names = [f"C(day)[{day}]:treated" for day in range(N_DAYS)]
    result = analyse(days, SPEND, **REGRESSION)
    found = [e for e in result.effects if e.estimator == "cluster_robust_by_period"]

    np.testing.assert_allclose([e.estimate for e in found], fit.params[names], rtol=1e-9)
    np.testing.assert_allclose([e.std_error for e in found], fit.bse[names], rtol=1e-9)
    np.testing.assert_allclose([e.pvalue for e in found], fit.pvalues[names], rtol=1e-6)
    curve = result.tables["novelty"]
    assert list(curve["period"]) == list(range(N_DAYS))
    assert (curve["band_lower"] < curve["ci_lower"]).all()
    assert (curve["band_upper"] > curve["ci_upper"]).all()


def test_the_trend_is_the_weighted_line_with_the_joint_error(days: pd.DataFrame) -> None:
    fit = smf.ols("spend ~ C(day) + C(day):treated - 1", days).fit(
        cov_type="cluster", cov_kwds={"groups": days["unit"]}, use_t=True
    )
    names = [f"C(day)[{day}]:treated" for day in range(N_DAYS)]
    weights = 1 / fit.bse[names].to_numpy() ** 2
    line = np.polynomial.Polynomial.fit(
        np.arange(N_DAYS), fit.params[names], 1, w=np.sqrt(weights)
    ).convert()
    off = np.arange(N_DAYS) - weights @ np.arange(N_DAYS) / weights.sum()
    contrast = pd.Series(0.0, index=fit.params.index)
    contrast[names] = weights * off / (weights @ off**2)
    test = fit.t_test(contrast.to_numpy())
    result = analyse(days, SPEND, **REGRESSION)
    (slope,) = [e for e in result.effects if e.estimator == "trend"]
    (check,) = [item for item in result.diagnostics if item.name.startswith("novelty.spend")]

    assert slope.estimate == pytest.approx(line.coef[1], rel=1e-9)
    assert slope.std_error == pytest.approx(float(test.sd[0, 0]), rel=1e-9)
    assert slope.pvalue == pytest.approx(float(test.pvalue), rel=1e-6)
    assert "wears off" in check.detail
    np.testing.assert_allclose(result.tables["novelty"]["trend"], line(np.arange(N_DAYS)))


def test_the_main_effect_is_that_of_unit_days_clustered_by_unit(days: pd.DataFrame) -> None:
    fit = smf.ols("spend ~ treated", days).fit(
        cov_type="cluster", cov_kwds={"groups": days["unit"]}, use_t=True
    )
    found = analyse(days, SPEND, **REGRESSION).effects[0]

    assert found.estimate == pytest.approx(fit.params["treated"], rel=1e-9)
    assert found.std_error == pytest.approx(fit.bse["treated"], rel=1e-9)
    assert found.n_clusters == days["unit"].nunique()


def test_ratios_covariates_and_several_arms() -> None:
    frame = unit_days(seed=2)
    frame["variant"] = np.where(frame["unit"] % 5 == 0, "third", frame["variant"])
    ratio = {"name": "rate", "type": "ratio", "numerator": "orders", "denominator": "visits"}
    result = analyse(frame, SPEND | {"covariates": ["before"]}, ratio)
    curves = result.tables["novelty"]

    assert len(curves) == 2 * 2 * N_DAYS
    assert set(curves["estimator"]) >= {"cuped_by_period"}
    assert len([e for e in result.effects if e.estimator == "trend"]) == 4
    assert set(ab.figures(validate(ab.SPEC, spec_data(SPEND, ratio)), result)) >= {
        "novelty_spend_treatment_control", "novelty_rate_third_control",
    }  # fmt: skip


def test_thin_periods_and_missing_ones_are_said(days: pd.DataFrame) -> None:
    late = pd.DataFrame([days.iloc[0].to_dict() | {"unit": 9999, "day": 9}])
    frame = pd.concat([days, late], ignore_index=True).astype({"day": "Int64"})
    frame.loc[:4, "day"] = pd.NA
    frame.loc[:4, "unit"] = list(range(20000, 20005))
    with pytest.raises(DataError, match="unit or day is null"):
        analyse(frame, SPEND)
    result = analyse(frame[5:], SPEND)
    (note,) = [i for i in result.diagnostics if i.name == "periods_left_out.day"]

    assert "treatment at 9" in note.detail


def test_a_line_is_found_exactly() -> None:
    periods = np.array([0.0, 1.0, 4.0])
    found = trend(periods, 3.0 - 0.5 * periods, np.diag([1.0, 4.0, 0.25]))

    assert found.slope == pytest.approx(-0.5)
    np.testing.assert_allclose(found.line, 3.0 - 0.5 * periods)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"day": "first"}, "must identify a row"),
        ({"variant": "control"}, "one arm only"),
    ],
)
def test_data_that_have_no_curve(days: pd.DataFrame, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        analyse(days.assign(**changes), SPEND)


def test_text_too_few_and_too_many_periods(days: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="day must hold numbers"):
        analyse(days.assign(day="d" + days["day"].astype(str)), SPEND)
    with pytest.raises(DataError, match="fewer than 3 periods"):
        analyse(days[days["day"] < 2], SPEND)
    with pytest.raises(DataError, match="too many periods"):
        analyse(days.assign(day=np.arange(len(days)) % 50), SPEND)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"time_since_exposure": "unit"}, "must be different columns"),
        ({"strata": ["before"]}, "strata are for independent units"),
        ({"variance": "welch"}, "with cluster leave it out"),
        (
            {"metrics": [{"name": "p", "type": "quantile", "column": "spend", "quantile": 0.5}]},
            "time_since_exposure need a mean",
        ),
    ],
)
def test_specs_that_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(CausalError, match=says):
        validate(ab.SPEC, spec_data(SPEND, **options))
