"""Cohort-specific event studies, averaged: equal to least squares with every dummy on raw rows."""

import warnings

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest

from causal.core.errors import DataError, SpecError
from causal.core.result import Result
from tests.unit.test_did_parity import analyse, make_panel, reference

TIMING = {"estimator": "sun_abraham", "first_treated_period": "first"}


LAGS = {**TIMING, "estimator": "etwfe"}


def by_hand(frame: pd.DataFrame, *, cluster: str = "id", lags_only: bool = False) -> pd.DataFrame:
    """The averages from a regression on one dummy per cohort and event time."""
    elapsed = frame["t"] - frame["first"]
    found = frame.groupby([frame["first"], elapsed]).size()
    cells = [(g, e) for g, e in found.index if (e >= 0 if lags_only else e != -1)]
    columns = {
        f"{g} {e}": ((frame["first"] == g) & (elapsed == e)).to_numpy(dtype=float) for g, e in cells
    }
    coefficients, covariance = reference(frame, columns, cluster=cluster)
    counts = np.array([column.sum() for column in columns.values()])
    times = np.array([e for _, e in cells])
    rows = {}
    groups = {f"event_time={int(e)}": times == e for e in np.unique(times)}
    for term, chosen in {**groups, "average post": times >= 0}.items():
        weights = np.where(chosen, counts, 0.0) / counts[chosen].sum()
        rows[term] = (weights @ coefficients, np.sqrt(weights @ covariance @ weights))
    return pd.DataFrame(rows, index=["estimate", "std_error"]).T


