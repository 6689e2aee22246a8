"""Cross-fitted predictions as covariates: what they are made of, and what they gain."""

import doctest
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from causal.core.buckets import bucket_numbers
from causal.core.errors import DataError, SpecError
from causal.core.frames import BUCKET, HashBucket, SampleRequest, decode, encode
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.experiments import ab, cupac
from causal.experiments.cupac import CupacOptions, Forecasts
from transforms.predictions import check_new

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods" / "cupac.md"
FEATURES = ["before", "age"]


@pytest.fixture(scope="module")
def users() -> pd.DataFrame:
    """Spend follows what was before in a wave and by tier: a line sees little of it."""
    rng = np.random.default_rng(8)
    n = 3000
    home = rng.integers(0, 900, n)
    before, age = rng.normal(size=n), rng.uniform(18, 80, n)
    tier = rng.choice(["basic", "gold", "plus"], n)
    treated = rng.random(n) < 0.5
    wave = 3 * np.sin(2 * before) + before**2 + 2 * (tier == "gold") * (age > 50)
    return pd.DataFrame(
        {
            "user": np.arange(n) * 7,
            "home": home,
            "variant": np.where(treated, "treatment", "control"),
            "before": np.where(rng.random(n) < 0.03, np.nan, before),
            "age": age,
            "tier": np.where(rng.random(n) < 0.02, None, tier),
            "spend": 20 + wave + 0.5 * treated + rng.normal(size=n),
        }
    )


def spec_of(**options: Any) -> cupac.CupacSpec:
    base = {
        "unit": "user", "target": "spend", "prediction": "forecast", "features": FEATURES,
        "categorical": ["tier"],
    }  # fmt: skip
    data = {"name": "forecast", "source": {"table": "users"}, "method": "cupac", "seed": 5}
    return validate(cupac.SPEC, {**data, "options": base | options})


def trained(frame: pd.DataFrame, **options: Any) -> tuple[Forecasts, NDArray[np.float64]]:
    spec = spec_of(**options)
    forecasts = run(cupac.train(spec), PandasEngine(frame))
    return forecasts, cupac.predictions(forecasts, spec, frame)


def adjusted(frame: pd.DataFrame, covariates: list[str], **options: Any) -> Result:
    metric = {"name": "spend", "type": "mean", "column": "spend", "covariates": covariates}
    base = {"unit": "user", "variant": "variant", "control": "control", "metrics": [metric]}
    data = {"name": "trial", "source": {"table": "users"}, "method": "ab"}
    return run(
        ab.estimate(validate(ab.SPEC, {**data, "options": base | options})), PandasEngine(frame)
    )


def test_a_row_is_predicted_by_a_model_of_the_other_folds(users: pd.DataFrame) -> None:
    """The same as scikit-learn fold by fold, rows in the order of their hash."""
    _, found = trained(users)
    spec = spec_of()
    folds = bucket_numbers(users["user"], HashBucket("user", 5, salt=5))
    order = np.argsort(bucket_numbers(users["user"], HashBucket("user", 2**62, salt=5)))
    codes = users["tier"].map({"basic": 0.0, "gold": 1.0, "plus": 2.0})
    matrix = np.column_stack([users["before"], users["age"], codes]).astype(float)
    assert spec.fold == HashBucket("user", 5, salt=5)
    for fold in range(5):
        rows = order[folds[order] != fold]
        model = HistGradientBoostingRegressor(
            max_iter=150, max_leaf_nodes=15, learning_rate=0.1, l2_regularization=1.0,
            early_stopping=False, categorical_features=[False, False, True], random_state=5,
        ).fit(matrix[rows], users["spend"].to_numpy()[rows])  # fmt: skip
        own = folds == fold
        assert 400 < own.sum() < 800
        np.testing.assert_allclose(found[own], model.predict(matrix[own]), rtol=1e-12)


def test_no_outcome_of_its_own_fold_moves_a_prediction(users: pd.DataFrame) -> None:
    _, before = trained(users, fold_by="home")
    folds = bucket_numbers(users["home"], HashBucket("home", 5, salt=5))
    moved = users.assign(spend=users["spend"] + 100 * (folds == 2))
    _, after = trained(moved, fold_by="home")
    assert np.array_equal(before[folds == 2], after[folds == 2])
    assert (np.abs(before[folds != 2] - after[folds != 2]) > 1).mean() > 0.9
    assert users.assign(fold=folds).groupby("home")["fold"].nunique().max() == 1


def test_ridge_is_scikit_learns_on_standardised_columns(users: pd.DataFrame) -> None:
    complete = users.dropna()
    _, found = trained(complete, model="ridge", penalty=3.0)
    folds = bucket_numbers(complete["user"], HashBucket("user", 5, salt=5))
    dummies = pd.get_dummies(complete["tier"]).astype(float)
    matrix = np.column_stack([complete[FEATURES], dummies])
    target = complete["spend"].to_numpy()
    for fold in range(5):
        kept = folds != fold
        center, scale = matrix[kept].mean(axis=0), matrix[kept].std(axis=0)
        model = Ridge(alpha=3.0).fit((matrix[kept] - center) / scale, target[kept])
        expected = model.predict((matrix[~kept] - center) / scale)
        np.testing.assert_allclose(found[~kept], expected, rtol=1e-9)


