"""Learners on rows in worlds whose effects are known, and EconML against the aggregates."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from econml.dml import LinearDML
from sklearn.linear_model import LinearRegression

from causal.core.buckets import bucket_numbers
from causal.core.errors import CausalError
from causal.core.frames import HashBucket
from causal.core.gram import Array
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.quasi import dml
from causal.uplift import linear_uplift
from causal.uplift.learners import (
    Training,
    TrainingRows,
    cross_fitted,
    dumped,
    loaded,
    train,
)

SMALL = Training(n_trees=40, max_leaves=6, min_leaf_rows=30)


def effects_of(x: Array) -> Array:
    """Two treatments: one helps where the first feature is large, the other harms a little."""
    return np.column_stack([np.where(x[:, 0] > 0, 2.0, 0.0), -0.5 + 0.0 * x[:, 1]])


def world(*, seed: int, n: int = 2400, n_treatments: int = 2) -> TrainingRows:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    t = rng.integers(0, n_treatments + 1, n)
    effect = np.column_stack([np.zeros(n), effects_of(x)])[np.arange(n), t]
    y = np.sin(x[:, 1]) + x[:, 2] + effect + 0.5 * rng.normal(size=n)
    return TrainingRows(features=x, treatment=t, outcome=y)


ROWS = world(seed=1)
FRESH = np.random.default_rng(2).normal(size=(1000, 3))


@pytest.mark.parametrize(
    ("learner", "base"),
    [
        ("s", "boosted"), ("t", "boosted"), ("x", "boosted"), ("dr", "boosted"), ("r", "boosted"),
        ("forest", "linear"), ("dr", "lightgbm"),
    ],
)  # fmt: skip
def test_effects_of_two_treatments_are_found(learner: Any, base: Any) -> None:
    training = Training(n_trees=40, max_leaves=6, min_leaf_rows=30, base=base)
    found = train(ROWS, learner=learner, training=training).effects(FRESH)
    truth = effects_of(FRESH)

    assert found.shape == truth.shape
    assert np.corrcoef(found[:, 0], truth[:, 0])[0, 1] > 0.9
    assert found.mean(axis=0) == pytest.approx(truth.mean(axis=0), abs=0.15)
    assert np.sqrt(((found - truth) ** 2).mean()) < 0.45


def test_the_same_seed_gives_the_same_scores() -> None:
    one, two = (train(ROWS, learner="dr", training=SMALL).effects(FRESH[:50]) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_intervals_of_a_forest_cover_most_effects() -> None:
    training = Training(n_trees=100, base="linear")
    model = train(ROWS, learner="forest", training=training)
    low, high = model.intervals(FRESH[:300])
    inside = (low < effects_of(FRESH[:300])) & (effects_of(FRESH[:300]) < high)

    assert inside.mean() > 0.85
    with pytest.raises(CausalError, match="only a forest"):
        train(ROWS, learner="t", training=Training(base="linear")).intervals(FRESH)


def test_confounding_is_adjusted_for_by_the_doubly_robust_learner() -> None:
    rng = np.random.default_rng(8)
    n = 3000
    x = rng.normal(size=(n, 2))
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-1.5 * x[:, 0]))).astype(np.int64)
    y = 2 * x[:, 0] + t + rng.normal(size=n)
    rows = TrainingRows(features=x, treatment=t, outcome=y)
    naive = y[t == 1].mean() - y[t == 0].mean()
    training = Training(base="linear", is_randomised=False)

    assert naive > 2.5
    for learner in ("dr", "r"):
        found = train(rows, learner=learner, training=training).effects(x).mean()
        assert found == pytest.approx(1.0, abs=0.2), learner


def test_weights_undo_the_strata_of_a_sample() -> None:
    """Rows with a large first feature were drawn ten times as often."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4000, 2))
    kept = (x[:, 0] > 0) | (rng.uniform(size=4000) < 0.1)
    x = x[kept]
    t = rng.integers(0, 2, len(x))
    y = t * np.where(x[:, 0] > 0, 2.0, 0.0) + rng.normal(size=len(x)) * 0.3
    weights = np.where(x[:, 0] > 0, 1.0, 10.0)
    plain = TrainingRows(features=x[:, 1:], treatment=t, outcome=y)
    weighed = TrainingRows(features=x[:, 1:], treatment=t, outcome=y, weights=weights)
    training = Training(base="linear")

    assert train(plain, learner="dr", training=training).effects(x[:, 1:]).mean() > 1.6
    found = train(weighed, learner="dr", training=training).effects(x[:, 1:]).mean()
    assert found == pytest.approx(1.0, abs=0.25)
    with pytest.raises(CausalError, match="takes no weights"):
        train(weighed, learner="t")


