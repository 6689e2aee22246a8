"""Poisson regressions with unit and period effects: equal to pyfixest's `fepois` on raw rows."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest
from scipy import stats

from causal.core.errors import DataError, InferenceError, SpecError
from causal.core.result import Result
from tests.unit.test_did_parity import analyse

TIMING = {"family": "poisson", "first_treated_period": "first"}


def counts(
    seed: int, *, n: int = 60, n_periods: int = 6, effect: float = 0.3, shock: float = 0.3
) -> pd.DataFrame:
    """Counts of units in regions, some of which multiply them from their start on."""
    rng = np.random.default_rng(seed)
    unit, t = np.repeat(np.arange(n), n_periods), np.tile(np.arange(1, n_periods + 1), n)
    region = unit % 12
    first = np.array([np.nan, 3.0, 4.0, 5.0])[region % 4]
    treated = (t >= np.where(np.isnan(first), np.inf, first)).astype(float)
    shocks = shock * rng.normal(size=(12, n_periods))[region, t - 1]
    index = np.log(3.0) + 0.5 * rng.normal(size=n)[unit] + 0.1 * t + effect * treated + shocks
    return pd.DataFrame(
        {"id": unit, "t": t, "region": region, "first": first, "d": treated,
         "y": rng.poisson(np.exp(index)).astype(float)}
    )  # fmt: skip


def fitted(frame: pd.DataFrame, formula: str, *, cluster: str) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = pf.fepois(
            formula, frame, vcov={"CRV1": cluster}, ssc=pf.ssc(k_adj=False, G_adj=False),
            iwls_tol=1e-13, fixef_tol=1e-13,
        )  # fmt: skip
    return pd.DataFrame({"b": fit.coef(), "se": fit.se()})


def logs(result: Result) -> dict[str, tuple[float, float]]:
    """Coefficients on the logarithm, read back from the ratios."""
    return {e.term: (np.log1p(e.estimate), e.std_error / (1 + e.estimate)) for e in result.effects}


@pytest.mark.parametrize("cluster", ["id", "region"])
def test_one_coefficient_is_that_of_pyfixest(cluster: str) -> None:
    frame = counts(1)
    given = {} if cluster == "id" else {"cluster": cluster}
    found = logs(analyse(frame, **TIMING, estimator="twfe", **given, small_sample="none"))
    expected = fitted(frame, "y ~ d | id + t", cluster=cluster).loc["d"]
    np.testing.assert_allclose(found["treated x post"], expected, rtol=1e-7)


@pytest.mark.parametrize("cluster", ["id", "region"])
def test_an_event_study_is_that_of_pyfixest(cluster: str) -> None:
    frame = counts(2)
    elapsed = frame["t"] - frame["first"]
    times = [k for k in sorted(elapsed.dropna().unique()) if k != -1]
    names = {f"e{j}": f"event_time={k:.0f}" for j, k in enumerate(times)}
    for j, k in enumerate(times):
        frame[f"e{j}"] = (elapsed == k).astype(float)
    expected = fitted(frame, f"y ~ {' + '.join(names)} | id + t", cluster=cluster).rename(names)
    given = {} if cluster == "id" else {"cluster": cluster}
    result = analyse(frame, **TIMING, estimator="event_study", **given, small_sample="none")
    found = logs(result)
    for term, row in expected.iterrows():
        np.testing.assert_allclose(found[str(term)], row, rtol=1e-7, err_msg=str(term))
    table = result.tables["event_study"]
    assert table.loc[table["event_time"] == -1, "estimate"].tolist() == [0.0]


def test_the_effect_is_the_ratio_less_one_with_the_interval_of_its_logarithm() -> None:
    (found,) = analyse(counts(3), **TIMING, estimator="twfe", cluster="region").effects
    table = analyse(counts(3), **TIMING, estimator="twfe", cluster="region").tables["coefficients"]
    b, low, high = table.loc[0, ["estimate", "ci_lower", "ci_upper"]]
    assert (found.scale, found.estimator, found.df) == ("relative", "twfe_poisson", 11)
    assert (found.estimate, found.ci_lower, found.ci_upper) == pytest.approx(
        (np.expm1(b), np.expm1(low), np.expm1(high)), rel=1e-12
    )
    t = b / table.loc[0, "std_error"]
    assert found.statistic == pytest.approx(t, rel=1e-12)
    assert found.pvalue == pytest.approx(2 * stats.t.sf(abs(t), 11), rel=1e-9)


def test_intervals_cover_where_outcomes_are_no_counts() -> None:
    """Amounts with variances that no Poisson has, and series that depend: the sandwich copes."""
    n_worlds, covered = 200, 0
    for seed in range(n_worlds):
        rng = np.random.default_rng(1000 + seed)
        frame = counts(seed, n=240, shock=0.0)
        walk = rng.gamma(4.0, 0.25, size=(240, 6)) * rng.gamma(4.0, 0.25, size=(240, 1))
        walk[:, 1:] = (walk[:, 1:] + walk[:, :-1]) / 2
        frame["y"] *= walk.ravel()
        (found,) = analyse(frame, **TIMING, estimator="twfe").effects
        covered += found.ci_lower <= np.expm1(0.3) <= found.ci_upper
    assert stats.binomtest(covered, n_worlds, 0.95).pvalue > 1e-3


def with_gaps(frame: pd.DataFrame, seed: int, *, missing: float = 0.25) -> pd.DataFrame:
    """Rows that are left of a panel, whatever they hold."""
    rng = np.random.default_rng(seed)
    return frame[rng.uniform(size=len(frame)) >= missing].reset_index(drop=True)


@pytest.mark.parametrize("cluster", ["id", "region"])
@pytest.mark.parametrize("estimator", ["twfe", "event_study"])
def test_units_that_lack_periods_are_those_of_pyfixest(cluster: str, estimator: str) -> None:
    frame = with_gaps(counts(11, n=90), 11)
    assert frame.groupby("id")["t"].agg(tuple).nunique() > 20
    columns = {"d": "treated x post"}
    if estimator == "event_study":
        elapsed = frame["t"] - frame["first"]
        times = [k for k in sorted(elapsed.dropna().unique()) if k != -1]
        columns = {f"e{j}": f"event_time={k:.0f}" for j, k in enumerate(times)}
        for j, k in enumerate(times):
            frame[f"e{j}"] = (elapsed == k).astype(float)
    expected = fitted(frame, f"y ~ {' + '.join(columns)} | id + t", cluster=cluster)
    given = {} if cluster == "id" else {"cluster": cluster}
    result = analyse(frame, **TIMING, estimator=estimator, **given, small_sample="none")
    found = logs(result)
    for term, row in expected.rename(columns).iterrows():
        np.testing.assert_allclose(found[str(term)], row, rtol=1e-7, err_msg=str(term))
    assert result.params["n_rows"] == len(frame)


@pytest.mark.parametrize("cluster", ["id", "region"])
def test_units_that_lack_periods_are_those_of_dense_matrices(cluster: str) -> None:
    """Newton's method on a dummy for every unit and period, and the sandwich of its rows."""
    frame = with_gaps(counts(12), 12)
    frame = frame[frame.groupby("id")["y"].transform("sum") > 0].reset_index(drop=True)
    x = np.column_stack(
        [frame["d"], pd.get_dummies(frame["id"]), pd.get_dummies(frame["t"]).iloc[:, 1:]]
    ).astype(float)
    y, b = frame["y"].to_numpy(), np.zeros(x.shape[1])
    for _ in range(50):
        mean = np.exp(x @ b)
        b += np.linalg.solve((x * mean[:, None]).T @ x, x.T @ (y - mean))
    mean = np.exp(x @ b)
    scores = pd.DataFrame(x * (y - mean)[:, None]).groupby(frame[cluster]).sum().to_numpy()
    bread = np.linalg.inv((x * mean[:, None]).T @ x)
    error = np.sqrt((bread @ scores.T @ scores @ bread)[0, 0])
    given = {} if cluster == "id" else {"cluster": cluster}
    found = logs(analyse(frame, **TIMING, estimator="twfe", **given, small_sample="none"))
    np.testing.assert_allclose(found["treated x post"], (b[0], error), rtol=1e-9)


