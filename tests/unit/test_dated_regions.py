"""Panels of regions whose periods are dates give what numbered ones give, and show dates."""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter, date2num
from pandas.api.types import is_datetime64_any_dtype

from causal.core import registry
from causal.core.errors import CausalError, DataError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.fits import fits_figures, fits_readout, fits_spec, fitting
from causal.fits.fits_spec import FitsSpec
from causal.fits.grid import grid
from causal.quasi.geo import geo_design

N_CITIES, N_PERIODS = 14, 24
STARTS = {"c00": 14, "c01": 17}
At = Callable[[int], Any]
Options = Mapping[str, Any]

CALENDARS: dict[str, At] = {
    "days": lambda at: dt.date(2025, 2, 20) + dt.timedelta(days=at),
    "weeks as CSV gives them": lambda at: str(dt.date(2025, 1, 6) + dt.timedelta(days=7 * at)),
    "months": lambda at: pd.Timestamp(2024 + at // 12, 1 + at % 12, 1),
    "ends of months": lambda at: (
        pd.Timestamp(2024 + at // 12, 1 + at % 12, 1) + pd.offsets.MonthEnd()
    ),
    "hours": lambda at: pd.Timestamp("2025-03-29 15:00") + pd.Timedelta(hours=at),
}


def as_numbers(at: int) -> int:
    return at


def given(period: Any) -> Any:
    """As a spec holds it: a date of YAML, or text with a time where a day has several periods."""
    return str(period) if isinstance(period, pd.Timestamp) else period


def cities(at: At = as_numbers) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    paths = 40 + rng.dirichlet(np.ones(3), N_CITIES) @ rng.normal(size=(3, N_PERIODS)).cumsum(1)
    period = np.tile(np.arange(N_PERIODS), N_CITIES)
    frame = pd.DataFrame(
        {
            "city": np.repeat([f"c{i:02d}" for i in range(N_CITIES)], N_PERIODS),
            "period": [at(int(number)) for number in period],
            "sales": paths.ravel() + 0.4 * rng.normal(size=paths.size),
            "rain": rng.normal(size=paths.size),
        }
    )
    frame["begun"] = frame["city"].map({name: at(start) for name, start in STARTS.items()})
    frame.loc[(frame["city"] == "c00") & (period >= 14), "sales"] += 3.0
    return frame


def analyse(method: str, frame: pd.DataFrame, **options: Any) -> Result:
    module = registry.method(method)
    columns = {"unit": "city", "period": "period", "outcome": "sales"}
    data = {
        "name": "case", "source": {"table": "t"}, "method": method, "options": columns | options,
    }  # fmt: skip
    return run(module.estimate(validate(module.SPEC, data)), PandasEngine(frame))


def one(at: At, **options: Any) -> Options:
    return {"treated": "c00", "treatment_period": given(at(14)), **options}


def apart(at: At, **options: Any) -> Options:
    return {"treated": {name: given(at(start)) for name, start in STARTS.items()}, **options}


CASES: dict[str, tuple[str, Callable[[At], Options]]] = {
    "control": (
        "synthetic_control", lambda at: one(at, conformal=True, placebo_period=given(at(9))),
    ),
    "control in windows": (
        "synthetic_control",
        lambda at: one(
            at, first_period=given(at(1)), last_period=given(at(21)),
            match_window=[given(at(2)), given(at(11))],
        ),
    ),
    "control with predictors": (
        "synthetic_control",
        lambda at: one(
            at, predictors=["rain"], predictor_window=[given(at(3)), given(at(9))],
            special_predictors=[
                {"column": "sales", "periods": [given(at(4)), given(at(12))]},
                {"column": "sales", "first_period": given(at(6)), "last_period": given(at(8))},
            ],
            importance="equal", placebo_period=given(at(10)),
        ),
    ),
    "control cross-validated": (
        "synthetic_control",
        lambda at: one(
            at, predictors=["rain", "sales"], importance="cross_validated",
            validation_start=given(at(8)),
        ),
    ),
    "control, starts apart": ("synthetic_control", apart),
    "control, starts of a column": (
        "synthetic_control", lambda _: {"first_treated_period": "begun"},
    ),
    "did": ("synthetic_did", one),
    "did, starts apart": ("synthetic_did", lambda at: apart(at, covariates=["rain"])),
    "did, starts of a column": (
        "synthetic_did",
        lambda _: {"first_treated_period": "begun", "standard_errors": "bootstrap"},
    ),
    "bsts": ("bsts", lambda at: one(at, n_draws=100, placebo_period=given(at(10)))),
}  # fmt: skip


def check_same(numbered: Result, dated: Result, at: At) -> None:
    """Equal to the last digit; where one table has numbers of periods the other has the dates."""
    assert dated.effects == numbered.effects
    numbers = [(item.name, item.statistic, item.pvalue, item.passed) for item in dated.diagnostics]
    assert numbers == [
        (item.name, item.statistic, item.pvalue, item.passed) for item in numbered.diagnostics
    ]
    assert list(dated.params.values()) == list(numbered.params.values())
    assert dated.tables.keys() == numbered.tables.keys()
    for name, table in numbered.tables.items():
        mine = dated.tables[name]
        for column in {"period", "start"} & set(table.columns):
            assert is_datetime64_any_dtype(mine[column]), (name, column)
            expected = [pd.Timestamp(at(int(number))) for number in table[column]]
            assert mine[column].tolist() == expected, (name, column)
        plain = [c for c in table.columns if c not in {"period", "start", "predictor", "text"}]
        pd.testing.assert_frame_equal(mine[plain], table[plain], check_exact=True)


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("case", CASES)
def test_dates_give_what_numbers_give(case: str, calendar: str) -> None:
    (method, options), at = CASES[case], CALENDARS[calendar]
    numbered = analyse(method, cities(), **options(as_numbers))
    frame = cities(at).sample(frac=1.0, random_state=3)

    check_same(numbered, analyse(method, frame, **options(at)), at)


def test_a_start_between_periods_is_the_next_one_and_fails_a_check() -> None:
    at = CALENDARS["weeks as CSV gives them"]
    expected = analyse("synthetic_did", cities(at), treated="c00", treatment_period=at(14))
    day_before = dt.date.fromisoformat(at(14)) - dt.timedelta(days=3)

    found = analyse("synthetic_did", cities(at), treated="c00", treatment_period=day_before)
    checks = {item.name: item for item in found.diagnostics}

    assert found.effects == expected.effects
    assert "start_between_periods" not in {item.name for item in expected.diagnostics}
    assert checks["start_between_periods"].passed is False
    assert f"c00: {day_before} counts as {at(14)}" in checks["start_between_periods"].detail


def test_a_column_of_timestamps_goes_with_periods_of_dates() -> None:
    at = CALENDARS["days"]
    frame = cities(at)
    never = frame.assign(begun=pd.to_datetime(frame["begun"]))
    far = frame.assign(begun=frame["begun"].where(frame["begun"].notna(), dt.date(9999, 12, 31)))
    expected = analyse("synthetic_did", frame, first_treated_period="begun")

    for begun in (never, far):
        found = analyse("synthetic_did", begun, first_treated_period="begun")
        assert found.effects == expected.effects


def test_regions_treated_before_the_data_begin_are_left_out() -> None:
    at = CALENDARS["months"]
    frame = cities(at)
    begun = frame["begun"].mask(frame["city"] == "c05", pd.Timestamp("2019-01-01"))
    found = analyse("synthetic_control", frame.assign(begun=begun), first_treated_period="begun")

    assert found.effects[0].n_control == N_CITIES - 3
    assert "already_treated" in {item.name for item in found.diagnostics}


@pytest.mark.parametrize("case", ["control", "control, starts apart", "did, starts apart", "bsts"])
def test_figures_have_an_axis_of_dates(case: str) -> None:
    (method, options), at = CASES[case], CALENDARS["months"]
    module = registry.method(method)
    columns = {"unit": "city", "period": "period", "outcome": "sales"}
    spec = validate(
        module.SPEC,
        {
            "name": "case", "source": {"table": "t"}, "method": method,
            "options": columns | options(at),
        },
    )  # fmt: skip
    result = run(module.estimate(spec), PandasEngine(cities(at)))
    figures = module.figures(spec, result)
    drawn = next(
        name for name in figures if name.split("_")[0] in {"paths", "comparison", "impact"}
    )
    axes = figures[drawn].axes[-1]
    figures[drawn].canvas.draw()

    if case == "control, starts apart":
        assert axes.get_xlabel() == "periods since the start"
        return
    assert isinstance(axes.xaxis.get_major_formatter(), ConciseDateFormatter)
    last_start = max(STARTS.values()) if method == "synthetic_did" else 14
    before, after = axis_of(at(last_start - 1)), axis_of(at(last_start))
    assert axes.get_xlim()[0] > axis_of(at(0)) - 60
    assert before < marked_start(axes) < after


def axis_of(period: Any) -> float:
    """Where a date lies on an axis."""
    return float(date2num(pd.Timestamp(period).to_datetime64()))  # type: ignore[no-untyped-call]


def marked_start(axes: Axes) -> float:
    """Where the vertical line is."""
    lines = [np.asarray(line.get_xdata(orig=False), dtype=float) for line in axes.lines]
    (found,) = [x[0] for x in lines if len(x) == 2 and x[0] == x[1]]
    return float(found)


def test_weights_by_start_are_labelled_with_dates() -> None:
    at = CALENDARS["days"]
    module = registry.method("synthetic_did")
    result = analyse("synthetic_did", cities(at), **apart(at))
    data = {
        "name": "case", "source": {"table": "t"}, "method": "synthetic_did",
        "options": {"unit": "city", "period": "period", "outcome": "sales", **apart(at)},
    }  # fmt: skip
    (axes,) = module.figures(validate(module.SPEC, data), result)["unit_weights_sales"].axes

    assert [text.get_text() for text in axes.get_legend().get_texts()] == [  # type: ignore[union-attr]
        "2025-03-06", "2025-03-09",
    ]  # fmt: skip
    assert {"zeta_2025-03-06", "effect_2025-03-09"} <= result.params.keys()


def test_checks_and_predictors_name_dates() -> None:
    at = CALENDARS["months"]
    result = analyse("synthetic_control", cities(at), **CASES["control with predictors"][1](at))
    (placebo,) = [item for item in result.diagnostics if item.name == "in_time_placebo"]

    assert "pretending a start in 2024-11-01 gives" in placebo.detail
    assert result.tables["predictors"]["predictor"].tolist() == [
        "rain", "sales 2024-05-01, 2025-01-01", "sales 2024-07-01 to 2024-09-01",
    ]  # fmt: skip


METHODS = ("synthetic_control", "synthetic_did", "bsts")
DAYS = CALENDARS["days"]
REFUSED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], Options, str]] = {
    "outside": (
        lambda f: f, {"treatment_period": dt.date(2024, 12, 31)},
        r"outside the data; given: 2024-12-31; allowed: after 2025-02-20, up to 2025-03-15",
    ),
    "too early": (
        lambda f: f, {"treatment_period": dt.date(2025, 2, 21)},
        "given: 1 before period 2025-02-21",
    ),
    "a hole": (
        lambda f: f[f["period"] != DAYS(5)], {},
        "periods are missing.*in period; given: 1 holes, such as 2025-02-24 to 2025-02-26",
    ),
    "a hole of one": (
        lambda f: f[(f["period"] != DAYS(5)) | (f["city"] != "c07")], {},
        "lack a value in some period; given: 1 cells, such as c07/2025-02-25",
    ),
    "a number in the spec": (
        lambda f: f, {"treatment_period": 14},
        "options.treatment_period: the spec .* both dates; given: 14 in the spec, 2025-02-20 in",
    ),
    "a number as end": (lambda f: f, {"last_period": 20}, "options.last_period: .* both dates"),
    "numbers in the data": (
        lambda _: cities(), {}, "options.treatment_period: .*given: 2025-03-06 in the spec, 0 in",
    ),
    "not of ISO": (
        lambda f: f.assign(period=[f"{day:%d/%m/%Y}" for day in f["period"]]), {},
        "period must hold numbers or dates; given: ../../2025; allowed: 2026-11-21, or 37",
    ),
    "no day of the calendar": (
        lambda f: f.assign(period=f["period"].astype(str).replace("2025-02-28", "2025-02-29")), {},
        "must hold numbers or dates; given: 2025-02-29",
    ),
    "numbers and dates": (
        lambda f: f.assign(period=f["period"].astype(str).where(f.index != 3, 3)), {},
        "period must hold numbers, or dates, not both",
    ),
    "two writings": (
        lambda f: f.assign(
            period=f["period"].astype(str) + f["city"].map({"c04": " 00:00:00"}).fillna("")
        ),
        {}, "period writes one period in two ways; given: 2025-02-20, 2025-02-20 00:00:00",
    ),
    "a null": (lambda f: f.assign(period=f["period"].where(f["period"] != DAYS(5))), {}, "is null"),
    "twice": (lambda f: pd.concat([f, f.head(1)]), {}, "same city and period.*c00/2025-02-20"),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("damage", "options", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_data_that_are_refused(
    method: str,
    damage: Callable[[pd.DataFrame], pd.DataFrame],
    options: Options,
    words: str,
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        analyse(method, damage(cities(DAYS)), **{**one(DAYS), **options})

    assert "\n" not in str(caught.value)


STARTING = {
    "numbers beside dates": (
        lambda f: f.assign(begun=f["city"].map(STARTS)),
        "begun and period must both hold numbers, or both dates; given: 14 and 2025-02-20",
    ),
    "changing": (
        lambda f: f.assign(begun=f["period"]), "begun must not change within city; given: c00",
    ),
    "sometimes null": (
        lambda f: f.assign(begun=f["begun"].where(f["period"] > DAYS(3))), "begun must not change",
    ),
    "text": (lambda f: f.assign(begun="soon"), "begun must hold numbers or dates; given: soon"),
    "never": (lambda f: f.assign(begun=dt.date(2030, 1, 1)), "no region starts the treatment"),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("damage", "words"), STARTING.values(), ids=STARTING.keys())
def test_starts_that_are_refused(
    method: str, damage: Callable[[pd.DataFrame], pd.DataFrame], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        analyse(method, damage(cities(DAYS)), first_treated_period="begun")


PREDICTED = {"predictors": ["rain"], "importance": "equal"}


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"match_window": [2, 9]}, "match_window"),
        ({"placebo_period": 9}, "placebo_period"),
        ({**PREDICTED, "predictor_window": [2, 9]}, "predictor_window"),
        ({"special_predictors": [{"column": "rain", "periods": [3]}]}, "special_predictors"),
        (
            {"special_predictors": [{"column": "rain", "first_period": 2, "last_period": 9}]},
            "special_predictors",
        ),
        (
            {**PREDICTED, "importance": "cross_validated", "validation_start": 8},
            "validation_start",
        ),
        ({"treated": {"c00": 14}}, "treated"),
    ],
)
def test_numbers_in_the_spec_are_refused_with_their_key(options: Options, key: str) -> None:
    start = {} if "treated" in options else one(DAYS)

    with pytest.raises(DataError, match=f"options.{key}: the spec and the data must both give"):
        analyse("synthetic_control", cities(DAYS), **{**start, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"first_period": 3, "last_period": "2025-03-01"}, "3 and 2025-03-01 must both be numbers"),
        (
            {"first_period": "2025-03-01", "last_period": "2025-02-01"},
            "first_period 2025-03-01 lies after last_period 2025-02-01",
        ),
        ({"match_window": ["2025-03-01", "2025-02-21"]}, "ends before it begins"),
        ({"match_window": [3, "2025-02-21"]}, "must both be numbers"),
        (
            {
                "special_predictors": [
                    {"column": "rain", "first_period": "2025-03-01", "last_period": "2025-02-01"}
                ]
            },
            "first_period 2025-03-01 lies after last_period 2025-02-01",
        ),
        ({"treatment_period": "soon"}, "treatment_period"),
    ],
)
def test_specs_that_are_refused(options: Options, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        analyse("synthetic_control", cities(DAYS), **{**one(DAYS), **options})

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"match_window": ["2025-03-01", "2025-03-09"]},
            "given: 2025-03-01 to 2025-03-09, 9 periods; allowed: 2025-02-20 to 2025-03-05",
        ),
        (
            {"placebo_period": "2025-03-10"},
            "placebo_period must .*given: 2025-03-10; allowed: 2025-02-22 to 2025-03-05",
        ),
        (
            {"predictors": ["rain"], "predictor_window": ["2025-03-04", "2025-03-07"]},
            "from the start .* on; given: 2025-03-06, 2025-03-07; allowed: before 2025-03-06",
        ),
        (
            {
                "predictors": ["rain"], "importance": "cross_validated",
                "validation_start": "2025-03-08",
            },
            "given: 2025-03-08; allowed: after 2025-02-20, before 2025-03-06",
        ),
    ],
)  # fmt: skip
def test_windows_that_do_not_fit_are_told_in_dates(options: Options, words: str) -> None:
    with pytest.raises(DataError, match=words):
        analyse("synthetic_control", cities(DAYS), **one(DAYS, **options))


