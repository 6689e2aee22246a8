"""Coverage of two-stage least squares and of Anderson-Rubin sets, with strong and weak instruments.

The bands hold a procedure of exactly 95 % coverage with a probability of 0.999.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import iv, ols

TRUTH = 0.5
LEVEL = 0.95


def band(n: int, *, certainty: float = 0.999) -> tuple[float, float]:
    """Where the share of covering intervals lies with this certainty."""
    low, high = stats.binom.interval(certainty, n, LEVEL)
    return low / n, high / n


def world(rng: np.random.Generator, *, strength: float, n: int = 250) -> pd.DataFrame:
    """Two instruments of which the strength is given; error variance depends on one of them."""
    z = rng.normal(size=(n, 2))
    hidden = rng.normal(size=n)
    d = strength * z.sum(axis=1) + hidden + 0.3 * rng.normal(size=n)
    y = TRUTH * d + hidden * (0.6 + 0.4 * np.abs(z[:, 0])) + 0.3 * rng.normal(size=n)
    return pd.DataFrame({"y": y, "d": d, "z1": z[:, 0], "z2": z[:, 1]})


def estimated(frame: pd.DataFrame, method: object, **options: object) -> Result:
    data = {
        "name": "coverage", "source": {"table": "t"}, "method": method.__name__.rsplit(".", 1)[-1],
        "options": {"outcome": "y", **options},
    }  # fmt: skip
    return run(method.estimate(validate(method.SPEC, data)), PandasEngine(frame))


def coverage(strength: float, n_worlds: int) -> tuple[float, float]:
    """Shares of worlds in which the interval and the set hold the truth."""
    rng = np.random.default_rng(20261121)
    in_interval = in_set = 0
    for _ in range(n_worlds):
        found = estimated(
            world(rng, strength=strength), iv, treatment="d", instruments=["z1", "z2"],
            report=["treatment"],
        )  # fmt: skip
        effect = found.effects[0]
        in_interval += (effect.ci_lower - TRUTH) * (effect.ci_upper - TRUTH) <= 0
        parts = found.tables["anderson_rubin_set"]
        in_set += bool(((parts["lower"] <= TRUTH) & (parts["upper"] >= TRUTH)).any())
    return in_interval / n_worlds, in_set / n_worlds


@pytest.mark.parametrize(
    "n_worlds",
    [pytest.param(100, id="quick"), pytest.param(3000, id="long", marks=pytest.mark.validation)],
)
def test_strong_instruments(n_worlds: int) -> None:
    interval, ar_set = coverage(0.7, n_worlds)
    low, high = band(n_worlds)

    assert low <= interval <= high
    assert low <= ar_set <= high


@pytest.mark.parametrize(
    "n_worlds",
    [pytest.param(100, id="quick"), pytest.param(3000, id="long", marks=pytest.mark.validation)],
)
def test_weak_instruments_break_the_interval_and_not_the_set(n_worlds: int) -> None:
    interval, ar_set = coverage(0.04, n_worlds)
    low, high = band(n_worlds)

    assert interval < low
    assert low <= ar_set <= high


@pytest.mark.parametrize(
    "n_worlds",
    [pytest.param(120, id="quick"), pytest.param(4000, id="long", marks=pytest.mark.validation)],
)
def test_clustered_and_corrected_errors_of_ols(n_worlds: int) -> None:
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(40), 8)
    covered = {"CR1": 0, "CR3": 0}
    for _ in range(n_worlds):
        x = rng.normal(size=40)[g] + rng.normal(size=320)
        y = TRUTH * x + rng.normal(size=40)[g] + rng.normal(size=320)
        frame = pd.DataFrame({"y": y, "x": x, "g": g})
        for kind in covered:
            found = estimated(frame, ols, numeric=["x"], cluster="g", covariance=kind).effects[1]
            covered[kind] += found.ci_lower <= TRUTH <= found.ci_upper
    low, high = band(n_worlds)

    assert low - 0.02 <= covered["CR1"] / n_worlds <= high
    assert low <= covered["CR3"] / n_worlds <= high + 0.01
