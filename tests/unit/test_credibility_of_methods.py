"""The checks of event studies and staggered designs as users meet them."""

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import did, staggered
from causal.quasi.credibility.event_path import EventPath
from causal.quasi.credibility.sensitivity import sensitivity


def a_panel(*, seed: int = 3, effect: float = 2.0, slope: float = 0.0) -> pd.DataFrame:
    """400 units over 9 periods; cohorts start in 4, 6 and 8, their trends part by `slope`."""
    rng = np.random.default_rng(seed)
    n, n_periods = 400, 9
    start = rng.choice([4.0, 6.0, 8.0, np.nan], n, p=[0.25, 0.25, 0.15, 0.35])
    period = np.arange(n_periods)
    y = rng.normal(size=n)[:, None] + 0.3 * period + rng.normal(size=(n, n_periods))
    y += effect * (period >= start[:, None]) + slope * np.where(np.isnan(start), 0, 1)[:, None] * (
        period
    )
    return pd.DataFrame(
        {
            "u": np.repeat(np.arange(n), n_periods), "t": np.tile(period, n), "y": y.ravel(),
            "start": np.repeat(start, n_periods), "city": np.repeat(np.arange(n) % 40, n_periods),
        }
    )  # fmt: skip


def analysed(method: str, frame: pd.DataFrame, **options: object) -> Result:
    module = {"did": did, "staggered": staggered}[method]
    whole = {
        "unit": "u", "period": "t", "outcome": "y", "first_treated_period": "start", **options
    }  # fmt: skip
    spec = validate(
        module.SPEC,
        {"name": "test", "source": {"path": "x.csv"}, "method": method, "options": whole},
    )
    result = run(module.estimate(spec), PandasEngine(frame))
    drawn = module.figures(spec, result)
    for name, figure in drawn.items():
        figure.canvas.draw()
        assert name
    assert ("sensitivity_y" in drawn) == ("sensitivity" in options)
    has_cohorts = options.get("estimator") == "sun_abraham"
    assert ("stability_y" in drawn) == ("stability" in options or has_cohorts)
    return result


def said(result: Result, name: str) -> object:
    return next(item for item in result.diagnostics if item.name == name)


@pytest.fixture(scope="module")
def panel() -> pd.DataFrame:
    return a_panel()


EVENT_STUDIES = [
    ("did", {"estimator": "event_study", "cluster": "city"}),
    ("did", {"estimator": "sun_abraham"}),
    ("staggered", {"base_period": "universal"}),
]


@pytest.mark.parametrize(("method", "options"), EVENT_STUDIES)
@pytest.mark.parametrize("parameter", [0, "average"])
def test_sensitivity_of_each_event_study(
    panel: pd.DataFrame, method: str, options: dict[str, object], parameter: int | str
) -> None:
    asked = {"type": "relative_magnitudes", "values": [0.5, 1.0], "parameter": parameter}
    result = analysed(method, panel, **options, sensitivity=asked)
    table = result.tables["sensitivity"]
    study = result.tables["event_study"]
    study = study[study["std_error"].fillna(0) > 0]
    # Put together again from the tables that are written anyway.
    wide = result.tables["covariance"].pivot(index="row", columns="column", values="covariance")
    if set(study["term"]) <= set(wide.index):
        path = EventPath(
            times=study["event_time"].to_numpy(dtype=float), reference=-1,
            estimates=study["estimate"].to_numpy(),
            covariance=wide.loc[study["term"], study["term"]].to_numpy(),
        )  # fmt: skip
        expected = sensitivity(
            path, path.weights(parameter), restriction="relative_magnitudes", values=[0.5, 1.0]
        )
        ends = [(row.ci_lower, row.ci_upper) for row in (expected.original, *expected.intervals)]
        assert table[["ci_lower", "ci_upper"]].to_numpy() == pytest.approx(np.array(ends))
    assert table["method"].tolist() == ["original", "c_lf", "c_lf"]
    widths = (table["ci_upper"] - table["ci_lower"]).to_numpy()
    assert (np.diff(widths) > 0).all()
    check = said(result, "sensitivity")
    assert check.statistic == pytest.approx(table["breakdown"].iloc[0])
    assert "differs from zero at 95% unless the trends part" in check.detail


def test_smoothness_is_said_in_units_of_the_slope(panel: pd.DataFrame) -> None:
    asked = {"type": "smoothness"}
    result = analysed("staggered", panel, base_period="universal", sensitivity=asked)
    assert len(result.tables["sensitivity"]) == 11
    assert set(result.tables["sensitivity"]["method"]) == {"original", "flci"}
    assert "slope of the difference in trends" in said(result, "sensitivity").detail


