"""What the two methods for regions refuse, and what they say about doubtful data."""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal.core import registry
from causal.core.errors import CausalError, DataError, InferenceError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Effect, Result
from causal.core.spec import validate
from causal.quasi.synthetic.control_options import SyntheticControlSpec
from causal.quasi.synthetic.control_rules import refit_rule
from causal.quasi.synthetic.control_study import study
from causal.quasi.synthetic.predictor_table import observe_predictors
from causal.quasi.synthetic.region_panel import observe

OPTIONS = {
    "unit": "city", "period": "week", "outcome": "trips", "treated": "c00", "treatment_period": 12,
}  # fmt: skip
METHODS = ("synthetic_control", "synthetic_did")
STAGGERED = {"treated": {"c00": 12, "c01": 15}, "treatment_period": None}


def cities(*, n: int = 22, n_periods: int = 18, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(2, n_periods)).cumsum(axis=1)
    loads = rng.uniform(0.5, 1.5, size=(n, 2))
    loads[:3] = 1.0
    trips = 40 + loads @ factors + rng.normal(size=(n, n_periods))
    trips[0, 12:] += 5.0
    return pd.DataFrame(
        {
            "city": [f"c{i:02d}" for i in np.repeat(np.arange(n), n_periods)],
            "week": np.tile(np.arange(n_periods), n), "trips": trips.ravel(),
            "rain": rng.normal(size=n * n_periods), "income": np.repeat(loads[:, 0], n_periods),
        }
    )  # fmt: skip


def analyse(method: str, frame: pd.DataFrame, **options: object) -> Result:
    module = registry.method(method)
    chosen = {name: v for name, v in {**OPTIONS, **options}.items() if v is not None}
    data = {"name": "case", "source": {"table": "t"}, "method": method, "options": chosen}
    return run(module.estimate(validate(module.SPEC, data)), PandasEngine(frame))


def average(result: Result) -> Effect:
    return next(e for e in result.effects if e.term == "average" and e.scale == "absolute")


