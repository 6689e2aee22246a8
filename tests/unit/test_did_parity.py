"""Both paths of `did` equal least squares with a dummy for every unit and period."""

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest
import statsmodels.api as sm
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from causal.core.errors import DataError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import did, panel

COLUMNS = {"unit": "id", "period": "t", "outcome": "y"}
RELATIVE = 1e-9


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    data = {
        "name": "parity",
        "source": {"table": "t"},
        "method": "did",
        "options": {**COLUMNS, **options},
    }
    return run(did.estimate(validate(did.SPEC, data)), PandasEngine(frame))


def make_panel(
    seed: int, *, n: int = 30, n_periods: int = 6, missing: float = 0.0, level: float = 0.0
) -> pd.DataFrame:
    """Staggered panel with starts 3, 4 and 5, regions, a covariate and weights."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(n), n_periods)
    t = np.tile(np.arange(1, n_periods + 1), n)
    first = np.where(np.arange(n) % 4 == 0, np.nan, 3.0 + np.arange(n) % 3)[unit]
    effect = np.where(t >= np.where(np.isnan(first), 99.0, first), 1.0 + 0.3 * (t - 3), 0.0)
    x = rng.normal(size=len(t)) + 0.2 * t
    noise = rng.normal(size=n)[unit] + np.cumsum(rng.normal(size=(n, n_periods)), axis=1).ravel()
    frame = pd.DataFrame(
        {
            "id": unit,
            "t": t,
            "first": first,
            "region": np.array([f"r{r}" for r in range(7)])[unit % 7],
            "zone": np.array(["north", "south"])[unit % 2],
            "x": x,
            "w": rng.uniform(0.5, 3.0, size=len(t)),
            "y": level + effect + 0.5 * x + 0.1 * t + noise,
        }
    )
    frame["d"] = (frame["t"] >= frame["first"]).astype(float)
    return frame[rng.uniform(size=len(frame)) >= missing]


def dummies(
    frame: pd.DataFrame, columns: dict[str, np.ndarray], *, by: str | None = None
) -> np.ndarray:
    later = frame["t"].where(frame["t"] > frame["t"].min()).astype("Int64").astype(str)
    periods = later if by is None else later + frame[by]
    periods = periods.where(later != "<NA>")
    parts = [
        np.column_stack(list(columns.values())),
        pd.get_dummies(frame["id"], dtype=float).to_numpy(),
        pd.get_dummies(periods, dtype=float).to_numpy(),
    ]
    return np.column_stack(parts)


def reference(
    frame: pd.DataFrame,
    columns: dict[str, np.ndarray],
    *,
    cluster: str | None = "id",
    weight: str | None = None,
    by: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and covariance by statsmodels on the raw rows, the factor CR1 by hand."""
    x = dummies(frame, columns, by=by)
    weights = np.ones(len(frame)) if weight is None else frame[weight].to_numpy()
    fit = sm.WLS(frame["y"].to_numpy(), x, weights=weights).fit(method="qr")
    n, k = len(columns), int(np.linalg.matrix_rank(x))
    if cluster is None:
        return fit.params[:n], fit.cov_params()[:n, :n]
    groups = pd.factorize(frame[cluster])[0]
    robust = fit.get_robustcov_results("cluster", groups=groups, use_correction=False)
    size, rows = groups.max() + 1, len(frame)
    counted = k - frame["id"].nunique() + 1
    factor = size / (size - 1) * (rows - 1) / (rows - counted)
    return fit.params[:n], factor * robust.cov_params()[:n, :n]


