"""Every method gives on Spark what it gives on pandas, on the examples of its contract."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal.core import registry
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from tests.contracts.test_methods import (
    EXAMPLES,
    Example,
    ab_example,
    covariate_example,
    iv_example,
    ols_example,
    region_example,
    staggered_example,
)
from transforms.gram import SparkEngine

RATIO = {"name": "rate", "type": "ratio", "numerator": "minutes", "denominator": "before"}
COUNT = {
    "name": "places", "type": "count", "column": "household", "role": "guardrail",
    "direction": "increase", "margin": 5.0,
}  # fmt: skip


def dated(example: Example, *, is_time: bool) -> Example:
    """The same with a date or a point in time in place of each week."""
    frame = example.frame.copy()
    for name in ("week", "start"):
        weeks, is_given = frame[name].fillna(0).astype("int64"), frame[name].notna()
        points = pd.Timestamp("2025-01-06") + pd.to_timedelta(7 * weeks, unit="D")
        points = points.where(is_given)
        dates = points if is_time else points.dt.date.astype(object)
        frame[name] = dates.where(points.notna(), None)
    return dataclasses.replace(example, frame=frame)


MORE: Mapping[str, Example] = {
    "ab ratio by household": ab_example({}, metrics=[RATIO], cluster="household"),
    "ab count": ab_example({}, metrics=[COUNT, RATIO]),
    "ab winsorised, blocked": ab_example(
        {"winsorise": {"lower": 10, "upper": 40}, "covariates": ["before"]},
        strata=["tier"], stratification="blocked", relative_interval="fieller",
    ),
    "ab finite populations": ab_example(
        {}, population_sizes={"control": 1000, "treatment": 2000}
    ),
    "ab interaction": ab_example({}, interaction={"variant": "tier", "control": "basic"}),
    "ols two-way, weighted": ols_example(
        numeric=["invited"], cluster=["place", "kind"], weight="before"
    ),
    "iv two-way": iv_example(cluster=["place", "kind"], covariates=["before"]),
    "iv limited information, weighted": iv_example(estimator="liml", weight="before"),
    "staggered not yet treated": staggered_example(control_group="not_yet_treated"),
    "staggered unbalanced": dataclasses.replace(
        staggered_example(panel=False),
        frame=staggered_example().frame.sample(frac=0.7, random_state=1),
    ),
    "staggered of weighted rows": covariate_example(
        panel=False, unit=None, covariates=[], cluster="place", weights="share"
    ),
    "staggered weighted by odds, clusters, weights": covariate_example(
        adjustment="weighting", max_propensity=0.6, cluster="place", weights="share"
    ),
    "synthetic_control with predictors": region_example(
        "synthetic_control",
        special_predictors=[
            {"column": "minutes", "periods": [2]},
            {"column": "minutes", "first_period": 4, "last_period": 9},
        ],
    ),
    "synthetic_control of dates": dated(
        region_example(
            "synthetic_control",
            special_predictors=[
                {"column": "minutes", "periods": ["2025-01-20"]},
                {"column": "minutes", "first_period": "2025-02-03", "last_period": "2025-03-10"},
            ],
            placebo_period="2025-03-24",
        ),
        is_time=False,
    ),
    "synthetic_did of points in time": dated(
        region_example("synthetic_did", n_treated=2), is_time=True
    ),
    "synthetic_did bootstrap": region_example(
        "synthetic_did", n_treated=3, standard_errors="bootstrap", n_replications=50
    ),
}  # fmt: skip
CASES = {**EXAMPLES, **MORE}


def on_spark(spark: SparkSession, example: Example) -> Result:
    """The rows as a table has them: a missing value is a null, in three partitions."""
    missing = example.frame.columns[example.frame.isna().any()]
    rows = spark.createDataFrame(example.frame).replace(float("nan"), None, subset=[*missing])
    engine = SparkEngine(rows.repartition(3))
    return run(registry.method(example.method).estimate(example.spec), engine)


@pytest.mark.parametrize("example", CASES.values(), ids=CASES.keys())
def test_a_method_is_the_same_on_both_engines(spark: SparkSession, example: Example) -> None:
    expected = run(
        registry.method(example.method).estimate(example.spec), PandasEngine(example.frame)
    )

    found = on_spark(spark, example)

    pd.testing.assert_frame_equal(
        found.to_frame(), expected.to_frame(), check_exact=False, rtol=1e-7, atol=1e-9
    )
    assert [item.name for item in found.diagnostics] == [item.name for item in expected.diagnostics]
    for left, right in zip(found.diagnostics, expected.diagnostics, strict=True):
        assert left.passed == right.passed, left.name
        numbers = [(left.statistic, right.statistic), (left.pvalue, right.pvalue)]
        for mine, other in numbers:
            if other is None:
                assert mine is None, left.name
            else:
                np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-8, err_msg=left.name)