def fits_of(treated: Any, **options: Any) -> FitsSpec:
    spec = validate(
        FitsSpec,
        {
            "name": "regions", "source": {"path": "panel.csv"}, "method": "synthetic_did",
            "options": {"unit": "city", "period": "period", "n_replications": 50, **options},
            "fits": {"over": {"treated": treated, "outcomes": ["sales"], "placebos": True}},
        },
    )  # fmt: skip
    fits_spec.check(spec)
    return spec


def fitted(spec: FitsSpec, frame: pd.DataFrame) -> Result:
    found = run(grid(spec), PandasEngine(frame))
    made = [
        fitting.decoded(item.fit, fitting.encoded(item))
        for task in fitting.tasks(spec, found)
        for item in fitting.fit_each(spec, task, grid=found, rows=frame)
    ]
    return fits_readout.readout(spec, made, grid=found)


@pytest.mark.parametrize("how", ["column", "mapping", "list"])
def test_fits_of_dates_are_those_of_numbers(how: str) -> None:
    at = CALENDARS["months"]

    def spec_of(at: At) -> FitsSpec:
        if how == "list":
            return fits_of(["c00", "c01"], treatment_period=given(at(14)))
        return fits_of("begun" if how == "column" else apart(at)["treated"])

    numbered, dated = fitted(spec_of(as_numbers), cities()), fitted(spec_of(at), cities(at))
    table, other = dated.tables["fits"], numbered.tables["fits"]

    assert dated.effects == numbered.effects
    assert table["start"].tolist() == [at(int(number)) for number in other["start"]]
    plain = [name for name in table.columns if name not in {"start", "seconds"}]
    pd.testing.assert_frame_equal(table[plain], other[plain], check_exact=True)
    first = run(grid(spec_of(at)), PandasEngine(cities(at))).fits[0]
    assert first.label == "sales in c00 from 2025-03-01"
    figure = fits_figures.figures(spec_of(at), dated)["effects_sales"]
    names = {text.get_text() for text in figure.axes[0].get_yticklabels()}
    assert "c00 (from 2025-03-01)" in names


