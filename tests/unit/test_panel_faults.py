"""Faults of panels and regressions: each is refused in words, or named beside the estimates."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal.core import registry
from causal.core.errors import CausalError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from tests.unit.test_did_parity import make_panel

PANEL = {"unit": "id", "period": "t", "outcome": "y"}
COHORTS = {**PANEL, "first_treated_period": "first"}
REGRESSIONS = ("twfe", "event_study", "sun_abraham", "etwfe", "two_stage", "imputation")
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: ("did", {**COHORTS, "estimator": name}) for name in REGRESSIONS},
    "poisson": ("did", {**COHORTS, "estimator": "event_study", "family": "poisson"}),
    "two_by_two": (
        "did", {**PANEL, "estimator": "two_by_two", "group": "ever", "treatment_period": 4},
    ),
    "dose_response": (
        "did", {**PANEL, "estimator": "dose_response", "dose": "dose", "treatment_period": 4},
    ),
    "staggered": ("staggered", {**COHORTS, "control_group": "not_yet_treated"}),
}  # fmt: skip


def analyse(frame: pd.DataFrame, way: str, **options: Any) -> Result:
    method, given = WAYS[way]
    spec = {"name": "f", "source": {"table": "t"}, "method": method, "options": given | options}
    found = registry.method(method)
    return run(found.estimate(validate(found.SPEC, spec)), PandasEngine(frame))


def sound() -> pd.DataFrame:
    """Sixty units in seven regions; cohorts of 3, 4 and 5 beside never-treated units."""
    frame = make_panel(3, n=60, level=50.0)
    frame["ever"] = frame["first"].notna().astype(float)
    frame["dose"] = np.where(frame["ever"] > 0, 1.0 + frame["id"] % 5, 0.0)
    return frame


def noted(result: Result) -> dict[str, Any]:
    return {item.name: item for item in result.diagnostics}


def test_a_sound_panel_has_none_of_them() -> None:
    names = {"lone_effects", "single_cohorts", "period_gaps", "clusters_against_coefficients"}
    for way in WAYS:
        assert not names & set(noted(analyse(sound(), way))), way


@pytest.mark.parametrize("way", WAYS)
def test_repeated_rows(way: str) -> None:
    frame = sound()
    with pytest.raises(CausalError, match="more than one row for the same id and t"):
        analyse(pd.concat([frame, frame.iloc[[7]]], ignore_index=True), way)


@pytest.mark.parametrize("way", WAYS)
def test_nobody_without_treatment(way: str) -> None:
    """Regressions of one or few coefficients have those that are not treated yet, and say so."""
    frame = sound()
    frame = frame[frame["ever"] > 0].reset_index(drop=True)
    if way in {"twfe", "staggered"}:
        assert "never_treated" in noted(analyse(frame, way))
        return
    said = "comparison group|stay untreated|no unit is untreated|no never-treated units"
    with pytest.raises(CausalError, match=said):
        analyse(frame, way)


@pytest.mark.parametrize("way", WAYS)
def test_everybody_treated_in_the_first_period(way: str) -> None:
    frame = sound().assign(first=1.0, ever=1.0, dose=2.0)
    with pytest.raises(CausalError, match=r"no comparison group|they have no before"):
        analyse(frame, way)


@pytest.mark.parametrize("way", WAYS)
def test_some_treated_in_the_first_period(way: str) -> None:
    if way in {"two_by_two", "dose_response"}:
        return  # one start for all
    frame = sound()
    frame["first"] = frame["first"].where(frame["first"] != 3, 1.0)
    if way in {"twfe", "event_study", "poisson", "staggered"}:
        assert noted(analyse(frame, way))["already_treated"].statistic == 15
        return
    with pytest.raises(CausalError, match="cohort of 1 is"):
        analyse(frame, way)


@pytest.mark.parametrize("way", WAYS)
def test_a_cohort_of_one_unit(way: str) -> None:
    """Coefficients that this unit alone tells have no errors; averages over many more do."""
    frame = sound()
    late = frame["first"] == 5
    frame = frame[~late | (frame["id"] == frame.loc[late, "id"].min())].reset_index(drop=True)
    if way == "imputation":
        with pytest.raises(CausalError, match="in every treated cohort"):
            analyse(frame, way)
        return
    found = noted(analyse(frame, way))
    if way == "staggered":
        assert found["small_cohorts"].statistic == 1
    if way in {"sun_abraham", "etwfe"}:
        assert found["lone_effects"].passed is False
        assert "cohort=5 x event_time=0" in found["lone_effects"].detail
    if way in {"event_study", "poisson"}:
        assert "only, so that their errors" in found["lone_effects"].detail
        assert "event_time=-4" in found["lone_effects"].detail
    if way in {"twfe", "two_stage", "two_by_two", "dose_response"}:
        assert "lone_effects" not in found


@pytest.mark.parametrize("way", ["sun_abraham", "etwfe", "event_study"])
@pytest.mark.parametrize("options", [{}, {"covariates": ["x"]}])
def test_a_cohort_of_one_cluster(way: str, options: dict[str, Any]) -> None:
    """Told from moments by cluster, or counted in a pass where there are none."""
    if way == "event_study":
        options = {**options, "min_event_time": -3}
    frame = sound()
    frame = frame[(frame["first"] != 5) | (frame["region"] == "r1")].reset_index(drop=True)
    assert frame.loc[frame["first"] == 5, "id"].nunique() > 1
    found = noted(analyse(frame, way, cluster="region", **options))
    if way == "event_study":
        assert "lone_effects" not in found
    else:
        assert "in one region only" in found["lone_effects"].detail
        assert found["lone_effects"].statistic in {2, 5}


@pytest.mark.parametrize("way", ["event_study", "two_stage", "sun_abraham", "etwfe"])
def test_an_event_time_of_one_row(way: str) -> None:
    """Of a cohort of many units: the last event time is that of one of them."""
    frame = sound()
    late = (frame["first"] == 3) & (frame["t"] == 6)
    frame = frame[~late | (frame["id"] == frame.loc[late, "id"].min())].reset_index(drop=True)
    lone = noted(analyse(frame, way))["lone_effects"]
    assert (lone.statistic, lone.passed) == (1, False)
    assert "event_time=3" in lone.detail


@pytest.mark.parametrize("way", ["event_study", "two_stage"])
@pytest.mark.parametrize("gaps", [0, 2])
def test_cohorts_that_one_cluster_holds_alone(way: str, gaps: int) -> None:
    """Two cohorts of it behind one event time are one cluster, not two."""
    frame = sound()
    frame["region"] = np.where(frame["first"] < 5, "r9", frame["region"])
    frame = frame.drop(index=frame.index[[8, 45][:gaps]]).reset_index(drop=True)
    lone = noted(analyse(frame, way, cluster="region"))["lone_effects"]
    assert "event_time=2, event_time=3" in lone.detail
    assert "event_time=1" not in lone.detail.replace("event_time=-1", "")


@pytest.mark.parametrize("regions", [["r9", "r9"], ["r8", "r9"]])
def test_clusters_that_are_not_at_hand_are_told_apart(regions: list[str]) -> None:
    """A pass more says whether the only cluster of one cohort is that of another."""
    frame = sound()
    for start, region in zip((3, 4), regions, strict=True):
        frame["region"] = frame["region"].where(frame["first"] != start, region)
    options = {"cluster": "region", "covariates": ["x"]}
    found = noted(analyse(frame, "event_study", **options))["lone_effects"]
    assert ("event_time=2" in found.detail) == (regions[0] == regions[1])
    assert "event_time=3" in found.detail


def test_units_left_out_do_not_hold_an_effect() -> None:
    """Two units of three are seen under treatment only, so the third one is alone."""
    frame = sound()
    few = frame.loc[frame["first"] == 3, "id"].unique()[:3]
    frame = frame[(frame["first"] != 3) | frame["id"].isin(few)]
    frame = frame[~(frame["id"].isin(few[1:]) & (frame["t"] < 3))].reset_index(drop=True)
    found = noted(analyse(frame, "two_stage"))
    assert found["only_treated"].statistic == 2
    assert "event_time=3" in found["lone_effects"].detail


@pytest.mark.parametrize(
    "options",
    [{"estimator": "two_stage"}, *({"estimator": e, "family": "poisson"} for e in REGRESSIONS[:2])],
)
@pytest.mark.parametrize("cluster", ["id", "region"])
def test_what_balanced_leaves_out_holds_no_effect(options: dict[str, Any], cluster: str) -> None:
    """One treated unit (region) is complete."""
    frame = sound()
    frame = frame[frame["first"].isna() | (frame["first"] == 4)]
    lost = frame["ever"] > 0
    lost &= (frame["id"] != 1) if cluster == "id" else (frame["region"] != "r1")
    frame["y"] = frame["y"] - frame["y"].min() + 1
    frame = frame[~(lost & (frame["t"] == 6))].reset_index(drop=True)
    given = {} if cluster == "id" else {"cluster": "region"}
    found = noted(analyse(frame, "twfe", balanced=True, **options, **given))
    assert found["treated_clusters"].passed is False
    assert "treated 1, " in found["treated_clusters"].detail
    assert ("lone_effects" in found) == (options["estimator"] != "twfe")


@pytest.mark.parametrize("way", WAYS)
def test_gaps_in_periods(way: str) -> None:
    frame = sound()
    frame = frame[frame["t"] != 4].reset_index(drop=True)
    if way == "sun_abraham":
        with pytest.raises(CausalError, match="not observed in its reference period"):
            analyse(frame, way)
    elif way != "two_by_two":  # before and after, whatever lies between
        assert "3 to 5" in noted(analyse(frame, way))["period_gaps"].detail


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_a_unit_that_changes_its_cluster(way: str, missing: float) -> None:
    frame = sound()
    keep = np.random.default_rng(1).uniform(size=len(frame)) >= missing
    frame = frame[keep].reset_index(drop=True)
    moved = (frame["t"] > 3) & (frame["id"] == 5)
    frame.loc[moved, "region"] = "r0"
    with pytest.raises(CausalError, match=r"region must not change within id|lie in one cluster"):
        analyse(frame, way, cluster="region")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_a_null_cluster(way: str, missing: float) -> None:
    frame = sound()
    keep = np.random.default_rng(1).uniform(size=len(frame)) >= missing
    frame = frame[keep].reset_index(drop=True)
    frame["region"] = frame["region"].where(frame["id"] != 4)
    with pytest.raises(CausalError, match="region is null in some rows"):
        analyse(frame, way, cluster="region")


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("way", [*REGRESSIONS, "poisson"])
def test_rows_without_a_unit(way: str, missing: float) -> None:
    """They are left out and counted, of whole panels and of those with gaps."""
    frame = sound()
    keep = np.random.default_rng(1).uniform(size=len(frame)) >= missing
    frame = frame[keep].reset_index(drop=True)
    frame["id"] = frame["id"].astype("Int64")
    nobody = frame.iloc[[5, 30, 31, 80]].assign(id=None, y=[300.0, 400.0, 500.0, 600.0])
    both = pd.concat([frame, nobody.astype(frame.dtypes)], ignore_index=True)
    expected, found = analyse(frame, way), analyse(both, way)
    for one, other in zip(expected.effects, found.effects, strict=True):
        assert (one.term, one.n_treated) == (other.term, other.n_treated)
        assert other.estimate == pytest.approx(one.estimate, rel=1e-9)
        assert other.std_error == pytest.approx(one.std_error, rel=1e-9)
    assert found.params["n_rows"] == expected.params["n_rows"]
    assert noted(found)["n_missing"].statistic == 4


@pytest.mark.parametrize("way", WAYS)
def test_one_cluster(way: str) -> None:
    with pytest.raises(
        CausalError, match=r"two or more clusters|fewer than 2|two clusters|two units"
    ):
        analyse(sound().assign(region="r0"), way, cluster="region")


@pytest.mark.parametrize("way", ["event_study", "sun_abraham", "etwfe", "poisson"])
def test_more_coefficients_than_clusters(way: str) -> None:
    frame = sound()
    frame["region"] = frame["id"] // 4 % 4
    found = noted(analyse(frame, way, cluster="region"))["clusters_against_coefficients"]
    assert found.statistic == 4
    assert "only 4 clusters" in found.detail


REGRESSION = {"outcome": "y", "numeric": ["a", "x0", "x1"], "cluster": "four"}
INSTRUMENTS = {"outcome": "y", "treatment": "d", "instruments": ["z"], "cluster": "four"}
RAW: dict[str, tuple[str, dict[str, Any], str]] = {
    "collinear": ("ols", {"outcome": "y", "numeric": ["a", "b"]}, "given: b"),
    "collinear with the absorbed": (
        "ols", {"outcome": "y", "numeric": ["a", "of_id"], "absorb": "id"}, "of_id",
    ),
    "cluster across the absorbed": ("ols", {**REGRESSION, "absorb": "id"}, "lie in one cluster"),
    "collinear instruments": (
        "iv", {"outcome": "y", "treatment": "d", "instruments": ["z", "z2"]}, "instruments.*z2",
    ),
    "collinear treatments": (
        "iv", {"outcome": "y", "treatment": ["d", "e"], "instruments": ["z", "a"]}, "given: e",
    ),
    "collinear covariates": ("iv", {**INSTRUMENTS, "covariates": ["a", "b"]}, "given: b"),
    "instrument among the covariates' span": (
        "iv", {"outcome": "y", "treatment": "d", "instruments": ["a"], "covariates": ["b"]},
        "given: a",
    ),
    "cluster across what iv absorbs": ("iv", {**INSTRUMENTS, "absorb": "id"}, "in one cluster"),
}  # fmt: skip


def rows() -> pd.DataFrame:
    """Sixty rows with columns that are combinations of others."""
    rng = np.random.default_rng(1)
    n = 60
    names = ["y", "a", "z", "x0", "x1", "x2"]
    frame = pd.DataFrame({name: rng.normal(size=n) for name in names})
    frame["d"] = frame["z"] + rng.normal(size=n)
    frame["b"], frame["z2"], frame["e"] = 2 * frame["a"] + 1, 3 * frame["z"], 2 * frame["d"]
    frame["id"], frame["four"] = np.arange(n) // 3, np.arange(n) % 4
    return frame.assign(of_id=frame["id"] * 1.0)


def raw(method: str, options: dict[str, Any]) -> Result:
    spec = {"name": "f", "source": {"table": "t"}, "method": method, "options": options}
    found = registry.method(method)
    return run(found.estimate(validate(found.SPEC, spec)), PandasEngine(rows()))


@pytest.mark.parametrize("case", RAW)
def test_regressions_without_an_answer(case: str) -> None:
    method, options, said = RAW[case]
    with pytest.raises(CausalError, match=said):
        raw(method, options)


@pytest.mark.parametrize("method", ["ols", "iv"])
def test_more_coefficients_than_clusters_of_a_regression(method: str) -> None:
    more = {"numeric": ["a", "x0", "x1", "x2"]} if method == "ols" else {"covariates": ["x0", "x1"]}
    options = REGRESSION | more if method == "ols" else INSTRUMENTS | more
    found = noted(raw(method, options))["clusters_against_coefficients"]
    assert (found.statistic, found.passed) == (4, False)
