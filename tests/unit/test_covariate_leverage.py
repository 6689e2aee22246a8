"""The largest leverage of the covariates' regression against statsmodels on the raw rows."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.stats.outliers_influence import OLSInfluence

from causal.core.errors import DataError
from causal.core.frames import FrameRequest, HistogramRequest
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Result
from causal.core.spec import validate
from causal.experiments import ab

REVENUE = {"name": "revenue", "type": "mean", "column": "revenue"}
TWO = REVENUE | {"covariates": ["before", "minutes"]}


@pytest.fixture(scope="module")
def users() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    n = 900
    before = rng.lognormal(0.0, 0.7, n)
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "variant": rng.choice(["control", "small", "large"], n, p=[0.5, 0.3, 0.2]),
            "home": rng.integers(0, 200, n),
            "revenue": before + rng.normal(size=n),
            "before": before,
            "minutes": 1e6 + 0.3 * before + rng.standard_t(3, n),
            "orders_before": rng.poisson(2.0, n),
            "sessions_before": rng.poisson(4.0, n) + 1,
        }
    )


def analyse(frame: pd.DataFrame, *metrics: dict[str, Any], **options: Any) -> Result:
    base = {"unit": "user", "variant": "variant", "control": "control", "metrics": list(metrics)}
    data = {"name": "users", "source": {"table": "t"}, "method": "ab"}
    spec = validate(ab.SPEC, {**data, "options": base | options})
    return run(ab.estimate(spec), PandasEngine(frame))


def leverage_of(result: Result, arm: str = "small", metric: str = "revenue") -> Diagnostic:
    name = f"max_leverage.{metric}.{arm} - control"
    (found,) = [item for item in result.diagnostics if item.name == name]
    return found


def largest(design: np.ndarray) -> float:
    fit = sm.OLS(np.zeros(len(design)), sm.add_constant(design, has_constant="add")).fit()
    return float(OLSInfluence(fit).hat_matrix_diag.max())


@pytest.mark.parametrize("arm", ["small", "large"])
def test_total_slopes_have_the_leverages_of_the_regression_on_covariates(
    users: pd.DataFrame, arm: str
) -> None:
    pair = users[users["variant"].isin(["control", arm])]
    centred = pair[["before", "minutes"]] - pair[["before", "minutes"]].mean()
    found = leverage_of(analyse(users, TWO), arm)
    assert found.statistic == pytest.approx(largest(centred.to_numpy()), rel=1e-9)


@pytest.mark.parametrize("arm", ["small", "large"])
def test_slopes_within_arms_have_those_of_the_regression_on_the_arm_as_well(
    users: pd.DataFrame, arm: str
) -> None:
    pair = users[users["variant"].isin(["control", arm])]
    centred = pair[["before", "minutes"]] - pair[["before", "minutes"]].mean()
    design = np.column_stack([pair["variant"] == arm, centred]).astype(float)
    found = leverage_of(analyse(users, TWO, theta="within"), arm)
    assert found.statistic == pytest.approx(largest(design), rel=1e-9)


def test_a_ratio_enters_as_it_does_in_the_adjustment(users: pd.DataFrame) -> None:
    ratio = {"numerator": "orders_before", "denominator": "sessions_before"}
    found = leverage_of(analyse(users, REVENUE | {"covariates": [ratio, "before"]}))
    pair = users[users["variant"].isin(["control", "small"])]
    orders, sessions = pair["orders_before"], pair["sessions_before"]
    linearised = (orders - orders.mean() / sessions.mean() * sessions) / sessions.mean()
    design = np.column_stack([linearised, pair["before"]])
    assert found.statistic == pytest.approx(largest(design), rel=1e-9)


def test_rows_without_an_outcome_have_no_leverage(users: pd.DataFrame) -> None:
    top = users["before"].idxmax()
    lost = users.assign(revenue=users["revenue"].where(users.index != top))
    lost.loc[top, "variant"] = "control"
    pair = lost[lost["variant"].isin(["control", "small"])].dropna()
    found = leverage_of(analyse(lost, REVENUE | {"covariates": ["before"]}))
    assert found.statistic == pytest.approx(largest(pair[["before"]].to_numpy()), rel=1e-9)


def test_one_unit_that_is_far_off_fails(users: pd.DataFrame) -> None:
    far = users.assign(before=users["before"].where(users["user"] != 3, 1e6))
    far.loc[far["user"] == 3, "variant"] = "small"
    result = analyse(far, REVENUE | {"covariates": ["before"]})
    found, other = leverage_of(result, "small"), leverage_of(result, "large")
    assert found.passed is False
    assert found.statistic == pytest.approx(1.0, abs=1e-3)
    assert "one unit decides the adjustment" in found.detail
    assert other.passed is True
    far.loc[far["user"] == 3, "before"] = users["before"].mean() + 20 * users["before"].std()
    middling = leverage_of(analyse(far, REVENUE | {"covariates": ["before"]}), "small")
    assert (middling.passed, 0.2 < (middling.statistic or 0) < 0.5) == (None, True)


def test_clusters_and_strata_have_it_too(users: pd.DataFrame) -> None:
    plain = leverage_of(analyse(users, TWO)).statistic
    assert leverage_of(analyse(users, TWO, cluster="home")).statistic == plain
    tiers = users.assign(tier=users["user"] % 3)
    found = leverage_of(analyse(tiers, TWO, strata=["tier"])).statistic
    assert found == pytest.approx(plain, rel=1e-9)


def test_metrics_without_covariates_cost_no_pass(users: pd.DataFrame) -> None:
    asked: list[FrameRequest] = []

    class Watched(PandasEngine):
        def __call__(self, request: FrameRequest) -> pd.DataFrame:
            asked.append(request)
            return super().__call__(request)

    def passes(*metrics: dict[str, Any]) -> int:
        asked.clear()
        base = {"unit": "user", "variant": "variant", "control": "control"}
        data = {"name": "users", "source": {"table": "t"}, "method": "ab"}
        spec = validate(ab.SPEC, {**data, "options": base | {"metrics": list(metrics)}})
        result = run(ab.estimate(spec), Watched(users))
        assert len([d for d in result.diagnostics if d.name.startswith("max_leverage")]) == (
            2 * sum("covariates" in metric for metric in metrics)
        )
        return sum(isinstance(request, HistogramRequest) for request in asked)

    assert passes(REVENUE) == 0
    assert passes(TWO, REVENUE | {"name": "other"}) == 2


def test_an_infinite_covariate_is_refused(users: pd.DataFrame) -> None:
    bad = users.assign(before=users["before"].where(users["user"] != 3, np.inf))
    with pytest.raises(DataError, match="infinite"):
        analyse(bad, REVENUE | {"covariates": ["before"]})
