"""Errors of imputation: equal to the formulas of Borusyak, Jaravel and Spiess on dense rows."""

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import DataError, SpecError
from tests.unit.test_cohort_effects import effects_that_differ
from tests.unit.test_did_parity import analyse, make_panel
from tests.unit.test_two_stage import assert_same, with_an_untreated_row

TIMING = {"estimator": "imputation", "first_treated_period": "first"}


def by_hand(
    frame: pd.DataFrame,
    *,
    cluster: str,
    anticipation: int = 0,
    leave_out: bool = False,
    weights: dict[str, np.ndarray] | None = None,
) -> dict[str, tuple[float, float]]:
    """Weights v of every row in each effect, and residuals around means of cohort and period."""
    elapsed = (frame["t"] - frame["first"]).to_numpy()
    treated = elapsed >= -anticipation
    x = pd.get_dummies(frame[["id", "t"]].astype(str), dtype=float).to_numpy()
    y = frame["y"].to_numpy()
    first = np.linalg.lstsq(x[~treated], y[~treated], rcond=None)[0]
    rest = y - x @ first
    rows = frame.assign(rest=rest, cluster=frame[cluster])
    found = {}
    picks = {"average post": treated}
    picks |= {f"event_time={int(k)}": elapsed == k for k in np.unique(elapsed[treated])}
    wanted = {name: pick / pick.sum() for name, pick in picks.items()}
    for name, asked in (wanted if weights is None else weights).items():
        v = asked.copy()
        reach = np.linalg.pinv(x[~treated].T @ x[~treated], hermitian=True) @ (x.T @ v)
        v[~treated] = -x[~treated] @ reach
        left = rest.copy()
        for _, group in rows[treated].groupby(["first", "t"]):
            at = group.index.to_numpy()
            for i in at:
                others = at[group["cluster"] != rows["cluster"][i]] if leave_out else at
                weight = v[others] ** 2
                if weight.sum() > 0:
                    left[i] = rest[i] - weight @ rest[others] / weight.sum()
        sums = pd.Series(v * left).groupby(frame[cluster].to_numpy()).sum()
        found[name] = (float(v @ y), float(np.sqrt((sums**2).sum())))
    return found


@pytest.mark.parametrize("cluster", ["id", "region"])
@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("anticipation", [0, 1])
def test_dense_rows_give_the_same(
    cluster: str,
    leave_out: bool,  # noqa: FBT001
    anticipation: int,
) -> None:
    frame = make_panel(3, n=48, n_periods=7, level=1e4).reset_index(drop=True)
    given = {} if cluster == "id" else {"cluster": cluster}
    found = analyse(frame, **TIMING, **given, anticipation=anticipation, leave_out=leave_out)
    expected = by_hand(frame, cluster=cluster, anticipation=anticipation, leave_out=leave_out)
    assert_same(found, expected, rtol=1e-7)


@pytest.mark.parametrize("cluster", ["id", "region"])
@pytest.mark.parametrize("leave_out", [False, True])
def test_units_that_lack_periods_are_those_of_dense_rows(
    cluster: str,
    leave_out: bool,  # noqa: FBT001
) -> None:
    frame, _ = with_an_untreated_row(make_panel(15, n=90, n_periods=7, missing=0.2))
    given = {} if cluster == "id" else {"cluster": cluster}
    found = analyse(frame, **TIMING, **given, leave_out=leave_out)
    assert_same(found, by_hand(frame, cluster=cluster, leave_out=leave_out), rtol=1e-7)


def test_it_has_no_factor_unless_asked_for() -> None:
    frame = make_panel(5)
    plain = analyse(frame, **TIMING, cluster="region").effects[0]
    found = analyse(frame, **TIMING, cluster="region", small_sample="cr1").effects[0]
    n, k, g = len(frame), 1 + 6, 7
    factor = g / (g - 1) * (n - 1) / (n - k)
    assert found.std_error == pytest.approx(plain.std_error * np.sqrt(factor), rel=1e-12)


def test_effects_that_differ_between_cohorts_are_no_noise() -> None:
    frame, _ = effects_that_differ(1)
    ours = analyse(frame, **TIMING).effects[0]
    gmm = analyse(frame, **{**TIMING, "estimator": "two_stage"}, small_sample="none").effects[0]
    assert ours.estimate == gmm.estimate
    assert ours.std_error < gmm.std_error


