"""A plan from a history: what it asks, counts, finds and refuses."""

import datetime as dt
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import CausalError, DataError, SpecError
from causal.core.frames import FrameRequest
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.experiments import power_plan
from causal.experiments.duration import Arrivals, Calendar, duration, steady
from causal.experiments.planned_test import PlannedTest
from causal.experiments.power import mde, power, sample_size, smallest_margin
from causal.experiments.power_figures import power_by_size
from causal.experiments.power_outcome import Outcome, mean_outcome, proportion_outcome
from causal.experiments.power_text import sentences

REVENUE = {"name": "revenue", "type": "mean", "column": "revenue"}
BOUGHT = {"name": "bought", "type": "proportion", "column": "bought"}


@pytest.fixture(scope="module")
def users() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    n = 6000
    household = np.sort(rng.integers(0, 1500, n))
    before = rng.gamma(2.0, 5.0, n)
    is_new = rng.random(n) < 0.4
    day = np.where(is_new, rng.integers(0, 21, n), np.minimum(rng.geometric(0.2, n) - 1, 20))
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "household": household,
            "revenue": before + rng.gamma(2.0, 4.0, n) + rng.normal(size=1500)[household] * 3,
            "before": before,
            "bought": (rng.random(n) < 0.2).astype(int),
            "orders": rng.poisson(2.0, n),
            "sessions": 1 + rng.poisson(6.0, n),
            "day": [dt.date(2026, 3, 2) + dt.timedelta(int(d)) for d in day],
            "number": day,
            "is_new": is_new,
        }
    )


def planned(
    frame: pd.DataFrame, *metrics: dict[str, Any], **options: Any
) -> tuple[Result, list[FrameRequest]]:
    data = {
        "name": "plan",
        "source": {"table": "t"},
        "method": "power",
        "options": {"unit": "user", "metrics": list(metrics), **options},
    }
    asked: list[FrameRequest] = []
    spec = validate(power_plan.SPEC, data)
    engine = PandasEngine(frame)
    return run(power_plan.estimate(spec), engine, on_request=lambda _, r: asked.append(r)), asked


def rows(result: Result) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in result.tables["plan"].to_dict("records")]


def test_a_plan_is_the_calculator_on_the_histories_moments(users: pd.DataFrame) -> None:
    result, asked = planned(
        users,
        {**REVENUE, "covariates": ["before"], "mde": 0.05, "mde_scale": "relative"},
        {**BOUGHT, "role": "guardrail", "margin": 0.03},
        units=3000,
        shares={"control": 2, "treatment": 1},
    )
    cuped, raw, guardrail = rows(result)
    mean, std = users["revenue"].mean(), users["revenue"].std()
    r_squared = np.corrcoef(users["revenue"], users["before"])[0, 1] ** 2
    test = PlannedTest(scale="relative", ratio=0.5)
    outcome = mean_outcome(mean=mean, std=std)
    for row, given in ((cuped, outcome.adjusted(r_squared)), (raw, outcome)):
        n = sample_size(given, test, effect=0.05)
        assert row["n_control"] == np.ceil(n - 1e-6)
        assert row["n_treated"] == np.ceil(n / 2 - 1e-6)
        assert row["power_with_units"] == pytest.approx(
            power(given, test, effect=0.05, n_control=2000), rel=1e-9
        )
        assert row["detectable_with_units"] == pytest.approx(
            mde(given, test, n_control=2000), rel=1e-9
        )
    assert (cuped["estimator"], raw["estimator"]) == ("cuped", "welch")
    assert cuped["variance_kept"] == pytest.approx(1 - r_squared, rel=1e-9)
    p = users["bought"].mean()
    share = Outcome(level=p, variance=users["bought"].var(), is_proportion=True)
    side = PlannedTest(alpha=0.025, alternative="larger", null=-0.03, ratio=0.5)
    assert guardrail["question"] == "non_inferiority"
    assert guardrail["n_control"] == np.ceil(sample_size(share, side, effect=0.0) - 1e-6)
    assert guardrail["detectable_with_units"] == pytest.approx(
        smallest_margin(share, side, n_control=2000), rel=1e-9
    )
    assert result.params["n_total"] == max(cuped["n_total"], guardrail["n_total"])
    assert len(asked) == 2
    assert result.effects == ()


