"""Double robustness: the intervals of `staggered` hold the truth where one of its models is right.

Units start in period 3 or never, with odds that depend on `x`; without the treatment they change by
an amount that depends on `x`. One of the two is a line in `x`, as the method takes both to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.quasi import staggered

pytestmark = pytest.mark.slow

EFFECT = 1.0
N_UNITS = 400
COLUMNS = {"unit": "id", "period": "t", "outcome": "y", "first_treated_period": "first"}


@dataclass(frozen=True)
class Truth:
    """What depends on the square of `x` where the method's model is a line.

    Attributes:
        curved_odds: The log odds of starting.
        curved_trend: The change without the treatment.
    """

    curved_odds: bool
    curved_trend: bool


ONLY_TREND = Truth(curved_odds=True, curved_trend=False)
ONLY_ODDS = Truth(curved_odds=False, curved_trend=True)


def world(rng: np.random.Generator, truth: Truth) -> pd.DataFrame:
    """Two periods, effects of one with a spread of a half among units."""
    x = rng.uniform(-2, 2, N_UNITS)
    log_odds = 0.8 * x**2 - 1.6 + 0.5 * x if truth.curved_odds else 0.8 * x - 0.6
    first = np.where(rng.uniform(size=N_UNITS) < 1 / (1 + np.exp(-log_odds)), 3.0, np.nan)
    trend = x**2 if truth.curved_trend else 1.5 * x
    gain = np.where(np.isnan(first), 0.0, EFFECT + 0.5 * rng.normal(size=N_UNITS))
    level = rng.normal(size=N_UNITS)
    paths = [level + t * trend + (t == 3) * gain for t in (2, 3)]
    y = np.column_stack(paths) + rng.normal(size=(N_UNITS, 2))
    weight = np.exp(0.3 * x)
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(N_UNITS), 2), "t": np.tile([2, 3], N_UNITS),
            "first": np.repeat(first, 2), "x": np.repeat(x, 2), "y": y.ravel(),
            "w": np.repeat(weight, 2),
        }
    )  # fmt: skip


def errors(truth: Truth, n_worlds: int, *, seed: int, **options: object) -> np.ndarray:
    """Errors of the effect in standard errors, one per world."""
    rng = np.random.default_rng(seed)
    data = {
        "name": "worlds", "source": {"table": "t"}, "method": "staggered",
        "options": {
            **COLUMNS, "covariates": ["x"], "aggregations": ["simple"], "n_draws": 1000, **options
        },
    }  # fmt: skip
    spec = validate(staggered.SPEC, data)
    found = np.empty(n_worlds)
    for k in range(n_worlds):
        result = run(staggered.estimate(spec), PandasEngine(world(rng, truth)))
        effect = next(item for item in result.effects if item.term == "simple")
        found[k] = (effect.estimate - EFFECT) / effect.std_error
    return found


def covered(z: np.ndarray) -> float:
    return float((np.abs(z) < 1.959964).mean())


ROWS: Mapping[str, object] = {"adjustment": "doubly_robust", "panel": False}
CASES: Mapping[str, tuple[Truth, Mapping[str, object]]] = {
    "only the regression is right": (ONLY_TREND, {"adjustment": "doubly_robust"}),
    "only the propensity is right": (ONLY_ODDS, {"adjustment": "doubly_robust"}),
}
MORE: Mapping[str, tuple[Truth, Mapping[str, object]]] = {
    "weighting, the propensity is right": (ONLY_ODDS, {"adjustment": "weighting"}),
    "rows, only the regression is right": (ONLY_TREND, ROWS),
    "rows, only the propensity is right": (ONLY_ODDS, ROWS),
    "weighted units": (ONLY_TREND, {"adjustment": "doubly_robust", "weights": "w"}),
}


@pytest.mark.parametrize(("truth", "options"), CASES.values(), ids=CASES.keys())
def test_one_right_model_is_enough(truth: Truth, options: Mapping[str, object]) -> None:
    z = errors(truth, 70, seed=3, **options)

    assert abs(z.mean()) < 3.5 / np.sqrt(len(z))
    assert 0.87 <= covered(z) <= 1.0


@pytest.mark.parametrize("truth", [ONLY_TREND, ONLY_ODDS])
def test_one_right_model_is_enough_for_rows(truth: Truth) -> None:
    z = errors(truth, 40, seed=6, **ROWS)

    assert abs(z.mean()) < 3.5 / np.sqrt(len(z))
    assert 0.84 <= covered(z) <= 1.0


@pytest.mark.parametrize(
    ("truth", "adjustment"), [(ONLY_TREND, "weighting"), (ONLY_ODDS, "regression")]
)
def test_the_wrong_model_alone_is_not(truth: Truth, adjustment: str) -> None:
    assert covered(errors(truth, 25, seed=4, adjustment=adjustment)) < 0.75


@pytest.mark.validation
@pytest.mark.parametrize(
    ("truth", "options"), {**CASES, **MORE}.values(), ids={**CASES, **MORE}.keys()
)
def test_coverage_of_many_worlds(truth: Truth, options: Mapping[str, object]) -> None:
    z = errors(truth, 2000, seed=5, **options)

    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert 0.935 <= covered(z) <= 0.962
    assert z.std() == pytest.approx(1.0, abs=0.06)
