"""Doses that start in one period: equal to regressions of changes and of dense dummies."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest
import statsmodels.api as sm
from scipy import stats

from causal.core.errors import DataError, InferenceError, SpecError
from causal.core.result import Diagnostic, Result
from tests.unit.test_did_parity import analyse, reference

DOSE: dict[str, Any] = {"estimator": "dose_response", "dose": "dose", "treatment_period": 3}


def doses(
    seed: int, *, n: int = 80, n_periods: int = 4, missing: float = 0.0, selection: float = 0.0
) -> pd.DataFrame:
    """A third of the units has no dose; the others gain 0.5 a dose, those with more of it more."""
    rng = np.random.default_rng(seed)
    unit, t = np.repeat(np.arange(n), n_periods), np.tile(np.arange(1, n_periods + 1), n)
    dose = np.where(np.arange(n) % 3 == 0, 0.0, np.round(rng.uniform(0.5, 10, size=n), 2))
    gain = (0.5 + selection * dose) * dose
    noise = rng.normal(size=n)[unit] + np.cumsum(rng.normal(size=(n, n_periods)), axis=1).ravel()
    frame = pd.DataFrame(
        {
            "id": unit, "t": t, "dose": dose[unit], "region": unit % 11,
            "w": rng.uniform(0.5, 3.0, size=len(t)), "x": rng.normal(size=len(t)),
            "y": 5.0 + 0.3 * t + np.where(t >= 3, gain[unit], 0.0) + noise,
        }
    )  # fmt: skip
    return frame[rng.uniform(size=len(frame)) >= missing].reset_index(drop=True)


def terms(result: Result) -> dict[str, tuple[float, float]]:
    return {e.term: (e.estimate, e.std_error) for e in result.effects}


def check(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


def after_less_before(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per unit: dose, region and the change of its mean."""
    means = frame.assign(post=frame["t"] >= 3).groupby(["id", "post"])["y"].mean().unstack()
    change = (means[True] - means[False]).rename("change")
    return frame.groupby("id")[["dose", "region"]].first().join(change)


@pytest.mark.parametrize("n_periods", [4, 6])
def test_bins_are_the_regression_of_changes(n_periods: int) -> None:
    """pyfixest's errors of the cross-section, by units (HC0) and by regions."""
    frame = doses(1, n_periods=n_periods)
    cross = after_less_before(frame)
    cross["bin"] = pd.cut(cross["dose"], [-1, 0, 3, 6, 99], labels=False)
    names = {
        "C(bin)[T.1]": "dose (0, 3]", "C(bin)[T.2]": "dose (3, 6]", "C(bin)[T.3]": "dose above 6",
    }  # fmt: skip
    for vcov, cluster in (({"CRV1": "region"}, {"cluster": "region"}), ("HC1", {})):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = pf.feols(
                "change ~ C(bin)", cross, vcov=vcov, ssc=pf.ssc(k_adj=False, G_adj=False)
            )
        found = terms(
            analyse(frame, **DOSE, dose_bins=[3, 6], **cluster, small_sample="none")
        )  # fmt: skip
        for name, term in names.items():
            expected = (fit.coef()[name], fit.se()[name])
            np.testing.assert_allclose(found[term], expected, rtol=1e-9, err_msg=term)


def test_all_doses_together_are_the_comparison_of_two_groups() -> None:
    frame = doses(2)
    found = analyse(frame, **DOSE)
    two = analyse(
        frame.assign(has=(frame["dose"] > 0).astype(float)), estimator="twfe", group="has",
        treatment_period=3,
    ).effects[0]  # fmt: skip
    average, alone = found.effects
    assert (average.term, alone.term) == ("any dose", "dose above 0")
    for effect in (average, alone):
        assert (effect.estimate, effect.std_error) == pytest.approx(
            (two.estimate, two.std_error), rel=1e-9
        )
        assert (effect.n_treated, effect.n_control, effect.df) == (53, 27, two.df)