def sizes_of(users: pd.DataFrame, errors: "pd.Series[float]") -> dict[str, float]:
    """What the sizes of the households do to a mean, by the formulas for many of them."""
    sizes = users.groupby("household").size()
    between = (errors.groupby(users["household"]).sum() ** 2).sum()
    pairs = (sizes * (sizes - 1)).sum()
    icc = max((between - (errors**2).sum()) / pairs / (errors**2).mean(), 0.0)
    added = sizes * (1 + (sizes - 1) * icc)
    number, share = len(sizes), sizes / sizes.sum()

    def spread(values: "pd.Series[float]") -> float:
        found = values.var(ddof=0) / values.mean() ** 2
        return float(found * number / (number - 1 - found))

    shared = icc * (sizes**2).sum() / added.sum()
    lost = (added * (2 * share - (share**2).sum())).sum()
    grown = 1 - shared + shared * (1 + spread(sizes) / number)
    return {
        "variance": float(between / sizes.sum() * added.sum() / (added.sum() - lost) * grown),
        "evenness": 1 / (1 + spread(added)),
        "size_cv": math.sqrt(spread(sizes)),
        "shared": float(shared * (1 + spread(sizes) / number) / grown),
    }


def test_clusters_come_from_the_sums_of_their_deviations(users: pd.DataFrame) -> None:
    result, _ = planned(
        users, {**REVENUE, "covariates": ["before"], "mde": 0.5}, cluster="household"
    )
    cuped, raw = rows(result)
    errors = users["revenue"] - users["revenue"].mean()
    size = len(users) / users["household"].nunique()
    many = sizes_of(users, errors)
    assert 0.5 < many["evenness"] < 1
    assert 0 < many["shared"] < 1
    outcome = Outcome(level=1.0, units_per_cluster=size, **many)
    expected = many["variance"] / users["revenue"].var()
    assert raw["design_effect"] == pytest.approx(expected, rel=1e-9)
    assert raw["design_effect"] > 1.1
    assert raw["n_control"] == np.ceil(sample_size(outcome, PlannedTest(), effect=0.5) - 1e-6)
    assert raw["n_clusters"] == np.ceil(raw["n_total"] / size)
    theta = np.polyfit(users["before"], users["revenue"], 1)[0]
    residual = users["revenue"] - theta * users["before"]
    sums = (residual - residual.mean()).groupby(users["household"]).sum()
    kept = (sums**2).sum() / (errors.groupby(users["household"]).sum() ** 2).sum()
    assert cuped["variance_kept"] == pytest.approx(kept, rel=1e-9)


def test_units_of_a_cluster_may_be_alike_throughout() -> None:
    """A village's price: the share of the variance that its people share is 1, not above it."""
    for seed in range(60):
        price = np.random.default_rng(seed).normal(10, 2, 9)
        people = pd.DataFrame(
            {"user": np.arange(9 * 77), "price": np.repeat(price, 77),
             "village": np.repeat(np.arange(9), 77)}
        )  # fmt: skip
        result, _ = planned(
            people, {"name": "price", "type": "mean", "column": "price", "mde": 1.0},
            cluster="village",
        )  # fmt: skip
        assert rows(result)[0]["design_effect"] == pytest.approx(77 * 9 / 8, rel=0.01)


def test_planned_clusters_and_inflation(users: pd.DataFrame) -> None:
    plain, _ = planned(users, {**REVENUE, "mde": 0.3})
    grown, _ = planned(
        users,
        {**REVENUE, "mde": 0.3},
        planned_clusters={"icc": 0.1, "mean_size": 11, "size_cv": 0},
        inflation=1.1,
    )
    assert rows(grown)[0]["n_total"] / rows(plain)[0]["n_total"] == pytest.approx(2.2, rel=0.01)


def test_several_treatments_share_alpha(users: pd.DataFrame) -> None:
    shares = {"control": 0.4, "a": 0.3, "b": 0.3}
    result, _ = planned(users, {**REVENUE, "mde": 0.5}, shares=shares, correction="holm")
    first, second = rows(result)
    assert first["alpha"] == second["alpha"] == 0.025
    assert 0.8 < first["holm_power"] < 0.95
    alone, _ = planned(users, {**REVENUE, "mde": 0.5}, shares=shares)
    assert rows(alone)[0]["n_total"] < first["n_total"]
    assert rows(alone)[0]["holm_power"] is None
    total = first["n_total"]
    assert result.params["n.control"] == pytest.approx(0.4 * total, abs=2)


