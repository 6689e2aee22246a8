"""`staggered` equals the textbook computation on the units' own influence, drawn at random.

The reference below never aggregates: for each ATT(g,t) it takes the long difference of each unit,
writes one influence number per unit, and sums squares over units, or squares of sums over clusters.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import staggered

RELATIVE = 1e-8
TINY = 1e-10


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    columns = {"unit": "id", "period": "t", "outcome": "y", "first_treated_period": "first"}
    data = {
        "name": "parity",
        "source": {"table": "t"},
        "method": "staggered",
        "options": {**columns, **options},
    }
    return run(staggered.estimate(validate(staggered.SPEC, data)), PandasEngine(frame))


def make_panel(
    seed: int, *, n: int, periods: tuple[int, ...], starts: tuple[float, ...], level: float = 0.0
) -> pd.DataFrame:
    """A panel whose cohorts, clusters and outcomes are drawn at random."""
    rng = np.random.default_rng(seed)
    first = rng.choice(np.array(starts), n)
    shocks = rng.normal(size=(n, len(periods))).cumsum(axis=1) + rng.normal(size=(n, 1))
    later = np.array(periods)[None, :] >= np.where(np.isnan(first), np.inf, first)[:, None]
    y = level + shocks + later * rng.normal(1, 1, size=(n, 1))
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), len(periods)),
            "t": np.tile(periods, n),
            "first": np.repeat(first, len(periods)),
            "region": np.repeat([f"r{r}" for r in rng.integers(0, 9, n)], len(periods)),
            "y": y.ravel(),
        }
    )


@dataclass
class Reference:
    """Group-time effects and the influence of each unit on them, on raw rows."""

    effects: dict[tuple[float, float], float]
    influence: dict[tuple[float, float], np.ndarray]
    start: np.ndarray

    def std_error(self, influence: np.ndarray, clusters: np.ndarray | None) -> float:
        sums = influence
        if clusters is not None:
            sums = pd.Series(influence).groupby(clusters).sum().to_numpy()
        return float(np.sqrt((sums**2).sum()) / len(influence))

    def average(self, cells: list[tuple[float, float]]) -> tuple[float, np.ndarray]:
        """Average weighted by estimated cohort shares; the influence of the shares as in theory:
        the derivative of p_k / sum(p) times each unit's deviation of its indicators from p."""
        p = np.array([(self.start == g).mean() for g, _ in cells])
        att = np.array([self.effects[cell] for cell in cells])
        own = np.stack([self.influence[cell] for cell in cells], axis=1) @ (p / p.sum())
        off = np.stack([(self.start == g) for g, _ in cells], axis=1) - p
        jacobian = np.eye(len(p)) / p.sum() - np.outer(np.ones(len(p)), p) / p.sum() ** 2
        return float(att @ p / p.sum()), own + off @ jacobian @ att


def reference(
    frame: pd.DataFrame, *, control: str, base: str, anticipation: int, size: int = 2
) -> tuple[Reference, np.ndarray]:
    """ATT(g,t) one by one on a wide table of complete units."""
    wide = frame.pivot(index="id", columns="t", values="y").dropna()
    units = frame.drop_duplicates("id").set_index("id").loc[wide.index]
    periods = np.array(wide.columns, dtype=float)
    start = units["first"].fillna(np.inf).to_numpy()
    start = np.where(start > periods[-1] + anticipation, np.inf, start)
    kept = start > periods[0] + anticipation
    wide, start = wide[kept], start[kept]
    latest = start.max() if np.isfinite(start).sum() == len(start) else np.inf
    out = Reference({}, {}, start)
    for g in np.unique(start[np.isfinite(start)]):
        if (start == g).sum() < size or g == latest:
            continue
        anchor = max(p for p in periods if p + anticipation < g)
        for j, period in enumerate(periods):
            if base == "varying" and j == 0:
                continue
            before = anchor if period >= g or base == "universal" else periods[j - 1]
            until = max(period, before) + anticipation
            controls = np.isinf(start)
            if control == "not_yet_treated":
                controls = (start > until) & (start != g)
            if controls.sum() < size:
                continue
            change = (wide[period] - wide[before]).to_numpy()
            treated = start == g
            m1, m0 = change[treated].mean(), change[controls].mean()
            out.effects[g, period] = m1 - m0
            out.influence[g, period] = (
                treated * (change - m1) / treated.mean()
                - controls * (change - m0) / controls.mean()
            )
    return out, units.loc[wide.index, "region"].to_numpy()