def test_an_effect_that_is_not_there() -> None:
    none = a_panel(effect=0.0)
    asked = {"type": "relative_magnitudes"}
    result = analysed("did", none, estimator="event_study", sensitivity=asked)
    assert said(result, "sensitivity").statistic == 0
    assert "does not differ" in said(result, "sensitivity").detail


def test_binned_event_times_are_left_out_and_counted(panel: pd.DataFrame) -> None:
    result = analysed(
        "did", panel, estimator="event_study", min_event_time=-4, max_event_time=3,
        sensitivity={"type": "smoothness", "values": [0.1]},
    )  # fmt: skip
    assert "(2 binned event times are not used)" in said(result, "sensitivity").detail


def test_the_power_of_the_pre_test_is_said_with_every_event_study(panel: pd.DataFrame) -> None:
    for method, options in EVENT_STUDIES:
        result = analysed(method, panel, **options)
        table = result.tables["pre_trend_power"]
        assert set(table["test"]) == {"individual", "joint"}
        slopes = table.groupby(["test", "power"])["slope"].first()
        for test in ("individual", "joint"):
            assert 0 < slopes[test, 0.5] < slopes[test, 0.8]
        assert said(result, "pre_trend_power").statistic == slopes["individual", 0.5]
        line = table["trend"] / table["slope"]
        assert line.to_numpy() == pytest.approx(table["event_time"].to_numpy() + 1.0)


def test_the_power_where_neighbouring_periods_are_compared(panel: pd.DataFrame) -> None:
    table = analysed("staggered", panel).tables["pre_trend_power"]
    line = (table["trend"] / table["slope"]).to_numpy()
    time = table["event_time"].to_numpy()
    assert line == pytest.approx(np.where(time < 0, 1.0, time + 1.0))


