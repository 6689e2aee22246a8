"""What `did` refuses, what it says about doubtful data, and how its pictures look."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import CausalError, DataError, InferenceError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Result
from causal.core.spec import validate
from causal.quasi import did

COLUMNS = {"unit": "id", "period": "t", "outcome": "y"}
STAGGERED = {"estimator": "twfe", "first_treated_period": "first"}


def spec_of(**options: object) -> did.DidSpec:
    data = {
        "name": "case",
        "source": {"table": "t"},
        "method": "did",
        "options": {**COLUMNS, **options},
    }
    return validate(did.SPEC, data)


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    return run(did.estimate(spec_of(**options)), PandasEngine(frame))


def check(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


@pytest.fixture
def panel() -> pd.DataFrame:
    """40 units, 6 periods; starts 4 and 5, and never."""
    rng = np.random.default_rng(8)
    unit, t = np.repeat(np.arange(40), 6), np.tile(np.arange(1, 7), 40)
    first = np.array([np.nan, 4.0, 5.0, np.nan])[unit % 4]
    frame = pd.DataFrame({"id": unit, "t": t, "first": first, "region": unit % 5})
    frame["y"] = rng.normal(size=240) + (t >= first) * 2.0
    frame["ever"] = frame["first"].notna().astype(int)
    return frame


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"estimator": "callaway_santanna", "first_treated_period": "first"}, "two_by_two"),
        ({"estimator": "twfe"}, "exactly one of"),
        ({**STAGGERED, "cluster": ["a", "b", "c"]}, "cluster takes one column, or two"),
        ({**STAGGERED, "treatment": "d"}, "exactly one of"),
        ({"estimator": "twfe", "group": "g"}, "go together"),
        ({**STAGGERED, "treatment_period": 3}, "go together"),
        ({"estimator": "twfe", "treatment": "d", "never_treated_value": 0}, "never_treated_value"),
        ({"estimator": "event_study", "treatment": "d"}, "treatment goes with twfe"),
        ({**STAGGERED, "reference_period": -2}, "reference_period goes with event_study"),
        ({**STAGGERED, "max_event_time": 0}, "max_event_time goes with event_study"),
        ({**STAGGERED, "balanced": True}, "balanced goes with two_by_two"),
        ({**STAGGERED, "covariance": "welch"}, "welch goes with two_by_two"),
        ({**STAGGERED, "covariance": "classical", "cluster": "region"}, "cluster goes with"),
        ({**STAGGERED, "covariance": "classical", "small_sample": "none"}, "small_sample goes"),
        ({**STAGGERED, "control_group": "never_treated"}, "not_yet_treated"),
        ({**STAGGERED, "covariates": ["y"]}, "two roles: y"),
        ({**STAGGERED, "outcome": ["y", "y"]}, "two roles: y"),
        ({**STAGGERED, "outcomes": "y"}, "did you mean 'outcome'"),
        (
            {"estimator": "event_study", "first_treated_period": "f", "reference_period": 0},
            "before",
        ),
        (
            {"estimator": "event_study", "first_treated_period": "f", "min_event_time": -1},
            "min_event_time",
        ),
        ({**STAGGERED, "estimator": "two_by_two", "weight": "w", "covariance": "welch"}, "weight"),
        ({**STAGGERED, "estimator": "two_by_two", "covariates": ["x"]}, "covariates goes with"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(**options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_column_and_a_period_of_text(panel: pd.DataFrame) -> None:
    with pytest.raises(SpecError, match="no such column"):
        analyse(panel.drop(columns="y"), **STAGGERED)
    with pytest.raises(SpecError, match="must hold numbers"):
        analyse(panel.assign(t="week " + panel["t"].astype(str)), **STAGGERED)


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (lambda f: f[f["first"].isna()], STAGGERED, "no treated group"),
        (lambda f: f[f["first"] == 4], STAGGERED, "no comparison group"),
        (lambda f: f.assign(first=1.0), STAGGERED, "no comparison group"),
        (lambda f: f.assign(first=9.0), STAGGERED, "no treated group"),
        (lambda f: f[f["t"] == 2], STAGGERED, "two or more periods"),
        (lambda f: f.assign(y=3.25), STAGGERED, "same value in every row"),
        (lambda f: pd.concat([f, f.iloc[[5]]]), STAGGERED, "more than one row"),
        (lambda f: f.assign(first=f["first"].mask(f.index == 3, 2.0)), STAGGERED, "not change"),
        (lambda f: f.iloc[:0], STAGGERED, "no rows"),
        (lambda f: f, {**STAGGERED, "estimator": "two_by_two"}, "use twfe or event_study"),
        (
            lambda f: f,
            {"estimator": "two_by_two", "group": "ever", "treatment_period": 9},
            "treatment_period leaves no period",
        ),
        (
            lambda f: f,
            {"estimator": "two_by_two", "group": "ever", "treatment_period": 1},
            "treatment_period leaves no period",
        ),
        (
            lambda f: f.assign(ever=f["ever"] * 2),
            {"estimator": "twfe", "group": "ever", "treatment_period": 4},
            "must be 0 or 1",
        ),
        (lambda f: f, {**STAGGERED, "never_treated_value": 0}, "holds nulls"),
        (
            lambda f: f,
            {**STAGGERED, "estimator": "event_study", "reference_period": -7},
            "reference period",
        ),
        (
            lambda f: f.assign(t=f["t"] + 0.5),
            {**STAGGERED, "estimator": "event_study"},
            "whole numbers",
        ),
        (lambda f: f.assign(d=1), {"estimator": "twfe", "treatment": "d"}, "one arm only"),
        (
            lambda f: f.assign(region=f["region"].where(f["id"] != 3)),
            {**STAGGERED, "cluster": "region"},
            "region is null",
        ),
        (
            lambda f: f.assign(region=f["region"].where(f["t"] > 3, 9)),
            {**STAGGERED, "cluster": "region"},
            "region must not change within id",
        ),
        (
            lambda f: f.assign(y=f["y"].where(f["first"].isna() | (f["t"] < 4))),
            {"estimator": "two_by_two", "group": "ever", "treatment_period": 4},
            "before and after",
        ),
    ],
)
def test_data_that_cannot_carry_the_design(
    change: Callable[[pd.DataFrame], pd.DataFrame],
    options: dict[str, object],
    says: str,
    panel: pd.DataFrame,
) -> None:
    with pytest.raises(DataError) as caught:
        analyse(change(panel), **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unidentified_treatment_is_named(panel: pd.DataFrame) -> None:
    with pytest.raises(InferenceError, match="treated x post"):
        analyse(panel.assign(zone=panel["first"].fillna(0)), **STAGGERED, period_effects_by="zone")
    with pytest.raises(InferenceError, match="event_time"):
        analyse(panel[panel["first"].notna()], **{**STAGGERED, "estimator": "event_study"})


def test_one_cluster_is_no_inference(panel: pd.DataFrame) -> None:
    with pytest.raises(CausalError, match="two or more clusters"):
        analyse(panel.assign(region=1), **STAGGERED, cluster="region")


def test_notes_say_what_a_reader_must_know(panel: pd.DataFrame) -> None:
    frame = panel.assign(first=panel["first"].mask(panel["id"] % 4 == 0, 1.0))
    result = analyse(frame, **STAGGERED, cluster="region")
    assert check(result, "already_treated").statistic == 10
    assert check(result, "staggered_adoption").statistic == 2
    assert "only 5 clusters" in check(result, "n_clusters").detail
    assert check(result, "n_clusters").passed is None
    none_never = frame[frame["first"].notna()]
    assert check(analyse(none_never, **STAGGERED), "never_treated").statistic == 0


@pytest.mark.parametrize("estimator", ["two_by_two", "twfe", "event_study"])
@pytest.mark.parametrize("weight", [None, "w"])
def test_few_treated_clusters_are_red_however_many_there_are(
    panel: pd.DataFrame, estimator: str, weight: str | None
) -> None:
    """The total looks like enough; by units, by moments by cluster and by a count of keys."""
    more = pd.concat([panel.assign(id=panel["id"] + 40 * k) for k in range(4)], ignore_index=True)
    more["y"] += np.random.default_rng(1).normal(size=len(more))
    more["w"], more["place"] = 1.0, more["id"] % 80
    for treated, passed in ((5, False), (12, None), (40, "absent")):
        first = np.where(more["place"] < treated, 4.0, np.nan)
        frame = more.assign(first=first, ever=(more["place"] < treated).astype(int))
        for timing in (
            {"first_treated_period": "first"},
            {"group": "ever", "treatment_period": 4},
        ):
            options = {"estimator": estimator, "cluster": "place", "weight": weight, **timing}
            found = [
                item
                for item in analyse(frame, **options).diagnostics
                if item.name == "treated_clusters"
            ]
            if passed == "absent":
                assert found == []
                continue
            assert found[0].passed is passed
            assert found[0].statistic == treated
            assert f"treated {treated}, others {80 - treated}" in found[0].detail


def test_units_and_crossed_clusters_have_sides_too(panel: pd.DataFrame) -> None:
    frame = panel.assign(first=panel["first"].where(panel["id"] < 8))
    by_unit = check(analyse(frame, **STAGGERED), "treated_clusters")
    assert (by_unit.statistic, by_unit.passed) == (4, False)
    # Five regions that hold treated and other units each.
    crossed = check(analyse(panel, **STAGGERED, cluster="region"), "treated_clusters")
    assert (crossed.statistic, crossed.passed) == (5, False)


def test_rows_without_an_outcome_are_counted(panel: pd.DataFrame) -> None:
    frame = panel.assign(y=panel["y"].mask(panel.index.isin([3, 9, 100])))
    result = analyse(frame, **STAGGERED)
    assert check(result, "n_missing").statistic == 3
    assert check(result, "n_incomplete").statistic == 3
    assert result.params["n_rows"] == 237


def test_balanced_drops_incomplete_units_and_says_so(panel: pd.DataFrame) -> None:
    frame = panel.assign(first=panel["first"].where(panel["first"] == 4)).drop(index=[0, 6, 7, 40])
    options = {"estimator": "two_by_two", "first_treated_period": "first"}
    result = analyse(frame, **options, balanced=True)
    complete = frame.groupby("id").filter(lambda g: len(g) == 6)
    expected = analyse(complete, **options)
    assert result.effects[0].estimate == pytest.approx(expected.effects[0].estimate, rel=1e-12)
    assert result.effects[0].std_error == pytest.approx(expected.effects[0].std_error, rel=1e-12)
    assert check(result, "n_incomplete").statistic == 3
    assert "left out" in check(result, "n_incomplete").detail
    assert result.effects[0].n_treated + result.effects[0].n_control == 37


def test_the_pre_trend_test_finds_a_trend_and_needs_two_periods(panel: pd.DataFrame) -> None:
    assert check(analyse(panel, **STAGGERED), "pre_trend").passed is True
    trended = panel.assign(y=panel["y"] + panel["ever"] * panel["t"] * 1.5)
    assert check(analyse(trended, **STAGGERED), "pre_trend").passed is False
    short = panel[panel["first"].isna() | (panel["first"] == 4)].query("t >= 3")
    for estimator in ("twfe", "event_study", "two_by_two"):
        item = check(analyse(short, **{**STAGGERED, "estimator": estimator}), "pre_trend")
        assert item.passed is None
        assert "fewer than two periods" in item.detail


@pytest.mark.parametrize("estimator", ["twfe", "event_study", "two_by_two"])
def test_shifts_scales_and_row_order(panel: pd.DataFrame, estimator: str) -> None:
    frame = panel.assign(first=panel["first"].where(panel["first"] == 4))
    options = {**STAGGERED, "estimator": estimator}
    before = frame.copy()
    base = analyse(frame, **options)
    pd.testing.assert_frame_equal(frame, before)
    shifted = analyse(frame.assign(y=frame["y"] + 100.0), **options)
    scaled = analyse(frame.assign(y=frame["y"] * -3.0), **options)
    mixed = analyse(frame.sample(frac=1.0, random_state=1), **options)
    for one, two, three, four in zip(
        base.effects, shifted.effects, scaled.effects, mixed.effects, strict=True
    ):
        assert two.estimate == pytest.approx(one.estimate, rel=1e-10)
        assert two.std_error == pytest.approx(one.std_error, rel=1e-10)
        assert three.estimate == pytest.approx(-3 * one.estimate, rel=1e-12)
        assert three.std_error == pytest.approx(3 * one.std_error, rel=1e-12)
        assert four.estimate == pytest.approx(one.estimate, rel=1e-12)
        assert one.ci_lower < one.estimate < one.ci_upper


def test_swapping_the_groups_flips_the_sign(panel: pd.DataFrame) -> None:
    options = {"estimator": "two_by_two", "group": "ever", "treatment_period": 4}
    one = analyse(panel, **options).effects[0]
    other = analyse(panel.assign(ever=1 - panel["ever"]), **options).effects[0]
    assert other.estimate == pytest.approx(-one.estimate, rel=1e-12)
    assert other.std_error == pytest.approx(one.std_error, rel=1e-12)


@pytest.mark.parametrize("estimator", ["twfe", "event_study", "two_by_two"])
def test_figures_show_every_outcome(panel: pd.DataFrame, estimator: str) -> None:
    frame = panel.assign(first=panel["first"].where(panel["first"] == 4), z=panel["y"] * 2)
    options = {**STAGGERED, "estimator": estimator, "outcome": ["y", "z"]}
    result = analyse(frame, **options)
    found = did.figures(spec_of(**options), result)
    own = set() if estimator == "twfe" else {f"{estimator}_y", f"{estimator}_z"}
    if estimator == "event_study":
        own |= {"pre_trend_power_y", "pre_trend_power_z"}
    assert set(found) == own | {"cohort_paths_y", "cohort_paths_z"}
    for figure in found.values():
        axes = figure.axes[0]
        assert axes.get_ylabel()
        assert axes.get_title(loc="left")
        assert axes.has_data()


def test_the_event_study_figure_draws_each_coefficient(panel: pd.DataFrame) -> None:
    options = {**STAGGERED, "estimator": "event_study", "min_event_time": -3, "max_event_time": 1}
    result = analyse(panel, **options)
    table = result.tables["event_study"]
    assert list(table["event_time"]) == [-3, -2, -1, 0, 1]
    assert table.loc[table["event_time"] == -1, "estimate"].item() == 0.0
    axes = did.figures(spec_of(**options), result)["event_study_y"].axes[0]
    drawn = sorted(
        (float(x), float(y))
        for line in axes.lines
        if line.get_marker() == "o"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    )
    expected = sorted(zip(table["event_time"], table["estimate"], strict=True))
    np.testing.assert_allclose(drawn, expected)
    texts = {text.get_text() for text in axes.texts}
    assert texts == {"and before", "and later"}


def test_one_row_cells_have_no_standard_error_in_the_table() -> None:
    frame = pd.DataFrame(
        {"id": [1, 1, 2, 2, 3, 3], "t": [0, 1] * 3, "ever": [1, 1, 0, 0, 0, 0],
         "y": [1.0, 3.0, 2.0, 2.5, 1.0, 2.0]}
    )  # fmt: skip
    result = analyse(frame, estimator="two_by_two", group="ever", treatment_period=1)
    table = result.tables["cells"].set_index(["group", "phase"])
    assert math.isnan(table.loc[("treated", "after"), "std_error"])
    assert result.effects[0].estimate == pytest.approx(2.0 - 0.75)


def test_weights_that_are_all_zero_are_said_to_be(panel: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="w is 0 in every row"):
        analyse(panel.assign(w=0.0), **STAGGERED, weight="w")
