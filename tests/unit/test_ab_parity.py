"""The method `ab` against statsmodels, scipy and tea-tasting on the same raw rows."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
import tea_tasting as tt
from scipy import stats

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect, Result
from causal.core.spec import validate
from causal.experiments import ab

EXACT = 1e-9
CONTROL, TREATMENT = "control", "treatment"


@pytest.fixture(scope="module")
def users() -> pd.DataFrame:
    """Users of unequal arms, households of two or three, correlated pre-period, heavy tails."""
    rng = np.random.default_rng(7)
    n = 3000
    household = np.sort(rng.integers(0, 1200, n))
    taste = rng.normal(size=1200)[household] + rng.normal(size=n)
    arm = rng.random(1200)[household] < 0.4
    before = np.exp(1 + 0.5 * taste + 0.3 * rng.normal(size=n))
    other = rng.gamma(2.0, 1.0, n) + 0.5 * taste
    sessions_before = rng.poisson(3 + np.exp(0.3 * taste))
    sessions = rng.poisson(3 + np.exp(0.3 * taste)) + 1
    orders = rng.binomial(sessions, np.where(arm, 0.3, 0.27))
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "household": household,
            "variant": np.where(arm, TREATMENT, CONTROL),
            "treated": arm.astype(int),
            "revenue": np.exp(1 + 0.5 * taste + 0.3 * rng.normal(size=n)) * (1 + 0.05 * arm),
            "paid": (rng.random(n) < 0.2 + 0.03 * arm).astype(int),
            "sessions": sessions,
            "orders": orders,
            "pre_revenue": before,
            "pre_minutes": other,
            "pre_sessions": sessions_before + 1,
            "pre_orders": rng.binomial(sessions_before + 1, 0.27),
        }
    )


def analyse(frame: pd.DataFrame, *metrics: dict[str, Any], **options: object) -> Result:
    options = {"unit": "user", "variant": "variant", "control": CONTROL} | options
    data = {
        "name": "parity",
        "source": {"table": "t"},
        "method": "ab",
        "options": {**options, "metrics": list(metrics)},
    }
    return run(ab.estimate(validate(ab.SPEC, data)), PandasEngine(frame))


def effect_of(result: Result, *, estimator: str, scale: str = "absolute") -> Effect:
    return next(
        item for item in result.effects if item.estimator == estimator and item.scale == scale
    )


REVENUE = {"name": "revenue", "type": "mean", "column": "revenue"}
PAID = {"name": "paid", "type": "proportion", "column": "paid"}
RATIO = {"name": "rate", "type": "ratio", "numerator": "orders", "denominator": "sessions"}
RATIO_BEFORE = {"numerator": "pre_orders", "denominator": "pre_sessions"}


@pytest.mark.parametrize("metric", [REVENUE, PAID], ids=["mean", "proportion"])
@pytest.mark.parametrize("variance", ["welch", "pooled"])
def test_scipy_t_test(users: pd.DataFrame, metric: dict[str, str], variance: str) -> None:
    found = effect_of(analyse(users, metric, variance=variance), estimator=variance)
    treated = users.loc[users["treated"] == 1, metric["column"]]
    control = users.loc[users["treated"] == 0, metric["column"]]
    reference = stats.ttest_ind(treated, control, equal_var=variance == "pooled")
    interval = reference.confidence_interval(0.95)
    assert found.statistic == pytest.approx(reference.statistic, rel=EXACT)
    assert found.pvalue == pytest.approx(reference.pvalue, rel=EXACT)
    assert found.df == pytest.approx(reference.df, rel=EXACT)
    assert (found.ci_lower, found.ci_upper) == pytest.approx(tuple(interval), rel=EXACT)


def test_statsmodels_hc2_is_welch(users: pd.DataFrame) -> None:
    found = effect_of(analyse(users, REVENUE), estimator="welch")
    reference = smf.ols("revenue ~ treated", users).fit(cov_type="HC2")
    assert found.estimate == pytest.approx(reference.params["treated"], rel=EXACT)
    assert found.std_error == pytest.approx(reference.bse["treated"], rel=EXACT)


def test_statsmodels_classical_is_pooled(users: pd.DataFrame) -> None:
    found = effect_of(analyse(users, REVENUE, variance="pooled"), estimator="pooled")
    reference = smf.ols("revenue ~ treated", users).fit()
    assert found.std_error == pytest.approx(reference.bse["treated"], rel=EXACT)
    assert found.pvalue == pytest.approx(reference.pvalues["treated"], rel=EXACT)


@pytest.mark.parametrize("correction", ["cr1", "none"])
def test_statsmodels_clustered(users: pd.DataFrame, correction: str) -> None:
    result = analyse(
        users, REVENUE, cluster="household", cluster_correction=correction,
        degrees_of_freedom="clusters_minus_one",
    )  # fmt: skip
    found = effect_of(result, estimator="cluster_robust")
    reference = smf.ols("revenue ~ treated", users).fit(
        cov_type="cluster",
        cov_kwds={"groups": users["household"], "use_correction": correction == "cr1"},
        use_t=True,
    )
    assert found.estimate == pytest.approx(reference.params["treated"], rel=EXACT)
    assert found.std_error == pytest.approx(reference.bse["treated"], rel=EXACT)
    assert found.pvalue == pytest.approx(reference.pvalues["treated"], rel=EXACT)
    assert found.n_clusters == users["household"].nunique()


def test_statsmodels_clusters_that_span_arms(users: pd.DataFrame) -> None:
    rng = np.random.default_rng(3)
    mixed = users.assign(treated=rng.integers(0, 2, len(users)))
    result = analyse(
        mixed, REVENUE, variant="treated", control=0, cluster="household", cluster_correction="cr1"
    )
    reference = smf.ols("revenue ~ treated", mixed).fit(
        cov_type="cluster", cov_kwds={"groups": mixed["household"]}
    )
    found = effect_of(result, estimator="cluster_robust")
    assert found.std_error == pytest.approx(reference.bse["treated"], rel=EXACT)


def test_statsmodels_three_arms_clustered(users: pd.DataFrame) -> None:
    """Each comparison is the regression on its own two arms' rows."""
    arm = np.array(["a", "b", "c"])[users["household"] % 3]
    frame = users.assign(variant=arm)
    result = analyse(
        frame, REVENUE, PAID, control="a", cluster="household", cluster_correction="cr1"
    )
    for metric in ("revenue", "paid"):
        for arm_name in ("b", "c"):
            rows = frame[frame["variant"].isin(["a", arm_name])]
            reference = smf.ols(f"{metric} ~ C(variant)", rows).fit(
                cov_type="cluster", cov_kwds={"groups": rows["household"]}, use_t=True
            )
            found = next(
                item
                for item in result.effects
                if (item.metric, item.term, item.scale) == (metric, f"{arm_name} - a", "absolute")
            )
            name = f"C(variant)[T.{arm_name}]"
            assert found.estimate == pytest.approx(reference.params[name], rel=EXACT)
            assert found.std_error == pytest.approx(reference.bse[name], rel=EXACT)
            assert found.n_clusters == rows["household"].nunique()


