"""Coverage of the intervals of `did` over many small worlds with a known effect.

Units share shocks within a region and period, and have serially correlated errors of their own;
whole regions start the treatment. The bands hold a procedure of exactly 95 % coverage with a
probability of 0.999, given the number of worlds.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.checks import parallel_trends
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import did

pytestmark = pytest.mark.slow

RUNS = [
    pytest.param(200, id="quick"),
    pytest.param(1000, id="long", marks=pytest.mark.validation),
]
LEVEL = 0.95
COLUMNS = {"unit": "id", "period": "t", "outcome": "y", "first_treated_period": "first"}


def band(n: int, share: float, *, certainty: float = 0.999) -> tuple[float, float]:
    """Where a share estimated from n independent trials lies with this certainty."""
    low, high = stats.binom.interval(certainty, n, share)
    return low / n, high / n


def make_world(
    rng: np.random.Generator, *, n_regions: int, per_region: int, starts: tuple[float, ...]
) -> pd.DataFrame:
    """Five periods; effect 1 at the start and 0.5 more in each later period."""
    n_periods = 5
    n = n_regions * per_region
    region = np.arange(n) // per_region
    first = np.array(starts)[np.arange(n_regions) % len(starts)][region]
    t = np.arange(1, n_periods + 1)
    shocks = rng.normal(size=(n_regions, n_periods))[region] if per_region > 1 else 0.0
    own = rng.normal(size=(n, n_periods))
    own[:, 1:] += 0.5 * own[:, :-1]
    elapsed = t[None, :] - first[:, None]
    effect = np.where(elapsed >= 0, 1.0 + 0.5 * elapsed, 0.0)
    y = rng.normal(size=(n, 1)) + 0.3 * t + 0.7 * shocks + own + np.nan_to_num(effect)
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), n_periods),
            "region": np.repeat(region, n_periods),
            "t": np.tile(t, n),
            "first": np.repeat(first, n_periods),
            "y": y.ravel(),
        }
    )


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    data = {
        "name": "world",
        "source": {"table": "t"},
        "method": "did",
        "options": {**COLUMNS, **options},
    }
    return run(did.estimate(validate(did.SPEC, data)), PandasEngine(frame))


def covers(result: Result, truth: dict[str, float]) -> dict[str, bool]:
    return {
        effect.term: effect.ci_lower <= truth[effect.term] <= effect.ci_upper
        for effect in result.effects
        if effect.term in truth
    }


def simulate(
    seed: int,
    truth: dict[str, float],
    draw: Callable[[np.random.Generator], tuple[pd.DataFrame, dict[str, object]]],
    *,
    n_worlds: int,
) -> tuple[pd.DataFrame, float]:
    """Coverage by term and world, and how often the pre-trend test rejects at 5 %."""
    rng = np.random.default_rng(seed)
    hits, rejections = [], []
    for _ in range(n_worlds):
        frame, options = draw(rng)
        result = analyse(frame, **options)
        hits.append(covers(result, truth))
        rejections.append(
            next(d for d in result.diagnostics if d.name == "pre_trend").passed is False
        )
    return pd.DataFrame(hits), float(np.mean(rejections))


def leads_of(outcomes: np.ndarray, *, n_leads: int) -> tuple[np.ndarray, np.ndarray]:
    """Leads of an event study of units that are clusters, the first half treated, and their CR1.

    Two groups observed in the same periods: coefficients are differences in mean changes.
    """
    n_clusters, n_periods = outcomes.shape
    changes = outcomes - outcomes[:, [n_leads]]
    groups = [changes[: n_clusters // 2], changes[n_clusters // 2 :]]
    estimates = groups[0].mean(axis=0) - groups[1].mean(axis=0)
    deviations = np.concatenate([(part - part.mean(axis=0)) / len(part) for part in groups])
    n, k = n_clusters * n_periods, 2 * n_periods - 1
    factor = n_clusters / (n_clusters - 1) * (n - 1) / (n - k)
    covariance = factor * deviations.T @ deviations
    return estimates[:n_leads], covariance[:n_leads, :n_leads]


def pre_trend_sizes(n_clusters: int, *, n_worlds: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    rejected = np.zeros((n_worlds, 2), dtype=bool)
    names = [f"event_time=-{k}" for k in range(6, 1, -1)]
    for at in range(n_worlds):
        outcomes = rng.normal(size=(n_clusters, 8))
        for period in range(1, 8):
            outcomes[:, period] += 0.5 * outcomes[:, period - 1]
        estimates, covariance = leads_of(outcomes, n_leads=5)
        for column, kind in enumerate(("hotelling", "wald")):
            found = parallel_trends.check(
                names, estimates, covariance, df=n_clusters - 1, kind=kind, alpha=0.05
            )
            rejected[at, column] = found.passed is False
    hotelling, wald = rejected.mean(axis=0)
    print(f"{n_clusters} clusters, 5 leads: {hotelling:.3f}, Wald {wald:.3f}")  # noqa: T201
    return float(hotelling), float(wald)


@pytest.mark.parametrize("n_clusters", [10, 20, 50])
def test_the_pre_trend_test_holds_its_size_with_few_clusters(n_clusters: int) -> None:
    hotelling, wald = pre_trend_sizes(n_clusters, n_worlds=800, seed=31)
    assert hotelling <= band(800, 0.05)[1] + 0.02
    assert wald > hotelling


@pytest.mark.validation
@pytest.mark.parametrize("n_clusters", [10, 20, 50])
def test_the_size_of_the_pre_trend_test_in_the_long_run(n_clusters: int) -> None:
    hotelling, wald = pre_trend_sizes(n_clusters, n_worlds=20_000, seed=32)
    assert 0.045 <= hotelling <= 0.075
    assert wald > hotelling


def test_leads_by_hand_are_those_of_the_method() -> None:
    rng = np.random.default_rng(33)
    panel = make_world(rng, n_regions=12, per_region=1, starts=(4.0, np.nan))
    result = analyse(panel, estimator="event_study")
    wide = panel.pivot(index="id", columns="t", values="y").to_numpy()
    is_treated = panel.groupby("id")["first"].first().notna().to_numpy()
    outcomes = np.concatenate([wide[is_treated], wide[~is_treated]])
    estimates, covariance = leads_of(outcomes, n_leads=2)
    expected = parallel_trends.check(
        ["event_time=-3", "event_time=-2"], estimates, covariance, df=11, kind="hotelling",
        alpha=0.05,
    )  # fmt: skip
    found = next(d for d in result.diagnostics if d.name == "pre_trend")
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-9)
    assert found.pvalue == pytest.approx(expected.pvalue, rel=1e-9)


EVENT_TRUTH = {
    "event_time=-2": 0.0, "event_time=0": 1.0, "event_time=1": 1.5, "event_time=2": 2.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("estimator", "truth", "starts"),
    [
        ("event_study", EVENT_TRUTH, (3.0, 4.0, np.nan)),
        ("twfe", {"treated x post": 1.5}, (3.0, np.nan)),
        ("two_by_two", {"treated x post": 1.5}, (3.0, np.nan)),
    ],
)
@pytest.mark.parametrize("is_clustered_by_region", [False, True])
@pytest.mark.parametrize("n_worlds", RUNS)
def test_coverage_and_size(
    estimator: str,
    truth: dict[str, float],
    starts: tuple[float, ...],
    n_worlds: int,
    *,
    is_clustered_by_region: bool,
) -> None:
    clusters = {"cluster": "region"} if is_clustered_by_region else {}

    def draw(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, object]]:
        size = (42, 2) if is_clustered_by_region else (60, 1)
        frame = make_world(rng, n_regions=size[0], per_region=size[1], starts=starts)
        return frame, {"estimator": estimator, **clusters}

    hits, rejected = simulate(20261121, truth, draw, n_worlds=n_worlds)
    low, high = band(n_worlds, LEVEL)
    assert set(hits) == set(truth)
    assert ((hits.mean() >= low) & (hits.mean() <= high)).all(), hits.mean()
    low, high = band(n_worlds, 1 - LEVEL)
    assert low <= rejected <= high


def test_clustering_by_unit_is_too_narrow_where_regions_share_shocks() -> None:
    """The test above could see a wrong clustering: this one does."""

    def draw(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, object]]:
        frame = make_world(rng, n_regions=30, per_region=4, starts=(3.0, np.nan))
        return frame, {"estimator": "twfe"}

    hits, _ = simulate(5, {"treated x post": 1.5}, draw, n_worlds=150)
    assert hits.mean().item() < band(150, LEVEL)[0]


@pytest.mark.parametrize("n_worlds", RUNS)
def test_unbalanced_panels_cover(n_worlds: int) -> None:
    """The effect is constant here: with missing rows a growing one has no single true average."""

    def draw(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, object]]:
        frame = make_world(rng, n_regions=40, per_region=1, starts=(3.0, np.nan))
        growth = 0.5 * (frame["t"] - frame["first"]).clip(lower=0).fillna(0)
        kept = frame.assign(y=frame["y"] - growth)[rng.uniform(size=len(frame)) > 0.1]
        return kept, {"estimator": "twfe"}

    hits, _ = simulate(9, {"treated x post": 1.0}, draw, n_worlds=n_worlds)
    low, high = band(n_worlds, LEVEL)
    assert low <= hits.mean().item() <= high


@pytest.mark.parametrize("n_worlds", RUNS)
@pytest.mark.parametrize("estimator", ["two_stage", "imputation"])
def test_effects_that_grow_are_covered_whoever_lacks_which_period(
    estimator: str, n_worlds: int
) -> None:
    """Effects of an event time are the same for all, so that gaps do not change the truth."""

    def draw(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, object]]:
        frame = make_world(rng, n_regions=90, per_region=2, starts=(3.0, 4.0, np.nan))
        kept = frame[rng.uniform(size=len(frame)) > 0.2]
        return kept, {"estimator": estimator, "cluster": "region"}

    truth = {"event_time=0": 1.0, "event_time=1": 1.5, "event_time=2": 2.0}
    hits, _ = simulate(11, truth, draw, n_worlds=n_worlds)
    low, high = band(n_worlds, LEVEL)
    assert (hits.mean() >= low - 0.015).all()
    assert (hits.mean() <= high + 0.01).all()


@pytest.mark.parametrize("n_worlds", RUNS)
def test_ratios_are_covered_whoever_lacks_which_period(n_worlds: int) -> None:
    """Amounts whose spread grows with their mean, with shocks of a unit that last."""

    def draw(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, object]]:
        frame = make_world(rng, n_regions=150, per_region=1, starts=(3.0, 4.0, np.nan))
        treated = frame["t"] >= frame["first"]
        shocks = rng.gamma(4.0, 0.25, size=(150, 5)) * rng.gamma(4.0, 0.25, size=(150, 1))
        shocks[:, 1:] = (shocks[:, 1:] + shocks[:, :-1]) / 2
        mean = np.exp(0.5 + 0.1 * frame["t"] + 0.3 * treated) * shocks.ravel()
        kept = frame.assign(y=rng.poisson(mean))[rng.uniform(size=len(frame)) > 0.2]
        return kept, {"estimator": "twfe", "family": "poisson"}

    hits, _ = simulate(12, {"treated x post": float(np.expm1(0.3))}, draw, n_worlds=n_worlds)
    low, high = band(n_worlds, LEVEL)
    assert low - 0.015 <= hits.mean().item() <= high + 0.01
