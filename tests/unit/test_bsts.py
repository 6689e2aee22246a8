"""What the method `bsts` reads, refuses and reports."""

import datetime as dt
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from causal.core import registry
from causal.core.errors import DataError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Result
from causal.core.spec import validate

METHOD = registry.method("bsts")
N, START = 48, 36


def table(*, seed: int = 1, effect: float = 5.0) -> pd.DataFrame:
    """48 weeks of sales that follow the weather and, from week 36 on, a campaign."""
    rng = np.random.default_rng(seed)
    weather, noise = rng.normal(20, 4, N), rng.normal(0, 3, N)
    sales = 100 + 2 * weather + rng.normal(size=N)
    sales[START:] += effect
    days = pd.date_range("2026-01-05", periods=N, freq="7D")
    return pd.DataFrame(
        {"week": np.arange(N), "day": days, "sales": sales, "weather": weather, "noise": noise}
    )


OPTIONS = {
    "period": "week", "outcome": "sales", "covariates": ["weather"], "treatment_period": START,
    "n_draws": 200, "placebo": False,
}  # fmt: skip


def analyse(frame: pd.DataFrame, **options: Any) -> Result:
    data = {
        "name": "campaign", "source": {"table": "t"}, "method": "bsts", "seed": 3,
        "options": {**OPTIONS, **options},
    }  # fmt: skip
    return run(METHOD.estimate(validate(METHOD.SPEC, data)), PandasEngine(frame))