@given(
    seed=st.integers(0, 2**32 - 1),
    control=st.sampled_from(["never_treated", "not_yet_treated"]),
    base=st.sampled_from(["varying", "universal"]),
    anticipation=st.integers(0, 2),
    clustered=st.booleans(),
    periods=st.sampled_from([(1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5, 6), (2001, 2003, 2004, 2008)]),
    never=st.booleans(),
    missing=st.sampled_from([0.0, 0.02]),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_effects_averages_and_errors_equal_the_unit_level_computation(  # noqa: PLR0913
    *,
    seed: int,
    control: str,
    base: str,
    anticipation: int,
    clustered: bool,
    periods: tuple[int, ...],
    never: bool,
    missing: float,
) -> None:
    assume(never or control == "not_yet_treated")
    last = periods[-1]
    starts = (periods[1], periods[2], periods[3], last, last + 1, periods[0])
    rng = np.random.default_rng(seed)
    frame = make_panel(
        seed, n=90, periods=periods,
        starts=tuple(map(float, starts)) + ((np.nan, last + 9.0) if never else ()),
    )  # fmt: skip
    frame = frame[rng.uniform(size=len(frame)) >= missing]
    expected, regions = reference(frame, control=control, base=base, anticipation=anticipation)
    post = [cell for cell in expected.effects if cell[1] >= cell[0]]
    assume(post)
    clusters = regions if clustered else None
    result = analyse(
        frame, control_group=control, base_period=base, anticipation=anticipation,
        n_draws=1000, **({"cluster": "region"} if clustered else {}),
    )  # fmt: skip

    table = result.tables["group_time"].set_index(["first_treated_period", "period"])
    assert set(table.index) == set(expected.effects)
    for cell, value in expected.effects.items():
        error = expected.std_error(expected.influence[cell], clusters)
        compare(table.loc[cell], value, error)
    overall = result.tables["overall"].set_index("term")
    value, influence = expected.average(post)
    compare(overall.loc["simple"], value, expected.std_error(influence, clusters))
    study = result.tables["event_study"].set_index("event_time")
    later = []
    for time in sorted({t - g for g, t in expected.effects}):
        members = [(g, t) for g, t in expected.effects if t - g == time]
        value, influence = expected.average(members)
        compare(study.loc[time], value, expected.std_error(influence, clusters))
        if time >= 0:
            later.append((value, influence))
    compare(
        overall.loc["dynamic"],
        float(np.mean([value for value, _ in later])),
        expected.std_error(np.mean([influence for _, influence in later], axis=0), clusters),
    )
    check_calendar_and_groups(result, expected, post, clusters)


def check_calendar_and_groups(
    result: Result,
    expected: Reference,
    post: list[tuple[float, float]],
    clusters: np.ndarray | None,
) -> None:
    overall = result.tables["overall"].set_index("term")
    by_period = result.tables["period_effects"].set_index("period")
    each = []
    for period in sorted({t for _, t in post}):
        each.append(expected.average([cell for cell in post if cell[1] == period]))
        compare(by_period.loc[period], each[-1][0], expected.std_error(each[-1][1], clusters))
    influence = np.mean([item for _, item in each], axis=0)
    value = float(np.mean([item for item, _ in each]))
    compare(overall.loc["calendar"], value, expected.std_error(influence, clusters))
    by_cohort = result.tables["cohort_effects"].set_index("first_treated_period")
    groups = Reference({}, {}, expected.start)
    for g in sorted({g for g, _ in post}):
        members = [cell for cell in post if cell[0] == g]
        groups.effects[g, g] = float(np.mean([expected.effects[cell] for cell in members]))
        groups.influence[g, g] = np.mean([expected.influence[cell] for cell in members], axis=0)
        error = expected.std_error(groups.influence[g, g], clusters)
        compare(by_cohort.loc[g], groups.effects[g, g], error)
    value, influence = groups.average(list(groups.effects))
    compare(overall.loc["group"], value, expected.std_error(influence, clusters))


def compare(row: pd.Series, value: float, error: float) -> None:
    assert row["estimate"] == pytest.approx(value, rel=RELATIVE, abs=TINY)
    if error < TINY:
        assert np.isnan(row["std_error"])
    else:
        assert row["std_error"] == pytest.approx(error, rel=RELATIVE)


@pytest.mark.parametrize("clustered", [False, True])
def test_the_covariance_of_the_event_study(clustered: bool) -> None:  # noqa: FBT001
    frame = make_panel(5, n=200, periods=(1, 2, 3, 4, 5, 6), starts=(3.0, 4.0, 6.0, np.nan))
    expected, regions = reference(frame, control="never_treated", base="varying", anticipation=0)
    times = sorted({t - g for g, t in expected.effects})
    influence = np.stack(
        [
            expected.average([(g, t) for g, t in expected.effects if t - g == time])[1]
            for time in times
        ],
        axis=1,
    )
    if clustered:
        influence = pd.DataFrame(influence).groupby(regions).sum().to_numpy()
    options = {"cluster": "region"} if clustered else {}
    table = analyse(frame, **options).tables["covariance"]
    names = [f"event_time={time:g}" for time in times]
    found = table.pivot(index="row", columns="column", values="covariance").loc[names, names]

    np.testing.assert_allclose(found, influence.T @ influence / 200**2, rtol=1e-9, atol=1e-14)


def test_units_as_their_own_clusters() -> None:
    frame = make_panel(6, n=120, periods=(1, 2, 3, 4), starts=(2.0, 3.0, np.nan))
    frame["house"] = frame["id"] + 1000
    plain = analyse(frame).to_frame()

    for column in ("id", "house"):
        pd.testing.assert_frame_equal(analyse(frame, cluster=column).to_frame(), plain, rtol=1e-9)


def test_a_large_level_costs_no_digits() -> None:
    low = make_panel(7, n=150, periods=(1, 2, 3, 4), starts=(2.0, 3.0, np.nan))
    high = low.assign(y=low["y"] + 1e8)

    for cluster in ({}, {"cluster": "region"}):
        found, base = analyse(high, **cluster).to_frame(), analyse(low, **cluster).to_frame()
        np.testing.assert_allclose(found["estimate"], base["estimate"], atol=1e-6)
        np.testing.assert_allclose(found["std_error"], base["std_error"], rtol=1e-6)


def test_the_small_sample_rule_of_clusters() -> None:
    """G/(G-1) on the covariance, t quantiles with G-1 degrees of freedom."""
    frame = make_panel(8, n=200, periods=(1, 2, 3, 4), starts=(2.0, 3.0, np.nan))
    base = analyse(frame, cluster="region").to_frame()
    found = analyse(frame, cluster="region", small_sample="clusters").to_frame()

    assert (base["n_clusters"] == 9).all()
    np.testing.assert_allclose(found["std_error"], base["std_error"] * np.sqrt(9 / 8), rtol=1e-12)
    assert (found["df"] == 8).all()
    assert base["df"].isna().all()


def test_the_window_of_event_times() -> None:
    """`max_event_time` also cuts the simple and group averages; `min_event_time` the study only."""
    frame = make_panel(9, n=150, periods=(1, 2, 3, 4, 5, 6), starts=(3.0, 4.0, np.nan))
    expected, _ = reference(frame, control="never_treated", base="varying", anticipation=0)
    result = analyse(frame, min_event_time=-1, max_event_time=1)

    assert result.tables["event_study"]["event_time"].tolist() == [-1, 0, 1]
    near = [(g, t) for g, t in expected.effects if 0 <= t - g <= 1]
    value, influence = expected.average(near)
    row = result.tables["overall"].set_index("term").loc["simple"]
    compare(row, value, expected.std_error(influence, None))


def test_several_outcomes_are_estimated_one_by_one() -> None:
    frame = make_panel(10, n=90, periods=(1, 2, 3, 4), starts=(2.0, 3.0, np.nan))
    frame["z"] = -2.0 * frame["y"]
    both = analyse(frame, outcome=["y", "z"])
    effects = both.to_frame().set_index(["metric", "term"])

    np.testing.assert_allclose(
        effects.loc["z", "estimate"], -2.0 * effects.loc["y", "estimate"], rtol=1e-9
    )
    assert {name.partition(":")[2] for name in both.params} == {"y", "z"}
    assert set(both.tables["event_study"]["metric"]) == {"y", "z"}