def test_fits_that_mix_numbers_and_dates_say_so() -> None:
    found = fitted(fits_of(["c00"], treatment_period=14), cities(DAYS))
    (reason,) = set(found.tables["fits"]["reason"])

    assert "options.treatment_period: the spec and the data must both give numbers" in reason
    with pytest.raises(CausalError, match=r"treatment_period must be a number or a date"):
        fits_of(["c00"], treatment_period="soon")


def test_a_plan_on_dates_is_the_one_on_numbers() -> None:
    def plan(at: At, estimator: str) -> Result:
        options = {
            "unit": "city", "period": "period", "outcome": "sales", "sizes": [2],
            "durations": [3], "selection": ["random"], "n_draws": 4, "n_finalists": 2,
            "n_replications": 50, "estimator": estimator, "n_windows": 3,
            "first_period": given(at(1)),
        }  # fmt: skip
        data = {
            "name": "plan", "source": {"table": "t"}, "method": "geo_design", "options": options,
        }  # fmt: skip
        return run(geo_design.estimate(validate(geo_design.SPEC, data)), PandasEngine(cities(at)))

    for calendar, estimator in (("days", "did"), ("months", "synthetic_control")):
        at = CALENDARS[calendar]
        dated = plan(at, estimator)
        check_same(plan(as_numbers, estimator), dated, at)
        assert is_datetime64_any_dtype(dated.tables["trials"]["start"])
        axes = geo_design.figures(dated)["chosen_regions"].axes[0]
        assert isinstance(axes.xaxis.get_major_formatter(), ConciseDateFormatter)


def test_a_switchback_has_no_dates() -> None:
    module = registry.method("switchback")
    options = {
        "unit": "city", "period": "period", "outcome": "sales", "treatment": "rain",
        "block_length": 4, "season": 24,
    }  # fmt: skip
    data = {"name": "x", "source": {"table": "t"}, "method": "switchback", "options": options}

    with pytest.raises(DataError, match="period must hold numbers; given: 2025-02-20"):
        run(module.estimate(validate(module.SPEC, data)), PandasEngine(cities(DAYS)))
    with pytest.raises(SpecError, match=r"first_period.*valid number"):
        validate(module.SPEC, {**data, "options": {**options, "first_period": "2025-03-01"}})


def test_a_window_that_ends_on_a_day_holds_all_its_hours() -> None:
    at, day = CALENDARS["hours"], dt.date(2025, 3, 29)  # the first nine periods
    dated = one(at, match_window=[day, day], predictors=["rain"], predictor_window=[day, day])
    numbered = one(as_numbers, match_window=[0, 8], predictors=["rain"], predictor_window=[0, 8])

    found = analyse("synthetic_control", cities(at), **dated)

    assert found.effects == analyse("synthetic_control", cities(), **numbered).effects