def check(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


@pytest.fixture(scope="module")
def found() -> Result:
    return analyse(table())


def test_rows_follow_from_each_other(found: Result) -> None:
    average, cumulative, relative = found.effects

    assert [(e.term, e.scale) for e in found.effects] == [
        ("average", "absolute"), ("cumulative", "absolute"), ("average", "relative"),
    ]  # fmt: skip
    for name in ("estimate", "std_error", "ci_lower", "ci_upper"):
        assert getattr(cumulative, name) == pytest.approx(12 * getattr(average, name))
    assert relative.estimate == pytest.approx(
        average.estimate / found.params["predicted_mean"], abs=relative.std_error / 4
    )
    assert abs(average.estimate - 5) < 4 * average.std_error
    assert (average.n_treated, average.n_control) == (12, 36)


def test_the_series_table_agrees_with_the_effects(found: Result) -> None:
    series, (average, cumulative, _) = found.tables["series"], found.effects
    after = series[series["is_post"]]
    last = series.iloc[-1]

    assert after["effect"].mean() == pytest.approx(average.estimate)
    assert last["cumulative_effect"] == pytest.approx(cumulative.estimate)
    assert last["cumulative_lower"] == pytest.approx(cumulative.ci_lower)
    assert last["cumulative_upper"] == pytest.approx(cumulative.ci_upper)
    assert (series.loc[~series["is_post"], "cumulative_effect"] == 0).all()
    inside = series["observed"].between(series["predicted_lower"], series["predicted_upper"])
    assert inside[~series["is_post"]].mean() > 0.85


def test_coefficients_are_in_the_units_of_the_data(found: Result) -> None:
    (row,) = found.tables["inclusion"].to_dict("records")

    assert row["inclusion_probability"] == 1.0
    assert row["coefficient"] == pytest.approx(2.0, abs=0.2)
    # The prior guess, a fifth of the variance, is worth 50 periods beside the 36 observed ones.
    variance = table()["sales"][:START].var()
    expected = ((50 * 0.2 * variance + START * 1.0) / (50 + START)) ** 0.5
    assert found.params["residual_sd"] == pytest.approx(expected, rel=0.1)


def test_the_report_says_what_the_effects_say(found: Result) -> None:
    text = " ".join(found.tables["report"]["text"])

    assert f"{found.effects[0].estimate:+.4g}" in text
    assert "does not contain zero: an increase" in text
    assert "did not move the covariate and" in text
    nothing = " ".join(analyse(table(effect=0.0)).tables["report"]["text"])
    assert "The interval contains zero" in nothing


def test_a_dated_table_gives_what_a_numbered_one_gives(found: Result) -> None:
    frame = table()
    for start in ("2026-09-14", dt.date(2026, 9, 14), dt.date(2026, 9, 10)):
        dated = analyse(frame, period="day", treatment_period=start)
        assert dated.effects == found.effects
    texts = frame.assign(day=frame["day"].dt.strftime("%Y-%m-%d"))
    assert analyse(texts, period="day", treatment_period="2026-09-14").effects == found.effects
    assert dated.tables["series"]["period"].iloc[0] == pd.Timestamp("2026-01-05")
    assert "2026-09-14" in dated.tables["report"]["text"].iloc[0]


def test_months_are_evenly_spaced() -> None:
    starts = table().assign(day=pd.date_range("2020-01-01", periods=N, freq="MS"))
    ends = table().assign(day=pd.date_range("2020-01-31", periods=N, freq="ME"))

    assert analyse(starts, period="day", treatment_period="2023-01-01").effects
    assert analyse(ends, period="day", treatment_period="2023-01-31").effects


def test_rows_below_periods_are_aggregated(found: Result) -> None:
    frame = table()
    halves = pd.concat([frame.assign(sales=frame["sales"] + step) for step in (-3.0, 3.0)])

    with pytest.raises(DataError, match=r"more than one row for the same week.*aggregate"):
        analyse(halves)
    mean = analyse(halves, aggregate="mean")
    assert mean.effects[0].estimate == pytest.approx(found.effects[0].estimate)
    total = analyse(halves, aggregate="sum")
    assert total.effects[0].estimate == pytest.approx(2 * found.effects[0].estimate)
    weighted = analyse(frame.assign(w=2.0), aggregate="mean", weight="w")
    assert weighted.effects[0].estimate == pytest.approx(found.effects[0].estimate)


def test_one_outcome_does_not_know_of_the_other(found: Result) -> None:
    both = analyse(
        table().assign(visits=lambda rows: rows["sales"] * 3), outcome=["sales", "visits"]
    )

    assert both.effects[:3] == found.effects
    assert both.effects[3].estimate == pytest.approx(3 * found.effects[0].estimate)
    assert "convergence:visits" in {item.name for item in both.diagnostics}


def test_windows_cut_the_data(found: Result) -> None:
    longer = pd.concat([table().assign(week=lambda rows: rows["week"] - N), table()])
    longer.loc[longer["week"] < -5, "sales"] = np.nan
    cut = analyse(longer, first_period=0, last_period=N - 1)

    assert cut.effects == found.effects


def test_chains_and_seeds() -> None:
    one, again = analyse(table(), n_chains=2), analyse(table(), n_chains=2)

    assert one.effects == again.effects
    assert one.params["n_draws"] == 2 * 180
    data = {"name": "x", "source": {"table": "t"}, "method": "bsts", "options": OPTIONS}
    other = run(METHOD.estimate(validate(METHOD.SPEC, data | {"seed": 4})), PandasEngine(table()))
    assert other.effects[0].estimate != one.effects[0].estimate
    assert other.effects[0].estimate == pytest.approx(
        one.effects[0].estimate, abs=one.effects[0].std_error
    )


def test_p_values_have_one_side_or_two(found: Result) -> None:
    one = analyse(table(), tail="one_sided")

    assert {effect.pvalue for effect in found.effects} == {2 / 181}
    assert {effect.pvalue for effect in one.effects} == {1 / 181}
    assert one.params["tail_probability"] == found.params["tail_probability"] == 1 / 181
    assert one.effects[0].ci_lower == found.effects[0].ci_lower


def test_the_p_value_agrees_with_the_interval() -> None:
    averages = [analyse(table(effect=0.5 * at)).effects[0] for at in range(-8, 9)]
    # An end of the interval lies between two draws of 180: the verdicts may differ by one.
    clear = [average for average in averages if abs(average.pvalue - 0.05) > 2 * 2 / 181]
    significant = [average.pvalue < 0.05 for average in clear]

    assert significant == [average.ci_lower * average.ci_upper > 0 for average in clear]
    assert len(clear) >= 12
    assert 3 <= sum(significant) <= len(clear) - 3
    assert max(average.pvalue for average in averages) <= 1


def test_a_series_without_covariates_is_its_own_past() -> None:
    rng = np.random.default_rng(5)
    frame = table().assign(sales=100 + rng.normal(size=N))
    result = analyse(frame, covariates=[])

    assert abs(result.effects[0].estimate) < 4 * result.effects[0].std_error
    assert result.effects[0].std_error == pytest.approx((1 / 36 + 1 / 12) ** 0.5, rel=0.5)
    assert "inclusion" not in result.tables
    assert "no covariates" in check(result, "covariates_untouched").detail
    assert set(METHOD.figures(validate(METHOD.SPEC, spec_data(covariates=[])), result)) == {
        "impact_sales"
    }


def spec_data(**options: Any) -> dict[str, Any]:
    return {
        "name": "campaign", "source": {"table": "t"}, "method": "bsts",
        "options": {**OPTIONS, **options},
    }  # fmt: skip


def test_seasons_and_trends_are_followed() -> None:
    week = np.arange(N)
    season = np.array([6.0, -2.0, -4.0, 0.0])
    rng = np.random.default_rng(6)
    frame = table()
    frame["sales"] = 50 + season[week % 4] + 0.3 * rng.normal(size=N)
    seasonal = analyse(frame, covariates=[], seasonality={"n_seasons": 4})
    plain = analyse(frame, covariates=[])
    frame["sales"] += 0.5 * week
    trending = analyse(frame, covariates=[], seasonality=[{"n_seasons": 4}], trend="linear")

    assert seasonal.effects[0].std_error < plain.effects[0].std_error / 2
    assert abs(seasonal.effects[0].estimate) < 4 * seasonal.effects[0].std_error
    assert abs(trending.effects[0].estimate) < 4 * trending.effects[0].std_error
    after = seasonal.tables["series"].query("is_post")
    assert np.abs(after["effect"]).max() < 2
    assert list(trending.tables["parameters"]["parameter"]) == [
        "average_effect", "residual_sd", "level_sd", "slope_sd", "seasonal_4_1_sd",
    ]  # fmt: skip


def test_checks_name_what_is_wrong() -> None:
    frame = table()
    walk = np.random.default_rng(7).normal(size=N).cumsum()
    moved = analyse(frame.assign(weather=frame["weather"] + 30 * (frame["week"] >= START)))
    wandering = analyse(frame.assign(sales=frame["sales"] + 10 * walk))

    assert "weather in 100% of the periods" in check(moved, "extrapolation").detail
    assert check(wandering, "autocorrelation").passed is False
    assert check(analyse(frame), "autocorrelation").passed is True


def test_a_pretended_start_finds_nothing_where_there_is_nothing() -> None:
    quiet = check(analyse(table(), placebo=True), "in_time_placebo")
    frame = table()
    frame.loc[frame["week"].between(20, START - 1), "sales"] += 30
    loud = check(analyse(frame, placebo=True, placebo_period=20), "in_time_placebo")

    assert quiet.passed is True
    assert "24" in quiet.detail
    assert loud.passed is False
    assert loud.statistic == pytest.approx(30, abs=5)
    with pytest.raises(DataError, match="placebo_period must leave 3 periods"):
        analyse(table(), placebo=True, placebo_period=START)
    short = analyse(table().query("week >= 33"), placebo=True)
    assert "too few periods" in check(short, "in_time_placebo").detail


def regions(*, seed: int = 8, n_treated: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=N).cumsum()
    values = 50 + rng.uniform(0.7, 1.3, (8, 1)) * common + 0.3 * rng.normal(size=(8, N))
    values[:n_treated, START:] += 3
    return pd.DataFrame(
        {
            "city": np.repeat([f"c{at}" for at in range(8)], N), "week": np.tile(np.arange(N), 8),
            "sales": values.ravel(), "weather": rng.normal(size=8 * N),
        }
    )  # fmt: skip


REGIONS = {"unit": "city", "covariates": []}


def test_a_panel_of_regions_is_a_table_of_their_paths() -> None:
    frame = regions()
    result = analyse(frame, **REGIONS, treated="c0")
    wide = frame.pivot(index="week", columns="city", values="sales").reset_index()
    donors = [f"c{at}" for at in range(1, 8)]
    same = analyse(wide, outcome="c0", covariates=donors)

    assert result.effects[0].estimate == pytest.approx(same.effects[0].estimate, rel=1e-9)
    assert (result.effects[0].n_treated, result.effects[0].n_control) == (1, 7)
    assert abs(result.effects[0].estimate - 3) < 4 * result.effects[0].std_error
    assert set(result.tables["inclusion"]["covariate"]) == set(donors)
    few = analyse(frame, **REGIONS, treated="c0", donors=["c1", "c5"])
    assert set(few.tables["inclusion"]["covariate"]) == {"c1", "c5"}


def test_a_period_that_no_region_has_needs_a_word() -> None:
    frame = regions()[lambda rows: rows["week"] != 9]

    with pytest.raises(DataError, match=r"periods are missing.*week.*8 to 10"):
        analyse(frame, **REGIONS, treated="c0")
    assert analyse(frame, **REGIONS, treated="c0", spacing="ordered").effects


def test_a_constant_donor_is_named_with_what_to_do() -> None:
    frame = regions().assign(sales=lambda rows: rows["sales"].mask(rows["city"] == "c2", 7.0))

    with pytest.raises(DataError, match=r"do not vary.*given: c2; allowed:.*\(excluded\)"):
        analyse(frame, **REGIONS, treated="c0")
    assert analyse(frame, **REGIONS, treated="c0", excluded=["c2"]).effects


def test_several_regions_add_up() -> None:
    result = analyse(regions(n_treated=2), **REGIONS, treated=["c0", "c1"])
    average, cumulative, _ = result.effects

    assert cumulative.estimate == pytest.approx(2 * 12 * average.estimate)
    assert result.tables["series"]["cumulative_effect"].iloc[-1] == pytest.approx(
        cumulative.estimate
    )
    weather = analyse(regions(), unit="city", treated="c0", covariates=["weather"])
    assert "weather" in set(weather.tables["inclusion"]["covariate"])


def test_regions_that_start_apart_are_refused() -> None:
    frame = regions().assign(start=lambda rows: rows["city"].map({"c0": 30.0, "c1": 36.0}))

    with pytest.raises(DataError, match="start at different times"):
        analyse(frame, **REGIONS, treatment_period=None, first_treated_period="start")


DAMAGE = {
    "missing outcome": (
        lambda f: f.assign(sales=f["sales"].mask(f["week"] == 5)), r"missing in .*5",
    ),
    "missing covariate": (
        lambda f: f.assign(weather=f["weather"].mask(f["week"] == 40)), "missing",
    ),
    "missing period": (lambda f: f[f["week"] != 9], r"periods are missing.*8 to 10"),
    "null period": (lambda f: f.assign(week=f["week"].where(f["week"] != 9)), "null"),
    "one period before": (lambda f: f[f["week"] >= START - 1], r"too few periods.*given: 1"),
    "constant covariate": (lambda f: f.assign(weather=1.0), r"do not vary.*weather"),
    "covariate flat before": (
        lambda f: f.assign(weather=f["weather"] * (f["week"] >= START)), "do not vary",
    ),
    "constant outcome": (lambda f: f.assign(sales=4.0), "same value"),
    "no rows": (lambda f: f.head(0), "no rows"),
    "infinite": (
        lambda f: f.assign(sales=f["sales"].mask(f["week"] == 5, np.inf)), "not finite|infinite",
    ),
    "huge": (lambda f: f.assign(sales=f["sales"] * 1e120), "too large"),
    "duplicated": (lambda f: pd.concat([f, f.head(2)]), "more than one row"),
    "all before": (lambda f: f[f["week"] < START], "outside the data"),
    "all after": (lambda f: f[f["week"] >= START], "outside the data"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE.keys())
def test_data_that_cannot_carry_it(damage: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        analyse(damage(table()))

    assert "\n" not in str(caught.value)


def test_too_few_cycles_are_refused() -> None:
    with pytest.raises(DataError, match=r"given: 36; allowed: 40 or more \(two cycles"):
        analyse(table(), seasonality={"n_seasons": 10, "duration": 2})


def test_uneven_labels_need_a_word() -> None:
    quarters = table().assign(week=lambda rows: 20201 + 10 * (rows["week"] // 4) + rows["week"] % 4)

    with pytest.raises(DataError, match=r"20204 to 20211.*spacing: ordered"):
        analyse(quarters, treatment_period=20291)
    assert analyse(quarters, treatment_period=20291, spacing="ordered").effects
    with pytest.raises(DataError, match="both give numbers, or both dates"):
        analyse(table(), treatment_period="2026-01-01")
    with pytest.raises(DataError, match="must hold numbers or dates"):
        analyse(table().assign(week=[f"w{at}" for at in range(N)]))


WRONG = {
    "outcome as covariate": ({"covariates": ["sales"]}, "two roles: sales"),
    "no start": ({"treatment_period": None}, "treatment_period is required"),
    "donors of a table": ({"donors": ["a"]}, "donors needs unit"),
    "treated of a table": ({"treated": "a"}, "treated needs unit"),
    "donor treated": ({"unit": "u", "treated": "a", "donors": ["a"]}, "treated region in the"),
    "ends of two kinds": (
        {"unit": "u", "treated": "a", "treatment_period": 9, "first_period": 3,
         "last_period": dt.date(2026, 1, 1)}, "must both be numbers, or both dates",
    ),
    "two starts": ({"unit": "u", "treated": "a", "first_treated_period": "s"}, "exactly one of"),
    "weight alone": ({"weight": "w"}, "weight needs aggregate"),
    "placebo": ({"placebo_period": 3}, "placebo_period goes with placebo"),
    "prior": ({"priors": {"levl_sd": 0.1}}, "unknown key, did you mean 'level_sd'"),
    "r2": ({"priors": {"expected_r2": 1.0}}, "less than 1"),
    "season": ({"seasonality": {"n_seasons": 1}}, "greater than or equal to 2"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "words"), WRONG.values(), ids=WRONG.keys())
def test_specs_that_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        validate(METHOD.SPEC, spec_data(**options))


def test_the_page_has_a_valid_spec_and_every_option() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "methods" / "bsts.md"
    text = page.read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    spec = validate(METHOD.SPEC, yaml.safe_load(block))

    assert spec.options.treatment_period == dt.date(2026, 3, 2)
    named = [*type(spec.options).model_fields, *type(spec.options.priors).model_fields]
    shared = {"slope_sd", "slope_df", "seasonal_sd", "seasonal_df"}
    assert [name for name in named if name not in text and name not in shared] == []
