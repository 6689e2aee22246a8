"""Size and coverage with a cross-fitted prediction as covariate, and what folds are for.

Every world goes through the plans: train on the outcome of both arms, predict, adjust.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.experiments import ab, cupac

pytestmark = pytest.mark.slow

ERRORS = 3.5
"""Half-width of a band in binomial standard errors."""
ALPHA = 0.05
EFFECT = 0.3
SIZES = [
    pytest.param(30, id="quick"),
    pytest.param(2_000, id="long", marks=pytest.mark.validation),
]
CUPAC = {
    "name": "forecast", "source": {"table": "t"}, "method": "cupac",
    "options": {
        "unit": "user", "target": "spend", "prediction": "forecast", "features": ["before", "age"],
        "folds": 2, "iterations": 15, "leaves": 6, "fold_by": "home",
    },
}  # fmt: skip
TRIAL = {
    "unit": "user", "variant": "variant", "control": "control",
    "metrics": [{"name": "spend", "type": "mean", "column": "spend", "covariates": ["forecast"]}],
}  # fmt: skip


def world(rng: np.random.Generator, *, size: int = 400, effect: float) -> pd.DataFrame:
    """Outcomes that follow the features in a curve; homes of two have one arm."""
    before, age = rng.normal(size=(2, size))
    home = np.arange(size) // 2
    is_treated = (rng.random(size) < 0.5)[home]
    curve = 2 * np.abs(before) + before * age + rng.normal(size=size)[home]
    return pd.DataFrame(
        {
            "user": np.arange(size),
            "home": home,
            "variant": np.where(is_treated, "treatment", "control"),
            "before": before,
            "age": age,
            "spend": curve + effect * is_treated + rng.normal(size=size),
        }
    )


def forecast(frame: pd.DataFrame, *, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    spec = validate(cupac.SPEC, CUPAC | {"seed": seed})
    return cupac.predictions(run(cupac.train(spec), PandasEngine(frame)), spec, frame)


def effects(frame: pd.DataFrame, *, cluster: str | None = "home") -> dict[str, Any]:
    options = TRIAL | {"cluster": cluster}
    data = {"name": "trial", "source": {"table": "t"}, "method": "ab", "options": options}
    found = run(ab.estimate(validate(ab.SPEC, data)), PandasEngine(frame)).effects
    return {effect.estimator: effect for effect in found if effect.scale == "absolute"}


@pytest.mark.parametrize("n_worlds", SIZES)
@pytest.mark.parametrize("effect", [0.0, EFFECT], ids=["nothing", "effect"])
def test_adjusted_effects_are_right_as_often_as_promised(n_worlds: int, effect: float) -> None:
    hits, gaps, shares = [], [], []
    for seed in range(n_worlds):
        frame = world(np.random.default_rng([3, seed]), effect=effect)
        found = effects(frame.assign(forecast=forecast(frame, seed=seed)))
        cuped = found["cuped"]
        hits.append(not cuped.ci_lower <= effect <= cuped.ci_upper)
        gaps.append(cuped.estimate - effect)
        shares.append((cuped.std_error / found["cluster_robust"].std_error) ** 2)
    slack = ERRORS * np.sqrt(ALPHA * (1 - ALPHA) / n_worlds) + 0.005
    assert abs(np.mean(hits) - ALPHA) < slack
    assert abs(np.mean(gaps)) < ERRORS * np.std(gaps) / np.sqrt(n_worlds)
    assert np.mean(shares) < 0.85


def test_without_folds_errors_are_too_small() -> None:
    """A model that has seen a row's own outcome repeats it, and with it the row's arm."""
    ratios = []
    for own in (True, False):
        estimates, errors = [], []
        for seed in range(20):
            frame = world(np.random.default_rng([4, seed]), effect=EFFECT)
            if own:
                model = HistGradientBoostingRegressor(max_iter=60, min_samples_leaf=3)
                x = frame[["before", "age"]].to_numpy()
                predicted = model.fit(x, frame["spend"]).predict(x)
            else:
                predicted = forecast(frame, seed=seed)
            cuped = effects(frame.assign(forecast=predicted))["cuped"]
            estimates.append(cuped.estimate)
            errors.append(cuped.std_error)
        ratios.append(np.mean(errors) / np.std(estimates))
        if own:
            # The effect itself is taken for noise that the features explain.
            assert np.mean(estimates) < 0.7 * EFFECT
    assert ratios[1] > 0.75


N_EXPERIMENTS = 2000


def a_a_pvalue(number: int) -> tuple[float, float]:
    """P-value of an experiment without an effect, and the share of the variance that is left.

    Users are randomised one by one; the prediction is of the outcome itself, over both arms.
    """
    frame = world(np.random.default_rng([5, number]), effect=0.0)
    rng = np.random.default_rng([6, number])
    frame["variant"] = rng.permutation(np.repeat(["control", "treatment"], len(frame) // 2))
    found = effects(frame.assign(forecast=forecast(frame, seed=number)), cluster=None)
    return found["cuped"].pvalue, (found["cuped"].std_error / found["welch"].std_error) ** 2


@pytest.mark.validation
def test_an_a_a_study_rejects_four_to_six_percent() -> None:
    pvalues, shares = np.array([a_a_pvalue(number) for number in range(N_EXPERIMENTS)]).T
    assert 0.04 <= np.mean(pvalues < ALPHA) <= 0.06
    assert stats.kstest(pvalues, "uniform").pvalue > 0.001
    assert np.mean(shares) < 0.85