def test_ridge_puts_missing_values_at_the_mean(users: pd.DataFrame) -> None:
    _, found = trained(users, model="ridge", categorical=[])
    lost = users["before"].isna().to_numpy()
    assert lost.any()
    assert np.isfinite(found).all()
    filled = users.assign(before=users["before"].fillna(users["before"].mean()))
    _, other = trained(filled, model="ridge", categorical=[])
    assert np.corrcoef(found[lost], other[lost])[0, 1] > 0.999


def test_it_removes_more_variance_than_a_line_does(users: pd.DataFrame) -> None:
    forecasts, found = trained(users)
    frame = users.assign(forecast=found).dropna()
    line, trees = (
        next(e for e in adjusted(frame, names).effects if e.estimator == "cuped")
        for names in (FEATURES, ["forecast"])
    )
    both = next(
        e for e in adjusted(frame, [*FEATURES, "forecast"]).effects if e.estimator == "cuped"
    )
    assert trees.std_error < 0.75 * line.std_error
    assert both.std_error <= 1.001 * trees.std_error
    assert abs(trees.estimate - 0.5) < 3 * trees.std_error
    whole = adjusted(users.assign(forecast=found), ["forecast"]).effects
    errors = {e.estimator: e.std_error for e in whole if e.scale == "absolute"}
    removed = 1 - (errors["cuped"] / errors["welch"]) ** 2
    assert removed == pytest.approx(forecasts.correlation**2, abs=0.01)
    assert 0.6 < forecasts.r_squared <= forecasts.correlation**2 + 1e-9


def test_row_order_and_new_columns_change_nothing(users: pd.DataFrame) -> None:
    _, first = trained(users, max_rows=800)
    shuffled = users.sample(frac=1.0, random_state=3).assign(extra=1.0)
    _, second = trained(shuffled, max_rows=800)
    assert np.array_equal(pd.Series(second, index=shuffled.index).sort_index().to_numpy(), first)


def test_rows_without_target_are_predicted_and_counted(users: pd.DataFrame) -> None:
    lost = users.assign(spend=users["spend"].where(users["user"] % 5 > 0))
    forecasts, found = trained(lost)
    assert forecasts.n_without_target == int(lost["spend"].isna().sum())
    assert forecasts.n_drawn == int(lost["spend"].notna().sum())
    assert forecasts.n_rows == len(lost)
    assert np.isfinite(found).all()


def test_a_level_that_no_row_drawn_had_is_missing(users: pd.DataFrame) -> None:
    spec = spec_of()
    forecasts, _ = trained(users)
    other = users.head(50).assign(tier="platinum")
    missing = users.head(50).assign(tier=None)
    assert np.array_equal(
        cupac.predictions(forecasts, spec, other), cupac.predictions(forecasts, spec, missing)
    )


def test_samples_are_the_smallest_hashes(users: pd.DataFrame) -> None:
    request = SampleRequest(
        unit="user", max_rows=500, numbers=("before",), labels=("tier", "home"), known=("tier",),
        salt=3, bucket=HashBucket("home", 4),
    )  # fmt: skip
    assert decode(encode(request)) == request
    found = PandasEngine(users)(request)
    assert list(found.columns) == ["before", "tier", "home", BUCKET]
    assert len(found) == 500
    known = users[users["tier"].notna()]
    order = np.argsort(bucket_numbers(known["user"], request.order))[:500]
    expected = known.iloc[order]
    np.testing.assert_array_equal(found["before"], expected["before"])
    assert list(found["home"]) == [str(home) for home in expected["home"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "before"}, "before is the target or the unit"),
        ({"features": [], "categorical": []}, "at least one column"),
        ({"prediction": "before"}, "name of a new column"),
        ({"features": ["before", "before"]}, "listed twice"),
        ({"model": "ridge", "leaves": 3}, "no option of ridge"),
        ({"penalty": 2.0}, "no option of gradient_boosting"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec_of(**change)


def test_rows_that_cannot_be_learned_from_are_refused(users: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="must identify a row"):
        trained(pd.concat([users, users.head(3)]))
    with pytest.raises(DataError, match="user is null"):
        trained(users.assign(user=users["user"].where(users["user"] > 7)))
    with pytest.raises(DataError, match="home is null"):
        trained(users.assign(home=users["home"].where(users["user"] > 7)), fold_by="home")
    with pytest.raises(DataError, match="too few rows"):
        trained(users.head(90))
    with pytest.raises(DataError, match="all alike"):
        trained(users.assign(spend=1.0))
    with pytest.raises(DataError, match="too many levels"):
        trained(users, categorical=["home"])
    with pytest.raises(DataError, match=r"a feature holds infinite values; given: age$"):
        trained(users.assign(age=np.inf))


def test_the_example_runs_and_the_page_is_valid() -> None:
    found = doctest.testmod(cupac)
    assert found.attempted > 0
    assert found.failed == 0
    text = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert validate(cupac.SPEC, yaml.safe_load(block)).name == "revenue_forecast"
    assert [name for name in CupacOptions.model_fields if f"`{name}`" not in text] == []


def test_a_prediction_is_a_new_column() -> None:
    check_new("forecast", ["user", "spend"])
    with pytest.raises(
        SpecError, match=r"options\.prediction: the source has this column already; given: spend$"
    ):
        check_new("spend", ["user", "spend"])