def event_columns(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    elapsed = (frame["t"] - frame["first"]).to_numpy()
    times = [int(k) for k in np.unique(elapsed[~np.isnan(elapsed)]) if k != -1]
    return {f"event_time={k}": (elapsed == k).astype(float) for k in times}


def assert_equal(
    result: Result, coefficients: np.ndarray, covariance: np.ndarray, terms: list[str]
) -> None:
    frame = result.to_frame().set_index("term").loc[terms]
    np.testing.assert_allclose(frame["estimate"], coefficients, rtol=RELATIVE, atol=1e-11)
    np.testing.assert_allclose(frame["std_error"], np.sqrt(np.diag(covariance)), rtol=RELATIVE)


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("cluster", ["id", "region", None])
def test_twfe_equals_dummy_least_squares(missing: float, cluster: str | None) -> None:
    frame = make_panel(1, missing=missing)
    options = {"covariance": "classical"} if cluster is None else {"cluster": cluster}
    result = analyse(frame, estimator="twfe", first_treated_period="first", **options)
    expected = reference(frame, {"d": frame["d"].to_numpy()}, cluster=cluster)
    assert_equal(result, *expected, ["treated x post"])


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("cluster", ["id", "region", None])
def test_event_study_equals_dummy_least_squares(missing: float, cluster: str | None) -> None:
    frame = make_panel(2, missing=missing)
    options = {"covariance": "classical"} if cluster is None else {"cluster": cluster}
    result = analyse(frame, estimator="event_study", first_treated_period="first", **options)
    columns = event_columns(frame)
    coefficients, covariance = reference(frame, columns, cluster=cluster)
    assert_equal(result, coefficients, covariance, list(columns))
    long = result.tables["covariance"]
    wide = long.pivot(index="row", columns="column", values="covariance")
    names = list(columns)
    np.testing.assert_allclose(
        wide.loc[names, names], covariance, rtol=1e-8, atol=1e-12 * covariance.max()
    )


def test_the_average_post_effect_weighs_event_times_by_treated_rows() -> None:
    frame = make_panel(3)
    result = analyse(frame, estimator="event_study", first_treated_period="first")
    columns = event_columns(frame)
    coefficients, covariance = reference(frame, columns)
    counts = np.array(
        [values.sum() * (int(name.split("=")[1]) >= 0) for name, values in columns.items()]
    )
    weights = counts / counts.sum()
    average = result.effects[0]
    assert average.term == "average post"
    assert average.estimate == pytest.approx(weights @ coefficients, rel=RELATIVE)
    assert average.std_error == pytest.approx(np.sqrt(weights @ covariance @ weights), rel=RELATIVE)


def test_an_event_time_without_rows_is_left_out() -> None:
    frame = make_panel(601, n=16, n_periods=5, missing=0.3)
    columns = event_columns(frame)
    coefficients, covariance = reference(
        frame, {name: np.asarray(values) for name, values in columns.items()}
    )
    result = analyse(frame, estimator="event_study", first_treated_period="first")
    table = result.to_frame().set_index("term").drop("average post")
    assert set(table.index) == set(columns)
    np.testing.assert_allclose(table.loc[list(columns), "estimate"], coefficients, rtol=1e-8)
    np.testing.assert_allclose(
        table.loc[list(columns), "std_error"], np.sqrt(np.diag(covariance)), rtol=1e-8
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(16, 40), st.integers(5, 8)),
    missing=st.sampled_from([0.0, 0.05, 0.3]),
    estimator=st.sampled_from(["twfe", "event_study"]),
    cluster=st.sampled_from(["id", "region"]),
    level=st.sampled_from([0.0, 1e4]),
)
def test_any_panel_equals_dummy_least_squares(
    *,
    seed: int,
    shape: tuple[int, int],
    missing: float,
    estimator: str,
    cluster: str,
    level: float,
) -> None:
    frame = make_panel(seed, n=shape[0], n_periods=shape[1], missing=missing, level=level)
    columns = event_columns(frame) if estimator == "event_study" else {"treated x post": frame["d"]}
    columns = {name: np.asarray(values) for name, values in columns.items()}
    with_effects = np.linalg.matrix_rank(dummies(frame, columns))
    without = np.linalg.matrix_rank(dummies(frame, {"zero": np.zeros(len(frame))})[:, 1:])
    assume(with_effects - without == len(columns))
    result = analyse(frame, estimator=estimator, first_treated_period="first", cluster=cluster)
    coefficients, covariance = reference(frame, columns, cluster=cluster)
    table = result.to_frame().set_index("term").loc[list(columns)]
    scale = 1 + level * 1e-3
    np.testing.assert_allclose(
        table["estimate"], coefficients, rtol=1e-8 * scale, atol=1e-9 * scale
    )
    np.testing.assert_allclose(
        table["std_error"], np.sqrt(np.diag(covariance)), rtol=1e-8 * scale, atol=1e-9
    )


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_weights_covariates_and_period_effects_by_zone(missing: float) -> None:
    frame = make_panel(4, missing=missing)
    frame["const_in_time"] = frame["id"] % 3
    result = analyse(
        frame, estimator="twfe", first_treated_period="first", weight="w", cluster="region",
        covariates=["x", "const_in_time"], period_effects_by="zone",
    )  # fmt: skip
    columns = {"d": frame["d"].to_numpy(), "x": frame["x"].to_numpy()}
    coefficients, covariance = reference(frame, columns, cluster="region", weight="w", by="zone")
    assert_equal(result, coefficients[:1], covariance[:1, :1], ["treated x post"])
    table = result.tables["coefficients"].set_index("term")
    assert table.loc["x", "estimate"] == pytest.approx(coefficients[1], rel=RELATIVE)
    assert table.loc["x", "std_error"] == pytest.approx(np.sqrt(covariance[1, 1]), rel=RELATIVE)
    dropped = next(d for d in result.diagnostics if d.name == "dropped_columns")
    assert dropped.statistic == 1
    assert "const_in_time" in dropped.detail


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("estimator", ["twfe", "event_study"])
def test_large_levels_keep_their_digits(missing: float, estimator: str) -> None:
    """Whole-number noise around 1e8, so that the shifted data hold the very same numbers."""
    frame = make_panel(13, missing=missing)
    frame["y"] = (frame["y"] * 8).round()
    frame["x"] = (frame["x"] * 8).round()
    options = {"estimator": estimator, "first_treated_period": "first", "covariates": ["x"]}
    if missing == 0.0:
        options.pop("covariates")
    small = analyse(frame, **options).to_frame()
    frame["y"] += 1e8
    frame["x"] += 1e8
    large = analyse(frame, **options).to_frame()
    np.testing.assert_allclose(large["estimate"], small["estimate"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(large["std_error"], small["std_error"], rtol=1e-6)


def test_a_null_covariate_drops_its_row_and_is_counted() -> None:
    frame = make_panel(5)
    frame.loc[frame.index[[3, 40, 77]], "x"] = np.nan
    result = analyse(frame, estimator="twfe", first_treated_period="first", covariates=["x"])
    kept = frame.dropna(subset=["x"])
    columns = {"d": kept["d"].to_numpy(), "x": kept["x"].to_numpy()}
    coefficients, covariance = reference(kept, columns)
    assert_equal(result, coefficients[:1], covariance[:1, :1], ["treated x post"])
    assert next(d for d in result.diagnostics if d.name == "n_missing").statistic == 3


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_three_codings_of_one_design_agree(missing: float) -> None:
    frame = make_panel(6, missing=missing)
    frame = frame[frame["first"].isna() | (frame["first"] == 4)]
    frame = frame.assign(
        ever=frame["first"].notna().astype(int), zero=frame["first"].fillna(0).astype(int)
    )
    codings = (
        {"first_treated_period": "first"},
        {"first_treated_period": "zero", "never_treated_value": 0},
        {"group": "ever", "treatment_period": 4},
    )
    for estimator in ("twfe", "event_study", "two_by_two"):
        for cluster in ("id", "region"):
            frames = [
                analyse(frame, estimator=estimator, cluster=cluster, **coding).to_frame()
                for coding in codings
            ]
            for other in frames[1:]:
                pd.testing.assert_frame_equal(frames[0], other, check_exact=False, rtol=1e-10)


def test_a_treatment_column_equals_the_cohort_design() -> None:
    frame = make_panel(7)
    by_cohort = analyse(frame, estimator="twfe", first_treated_period="first").effects[0]
    by_column = analyse(frame, estimator="twfe", treatment="d").effects[0]
    assert by_column.estimate == pytest.approx(by_cohort.estimate, rel=RELATIVE)
    assert by_column.std_error == pytest.approx(by_cohort.std_error, rel=RELATIVE)
    assert (by_column.term, by_column.n_treated) == ("d", int(frame["d"].sum()))


def test_the_pre_trend_test_is_the_joint_wald_test_of_the_leads() -> None:
    frame = make_panel(8, n=60)
    result = analyse(frame, estimator="event_study", first_treated_period="first")
    columns = event_columns(frame)
    coefficients, covariance = reference(frame, columns)
    at = [j for j, name in enumerate(columns) if int(name.split("=")[1]) < 0]
    leads, block = coefficients[at], covariance[np.ix_(at, at)]
    check = next(d for d in result.diagnostics if d.name == "pre_trend")
    chi2, q, df = leads @ np.linalg.solve(block, leads), len(at), 59
    statistic = (df - q + 1) / (df * q) * chi2
    assert check.statistic == pytest.approx(statistic, rel=1e-8)
    assert check.pvalue == pytest.approx(stats.f.sf(statistic, q, df - q + 1), rel=1e-7)
    plain = analyse(
        frame, estimator="event_study", first_treated_period="first", joint_test="wald"
    ).diagnostics
    wald = next(d for d in plain if d.name == "pre_trend")
    assert wald.statistic == pytest.approx(chi2 / q, rel=1e-8)
    assert wald.pvalue == pytest.approx(stats.f.sf(chi2 / q, q, df), rel=1e-7)
    twfe = analyse(frame, estimator="twfe", first_treated_period="first")
    same = next(d for d in twfe.diagnostics if d.name == "pre_trend")
    assert same.statistic == pytest.approx(check.statistic, rel=1e-9)


def four_cells(frame: pd.DataFrame) -> np.ndarray:
    group, post = frame["ever"].to_numpy(), (frame["t"] >= 4).to_numpy(dtype=float)
    return np.column_stack([np.ones(len(frame)), group, post, group * post])


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("covariance", ["id", "region", "HC1", "classical"])
def test_two_by_two_equals_the_saturated_regression(
    missing: float, weight: str | None, covariance: str
) -> None:
    frame = make_panel(9, missing=missing)
    frame = frame[frame["first"].isna() | (frame["first"] == 4)]
    frame = frame.assign(ever=frame["first"].notna().astype(int))
    is_cluster = covariance in {"id", "region"}
    options = {"cluster": covariance} if is_cluster else {"covariance": covariance}
    if weight is not None:
        options["weight"] = weight
    result = analyse(
        frame, estimator="two_by_two", group="ever", treatment_period=4, **options
    ).effects[0]
    weights = np.ones(len(frame)) if weight is None else frame[weight]
    model = sm.WLS(frame["y"], four_cells(frame), weights=weights)
    if is_cluster:
        groups = pd.factorize(frame[covariance])[0]
        fit = model.fit(cov_type="cluster", cov_kwds={"groups": groups})
    else:
        fit = model.fit(cov_type="nonrobust" if covariance == "classical" else "HC1")
    assert result.estimate == pytest.approx(fit.params.iloc[3], rel=RELATIVE)
    assert result.std_error == pytest.approx(fit.bse.iloc[3], rel=RELATIVE)


def test_bins_reference_and_anticipation() -> None:
    frame = make_panel(10, n=48, n_periods=8)
    result = analyse(
        frame, estimator="event_study", first_treated_period="first", anticipation=1,
        min_event_time=-3, max_event_time=2,
    )  # fmt: skip
    elapsed = (frame["t"] - frame["first"]).to_numpy()
    columns = {
        "event_time<=-3": elapsed <= -3,
        "event_time=-1": elapsed == -1,
        "event_time=0": elapsed == 0,
        "event_time=1": elapsed == 1,
        "event_time>=2": elapsed >= 2,
    }
    columns = {name: values.astype(float) for name, values in columns.items()}
    assert_equal(result, *reference(frame, columns), list(columns))
    assert result.params["reference_period"] == -2


def test_several_outcomes_have_their_own_rows() -> None:
    frame = make_panel(11).assign(z=lambda f: f["y"] * 2)
    result = analyse(frame, estimator="twfe", first_treated_period="first", outcome=["y", "z"])
    first, second = result.effects
    assert (first.metric, second.metric) == ("y", "z")
    assert second.estimate == pytest.approx(2 * first.estimate, rel=RELATIVE)
    assert {d.name for d in result.diagnostics} >= {"pre_trend:y", "pre_trend:z"}
    assert set(result.tables["cohort_means"]["metric"]) == {"y", "z"}


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("cluster", ["id", "region"])
def test_twfe_equals_pyfixest(missing: float, cluster: str) -> None:
    """The factor of pyfixest is switched off: which effects it counts depends on PYTHONHASHSEED."""
    frame = make_panel(12, missing=missing)
    result = analyse(
        frame, estimator="twfe", first_treated_period="first", cluster=cluster, small_sample="none"
    )
    fit = pf.feols(
        "y ~ d | id + t", frame, vcov={"CRV1": cluster},
        demeaner=pf.MapDemeaner(fixef_tol=1e-12),
        ssc=pf.ssc(k_adj=False, G_adj=False),
    )  # fmt: skip
    assert result.effects[0].estimate == pytest.approx(fit.coef()["d"], rel=1e-8)
    assert result.effects[0].std_error == pytest.approx(fit.se()["d"], rel=1e-8)


@pytest.mark.parametrize("estimator", ["twfe", "event_study"])
def test_clusters_from_moments_equal_clusters_from_rows(
    estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regions cut across cohorts, so a cluster's score sums over several of them."""
    frame = make_panel(5, n=60)
    options = {"estimator": estimator, "first_treated_period": "first", "cluster": "region"}
    few = analyse(frame, **options).to_frame()
    monkeypatch.setattr(panel, "_MAX_CLUSTERS", 0)
    many = analyse(frame, **options).to_frame()
    assert (few["n_clusters"] == 7).all()
    pd.testing.assert_frame_equal(few, many, check_exact=False, rtol=RELATIVE, atol=0.0)


def test_a_cluster_that_is_null_is_an_error() -> None:
    frame = make_panel(5)
    frame.loc[frame["id"] == 3, "region"] = None
    options = {"estimator": "twfe", "first_treated_period": "first", "cluster": "region"}
    with pytest.raises(DataError, match=r"region is null in some rows; given: 6 rows"):
        analyse(frame, **options)