def test_one_gap_changes_nothing_but_that_row() -> None:
    """The two ways to the same numbers: a row of a unit whose outcomes are all 0 says nothing."""
    frame = counts(13)
    frame.loc[frame["id"] == 3, "y"] = 0.0
    gaps = frame[~((frame["id"] == 3) & (frame["t"] == 2))]
    whole, found = (
        logs(analyse(rows, **TIMING, estimator="event_study", small_sample="none"))
        for rows in (frame, gaps)
    )
    for term, pair in whole.items():
        np.testing.assert_allclose(found[term], pair, rtol=1e-9, err_msg=term)


@pytest.mark.parametrize("cluster", ["id", "region"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_units_that_tell_nothing_are_not_counted(cluster: str, missing: float) -> None:
    """Those with zeros alone, as of whole regions, or with one row: `fepois` drops them."""
    frame = with_gaps(counts(15, n=120), 15, missing=missing)
    frame.loc[(frame["id"] % 3 == 0) | (frame["region"] == 5), "y"] = 0.0
    frame = frame[(frame["id"] != 7) | (frame["t"] == 2)].reset_index(drop=True)
    options: dict[str, Any] = {**TIMING, "estimator": "twfe", "cluster": cluster}
    if not missing:  # units that lack a period are left out, whatever they hold
        options["balanced"] = True
        frame = frame[(frame["id"] != 9) | (frame["t"] == 2)].reset_index(drop=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = pf.fepois(
            "y ~ d | id + t", frame, vcov={"CRV1": cluster}, iwls_tol=1e-13, fixef_tol=1e-13,
            ssc=pf.ssc(k_adj=True, k_fixef="nonnested", G_adj=True), fixef_rm="singleton",
        )  # fmt: skip
    result = analyse(frame, **options)
    (found,) = result.effects
    expected = fit.coef().iloc[0], fit.se().iloc[0]
    np.testing.assert_allclose(logs(result)["treated x post"], expected, rtol=1e-7)
    used = fit._data  # the rows that it kept
    n_treated = used.loc[used["first"].notna(), "id"].nunique()
    assert found.n_clusters == used[cluster].nunique()
    assert (found.n_treated, found.n_control) == (n_treated, used["id"].nunique() - n_treated)
    assert found.df == found.n_clusters - 1
    assert result.params == {"n_rows": len(used), "n_units": used["id"].nunique()}
    silent = next(d for d in result.diagnostics if d.name == "silent_units").statistic
    n_left_out = 0 if missing else 2
    assert silent == frame["id"].nunique() - used["id"].nunique() - n_left_out


def test_clusters_of_units_that_tell_nothing_hold_no_treatment() -> None:
    """The regions of one cohort have nothing but zeros, all but one of them."""
    frame = counts(16)
    frame = frame[frame["first"].isna() | (frame["first"] == 4)].reset_index(drop=True)
    frame.loc[(frame["first"] == 4) & (frame["region"] != 2), "y"] = 0.0
    found = analyse(frame, **TIMING, estimator="event_study", cluster="region")
    names = {item.name: item for item in found.diagnostics}
    assert "treated 1, others 3" in names["treated_clusters"].detail
    assert names["lone_effects"].statistic == 5


def test_a_panel_of_zeros_is_refused() -> None:
    with pytest.raises(DataError, match="every outcome"):
        analyse(with_gaps(counts(17), 17).assign(y=0.0), **TIMING, estimator="twfe")


def test_balanced_leaves_out_units_that_lack_periods_and_counts_them() -> None:
    frame = counts(5)
    gaps = frame[~((frame["id"] == 3) & (frame["t"] == 2))]
    found = analyse(gaps, **TIMING, estimator="twfe", balanced=True)
    whole = analyse(frame[frame["id"] != 3], **TIMING, estimator="twfe")
    assert found.effects == whole.effects
    assert next(d for d in found.diagnostics if d.name == "n_incomplete").statistic == 1


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_a_likelihood_without_a_maximum_is_refused(missing: float) -> None:
    """Nobody but the cohort of 3 has anything in the last period: its ratio there has no bound."""
    frame = with_gaps(counts(14), 14, missing=missing)
    frame.loc[(frame["t"] == 6) & (frame["first"] != 3), "y"] = 0.0
    with pytest.raises((DataError, InferenceError), match=r"no maximum|is 0"):
        analyse(frame, **TIMING, estimator="event_study")


@pytest.mark.parametrize(
    ("rows", "value", "said"),
    [
        ("t == 2", 0.0, "every outcome of period 2 is 0"),
        ("d == 1", 0.0, "every outcome of treated x post is 0"),
        ("first == 3", -4.0, "not negative; given: 90 rows"),
        ("id == 4 and t == 5", -0.01, "not negative; given: 1 rows"),
    ],
)
def test_outcomes_without_a_ratio_are_refused(rows: str, value: float, said: str) -> None:
    frame = counts(6)
    frame.loc[frame.eval(rows), "y"] = value
    with pytest.raises(DataError, match=said):
        analyse(frame, **TIMING, estimator="twfe")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"estimator": "etwfe"}, "twfe or event_study"),
        ({"covariance": "classical"}, "family: poisson has covariance: cluster"),
        ({"weight": "w"}, "neither covariates, weight"),
        ({"wild_bootstrap": {}}, "neither wild_bootstrap"),
        ({"family": "linear", "balanced": True}, "balanced goes with"),
    ],
)
def test_options_that_do_not_go_together(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        analyse(counts(7), **{**TIMING, "estimator": "twfe", **given})
