"""`staggered` given covariates equals the regression on the units' own changes and influence."""

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import DataError, SpecError
from tests.unit.test_staggered_parity import analyse

CONTROLS = ["never_treated", "not_yet_treated"]


def make_panel(
    seed: int, *, n: int = 160, level: float = 0.0, effect: float = 1.0, trend: float = 0.5
) -> pd.DataFrame:
    """Cohorts differ in `x`, on which the trend depends: without it trends are not parallel."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(50, 4, n), rng.normal(size=n)
    chosen = rng.uniform(size=n) + 0.1 * (x - 50) / 4
    first = np.where(chosen < 0.5, np.nan, np.where(chosen < 0.75, 3.0, 4.0))
    unit, t = np.repeat(np.arange(n), 6), np.tile(np.arange(1, 7), n)
    later = t >= np.where(np.isnan(first), np.inf, first)[unit]
    y = trend * (x[unit] - 50) / 4 * t + 0.3 * t + rng.normal(size=n)[unit] + effect * later
    return pd.DataFrame(
        {
            "id": unit, "t": t, "first": first[unit], "x": x[unit], "z": z[unit],
            "region": unit % 20, "y": level + y + rng.normal(size=len(t)),
        }
    )  # fmt: skip


def by_hand(
    frame: pd.DataFrame, *, start: float, at: int, base: int, controls: str, columns: list[str]
) -> tuple[float, pd.Series]:
    """`reg_did_panel` of Sant'Anna and Zhao on one row per unit: effect and influence."""
    paths = frame.pivot(index="id", columns="t", values="y")
    units = frame.drop_duplicates("id").set_index("id")
    change = (paths[at] - paths[base]).to_numpy()
    first = units["first"].to_numpy()
    treated = first == start
    control = np.isnan(first)
    if controls == "not_yet_treated":
        control = (control | (first > max(at, base))) & ~treated
    x = np.column_stack([np.ones(len(units)), units[columns].to_numpy(dtype=float)])
    slope = np.linalg.lstsq(x[control], change[control], rcond=None)[0]
    left = change - x @ slope
    n = len(units)
    share = treated.mean()
    effect = left[treated].mean()
    inverse = np.linalg.inv(x[control].T @ x[control] / n)
    reach = (treated[:, None] * x).mean(axis=0)
    influence = treated * (left - effect) - control * left * (x @ inverse @ reach)
    return float(effect), pd.Series(influence / share / n, index=units.index)


@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize("columns", [["x"], ["x", "z"]])
@pytest.mark.parametrize("cluster", [None, "region"])
def test_the_units_own_influence_gives_the_same(
    controls: str, columns: list[str], cluster: str | None
) -> None:
    frame = make_panel(1, level=1e6)
    given = {} if cluster is None else {"cluster": cluster}
    result = analyse(frame, covariates=columns, control_group=controls, **given)
    found = result.to_frame().set_index("term")
    region = frame.drop_duplicates("id").set_index("id")["region"]
    for start in (3.0, 4.0):
        for at in range(2, 7):
            base = at - 1 if at < start else int(start) - 1
            expected, influence = by_hand(
                frame, start=start, at=at, base=base, controls=controls, columns=columns
            )
            sums = influence if cluster is None else influence.groupby(region).sum()
            row = found.loc[f"att({start:g},{at})"]
            assert row["estimate"] == pytest.approx(expected, rel=1e-7, abs=1e-9)
            assert row["std_error"] == pytest.approx(float(np.sqrt((sums**2).sum())), rel=1e-7)


def test_scale_and_origin_of_a_covariate_do_not_matter() -> None:
    frame = make_panel(2)
    moved = frame.assign(x=1e6 + 1e-3 * frame["x"])
    columns = ["term", "estimate", "std_error"]
    pd.testing.assert_frame_equal(
        analyse(moved, covariates=["x"]).to_frame()[columns],
        analyse(frame, covariates=["x"]).to_frame()[columns],
        rtol=1e-6,
    )


def test_a_covariate_that_explains_nothing_changes_little() -> None:
    frame = make_panel(3, trend=0.0, n=4000)
    plain, held = (analyse(frame, covariates=given).effects[0] for given in ([], ["z"]))
    assert held.estimate == pytest.approx(plain.estimate, abs=0.3 * plain.std_error)
    assert held.std_error == pytest.approx(plain.std_error, rel=0.05)


@pytest.mark.parametrize(
    ("n_worlds", "band"),
    [
        pytest.param(100, (0.87, 0.995), id="quick"),
        pytest.param(500, (0.925, 0.975), id="long", marks=pytest.mark.validation),
    ],
)
def test_intervals_cover_where_trends_are_parallel_only_given_the_covariate(
    n_worlds: int, band: tuple[float, float]
) -> None:
    covered = np.zeros(2)
    for seed in range(n_worlds):
        frame = make_panel(100 + seed, n=200)
        for k, given in enumerate([["x"], []]):
            effect = _simple(frame, given)
            covered[k] += effect[0] <= 1.0 <= effect[1]
    assert band[0] <= covered[0] / n_worlds <= band[1]
    assert covered[1] / n_worlds < 0.75


def _simple(frame: pd.DataFrame, covariates: list[str]) -> tuple[float, float]:
    result = analyse(frame, covariates=covariates, aggregations=["simple"])
    effect = next(item for item in result.effects if item.term == "simple")
    return effect.ci_lower, effect.ci_upper


def test_what_cannot_be_is_refused() -> None:
    frame = make_panel(4, n=40)
    with pytest.raises(DataError, match="x must not change within id"):
        analyse(frame.assign(x=frame["x"] + frame["t"]), covariates=["x"])
    with pytest.raises(DataError, match="covariate x has the same value in every row"):
        analyse(frame.assign(x=2.0), covariates=["x"])
    with pytest.raises(DataError, match="collinear"):
        analyse(frame.assign(x2=3 - 2 * frame["x"]), covariates=["x", "x2"])
    with pytest.raises(SpecError, match="column used in two roles"):
        analyse(frame, covariates=["y"])
    few = frame[
        frame["first"].notna()
        | frame["id"].isin(frame.loc[frame["first"].isna(), "id"].unique()[:3])
    ]
    with pytest.raises(DataError, match="too few comparison units for the covariates"):
        analyse(few, covariates=["x", "z"])


def test_a_unit_without_its_covariate_is_counted() -> None:
    frame = make_panel(5)
    frame.loc[frame["id"] == 7, "x"] = np.nan
    result = analyse(frame, covariates=["x"])
    without = analyse(frame[frame["id"] != 7], covariates=["x"])
    columns = ["term", "estimate", "std_error"]
    pd.testing.assert_frame_equal(
        result.to_frame()[columns], without.to_frame()[columns], rtol=1e-9
    )
    missing = next(item for item in result.diagnostics if item.name == "n_missing")
    assert missing.statistic == 6
