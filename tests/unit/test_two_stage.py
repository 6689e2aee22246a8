"""Two-stage difference in differences: equal to pyfixest's `did2s` and to dense matrices."""

import warnings

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from causal.core.errors import DataError, SpecError
from causal.core.result import Result
from tests.unit.test_cohort_effects import effects_that_differ
from tests.unit.test_did_parity import analyse, make_panel

TIMING = {"estimator": "two_stage", "first_treated_period": "first"}


def by_hand(
    frame: pd.DataFrame, *, cluster: str, anticipation: int = 0
) -> dict[str, tuple[float, float]]:
    """Both stages with a dummy for every unit and period, and the GMM sandwich of dense rows."""
    elapsed = (frame["t"] - frame["first"]).to_numpy()
    treated = elapsed >= -anticipation
    units, periods = (pd.get_dummies(frame[name], dtype=float).to_numpy() for name in ("id", "t"))
    x1 = np.column_stack([units, periods])
    x10 = np.where(treated[:, None], 0.0, x1)
    y = frame["y"].to_numpy()
    first = np.linalg.lstsq(x10, np.where(treated, 0.0, y), rcond=None)[0]
    rest = y - x1 @ first
    times = np.unique(elapsed[treated])
    designs = {
        "average post": treated[:, None].astype(float),
        "events": np.column_stack([(elapsed == k).astype(float) for k in times]),
    }
    found = {}
    for name, x2 in designs.items():
        b = np.linalg.lstsq(x2, rest, rcond=None)[0]
        scores = x2 * (rest - x2 @ b)[:, None]
        link = x2.T @ x1 @ np.linalg.pinv(x10.T @ x10, hermitian=True)
        scores -= (x10 * rest[:, None]) @ link.T
        sums = pd.DataFrame(scores).groupby(frame[cluster].to_numpy()).sum().to_numpy()
        bread = np.linalg.inv(x2.T @ x2)
        errors = np.sqrt(np.diag(bread @ sums.T @ sums @ bread))
        names = [name] if name == "average post" else [f"event_time={int(k)}" for k in times]
        found |= {n: (v, e) for n, v, e in zip(names, b, errors, strict=True)}
    return found


def assert_same(result: Result, expected: dict[str, tuple[float, float]], *, rtol: float) -> None:
    found = {e.term: (e.estimate, e.std_error) for e in result.effects}
    assert set(found) == set(expected)
    for term, pair in expected.items():
        np.testing.assert_allclose(found[term], pair, rtol=rtol, err_msg=term)


@pytest.mark.parametrize("cluster", ["id", "region"])
@pytest.mark.parametrize("anticipation", [0, 1])
def test_dense_matrices_give_the_same(cluster: str, anticipation: int) -> None:
    frame = make_panel(3, n=48, n_periods=8, level=1e4)
    given = {} if cluster == "id" else {"cluster": cluster}
    found = analyse(
        frame, **TIMING, **given, anticipation=anticipation, small_sample="none"
    )  # fmt: skip
    expected = by_hand(frame, cluster=cluster, anticipation=anticipation)
    assert_same(found, expected, rtol=1e-9)