def test_a_cohort_of_one_cluster_is_refused() -> None:
    frame = make_panel(6, n=60)
    alone = frame[(frame["first"] != 3) | (frame["region"] == "r1")]
    assert alone.loc[alone["first"] == 3, "id"].nunique() > 1
    with pytest.raises(DataError, match="in every treated cohort"):
        analyse(alone, **TIMING, cluster="region")
    assert analyse(alone, **TIMING).effects


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"covariance": "CR3"}, "imputation has covariance: cluster"),
        ({"estimator": "two_stage", "leave_out": True}, "leave_out goes with imputation"),
    ],
)
def test_what_it_has_no_errors_for_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        analyse(make_panel(9), **{**TIMING, **given})


def test_intervals_cover_effects_that_differ() -> None:
    n_worlds, covered = 150, {False: 0, True: 0}
    for seed in range(n_worlds):
        frame, truth = effects_that_differ(seed)
        for leave_out in covered:
            effect = analyse(frame, **TIMING, leave_out=leave_out).effects[0]
            covered[leave_out] += effect.ci_lower <= truth <= effect.ci_upper
    assert 0.90 <= covered[False] / n_worlds <= 0.99
    assert covered[True] >= covered[False]


def test_the_pre_trend_test_is_that_of_two_stages() -> None:
    frame = make_panel(5, n=60)
    found = [
        next(
            check
            for check in analyse(
                frame, **{**TIMING, "estimator": estimator}, cluster="region"
            ).diagnostics
            if check.name == "pre_trend"
        )
        for estimator in ("imputation", "two_stage")
    ]
    assert found[0].statistic == pytest.approx(found[1].statistic, rel=1e-9)
    assert found[0].pvalue == pytest.approx(found[1].pvalue, rel=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("cluster", ["id", "region"])
def test_averages_without_each_cohort_are_those_of_dense_rows(missing: float, cluster: str) -> None:
    frame, _ = with_an_untreated_row(make_panel(16, n=90, n_periods=7, missing=missing))
    given = {} if cluster == "id" else {"cluster": cluster}
    result = analyse(frame, **TIMING, **given)
    table = result.tables["stability"].set_index("variant")
    treated, first = (frame["d"] == 1).to_numpy(), frame["first"].to_numpy()
    whole = treated / treated.sum()
    weights = {"as analysed": whole}
    for start in (3, 4, 5):
        kept = treated & (first != start)
        weights[f"without the cohort of {start}"] = kept / kept.sum()
    found = by_hand(frame, cluster=cluster, weights=weights)
    moved = by_hand(
        frame, cluster=cluster, weights={name: v - whole for name, v in weights.items()}
    )
    assert set(table.index) == set(found)
    for name, row in table.iterrows():
        pair = (row["estimate"], row["std_error"])
        np.testing.assert_allclose(pair, found[str(name)], rtol=1e-7, err_msg=str(name))
        if name != "as analysed":
            pair = (row["difference"], row["difference_std_error"])
            np.testing.assert_allclose(pair, moved[str(name)], rtol=1e-6, err_msg=str(name))
    said = next(d for d in result.diagnostics if d.name == "leave_one_cohort_out")
    assert said.statistic == table["difference"].iloc[1:].abs().max() * np.sign(said.statistic)


@pytest.mark.parametrize("estimator", ["imputation", "two_stage", "etwfe", "sun_abraham"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_the_average_as_analysed_is_the_one_reported(estimator: str, missing: float) -> None:
    frame, _ = with_an_untreated_row(make_panel(16, n=90, n_periods=7, missing=missing))
    result = analyse(frame, **{**TIMING, "estimator": estimator}, cluster="region")
    row, average = result.tables["stability"].iloc[0], result.effects[0]
    assert average.term == "average post"
    for name in ("estimate", "std_error", "ci_lower", "ci_upper", "pvalue"):
        assert row[name] == pytest.approx(getattr(average, name), rel=1e-9), name


def test_one_cohort_leaves_nothing_out() -> None:
    frame = make_panel(17)
    one = frame[frame["first"].isna() | (frame["first"] == 4)]
    assert "stability" not in analyse(one, **TIMING).tables