def test_slopes_between_knots_are_the_regression_of_changes() -> None:
    frame = doses(3)
    cross = after_less_before(frame)
    d = cross["dose"].to_numpy()
    x = sm.add_constant(
        np.column_stack([d > 0, np.minimum(d, 4), np.clip(d, 4, 7) - 4, np.clip(d, 7, None) - 7])
    )
    fit = sm.OLS(cross["change"].to_numpy(), x.astype(float)).fit(cov_type="HC0")
    result = analyse(frame, **DOSE, dose_knots=[4, 7], small_sample="none")
    found = terms(result)
    names = ["jump at 0", "slope (0, 4]", "slope (4, 7]", "slope above 7"]
    for j, name in enumerate(names, start=1):
        np.testing.assert_allclose(found[name], (fit.params[j], fit.bse[j]), rtol=1e-9)
    assert [e.estimand for e in result.effects] == ["att", "att", "acrt", "acrt", "acrt"]
    level = result.tables["dose_response"].set_index("mean_dose").loc[7.0]
    contrast = np.array([0, 1, 4, 3, 0])
    np.testing.assert_allclose(
        [level["estimate"], level["std_error"]],
        [contrast @ fit.params, np.sqrt(contrast @ fit.cov_params() @ contrast)],
        rtol=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("given", [{}, {"weight": "w"}, {"cluster": "region", "covariates": ["x"]}])
def test_gaps_weights_and_covariates_are_those_of_dense_dummies(given: dict[str, Any]) -> None:
    frame = doses(4, missing=0.15)
    post, d = (frame["t"] >= 3).to_numpy(dtype=float), frame["dose"].to_numpy()
    columns = {"low": post * ((d > 0) & (d <= 5)), "high": post * (d > 5)}
    if "covariates" in given:
        columns["x"] = frame["x"].to_numpy()
    b, v = reference(
        frame, columns, cluster=given.get("cluster", "id"), weight=given.get("weight")
    )  # fmt: skip
    found = terms(analyse(frame, **DOSE, dose_bins=[5], **given))
    for j, term in enumerate(["dose (0, 5]", "dose above 5"]):
        np.testing.assert_allclose(found[term], (b[j], np.sqrt(v[j, j])), rtol=1e-8)


def test_the_pre_trend_test_sees_trends_that_part_by_dose() -> None:
    flat = doses(5, n=300)
    steep = flat.assign(y=flat["y"] + 0.3 * flat["dose"] * flat["t"])
    flat_, steep_ = (
        next(d for d in analyse(rows, **DOSE, dose_bins=[5]).diagnostics if d.name == "pre_trend")
        for rows in (flat, steep)
    )
    assert flat_.pvalue is not None
    assert flat_.pvalue > 1e-3
    assert steep_.passed is False


def test_a_trend_test_without_a_trend_keeps_its_size() -> None:
    rejected, n_worlds = 0, 200
    for seed in range(n_worlds):
        result = analyse(doses(seed, n=120), **DOSE, dose_bins=[5])
        rejected += next(d for d in result.diagnostics if d.name == "pre_trend").passed is False
    assert stats.binomtest(rejected, n_worlds, 0.05).pvalue > 1e-3


def test_bins_cover_effects_of_their_own_units_whoever_gets_more() -> None:
    """Units with a large dose gain more from each: bins are right, slopes are no responses."""
    n_worlds, covered, slopes = 150, 0, 0
    truth = 0.5 * 7.5 + 0.1 * (10**3 - 5**3) / (3 * 5)
    response = 0.5 + 0.1 * (0.5 + 10) / 2
    for seed in range(n_worlds):
        frame = doses(seed, n=240, selection=0.1)
        effect = analyse(frame, **DOSE, dose_bins=[5]).effects[2]
        covered += effect.ci_lower <= truth <= effect.ci_upper
        slope = analyse(frame, **DOSE, dose_knots=[]).effects[2]
        slopes += slope.ci_lower <= response <= slope.ci_upper
    assert stats.binomtest(covered, n_worlds, 0.95).pvalue > 1e-3
    assert slopes < n_worlds / 10


@pytest.mark.parametrize(
    ("change", "given", "said"),
    [
        ({"dose": -1.0}, {}, "dose is negative"),
        ({"dose": 2.0}, {}, "no unit has dose 0"),
        ({"dose": 0.0}, {}, "every range of doses needs two units"),
        ({}, {"dose_bins": [0.1]}, r"0 \(0, 0\.1\]"),
        ({}, {"treatment_period": 9}, "no period before or after"),
        ({"region": "a"}, {"cluster": "region"}, "two clusters or more"),
    ],
)
def test_what_has_no_answer_is_refused(
    change: dict[str, Any], given: dict[str, Any], said: str
) -> None:
    with pytest.raises((DataError, InferenceError), match=said):
        analyse(doses(6).assign(**change), **{**DOSE, **given})


def test_a_dose_that_changes_within_a_unit_is_refused() -> None:
    frame = doses(7)
    frame["dose"] *= np.where(frame["t"] >= 3, 1.0, 0.0)
    with pytest.raises(DataError, match="dose must not change within id"):
        analyse(frame, **DOSE)


def test_rows_without_a_dose_are_left_out_and_counted() -> None:
    frame = doses(10)
    frame.loc[frame["id"] < 20, "dose"] = np.nan
    found = analyse(frame, **DOSE, dose_bins=[5])
    alone = analyse(frame[frame["id"] >= 20], **DOSE, dose_bins=[5])
    np.testing.assert_allclose(list(terms(found).values()), list(terms(alone).values()), rtol=1e-9)
    assert check(found, "n_missing").statistic == 80
    pd.testing.assert_frame_equal(found.tables["cohort_means"], alone.tables["cohort_means"])


def test_a_bin_without_known_clusters_is_refused() -> None:
    frame = doses(8)
    for unknown in (frame["dose"] > 8, frame["id"] == 1):
        rows = frame.assign(region=frame["region"].where(~unknown))
        with pytest.raises(DataError, match="region is null in"):
            analyse(rows, **DOSE, dose_bins=[8], cluster="region")


def test_a_bin_within_one_cluster_is_refused() -> None:
    frame = doses(8)
    high = frame["dose"] > 8
    frame.loc[high, "region"] = 50
    with pytest.raises(DataError, match=r"two clusters or more.*dose above 8"):
        analyse(frame, **DOSE, dose_bins=[8], cluster="region")


@pytest.mark.parametrize("fault", ["only after", "only before", "covariate", "weight", "apart"])
def test_units_that_tell_no_change_do_not_count(fault: str) -> None:
    """Two units have the largest dose; of one there is no row before (after) that counts."""
    frame = doses(11)
    frame["w"] = 1.0
    frame.loc[frame["id"].isin([1, 2]), "dose"] = 20.0
    one, before = frame["id"] == 1, frame["t"] < 3
    given: dict[str, Any] = {}
    if fault == "only after":
        frame = frame[~(one & before)]
    elif fault == "only before":
        frame = frame[~(one & ~before)]
    elif fault == "covariate":
        frame.loc[one, "x"], given = np.nan, {"covariates": ["x"]}
    elif fault == "weight":
        frame.loc[one & before, "w"], given = 0.0, {"weight": "w"}
    else:
        frame.loc[one & before, "x"], given = np.nan, {"covariates": ["x"]}
        frame = frame[~(one & (frame["t"] == 4))]
    with pytest.raises(
        DataError, match=r"two units or more with usable rows before and.*1 above 15"
    ):
        analyse(frame, **DOSE, dose_bins=[15], **given)


def test_counts_are_of_units_that_tell_a_change() -> None:
    frame = doses(12)
    few = frame[~(frame["id"].isin([0, 1, 2]) & (frame["t"] < 3))]
    found = analyse(few, **DOSE).effects[0]
    assert (found.n_treated, found.n_control) == (51, 26)


def test_nobody_without_a_dose_before_is_no_comparison_group() -> None:
    frame = doses(13)
    frame.loc[(frame["dose"] == 0) & (frame["t"] < 3) & (frame["id"] > 0), "x"] = np.nan
    with pytest.raises(DataError, match="one unit has dose 0 and usable rows before and after"):
        analyse(frame, **DOSE, covariates=["x"])
    with pytest.raises(DataError, match="no unit has dose 0 and usable rows before and after"):
        analyse(frame.assign(x=frame["x"].where(frame["t"] >= 3)), **DOSE, covariates=["x"])


def test_an_infinite_value_is_refused_by_the_name_of_its_column() -> None:
    frame = doses(19)
    frame.loc[frame["id"] == 1, "dose"] = np.inf
    with pytest.raises(DataError, match=r"infinite values; given: dose, y$"):
        analyse(frame, **DOSE)


@pytest.mark.parametrize("fault", ["only after", "weight"])
def test_clusters_that_tell_no_change_do_not_count(fault: str) -> None:
    frame = doses(14)
    frame["w"] = 1.0
    high = frame["dose"] > 7
    frame.loc[high, "region"] = 50 + frame["id"][high] % 2
    mute = (frame["region"] == 50) & (frame["t"] < 3)
    given = {} if fault == "only after" else {"weight": "w"}
    frame.loc[mute, "w"] = 0.0
    rows = frame[~mute] if fault == "only after" else frame
    with pytest.raises(DataError, match=r"two clusters or more.*dose above 7"):
        analyse(rows, **DOSE, dose_bins=[7], cluster="region", **given)


@pytest.mark.parametrize(("n_high", "passed"), [(2, [False]), (9, [False]), (12, [None]), (20, [])])
@pytest.mark.parametrize("cluster", [None, "id", "place", ["id", "t"]])
def test_few_units_or_clusters_of_a_bin_are_told(
    n_high: int, passed: list[bool | None], cluster: str | list[str] | None
) -> None:
    """Clusters of one size, each of one unit: as many as units, of whichever column."""
    frame = doses(15, n=120).assign(place=lambda rows: rows["id"] + 500)
    treated = frame.loc[frame["dose"] > 0, "id"].unique()
    frame.loc[frame["id"].isin(treated[:n_high]), "dose"] = 20.0
    found = analyse(frame, **DOSE, dose_bins=[15], cluster=cluster)
    told = [item for item in found.diagnostics if item.name == "treated_clusters"]
    assert [item.passed for item in told] == passed
    for item in told:
        assert item.statistic == n_high
        assert f"dose above 15: {n_high}" in item.detail


@pytest.mark.parametrize(("n_regions", "passed"), [(5, [False]), (8, [None]), (25, [])])
def test_clusters_that_hold_all_doses_may_be_fewer(
    n_regions: int, passed: list[bool | None]
) -> None:
    frame = doses(17, n=600).assign(region=lambda rows: rows["id"] // 3 % n_regions)
    found = analyse(frame, **DOSE, dose_bins=[5], cluster="region")
    told = [item.passed for item in found.diagnostics if item.name == "treated_clusters"]
    assert told == passed


def test_two_ways_of_clusters_may_share_no_unit() -> None:
    """One season before the start and one after it: no range of doses lies in one cluster."""
    frame = doses(18).assign(season=lambda rows: rows["t"] // 3)
    found = analyse(frame, **DOSE, cluster=["id", "season"])
    assert check(found, "treated_clusters").statistic == 2


def test_clusters_of_unequal_weight_are_worth_fewer() -> None:
    frame = doses(16, n=120)
    frame["w"] = np.where(frame["id"] % 3 == 1, 9.0, 1.0) / 9
    high = frame["id"].isin(range(0, 60, 2)) & (frame["dose"] > 0)
    frame.loc[high, "dose"] = 20.0
    found = analyse(frame, **DOSE, dose_bins=[15], weight="w")
    weights = frame[high].groupby("id")["w"].first()
    worth = weights.sum() ** 2 / (weights**2).sum()
    told = check(found, "treated_clusters")
    assert (len(weights), told.statistic) == (20, 20.0)
    assert f"{worth:.1f} of one size" in told.detail


def test_intervals_of_few_units_are_red_where_they_are_too_short() -> None:
    n_worlds, covered, red = 100, 0, 0
    for seed in range(n_worlds):
        rng = np.random.default_rng(seed)
        frame = doses(seed).assign(y=rng.normal(size=320))
        frame.loc[frame["id"].isin([1, 2, 4]), "dose"] = 20.0
        found = analyse(frame, **DOSE, dose_bins=[15])
        effect = found.effects[2]
        covered += effect.ci_lower <= 0 <= effect.ci_upper
        red += check(found, "treated_clusters").passed is False
    assert covered < 0.9 * n_worlds
    assert red == n_worlds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dose_bins": [3], "dose_knots": [4]}, "not both"),
        ({"dose_bins": [3, 2]}, "must ascend"),
        ({"dose_bins": [0]}, "greater than 0"),
        ({"estimator": "twfe"}, "dose goes with dose_response"),
        ({"treatment_period": None}, "go together"),
        ({"group": "g"}, "exactly one of"),
        ({"dose": None, "first_treated_period": "f", "treatment_period": None}, "needs dose"),
        ({"control_group": "not_yet_treated"}, "compares with never_treated"),
    ],
)
def test_options_that_do_not_go_together(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        analyse(doses(9), **{**DOSE, **given})
