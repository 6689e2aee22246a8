"""Coverage and size of weighting where the truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.quasi import weighting

ESTIMATORS = ["ipw", "regression", "aipw", "entropy_balancing"]


def drawn(rng: np.random.Generator, *, n: int, effect: float) -> pd.DataFrame:
    """An effect that grows with x; E[x] = 0, so the mean effect is `effect`."""
    x, z = rng.normal(size=(2, n))
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-0.5 * x - 0.3 * z))).astype(int)
    y = 1 + x + 0.5 * z + t * (effect + 0.5 * x) + rng.normal(size=n) * (1 + 0.5 * t)
    return pd.DataFrame({"t": t, "x": x, "z": z, "y": y})


def simulated(*, n_draws: int, n: int, effect: float) -> pd.DataFrame:
    spec = validate(
        weighting.SPEC,
        {
            "name": "coverage", "source": {"table": "rows"}, "method": "weighting",
            "options": {
                "outcome": "y", "treatment": "t", "covariates": ["x", "z"],
                "estimator": ESTIMATORS,
            },
        },
    )  # fmt: skip
    rng = np.random.default_rng(20261121)
    parts = [
        run(weighting.estimate(spec), PandasEngine(drawn(rng, n=n, effect=effect))).to_frame()
        for _ in range(n_draws)
    ]
    return pd.concat(parts, ignore_index=True)


def check(table: pd.DataFrame, *, effect: float) -> None:
    for name in ESTIMATORS:
        own = table[table["estimator"] == name]
        covered = int(((own["ci_lower"] < effect) & (effect < own["ci_upper"])).sum())
        bias = (own["estimate"].mean() - effect) / (own["estimate"].std() / np.sqrt(len(own)))

        assert stats.binomtest(covered, len(own), 0.95).pvalue > 1e-3, (name, covered)
        assert abs(bias) < 4, (name, bias)
        assert own["std_error"].mean() / own["estimate"].std() == pytest.approx(1, abs=0.2), name


def test_intervals_cover_the_truth() -> None:
    check(simulated(n_draws=100, n=500, effect=1.0), effect=1.0)


@pytest.mark.validation
@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_intervals_cover_the_truth_in_thousands_of_draws(effect: float) -> None:
    check(simulated(n_draws=3000, n=1000, effect=effect), effect=effect)
