"""The certificate tells the truth: buckets stand for units, wrong errors fail, power is realised.

Bands are binomial errors of the replicates, with the error of parting units into buckets added
where both are compared with single units.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import TTestIndPower

from causal.checks import health
from causal.core.buckets import bucket_numbers
from causal.core.frames import HashBucket
from causal.core.gram import Array
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.experiments import ab
from causal.experiments.ab_options import AbSpec
from causal.experiments.ab_replicates import two_sided
from causal.experiments.bucket_moments import Pool
from causal.experiments.comparison import Inference
from causal.experiments.complete_randomisation import assignments
from causal.experiments.levels import Quotient
from causal.experiments.rerandomisation import Replicates, estimates, samples

pytestmark = pytest.mark.slow

ALPHA, Z = 0.05, 1.959963984540054
ERRORS = 4.0
HOW = Inference(confidence_level=0.95)
MEAN = Quotient("y", 0)


def heavy_tailed(n: int, *, seed: int = 0) -> Array:
    """Log-normal spending of a tenth of the users: skewness 39, kurtosis above 2,000."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < 0.1, rng.lognormal(2.0, 1.5, n), 0.0)


def unit_pool(y: Array) -> Pool:
    """Every unit a bucket of its own."""
    off = y - y.mean()
    return Pool(np.ones(len(y)), np.array([y.mean()]), off[:, None], (off**2)[:, None, None])


def bucket_pool(y: Array, numbers: np.ndarray, n_buckets: int) -> Pool:
    off = y - y.mean()
    n, first, second = (
        np.bincount(numbers, weights, n_buckets) for weights in (np.ones(len(y)), off, off**2)
    )
    return Pool(n, np.array([y.mean()]), first[:, None], second[:, None, None])


def rejected(pool: Pool, *, share: float, replications: int, seed: int) -> np.ndarray:
    n_buckets = len(pool.n)
    k = round(share * n_buckets)
    found = []
    for chunk in assignments(
        np.random.default_rng(seed), n_buckets=n_buckets, replications=replications, treated=[k]
    ):
        control, treatment = samples(pool, chunk[k])
        one = estimates(
            Replicates(control=(control,), treatment=(treatment,)), (MEAN,), HOW, is_adjusted=False
        )
        found.append(two_sided(one.difference, one.std_error, one.df) < ALPHA)
    return np.concatenate(found)


def variance_ratio(pool: Pool) -> float:
    """Variance of the bucketed difference over that of single units; 1 +- sqrt(2 / B)."""
    return float((pool.first**2).sum() / pool.second.sum())


def moved_rate(ratio: float) -> float:
    return Z * np.exp(-(Z**2) / 2) / np.sqrt(2 * np.pi) * (ratio - 1)


@pytest.mark.parametrize(
    ("n_hashes", "replications"),
    [
        pytest.param(4, 3000, id="quick"),
        pytest.param(24, 40_000, id="long", marks=pytest.mark.validation),
    ],
)
@pytest.mark.parametrize(("share", "n_buckets"), [(0.5, 10_000), (0.5, 2000), (0.2, 2000)], ids=str)
def test_buckets_stand_for_units(
    n_hashes: int, replications: int, share: float, n_buckets: int
) -> None:
    y = heavy_tailed(20_000)
    truth = rejected(unit_pool(y), share=share, replications=replications, seed=1).mean()
    noise = np.sqrt(2 * truth * (1 - truth) / replications)
    units = pd.Series(np.arange(len(y)))
    gaps, ratios = [], []
    for salt in range(n_hashes):
        pool = bucket_pool(y, bucket_numbers(units, HashBucket("u", n_buckets, salt)), n_buckets)
        rate = rejected(pool, share=share, replications=replications, seed=2 + salt).mean()
        ratios.append(variance_ratio(pool))
        gaps.append(rate - truth - moved_rate(ratios[-1]))
    # What is left after the known shift of each hash is the noise of the replicates.
    assert np.abs(gaps).max() < ERRORS * noise
    assert np.abs(np.array(ratios) - 1).max() < ERRORS * np.sqrt(2 / n_buckets)


