"""Retention metrics of the method `ab` against statsmodels and against the units themselves."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from causal.core.errors import CausalError, DataError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect, Result
from causal.core.spec import validate
from causal.experiments import ab
from causal.experiments.retention import log_log_interval, survival

CONTROL, TREATMENT = "control", "treatment"
FLAG = {
    "name": "d7", "type": "retention", "column": "active_d7", "observed_days": "followed",
    "horizon": 7,
}  # fmt: skip
CURVE = {
    "name": "kept", "type": "retention", "churn_day": "left_on", "observed_days": "followed",
    "horizon": 28,
}  # fmt: skip


@pytest.fixture(scope="module")
def units() -> pd.DataFrame:
    """Units that enter over 40 days and leave at a steady rate; the data end on day 40."""
    rng = np.random.default_rng(5)
    n = 3000
    treated = rng.random(n) < 0.5
    followed = rng.integers(0, 41, n)
    leaves = np.floor(rng.exponential(np.where(treated, 40, 30)))
    seen = leaves <= followed
    return pd.DataFrame(
        {
            "unit": np.arange(n),
            "house": np.arange(n) // 3,
            "variant": np.where(treated, TREATMENT, CONTROL),
            "followed": followed,
            "left_on": np.where(seen, leaves, np.nan),
            "active_d7": ((followed >= 7) & (leaves > 7)).astype(float),
            "spend": rng.gamma(2.0, 3.0, n),
        }
    )


def spec_data(*metrics: dict[str, Any], **options: Any) -> dict[str, Any]:
    base = {"unit": "unit", "variant": "variant", "control": CONTROL, "metrics": list(metrics)}
    data = {"name": "stay", "source": {"table": "t"}, "method": "ab"}
    return {**data, "options": {**base, **options}}


def analyse(frame: pd.DataFrame, *metrics: dict[str, Any], **options: Any) -> Result:
    spec = validate(ab.SPEC, spec_data(*metrics, **options))
    return run(ab.estimate(spec), PandasEngine(frame))


def effect_of(result: Result, metric: str) -> Effect:
    (found,) = [e for e in result.effects if (e.metric, e.scale) == (metric, "absolute")]
    return found


def reference(frame: pd.DataFrame, variant: str) -> sm.SurvfuncRight:
    arm = frame[frame["variant"] == variant]
    left = arm["left_on"].notna()
    return sm.SurvfuncRight(arm["left_on"].where(left, arm["followed"]), left.astype(int))


@pytest.mark.parametrize("horizon", [1, 7, 28])
def test_survival_and_its_error_are_those_of_statsmodels(units: pd.DataFrame, horizon: int) -> None:
    shares, errors = [], []
    for variant in (CONTROL, TREATMENT):
        fit = reference(units, variant)
        at = np.searchsorted(fit.surv_times, horizon, side="right") - 1
        shares.append(fit.surv_prob[at])
        errors.append(fit.surv_prob_se[at])
    found = effect_of(analyse(units, CURVE | {"horizon": horizon}), "kept")

    assert found.estimate == pytest.approx(shares[1] - shares[0], rel=1e-12)
    assert found.std_error == pytest.approx(math.hypot(*errors), rel=1e-12)
    assert found.estimator == "kaplan_meier"
    assert found.n_treated + found.n_control == len(units)


def test_the_curves_are_those_of_statsmodels(units: pd.DataFrame) -> None:
    curves = analyse(units, CURVE).tables["retention"]
    for variant in (CONTROL, TREATMENT):
        fit = reference(units, variant)
        mine = curves[(curves["variant"] == variant) & (curves["n_events"] > 0)]

        np.testing.assert_allclose(mine["day"], fit.surv_times)
        np.testing.assert_allclose(mine["survival"], fit.surv_prob, rtol=1e-12)
        np.testing.assert_allclose(mine["std_error"], fit.surv_prob_se, rtol=1e-12)
        np.testing.assert_array_equal(mine["n_at_risk"], fit.n_risk)


def test_without_censoring_it_is_the_proportion(units: pd.DataFrame) -> None:
    frame = units.assign(followed=400, left_on=np.where(units["unit"] % 3 == 0, 5.0, np.nan))
    found = effect_of(analyse(frame, CURVE | {"horizon": 7}), "kept")
    plain = [frame.loc[frame["variant"] == name, "left_on"].isna() for name in (CONTROL, TREATMENT)]
    errors = [math.sqrt(arm.mean() * (1 - arm.mean()) / len(arm)) for arm in plain]

    assert found.estimate == pytest.approx(plain[1].mean() - plain[0].mean(), rel=1e-12)
    assert found.std_error == pytest.approx(math.hypot(*errors), rel=1e-12)


def test_log_log_interval_by_hand() -> None:
    """Inverting the transformation by hand: `log(-log S)` plus and minus 1.96 of its errors."""
    share, error = 0.8, 0.03
    low, high = log_log_interval(share, error, confidence_level=0.95)
    centre, spread = math.log(-math.log(share)), error / (share * -math.log(share))

    assert math.log(-math.log(low)) == pytest.approx(centre + 1.959963985 * spread, rel=1e-8)
    assert math.log(-math.log(high)) == pytest.approx(centre - 1.959963985 * spread, rel=1e-8)
    assert 0 < low < share < high < 1
    assert all(map(math.isnan, log_log_interval(1.0, 0.0, confidence_level=0.95)))


def test_a_curve_that_ends_at_zero() -> None:
    """Two of four leave on day 1, the others on day 3: nothing is left and there is no error."""
    curve = survival(np.array([1.0, 3.0]), np.array([1.0, 1.0]), np.array([2.0, 2.0]))

    assert list(curve.survival) == [0.5, 0.0]
    assert curve.at(0.5) == (1.0, 0.0)
    assert curve.at(2) == pytest.approx((0.5, 0.25))
    assert math.isnan(curve.std_error[1])


def test_units_that_are_last_seen_on_a_day_are_at_risk_on_it() -> None:
    curve = survival(np.array([2.0, 2.0]), np.array([1.0, 0.0]), np.array([1.0, 3.0]))

    assert curve.survival[0] == 0.75


@pytest.mark.parametrize("cluster", [{}, {"cluster": "house"}])
def test_complete_windows_are_the_proportion_of_those_followed(
    units: pd.DataFrame, cluster: dict[str, Any]
) -> None:
    followed = units[units["followed"] >= 7]
    share = {"name": "d7", "type": "proportion", "column": "active_d7"}
    found, plain = analyse(units, FLAG, **cluster), analyse(followed, share, **cluster)
    (note,) = [item for item in found.diagnostics if item.name == "incomplete_windows.d7"]

    for mine, other in zip(found.effects, plain.effects, strict=True):
        assert mine.estimator == "complete_windows"
        assert (mine.estimate, mine.n_treated, mine.n_control, mine.n_clusters) == (
            other.estimate, other.n_treated, other.n_control, other.n_clusters,
        )  # fmt: skip
        assert mine.std_error == pytest.approx(other.std_error, rel=1e-12)
        assert mine.ci_lower == pytest.approx(other.ci_lower, rel=1e-12)
    assert note.statistic == (units["followed"] < 7).sum()


def test_both_forms_agree(units: pd.DataFrame) -> None:
    """The same question from a flag and from days; the curve uses more units and knows more."""
    result = analyse(units, FLAG, CURVE | {"horizon": 7})
    flag, curve = effect_of(result, "d7"), effect_of(result, "kept")

    assert flag.estimate == pytest.approx(curve.estimate, abs=curve.std_error)
    assert curve.std_error < flag.std_error


def test_beside_other_metrics_with_a_correction(units: pd.DataFrame) -> None:
    spend = {"name": "spend", "type": "mean", "column": "spend"}
    result = analyse(units, CURVE, spend, FLAG, multiplicity={"correction": "holm"})

    assert {e.metric for e in result.effects if e.estimator.endswith("_holm")} == {
        "kept", "spend", "d7",
    }  # fmt: skip


def test_missing_follow_up_is_counted(units: pd.DataFrame) -> None:
    frame = units.assign(followed=units["followed"].where(units["unit"] >= 30))
    frame.loc[frame["unit"] < 30, "left_on"] = np.nan
    result = analyse(frame, CURVE)
    (note,) = [item for item in result.diagnostics if item.name == "missing_rows.kept"]

    assert note.statistic == 30


@pytest.mark.parametrize(
    ("changes", "metric", "says"),
    [
        ({"left_on": 99.0}, CURVE, "leave after they were last seen"),
        ({}, CURVE | {"horizon": 90}, "was followed for 90 days"),
        ({}, FLAG | {"horizon": 90}, "was followed for 90 days"),
        ({"left_on": np.nan}, CURVE, "all of its units left or none did"),
        ({"followed": -1.0}, CURVE, "must hold days from 0 on"),
        ({"active_d7": 0.5}, FLAG, "zero variance|zeros and ones"),
    ],
)
def test_data_that_cannot_carry_a_retention(
    units: pd.DataFrame, changes: dict[str, Any], metric: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        analyse(units.assign(**changes), metric)


@pytest.mark.parametrize(
    ("metric", "options", "says"),
    [
        (CURVE | {"horizon": None}, {}, "a retention needs horizon"),
        (CURVE | {"observed_days": None}, {}, "a retention needs observed_days"),
        (CURVE | {"column": "active_d7"}, {}, "column or churn_day"),
        (FLAG | {"column": None}, {}, "column"),
        (FLAG | {"covariates": ["spend"]}, {}, "a retention has no covariates"),
        (CURVE, {"cluster": "house"}, "churn_day is for independent units"),
        (FLAG | {"type": "mean"}, {}, "only a retention has observed_days"),
        (FLAG, {"strata": ["house"]}, "strata is for means, not for a retention"),
        (FLAG | {"horizon": 1.5}, {}, "valid integer"),
    ],
)
def test_specs_that_are_refused(metric: dict[str, Any], options: dict[str, Any], says: str) -> None:
    with pytest.raises(CausalError, match=says):
        validate(ab.SPEC, spec_data(metric, **options))