@pytest.mark.validation
def test_a_trend_of_the_size_found_is_found_that_often() -> None:
    """The slope for 80 % power, put into the data, makes a lead significant in 80 % of panels."""
    first = analysed("staggered", a_panel(effect=0.0), base_period="universal")
    table = first.tables["pre_trend_power"]
    slope = table[(table["test"] == "individual") & (table["power"] == 0.8)]["slope"].iloc[0]
    found = []
    for seed in range(60):
        result = analysed(
            "staggered", a_panel(seed=100 + seed, effect=0.0, slope=slope),
            base_period="universal", aggregations=["dynamic"],
        )  # fmt: skip
        study = result.tables["event_study"]
        leads = study[(study["event_time"] < -1) & study["std_error"].notna()]
        found.append((leads["estimate"].abs() > 1.96 * leads["std_error"]).any())
    assert 0.8 - 3.5 * np.sqrt(0.16 / 60) < np.mean(found) < 0.8 + 3.5 * np.sqrt(0.16 / 60)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("did", {"estimator": "twfe"}, "sensitivity goes with event_study or sun_abraham"),
        (
            "did", {"estimator": "event_study", "reference_period": -2},
            "sensitivity needs the reference_period -1",
        ),
        ("staggered", {}, "sensitivity needs base_period: universal"),
    ],
)  # fmt: skip
def test_what_goes_with_sensitivity(
    panel: pd.DataFrame, method: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        analysed(method, panel, **options, sensitivity={"type": "smoothness"})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"type": "relative_magnitudes", "method": "flci"}, "method of relative_magnitudes"),
        ({"type": "smoothness", "values": [-1]}, "greater than or equal to 0"),
        ({"type": "smoothness", "values": []}, "at least 1 item"),
        ({"type": "convexity"}, "relative_magnitudes"),
    ],
)
def test_options_of_sensitivity(
    panel: pd.DataFrame, asked: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        analysed("staggered", panel, base_period="universal", sensitivity=asked)


def test_a_parameter_that_is_no_event_time(panel: pd.DataFrame) -> None:
    asked = {"type": "smoothness", "parameter": 9}
    with pytest.raises(SpecError, match="event time after the reference"):
        analysed("staggered", panel, base_period="universal", sensitivity=asked)


# ------------------------------------------------------------------ placebos and variants


def test_leaving_a_cohort_out_is_the_analysis_without_its_units(panel: pd.DataFrame) -> None:
    for group in ("never_treated", "not_yet_treated"):
        options = {"control_group": group, "cluster": "city", "aggregations": ["simple"]}
        result = analysed(
            "staggered", panel, **options, stability={"checks": ["leave_one_cohort_out"]}
        )
        table = result.tables["stability"].set_index("variant")
        whole = next(e for e in result.effects if e.term == "simple")
        assert table.loc["as analysed", "estimate"] == pytest.approx(whole.estimate, rel=1e-12)
        assert table.loc["as analysed", "std_error"] == pytest.approx(whole.std_error, rel=1e-12)
        for start in (4, 6, 8):
            without = analysed("staggered", panel[panel["start"] != start], **options)
            expected = next(e for e in without.effects if e.term == "simple")
            row = table.loc[f"without the cohort of {start}"]
            assert row["estimate"] == pytest.approx(expected.estimate, rel=1e-10)
            assert row["std_error"] == pytest.approx(expected.std_error, rel=1e-10)
            assert row["difference"] == pytest.approx(expected.estimate - whole.estimate)


def test_the_other_comparison_group(panel: pd.DataFrame) -> None:
    result = analysed("staggered", panel, stability={"checks": ["control_group"]})
    row = result.tables["stability"].iloc[1]
    other = analysed("staggered", panel, control_group="not_yet_treated")
    expected = next(e for e in other.effects if e.term == "simple")
    assert row["variant"] == "not_yet_treated"
    assert row["estimate"] == pytest.approx(expected.estimate, rel=1e-12)
    assert row["std_error"] == pytest.approx(expected.std_error, rel=1e-12)
    assert said(result, "control_group").passed


def test_a_placebo_in_time_is_the_analysis_of_earlier_starts(panel: pd.DataFrame) -> None:
    """Shift the starts two periods, drop what lies after the true ones, and analyse that."""
    result = analysed(
        "staggered", panel, stability={"checks": ["placebo_time"], "placebo_periods": 2}
    )
    row = result.tables["stability"].iloc[1]
    estimates, sizes = [], []
    for start in (4, 6, 8):
        kept = panel[panel["start"].isna() | (panel["start"] == start)]
        kept = kept[kept["t"] < start].assign(start=kept["start"] - 2)
        expected = next(e for e in analysed("staggered", kept).effects if e.term == "simple")
        estimates.append(expected.estimate)
        sizes.append(expected.n_treated)
    assert row["estimate"] == pytest.approx(np.average(estimates, weights=sizes), rel=1e-10)
    assert row["is_placebo"]
    check = said(result, "placebo_time")
    assert check.pvalue == pytest.approx(row["pvalue"])
    assert check.passed == (row["pvalue"] >= 0.05)


def test_later_cohorts_as_placebos(panel: pd.DataFrame) -> None:
    result = analysed("staggered", panel, stability={"checks": ["placebo_cohorts"]})
    table = result.tables["stability"].set_index("variant")
    # Only the cohort of 8 is later than that of 6, and untreated in 6 and 7.
    kept = panel[panel["start"].isna() | (panel["start"] == 8)]
    kept = kept[kept["t"] < 8].assign(start=kept["start"] - 2)
    expected = next(e for e in analysed("staggered", kept).effects if e.term == "simple")
    row = table.loc["later cohorts from 6 on"]
    assert row["estimate"] == pytest.approx(expected.estimate, rel=1e-10)
    assert row["std_error"] == pytest.approx(expected.std_error, rel=1e-10)
    assert said(result, "placebo_cohorts").passed
    worst = result.tables["stability"]["pvalue"].iloc[1:].min()
    assert said(result, "placebo_cohorts").pvalue == pytest.approx(min(1.0, 2 * worst))


@pytest.mark.validation
def test_placebos_of_parallel_trends_fail_as_often_as_stated() -> None:
    names = ("placebo_time", "control_group", "placebo_cohorts")
    failed = []
    for seed in range(600):
        frame = a_panel(seed=1_000 + seed)
        result = analysed("staggered", frame, aggregations=["simple"], stability={})
        failed.append([said(result, name).passed is False for name in names])
    rates = np.mean(failed, axis=0)
    margin = 4 * np.sqrt(0.05 * 0.95 / 600)
    assert rates[:2] == pytest.approx([0.05, 0.05], abs=margin)
    assert rates[2] < 0.05 + margin  # Bonferroni


def test_placebos_see_trends_that_part() -> None:
    result = analysed("staggered", a_panel(slope=0.4), stability={})
    assert said(result, "placebo_time").passed is False
    assert said(result, "placebo_cohorts").passed is False


def test_checks_that_a_design_does_not_allow(panel: pd.DataFrame) -> None:
    one = panel[panel["start"].isna() | (panel["start"] == 4)]
    result = analysed("staggered", one, stability={"placebo_periods": 5})
    for name, why in (
        ("leave_one_cohort_out", "one cohort"),
        ("placebo_time", "so many periods"),
        ("placebo_cohorts", "untreated when an earlier one starts"),
    ):
        assert said(result, name).passed is None
        assert why in said(result, name).detail
    with pytest.raises(SpecError, match="stability takes neither covariates"):
        analysed("staggered", panel, covariates=["city"], stability={})
