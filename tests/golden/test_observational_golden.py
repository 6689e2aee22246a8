"""Published figures of weighting and matching: NSW and CPS, NHEFS, MatchIt's lalonde."""

from pathlib import Path
from typing import Any

import causaldata
import numpy as np
import pandas as pd
import pytest

from causal.core import registry
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.observational.sensitivity import (
    bias,
    e_value,
    partial_r_squared,
    robustness_value,
    rosenbaum_bounds,
    rosenbaum_gamma,
)

NSW = {
    "outcome": "re78", "treatment": "treat",
    "covariates": [
        "age", "agesq", "agecube", "educ", "edusq", "marr", "nodegree", "black", "hisp", "re74",
        "re75", "u74", "u75", "inter",
    ],
}  # fmt: skip
NHEFS = {
    "outcome": "wt82_71", "treatment": "qsmk",
    "covariates": ["age", "smokeintensity", "smokeyrs", "wt71"],
    "categorical": dict.fromkeys(("sex", "race", "education", "exercise", "active")),
    "interactions": [[name] * 2 for name in ("age", "smokeintensity", "smokeyrs", "wt71")],
}  # fmt: skip
LALONDE = {
    "unit": "id", "outcome": "re78", "treatment": "treat",
    "covariates": ["age", "educ", "married", "nodegree", "re74", "re75"],
    "categorical": {"race": None},
}  # fmt: skip


def analysed(method: str, frame: pd.DataFrame, options: dict[str, Any]) -> Result:
    module = registry.method(method)
    data = {"name": "golden", "source": {"table": "rows"}, "method": method, "options": options}
    return run(module.estimate(validate(module.SPEC, data)), PandasEngine(frame))


@pytest.fixture(scope="module")
def nsw() -> pd.DataFrame:
    treated = causaldata.nsw_mixtape.load_pandas().data.query("treat == 1")
    frame = pd.concat([treated, causaldata.cps_mixtape.load_pandas().data], ignore_index=True)
    frame = frame.astype(dict.fromkeys(frame.select_dtypes("number").columns, "float64"))
    return frame.assign(
        agesq=frame["age"] ** 2, agecube=frame["age"] ** 3, edusq=frame["educ"] ** 2,
        inter=frame["educ"] * frame["re74"], u74=(frame["re74"] == 0) * 1.0,
        u75=(frame["re75"] == 0) * 1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def nhefs() -> pd.DataFrame:
    frame = causaldata.nhefs_complete.load_pandas().data.dropna(subset=["wt82_71"])
    frame = frame.astype(dict.fromkeys(frame.select_dtypes("number").columns, "float64"))
    names = ("education", "exercise", "active", "sex", "race")
    return frame.astype(dict.fromkeys(names, str))


@pytest.fixture(scope="module")
def lalonde(validation_data: Path) -> pd.DataFrame:
    frame = pd.read_csv(validation_data / "matchit_lalonde.csv")
    return frame.assign(id=np.arange(len(frame)))


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({"normalise": False}, -11876.79),
        ({"normalise": True}, -7238.14),
        ({"normalise": False, "trim": {"rule": "fixed", "low": 0.1, "high": 0.9}}, 2006.365),
        ({"normalise": True, "trim": {"rule": "fixed", "low": 0.1, "high": 0.9}}, 1806.730),
        ({"estimand": "att"}, 1782.21),
    ],
)
def test_job_training_by_weighting(
    nsw: pd.DataFrame, options: dict[str, Any], published: float
) -> None:
    result = analysed("weighting", nsw, NSW | options)

    assert result.effects[0].estimate == pytest.approx(published, abs=0.01)
    if "trim" in options:
        assert result.params["n_kept"] == 361


def test_smoking_and_weight(nhefs: pd.DataFrame) -> None:
    weighted = analysed("weighting", nhefs, NHEFS | {"covariance": "robust"})
    names = ["regression", "aipw"]
    slopes = {"outcome_interactions": ["smokeintensity"]}
    modelled = analysed("weighting", nhefs, NHEFS | slopes | {"estimator": names})
    known = {"estimator": "aipw", "covariance": "robust", "small_sample": "n-1"}
    robust = analysed("weighting", nhefs, NHEFS | slopes | known)
    ipw = weighted.effects[0]

    assert ipw.estimate == pytest.approx(3.4405354, abs=1e-6)
    assert ipw.std_error == pytest.approx(0.5254936, abs=1e-6)
    assert (ipw.ci_lower, ipw.ci_upper) == pytest.approx((2.41, 4.47), abs=0.005)
    assert weighted.params["stabilised_weight_mean"] == pytest.approx(0.99884, abs=1e-5)
    assert modelled.effects[0].estimate == pytest.approx(3.5173742, abs=1e-6)
    assert modelled.effects[1].estimate == pytest.approx(3.4572843, abs=1e-6)
    assert robust.effects[0].std_error == pytest.approx(0.4888071, abs=1e-6)


