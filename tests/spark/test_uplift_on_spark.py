"""Learners and double machine learning on Spark give what they give on pandas."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from causal.core.frames import Column, Constant, GramRequest, HashBucket, Linear
from causal.core.gram import gram
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import dml
from causal.uplift import linear_uplift
from transforms.gram import SparkEngine

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    n = 1500
    x, z = rng.normal(1e4, 3, n), rng.gamma(2, 2, n).round(1)
    kind = np.array(["a", "it's", "c"])[rng.integers(0, 3, n)]
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-0.2 * (x - 1e4) + 0.1 * z))).astype(int)
    y = x + z + t * (2 + 0.3 * z) + rng.normal(size=n)
    ids = [f"unit-{i}" for i in range(n)]
    return pd.DataFrame(
        {"id": ids, "t": t, "x": x, "z": z, "kind": kind, "y": y, "g": np.arange(n) % 90}
    )


def results(
    module: Any, method: str, frame: pd.DataFrame, spark: SparkSession, **options: object
) -> tuple[Result, Result]:
    design = {"outcome": "y", "treatment": "t", "covariates": ["x", "z"]}
    spec = validate(
        module.SPEC,
        {
            "name": "spark", "source": {"table": "rows"}, "method": method,
            "options": design | options,
        },
    )  # fmt: skip
    ours = run(module.estimate(spec), SparkEngine(spark.createDataFrame(frame)))
    return ours, run(module.estimate(spec), PandasEngine(frame))


def assert_same(ours: Result, expected: Result) -> None:
    numbers = ["estimate", "std_error", "n_treated", "n_control"]
    np.testing.assert_allclose(ours.to_frame()[numbers], expected.to_frame()[numbers], rtol=1e-7)
    assert list(ours.to_frame()["term"]) == list(expected.to_frame()["term"])


def test_double_machine_learning(spark: SparkSession, frame: pd.DataFrame) -> None:
    ours, expected = results(
        dml, "dml", frame, spark, unit="id", folds=2, estimator=["aipw", "plr"], cluster="g",
        segments=["kind"], trim={"rule": "fixed", "low": 0.05, "high": 0.95}, refute=["placebo"],
    )  # fmt: skip
    assert_same(ours, expected)
    columns = ["estimate", "std_error"]
    np.testing.assert_allclose(
        ours.tables["refutations"][columns], expected.tables["refutations"][columns], rtol=1e-7
    )


def test_learners_and_their_expression(spark: SparkSession, frame: pd.DataFrame) -> None:
    ours, expected = results(
        linear_uplift, "uplift", frame, spark, learners=["t", "dr", "r"], propensity="logistic",
        categorical={"kind": "a"}, segments=["kind"],
    )  # fmt: skip
    assert_same(ours, expected)
    own = ours.tables["scores"].iloc[0]
    scored = spark.createDataFrame(frame).select(F.expr(own["expression"]).alias("score"))
    row = scored.select(F.avg("score"), F.min("score"), F.max("score")).collect()[0]
    assert list(row) == pytest.approx([own["mean"], own["lowest"], own["highest"]], rel=1e-8)


@pytest.mark.parametrize("column", ["id", "g", "x", "z"])
def test_bucket_numbers_are_terms(spark: SparkSession, frame: pd.DataFrame, column: str) -> None:
    number = HashBucket(column, 1009, 3)
    request = GramRequest(terms=(number, Column("z"), Linear((number, Constant()), (0.5, 1.0))))
    ours = gram(SparkEngine(spark.createDataFrame(frame))(request), request)
    expected = gram(PandasEngine(frame)(request), request)

    np.testing.assert_allclose(ours.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(ours.cross, expected.cross, rtol=1e-9)
