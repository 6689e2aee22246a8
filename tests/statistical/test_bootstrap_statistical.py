"""Size and coverage of bootstrapped effects: lifts of ratios, medians, clustered rows.

Worlds without an effect are read by the whole plan: an interval that leaves zero out is a miss and
a rejection. Bands are binomial.
"""

import numpy as np
import pandas as pd
import pytest

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.experiments import ab
from causal.experiments.bootstrap_intervals import BootstrapInterval

pytestmark = pytest.mark.slow

ERRORS = 3.5
"""Half-width of a band in binomial standard errors."""
ALPHA = 0.05
CLUSTER_SIZE = 4
METRICS = [
    {"name": "spend", "type": "mean", "column": "spend", "covariates": ["before"],
     "winsorise": {"upper_quantile": 0.99}},
    {"name": "share", "type": "ratio", "numerator": "clicks", "denominator": "views"},
    {"name": "median", "type": "quantile", "column": "rounded", "quantile": 0.5, "resolution": 0.1},
]  # fmt: skip
SIZES = [
    pytest.param(25, id="quick"),
    pytest.param(1_000, id="long", marks=pytest.mark.validation),
]


def world(rng: np.random.Generator, *, is_clustered: bool) -> pd.DataFrame:
    """Skewed spends without an effect; homes of four have one arm and something in common."""
    n = 1000
    home = np.arange(n) // CLUSTER_SIZE
    taste = 0.6 * rng.normal(size=n) + (0.6 * rng.normal(size=n)[home] if is_clustered else 0.0)
    of = home if is_clustered else np.arange(n)
    is_treated = (rng.random(n) < 0.5)[of]
    views = rng.poisson(np.exp(1.0 + 0.5 * taste)) + 1
    spend = np.exp(1.0 + taste + 0.5 * rng.normal(size=n))
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "home": home,
            "variant": np.where(is_treated, "treatment", "control"),
            "spend": spend,
            "rounded": np.round(spend, 1),
            "before": np.exp(taste),
            "views": views,
            "clicks": rng.binomial(views, 1 / (1 + np.exp(1.0 - taste))),
        }
    )


def rejections(
    n_worlds: int, *, interval: BootstrapInterval, is_clustered: bool, replications: int = 500
) -> dict[str, float]:
    """Share of the worlds in which an effect is found, by metric and scale."""
    options = {
        "unit": "user", "variant": "variant", "control": "control", "metrics": METRICS,
        "inference": "bootstrap",
        "bootstrap": {"replications": replications, "buckets": 500, "interval": interval},
        **({"cluster": "home"} if is_clustered else {}),
    }  # fmt: skip
    hits: dict[str, list[bool]] = {}
    for seed in range(n_worlds):
        data = {"name": "aa", "source": {"table": "t"}, "method": "ab", "seed": seed}
        spec = validate(ab.SPEC, data | {"options": options})
        frame = world(np.random.default_rng([19, seed, is_clustered]), is_clustered=is_clustered)
        for found in run(ab.estimate(spec), PandasEngine(frame)).effects:
            if found.metric == "spend" and "cuped" not in found.estimator:
                continue
            is_out = found.ci_lower > 0 or found.ci_upper < 0
            hits.setdefault(f"{found.metric} {found.scale}", []).append(is_out)
    assert all(len(values) == n_worlds for values in hits.values())
    return {name: float(np.mean(values)) for name, values in hits.items()}


@pytest.mark.parametrize("n_worlds", SIZES)
@pytest.mark.parametrize("is_clustered", [False, True], ids=["units", "clusters"])
def test_effects_that_are_not_there_are_found_as_often_as_promised(
    n_worlds: int, *, is_clustered: bool
) -> None:
    found = rejections(n_worlds, interval="percentile", is_clustered=is_clustered)
    assert len(found) == 2 * len(METRICS)
    slack = ERRORS * np.sqrt(ALPHA * (1 - ALPHA) / n_worlds) + 0.01
    assert {k: v for k, v in found.items() if abs(v - ALPHA) > slack} == {}


@pytest.mark.validation
@pytest.mark.parametrize("interval", ["basic", "bias_corrected"])
def test_the_other_intervals_too(interval: BootstrapInterval) -> None:
    found = rejections(1_000, interval=interval, is_clustered=False, replications=2_000)
    slack = ERRORS * np.sqrt(ALPHA * (1 - ALPHA) / 1_000) + 0.02
    assert {k: v for k, v in found.items() if abs(v - ALPHA) > slack} == {}
