"""Weighting on Spark gives what it gives on pandas."""

from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.quasi import matching, weighting
from transforms.gram import SparkEngine


def rows(*, n: int = 2000) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    x, z = rng.normal(1e4, 3, n), rng.gamma(2, 2, n).round(1)
    kind = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-0.4 * (x - 1e4) + 0.2 * z))).astype(int)
    y = x + z + 2 * t + rng.normal(size=n)
    return pd.DataFrame(
        {"id": np.arange(n), "t": t, "x": x, "z": z, "kind": kind, "y": y, "g": np.arange(n) % 90}
    )


def assert_same(module: Any, name: str, options: dict[str, object], spark: SparkSession) -> None:
    design = {"outcome": "y", "treatment": "t", "covariates": ["x", "z"]}
    spec = validate(
        module.SPEC,
        {
            "name": "spark", "source": {"table": "rows"}, "method": name,
            "options": design | options,
        },
    )  # fmt: skip
    frame = rows()
    ours = run(module.estimate(spec), SparkEngine(spark.createDataFrame(frame)))
    expected = run(module.estimate(spec), PandasEngine(frame))

    numbers = ["estimate", "std_error"]
    np.testing.assert_allclose(ours.to_frame()[numbers], expected.to_frame()[numbers], rtol=1e-8)
    np.testing.assert_allclose(
        ours.tables["balance"]["smd"], expected.tables["balance"]["smd"], atol=1e-9
    )


def test_estimates_and_errors_are_those_of_pandas(spark: SparkSession) -> None:
    options = {"estimator": ["ipw", "aipw"], "categorical": {"kind": None}, "cluster": "g"}
    assert_same(weighting, "weighting", options, spark)


def test_matches_are_those_of_pandas(spark: SparkSession) -> None:
    assert_same(matching, "matching", {"unit": "id", "caliper": 0.2}, spark)