def test_statsmodels_clustered_ratio_is_the_linearised_regression(users: pd.DataFrame) -> None:
    result = analyse(users, RATIO, cluster="household", cluster_correction="cr1")
    means = users.groupby("treated")[["orders", "sessions"]].mean()
    rate = (means["orders"] / means["sessions"]).loc[users["treated"]].to_numpy()
    sessions = means["sessions"].loc[users["treated"]].to_numpy()
    linear = users.assign(linear=(users["orders"] - rate * users["sessions"]) / sessions)
    reference = smf.ols("linear ~ treated", linear).fit(
        cov_type="cluster", cov_kwds={"groups": users["household"]}
    )
    found = effect_of(result, estimator="cluster_robust")
    assert found.std_error == pytest.approx(reference.bse["treated"], rel=EXACT)


def test_within_theta_is_the_regression_on_treatment_and_covariates(users: pd.DataFrame) -> None:
    metric = REVENUE | {"covariates": ["pre_revenue", "pre_minutes"]}
    result = analyse(users, metric, theta="within")
    reference = smf.ols("revenue ~ treated + pre_revenue + pre_minutes", users).fit()
    found = effect_of(result, estimator="cuped")
    assert found.estimate == pytest.approx(reference.params["treated"], rel=EXACT)
    for name in ("pre_revenue", "pre_minutes"):
        theta = result.params[f"theta.revenue.treatment.{name}"]
        assert theta == pytest.approx(reference.params[name], rel=EXACT)


