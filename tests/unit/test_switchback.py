"""Switchbacks: the digits of statsmodels on raw rows, wash-outs by hand, and what is refused."""

import doctest
from typing import Any

import numpy as np
import pandas as pd
import patsy
import pytest
import statsmodels.formula.api as smf

from causal.core import registry
from causal.core.errors import CausalError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Effect, Result
from causal.core.spec import validate
from causal.quasi.geo import returns, switchback_layout
from causal.quasi.geo.switchback_fit import effects_basis, taken_out
from causal.quasi.geo.switchback_layout import assign_blocks

OPTIONS: dict[str, Any] = {
    "unit": "city", "period": "hour", "outcome": "wait", "treatment": "surge", "block_length": 4,
    "season": 12, "randomisation_draws": 0,
}  # fmt: skip
RAW = {"aggregate": "mean", "weighting": "rows"}
CR1 = {"cluster_correction": "cr1"}


def cells(*, seed: int = 3, n_cities: int = 5, n_hours: int = 96) -> pd.DataFrame:
    """One row per city and hour."""
    rng = np.random.default_rng(seed)
    surge = rng.integers(0, 2, (n_cities, n_hours // 4)).repeat(4, axis=1)
    hour = np.tile(np.arange(n_hours), n_cities)
    level = rng.normal(9, 2, n_cities).repeat(n_hours) + np.sin(hour * np.pi / 6)
    shock = rng.normal(size=(n_cities, n_hours // 4)).repeat(4, axis=1)
    noise = shock + rng.normal(size=surge.shape)
    return pd.DataFrame(
        {
            "city": [f"c{i}" for i in np.arange(n_cities).repeat(n_hours)], "hour": hour,
            "surge": surge.ravel(), "wait": level - 0.8 * surge.ravel() + noise.ravel(),
        }
    )  # fmt: skip


def raw_rows(*, seed: int = 3) -> pd.DataFrame:
    """Several rows per city and hour, none in some."""
    rng = np.random.default_rng(seed)
    base = cells(seed=seed)
    rows = base.loc[base.index.repeat(rng.poisson(2.0, len(base)))].reset_index(drop=True)
    return rows.assign(wait=rows["wait"] + rng.normal(size=len(rows)))


def analyse(frame: pd.DataFrame, **options: Any) -> Result:
    module = registry.method("switchback")
    chosen = {name: v for name, v in {**OPTIONS, **options}.items() if v is not None}
    data = {"name": "x", "source": {"table": "t"}, "method": "switchback", "seed": 1}
    spec = validate(module.SPEC, {**data, "options": chosen})
    return run(module.estimate(spec), PandasEngine(frame))


def effect(result: Result) -> Effect:
    return result.effects[0]


def check(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


def fitted(frame: pd.DataFrame, **fit: Any) -> Any:
    rows = frame.assign(season=frame["hour"] % 12)
    return smf.ols("wait ~ surge + C(city) + C(season)", rows).fit(**fit)


def block_of(frame: pd.DataFrame) -> "pd.Series[Any]":
    return frame["city"] + "/" + (frame["hour"] // 4).astype(str)


def by_cluster(frame: pd.DataFrame, groups: "pd.Series[Any]") -> Any:
    return fitted(frame, cov_type="cluster", cov_kwds={"groups": pd.factorize(groups)[0]})


def assert_same(found: Effect, reference: Any, *, factor: float = 1.0) -> None:
    assert found.estimate == pytest.approx(reference.params["surge"], rel=1e-9)
    assert found.std_error == pytest.approx(factor * reference.bse["surge"], rel=1e-9)


def test_clusters_by_block_are_statsmodels_on_raw_rows() -> None:
    frame = raw_rows()
    found = effect(analyse(frame, **RAW, **CR1))

    assert_same(found, by_cluster(frame, block_of(frame)))
    assert found.n_clusters == block_of(frame).nunique()
    assert found.df == found.n_clusters - 1


def test_clusters_by_region_and_day_are_statsmodels_on_raw_rows() -> None:
    frame = raw_rows()
    days = frame["city"] + "/" + (frame["hour"] // 24).astype(str)

    found = effect(analyse(frame, **RAW, covariance="region_day", **CR1))

    assert_same(found, by_cluster(frame, days))


def test_effects_of_regions_are_not_counted_where_these_are_the_clusters() -> None:
    frame = raw_rows()
    reference = by_cluster(frame, frame["city"])
    n, k, n_cities = len(frame), len(reference.params), frame["city"].nunique()

    found = effect(analyse(frame, **RAW, covariance="region", **CR1))

    assert_same(found, reference, factor=np.sqrt((n - k) / (n - k + n_cities - 1)))


def test_cells_that_count_the_same_are_a_regression_of_means() -> None:
    frame = raw_rows()
    means = frame.groupby(["city", "hour"], as_index=False)[["surge", "wait"]].mean()

    found = effect(analyse(frame, aggregate="mean", **CR1))

    assert_same(found, by_cluster(means, block_of(means)))
    assert found.n_treated + found.n_control == len(means)


def test_sums_are_a_regression_of_sums() -> None:
    frame = raw_rows()
    sums = frame.groupby(["city", "hour"], as_index=False).agg({"surge": "first", "wait": "sum"})

    assert_same(effect(analyse(frame, aggregate="sum", **CR1)), by_cluster(sums, block_of(sums)))


def test_newey_west_is_statsmodels_within_regions() -> None:
    frame = cells()
    kwds = {"groups": pd.factorize(frame["city"])[0], "maxlags": 6}
    reference = fitted(frame, cov_type="hac-panel", cov_kwds=kwds)

    found = effect(analyse(frame, covariance="newey_west", lags=6))

    assert_same(found, reference)
    assert found.n_clusters is None


def test_driscoll_kraay_is_statsmodels_on_raw_rows_but_for_the_factor() -> None:
    frame = raw_rows().sort_values("hour").reset_index(drop=True)
    kwds = {"time": frame["hour"].to_numpy(), "maxlags": 5, "use_correction": False}
    reference = fitted(frame, cov_type="hac-groupsum", cov_kwds=kwds)
    n, k, n_hours = len(frame), len(reference.params), frame["hour"].nunique()

    found = effect(analyse(frame, **RAW, covariance="driscoll_kraay", lags=5))

    factor = np.sqrt(n_hours / (n_hours - 1) * (n - 1) / (n - k))
    assert_same(found, reference, factor=factor)


def test_a_difference_in_means_and_effects_of_periods() -> None:
    frame = cells()
    groups = pd.factorize(block_of(frame))[0]
    plain = smf.ols("wait ~ surge", frame).fit(cov_type="cluster", cov_kwds={"groups": groups})
    periods = smf.ols("wait ~ surge + C(city) + C(hour)", frame).fit(
        cov_type="cluster", cov_kwds={"groups": groups}
    )

    assert_same(effect(analyse(frame, season=None, fixed_effects=[], **CR1)), plain)
    both = effect(analyse(frame, season=None, fixed_effects=["region", "period"], **CR1))
    assert_same(both, periods)


def washed(frame: pd.DataFrame, k: int) -> pd.DataFrame:
    """What is left by hand: each hour whose k hours before are known and alike."""
    known = {
        (city, block): surge
        for city, block, surge in zip(
            frame["city"], frame["hour"] // 4, frame["surge"], strict=True
        )
    }

    def stays(row: Any) -> bool:
        past = [known.get((row.city, (row.hour - lag) // 4)) for lag in range(1, k + 1)]
        return all(value == row.surge for value in past)

    return frame[[stays(row) for row in frame.itertuples()]]


@pytest.mark.parametrize("wash_out", [1, 2, 3])
def test_a_wash_out_leaves_what_is_left_by_hand(wash_out: int) -> None:
    frame = raw_rows()
    left = washed(frame, wash_out)
    n_before = frame.groupby(["city", "hour"]).ngroups
    n_after = left.groupby(["city", "hour"]).ngroups

    result = analyse(frame, **RAW, wash_out=wash_out, covariance="block", **CR1)

    assert_same(effect(result), by_cluster(left, block_of(left)))
    counts = [check(result, name).statistic for name in ("wash_out", "unknown_past")]
    assert sum(count or 0 for count in counts) == n_before - n_after
    assert (
        counts[1] == (frame["hour"] < wash_out).groupby([frame["city"], frame["hour"]]).any().sum()
    )
    by_length = result.tables["by_wash_out"]
    chosen = by_length[by_length["is_chosen"]].iloc[0]
    assert chosen["estimate"] == effect(result).estimate


def test_neighbours_add_what_blocks_share_with_those_before() -> None:
    frame = raw_rows()
    left = washed(frame, 2)
    reference = by_cluster(left, block_of(left))
    plain = fitted(left)
    x = plain.model.exog
    keys = [left["city"].to_numpy(), (left["hour"] // 4).to_numpy()]
    scores = pd.DataFrame(x * plain.resid.to_numpy()[:, None]).groupby(keys).sum()
    sums = {(key[0], key[1]): row.to_numpy() for key, row in scores.iterrows()}
    across = sum(
        np.outer(sums[city, block - 1], row)
        for (city, block), row in sums.items()
        if (city, block - 1) in sums
    )
    bread = np.linalg.inv(x.T @ x)
    at = list(plain.params.index).index("surge")
    (n, k), g = x.shape, len(sums)
    shared = (bread @ (across + across.T) @ bread)[at, at] * g / (g - 1) * (n - 1) / (n - k)

    found = effect(analyse(frame, **RAW, **CR1, wash_out=2))

    assert found.estimate == pytest.approx(reference.params["surge"], rel=1e-9)
    expected = reference.bse["surge"] ** 2 + max(shared, 0.0)
    assert found.std_error**2 == pytest.approx(expected, rel=1e-9)


def dense_cr2(
    design: Any, outcome: Any, groups: Any, *, weights: Any, pairs: list[tuple[Any, Any]]
) -> tuple[float, float]:
    """Variance and degrees of freedom of the last coefficient, as Pustejovsky and Tipton write it.

    `V = sum over g of M X_g' W A_g e_g e_g' A_g W X_g M`, `A_g` the symmetric solution of
    `A (I - H)_g Phi (I - H)_g' A = Phi_g` for the working covariance `Phi = W^-1`.
    """
    n = len(outcome)
    root = np.sqrt(weights)
    x, y = root[:, None] * design, root * outcome
    hat = x @ np.linalg.pinv(x)
    left = np.eye(n) - hat
    bread = np.linalg.pinv(x.T @ x)
    names = pd.unique(groups)
    contrasts = {}
    for name in names:
        own = np.flatnonzero(groups == name)
        values, vectors = np.linalg.eigh(left[np.ix_(own, own)])
        power = np.array([v**-0.5 if v > 1e-8 else 0.0 for v in values])
        corrected = np.zeros(n)
        corrected[own] = vectors @ np.diag(power) @ vectors.T @ x[own] @ bread[:, -1]
        contrasts[name] = left @ corrected
    stacked = np.stack([contrasts[name] for name in names])
    form = np.eye(len(names))
    number = {name: at for at, name in enumerate(names)}
    for one, other in pairs:
        form[number[one], number[other]] = form[number[other], number[one]] = 1.0
    added = stacked @ y
    if added @ form @ added <= added @ added:
        form = np.eye(len(names))
    product = form @ (stacked @ stacked.T)
    df = np.trace(product) ** 2 / np.trace(product @ product)
    return float(added @ form @ added), float(df)


DENSE: list[tuple[dict[str, Any], str]] = [
    ({**RAW}, "city + C(season)"),
    ({"aggregate": "mean"}, "city + C(season)"),
    ({**RAW, "covariance": "region_day"}, "city + C(season)"),
    ({**RAW, "covariance": "region"}, "city + C(season)"),
    ({**RAW, "covariance": "region", "fixed_effects": ["region", "period"], "season": None},
     "city + C(hour)"),
    ({**RAW, "fixed_effects": ["region", "period"], "season": None}, "city + C(hour)"),
    ({**RAW, "fixed_effects": ["season"], "wash_out": 1}, "C(season)"),
    ({**RAW, "fixed_effects": [], "season": None}, "1"),
    ({**RAW, "wash_out": 2}, "city + C(season)"),
    ({**RAW, "weight": "w"}, "city + C(season)"),
    ({"aggregate": "mean", "wash_out": 3}, "city + C(season)"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "effects"), DENSE)
def test_cr2_and_its_degrees_of_freedom_are_those_of_dense_matrices(
    given: dict[str, Any], effects: str
) -> None:
    """On raw rows, where the analysis counts these."""
    wash_out = given.get("wash_out", 0)
    rows = raw_rows()
    rows = rows.assign(w=np.random.default_rng(2).uniform(0.5, 2.0, len(rows)))
    left = washed(rows, wash_out) if wash_out else rows
    if "weighting" not in given:
        left = left.groupby(["city", "hour"], as_index=False)[["surge", "wait"]].mean()
    left = left.assign(season=left["hour"] % 12)
    design = patsy.dmatrix(f"{effects} + surge", left)
    keys = {"region": left["city"], "region_day": left["city"] + (left["hour"] // 24).astype(str)}
    groups = keys.get(str(given.get("covariance")), block_of(left)).to_numpy()
    pairs = []
    if wash_out:
        known = set(groups)
        for name in known:
            city, block = name.split("/")
            if f"{city}/{int(block) - 1}" in known:
                pairs.append((f"{city}/{int(block) - 1}", name))

    variance, df = dense_cr2(
        design,
        left["wait"].to_numpy(),
        groups,
        weights=left["w"].to_numpy() if "weight" in given else np.ones(len(left)),
        pairs=pairs,
    )
    found = effect(analyse(rows, **given))

    assert found.std_error**2 == pytest.approx(variance, rel=1e-9)
    assert found.df == pytest.approx(df, rel=1e-9)
    assert found.n_clusters == len(set(groups))


def test_a_column_of_blocks_is_as_good_as_their_length() -> None:
    frame = cells().assign(block=lambda f: (f["hour"] // 4).astype(str))

    one = effect(analyse(frame, block_length=None, block="block", wash_out=2))
    other = effect(analyse(frame, wash_out=2))

    assert one.estimate == pytest.approx(other.estimate, rel=1e-12)
    assert one.std_error == pytest.approx(other.std_error, rel=1e-12)


def test_regions_that_switch_together_are_clustered_by_block_in_time() -> None:
    frame = cells()
    first = frame[frame["city"] == "c0"].set_index("hour")["surge"]
    frame = frame.assign(surge=frame["hour"].map(first))

    found = effect(analyse(frame, randomised_by="block", **CR1))

    assert_same(found, by_cluster(frame, frame["hour"] // 4))
    with pytest.raises(CausalError, match="same treatment in every period"):
        analyse(frame)


@pytest.mark.parametrize("n_groups", [1, 2])
def test_effects_of_groups_are_those_of_dummies(n_groups: int) -> None:
    """Unbalanced, weighted, and falling into parts that share no group."""
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 6, 80), rng.integers(0, 11, 80)
    one[other > 7] = 7
    other[(one == 7) & (other <= 7)] = 9
    groups = (one, other)[:n_groups]
    columns, weights = rng.normal(5, 1, (80, 2)), rng.uniform(0.5, 2, 80)
    dummies = np.column_stack([np.eye(12)[codes] for codes in groups])
    root = np.sqrt(weights)[:, None]
    slopes = np.linalg.lstsq(root * dummies, root * columns, rcond=None)[0]

    basis = effects_basis(weights, groups)
    found = taken_out(columns, weights, basis)

    np.testing.assert_allclose(found, columns - dummies @ slopes, atol=1e-11)
    assert basis.rank == np.linalg.matrix_rank(dummies)


def test_time_without_cells_passes_in_serial_errors() -> None:
    """An hour that is missing everywhere is a step in time, not a pair of neighbours."""
    frame = cells()[lambda f: ~f["hour"].isin([13, 14, 50])]
    reference = fitted(frame)
    x = reference.model.exog
    scores = pd.DataFrame(x * reference.resid.to_numpy()[:, None])
    sums = scores.groupby(frame["hour"].to_numpy()).sum().reindex(range(96)).fillna(0.0).to_numpy()
    meat = sums.T @ sums
    for lag in range(1, 4):
        across = sums[lag:].T @ sums[:-lag]
        meat += (1 - lag / 4) * (across + across.T)
    bread = np.linalg.inv(x.T @ x)
    n, k = x.shape
    variance = (bread @ meat @ bread)[1:, 1:]
    at = list(reference.params.index).index("surge") - 1
    expected = np.sqrt(variance[at, at] * 93 / 92 * (n - 1) / (n - k))

    found = effect(analyse(frame, covariance="driscoll_kraay", lags=3))

    assert found.std_error == pytest.approx(expected, rel=1e-9)


def test_the_block_before_is_tested_for_carry_over() -> None:
    frame = cells()
    known = frame.set_index(["city", "hour"])["surge"]
    before = [
        known.get((city, 4 * (hour // 4) - 1))
        for city, hour in zip(frame["city"], frame["hour"], strict=True)
    ]
    rows = frame.assign(before=before, season=frame["hour"] % 12).dropna()
    reference = smf.ols("wait ~ surge + before + C(city) + C(season)", rows).fit(
        cov_type="cluster", cov_kwds={"groups": pd.factorize(block_of(rows))[0]}
    )

    found = check(analyse(frame, **CR1), "carry_over")
    spoilt = frame.assign(wait=frame["wait"] + 2.0 * pd.Series(before).fillna(0.0).to_numpy())

    assert found.statistic == pytest.approx(reference.tvalues["before"], rel=1e-8)
    assert found.passed is True
    assert check(analyse(spoilt), "carry_over").passed is False


def test_the_randomisation_test_agrees_with_large_and_absent_effects() -> None:
    frame = cells()
    none = frame.assign(wait=frame["wait"] + 0.8 * frame["surge"])

    large = check(analyse(frame, randomisation_draws=199), "randomisation_test").pvalue
    absent = check(analyse(none, randomisation_draws=199), "randomisation_test").pvalue
    permuted = check(
        analyse(frame, randomisation_draws=199, randomisation="permute"), "randomisation_test"
    ).pvalue

    assert large == permuted == pytest.approx(1 / 200)
    assert absent is not None
    assert absent > 0.05


def test_assignments_by_hash_repeat_and_differ_by_salt() -> None:
    regions = [f"city {i}" for i in range(40)]
    one = assign_blocks(regions, n_blocks=50, block_length=6, salt=1)
    other = assign_blocks(regions, n_blocks=50, block_length=6, salt=2)
    fewer = assign_blocks(regions[5:9], n_blocks=50, block_length=6, salt=1, treated_share=0.2)

    pd.testing.assert_frame_equal(one, assign_blocks(regions, n_blocks=50, block_length=6, salt=1))
    assert abs(one["treatment"].mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)
    assert abs(np.corrcoef(one["treatment"], other["treatment"])[0, 1]) < 4 / np.sqrt(2000)
    # A smaller share treats a part of what a larger one does; other regions do not matter.
    same = one[one["region"].isin(regions[5:9])]["treatment"].to_numpy()
    assert (fewer["treatment"].to_numpy() <= same).all()
    assert (one["last_period"] - one["first_period"] == 5).all()
    lag = one.groupby("region")["treatment"].shift()
    assert abs(one["treatment"].corr(lag)) < 4 / np.sqrt(2000)


@pytest.mark.parametrize(
    "arguments",
    [
        {"regions": []},
        {"regions": ["a", "a"]},
        {"n_blocks": 0},
        {"treated_share": 1.0},
    ],
)
def test_designs_that_cannot_be_meant(arguments: dict[str, Any]) -> None:
    given = {"regions": ["a"], "n_blocks": 2, "block_length": 3, "salt": 0, **arguments}
    with pytest.raises(SpecError):
        assign_blocks(**given)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"block": "b"}, "exactly one of block_length and block"),
        ({"wash_out": 4}, "leaves nothing of blocks"),
        ({"season": None}, "season .* goes with fixed effects"),
        ({"fixed_effects": ["season", "period"]}, "season or period"),
        ({"lags": 3}, "lags go with"),
        ({"covariance": "newey_west", "cluster_correction": "cr2"}, "goes with clustered errors"),
        ({"randomised_by": "block", "covariance": "region"}, "takes regions for independent"),
        ({"weighting": "rows"}, "needs aggregate: mean"),
        ({"randomisation": "permute", "treated_share": 0.3}, "goes with randomisation: bernoulli"),
        ({"treatment": "wait"}, "two roles"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        analyse(cells(), **options)


@pytest.mark.parametrize(
    ("frame", "options", "says"),
    [
        (cells(), {"block_length": 5}, "changes within what is randomised"),
        (cells().assign(surge=1), {}, "same in every block"),
        (cells().assign(surge=lambda f: 2 * f["surge"]), {}, "must be 0 or 1"),
        (cells().assign(hour=lambda f: f["hour"] + 0.5), {}, "whole numbers"),
        (raw_rows(), {}, "more than one row"),
        (cells(), {"covariance": "region_day", "day_length": 6}, "reach over the end of a day"),
        (cells(n_cities=1, n_hours=8), {"wash_out": 3}, "treat|periods|block"),
    ],
)
def test_data_that_cannot_carry_the_analysis(
    frame: pd.DataFrame, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(CausalError, match=says):
        analyse(frame, **options)


def test_rows_without_a_value_are_counted() -> None:
    frame = cells()
    frame.loc[[5, 9], "wait"] = np.nan
    frame["surge"] = frame["surge"].astype(float)
    frame.loc[11, "surge"] = np.nan

    assert check(analyse(frame), "n_missing").statistic == 3


def test_absent_hours_and_regions_that_never_move_are_named() -> None:
    whole = cells()
    names = {item.name for item in analyse(whole).diagnostics}
    assert not names & {"n_absent", "constant_regions"}

    still = whole.assign(wait=whole["wait"].mask(whole["city"] == "c1", 3.0))
    found = analyse(still[still["hour"] != 5])
    assert check(found, "n_absent").statistic == whole["city"].nunique()
    assert check(found, "constant_regions").detail.endswith("c1")


@pytest.mark.parametrize("module", [switchback_layout, returns])
def test_the_examples_of_the_docstrings_run(module: Any) -> None:
    found = doctest.testmod(module)

    assert found.attempted > 0
    assert found.failed == 0