def test_cross_fitted_predictions_come_from_the_other_folds() -> None:
    folds = np.arange(len(ROWS.outcome)) % 2
    found = cross_fitted(ROWS, folds=folds, training=Training(base="linear"))
    rest = (folds == 1) & (ROWS.treatment == 2)
    model = LinearRegression().fit(ROWS.features[rest], ROWS.outcome[rest])

    own = folds == 0
    np.testing.assert_allclose(
        found.outcomes[own, 2], model.predict(ROWS.features[own]), rtol=1e-9, atol=1e-12
    )
    assert found.propensities[own, 2] == pytest.approx((ROWS.treatment[folds == 1] == 2).mean())
    np.testing.assert_allclose(found.propensities.sum(axis=1), 1.0)


def test_learners_are_loaded_by_their_hash_alone() -> None:
    model = train(ROWS, learner="t", training=Training(base="linear"))
    data, sha256 = dumped(model)

    np.testing.assert_array_equal(loaded(data, sha256=sha256).effects(FRESH), model.effects(FRESH))
    with pytest.raises(CausalError, match="not the recorded one"):
        loaded(data + b" ", sha256=sha256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"treatment": np.where(ROWS.treatment == 1, 2, ROWS.treatment)}, "without gaps"),
        ({"treatment": np.arange(len(ROWS.outcome)).clip(0, 1)}, "too few rows"),
        ({"outcome": ROWS.outcome[:-1]}, "differ in their rows"),
        ({"outcome": np.where(ROWS.features[:, 0] > 2, np.nan, 0.0)}, "NaN"),
        ({"weights": np.zeros(len(ROWS.outcome))}, "positive"),
    ],
)
def test_rows_that_cannot_be_learned_from(change: dict[str, Any], message: str) -> None:
    given = {"features": ROWS.features, "treatment": ROWS.treatment, "outcome": ROWS.outcome}
    with pytest.raises(CausalError, match=message):
        TrainingRows(**{**given, **change})


def test_other_columns_than_those_of_the_training_are_refused() -> None:
    with pytest.raises(CausalError, match="not the columns"):
        train(ROWS, learner="t", training=Training(base="linear")).effects(FRESH[:, :2])


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    x, z = rng.normal(3, 2, 500), rng.gamma(2, 1, 500)
    t = (rng.uniform(size=500) < 1 / (1 + np.exp(-0.3 * (x - 3)))).astype(np.int64)
    y = x + z + t * (1 + 0.3 * x) + rng.normal(size=500)
    return pd.DataFrame({"id": np.arange(500), "t": t, "x": x, "z": z, "y": y})


@pytest.mark.parametrize("learner", ["s", "t", "x"])
def test_econml_with_least_squares_is_the_learner_from_aggregates(
    frame: pd.DataFrame, learner: Any
) -> None:
    spec = validate(
        linear_uplift.SPEC,
        {
            "name": "parity", "source": {"table": "rows"}, "method": "uplift",
            "options": {
                "outcome": "y", "treatment": "t", "covariates": ["x", "z"], "learners": [learner],
            },
        },
    )  # fmt: skip
    own = run(linear_uplift.estimate(spec), PandasEngine(frame)).tables["scores"].iloc[0]
    rows = TrainingRows(
        features=frame[["x", "z"]].to_numpy(), treatment=frame["t"].to_numpy(),
        outcome=frame["y"].to_numpy(),
    )  # fmt: skip
    effects = train(rows, learner=learner, training=Training(base="linear")).effects(rows.features)

    assert own["mean"] == pytest.approx(effects.mean(), abs=1e-8)
    assert own["sd"] == pytest.approx(effects.std(), abs=1e-8)
    assert [own["lowest"], own["highest"]] == pytest.approx([effects.min(), effects.max()])


def test_econml_linear_dml_with_the_same_folds_is_the_partially_linear_model(
    frame: pd.DataFrame,
) -> None:
    spec = validate(
        dml.SPEC,
        {
            "name": "parity", "source": {"table": "rows"}, "method": "dml", "seed": 6,
            "options": {
                "unit": "id", "outcome": "y", "treatment": "t", "covariates": ["x", "z"],
                "estimator": "plr", "propensity": "linear", "folds": 3,
            },
        },
    )  # fmt: skip
    found = run(dml.estimate(spec), PandasEngine(frame)).effects[0]
    at = bucket_numbers(frame["id"], HashBucket("id", 3, 6))
    model = LinearDML(
        model_y=LinearRegression(), model_t=LinearRegression(),
        cv=[(np.flatnonzero(at != k), np.flatnonzero(at == k)) for k in range(3)],
    )  # fmt: skip
    model.fit(
        frame["y"].to_numpy(), frame["t"].to_numpy(dtype=float),
        W=frame[["x", "z"]].to_numpy(), inference="statsmodels",
    )  # fmt: skip
    assert found.estimate == pytest.approx(float(model.intercept_), abs=1e-8)
    # EconML takes HC1 of the final regression of one coefficient.
    error = float(model.intercept__inference().stderr)
    assert found.std_error * np.sqrt(500 / 499) == pytest.approx(error, rel=1e-6)
