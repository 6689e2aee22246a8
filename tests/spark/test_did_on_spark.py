"""`did` gives the same numbers on Spark and on pandas, balanced or not."""

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal.core.errors import DataError
from causal.core.frames import FrameRequest
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import did
from transforms.gram import SparkEngine

pytestmark = pytest.mark.spark

Engine = SparkEngine | PandasEngine


def make_panel(*, missing: float) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n, n_periods = 60, 6
    unit, t = np.repeat(np.arange(n), n_periods), np.tile(np.arange(n_periods), n)
    start = np.array([-1, 2, 3, 4])[unit % 4]
    frame = pd.DataFrame(
        {
            "id": unit,
            "t": t,
            "start": start,
            "ever": start == 3,
            "dose": np.where(start >= 0, 0.5 * (1 + unit % 5), 0.0),
            "region": np.array([f"r{r}" for r in range(9)])[unit % 9],
            "zone": np.array(["north", "south"])[unit % 2],
            "x": rng.normal(size=n * n_periods),
            "w": rng.uniform(0.5, 2.0, size=n * n_periods),
        }
    )
    frame["treated"] = (frame["start"] >= 0) & (frame["t"] >= frame["start"])
    frame["y"] = 1e4 + rng.normal(size=len(frame)) + frame["treated"] * 2.0 + 0.3 * frame["x"]
    return frame[rng.uniform(size=len(frame)) >= missing].reset_index(drop=True)


def on_spark(spark: SparkSession, frame: pd.DataFrame) -> SparkEngine:
    """Never-treated units get a null start, as a table of rollouts has it."""
    return SparkEngine(
        spark.createDataFrame(frame).selectExpr("*", "nullif(start, -1) AS first").repartition(3)
    )


def on_pandas(frame: pd.DataFrame) -> PandasEngine:
    return PandasEngine(frame.assign(first=frame["start"].where(frame["start"] >= 0)))


def analyse(engine: Engine, options: dict[str, object]) -> tuple[Result, list[FrameRequest]]:
    data = {
        "name": "same",
        "source": {"table": "t"},
        "method": "did",
        "options": {"unit": "id", "period": "t", "outcome": "y", **options},
    }
    asked: list[FrameRequest] = []
    plan = did.estimate(validate(did.SPEC, data))
    return run(plan, engine, on_request=lambda _, request: asked.append(request)), asked


CASES: list[tuple[float, dict[str, object]]] = [
    (0.0, {"estimator": "twfe", "first_treated_period": "first"}),
    (0.0, {"estimator": "event_study", "first_treated_period": "first", "cluster": "region"}),
    (0.2, {"estimator": "event_study", "first_treated_period": "first", "min_event_time": -3}),
    (
        0.2,
        {
            "estimator": "twfe", "first_treated_period": "start", "never_treated_value": -1,
            "weight": "w", "covariates": ["x"], "period_effects_by": "zone", "cluster": "region",
        },
    ),
    (0.2, {"estimator": "twfe", "treatment": "treated", "covariance": "classical"}),
    (
        0.0,
        {
            "estimator": "event_study", "first_treated_period": "first", "cluster": "region",
            "covariance": "CR3",
        },
    ),
    (
        0.2,
        {
            "estimator": "twfe", "treatment": "treated", "weight": "w", "covariates": ["x"],
            "cluster": "region", "wild_bootstrap": {},
        },
    ),
    (0.2, {"estimator": "twfe", "first_treated_period": "first", "cluster": ["region", "t"]}),
    (
        0.2,
        {
            "estimator": "event_study", "first_treated_period": "first", "weight": "w",
            "covariance": "driscoll_kraay", "lags": 1,
        },
    ),
    (0.2, {"estimator": "two_stage", "first_treated_period": "first", "cluster": "region"}),
    (
        0.2,
        {
            "estimator": "imputation", "first_treated_period": "start", "never_treated_value": -1,
            "leave_out": True,
        },
    ),
    (0.2, {"estimator": "event_study", "first_treated_period": "first", "family": "poisson"}),
    (0.2, {"estimator": "twfe", "group": "ever", "treatment_period": 3, "family": "poisson"}),
    (
        0.2,
        {
            "estimator": "dose_response", "dose": "dose", "treatment_period": 3, "dose_bins": [1],
            "cluster": "region",
        },
    ),
    (
        0.2,
        {
            "estimator": "dose_response", "dose": "dose", "treatment_period": 3, "dose_knots": [1],
            "weight": "w", "covariates": ["x"], "period_effects_by": "zone",
        },
    ),
    (0.2, {"estimator": "two_by_two", "group": "ever", "treatment_period": 3}),
    (0.2, {"estimator": "two_by_two", "group": "ever", "treatment_period": 3, "covariance": "HC1"}),
    (0.2, {"estimator": "two_by_two", "group": "ever", "treatment_period": 3, "balanced": True}),
]  # fmt: skip


@pytest.mark.parametrize(("missing", "options"), CASES)
def test_spark_and_pandas_agree(
    spark: SparkSession, missing: float, options: dict[str, object]
) -> None:
    frame = make_panel(missing=missing)
    found, asked = analyse(on_spark(spark, frame), options)
    expected, asked_too = analyse(on_pandas(frame), options)
    assert [type(a) for a in asked] == [type(b) for b in asked_too]
    pd.testing.assert_frame_equal(
        found.to_frame(), expected.to_frame(), check_exact=False, rtol=1e-8, atol=1e-9
    )
    assert [d.name for d in found.diagnostics] == [d.name for d in expected.diagnostics]
    for one, other in zip(found.diagnostics, expected.diagnostics, strict=True):
        if other.statistic is None:
            assert one.statistic is None
        else:
            assert one.statistic == pytest.approx(other.statistic, rel=1e-6)
    for name, table in expected.tables.items():
        pd.testing.assert_frame_equal(
            found.tables[name], table, check_exact=False, check_dtype=False, rtol=1e-7, atol=1e-8
        )


@pytest.mark.parametrize("family", ["linear", "poisson"])
def test_rows_without_a_unit_are_left_out_on_both(spark: SparkSession, family: str) -> None:
    frame = make_panel(missing=0.2)
    names = "u" + frame["id"].astype(str)
    frame["id"] = names.where(frame.index % 40 != 7, None)
    options = {"estimator": "event_study", "first_treated_period": "first", "family": family}
    found, _ = analyse(on_spark(spark, frame), options)
    expected, _ = analyse(on_pandas(frame), options)
    known = frame[frame["id"].notna()].reset_index(drop=True)
    without, _ = analyse(on_pandas(known), options)
    for other in (expected, without):
        pd.testing.assert_frame_equal(
            found.to_frame(), other.to_frame(), check_exact=False, rtol=1e-8, atol=1e-9
        )
    counted = next(d.statistic for d in found.diagnostics if d.name == "n_missing")
    assert counted == len(frame) - len(known)


def test_spark_refuses_what_pandas_refuses(spark: SparkSession) -> None:
    frame = make_panel(missing=0.0)
    options: dict[str, object] = {"estimator": "twfe", "first_treated_period": "first"}
    broken = {
        "one row": pd.concat([frame, frame.iloc[[5]]]),
        "must not change": frame.assign(start=frame["start"].mask(frame.index == 3, 2)),
        "same value": frame.assign(y=3.5),
        "no treated group": frame[frame["start"] < 0],
    }
    for says, rows in broken.items():
        with pytest.raises(DataError, match=says):
            analyse(on_spark(spark, rows), options)