@pytest.mark.parametrize("cluster", ["id", "region"])
def test_pyfixest_gives_the_same(cluster: str) -> None:
    frame = make_panel(4, n=48)
    frame["elapsed"] = (frame["t"] - frame["first"]).where(frame["d"] == 1, -1.0)
    coded = frame.assign(region=frame["region"].str[1:].astype(int), d=frame["d"].astype(bool))
    expected = {}
    for second, names in (("~ d", None), ("~ i(elapsed, ref = -1.0)", "event_time={:.0f}")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = pf.did2s(
                coded.copy(), yname="y", first_stage="~ 0 | id + t", second_stage=second,
                treatment="d", cluster=cluster,
            )  # fmt: skip
            table = fit.tidy()
        for k, row in enumerate(table.itertuples()):
            name = "average post" if names is None else names.format(k)
            expected[name] = (row.Estimate, row._2)
    given = {} if cluster == "id" else {"cluster": cluster}
    assert_same(analyse(frame, **TIMING, **given, small_sample="none"), expected, rtol=1e-6)


def test_the_factor_is_that_of_the_other_estimators() -> None:
    frame = make_panel(5)
    plain = analyse(frame, **TIMING, cluster="region", small_sample="none").effects[0]
    found = analyse(frame, **TIMING, cluster="region").effects[0]
    n, k, g = len(frame), 1 + 6, 7
    factor = g / (g - 1) * (n - 1) / (n - k)
    assert found.std_error == pytest.approx(plain.std_error * np.sqrt(factor), rel=1e-12)
    assert found.df == g - 1


def test_points_are_those_of_imputation() -> None:
    frame = make_panel(6, n=40)
    two = {e.term: e.estimate for e in analyse(frame, **TIMING).effects}
    lags = analyse(frame, estimator="etwfe", first_treated_period="first").effects
    assert two == pytest.approx({e.term: e.estimate for e in lags}, rel=1e-9)


@pytest.mark.parametrize("cluster", ["id", "region"])
@pytest.mark.parametrize("anticipation", [0, 1])
@pytest.mark.parametrize("is_level_high", [False, True])
def test_units_that_lack_periods_are_those_of_dense_matrices(
    cluster: str,
    anticipation: int,
    is_level_high: bool,  # noqa: FBT001
) -> None:
    frame = make_panel(11, n=60, n_periods=8, missing=0.3, level=1e6 if is_level_high else 0.0)
    given = {} if cluster == "id" else {"cluster": cluster}
    found = analyse(frame, **TIMING, **given, anticipation=anticipation, small_sample="none")
    whole, n_lost = with_an_untreated_row(frame, anticipation=anticipation)
    expected = by_hand(whole, cluster=cluster, anticipation=anticipation)
    assert_same(found, expected, rtol=1e-6 if is_level_high else 1e-9)
    assert n_lost > 0
    said = {d.name: d.statistic for d in found.diagnostics}
    assert said["only_treated"] == n_lost
    sizes = frame.groupby("id").size()
    assert said["n_incomplete"] == (sizes < 8).sum()
    assert found.params["n_rows"] == len(whole)


def with_an_untreated_row(
    frame: pd.DataFrame, *, anticipation: int = 0
) -> tuple[pd.DataFrame, int]:
    """Rows of the units that have an untreated one, and how many units have none."""
    untreated = ~(frame["t"] - frame["first"] >= -anticipation)
    has_one = untreated.groupby(frame["id"]).transform("any")
    return frame[has_one].reset_index(drop=True), frame.loc[~has_one, "id"].nunique()


@pytest.mark.parametrize("cluster", ["id", "region"])
def test_pyfixest_gives_the_same_where_units_lack_periods(cluster: str) -> None:
    """pyfixest leaves out a unit's only row of a stage and then stops: units have two untreated."""
    frame = make_panel(12, n=60, missing=0.2)
    untreated = frame["d"] == 0
    frame = frame[untreated.groupby(frame["id"]).transform("sum") > 1].reset_index(drop=True)
    assert frame.groupby("id").size().nunique() > 2
    coded = frame.assign(region=frame["region"].str[1:].astype(int), d=frame["d"].astype(bool))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = pf.did2s(
            coded, yname="y", first_stage="~ 0 | id + t", second_stage="~ d", treatment="d",
            cluster=cluster,
        )  # fmt: skip
        (row,) = fit.tidy().itertuples()
    given = {} if cluster == "id" else {"cluster": cluster}
    found = analyse(frame, **TIMING, **given, small_sample="none").effects[0]
    np.testing.assert_allclose((found.estimate, found.std_error), (row.Estimate, row._2), rtol=1e-6)


@given(st.integers(0, 10_000), st.floats(0.02, 0.5), st.sampled_from(["id", "region"]))
@settings(max_examples=20, deadline=None)
def test_any_gaps_are_those_of_dense_matrices(seed: int, missing: float, cluster: str) -> None:
    frame, _ = with_an_untreated_row(make_panel(seed, n=40, missing=missing))
    given_ = {} if cluster == "id" else {"cluster": cluster}
    try:
        found = analyse(frame, **TIMING, **given_, small_sample="none")
    except DataError:
        reject()
    assert_same(found, by_hand(frame, cluster=cluster), rtol=1e-7)


def test_a_coded_start_and_a_group_tell_the_same_of_units_that_lack_periods() -> None:
    frame = make_panel(13, n=60, missing=0.2)
    frame = frame[frame["first"].isna() | (frame["first"] == 4)]
    plain = analyse(frame, **TIMING, cluster="region").effects
    coded = analyse(
        frame.assign(first=frame["first"].fillna(-1)), **TIMING, never_treated_value=-1,
        cluster="region",
    )  # fmt: skip
    grouped = analyse(
        frame.assign(ever=frame["first"].notna().astype(float)), estimator="two_stage",
        group="ever", treatment_period=4, cluster="region",
    )  # fmt: skip
    for other in (coded, grouped):
        for one, two in zip(plain, other.effects, strict=True):
            assert (one.term, one.n_treated) == (two.term, two.n_treated)
            assert (one.estimate, one.std_error) == pytest.approx(
                (two.estimate, two.std_error), rel=1e-12
            )


def test_rows_without_a_cluster_are_refused_not_dropped() -> None:
    frame = make_panel(14, n=60, missing=0.2)
    lost = frame.assign(region=frame["region"].where(frame.index != frame.index[3]))
    with pytest.raises(DataError, match=r"region.* (is null|must not change)"):
        analyse(lost, **TIMING, cluster="region")


def test_balanced_leaves_out_units_that_lack_periods_and_counts_them() -> None:
    frame = make_panel(7, n=60, missing=0.05)
    whole = frame[frame.groupby("id")["t"].transform("size") == 6]
    found = analyse(frame, **TIMING, balanced=True, cluster="region", small_sample="none")
    assert_same(found, by_hand(whole, cluster="region"), rtol=1e-9)
    left_out = next(d for d in found.diagnostics if d.name == "n_incomplete")
    assert left_out.statistic == frame["id"].nunique() - whole["id"].nunique()


def test_what_the_untreated_rows_cannot_tell_is_refused() -> None:
    frame = make_panel(8, n=40)
    everyone = frame[frame["first"].notna()]
    with pytest.raises(DataError, match=r"no unit is untreated in period 5.*periods before it"):
        analyse(everyone, **TIMING)
    early = everyone[everyone["t"] < 5]
    expected = by_hand(early.assign(first=early["first"].where(early["first"] < 5)), cluster="id")
    assert_same(analyse(early, **TIMING, small_sample="none"), expected, rtol=1e-9)
    frame.loc[frame["first"] == 3, "first"] = 1
    with pytest.raises(DataError, match="cohort of 1 is treated in every period"):
        analyse(frame, **TIMING)


@pytest.mark.parametrize(
    "given", [{"covariance": "CR3"}, {"cluster": ["id", "t"]}, {"covariates": ["x"]}]
)
def test_what_it_has_no_errors_for_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=r"two_stage|covariates goes with"):
        analyse(make_panel(9), **TIMING, **given)


def test_intervals_cover_effects_that_differ() -> None:
    n_worlds, covered = 200, 0
    for seed in range(n_worlds):
        frame, truth = effects_that_differ(seed)
        effect = analyse(frame, **TIMING).effects[0]
        covered += effect.ci_lower <= truth <= effect.ci_upper
    assert 0.90 <= covered / n_worlds <= 0.985