@pytest.mark.parametrize("column", ["day", "number"])
def test_duration_follows_the_arrivals(users: pd.DataFrame, column: str) -> None:
    arrivals = {"day": column, "is_new": "is_new", "max_weeks": 8, "follow_up_days": 14}
    result, _ = planned(users, {**REVENUE, "mde": 0.8}, arrivals=arrivals)
    row, table = rows(result)[0], result.tables["mde_by_duration"]
    by_day = users.groupby("number").size().cumsum()
    first = int((by_day >= row["n_total"]).idxmax()) + 1
    assert row["enrolment_days"] == -(-first // 7) * 7
    assert row["total_days"] == row["enrolment_days"] + 14
    assert table["n_total"].iloc[2] == len(users)
    n_new = int(users["is_new"].sum())
    assert table["n_total"].iloc[5] == pytest.approx(len(users) + n_new)
    assert table["detectable"].is_monotonic_decreasing
    enough = table[table["weeks"] * 7 == row["enrolment_days"]]
    assert abs(enough["detectable"].iloc[0]) <= 0.8
    assert result.failed_checks == ()


def test_a_sample_that_does_not_arrive_is_a_failed_check(users: pd.DataFrame) -> None:
    result, _ = planned(users, {**REVENUE, "mde": 0.1}, arrivals={"per_day": 10, "max_weeks": 4})
    assert [item.name for item in result.failed_checks] == ["duration.revenue.treatment - control"]
    assert pd.isna(rows(result)[0]["total_days"])


def test_missing_rows_are_counted(users: pd.DataFrame) -> None:
    gaps = users.assign(
        revenue=users["revenue"].where(users.index >= 50),
        day=users["day"].where(users.index >= 20),
    )
    result, _ = planned(
        gaps, {**REVENUE, "mde": 0.5}, {**BOUGHT, "mde": 0.05}, arrivals={"day": "day"}
    )
    found = {item.name: item for item in result.diagnostics}
    assert found["missing_rows.revenue"].statistic == 50
    assert found["missing_rows.bought"].statistic == 0
    assert "20 units without a day" in found["arrivals"].detail


def test_figures_and_sentences(users: pd.DataFrame) -> None:
    result, _ = planned(
        users,
        {**REVENUE, "covariates": ["before"], "mde": 0.5},
        {**BOUGHT, "role": "guardrail", "margin": 0.03, "margin_scale": "relative"},
        arrivals={"per_day": 100},
        units=5000,
    )
    figures = power_plan.figures(result)
    assert set(figures) == {"power_by_size", "mde_by_weeks"}
    curve, grey = figures["power_by_size"].axes[0].get_lines()[0], "without covariates"
    assert curve.get_label() == grey
    text = "\n".join(sentences(result))
    assert "to find 0.5 with 80% power it takes" in text
    assert "no worse than 3.00% of control" in text


@pytest.mark.parametrize("n_last", [1_500, 40_000, 2_000_000])
def test_labels_of_sizes_do_not_touch(n_last: int) -> None:
    """On axes of less than a decade and of more than three; two panels, as narrow as they come."""
    size = np.geomspace(1_000, n_last, 20)
    names = pd.DataFrame({"metric": ["revenue", "bought"], "treatment": "b", "estimator": "welch"})
    curve = pd.DataFrame({"n_total": size, "power": np.linspace(0.1, 1, 20)})
    plan = names.assign(power=0.8, units=np.nan, n_total=1_200)
    figure = power_by_size(names.merge(curve, how="cross"), plan=plan)
    figure.draw_without_rendering()
    for axes in figure.axes:
        labels = [tick for tick in axes.get_xticklabels(which="both") if tick.get_text()]
        low, high = axes.get_xlim()
        boxes = [
            label.get_window_extent() for label in labels if low <= label.get_position()[0] <= high
        ]
        assert boxes
        edges = sorted((box.x0, box.x1) for box in boxes)
        assert all(left[1] < right[0] for left, right in pairwise(edges))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "nothing to plan"),
        ({"metrics": [{**REVENUE, "mde": 1}, {**REVENUE, "mde": 2}]}, "two metrics are called"),
        ({"units": 100, "shares": {"control": 1}}, "no treatment"),
        ({"units": 100, "shares": {"control": 1, "b": 0}}, "must be positive"),
        ({"units": 100, "control": "c"}, "has no share"),
        ({"units": 100, "n_tests": 3}, "needs a correction"),
        ({"units": 100, "cluster": "user"}, "different columns"),
        ({"units": 100, "cluster": "revenue"}, "is the unit or cluster"),
        ({"units": 100, "cluster": "h", "variance": "pooled"}, "independent units"),
        ({"units": 100, "cluster": "h", "definition": "power.t.test"}, "independent units only"),
        ({"units": 100, "definition": "power.t.test", "variance": "welch"}, "of its own"),
        ({"arrivals": {}}, "exactly one of day and per_day"),
        ({"arrivals": {"per_day": 5, "is_new": "x"}}, "is_new needs day"),
        ({"units": 100, "power": 0.4}, "greater than 0.5"),
        ({"units": 100, "polishing": 1}, "unknown key"),
    ],
)
def test_bad_specs_are_refused(options: dict[str, Any], says: str) -> None:
    given = {"unit": "user", "metrics": [REVENUE], **options}
    data = {"name": "plan", "source": {"table": "t"}, "options": given}
    with pytest.raises(SpecError, match=says):
        validate(power_plan.SPEC, data)