def test_several_covariates_are_welch_on_the_adjusted_outcome(users: pd.DataFrame) -> None:
    covariates = ["pre_revenue", "pre_minutes"]
    result = analyse(users, REVENUE | {"covariates": covariates})
    slopes = smf.ols("revenue ~ pre_revenue + pre_minutes", users).fit().params[covariates]
    adjusted = users["revenue"] - (users[covariates] - users[covariates].mean()) @ slopes
    treated = users["treated"] == 1
    reference = stats.ttest_ind(adjusted[treated], adjusted[~treated], equal_var=False)
    found = effect_of(result, estimator="cuped")
    assert found.statistic == pytest.approx(reference.statistic, rel=EXACT)
    assert found.pvalue == pytest.approx(reference.pvalue, rel=EXACT)
    arms = result.tables["arms"].set_index("variant")["adjusted_mean"]
    assert arms[TREATMENT] == pytest.approx(adjusted[treated].mean(), rel=EXACT)


@pytest.mark.parametrize("equal_var", [False, True])
@pytest.mark.parametrize(
    ("metric", "peer"),
    [
        (REVENUE, tt.Mean("revenue")),
        (REVENUE | {"covariates": ["pre_revenue"]}, tt.Mean("revenue", "pre_revenue")),
        (RATIO, tt.RatioOfMeans("orders", "sessions")),
        (
            RATIO | {"covariates": [RATIO_BEFORE]},
            tt.RatioOfMeans("orders", "sessions", "pre_orders", "pre_sessions"),
        ),
        (
            RATIO | {"covariates": ["pre_revenue"]},
            tt.RatioOfMeans("orders", "sessions", "pre_revenue"),
        ),
    ],
    ids=["mean", "mean-cuped", "ratio", "ratio-cuped-ratio", "ratio-cuped-mean"],
)
def test_tea_tasting(
    users: pd.DataFrame, metric: dict[str, Any], peer: tt.RatioOfMeans, *, equal_var: bool
) -> None:
    variance = "pooled" if equal_var else "welch"
    result = analyse(users, metric, variance=variance)
    found = effect_of(result, estimator="cuped" if "covariates" in metric else variance)
    with tt.config_context(equal_var=equal_var, confidence_level=0.95, use_t=True):
        numbers = users.assign(variant=users["treated"])
        peer = type(peer)(**_arguments(peer))
        reference = tt.Experiment({"metric": peer}).analyze(numbers)["metric"]
    assert found.estimate == pytest.approx(reference.effect_size, rel=EXACT)
    assert found.statistic == pytest.approx(reference.statistic, rel=EXACT)
    assert found.pvalue == pytest.approx(reference.pvalue, rel=EXACT)
    assert found.ci_lower == pytest.approx(reference.effect_size_ci_lower, rel=EXACT)
    lift = effect_of(result, estimator=found.estimator, scale="relative")
    assert lift.estimate == pytest.approx(reference.rel_effect_size, rel=EXACT)


def _arguments(peer: tt.RatioOfMeans) -> dict[str, Any]:
    """The columns of a peer's metric, so that it can be made again under other settings."""
    if isinstance(peer, tt.Mean):
        return {"value": peer.value, "covariate": peer.covariate}
    names = ("numer", "denom", "numer_covariate", "denom_covariate")
    return {name: getattr(peer, name) for name in names}


def test_lift_of_a_mean_by_the_delta_method(users: pd.DataFrame) -> None:
    found = effect_of(analyse(users, REVENUE), estimator="welch", scale="relative")
    y1 = users.loc[users["treated"] == 1, "revenue"]
    y0 = users.loc[users["treated"] == 0, "revenue"]
    ratio = y1.mean() / y0.mean()
    variance = (y1.var() / len(y1) + ratio**2 * y0.var() / len(y0)) / y0.mean() ** 2
    assert found.estimate == pytest.approx(ratio - 1, rel=EXACT)
    assert found.std_error == pytest.approx(np.sqrt(variance), rel=EXACT)