def test_matched_job_training(lalonde: pd.DataFrame) -> None:
    result = analysed("matching", lalonde, LALONDE)
    table = result.tables["balance"].set_index(["stage", "covariate"])
    before, after = table.loc[("before", "propensity")], table.loc[("after", "propensity")]

    assert before["mean_treated"] == pytest.approx(0.5774, abs=5e-5)
    assert before["mean_control"] == pytest.approx(0.1822, abs=5e-5)
    assert before["smd"] == pytest.approx(1.7941, abs=5e-5)
    assert after["mean_control"] == pytest.approx(0.3629, abs=5e-5)
    assert after["smd"] == pytest.approx(0.9739, abs=5e-5)
    assert table.loc[("after", "re74"), "mean_control"] == pytest.approx(2342.1076, abs=1e-3)
    # Ties decide which of several equal controls is taken: 770 and 894 are both in print.
    assert result.effects[0].estimate == pytest.approx(770.39, abs=130)
    assert (result.effects[0].n_treated, result.effects[0].n_control) == (185, 185)


def test_sensitivity_to_hidden_causes() -> None:
    # Darfur (Cinelli and Hazlett 2020, table 1): coefficient 0.097 (0.023), 783 degrees of freedom.
    assert robustness_value(4.18, df=783) == pytest.approx(0.139, abs=5e-4)
    assert robustness_value(4.18, df=783, alpha=0.05) == pytest.approx(0.076, abs=5e-4)
    assert partial_r_squared(4.18, df=783) == pytest.approx(0.022, abs=5e-4)
    # VanderWeele and Ding 2017: a risk ratio of 3.9 [1.8, 8.7].
    found = e_value(3.9, ci_lower=1.8, ci_upper=8.7)
    assert found.estimate == pytest.approx(7.26, abs=0.01)
    assert found.interval == pytest.approx(3.0, abs=0.01)


def test_a_cause_as_strong_as_the_robustness_value_takes_all() -> None:
    value = robustness_value(4.18, df=783)
    taken = bias(treatment_r_squared=value, outcome_r_squared=value, std_error=0.0232, df=783)

    assert taken == pytest.approx(4.18 * 0.0232, rel=1e-9)


def test_bounds_of_lead_in_the_blood_of_children() -> None:
    """Rosenbaum (2002), table 4.1: 33 pairs of Morton et al. (1982), one without a difference."""
    exposed = [
        38, 23, 41, 18, 37, 36, 23, 62, 31, 34, 24, 14, 21, 17, 16, 20, 15, 10, 45, 39, 22, 35, 49,
        48, 44, 35, 43, 39, 34, 13, 73, 25, 27,
    ]  # fmt: skip
    control = [
        16, 18, 18, 24, 19, 11, 10, 15, 16, 18, 18, 13, 19, 10, 16, 16, 24, 13, 9, 14, 21, 19, 7,
        18, 19, 12, 11, 22, 25, 16, 13, 11, 13,
    ]  # fmt: skip
    published = {2.0: 0.0018, 3.0: 0.0136, 4.0: 0.0388, 4.25: 0.0468, 5.0: 0.0740}

    differences = np.subtract(exposed, control)
    found = rosenbaum_bounds(differences, gamma=[1.0, *published])

    assert found.pvalue_upper[0] < 1e-4
    assert found.pvalue_upper[1:] == pytest.approx(list(published.values()), abs=5e-5)
    assert (found.pvalue_lower < 1e-4).all()
    assert 4.25 < rosenbaum_gamma(differences, alpha=0.05) < 4.5


@pytest.mark.parametrize("more", [[], [0.0, 0.0, 0.4]])
def test_bounds_without_bias_are_the_signed_rank_test(more: list[float]) -> None:
    from scipy import stats

    differences = np.array([3.1, -0.4, 2.2, 5.0, 1.7, -1.1, 0.9, 4.2, 2.8, -0.2, 3.6, 1.3, *more])
    found = rosenbaum_bounds(differences, gamma=[1.0, 2.0, 3.0])
    plain = stats.wilcoxon(
        differences, alternative="greater", correction=False, method="approx", zero_method="pratt"
    ).pvalue

    assert found.pvalue_lower[0] == pytest.approx(plain)
    assert found.pvalue_upper[0] == pytest.approx(plain)
    assert (np.diff(found.pvalue_upper) > 0).all()
    assert (np.diff(found.pvalue_lower) < 0).all()


def test_gamma_is_where_the_upper_bound_crosses_the_level() -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(0.8, 1.0, 60)
    gamma = rosenbaum_gamma(differences, alpha=0.025)
    found = rosenbaum_bounds(differences, gamma=[gamma, 1.01 * gamma])

    assert gamma > 1.5
    assert found.pvalue_upper[0] == pytest.approx(0.025, rel=1e-6)
    assert found.pvalue_upper[1] > 0.025
    assert rosenbaum_gamma(-differences, alpha=0.025) == 1.0
    agreeing = rosenbaum_gamma(np.abs(differences), alpha=0.025)
    assert gamma < agreeing < 60