def test_an_analysis_key_is_refused() -> None:
    options = {"unit": "user", "metrics": [REVENUE], "units": 100}
    data = {"name": "plan", "source": {"table": "t"}, "confidence_level": 0.9, "options": options}
    with pytest.raises(SpecError, match="a plan has alpha"):
        validate(power_plan.SPEC, data)
    data = {"name": "plan", "source": {"table": "t"}, "options": {**options, "metrics": [
        {**REVENUE, "role": "guardrail", "margin": 1, "mde": 2}]}}  # fmt: skip
    with pytest.raises(SpecError, match="leave mde out"):
        validate(power_plan.SPEC, data)


def test_bad_histories_are_refused(users: pd.DataFrame) -> None:
    metric = {**REVENUE, "mde": 0.5}
    cases: list[tuple[pd.DataFrame, dict[str, Any], dict[str, Any], str]] = [
        (pd.concat([users, users.iloc[[3]]]), metric, {}, "must identify a row"),
        (users.assign(revenue=3.0), metric, {}, "zero variance"),
        (users.assign(bought=users["orders"]), {**BOUGHT, "mde": 0.1}, {}, "zeros and ones"),
        (users, {**BOUGHT, "mde": 0.9}, {}, "out of its range"),
        (users.assign(copy=users["before"]), {**metric, "covariates": ["before", "copy"]}, {},
         "collinear"),
        (users.assign(household=1), metric, {"cluster": "household"}, "several clusters"),
        (users.assign(twin=users["user"]), metric, {"cluster": "twin"}, "leave cluster out"),
        (users.assign(revenue=-users["revenue"]), {**metric, "mde_scale": "relative"}, {},
         "level above zero"),
        (users.assign(day="soon"), metric, {"arrivals": {"day": "day"}}, "dates or whole numbers"),
        (users, metric, {"arrivals": {"day": "day", "is_new": "orders"}}, "must be 0 or 1"),
        (users, metric, {"definition": "power.prop.test"}, "proportions only"),
    ]  # fmt: skip
    for frame, asked, options, says in cases:
        with pytest.raises(CausalError, match=says):
            planned(frame, asked, **options)
    with pytest.raises(DataError, match="is null"):
        planned(users.assign(household=None).convert_dtypes(), metric, cluster="household")


def test_arrivals_beyond_the_history() -> None:
    arrivals = Arrivals(new=np.arange(1.0, 11.0), returning=np.full(10, 5.0))
    by_day = arrivals.by_day(18)
    assert by_day[9] == 55 + 50
    # One whole week at the end: days 4 to 10 repeat in order, returning units do not.
    assert np.diff(by_day)[9:16].tolist() == [4, 5, 6, 7, 8, 9, 10]
    short = Arrivals(new=np.array([2.0, 4.0]), returning=np.zeros(2))
    assert short.by_day(4).tolist() == [2, 6, 9, 12]


def test_durations() -> None:
    arrivals = steady(100)
    found = duration(arrivals, Calendar(), n_units=1000)
    assert found is not None
    assert (found.enrolment_days, found.total_days, found.n_units) == (14, 14, 1400)
    exact = duration(
        arrivals, Calendar(is_whole_weeks=False, enrolled_share=0.5, follow_up_days=3), n_units=1000
    )
    assert exact is not None
    assert (exact.enrolment_days, exact.total_days) == (20, 23)
    assert duration(arrivals, Calendar(max_days=28), n_units=3000) is None
    assert duration(arrivals, Calendar(max_days=10), n_units=900) is None
    for make in (
        lambda: steady(0),
        lambda: Calendar(enrolled_share=0),
        lambda: Calendar(follow_up_days=-1),
        lambda: Calendar(max_days=0),
    ):
        with pytest.raises(SpecError):
            make()


def test_a_known_calculator_in_a_plan(users: pd.DataFrame) -> None:
    result, _ = planned(users, {**BOUGHT, "mde": 0.05}, definition="power.prop.test")
    share = proportion_outcome(share=float(users["bought"].mean()))
    n = sample_size(share, PlannedTest(definition="power.prop.test"), effect=0.05)
    assert rows(result)[0]["n_control"] == np.ceil(n)