def check(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"donors": ["c00", "c01"]}, "treated region in the donor pool: c00"),
        ({"excluded": ["c00"]}, "treated region among the excluded"),
        ({"donors": ["c01"], "excluded": ["c01"]}, "donor among the excluded"),
        ({"treatment_period": None}, "treatment_period goes with treated"),
        ({"first_treated_period": "start"}, "exactly one of"),
        ({"treated": {"c00": 12}}, "treatment_period goes with treated"),
        ({"treated": ["c00", "c00"]}, "twice"),
        ({"weight": "n"}, "weight needs aggregate"),
        ({"first_period": 9, "last_period": 4}, "first_period 9 lies after last_period 4"),
        ({"outcome": "city"}, "two roles"),
        ({"allow_negative_weights": True}, "unknown key"),
    ],
)
def test_specs_that_cannot_be_meant(method: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        analyse(method, cities(), **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"variant": "demeaned", "predictors": ["income"]}, "predictors go with variant standard"),
        ({"importance": "equal"}, "needs predictors"),
        ({"conformal": True, "predictors": ["income"]}, "conformal"),
        ({"validation_start": 6}, "cross_validated"),
        ({"match_window": [8, 3]}, "ends before it begins"),
        ({"special_predictors": [{"column": "income"}]}, "give either periods"),
        ({"predictors": ["income", "rain", "income"]}, "predictors listed twice: income"),
        (
            {"special_predictors": [{"column": "rain", "periods": [3]}] * 2},
            "same special predictor is listed twice",
        ),
        (
            {"special_predictors": [{"column": "rain", "first_period": 5, "last_period": 2}]},
            "first_period 5 lies after last_period 2",
        ),
    ],
)
def test_options_of_synthetic_control_that_do_not_go_together(
    options: dict[str, object], says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        analyse("synthetic_control", cities(), **options)


def holes(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[~((frame["city"] == "c05") & (frame["week"] == 3))]


def hollow(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(trips=frame["trips"].mask((frame["city"] == "c05") & (frame["week"] == 3)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("damage", "options", "says"),
    [
        (holes, {}, r"lack a value in some week.*1 cells, such as c05/3"),
        (hollow, {}, r"lack a value in some week.*1 cells, such as c05/3"),
        (None, {"treated": "c99"}, "no such treated region.*c99"),
        (None, {"donors": ["c02", "c98"]}, "no such donor region.*c98"),
        (None, {"treatment_period": 40}, "starts outside the data.*given: 40"),
        (None, {"treatment_period": -3}, "starts outside the data"),
        (None, {"treatment_period": 1}, "too few periods before its treatment.*given: 1 before"),
        (None, {"treated": [f"c{i:02d}" for i in range(22)]}, "no donor"),
        (lambda f: pd.concat([f, f.head(2)]), {}, "more than one row for the same city and week"),
        (lambda f: f.assign(week=f["week"].astype(str)), {}, "week must hold numbers"),
    ],
)
def test_data_that_cannot_carry_the_analysis(
    method: str,
    damage: Callable[[pd.DataFrame], pd.DataFrame] | None,
    options: dict[str, object],
    says: str,
) -> None:
    frame = cities() if damage is None else damage(cities())

    with pytest.raises(DataError, match=says) as caught:
        analyse(method, frame, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_donor_with_a_hole_can_be_left_out_and_is_counted(method: str) -> None:
    result = analyse(method, holes(cities()), incomplete="drop")

    assert check(result, "n_dropped_donors").statistic == 1
    assert "c05" in check(result, "n_dropped_donors").detail
    assert average(result).n_control == 20


@pytest.mark.parametrize("method", METHODS)
def test_a_treated_region_with_a_hole_is_never_left_out(method: str) -> None:
    frame = cities()
    frame = frame[~((frame["city"] == "c00") & (frame["week"] == 3))]

    with pytest.raises(DataError, match="lack a value"):
        analyse(method, frame, incomplete="drop")


@pytest.mark.parametrize("method", METHODS)
def test_constant_donors_are_named(method: str) -> None:
    frame = cities()
    frame["trips"] = frame["trips"].mask(frame["city"] == "c07", 40.0)

    assert "c07" in check(analyse(method, frame), "constant_donors").detail


@pytest.mark.parametrize("method", METHODS)
def test_a_treated_region_that_never_moves_fails_a_check(method: str) -> None:
    frame = cities()
    frame["trips"] = frame["trips"].mask(frame["city"] == "c00", 40.0)
    found = check(analyse(method, frame), "constant_treated")

    assert found.passed is False
    assert "c00" in found.detail


def without_week(week: int) -> pd.DataFrame:
    return cities()[lambda f: f["week"] != week]


@pytest.mark.parametrize("method", METHODS)
def test_a_period_that_no_region_has_needs_a_word(method: str) -> None:
    with pytest.raises(DataError, match=r"periods are missing.*week.*1 holes, such as 4 to 6"):
        analyse(method, without_week(5))
    with pytest.raises(DataError, match="11 to 13"):
        analyse(method, without_week(12))

    found = average(analyse(method, without_week(5), spacing="ordered"))
    renumbered = without_week(5).assign(week=lambda f: f["week"] - (f["week"] > 5))
    assert found.estimate == pytest.approx(
        average(analyse(method, renumbered, treatment_period=11)).estimate, rel=1e-12
    )


@pytest.mark.parametrize("method", METHODS)
def test_periods_cut_off_at_the_ends_are_not_missing(method: str) -> None:
    frame = without_week(0)[lambda f: f["week"] != 17]

    assert average(analyse(method, frame)).std_error > 0


@pytest.mark.parametrize("method", METHODS)
def test_months_as_numbers_follow_each_other_over_the_year(method: str) -> None:
    frame = cities()
    months = frame.assign(week=lambda f: 202001 + 100 * (f["week"] // 12) + f["week"] % 12)
    found = average(analyse(method, months, treatment_period=202101))

    assert found == average(analyse(method, frame))


def test_a_normal_interval_from_few_placebos_fails_a_check() -> None:
    few = cities()[lambda f: f["city"] < "c09"]
    did = check(analyse("synthetic_did", few), "few_placebos")
    control = check(analyse("synthetic_control", few), "few_placebos")

    assert did.statistic == control.statistic == 8
    assert did.passed is False
    assert control.passed is None


@pytest.mark.parametrize("method", METHODS)
def test_regions_treated_all_the_time_are_left_out_and_counted(method: str) -> None:
    frame = cities()
    starts = {"c00": 12.0, "c04": 0.0}
    frame["start"] = frame["city"].map(starts)
    result = analyse(
        method, frame, treated=None, treatment_period=None, first_treated_period="start"
    )

    assert check(result, "already_treated").statistic == 1
    assert average(result).n_control == 20
    named = analyse(method, frame, excluded=["c04"])
    assert average(result).estimate == pytest.approx(average(named).estimate, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_start_that_changes_within_a_region_is_refused(method: str) -> None:
    frame = cities().assign(start=lambda f: f["week"].astype(float))

    with pytest.raises(DataError, match="start must not change within city"):
        analyse(method, frame, treated=None, treatment_period=None, first_treated_period="start")


@pytest.mark.parametrize("method", METHODS)
def test_rows_below_regions_are_averaged_or_summed(method: str) -> None:
    frame = cities()
    rows = pd.concat([frame.assign(trips=frame["trips"] + d, n=2.0) for d in (-1.0, 1.0)])
    mean = analyse(method, rows, aggregate="mean", weight="n")
    total = analyse(method, rows, aggregate="sum", weight="n")
    plain = average(analyse(method, frame))

    assert average(mean).estimate == pytest.approx(plain.estimate, rel=1e-9)
    assert average(total).estimate == pytest.approx(4 * plain.estimate, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_donors_than_treated_is_refused_with_a_way_out(method: str) -> None:
    few = ["c10", "c11"]
    treated = [f"c{i:02d}" for i in range(4)]

    with pytest.raises(InferenceError, match=r"donors.*allowed: .*jackknife or bootstrap"):
        analyse(method, cities(), treated=treated, donors=few)


@pytest.mark.parametrize(
    "options", [{}, {"variant": "demeaned"}, {"variant": "penalised", "penalty": 0.05}]
)
def test_donors_of_a_placebo_set_are_matched_by_those_outside_it(options: dict[str, Any]) -> None:
    frame = cities(n=8)
    found = average(analyse("synthetic_control", frame, treated=["c00", "c01"], **options))
    rest = frame[~frame["city"].isin(["c00", "c01"])]
    effects = [
        average(analyse("synthetic_control", rest, treated=list(pair), **options)).estimate
        for pair in itertools.combinations(sorted(set(rest["city"])), 2)
    ]

    assert len(effects) == 15
    assert found.std_error == pytest.approx(np.std(effects), rel=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "ridge_augmented"},
        {"variant": "penalised"},
        {"predictors": ["rain", "income"]},
        {"predictors": ["rain", "income"], "placebo_importance": "fixed"},
        {"predictors": ["rain", "income"], "importance": "cross_validated"},
        {"predictors": ["rain", "income"], "importance": "equal", "placebo_period": 8},
    ],
)
def test_placebo_sets_keep_what_was_searched_for_their_donors(options: dict[str, Any]) -> None:
    frame = cities(n=7)
    data = {
        "name": "case", "source": {"table": "t"}, "method": "synthetic_control",
        "options": OPTIONS | {"treated": ["c00", "c01"]} | options,
    }  # fmt: skip
    spec = validate(SyntheticControlSpec, data)
    engine = PandasEngine(frame)
    panel = run(observe(spec.options, (), outcome="trips", starts={"c00": 12, "c01": 12}), engine)
    predictors = run(observe_predictors(spec.options, (), panel=panel), engine)
    placebos = study(spec, panel, predictors).placebos

    assert len(placebos.averages) == math.comb(5, 2)
    refit = refit_rule(spec.options, predictors)
    for fit in placebos.fits.values():
        again = refit(fit, fit.task)
        assert again.importance == fit.importance
        assert again.effect == pytest.approx(fit.effect, rel=1e-9)
        fewer = refit(fit, fit.task.without(int(fit.task.donors[0])))
        assert len(fewer.weights) == len(fit.weights) - 1
        assert (fewer.ridge, fewer.penalty) == (fit.ridge, fit.penalty)
    assert average(analyse("synthetic_control", frame, treated=["c00", "c01"], **options)).std_error


@pytest.mark.parametrize("kind", ["jackknife", "bootstrap"])
def test_one_treated_region_has_placebo_errors_only(kind: str) -> None:
    with pytest.raises(InferenceError, match=r"single treated region.*placebo"):
        analyse("synthetic_did", cities(), standard_errors=kind)


def test_a_perfect_fit_has_no_error_to_compare_with() -> None:
    frame = cities()
    table = frame.pivot(index="city", columns="week", values="trips")
    table.loc["c00", :11] = table.loc[["c03", "c04"], :11].mean()
    whole = table.stack().rename("trips").reset_index()

    with pytest.raises(InferenceError, match="matches every period before the start exactly"):
        analyse("synthetic_control", whole)


def test_predictors_from_after_the_start_are_refused() -> None:
    special = [{"column": "income", "periods": [12]}]

    with pytest.raises(DataError, match="from the start of the treatment on; given: 12"):
        analyse("synthetic_control", cities(), special_predictors=special)


def test_a_flat_predictor_is_refused() -> None:
    with pytest.raises(DataError, match="same in every region; given: flat"):
        analyse("synthetic_control", cities().assign(flat=3.0), predictors=["flat"])


def test_covariates_that_only_differ_between_regions_are_refused() -> None:
    with pytest.raises(DataError, match="do not vary beyond region and period effects"):
        analyse("synthetic_did", cities(), covariates=["income"])


def test_covariate_slopes_are_those_of_two_way_effects() -> None:
    import statsmodels.formula.api as smf

    frame = cities()
    frame["trips"] += 2.0 * frame["rain"]
    result = analyse("synthetic_did", frame, covariates=["rain"])
    donors = frame[frame["city"] != "c00"]
    reference = smf.ols("trips ~ rain + C(city) + C(week)", donors).fit()

    assert result.params["slope_rain"] == pytest.approx(reference.params["rain"], rel=1e-9)
    without = frame.assign(trips=frame["trips"] - reference.params["rain"] * frame["rain"])
    assert average(result).estimate == pytest.approx(
        average(analyse("synthetic_did", without)).estimate, rel=1e-9
    )


def test_different_starts_average_over_region_periods() -> None:
    frame = cities()
    both = analyse("synthetic_did", frame, **STAGGERED)
    alone = [
        average(analyse("synthetic_did", frame, treated=name, treatment_period=start,
                        excluded=[other])).estimate
        for name, start, other in (("c00", 12, "c01"), ("c01", 15, "c00"))
    ]  # fmt: skip

    assert average(both).estimate == pytest.approx((6 * alone[0] + 3 * alone[1]) / 9, rel=1e-9)


def test_synthetic_controls_of_different_starts_average_over_region_periods() -> None:
    frame = cities()
    both = analyse("synthetic_control", frame, **STAGGERED)
    alone = [
        average(analyse("synthetic_control", frame, treated=name, treatment_period=start,
                        excluded=[other])).estimate
        for name, start, other in (("c00", 12, "c01"), ("c01", 15, "c00"))
    ]  # fmt: skip

    assert average(both).estimate == pytest.approx((6 * alone[0] + 3 * alone[1]) / 9, rel=1e-9)


def test_the_p_value_counts_the_placebos() -> None:
    result = analyse("synthetic_control", cities())
    table = result.tables["placebos"]
    size = table["effect"].abs() / table["pre_rmspe"]
    donors = size[~table["is_treated"]]
    treated = float(size[table["is_treated"]].iloc[0])

    assert average(result).pvalue == pytest.approx((1 + (donors >= treated).sum()) / 22)
    assert average(result).std_error == pytest.approx(
        table.loc[~table["is_treated"], "effect"].std(ddof=0)
    )


def test_the_interval_holds_what_the_test_does_not_reject() -> None:
    frame = cities()
    found = average(analyse("synthetic_control", frame))

    def pvalue(effect: float) -> float:
        is_cell = (frame["city"] == "c00") & (frame["week"] >= 12)
        shifted = frame.assign(trips=frame["trips"] - effect * is_cell)
        return average(analyse("synthetic_control", shifted, leave_one_out=False)).pvalue

    width = found.ci_upper - found.ci_lower
    assert pvalue(found.ci_upper - 1e-6 * width) > 0.05
    assert pvalue(found.ci_upper + 1e-6 * width) <= 0.05
    assert pvalue(found.ci_lower + 1e-6 * width) > 0.05
    assert pvalue(found.ci_lower - 1e-6 * width) <= 0.05


def test_sensitivity_checks_are_reported() -> None:
    result = analyse("synthetic_control", cities(n_periods=24), placebo_period=8, conformal=True)
    table = result.tables["leave_one_out"]
    weights = result.tables["weights"]
    intervals = result.tables["conformal_intervals"]

    assert check(result, "in_time_placebo").pvalue == pytest.approx(
        round(check(result, "in_time_placebo").pvalue * 22) / 22
    )
    assert set(table["donor"]) == set(weights.loc[weights["weight"] > 1e-6, "donor"])
    assert len(intervals) == 12
    assert (intervals["ci_lower"] <= intervals["gap"]).all()
    assert (intervals["gap"] <= intervals["ci_upper"]).all()
    assert 0 < check(result, "conformal").pvalue <= 1


def test_leaving_a_donor_out_is_the_analysis_without_it() -> None:
    frame = cities()
    row = analyse("synthetic_control", frame).tables["leave_one_out"].iloc[0]
    without = analyse("synthetic_control", frame, excluded=[row["donor"]])

    assert row["effect"] == pytest.approx(average(without).estimate, rel=1e-9)


def test_a_region_beyond_its_donors_is_said_to_be() -> None:
    frame = cities()
    frame["trips"] += 100.0 * (frame["city"] == "c00")

    hull = check(analyse("synthetic_control", frame), "convex_hull")
    assert hull.passed is False
    assert (
        check(analyse("synthetic_control", frame, variant="demeaned"), "convex_hull").passed is None
    )


@pytest.mark.parametrize("importance", ["nested", "cross_validated", "equal"])
def test_predictors_are_matched(importance: str) -> None:
    result = analyse(
        "synthetic_control", cities(), predictors=["income", "rain"], importance=importance,
        special_predictors=[{"column": "trips", "first_period": 6, "last_period": 11}],
        placebo_importance="fixed", leave_one_out=False,
    )  # fmt: skip
    table = result.tables["predictors"]

    assert table["importance"].sum() == pytest.approx(1.0)
    assert list(table["predictor"]) == ["income", "rain", "trips 6-11"]
    assert abs(average(result).estimate - 5.0) < 4 * average(result).std_error


def test_the_jackknife_is_the_sum_over_regions_left_out() -> None:
    from causal.quasi.synthetic.did_errors import replicate
    from causal.quasi.synthetic.did_weights import Rule
    from causal.quasi.synthetic.staggered_blocks import Design, fit_all

    table = cities().pivot(index="city", columns="week", values="trips").to_numpy()
    starts = np.array([12] * 3 + [18] * 19)
    design = Design(values=table, starts=starts, covariates=np.zeros((0, 22, 18)))
    rule = Rule()
    fitted = fit_all(design, rule)
    found = replicate(design, rule, fitted, kind="jackknife", n_replications=200, seed=0)
    fit = fitted.cohorts[0].fit
    effects = []
    for row in range(22):
        kept = [i for i in range(22) if i != row]
        omega = np.array([fit.unit_weights[i - 3] for i in kept if i >= 3])
        treated = table[[i for i in kept if i < 3]].mean(axis=0)
        path = treated - (omega / omega.sum()) @ table[[i for i in kept if i >= 3]]
        effects.append(path[12:].mean() - fit.time_weights @ path[:12])
    expected = np.sqrt(21 / 22 * ((effects - np.mean(effects)) ** 2).sum())

    assert found.std_error == pytest.approx(expected, rel=1e-12)


def test_random_errors_depend_on_the_seed_only() -> None:
    frame = cities()
    options = {"treated": ["c00", "c01", "c02"], "standard_errors": "bootstrap"}
    first, again = (average(analyse("synthetic_did", frame, **options)) for _ in range(2))

    assert first == again


def test_several_outcomes_keep_their_names() -> None:
    result = analyse("synthetic_did", cities(), outcome=["trips", "rain"])

    assert {effect.metric for effect in result.effects} == {"trips", "rain"}
    assert any(item.name == "replicates:rain" for item in result.diagnostics)


def test_two_hundred_placebos_take_less_than_half_a_second() -> None:
    from causal.quasi.synthetic.donor_fit import Task, outcome_fit

    rng = np.random.default_rng(0)
    values = rng.normal(size=(201, 40)).cumsum(axis=1)
    tasks = [
        Task(values=values, target=row, donors=np.delete(np.arange(201), row)[:38], n_pre=20,
             matched=np.arange(20))
        for row in range(200)
    ]  # fmt: skip
    outcome_fit(tasks[0])
    begin = time.process_time()
    effects = [outcome_fit(task).effect for task in tasks]

    assert len(effects) == 200
    assert time.process_time() - begin < 0.5


def test_error_texts_are_one_line() -> None:
    with pytest.raises(CausalError) as caught:
        analyse("synthetic_control", cities(), placebo_period=30)
    assert "placebo_period must leave two periods" in str(caught.value)


def test_a_penalty_goes_with_the_penalised_variant() -> None:
    with pytest.raises(SpecError, match="penalty goes with variant penalised, not demeaned"):
        analyse("synthetic_control", cities(), variant="demeaned", penalty=0.1)


def test_the_penalised_variant_says_its_penalty() -> None:
    chosen = analyse("synthetic_control", cities(), variant="penalised")
    fixed = analyse("synthetic_control", cities(), variant="penalised", penalty=0.05)

    assert average(fixed).estimator == "penalised_synthetic_control"
    assert fixed.params["penalty"] == 0.05
    assert 1e-5 <= chosen.params["penalty"] <= 100
