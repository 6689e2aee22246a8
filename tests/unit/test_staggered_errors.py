"""What `staggered` refuses, and what it leaves out and says so."""

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import CausalError, DataError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Result
from causal.core.spec import validate
from causal.quasi import group_time, staggered

COLUMNS = {"unit": "id", "period": "t", "outcome": "y", "first_treated_period": "first"}


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    data = {
        "name": "errors", "source": {"table": "t"}, "method": "staggered", "seed": 5,
        "options": {**COLUMNS, **options},
    }  # fmt: skip
    return run(staggered.estimate(validate(staggered.SPEC, data)), PandasEngine(frame))


def note(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


def names(result: Result) -> set[str]:
    return {item.name for item in result.diagnostics}


def terms(result: Result) -> set[str]:
    return {effect.term for effect in result.effects}


def make(firsts: list[float], *, periods: tuple[int, ...] = (1, 2, 3, 4, 5)) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n, size = len(firsts), len(periods)
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), size),
            "t": np.tile(periods, n),
            "first": np.repeat(np.array(firsts, dtype=float), size),
            "region": np.repeat(np.arange(n) % 8, size),
            "y": rng.normal(size=n * size),
        }
    )


NEVER = [np.nan] * 20
MIXED = [*[3.0] * 10, *[4.0] * 10, *NEVER]