def household_users(*, seed: int, n: int = 12_000, lift: float = 0.0) -> pd.DataFrame:
    """Three users a home; homes are assigned and share most of the noise."""
    rng = np.random.default_rng(seed)
    home = np.arange(n) // 3
    arm = rng.permutation(n // 3)[home] % 2
    before = rng.gamma(2.0, 1.0, n // 3)[home] + rng.gamma(2.0, 1.0, n)
    y = before + rng.lognormal(0, 0.8, n // 3)[home] + rng.normal(size=n) + lift * arm
    return pd.DataFrame(
        {
            "user": np.arange(n), "home": home, "variant": np.array(["a", "b"])[arm],
            "y": y, "before": before, "tier": np.array(["x", "y", "z"])[home % 3],
        }
    )  # fmt: skip


METRIC = {"name": "y", "type": "mean", "column": "y", "role": "primary", "covariates": ["before"]}
FULL: Mapping[str, Any] = {"replications": 4000, "buckets": 10_000}


def certified(frame: pd.DataFrame, **options: Any) -> Result:
    data = {
        "name": "certified",
        "source": {"table": "users"},
        "method": "ab",
        "options": {
            "unit": "user", "variant": "variant", "control": "a", "metrics": [METRIC],
            "certificate": FULL, **options,
        },
    }  # fmt: skip
    return run(ab.estimate(validate(AbSpec, data)), PandasEngine(frame))


def rates(result: Result, quantity: str) -> pd.DataFrame:
    table = result.tables["certificate"]
    return table[table["quantity"] == quantity]


@pytest.mark.parametrize("lift", [0.0, 3.0], ids=["no effect", "large effect"])
def test_clustered_errors_pass_and_independent_ones_fail(lift: float) -> None:
    """An effect of two standard deviations is taken out first, so it does not matter."""
    frame = household_users(seed=4, lift=lift)
    right = certified(
        frame, cluster="home", cluster_correction="cr1", degrees_of_freedom="clusters_minus_one"
    )
    assert not health.stops(right)
    assert rates(right, "type_one_error")["passed"].all()
    assert rates(right, "coverage")["passed"].all()
    wrong = certified(frame, certificate={**FULL, "assigned_by": "home"})
    stopped = [item.name for item in health.stops(wrong)]
    assert stopped == [
        "certificate.type_one_error.y.b - a",
        "certificate.coverage.y.b - a",
        "certificate.coverage.y.b - a.relative",
        "certificate.uniform_pvalues.y.b - a",
    ]
    realised = rates(wrong, "type_one_error").iloc[0]
    # Errors that are too small by the root of the variances' ratio reject this often.
    ratio = (rates(right, "power")["nominal"].iloc[3], rates(wrong, "power")["nominal"].iloc[3])
    assert ratio == pytest.approx((0.8, 0.8), abs=0.01)
    assert realised["rate"] > 0.12


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strata": ["tier"]},
        {"strata": ["tier"], "stratification": "blocked", "relative_interval": "fieller"},
        {"variance": "pooled", "theta": "within"},
    ],
    ids=["cuped", "post-stratified", "blocked", "pooled"],
)
def test_right_estimators_pass_and_find_what_was_foretold(options: Mapping[str, Any]) -> None:
    frame = household_users(seed=5, lift=0.2)
    frame["variant"] = np.array(["a", "b"])[np.random.default_rng(6).permutation(len(frame)) % 2]
    result = certified(frame, **options)
    assert not health.stops(result)
    power = rates(result, "power")
    noise = np.sqrt(power["nominal"] * (1 - power["nominal"]) / FULL["replications"])
    # The buckets' own error, 1.4 % of the variance, moves power by less than 0.01.
    assert ((power["rate"] - power["nominal"]).abs() < ERRORS * noise + 0.01).all()


def test_power_is_that_of_the_textbook() -> None:
    rng = np.random.default_rng(7)
    n = 8000
    frame = pd.DataFrame(
        {"user": np.arange(n), "variant": np.array(["a", "b"])[rng.permutation(n) % 2]}
    ).assign(y=lambda _: 10 + rng.normal(size=n), before=rng.normal(size=n))
    power = rates(certified(frame), "power")
    raw = power[power["estimator"] == "welch"]
    expected = [
        TTestIndPower().power(effect / frame["y"].std(), n / 2, ALPHA) for effect in raw["effect"]
    ]
    np.testing.assert_allclose(raw["rate"], expected, atol=ERRORS * 0.5 / np.sqrt(4000) + 0.01)


def villages(seed: int, *, n_clusters: int = 20, spread: float = 0.9) -> pd.DataFrame:
    """Half of the clusters in each arm; their sizes are log-normal, users of a cluster alike."""
    rng = np.random.default_rng([9, seed])
    sizes = np.ceil(30 * np.exp(spread * rng.normal(size=n_clusters))).astype(int)
    village = np.repeat(np.arange(n_clusters), sizes)
    arm = (rng.permutation(n_clusters) % 2)[village]
    shared = rng.normal(size=n_clusters)[village]
    return pd.DataFrame(
        {
            "user": np.arange(len(village)),
            "village": village,
            "variant": np.array(["a", "b"])[arm],
            "y": 10 + shared + rng.normal(size=len(village)),
        }
    )


FEW: Mapping[str, Any] = {
    "cluster": "village",
    "metrics": [{"name": "y", "type": "mean", "column": "y", "role": "primary"}],
}
OLD: Mapping[str, Any] = {
    "cluster_correction": "cr1",
    "degrees_of_freedom": "clusters_minus_one",
}


def false_alarms(frame: pd.DataFrame, **options: Any) -> float:
    found = rates(certified(frame, **FEW, **options), "type_one_error")
    return float(found["rate"].iloc[0])


@pytest.mark.parametrize(
    "n_worlds",
    [
        pytest.param(8, id="quick"),
        pytest.param(200, id="long", marks=pytest.mark.validation),
    ],
)
def test_ten_and_ten_unequal_clusters_need_their_own_errors(n_worlds: int) -> None:
    """One factor and G - 1 degrees of freedom reject too often; the defaults do not."""
    worlds = [villages(seed) for seed in range(n_worlds)]
    short = {"replications": 2000}
    old = np.array([false_alarms(frame, certificate=short, **OLD) for frame in worlds])
    default = np.array([false_alarms(frame, certificate=short) for frame in worlds])
    noise = ERRORS * np.sqrt(ALPHA * (1 - ALPHA) / 2000)
    # Both see the same assignments, so they can be compared in each world.
    assert (old > default).all()
    assert np.mean(old - default) > 0.02
    assert old.mean() > 0.07
    assert default.mean() < ALPHA + noise / np.sqrt(n_worlds)


@pytest.mark.validation
def test_right_estimators_rarely_fail() -> None:
    """Of 200 experiments on heavy-tailed users with the right errors none has a failed rate."""
    failed = []
    for seed in range(200):
        result = certified(skewed_users(seed), certificate={**FULL, "seed": seed})
        failed += [(seed, item.name) for item in health.stops(result)]
    assert failed == []


def skewed_users(seed: int, *, n: int = 10_000) -> pd.DataFrame:
    rng = np.random.default_rng([8, seed])
    before = heavy_tailed(n, seed=seed) ** 0.5
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "variant": np.array(["a", "b"])[rng.integers(0, 2, n)],
            "before": before,
            "y": before + rng.lognormal(0, 1.0, n),
        }
    )