def assert_same(result: Result, expected: pd.DataFrame) -> None:
    found = result.to_frame().set_index("term")[["estimate", "std_error"]]
    assert set(found.index) == set(expected.index)
    np.testing.assert_allclose(found.loc[expected.index], expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("cluster", ["id", "region"])
def test_raw_rows_give_the_same(missing: float, cluster: str) -> None:
    frame = make_panel(3, n=48, missing=missing)
    given = {} if cluster == "id" else {"cluster": cluster}
    assert_same(analyse(frame, **TIMING, **given), by_hand(frame, cluster=cluster))


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("cluster", ["id", "region"])
def test_raw_rows_give_the_same_with_lags_only(missing: float, cluster: str) -> None:
    frame = make_panel(13, n=48, missing=missing)
    given = {} if cluster == "id" else {"cluster": cluster}
    found = analyse(frame, **LAGS, **given)
    assert_same(found, by_hand(frame, cluster=cluster, lags_only=True))
    test = next(d for d in found.diagnostics if d.name == "pre_trend")
    around = analyse(frame, **TIMING, **given)
    expected = next(d for d in around.diagnostics if d.name == "pre_trend")
    assert test.statistic == pytest.approx(expected.statistic, rel=1e-8)
    assert test.pvalue == pytest.approx(expected.pvalue, rel=1e-8)


def test_lags_only_are_imputation_in_a_balanced_panel() -> None:
    """Unit and period effects from the untreated rows, then means of what they leave."""
    frame = make_panel(14, n=40)
    dummies = pd.get_dummies(frame[["id", "t"]].astype(str), dtype=float)
    untreated = (frame["d"] == 0).to_numpy()
    fit = np.linalg.lstsq(dummies[untreated].to_numpy(), frame.loc[untreated, "y"], rcond=None)[0]
    gap = frame["y"] - dummies.to_numpy() @ fit
    means = gap[~untreated].groupby((frame["t"] - frame["first"])[~untreated]).mean()
    found = analyse(frame, **LAGS).to_frame().set_index("term")["estimate"]
    assert found["average post"] == pytest.approx(gap[~untreated].mean(), rel=1e-9)
    for time, mean in means.items():
        assert found[f"event_time={int(time)}"] == pytest.approx(mean, rel=1e-9)


def test_pyfixest_gives_the_same() -> None:
    frame = make_panel(4, n=60)
    never = frame.assign(first=frame["first"].fillna(0).astype(int))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = pf.event_study(
            never, yname="y", idname="id", tname="t", gname="first", estimator="saturated",
            cluster="id",
        )  # fmt: skip
        expected = fit.aggregate(weighting="shares").astype(float)
    found = analyse(frame, **TIMING).tables["event_study"].set_index("event_time")
    mine = found.loc[expected.index.astype(int)]
    np.testing.assert_allclose(mine["estimate"], expected["Estimate"], rtol=1e-6)
    np.testing.assert_allclose(mine["std_error"], expected["Std. Error"], rtol=1e-6)


def test_one_cohort_gives_the_event_study() -> None:
    frame = make_panel(5)
    frame = frame[frame["first"].isna() | (frame["first"] == 4)]
    plain = analyse(frame, estimator="event_study", first_treated_period="first").to_frame()
    found = analyse(frame, **TIMING).to_frame()
    columns = ["term", "estimate", "std_error", "pvalue"]
    pd.testing.assert_frame_equal(found[columns], plain[columns], rtol=1e-9)


def test_rows_before_the_last_start_do_without_never_treated_units() -> None:
    frame = make_panel(6, n=40)
    frame = frame[frame["first"].notna()]
    with pytest.raises(DataError, match=r"keep the periods before 5.*cohorts 3, 4, 5"):
        analyse(frame, **TIMING)
    early = frame[frame["t"] < 5]
    as_never = early.assign(first=early["first"].where(early["first"] < 5))
    assert_same(analyse(early, **TIMING), by_hand(as_never))


def test_a_cohort_without_its_reference_period_is_refused() -> None:
    frame = make_panel(7)
    frame.loc[frame["first"] == 3, "first"] = 1
    with pytest.raises(DataError, match="cohort of 1 is not observed in its reference period"):
        analyse(frame, **TIMING)
    with pytest.raises(DataError, match="cohort of 1 is treated in every period"):
        analyse(frame, **LAGS)


def test_row_weights_are_refused() -> None:
    with pytest.raises(SpecError, match="weight goes with"):
        analyse(make_panel(8), **TIMING, weight="w")


def effects_that_differ(seed: int, *, n: int = 120) -> tuple[pd.DataFrame, float]:
    """Early starters gain more and ever more; the mean effect per treated unit-period."""
    rng = np.random.default_rng(seed)
    unit, t = np.repeat(np.arange(n), 8), np.tile(np.arange(1, 9), n)
    first = np.where(unit % 4 == 0, np.nan, 3.0 + unit % 3)
    elapsed = t - first
    effect = np.where(elapsed >= 0, (6 - first) * 0.5 + 0.5 * elapsed, 0.0)
    noise = rng.normal(size=n)[unit] + rng.normal(size=len(t))
    frame = pd.DataFrame({"id": unit, "t": t, "first": first, "y": effect + 0.1 * t + noise})
    return frame, float(effect[elapsed >= 0].mean())


@pytest.mark.parametrize(
    ("n_worlds", "band"),
    [
        pytest.param(60, (0.85, 1.0), id="quick"),
        pytest.param(500, (0.92, 0.98), id="long", marks=pytest.mark.validation),
    ],
)
def test_intervals_cover_where_those_of_one_coefficient_do_not(
    n_worlds: int, band: tuple[float, float]
) -> None:
    covered = {"sun_abraham": 0, "etwfe": 0, "twfe": 0}
    leads = 0
    for seed in range(n_worlds):
        frame, truth = effects_that_differ(seed)
        for estimator in covered:
            options = {**TIMING, "estimator": estimator}
            result = analyse(frame, **options)
            effect = result.effects[0]
            covered[estimator] += effect.ci_lower <= truth <= effect.ci_upper
            if estimator == "sun_abraham":
                test = next(d for d in result.diagnostics if d.name == "pre_trend")
                assert test.pvalue is not None
                leads += test.pvalue < 0.05
    for estimator in ("sun_abraham", "etwfe"):
        assert band[0] <= covered[estimator] / n_worlds <= band[1]
    assert covered["twfe"] / n_worlds < 0.2
    assert leads / n_worlds < 0.13


@pytest.mark.parametrize("cluster", ["id", "region"])
def test_sun_abraham_without_a_cohort_is_the_analysis_without_its_rows(cluster: str) -> None:
    """Compared with the never treated alone, a cohort says nothing of the others."""
    frame = make_panel(21, n=60)
    options = {
        "estimator": "sun_abraham", "first_treated_period": "first", "small_sample": "none",
        **({} if cluster == "id" else {"cluster": cluster}),
    }  # fmt: skip
    table = analyse(frame, **options).tables["stability"].set_index("variant")
    assert len(table) == 4
    for start in (3, 4, 5):
        rest = frame[frame["first"] != start]
        expected = next(e for e in analyse(rest, **options).effects if e.term == "average post")
        row = table.loc[f"without the cohort of {start}"]
        np.testing.assert_allclose(
            (row["estimate"], row["std_error"]), (expected.estimate, expected.std_error), rtol=1e-9
        )