@pytest.mark.parametrize(
    ("firsts", "options", "message"),
    [
        ([3.0] * 9 + [4.0] * 9, {}, "no complete unit is never treated.*not_yet_treated"),
        ([1.0] * 9, {}, "all units are treated in the first period already.*9 units"),
        ([1.0] * 9 + NEVER, {}, "no unit starts its treatment within the data.*no period before"),
        (NEVER, {}, "no unit starts its treatment within the data$"),
        ([7.0] * 9 + NEVER, {}, "no unit starts its treatment within the data$"),
        ([3.0] * 9, {"control_group": "not_yet_treated"}, "there is no comparison group"),
        ([3.0, *NEVER], {}, "fewer than 2 units.*min_cohort_size.*given: 3"),
        ([3.0, 3.0, np.nan], {}, "no effect after the start of a treatment has a comparison"),
        ([3.5] * 9 + NEVER, {}, "event times are not whole numbers"),
        ([np.inf] * 9 + [3.0] * 9, {}, "first treated period is infinite: never treated is a null"),
        ([5.0] * 9 + NEVER, {"anticipation": 4}, "no period before"),
        (MIXED, {"min_event_time": -3, "max_event_time": 0, "balanced_event_time": 4},
         "no event time from 0 on"),
        (MIXED, {"never_treated_value": 0}, "holds nulls although never_treated_value is given"),
    ],
)  # fmt: skip
def test_designs_that_cannot_be_estimated(
    firsts: list[float], options: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        analyse(make(firsts), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": "multiplier"}, "needs a cluster"),
        ({"cluster": "first"}, "two roles: first"),
        ({"outcome": ["y", "y"]}, "two roles: y"),
        ({"min_event_time": 3, "max_event_time": 2}, "min_event_time must not lie after"),
        (
            {"aggregations": ["group"], "balanced_event_time": 1},
            "goes with the aggregation dynamic",
        ),
        ({"aggregations": ["group", "group"]}, "listed twice"),
        ({"aggregations": ["overall"]}, "aggregations"),
        ({"control_group": "all"}, "control_group"),
        ({"min_cohort_size": 0}, "min_cohort_size"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        analyse(make(MIXED), **options)


def test_one_period_is_not_enough() -> None:
    frame = make(MIXED)
    with pytest.raises(DataError, match="two or more periods"):
        analyse(frame[frame["t"] == 2])


def test_repeated_unit_periods_are_refused() -> None:
    frame = make(MIXED)
    with pytest.raises(DataError, match="more than one row for the same id and t"):
        analyse(pd.concat([frame, frame.head(2)]))


def test_a_start_that_changes_within_a_unit_is_refused() -> None:
    frame = make(MIXED)
    frame.loc[1, "first"] = 4.0
    with pytest.raises(DataError, match="first must not change within id"):
        analyse(frame)


def test_clusters_that_split_units_are_refused() -> None:
    frame = make(MIXED)
    frame["house"] = np.arange(len(frame)) % 3
    with pytest.raises(DataError, match="house must not change within id"):
        analyse(frame, cluster="house")


def test_unknown_clusters_are_refused() -> None:
    frame = make(MIXED)
    frame["region"] = frame["region"].where(frame["id"] != 7)
    with pytest.raises(DataError, match="region is null in some rows; given: 1 units"):
        analyse(frame, cluster="region")


def test_too_many_effects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_time, "MAX_CELLS", 7)
    with pytest.raises(DataError, match=r"too many cohorts and periods.*8 effects.*at most 7"):
        analyse(make(MIXED))


def test_units_treated_from_the_first_period_are_left_out_and_counted() -> None:
    firsts = [*MIXED, *[1.0] * 6, *[0.0] * 2]
    result = analyse(make(firsts))
    base = analyse(make(firsts)[lambda f: f["id"] < len(MIXED)])

    assert note(result, "already_treated").statistic == 8
    pd.testing.assert_frame_equal(result.to_frame(), base.to_frame())


def test_anticipation_leaves_out_cohorts_without_a_period_before() -> None:
    result = analyse(make([2.0] * 5 + MIXED), anticipation=1)

    assert note(result, "already_treated").statistic == 5
    assert "cohort=2" not in terms(result)


def test_units_without_some_period_are_left_out_and_counted() -> None:
    frame = make(MIXED)
    damaged = frame.drop(index=[0, 1, 22, 150])
    damaged["y"] = damaged["y"].where(damaged.index != 101)
    result = analyse(damaged)
    gone = frame.loc[[0, 22, 150, 101], "id"]

    assert note(result, "n_incomplete").statistic == 4
    assert "4 of 40 units" in note(result, "n_incomplete").detail
    assert note(result, "n_missing").statistic == 1
    pd.testing.assert_frame_equal(
        result.to_frame(), analyse(frame[~frame["id"].isin(gone)]).to_frame(), rtol=1e-9
    )


def test_a_cohort_without_complete_units_is_named() -> None:
    frame = make(MIXED)
    result = analyse(frame[(frame["first"] != 4) | (frame["t"] != 2)])

    assert "4" in note(result, "empty_cohorts").detail
    assert "cohort=4" not in terms(result)


def test_a_cohort_of_one_unit_is_named_and_not_estimated() -> None:
    result = analyse(make([5.0, *MIXED]))

    assert "not estimated: 5" in note(result, "small_cohorts").detail
    assert "cohort=5" not in terms(result)
    assert "cohort=3" in terms(result)


def test_a_cohort_of_one_unit_can_be_kept_but_fails_the_check() -> None:
    result = analyse(make([5.0, *MIXED]), min_cohort_size=1)

    assert "cohort=5" in terms(result)
    assert note(result, "single_cohorts").passed is False


def test_a_cohort_within_one_cluster_has_no_clustered_error() -> None:
    """Its influence sums to zero within the cluster: the error would hold the controls' only."""
    frame = make(MIXED)
    frame["region"] = np.where(frame["first"] == 3, 0, frame["region"])
    result = analyse(frame, cluster="region")

    assert "fewer than 2 clusters" in note(result, "small_cohorts").detail
    assert "cohort=3" not in terms(result)
    assert note(result, "n_clusters").statistic == 8


def test_small_cohorts_are_noted() -> None:
    assert "3" in note(analyse(make([3.0] * 3 + NEVER)), "thin_cohorts").detail


def test_units_that_start_after_the_data_are_never_treated() -> None:
    late = analyse(make([3.0] * 10 + [4.0] * 10 + [9.0] * 20))

    assert note(late, "late_starters").statistic == 20
    pd.testing.assert_frame_equal(late.to_frame(), analyse(make(MIXED)).to_frame())


def test_units_that_anticipate_a_start_after_the_data_are_no_controls() -> None:
    firsts = [*MIXED, *[6.0] * 10]
    base = analyse(make(firsts)[lambda f: f["id"] < len(MIXED)], anticipation=1)
    result = analyse(make(firsts), anticipation=1)

    found = result.to_frame().set_index("term")
    assert found.loc["att(3,5)", "n_control"] == 20
    assert found.loc["att(3,5)", "estimate"] == pytest.approx(
        base.to_frame().set_index("term").loc["att(3,5)", "estimate"]
    )


def test_without_never_treated_the_last_cohort_only_compares() -> None:
    result = analyse(make([3.0] * 10 + [5.0] * 10), control_group="not_yet_treated")

    assert note(result, "never_treated").statistic == 0
    assert note(result, "no_comparison").statistic == 1
    assert {t for t in terms(result) if t.startswith("att")} == {
        "att(3,2)", "att(3,3)", "att(3,4)",
    }  # fmt: skip


def test_gaps_between_periods_are_noted() -> None:
    result = analyse(make(MIXED, periods=(1, 2, 4, 7)))

    assert "2 to 4, 4 to 7" in note(result, "period_gaps").detail
    assert "period_gaps" not in names(analyse(make(MIXED)))


def test_estimates_without_variance_are_named() -> None:
    frame = make(MIXED)
    frame["y"] = frame["y"].where(frame["t"] > 2, 0.0)
    result = analyse(frame)

    assert "att(3,2)" in note(result, "no_variance").detail
    assert "att(3,2)" not in terms(result)
    table = result.tables["group_time"].set_index("term")
    assert table.loc["att(3,2)", "estimate"] == 0.0
    assert np.isnan(table.loc["att(3,2)", "std_error"])


def test_an_outcome_that_never_varies_is_refused() -> None:
    with pytest.raises(CausalError, match="y does not vary over time"):
        analyse(make(MIXED).assign(y=lambda f: f["id"].astype(float)))


def test_more_leads_than_clusters_are_not_tested() -> None:
    frame = make([6.0] * 10 + [7.0] * 10 + NEVER, periods=tuple(range(1, 9)))
    result = analyse(frame, cluster="region")

    assert note(result, "pre_trend").statistic is None
    assert "9 effects before the start are too many for 8 clusters" in (
        note(result, "pre_trend").detail
    )


def test_no_leads_no_pre_trend_test() -> None:
    result = analyse(make([2.0] * 10 + NEVER))

    assert "no test" in note(result, "pre_trend").detail


def test_a_singular_pre_trend_covariance_is_tested_at_its_rank() -> None:
    """A period that repeats the one before: two leads of a universal base say the same."""
    frame = make([5.0] * 20 + NEVER)
    second = frame.loc[frame["t"] == 2, "y"].to_numpy()
    frame.loc[frame["t"] == 3, "y"] = second
    found = note(analyse(frame, base_period="universal"), "pre_trend")
    alone = note(analyse(frame[frame["t"] != 3], base_period="universal"), "pre_trend")

    assert "chi2(2)" in found.detail
    assert "covariance has rank 2" in found.detail
    assert found.statistic == pytest.approx(alone.statistic, rel=1e-6)
    assert found.pvalue == pytest.approx(alone.pvalue, rel=1e-6)


def test_the_pre_trend_test_is_the_wald_statistic() -> None:
    result = analyse(make(MIXED))
    leads = result.tables["group_time"].query("event_time < 0")
    found = note(result, "pre_trend")

    assert len(leads) == 3
    assert "chi2(3)" in found.detail
    trend = make(MIXED)
    drift = trend["y"] + np.where(trend["first"].notna(), 3.0 * trend["t"], 0.0)
    assert note(analyse(trend.assign(y=drift)), "pre_trend").passed is False


@pytest.mark.parametrize("bands", ["gaussian", "multiplier"])
def test_bands_are_seeded_and_wider_than_intervals(bands: str) -> None:
    frame = make([*[3.0] * 40, *[4.0] * 40, *NEVER, *NEVER])
    first = analyse(frame, cluster="region", bands=bands)
    again = analyse(frame, cluster="region", bands=bands)
    table = first.tables["event_study"]

    pd.testing.assert_frame_equal(table, again.tables["event_study"], check_exact=True)
    assert (table["band_upper"] > table["ci_upper"]).all()
    assert (table["band_lower"] < table["ci_lower"]).all()
    assert "seed 5" in note(first, "simultaneous_bands").detail


def test_leaving_out_an_average_leaves_the_others() -> None:
    frame = make(MIXED)
    some = analyse(frame, aggregations=["dynamic"])

    pd.testing.assert_frame_equal(
        some.tables["event_study"], analyse(frame).tables["event_study"], check_exact=True
    )
    assert set(analyse(frame).tables) - set(some.tables) == {"cohort_effects", "period_effects"}
    assert terms(some).isdisjoint({"simple", "group", "calendar"})
